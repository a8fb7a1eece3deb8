//! The invariants of Raft, checked on the whole cluster after every step of any node.
//!
//! The checker sees what no node can: all logs, all disks, everything that was ever said. It remembers
//! what must never change (who led which term, what was committed, who voted for whom) and panics with
//! the name of the invariant that broke.

use std::collections::BTreeMap;

use raft_core::{
    AppendOutcome, BallotKind, Entry, Envelope, Fate, LogIndex, LogPosition, Membership, Message,
    NodeId, ReadId, RoleKind, Term,
};

use super::cluster::{Disk, Effects, Member};

/// What must stay true for ever, and what it was last time.
pub struct Checker {
    membership: Membership,
    /// Election Safety: who led each term.
    leaders: BTreeMap<Term, NodeId>,
    /// Votes that left a node: at most one per node and term.
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// What was committed, by index from 1.
    pub committed: Vec<Entry>,
    /// In which term each of them was: by the leader of that term, whatever term it is of itself.
    committed_in: Vec<Term>,
    /// Log Matching: what the entry at each position says, and the term of the one before it.
    entries: BTreeMap<LogPosition, (Entry, Term)>,
    last_seen: BTreeMap<NodeId, Seen>,
    /// For each read the index that had been handed to a state machine anywhere when it began.
    reads: BTreeMap<(NodeId, u64, ReadId), LogIndex>,
    /// The greatest index that was handed to a state machine anywhere.
    pub visible: LogIndex,
    /// How many reads were answered with an index.
    pub reads_served: u64,
}

/// A node as it was after its last step in this life.
#[derive(Clone, Default)]
struct Seen {
    role: Option<RoleKind>,
    term: Term,
    commit: LogIndex,
    handed_out: LogIndex,
    log: Vec<LogPosition>,
    /// As a leader: how far each peer matches.
    matches: BTreeMap<NodeId, LogIndex>,
}

impl Checker {
    pub fn new(membership: Membership) -> Self {
        Self {
            membership,
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            committed: Vec::new(),
            committed_in: Vec::new(),
            entries: BTreeMap::new(),
            last_seen: BTreeMap::new(),
            reads: BTreeMap::new(),
            visible: LogIndex(0),
            reads_served: 0,
        }
    }

    /// How many terms had a leader.
    pub fn elections(&self) -> usize {
        self.leaders.len()
    }

    /// A new life begins with what the disk has: what was only in memory may be gone.
    pub fn on_restart(&mut self, id: NodeId) {
        self.last_seen.remove(&id);
    }

    pub fn on_read_started(&mut self, id: NodeId, life: u64, read: ReadId) {
        self.reads.insert((id, life, read), self.visible);
    }

    /// A node was polled: everything that it did since the last time is checked.
    pub fn on_poll(&mut self, members: &BTreeMap<NodeId, Member>, id: NodeId, effects: &Effects) {
        let member = &members[&id];
        self.check_role_and_log(id, member);
        self.check_commit(members, id);
        self.check_match(members, id);
        for envelope in &effects.messages {
            check_durable_before_visible(envelope, &member.disk);
            self.check_vote(envelope);
        }
        self.check_handed_out(id, &effects.committed);
        for outcome in &effects.reads {
            let begun = self.reads.remove(&(id, member.lives, outcome.id));
            let visible =
                begun.unwrap_or_else(|| panic!("{id}: read {:?} answered twice", outcome.id));
            if let Ok(index) = outcome.index {
                self.reads_served += 1;
                assert!(
                    index >= visible,
                    "stale read: {id} reads at {index}, {visible} was visible"
                );
            }
        }
        for outcome in &effects.proposals {
            let chosen = |position: LogPosition| self.position_committed(position.index);
            match outcome.fate {
                Fate::Committed => {
                    assert_eq!(chosen(outcome.first), Some(outcome.first), "fate: committed");
                    assert_eq!(chosen(outcome.last), Some(outcome.last), "fate: committed");
                }
                Fate::Superseded => {
                    let other = chosen(outcome.first).expect("superseded by something committed");
                    assert_ne!(other, outcome.first, "fate: superseded");
                }
                Fate::Unknown => panic!("fate: nothing hides the log from the node here"),
            }
        }
    }

    fn position_committed(&self, index: LogIndex) -> Option<LogPosition> {
        let slot = usize::try_from(index.0.checked_sub(1)?).ok()?;
        self.committed.get(slot).map(Entry::position)
    }

    fn check_role_and_log(&mut self, id: NodeId, member: &Member) {
        let node = member.node.as_ref().expect("a polled node runs");
        let status = node.status();
        let before = self.last_seen.remove(&id).unwrap_or_default();
        assert!(status.term >= before.term, "{id}: the term fell");
        assert!(status.commit >= before.commit, "{id}: the commit index fell");
        let mut log = Vec::with_capacity(before.log.len());
        let mut prev = Term(0);
        for index in (1..=status.last.index.0).map(LogIndex) {
            let entry = node.entry(index).expect("a log has no gap");
            let known = before.log.get(log.len()) == Some(&entry.position());
            if !known {
                let said =
                    self.entries.entry(entry.position()).or_insert_with(|| (entry.clone(), prev));
                assert!(
                    said.0 == *entry && said.1 == prev,
                    "Log Matching: {id} has another {entry}"
                );
            }
            prev = entry.term;
            log.push(entry.position());
        }
        let leads = status.role == RoleKind::Leader;
        let matches: BTreeMap<_, _> =
            status.peers.iter().map(|peer| (peer.id, peer.match_index)).collect();
        if leads {
            let first = *self.leaders.entry(status.term).or_insert(id);
            assert_eq!(first, id, "Election Safety: two leaders in term {}", status.term);
            let earlier = self.committed_in.partition_point(|&term| term < status.term);
            for (slot, entry) in self.committed[..earlier].iter().enumerate() {
                assert_eq!(log.get(slot), Some(&entry.position()), "Leader Completeness: {id}");
            }
            if before.role == Some(RoleKind::Leader) && before.term == status.term {
                assert!(log.starts_with(&before.log), "Leader Append-Only: {id}");
                for (peer, index) in &matches {
                    let earlier = before.matches.get(peer);
                    assert!(earlier <= Some(index), "the match index of {peer} fell at {id}");
                }
            }
        }
        let handed_out = before.handed_out;
        let (role, term, commit) = (Some(status.role), status.term, status.commit);
        self.last_seen.insert(id, Seen { role, term, commit, handed_out, log, matches });
    }

    /// What a node takes to be committed is what all take to be committed, and a majority has it on disk.
    fn check_commit(&mut self, members: &BTreeMap<NodeId, Member>, id: NodeId) {
        let node = members[&id].node.as_ref().expect("a polled node runs");
        let (commit, term) = (node.status().commit, node.status().term);
        for index in (1..=commit.0).map(LogIndex) {
            let entry = node.entry(index).expect("what is committed is in the log");
            if let Some(chosen) = self.position_committed(index) {
                assert_eq!(chosen, entry.position(), "State Machine Safety: {id} at {index}");
                continue;
            }
            let on_disk = |id: NodeId| members[&id].disk.holds(entry.position());
            assert!(
                self.membership.is_quorum(on_disk),
                "committed without a durable majority: {entry} by {id}"
            );
            self.committed.push(entry.clone());
            self.committed_in.push(term);
        }
    }

    /// A leader does not take a peer to have more than that peer has on its disk.
    fn check_match(&self, members: &BTreeMap<NodeId, Member>, id: NodeId) {
        let node = members[&id].node.as_ref().expect("a polled node runs");
        let status = node.status();
        for peer in &status.peers {
            assert!(peer.match_index < peer.next_index, "match below next: {id} of {}", peer.id);
            let Some(entry) = node.entry(peer.match_index) else {
                continue;
            };
            // Once the peer knows of a newer term its log may change under a deposed leader.
            let disk = &members[&peer.id].disk;
            if disk.hard_state.term == status.term {
                assert!(disk.holds(entry.position()), "match beyond the disk: {id} of {}", peer.id);
            }
        }
    }

    fn check_vote(&mut self, envelope: &Envelope) {
        let candidate = match envelope.message {
            Message::RequestVote { ballot, .. } if ballot.kind == BallotKind::Vote => envelope.from,
            Message::RequestVoteReply { ballot, granted: true }
                if ballot.kind == BallotKind::Vote =>
            {
                envelope.to
            }
            _ => return,
        };
        let vote = *self.votes.entry((envelope.from, envelope.term)).or_insert(candidate);
        assert_eq!(vote, candidate, "two votes of {} in term {}", envelope.from, envelope.term);
    }

    /// Entries reach a state machine in order, each once per life, and the same everywhere.
    fn check_handed_out(&mut self, id: NodeId, entries: &[Entry]) {
        let seen = self.last_seen.get_mut(&id).expect("checked just before");
        for entry in entries {
            assert_eq!(entry.index, seen.handed_out.next(), "{id}: handed out of order");
            seen.handed_out = entry.index;
            let slot = usize::try_from(entry.index.0 - 1).expect("a small log");
            assert_eq!(self.committed.get(slot), Some(entry), "State Machine Safety: {id}");
            self.visible = self.visible.max(entry.index);
        }
    }
}

/// Whatever a message promises would survive a crash of its sender at this moment.
fn check_durable_before_visible(envelope: &Envelope, disk: &Disk) {
    assert_eq!(envelope.term, disk.hard_state.term, "a term that is not durable: {envelope}");
    match &envelope.message {
        Message::RequestVote { ballot, .. } if ballot.kind == BallotKind::Vote => {
            let voted = disk.hard_state.voted_for;
            assert_eq!(voted, Some(envelope.from), "a vote that is not durable: {envelope}");
        }
        Message::RequestVoteReply { ballot, granted: true } if ballot.kind == BallotKind::Vote => {
            let voted = disk.hard_state.voted_for;
            assert_eq!(voted, Some(envelope.to), "a vote that is not durable: {envelope}");
        }
        Message::AppendEntriesReply {
            outcome: AppendOutcome::Accepted { durable, .. }, ..
        } => {
            let on_disk = disk.entries.len() as u64;
            assert!(durable.0 <= on_disk, "an acknowledgement that is not durable: {envelope}");
        }
        _ => {}
    }
}
