//! Records as lines, of text or of JSON.

use raft_core::{Entry, HardState, LogBase, LogIndex, Membership, NodeId, Payload};
use raft_wal::inspect::{LocatedRecord, Record};
use serde::Serialize;

use super::text;
use crate::command::{AddVote, Command};

/// How many bytes of a command that cannot be read are shown to people.
const UNKNOWN_BYTES_SHOWN: usize = 16;

/// The index that a record is about; `None` for votes, which are about none.
pub(super) fn index(record: &Record) -> Option<LogIndex> {
    match record {
        Record::Entry(entry) => Some(entry.index),
        Record::Truncate(from) => Some(*from),
        Record::Reset(base) | Record::Compacted(base) => Some(base.position.index),
        Record::HardState(_) | Record::Seal(_) => None,
    }
}

/// A record for people: where it stands, and what it says, commands as the leaderboard reads them.
pub(super) fn line(located: &LocatedRecord) -> String {
    let LocatedRecord { offset, group, record } = located;
    // There is one group as long as there is one board.
    let group = if group.0 == 0 { String::new() } else { format!("{group} ") };
    let what = match record {
        Record::Entry(entry) => {
            let Entry { timestamp, payload, .. } = entry;
            let position = entry.position().to_string();
            // A leader's first entry may be older than any clock that it has seen.
            let time = if timestamp.0 == 0 { "-".to_owned() } else { text::time(timestamp.0) };
            format!("{position:<9}  {time:<24}  {}", payload_text(payload))
        }
        other => other.to_string(),
    };
    format!("{offset:>8}  {group}{what}")
}

fn payload_text(payload: &Payload) -> String {
    match payload {
        Payload::Noop => "no-op".to_owned(),
        Payload::Membership(membership) => format!("members {membership}"),
        Payload::Command(bytes) => match Command::decode(bytes) {
            Ok(Command::AddVote(AddVote { board, player, delta, idempotency })) => {
                let (board, player) = (text::word(board.as_str()), text::word(player.as_str()));
                let delta = delta.get();
                let key = idempotency.map(|it| format!("  key={}", text::word(it.key.as_str())));
                format!("add_vote {board} {player} {delta:+}{}", key.unwrap_or_default())
            }
            Err(error) => {
                let shown = &bytes[..bytes.len().min(UNKNOWN_BYTES_SHOWN)];
                let more = if shown.len() < bytes.len() { "…" } else { "" };
                let length = text::count(bytes.len() as u64, "byte");
                format!("0x{}{more} ({length}: {error})", text::hex(shown))
            }
        },
    }
}

/// A record for programs.
#[derive(Serialize)]
pub(super) struct RecordLine<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    segment: &'a str,
    offset: u64,
    group: u64,
    #[serde(flatten)]
    what: RecordFields,
}

#[derive(Serialize)]
#[serde(untagged)]
enum RecordFields {
    Vote { term: u64, voted_for: Option<u64> },
    Truncate { from: u64 },
    Seal { next: u64 },
    Base { index: u64, term: u64, timestamp_ms: u64, members: MembersField },
    Entry(EntryFields),
}

#[derive(Serialize)]
struct EntryFields {
    index: u64,
    term: u64,
    timestamp_ms: u64,
    #[serde(flatten)]
    payload: PayloadFields,
}

#[derive(Serialize)]
#[serde(untagged)]
enum PayloadFields {
    Noop {},
    Members { members: MembersField },
    Command { bytes: u64, command: CommandField },
    Unknown { bytes: u64, command: (), hex: String, error: String },
}

/// A command as the leaderboard reads it.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum CommandField {
    AddVote { board: String, player: String, delta: i64, key: Option<String> },
}

/// Members, by their numbers.
#[derive(Serialize)]
pub(super) struct MembersField {
    voters: Vec<u64>,
    /// In a joint phase, the voters that are being left.
    outgoing: Vec<u64>,
    learners: Vec<u64>,
}

impl MembersField {
    pub(super) fn of(membership: &Membership) -> Self {
        let ids = |nodes: &[NodeId]| nodes.iter().map(|id| id.get()).collect();
        Self {
            voters: ids(membership.voters()),
            outgoing: ids(membership.outgoing()),
            learners: ids(membership.learners()),
        }
    }
}

impl<'a> RecordLine<'a> {
    pub(super) fn of(segment: &'a str, located: LocatedRecord) -> Self {
        let LocatedRecord { offset, group, record } = located;
        let (kind, what) = match record {
            Record::HardState(HardState { term, voted_for }) => {
                let voted_for = voted_for.map(NodeId::get);
                ("vote", RecordFields::Vote { term: term.0, voted_for })
            }
            Record::Truncate(from) => ("truncate", RecordFields::Truncate { from: from.0 }),
            Record::Seal(next) => ("seal", RecordFields::Seal { next }),
            Record::Reset(base) => ("snapshot_installed", RecordFields::of_base(&base)),
            Record::Compacted(base) => ("compacted", RecordFields::of_base(&base)),
            Record::Entry(entry) => {
                let (kind, fields) = entry_fields(entry);
                (kind, RecordFields::Entry(fields))
            }
        };
        Self { kind, segment, offset, group: group.0, what }
    }
}

impl RecordFields {
    fn of_base(base: &LogBase) -> Self {
        Self::Base {
            index: base.position.index.0,
            term: base.position.term.0,
            timestamp_ms: base.timestamp.0,
            members: MembersField::of(&base.membership),
        }
    }
}

fn entry_fields(entry: Entry) -> (&'static str, EntryFields) {
    let Entry { index, term, timestamp, payload } = entry;
    let (kind, payload) = match payload {
        Payload::Noop => ("noop", PayloadFields::Noop {}),
        Payload::Membership(membership) => {
            ("members", PayloadFields::Members { members: MembersField::of(&membership) })
        }
        Payload::Command(bytes) => {
            let length = bytes.len() as u64;
            let payload = match Command::decode(&bytes) {
                Ok(command) => PayloadFields::Command { bytes: length, command: command.into() },
                Err(error) => PayloadFields::Unknown {
                    bytes: length,
                    command: (),
                    hex: text::hex(&bytes),
                    error: error.to_string(),
                },
            };
            ("command", payload)
        }
    };
    (kind, EntryFields { index: index.0, term: term.0, timestamp_ms: timestamp.0, payload })
}

impl From<Command> for CommandField {
    fn from(command: Command) -> Self {
        let Command::AddVote(AddVote { board, player, delta, idempotency }) = command;
        Self::AddVote {
            board: board.as_str().to_owned(),
            player: player.as_str().to_owned(),
            delta: delta.get(),
            key: idempotency.map(|it| it.key.as_str().to_owned()),
        }
    }
}
