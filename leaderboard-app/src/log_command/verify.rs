//! `leaderboard log verify`: is a directory what it was written as, and what would a start do with it?

use std::io::{self, Write};

use raft_core::{LogPosition, NodeId, Snapshot};
use raft_wal::inspect::{Fate, Inspection, Opening, Record, Start};
use raft_wal::{Damage, OpenError};
use serde::Serialize;

use super::progress::Progress;
use super::records::MembersField;
use super::table::{self, FileField};
use super::{LogError, Out, Output, VerifyArgs, holds_no_log, open, text};
use crate::cli::{DISK_FAILURE, REFUSED_FOR_SAFETY};

/// Where text is wrapped if it does not go to a terminal.
const COLUMNS: usize = 80;
/// How far the text of the last lines stands from the left.
const INDENT: usize = 9;

/// Checks it, tells what it found; the exit code.
pub(super) fn run<W: Write>(args: &VerifyArgs, out: &mut Out<W>) -> Result<u8, LogError> {
    let (inspector, progress) = Progress::watch(open(&args.dir)?);
    let inspection = inspector.inspect()?;
    let Some(verdict) = Verdict::of(&inspection) else { return Err(holds_no_log(&args.dir)) };
    let accepted = match &inspection.start {
        Start::Refuse(OpenError::Corrupt { .. }) => inspector.accepting_data_loss().inspect().ok(),
        _ => None,
    };
    drop(progress);
    let accepted = accepted.and_then(|inspection| match inspection.start {
        Start::Open(opening) => Some(opening),
        _ => None,
    });
    let found = Found { inspection: &inspection, verdict, accepted: accepted.as_deref() };
    match args.output {
        Output::Json => out.json(&found.json())?,
        Output::Text => found.tell(out)?,
    }
    Ok(verdict.exit_code())
}

/// What an inspection comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Sound,
    Torn,
    Damaged,
    Limping,
    Refused,
    Unreadable,
}

impl Verdict {
    /// `None` if there is no log.
    fn of(inspection: &Inspection) -> Option<Self> {
        Some(match &inspection.start {
            Start::Refuse(error) if error.is_disk_failure() => Self::Unreadable,
            Start::Refuse(_) => Self::Refused,
            Start::Open(opening) if opening.report.limping => Self::Limping,
            Start::Open(_) if !inspection.is_sound() => Self::Damaged,
            Start::Open(opening) if opening.report.torn_bytes > 0 => Self::Torn,
            Start::Open(_) => Self::Sound,
            _ => return None,
        })
    }

    fn exit_code(self) -> u8 {
        match self {
            Self::Sound | Self::Torn => 0,
            Self::Damaged | Self::Limping | Self::Refused => REFUSED_FOR_SAFETY,
            Self::Unreadable => DISK_FAILURE,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Torn => {
                "sound, with a torn write at its end, which a power cut or a kill leaves behind"
            }
            Self::Damaged => "damaged, but nothing that is needed is lost",
            Self::Limping => {
                "damaged, and entries are lost here that this node may have acknowledged"
            }
            Self::Refused => "a node does not start on this",
            Self::Unreadable => "not all of it can be read",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Sound | Self::Torn => "nothing",
            Self::Damaged => {
                "start the node, it repairs this by itself; then check the disk (kernel log, SMART): \
                 something that was written has changed"
            }
            Self::Limping => {
                "keep a copy of the directory, then start the node while the others have a leader: it is \
                 filled up by itself; and check the disk (kernel log, SMART): something that was \
                 written has changed"
            }
            Self::Refused => "keep a copy of the directory, then do what the message says",
            Self::Unreadable => {
                "check the disk and the permissions; if only some sectors are bad, copy what can be \
                 read and verify the copy"
            }
        }
    }
}

struct Found<'a> {
    inspection: &'a Inspection,
    verdict: Verdict,
    /// What a start would do that was told to accept the loss of data, if only that one would start.
    accepted: Option<&'a Opening>,
}

impl Found<'_> {
    fn tell<W: Write>(&self, out: &mut Out<W>) -> io::Result<()> {
        let inspection = self.inspection;
        if let Some(identity) = &inspection.identity {
            let (owner, version) = (&identity.identity, identity.format_version);
            let members = inspection.members.as_ref();
            let members = members.map(|members| format!(", members {members}")).unwrap_or_default();
            out.line(&format!("cluster {:?}, node {}{members}", owner.cluster, owner.node))?;
            out.line(&format!("format {version}, directory {:032x}", owner.incarnation))?;
            out.line("")?;
        }
        out.line(&table::head())?;
        for row in inspection.files.iter().filter_map(table::row) {
            out.line(&row)?;
        }
        out.line("")?;
        let refusal = match &inspection.start {
            Start::Refuse(error) => error.to_string(),
            _ => String::new(),
        };
        let damages = inspection.damages.iter().map(ToString::to_string);
        // Once is enough.
        for damage in damages.filter(|damage| !refusal.contains(damage)) {
            out.paragraph("damage", INDENT, &damage, COLUMNS)?;
        }
        for (label, told) in self.last_words() {
            out.paragraph(label, INDENT, &told, COLUMNS)?;
        }
        Ok(())
    }

    fn last_words(&self) -> Vec<(&'static str, String)> {
        let mut words = vec![("verdict", self.verdict.text().to_owned())];
        match &self.inspection.start {
            Start::Open(opening) => {
                words.push(("start", what_opening_does(opening)));
                for (fate, told) in
                    [(Fate::PutAside, "puts aside, as .broken:"), (Fate::Removed, "removes")]
                {
                    let files = self.inspection.files.iter().filter(|file| file.fate == fate);
                    let names: Vec<_> = files.map(|file| file.name.as_str()).collect();
                    if !names.is_empty() {
                        words.push(("", format!("{told} {}", names.join(", "))));
                    }
                }
            }
            Start::Refuse(error) => words.push(("start", format!("is refused: {error}"))),
            // There would be no verdict.
            _ => {}
        }
        if let Some(opening) = self.accepted {
            let what = what_opening_does(opening);
            words.push(("", format!("with --accept-data-loss it {what}")));
        }
        words.push(("to do", self.verdict.advice().to_owned()));
        words
    }

    fn json(&self) -> Report<'_> {
        let inspection = self.inspection;
        let start = match &inspection.start {
            Start::Open(opening) => StartField::Opens(OpeningField::of(opening)),
            Start::Refuse(error) => StartField::Refused { message: error.to_string() },
            _ => StartField::Begins,
        };
        Report {
            kind: "verification",
            verdict: self.verdict,
            exit_code: self.verdict.exit_code(),
            advice: self.verdict.advice(),
            start,
            with_accept_data_loss: self.accepted.map(OpeningField::of),
            damages: inspection.damages.iter().map(DamageField::of).collect(),
            cluster: inspection.identity.as_ref().map(|it| it.identity.cluster.as_str()),
            node: inspection.identity.as_ref().map(|it| it.identity.node.get()),
            directory: inspection
                .identity
                .as_ref()
                .map(|it| format!("{:032x}", it.identity.incarnation)),
            format_version: inspection.identity.as_ref().map(|it| it.format_version),
            members: inspection.members.as_ref().map(MembersField::of),
            files: inspection.files.iter().map(FileField::of).collect(),
        }
    }
}

/// A sentence that follows on "a start".
fn what_opening_does(opening: &Opening) -> String {
    let Opening { report, hard_state, lost, base, last, snapshot, .. } = opening;
    let vote = Record::HardState(*hard_state);
    if report.created {
        return "goes on with the first start, which was cut short: the log begins anew, and nothing had \
                been promised"
            .to_owned();
    }
    let mut clauses = Vec::new();
    if report.torn_bytes > 0 {
        let bytes = text::count(report.torn_bytes, "byte");
        clauses.push(format!("drops a torn write of {bytes}, which was never acknowledged"));
    }
    let entries = match report.entries {
        1 => "1 entry".to_owned(),
        entries => format!("{entries} entries"),
    };
    let kept = format!("{vote} and {entries} behind {base}, up to {last}");
    let from = |snapshot: &Snapshot| format!(", with the snapshot {}", snapshot.id());
    let snapshot_told = snapshot.as_ref().map(from).unwrap_or_default();
    if report.limping && *lost == LogPosition::ZERO {
        clauses.push(format!("keeps {kept}{snapshot_told}, and forgets what came behind"));
    } else if report.limping {
        clauses.push(format!(
            "comes back limping with {kept}{snapshot_told}; what it had up to {lost} may be lost, so until \
             a leader has filled it up to there it leads nobody, and votes only for those who have as much"
        ));
    } else if opening.begins_behind_snapshot {
        clauses.push(format!(
            "goes on behind the snapshot, which takes the place of the log, with {kept}"
        ));
    } else {
        clauses.push(format!("opens the log with {kept}{snapshot_told}"));
        if *lost != LogPosition::ZERO && last < lost {
            clauses.push(format!(
                "goes on limping, since entries up to {lost} may have been lost in an earlier repair"
            ));
        }
    }
    clauses.join("; ")
}

/// A verification for programs.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    verdict: Verdict,
    exit_code: u8,
    advice: &'static str,
    start: StartField,
    with_accept_data_loss: Option<OpeningField>,
    damages: Vec<DamageField<'a>>,
    cluster: Option<&'a str>,
    node: Option<u64>,
    directory: Option<String>,
    format_version: Option<u32>,
    members: Option<MembersField>,
    files: Vec<FileField<'a>>,
}

/// What a start would do.
#[derive(Serialize)]
#[serde(tag = "does", rename_all = "snake_case")]
enum StartField {
    Begins,
    Opens(OpeningField),
    Refused { message: String },
}

#[derive(Serialize)]
struct OpeningField {
    limping: bool,
    begins_behind_snapshot: bool,
    torn_bytes: u64,
    entries: u64,
    term: u64,
    voted_for: Option<u64>,
    base_index: u64,
    base_term: u64,
    last_index: u64,
    last_term: u64,
    lost_index: u64,
    lost_term: u64,
    snapshot_index: Option<u64>,
}

impl OpeningField {
    fn of(opening: &Opening) -> Self {
        Self {
            limping: opening.report.limping,
            begins_behind_snapshot: opening.begins_behind_snapshot,
            torn_bytes: opening.report.torn_bytes,
            entries: opening.report.entries,
            term: opening.hard_state.term.0,
            voted_for: opening.hard_state.voted_for.map(NodeId::get),
            base_index: opening.base.index.0,
            base_term: opening.base.term.0,
            last_index: opening.last.index.0,
            last_term: opening.last.term.0,
            lost_index: opening.lost.index.0,
            lost_term: opening.lost.term.0,
            snapshot_index: opening.snapshot.as_ref().map(|snapshot| snapshot.index().0),
        }
    }
}

#[derive(Serialize)]
struct DamageField<'a> {
    file: &'a str,
    offset: u64,
    what: &'a str,
}

impl<'a> DamageField<'a> {
    fn of(damage: &'a Damage) -> Self {
        let Damage { file, offset, what } = damage;
        Self { file, offset: *offset, what }
    }
}
