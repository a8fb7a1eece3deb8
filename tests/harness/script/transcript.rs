//! How a transcript says what a node did: in the notation of the core wherever it has one.

use std::fmt::Write as _;

use raft_core::{Entry, Event, Fate, LogIndex, Node, NodeId, ProposalOutcome, ReadOutcome};

use super::super::storage::Queued;

/// `[1@1 2@1=a]`.
pub fn entries<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> String {
    let entries: Vec<String> = entries.into_iter().map(ToString::to_string).collect();
    format!("[{}]", entries.join(" "))
}

/// `term=2 vote=n1 truncate_from=3 [3@2]`, only what there is.
pub fn write(write: &Queued) -> String {
    let mut parts = Vec::new();
    if let Some(hard_state) = write.hard_state {
        parts.push(format!("term={} vote={}", hard_state.term, node_or_none(hard_state.voted_for)));
    }
    if let Some(from) = write.truncate_from {
        parts.push(format!("truncate_from={from}"));
    }
    if !write.entries.is_empty() {
        parts.push(entries(&write.entries));
    }
    parts.join(" ")
}

/// What a message or another line says anyway is not told twice.
pub fn shows(event: &Event) -> bool {
    !matches!(
        event,
        Event::Committed { .. }
            | Event::Voted { .. }
            | Event::VoteRefused { .. }
            | Event::AppendRefused { .. }
    )
}

/// `n2@1 follower of n1`, `n2 ignores n3: StaleTerm`.
pub fn event(id: NodeId, event: &Event) -> String {
    match event {
        Event::Role { role, term, leader: Some(leader) } if *leader != id => {
            format!("{id}@{term} {role} of {leader}")
        }
        Event::Role { role, term, leader: _ } => format!("{id}@{term} {role}"),
        Event::QuorumLost { term } => format!("{id}@{term} hears from no majority"),
        Event::DiskHangs { term } => format!("{id}@{term} gives up: its disk hangs"),
        Event::MembershipChanged { index, membership } => {
            format!("{id} has the members {membership} as of {index}")
        }
        Event::Ignored { from: Some(from), why } => format!("{id} ignores {from}: {why:?}"),
        Event::Ignored { from: None, why } => format!("{id} ignores: {why:?}"),
        other => format!("{id} {other:?}"),
    }
}

/// `proposal 2@1..4@1 committed`.
pub fn proposal(outcome: &ProposalOutcome) -> String {
    let ProposalOutcome { first, last, fate } = outcome;
    let fate = match fate {
        Fate::Committed => "committed",
        Fate::Superseded => "superseded",
        Fate::Unknown => "unknown",
    };
    if first == last {
        format!("proposal {first} {fate}")
    } else {
        format!("proposal {first}..{last} {fate}")
    }
}

/// `serves read #1 at 4`.
pub fn read(outcome: &ReadOutcome) -> String {
    match outcome.index {
        Ok(index) => format!("serves read #{} at {index}", outcome.id.0),
        Err(why) => format!("fails read #{}: {why:?}", outcome.id.0),
    }
}

/// `n1@2 leader vote=n1 last=3@2 durable=3 commit=2`, and a leader's peers below.
pub fn status(node: &Node) -> String {
    let status = node.status();
    let (id, term, role, last) = (status.id, status.term, status.role, status.last);
    let mut text = format!("{id}@{term} {role}");
    if let Some(leader) = status.leader.filter(|&leader| leader != id) {
        let _infallible = write!(text, " of {leader}");
    }
    let vote = node_or_none(status.voted_for);
    let (durable, commit) = (status.durable, status.commit);
    let _infallible = write!(text, " vote={vote} last={last} durable={durable} commit={commit}");
    for peer in &status.peers {
        let silent = if peer.recently_active { "" } else { " silent" };
        let (id, matches, next) = (peer.id, peer.match_index, peer.next_index);
        let _infallible = write!(text, "\n  {id} match={matches} next={next}{silent}");
    }
    text
}

/// `n1 [1@1 2@1=a | 3@1=b]`: the entries in its log, those behind `|` not known to be committed.
pub fn log(node: &Node) -> String {
    let status = node.status();
    let between = |from: LogIndex, to: LogIndex| {
        let range = (from.0..=to.0).map(LogIndex);
        range
            .filter_map(|index| node.entry(index))
            .map(|entry| format!(" {entry}"))
            .collect::<String>()
    };
    let committed = between(LogIndex(1), status.commit);
    let rest = between(status.commit.next(), status.last.index);
    let bar = if rest.is_empty() { "" } else { " |" };
    format!("{} [{}]", status.id, format!("{committed}{bar}{rest}").trim_start())
}

fn node_or_none(id: Option<NodeId>) -> String {
    id.map_or_else(|| "none".to_owned(), |id| id.to_string())
}
