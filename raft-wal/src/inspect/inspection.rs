//! What an inspection found.

use raft_core::{Entry, HardState, Incarnation, LogPosition, Membership, Snapshot};

use super::{SegmentSummary, unknown_members};
use crate::error::OpenError;
use crate::format::FORMAT_VERSION;
use crate::identity::{Identity, Stored};
use crate::recovery::plan::Plan;
use crate::recovery::{Damage, RecoveryReport, is_put_aside};

/// All that [`Inspector::inspect`](super::Inspector::inspect) found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// Whose directory it is, if that can be read.
    pub identity: Option<IdentitySummary>,
    /// The members as of the end of the log, both halves in a joint phase; `None` if no segment tells.
    pub members: Option<Membership>,
    /// All files, in the order of their names.
    pub files: Vec<FileSummary>,
    /// Every place that is not as it was written, needed or not; damaged copies of headers and of the
    /// identity are not among them, because the other copy stands for them.
    pub damages: Vec<Damage>,
    /// What a start would do.
    pub start: Start,
}

/// What the file `IDENTITY` says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdentitySummary {
    /// Whose log it is.
    pub identity: Identity,
    /// Was the log ever opened completely? From then on a log without segments is a lost one.
    pub established: bool,
    /// Are both copies of it whole?
    pub intact: bool,
    /// The version of the format.
    pub format_version: u32,
}

/// What a snapshot file says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DescribedSnapshot {
    /// The name of the file.
    pub name: String,
    /// What it says, or what is wrong with that.
    pub content: Result<Snapshot, String>,
}

/// One file of the directory.
#[derive(Debug)]
#[non_exhaustive]
pub struct FileSummary {
    /// Its name.
    pub name: String,
    /// Its length in bytes; `None` for what is none of ours or could not be read.
    pub bytes: Option<u64>,
    /// What it is.
    pub kind: FileKind,
    /// What a start would do with it.
    pub fate: Fate,
}

/// What a file is, by its name and its content.
#[derive(Debug)]
#[non_exhaustive]
pub enum FileKind {
    /// `LOCK`, which keeps two processes apart.
    Lock,
    /// `IDENTITY`: whole, or with one of its two copies damaged, or what is wrong with it.
    Identity(Result<(), String>),
    /// A part of the log.
    Segment(SegmentSummary),
    /// A part of the log of which a newer segment holds a copy: it means nothing any more.
    Replaced,
    /// The state machine as of a position: what the file holds, or what is wrong with it.
    Snapshot(Result<Snapshot, String>),
    /// What an interrupted run was about to write.
    Temporary,
    /// A damaged file that an earlier start has put aside.
    PutAside,
    /// It could not be read, or cannot be judged.
    Unreadable(String),
    /// None of ours.
    Foreign,
}

/// What a start would do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It stays as it is.
    Stays,
    /// What counts of it is written again, into a segment that takes its place.
    WrittenAgain,
    /// It is removed: it means nothing any more.
    Removed,
    /// It gets the ending `.broken`.
    PutAside,
}

/// What a start would do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Start {
    /// There is no log: it begins one.
    Begin,
    /// It opens what there is.
    Open(Box<Opening>),
    /// It changes nothing, except that temporary files may go, and says this.
    Refuse(OpenError),
}

/// How a start would open the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opening {
    /// What the start would report; in it whether the node comes back limping.
    pub report: RecoveryReport,
    /// The vote.
    pub hard_state: HardState,
    /// Which of its disks the node would say that it runs on.
    pub incarnation: Incarnation,
    /// The last entry that may have been acknowledged and was lost, now or in an earlier repair;
    /// `0@0` if none was.
    pub lost: LogPosition,
    /// What the log would stand on.
    pub base: LogPosition,
    /// The last entry that would be there; the base if there is none.
    pub last: LogPosition,
    /// The snapshot that the state machine would be restored from.
    pub snapshot: Option<Snapshot>,
    /// Does the log begin anew behind the snapshot, because that takes the place of all segments?
    pub begins_behind_snapshot: bool,
}

impl IdentitySummary {
    pub(super) fn of(stored: &Stored, intact: bool) -> Self {
        Self {
            identity: stored.identity.clone(),
            established: stored.established,
            intact,
            format_version: FORMAT_VERSION,
        }
    }
}

impl Inspection {
    /// Takes over what a start is going to do.
    pub(super) fn expect(&mut self, plan: &Plan) {
        let at_end = plan.log.state.end().membership;
        if at_end != unknown_members() {
            self.members = Some(at_end);
        }
        for file in &mut self.files {
            file.fate = fate_in(plan, &file.name);
        }
    }

    /// They go as soon as it is known whose directory it is.
    pub(super) fn expect_temporary_files_to_go(&mut self) {
        for file in self.files.iter_mut().filter(|file| matches!(file.kind, FileKind::Temporary)) {
            file.fate = Fate::Removed;
        }
    }

    /// What is wrong with whole files, if it is not known yet.
    pub(super) fn damages_of_files(&self, known: &[Damage]) -> Vec<Damage> {
        let damage = |file: &FileSummary| {
            let what = match &file.kind {
                FileKind::Snapshot(Err(what)) | FileKind::Unreadable(what) => what.clone(),
                FileKind::Identity(Err(what)) if self.identity.is_none() => what.clone(),
                _ => return None,
            };
            Some(Damage { file: file.name.clone(), offset: 0, what })
        };
        self.files.iter().filter_map(damage).filter(|damage| !known.contains(damage)).collect()
    }

    /// Is everything as it was written, and all of it there? A torn end is: a power cut leaves it, and
    /// nobody was promised what is lost with it.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let copies_damaged = self.files.iter().any(|file| match &file.kind {
            FileKind::Identity(identity) => identity.is_err(),
            FileKind::Segment(segment) => segment.header_copies == 1,
            _ => false,
        });
        self.damages.is_empty() && !copies_damaged && !matches!(self.start, Start::Refuse(_))
    }
}

impl Opening {
    pub(super) fn of(plan: &Plan, identity_intact: bool) -> Self {
        let Plan { restored, rewritten, report, .. } = plan;
        let mut report = report.clone();
        report.conclude(restored, identity_intact);
        let base = restored.base.position;
        Self {
            report,
            hard_state: restored.hard_state,
            incarnation: restored.incarnation,
            lost: restored.lost,
            base,
            last: restored.entries.last().map_or(base, Entry::position),
            snapshot: restored.snapshot.clone(),
            begins_behind_snapshot: rewritten.is_none() && restored.snapshot.is_some(),
        }
    }
}

fn fate_in(plan: &Plan, name: &String) -> Fate {
    if plan.rewritten.as_ref() == Some(name) && !plan.broken.contains(name) {
        Fate::WrittenAgain
    } else if plan.obsolete.contains(name) {
        Fate::Removed
    } else if plan.broken.contains(name) {
        Fate::PutAside
    } else if !plan.broken.is_empty() && is_put_aside(name) {
        Fate::Removed
    } else {
        Fate::Stays
    }
}
