//! The invariants of Raft, checked on the whole cluster after every step of any node.
//!
//! The checker sees what no node can: all logs, all disks, everything that was ever said. It remembers
//! what must never change (who led which term, what was committed, who voted for whom) and panics with
//! the name of the invariant that broke.

use std::collections::{BTreeMap, BTreeSet};

use raft_core::{
    AppendOutcome, Consistency, Entry, Envelope, Fate, Incarnation, LogIndex, LogPosition,
    Membership, Message, NodeId, ReadId, ReadOutcome, RoleKind, Snapshot, Status, Term,
};

use super::cluster::{Effects, Member};
use super::storage::Storage;
use super::storage::durable::Durable;
use super::storage::machine::{Machine, apply};

/// What must stay true for ever, and what it was last time.
pub struct Checker {
    /// Election Safety: who led each term.
    leaders: BTreeMap<Term, NodeId>,
    /// Votes that left a node: at most one per node and term.
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// What was committed, by index from 1.
    pub committed: Vec<Entry>,
    /// What a state machine is after each of them.
    states: Vec<u64>,
    /// In which term each of them was: by the leader of that term, whatever term it is of itself.
    committed_in: Vec<Term>,
    /// Log Matching: what the entry at each position says, and the term of the one before it.
    entries: BTreeMap<LogPosition, (Entry, Term)>,
    last_seen: BTreeMap<NodeId, Seen>,
    /// What a node has declared superseded: it may never be committed.
    dead: BTreeSet<LogPosition>,
    /// What those had on their disks who are gone for good.
    graves: BTreeMap<NodeId, Durable>,
    /// For each read the index that it must reach: for a linearizable one what had been handed to a state machine anywhere when it began.
    reads: BTreeMap<(NodeId, u64, ReadId), LogIndex>,
    /// The greatest index that was handed to a state machine anywhere.
    pub visible: LogIndex,
    /// How many reads were answered with an index.
    pub reads_served: u64,
    /// How many configurations took effect at a leader.
    pub configurations: u64,
    pub snapshots_installed: u64,
    pub changes_committed: u64,
    pub unknown_fates: u64,
}

/// A node as it was after its last step in this life.
#[derive(Clone, Default)]
struct Seen {
    role: Option<RoleKind>,
    term: Term,
    commit: LogIndex,
    handed_out: LogIndex,
    log: Vec<LogPosition>,
    /// As a leader: how far each peer matches, and in which of its incarnations.
    matches: BTreeMap<NodeId, (LogIndex, Incarnation)>,
    membership: Option<(LogIndex, Membership)>,
    installed: bool,
}

impl Checker {
    pub fn new() -> Self {
        Self {
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            committed: Vec::new(),
            states: Vec::new(),
            committed_in: Vec::new(),
            entries: BTreeMap::new(),
            last_seen: BTreeMap::new(),
            graves: BTreeMap::new(),
            dead: BTreeSet::new(),
            reads: BTreeMap::new(),
            visible: LogIndex(0),
            reads_served: 0,
            configurations: 0,
            snapshots_installed: 0,
            changes_committed: 0,
            unknown_fates: 0,
        }
    }

    /// How many terms had a leader.
    pub fn elections(&self) -> usize {
        self.leaders.len()
    }

    /// A new life begins with what the disk has, applied up to here: what was only in memory may be gone.
    pub fn on_restart(&mut self, id: NodeId, applied: LogIndex, machine: &Machine) {
        if applied > LogIndex(0) {
            self.check_state(id, applied, machine);
        }
        self.last_seen.insert(id, Seen { handed_out: applied, ..Seen::default() });
    }

    pub fn on_death(&mut self, id: NodeId, disk: Durable) {
        self.last_seen.remove(&id);
        self.graves.insert(id, disk);
    }

    pub fn on_read_started(&mut self, id: NodeId, life: u64, read: ReadId, how: Consistency) {
        let index = match how {
            Consistency::Linearizable | Consistency::Lease => self.visible,
            Consistency::AtLeast(index) => index,
        };
        self.reads.insert((id, life, read), index);
    }

    /// A node was polled: everything that it did since the last time is checked.
    pub fn on_poll(
        &mut self,
        members: &BTreeMap<NodeId, Member<impl Storage>>,
        id: NodeId,
        effects: &Effects,
    ) {
        let member = &members[&id];
        self.check_role_and_log(members, id);
        self.check_match(members, id);
        for envelope in &effects.messages {
            check_durable_before_visible(envelope, member.disk.durable());
            self.check_vote(envelope);
        }
        if let Some(snapshot) = &effects.restore {
            self.check_restored(id, snapshot, &member.machine);
        }
        self.check_handed_out(id, &effects.committed, &member.machine);
        self.check_reads(id, member.lives, &effects.reads);
        self.check_fates(id, effects);
    }

    fn check_reads(&mut self, id: NodeId, life: u64, outcomes: &[ReadOutcome]) {
        for outcome in outcomes {
            let begun = self.reads.remove(&(id, life, outcome.id));
            let least =
                begun.unwrap_or_else(|| panic!("{id}: read {:?} answered twice", outcome.id));
            if let Ok(index) = outcome.index {
                self.reads_served += 1;
                assert!(index >= least, "stale read: {id} reads at {index}, {least} was visible");
            }
        }
    }

    fn check_fates(&mut self, id: NodeId, effects: &Effects) {
        let mut fates: Vec<(LogPosition, LogPosition, Fate)> = Vec::new();
        fates.extend(effects.proposals.iter().map(|it| (it.first, it.last, it.fate)));
        fates.extend(effects.changes.iter().map(|it| (it.change, it.change, it.fate)));
        for (first, last, fate) in fates {
            let chosen = |position: LogPosition| self.position_committed(position.index);
            match fate {
                Fate::Committed => {
                    assert_eq!(chosen(first), Some(first), "fate: committed");
                    assert_eq!(chosen(last), Some(last), "fate: committed");
                }
                Fate::Superseded => {
                    assert_ne!(chosen(first), Some(first), "fate: superseded");
                    let dead = (first.index.0..=last.index.0).map(LogIndex);
                    self.dead.extend(dead.map(|index| LogPosition::new(first.term, index)));
                }
                Fate::Unknown => {
                    let seen = &self.last_seen[&id];
                    assert!(seen.installed, "{id}: nothing hides the fate of {first}");
                    self.unknown_fates += 1;
                }
            }
        }
        let done = effects.changes.iter().filter(|it| it.fate == Fate::Committed).count();
        self.changes_committed += done as u64;
    }

    /// What a snapshot makes of the state machine is what its commands would have.
    fn check_restored(&mut self, id: NodeId, snapshot: &Snapshot, machine: &Machine) {
        let index = snapshot.index();
        let chosen = self.position_committed(index);
        assert_eq!(chosen, Some(snapshot.base.position), "a snapshot of something else: {id}");
        let seen = self.last_seen.get_mut(&id).expect("checked just before");
        assert!(index > seen.handed_out, "{id}: a snapshot takes the state machine back");
        seen.handed_out = index;
        seen.installed = true;
        self.snapshots_installed += 1;
        self.check_state(id, index, machine);
    }

    fn check_state(&self, id: NodeId, index: LogIndex, machine: &Machine) {
        let state = machine.state_at(index);
        // What has been replaced within the same poll cannot be looked at any more.
        let Some(state) = state else { return };
        let slot = usize::try_from(index.0 - 1).expect("a small log");
        assert_eq!(Some(&state), self.states.get(slot), "State Machine Safety: {id} at {index}");
    }

    fn position_committed(&self, index: LogIndex) -> Option<LogPosition> {
        let slot = usize::try_from(index.0.checked_sub(1)?).ok()?;
        self.committed.get(slot).map(Entry::position)
    }

    fn check_role_and_log(&mut self, members: &BTreeMap<NodeId, Member<impl Storage>>, id: NodeId) {
        let node = members[&id].node.as_ref().expect("a polled node runs");
        let status = node.status();
        let before = self.last_seen.remove(&id).unwrap_or_default();
        assert!(status.term >= before.term, "{id}: the term fell");
        assert!(status.commit >= before.commit, "{id}: the commit index fell");
        let base = usize::try_from(status.base.index.0).expect("a small log");
        assert!(base <= self.committed.len(), "{id}: compacted beyond what is committed");
        // What is compacted was committed, and is what was committed there.
        let mut log: Vec<_> = self.committed[..base].iter().map(Entry::position).collect();
        let below = log.last().copied().unwrap_or_default();
        assert_eq!(below, status.base, "{id}: the log stands on something else");
        let mut prev = below.term;
        for index in (status.base.index.0 + 1..=status.last.index.0).map(LogIndex) {
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
        let incarnation =
            |id| members.get(&id).map_or(Incarnation(0), |it| it.disk.durable().incarnation);
        let matches: BTreeMap<_, _> = status
            .peers
            .iter()
            .map(|peer| (peer.id, (peer.match_index, incarnation(peer.id))))
            .collect();
        if status.role == RoleKind::Leader {
            self.check_leader(&status, &before, &log, &matches);
        }
        let Seen { handed_out, installed, .. } = before;
        let membership = Some((status.membership_index, status.membership));
        let (role, term, commit) = (Some(status.role), status.term, status.commit);
        let seen = Seen { role, term, commit, handed_out, log, matches, membership, installed };
        self.last_seen.insert(id, seen);
    }

    fn check_leader(
        &mut self,
        status: &Status,
        before: &Seen,
        log: &[LogPosition],
        matches: &BTreeMap<NodeId, (LogIndex, Incarnation)>,
    ) {
        let id = status.id;
        let first = *self.leaders.entry(status.term).or_insert(id);
        assert_eq!(first, id, "Election Safety: two leaders in term {}", status.term);
        let earlier = self.committed_in.partition_point(|&term| term < status.term);
        for (slot, entry) in self.committed[..earlier].iter().enumerate() {
            assert_eq!(log.get(slot), Some(&entry.position()), "Leader Completeness: {id}");
        }
        if before.role != Some(RoleKind::Leader) || before.term != status.term {
            return;
        }
        assert!(log.starts_with(&before.log), "Leader Append-Only: {id}");
        for (peer, (index, incarnation)) in matches {
            if let Some((earlier, same)) = before.matches.get(peer) {
                let reborn = same != incarnation || *incarnation > Incarnation(0);
                assert!(reborn || earlier <= index, "the match index of {peer} fell at {id}");
            }
        }
        if let Some((index, membership)) = &before.membership
            && *index != status.membership_index
        {
            self.configurations += 1;
            check_quorums_meet(membership, &status.membership);
        }
    }

    /// What a node takes to be committed is what all take to be committed, and a majority has it on disk.
    pub fn check_commit(
        &mut self,
        members: &BTreeMap<NodeId, Member<impl Storage>>,
        id: NodeId,
        membership: &Membership,
    ) {
        let node = members[&id].node.as_ref().expect("a polled node runs");
        let (commit, term) = (node.status().commit, node.status().term);
        let seen = self.last_seen.get(&id).map_or(LogIndex(0), |seen| seen.commit);
        for index in (seen.0 + 1..=commit.0).map(LogIndex) {
            let Some(entry) = node.entry(index) else {
                let chosen = self.position_committed(index);
                assert!(chosen.is_some(), "{id} has a snapshot of what is not committed: {index}");
                continue;
            };
            if let Some(chosen) = self.position_committed(index) {
                assert_eq!(chosen, entry.position(), "State Machine Safety: {id} at {index}");
                continue;
            }
            // A disk that lost it has made up for that: its node votes for no log that lacks it. A node that
            // is gone for good votes for none at all.
            let on_disk = |id: NodeId| {
                let disk =
                    members.get(&id).map(|it| it.disk.durable()).or_else(|| self.graves.get(&id));
                disk.is_some_and(|it| it.holds(entry.position()) || it.lost >= entry.position())
            };
            assert!(
                membership.is_quorum(on_disk),
                "committed without a durable majority: {entry} by {id}"
            );
            assert!(!self.dead.contains(&entry.position()), "committed after all: {entry}");
            let before = self.states.last().copied().unwrap_or(0);
            self.states.push(apply(before, entry));
            self.committed.push(entry.clone());
            self.committed_in.push(term);
        }
    }

    /// A leader does not take a peer to have more than that peer has on its disk.
    fn check_match(&self, members: &BTreeMap<NodeId, Member<impl Storage>>, id: NodeId) {
        let node = members[&id].node.as_ref().expect("a polled node runs");
        let status = node.status();
        for peer in &status.peers {
            assert!(peer.match_index < peer.next_index, "match below next: {id} of {}", peer.id);
            let Some(entry) = node.entry(peer.match_index) else {
                continue;
            };
            // Once the peer knows of a newer term its log may change under a deposed leader.
            let Some(peers) = members.get(&peer.id) else { continue };
            let disk = peers.disk.durable();
            if disk.hard_state.term == status.term {
                let had = disk.holds(entry.position()) || disk.lost >= entry.position();
                assert!(had, "match beyond the disk: {id} of {}", peer.id);
            }
        }
    }

    fn check_vote(&mut self, envelope: &Envelope) {
        let candidate = match envelope.message {
            Message::RequestVote { ballot, .. } if ballot.kind.binds() => envelope.from,
            Message::RequestVoteReply { ballot, granted: true } if ballot.kind.binds() => {
                envelope.to
            }
            _ => return,
        };
        let vote = *self.votes.entry((envelope.from, envelope.term)).or_insert(candidate);
        assert_eq!(vote, candidate, "two votes of {} in term {}", envelope.from, envelope.term);
    }

    /// Entries reach a state machine in order, each once per life, and the same everywhere.
    fn check_handed_out(&mut self, id: NodeId, entries: &[Entry], machine: &Machine) {
        let seen = self.last_seen.get_mut(&id).expect("checked just before");
        for entry in entries {
            assert_eq!(entry.index, seen.handed_out.next(), "{id}: handed out of order");
            seen.handed_out = entry.index;
            let slot = usize::try_from(entry.index.0 - 1).expect("a small log");
            assert_eq!(self.committed.get(slot), Some(entry), "State Machine Safety: {id}");
            self.visible = self.visible.max(entry.index);
        }
        if let Some(last) = entries.last() {
            self.check_state(id, last.index, machine);
        }
    }
}

/// Of two configurations in a row no majority of the one may be able to decide without any node of a
/// majority of the other (thesis §4.1).
fn check_quorums_meet(before: &Membership, after: &Membership) {
    let mut all: Vec<NodeId> = before.nodes().chain(after.nodes()).collect();
    all.sort_unstable();
    all.dedup();
    for side in 0..1_u32 << all.len() {
        let on_side = |id: NodeId| {
            let place = all.iter().position(|&other| other == id).expect("one of all");
            side & (1 << place) != 0
        };
        let disjoint = before.is_quorum(on_side) && after.is_quorum(|id| !on_side(id));
        assert!(!disjoint, "disjoint majorities: {before} and {after}");
    }
}

/// Whatever a message promises would survive a crash of its sender at this moment.
fn check_durable_before_visible(envelope: &Envelope, disk: &Durable) {
    assert_eq!(envelope.term, disk.hard_state.term, "a term that is not durable: {envelope}");
    match &envelope.message {
        Message::RequestVote { ballot, .. } if ballot.kind.binds() => {
            let voted = disk.hard_state.voted_for;
            assert_eq!(voted, Some(envelope.from), "a vote that is not durable: {envelope}");
        }
        Message::RequestVoteReply { ballot, granted: true } if ballot.kind.binds() => {
            let voted = disk.hard_state.voted_for;
            assert_eq!(voted, Some(envelope.to), "a vote that is not durable: {envelope}");
        }
        Message::AppendEntriesReply {
            outcome: AppendOutcome::Accepted { durable, .. }, ..
        } => {
            assert!(
                *durable <= disk.last().index,
                "an acknowledgement that is not durable: {envelope}"
            );
        }
        _ => {}
    }
}
