//! Reads an envelope from the notation in which the core writes it, for messages made by hand.

use bytes::Bytes;
use raft_core::{
    AppendOutcome, Ballot, BallotKind, Entry, Envelope, GroupId, Incarnation, LogBase, LogIndex,
    LogPosition, Membership, Message, NodeId, Payload, QuestionId, Round, Snapshot, SnapshotId,
    Term, Timestamp,
};

/// `n2@1 → n1 RequestVote last=0@0`. What the notation leaves out can be added anywhere: `group=N`
/// (else 0), `incarnation=N` (else 0), for votes and read indexes whose question it is, `life=N` and
/// `campaign=N` (else 1), and for a snapshot its `digest=N` and `membership_index=N` (else 0).
pub fn envelope(text: &str) -> Result<Envelope, String> {
    let text = text.trim();
    let (plain, extra) = split_extra(text);
    let words: Vec<&str> = plain.split_whitespace().collect();
    let [from, "→", to, name, rest @ ..] = words.as_slice() else {
        return Err(format!("a message is like `n2@1 → n1 RequestVote last=0@0`, not `{text}`"));
    };
    let (from, term) = from.split_once('@').ok_or("the sender is like n2@1")?;
    let life = extra_number(&extra, "life")?.unwrap_or(1);
    let campaign = QuestionId { life, number: extra_number(&extra, "campaign")?.unwrap_or(1) };
    let envelope = Envelope {
        group: GroupId(extra_number(&extra, "group")?.unwrap_or(0)),
        from: node(from)?,
        to: node(to)?,
        term: Term(number(term)?),
        incarnation: Incarnation(extra_number(&extra, "incarnation")?.unwrap_or(0)),
        message: message(
            name,
            rest,
            &Extra {
                campaign,
                digest: extra_number(&extra, "digest")?.unwrap_or(0).into(),
                membership_index: LogIndex(extra_number(&extra, "membership_index")?.unwrap_or(0)),
            },
        )?,
    };
    if envelope.to_string() != plain {
        return Err(format!("`{plain}` reads as `{envelope}`"));
    }
    Ok(envelope)
}

const EXTRA: [&str; 6] = ["group", "life", "campaign", "incarnation", "digest", "membership_index"];

/// What the notation leaves out.
struct Extra {
    campaign: QuestionId,
    digest: u128,
    membership_index: LogIndex,
}

/// The message as the core would write it, and what was added to it.
fn split_extra(text: &str) -> (String, Vec<&str>) {
    let (extra, plain): (Vec<&str>, Vec<&str>) = text.split_whitespace().partition(|word| {
        EXTRA.iter().any(|key| word.split_once('=').is_some_and(|(name, _)| name == *key))
    });
    (plain.join(" "), extra)
}

fn extra_number(extra: &[&str], key: &str) -> Result<Option<u64>, String> {
    let value = extra.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.map(number).transpose()
}

fn message(name: &str, rest: &[&str], extra: &Extra) -> Result<Message, String> {
    Ok(match name {
        "AppendEntries" | "AppendEntriesReply" => replication(name, rest)?,
        "ReadIndex" => {
            let ticket = ticket(name, rest, extra)?;
            Message::ReadIndex { ticket, lease: rest.contains(&"lease") }
        }
        "ReadIndexReply" => {
            let ticket = ticket(name, rest, extra)?;
            Message::ReadIndexReply { ticket, index: index(name, rest, "index").ok() }
        }
        "InstallSnapshot" | "SnapshotRequest" | "SnapshotChunk" => snapshot(name, rest, extra)?,
        "TimeoutNow" => Message::TimeoutNow,
        _ => election(name, rest, extra)?,
    })
}

fn election(name: &str, rest: &[&str], extra: &Extra) -> Result<Message, String> {
    let (kind, is_reply) = match name.strip_suffix("Reply") {
        Some(kind) => (kind, true),
        None => (name, false),
    };
    let kind = match kind {
        "RequestVote" => BallotKind::Vote,
        "PreVote" => BallotKind::PreVote,
        "TransferVote" => BallotKind::Transfer,
        _ => return Err(format!("there is no message {name}")),
    };
    let ballot = Ballot { kind, campaign: extra.campaign };
    if is_reply {
        return Ok(Message::RequestVoteReply { ballot, granted: rest.contains(&"granted") });
    }
    Ok(Message::RequestVote { ballot, last: position(field(name, rest, "last")?)? })
}

fn replication(name: &str, rest: &[&str]) -> Result<Message, String> {
    let round = Round(number(field(name, rest, "round")?)?);
    if name == "AppendEntries" {
        return Ok(Message::AppendEntries {
            prev: position(field(name, rest, "prev")?)?,
            entries: entries(rest)?.into(),
            commit: index(name, rest, "commit")?,
            round,
        });
    }
    let outcome = if rest.contains(&"refused") {
        let hint = position(field(name, rest, "hint")?)?;
        AppendOutcome::Refused { prev: index(name, rest, "prev")?, hint }
    } else {
        let durable = index(name, rest, "durable")?;
        let received = index(name, rest, "received").unwrap_or(durable);
        AppendOutcome::Accepted { durable, received }
    };
    Ok(Message::AppendEntriesReply { round, outcome })
}

fn snapshot(name: &str, rest: &[&str], extra: &Extra) -> Result<Message, String> {
    let Some((id, rest)) = rest.split_first() else {
        return Err(format!("{name} needs a snapshot such as 8@2/38"));
    };
    let (at, length) = id.split_once('/').ok_or("a snapshot is like 8@2/38")?;
    let (at, length, digest) = (position(at)?, number(length)?, extra.digest);
    if name == "InstallSnapshot" {
        let base = LogBase {
            position: at,
            timestamp: Timestamp(0),
            membership: membership(&rest.join(" "))?,
            membership_index: extra.membership_index,
        };
        return Ok(Message::InstallSnapshot { snapshot: Snapshot { base, length, digest } });
    }
    let snapshot = SnapshotId { position: at, length, digest };
    let offset = number(field(name, rest, "offset")?)?;
    if name == "SnapshotRequest" {
        return Ok(Message::SnapshotRequest { snapshot, offset });
    }
    let bytes = if rest.contains(&"gone") {
        None
    } else {
        let count = number(field(name, rest, "bytes")?)?;
        Some(vec![0; usize::try_from(count).map_err(|error| error.to_string())?].into())
    };
    Ok(Message::SnapshotChunk { snapshot, offset, bytes })
}

fn field<'a>(name: &str, rest: &[&'a str], key: &str) -> Result<&'a str, String> {
    let value = rest.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.ok_or_else(|| format!("{name} needs {key}="))
}

fn index(name: &str, rest: &[&str], key: &str) -> Result<LogIndex, String> {
    field(name, rest, key).and_then(number).map(LogIndex)
}

fn ticket(name: &str, rest: &[&str], extra: &Extra) -> Result<QuestionId, String> {
    let ticket = rest.first().and_then(|word| word.strip_prefix('#'));
    let number = number(ticket.ok_or_else(|| format!("{name} needs #NUMBER"))?)?;
    Ok(QuestionId { life: extra.campaign.life, number })
}

/// `{n1 n2 from n1 n3 learning n4}`.
pub fn membership(text: &str) -> Result<Membership, String> {
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let mut lists = [Vec::new(), Vec::new(), Vec::new()];
    let mut list = 0;
    for word in inner.ok_or("members are like {n1 n2}")?.split_whitespace() {
        match word {
            "from" => list = 1,
            "learning" => list = 2,
            id => lists[list].push(node(id)?),
        }
    }
    let [voters, outgoing, learners] = lists;
    Membership::from_parts(voters, outgoing, learners).map_err(|error| error.to_string())
}

/// `[1@1 2@1=a 3@1={n1 n2}]`, at the end.
fn entries(words: &[&str]) -> Result<Vec<Entry>, String> {
    let start =
        words.iter().position(|word| word.starts_with('[')).ok_or("entries are like [1@1]")?;
    let text = words[start..].join(" ");
    let mut rest = text.trim_matches(['[', ']']);
    let mut entries = Vec::new();
    while !rest.is_empty() {
        // A space within braces separates members, not entries.
        let mut depth = 0;
        let end = rest.find(|letter| {
            depth += i32::from(letter == '{') - i32::from(letter == '}');
            letter == ' ' && depth == 0
        });
        let (first, others) = rest.split_at(end.unwrap_or(rest.len()));
        entries.push(entry(first)?);
        rest = others.trim_start();
    }
    Ok(entries)
}

fn entry(text: &str) -> Result<Entry, String> {
    let (at, payload) = match text.split_once('=') {
        Some((at, members)) if members.starts_with('{') => {
            (at, Payload::Membership(membership(members)?))
        }
        Some((at, command)) => (at, Payload::Command(Bytes::copy_from_slice(command.as_bytes()))),
        None => (text, Payload::Noop),
    };
    let LogPosition { term, index } = position(at)?;
    Ok(Entry { index, term, timestamp: Timestamp(0), payload })
}

fn position(text: &str) -> Result<LogPosition, String> {
    let (index, term) = text.split_once('@').ok_or_else(|| format!("no position: {text}"))?;
    Ok(LogPosition::new(Term(number(term)?), LogIndex(number(index)?)))
}

fn node(text: &str) -> Result<NodeId, String> {
    let id = text.strip_prefix('n').map(number).transpose()?.and_then(NodeId::new);
    id.ok_or_else(|| format!("a node is like n1, not {text}"))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}
