//! How a transcript says what a node did: in the notation of the core wherever it has one.

use std::fmt::{Display, Write as _};

use raft_core::{
    ChangeOutcome, Entry, Event, Fate, LogIndex, LogPosition, Node, NodeId, PeerPace,
    ProposalOutcome, ReadOutcome, ReadRefused, Status, VoteRefusal,
};

use raft_wal::RecoveryReport;

use crate::storage::memory::Queued;

/// `[1@1 2@1=a]`.
pub fn entries<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> String {
    let entries: Vec<String> = entries.into_iter().map(ToString::to_string).collect();
    format!("[{}]", entries.join(" "))
}

/// `term=2 vote=n1 snapshot=8@2/38 truncate_from=3 [3@2]`, only what there is.
pub fn write(write: &Queued) -> String {
    let mut parts = Vec::new();
    if let Some(hard_state) = write.hard_state {
        parts.push(format!("term={} vote={}", hard_state.term, node_or_none(hard_state.voted_for)));
    }
    if let Some((snapshot, _)) = &write.snapshot {
        parts.push(format!("snapshot={}", snapshot.id()));
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
    !matches!(event, Event::Committed { .. } | Event::Voted { .. } | Event::AppendRefused { .. })
}

/// The same, of a story: it has no status at its end, so it tells what is committed.
pub(crate) fn shows_in_story(event: &Event) -> bool {
    shows(event) || matches!(event, Event::Committed { .. })
}

/// `n1 ⇄ n2, n3 → n1`: links that are cut, or slow.
pub(crate) fn links(links: &[(NodeId, NodeId)]) -> String {
    let mut parts = Vec::new();
    for (place, &(from, to)) in links.iter().enumerate() {
        match links.iter().position(|&link| link == (to, from)) {
            Some(back) if back < place => {} // It was told with the other one.
            Some(_) => parts.push(format!("{from} ⇄ {to}")),
            None => parts.push(format!("{from} → {to}")),
        }
    }
    parts.join(", ")
}

/// `n1 n2`.
pub(crate) fn nodes<'a>(ids: impl IntoIterator<Item = &'a NodeId>) -> String {
    let ids: Vec<String> = ids.into_iter().map(ToString::to_string).collect();
    ids.join(" ")
}

/// `taken, 46@2`, `refused, it would lose its majority`: what came of asking something of a node.
pub(crate) fn taken<T: Display, E: Display>(taken: &Result<T, E>) -> String {
    match taken {
        Ok(what) => format!("taken, {what}"),
        Err(why) => format!("refused, {why}"),
    }
}

/// `2 entries in 1 segment`, and whatever a start found that is not as usual.
pub(crate) fn found(found: &RecoveryReport) -> String {
    let RecoveryReport {
        segments,
        entries,
        torn_bytes,
        identity_repaired,
        header_copies_damaged,
        snapshots_damaged,
        damage,
        limping,
        created,
        ..
    } = found;
    let counted = |count: u64, one: &str, many: &str| {
        format!("{count} {}", if count == 1 { one } else { many })
    };
    let mut text = format!(
        "{} in {}",
        counted(*entries, "entry", "entries"),
        counted(*segments, "segment", "segments")
    );
    let mut and = |there_is: bool, what: String| {
        if there_is {
            let _infallible = write!(text, ", {what}");
        }
    };
    and(*created, "a new directory".to_owned());
    and(*torn_bytes > 0, format!("a torn end of {torn_bytes} bytes dropped"));
    and(*identity_repaired, "a damaged copy of the identity".to_owned());
    let headers = counted(*header_copies_damaged, "damaged header", "damaged headers");
    and(*header_copies_damaged > 0, headers);
    let snapshots = counted(*snapshots_damaged, "damaged snapshot", "damaged snapshots");
    and(*snapshots_damaged > 0, snapshots);
    and(damage.is_some(), "damage in the log".to_owned());
    and(*limping, "entries lost that it may have acknowledged: it limps".to_owned());
    text
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
        Event::VoteRefused { candidate, why } => match why {
            VoteRefusal::LogBehind { candidate: last, needed } => {
                format!(
                    "{id} refuses {candidate}: its log ends at {last}, not at {needed} or later"
                )
            }
            VoteRefusal::AlreadyVoted { candidate: other } => {
                format!("{id} refuses {candidate}: it has voted for {other}")
            }
        },
        Event::TransferStarted { to } => format!("{id} hands leadership over to {to}"),
        Event::TransferFailed { to } => format!("{id} leads on: {to} did not take over"),
        Event::Promoting { learner } => format!("{id} promotes {learner}: it has caught up"),
        Event::Committed { index } => format!("{id} commits up to {index}"),
        Event::Compacted { base } => format!("{id} compacts its log up to {base}"),
        Event::SnapshotFetched { snapshot, from } => format!("{id} fetches {snapshot} from {from}"),
        Event::SnapshotInstalled { snapshot } => format!("{id} installs {snapshot}"),
        Event::PeerReborn { peer, incarnation } => {
            format!("{id} meets {peer} reborn, in incarnation {}", incarnation.0)
        }
        Event::Ignored { from: Some(from), why } => format!("{id} ignores {from}: {why:?}"),
        Event::Ignored { from: None, why } => format!("{id} ignores: {why:?}"),
        other => format!("{id} {other:?}"),
    }
}

/// `proposal 2@1..4@1 committed`.
pub fn proposal(outcome: &ProposalOutcome) -> String {
    let ProposalOutcome { first, last, fate } = outcome;
    let fate = fate_name(*fate);
    if first == last {
        format!("proposal {first} {fate}")
    } else {
        format!("proposal {first}..{last} {fate}")
    }
}

/// `change 2@1 committed`.
pub fn change(outcome: &ChangeOutcome) -> String {
    format!("change {} {}", outcome.change, fate_name(outcome.fate))
}

fn fate_name(fate: Fate) -> &'static str {
    match fate {
        Fate::Committed => "committed",
        Fate::Superseded => "superseded",
        Fate::Unknown => "unknown",
    }
}

/// `serves read #1 at 4`.
pub fn read(outcome: &ReadOutcome) -> String {
    match outcome.index {
        Ok(index) => format!("serves read #{} at {index}", outcome.id.0),
        Err(why) => format!("fails read #{}: {}", outcome.id.0, read_refused(why)),
    }
}

/// `LeadershipLost`, `NotReached commit=3`.
pub fn read_refused(why: ReadRefused) -> String {
    match why {
        ReadRefused::NotReached { commit } => format!("NotReached commit={commit}"),
        other => format!("{other:?}"),
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
    text.push_str(&unusual(&status));
    for peer in &status.peers {
        let (id, matches, next) = (peer.id, peer.match_index, peer.next_index);
        let _infallible = write!(text, "\n  {id} match={matches} next={next}");
        match peer.pace {
            PeerPace::Replicate => {}
            PeerPace::Probe => text.push_str(" probe"),
            PeerPace::Snapshot { held } => {
                let _infallible = write!(text, " snapshot held={held}");
            }
        }
        if !peer.recently_active {
            text.push_str(" silent");
        }
    }
    text
}

/// What a status says only if there is something to say.
fn unusual(status: &Status) -> String {
    let mut text = String::new();
    if status.base > LogPosition::ZERO {
        let _infallible = write!(text, " base={}", status.base);
    }
    if let Some(snapshot) = status.snapshot {
        let _infallible = write!(text, " snapshot={snapshot}");
    }
    if status.membership_index > LogIndex(0) {
        let (members, index) = (&status.membership, status.membership_index);
        let _infallible = write!(text, " members={members} as of {index}");
    }
    if let Some(to) = status.transferring_to {
        let _infallible = write!(text, " transferring to {to}");
    }
    text
}

/// `n1 [1@1 2@1=a | 3@1=b]`: the entries in its log, those behind `|` not known to be committed; `n1
/// 1@1.. [2@1=a]` if the log begins behind 1@1.
pub fn log(node: &Node) -> String {
    let status = node.status();
    let between = |from: LogIndex, to: LogIndex| {
        let range = (from.0..=to.0).map(LogIndex);
        range
            .filter_map(|index| node.entry(index))
            .map(|entry| format!(" {entry}"))
            .collect::<String>()
    };
    let base = status.base;
    let begin = if base > LogPosition::ZERO { format!(" {base}..") } else { String::new() };
    let committed = between(base.index.next(), status.commit);
    let rest = between(status.commit.next(), status.last.index);
    let bar = if rest.is_empty() { "" } else { " |" };
    format!("{}{begin} [{}]", status.id, format!("{committed}{bar}{rest}").trim_start())
}

fn node_or_none(id: Option<NodeId>) -> String {
    id.map_or_else(|| "none".to_owned(), |id| id.to_string())
}
