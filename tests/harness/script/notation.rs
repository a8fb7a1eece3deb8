//! Reads an envelope from the notation in which the core writes it, for messages made by hand.

use bytes::Bytes;
use raft_core::{
    AppendOutcome, Ballot, BallotKind, Entry, Envelope, GroupId, Incarnation, LogIndex,
    LogPosition, Message, NodeId, Payload, QuestionId, Round, Term, Timestamp,
};

/// `n2@1 → n1 RequestVote last=0@0`. What the notation leaves out can be added anywhere: `group=N`
/// (else 0), `incarnation=N` (else 0), and for votes and read indexes whose question it is, `life=N`
/// and `campaign=N` (else 1).
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
        message: message(name, rest, campaign)?,
    };
    if envelope.to_string() != plain {
        return Err(format!("`{plain}` reads as `{envelope}`"));
    }
    Ok(envelope)
}

/// The message as the core would write it, and what was added to it.
fn split_extra(text: &str) -> (String, Vec<&str>) {
    let (extra, plain): (Vec<&str>, Vec<&str>) = text.split_whitespace().partition(|word| {
        ["group=", "life=", "campaign=", "incarnation="].iter().any(|key| word.starts_with(key))
    });
    (plain.join(" "), extra)
}

fn extra_number(extra: &[&str], key: &str) -> Result<Option<u64>, String> {
    let value = extra.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.map(number).transpose()
}

fn message(name: &str, rest: &[&str], campaign: QuestionId) -> Result<Message, String> {
    let field = |key: &str| {
        let value = rest.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        value.ok_or_else(|| format!("{name} needs {key}="))
    };
    let index = |key: &str| field(key).and_then(number).map(LogIndex);
    let round = || field("round").and_then(number).map(Round);
    let ticket = || {
        let ticket = rest.first().and_then(|word| word.strip_prefix('#'));
        let number = number(ticket.ok_or_else(|| format!("{name} needs #NUMBER"))?)?;
        Ok::<_, String>(QuestionId { life: campaign.life, number })
    };
    let vote = Ballot { kind: BallotKind::Vote, campaign };
    let pre_vote = Ballot { kind: BallotKind::PreVote, campaign };
    let granted = rest.contains(&"granted");
    Ok(match name {
        "RequestVote" => Message::RequestVote { ballot: vote, last: position(field("last")?)? },
        "PreVote" => Message::RequestVote { ballot: pre_vote, last: position(field("last")?)? },
        "RequestVoteReply" => Message::RequestVoteReply { ballot: vote, granted },
        "PreVoteReply" => Message::RequestVoteReply { ballot: pre_vote, granted },
        "AppendEntries" => Message::AppendEntries {
            prev: position(field("prev")?)?,
            entries: entries(rest)?,
            commit: index("commit")?,
            round: round()?,
        },
        "AppendEntriesReply" if rest.contains(&"refused") => Message::AppendEntriesReply {
            round: round()?,
            outcome: AppendOutcome::Refused {
                prev: index("prev")?,
                hint: position(field("hint")?)?,
            },
        },
        "AppendEntriesReply" => {
            let durable = index("durable")?;
            let received = index("received").unwrap_or(durable);
            let outcome = AppendOutcome::Accepted { durable, received };
            Message::AppendEntriesReply { round: round()?, outcome }
        }
        "ReadIndex" => Message::ReadIndex { ticket: ticket()?, lease: rest.contains(&"lease") },
        "TimeoutNow" => Message::TimeoutNow,
        "ReadIndexReply" => {
            Message::ReadIndexReply { ticket: ticket()?, index: index("index").ok() }
        }
        _ => return Err(format!("there is no message {name}")),
    })
}

/// `[1@1 2@1=a]`, at the end.
fn entries(words: &[&str]) -> Result<Vec<Entry>, String> {
    let start =
        words.iter().position(|word| word.starts_with('[')).ok_or("entries are like [1@1]")?;
    let words = words[start..].iter().map(|word| word.trim_matches(['[', ']']));
    words.filter(|word| !word.is_empty()).map(entry).collect()
}

fn entry(text: &str) -> Result<Entry, String> {
    let (at, payload) = match text.split_once('=') {
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
