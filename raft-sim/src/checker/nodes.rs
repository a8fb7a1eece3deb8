//! The invariants of a node's state: what a step has changed, against what the node was before, what all
//! disks hold and what everyone knows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use raft_core::{
    Incarnation, LogIndex, LogPosition, Membership, Node, NodeId, RoleKind, Status, Term,
};

use super::Checker;
use crate::cluster::Member;
use crate::spec::{Cause, STEPS_BETWEEN_AUDITS, is_quorum};
use crate::storage::Storage;
use crate::storage::durable::Durable;

/// A node as it was after its last step in this life.
pub(super) struct Seen {
    role: RoleKind,
    term: Term,
    voted_for: Option<NodeId>,
    commit: LogIndex,
    applied: LogIndex,
    durable: LogIndex,
    base: LogPosition,
    /// All of its log, also what was compacted.
    log: Vec<LogPosition>,
    /// As a leader: so many of the entries that were committed in earlier terms were found in its log.
    complete: usize,
    /// As a leader: how far each peer matches, and in which of its incarnations it last fell back.
    matches: Vec<(NodeId, LogIndex, Incarnation)>,
    membership_index: LogIndex,
    membership: Membership,
    /// As a leader: a configuration without its vote is committed.
    removed: bool,
    steps: u64,
    pub(super) handed_out: LogIndex,
    /// What a snapshot took the place of before it was handed out, from and to: what became of it there is
    /// not to be seen.
    pub(super) hidden: Vec<(LogIndex, LogIndex)>,
    /// What it took in this life, proposals and changes, and has not told the fate of.
    pub(super) open: BTreeSet<LogPosition>,
}

impl Seen {
    /// As it starts; what is not known of it yet is looked at with its first step.
    pub(super) fn starting(status: &Status) -> Self {
        Self {
            role: status.role,
            term: status.term,
            voted_for: status.voted_for,
            commit: LogIndex(0),
            applied: status.applied,
            durable: LogIndex(0),
            base: LogPosition::ZERO,
            log: Vec::new(),
            complete: 0,
            matches: Vec::new(),
            membership_index: status.membership_index,
            membership: status.membership.clone(),
            removed: false,
            steps: 0,
            handed_out: status.applied,
            hidden: Vec::new(),
            open: BTreeSet::new(),
        }
    }

    /// May the fate of something that was proposed here at these indexes be unknown?
    pub(super) fn hides(&self, indexes: RangeInclusive<LogIndex>) -> bool {
        self.hidden.iter().any(|(from, to)| from <= indexes.end() && indexes.start() <= to)
    }
}

fn slot(index: LogIndex) -> usize {
    usize::try_from(index.0).expect("a small log")
}

/// Does the disk hold this entry, or may it be among what it has lost?
fn has_or_had(disk: &Durable, position: LogPosition) -> bool {
    let lost = disk.lost >= position && disk.lost.index >= position.index;
    disk.holds(position) || lost
}

/// The position at `index` of a whole log; before its first entry it is `0@0`.
fn position(log: &[LogPosition], index: LogIndex) -> Option<LogPosition> {
    let Some(place) = slot(index).checked_sub(1) else { return Some(LogPosition::ZERO) };
    log.get(place).copied()
}

impl Checker {
    /// A node has moved: what it is now, against what it was and what everyone knows.
    pub(super) fn check_node(
        &mut self,
        members: &BTreeMap<NodeId, Member<impl Storage>>,
        id: NodeId,
        status: &Status,
        cause: &Cause,
    ) {
        let member = &members[&id];
        let node = member.node.as_ref().expect("a node that moves runs");
        self.check_indexes(id, status);
        let before = self.last_seen[&id].log.len();
        let kept = self.check_log(node, id, status);
        let seen = &self.last_seen[&id];
        if kept < before.max(seen.log.len()) || seen.durable != status.durable {
            let durable = position(&seen.log, status.durable);
            let there = durable.is_some_and(|it| member.disk.durable().holds(it));
            assert!(there, "{id}: {} is not durable", status.durable);
        }
        // Whose votes a commit rests on are the members before the step: any others are appended after the
        // commit that allows it.
        self.check_commit(members, id, status);
        if status.role == RoleKind::Leader {
            self.check_leader(id, status, kept == before);
            self.check_match(members, id, status);
        }
        self.check_duties(id, status, cause);
        let seen = self.last_seen.get_mut(&id).expect("looked at just now");
        (seen.role, seen.term, seen.voted_for) = (status.role, status.term, status.voted_for);
        (seen.commit, seen.applied, seen.durable) = (status.commit, status.applied, status.durable);
        if seen.membership_index != status.membership_index || seen.membership != status.membership
        {
            seen.membership_index = status.membership_index;
            seen.membership = status.membership.clone();
        }
    }

    fn check_indexes(&self, id: NodeId, status: &Status) {
        let seen = &self.last_seen[&id];
        assert!(status.term >= seen.term, "{id}: the term fell");
        assert!(status.commit >= seen.commit, "{id}: the commit index fell");
        assert!(status.applied >= seen.applied, "{id}: the applied index fell");
        assert!(status.commit <= status.last.index, "{id}: committed beyond the log");
        assert!(status.applied <= status.commit, "{id}: applied before it was committed");
        assert!(status.applied <= seen.handed_out, "{id}: applied before it was handed out");
        assert!(status.durable <= status.last.index, "{id}: durable beyond the log");
        if seen.term == status.term && seen.voted_for.is_some() {
            assert_eq!(seen.voted_for, status.voted_for, "{id}: a second vote in one term");
        }
    }

    /// Log Matching: every entry that is new here is what the entry at this position is everywhere, and
    /// follows on the same. So much of the log before is still there.
    fn check_log(&mut self, node: &Node, id: NodeId, status: &Status) -> usize {
        let Self { last_seen, entries, committed, .. } = self;
        let seen = last_seen.get_mut(&id).expect("looked at just now");
        seen.steps += 1;
        let (base, last) = (slot(status.base.index), slot(status.last.index));
        if status.base != seen.base {
            assert!(base <= committed.len(), "{id}: compacted beyond what is committed");
            let below = base.checked_sub(1).map(|place| committed[place].position());
            let below = below.unwrap_or(LogPosition::ZERO);
            assert_eq!(below, status.base, "{id}: the log stands on something else");
            seen.base = status.base;
        }
        // What is compacted was committed, and is what was committed there.
        let entry = |index: usize| node.entry(LogIndex(index as u64)).expect("a log has no gap");
        let now = |index: usize| {
            if index <= base { committed[index - 1].position() } else { entry(index).position() }
        };
        let mut kept = seen.log.len().min(last);
        while kept > 0 && seen.log[kept - 1] != now(kept) {
            kept -= 1;
        }
        assert!(kept >= slot(seen.commit), "{id}: a committed entry is gone");
        seen.log.truncate(kept);
        let audit = seen.steps.is_multiple_of(STEPS_BETWEEN_AUDITS);
        let first = if audit { base + 1 } else { base.max(kept) + 1 };
        for index in kept + 1..=base {
            seen.log.push(now(index));
        }
        let mut prev = first.checked_sub(2).map_or(Term(0), |place| seen.log[place].term);
        for index in first..=last {
            let entry = entry(index);
            let position = entry.position();
            let said = entries.entry(position).or_insert_with(|| (entry.clone(), prev));
            assert!(said.0 == *entry && said.1 == prev, "Log Matching: {id} has another {entry}");
            prev = entry.term;
            if index > seen.log.len() {
                seen.log.push(position);
            }
            assert_eq!(seen.log[index - 1], position, "{id}: {entry} was changed");
        }
        assert_eq!(seen.log.last().copied().unwrap_or_default(), status.last, "{id}: another end");
        kept
    }

    /// What a node takes to be committed is what all take to be committed, and a majority has it on disk.
    fn check_commit(
        &mut self,
        members: &BTreeMap<NodeId, Member<impl Storage>>,
        id: NodeId,
        status: &Status,
    ) {
        let seen = &self.last_seen[&id];
        if seen.commit == status.commit {
            return;
        }
        let node = members[&id].node.as_ref().expect("a node that moves runs");
        for index in (seen.commit.0 + 1..=status.commit.0).map(LogIndex) {
            let here = position(&seen.log, index).expect("committed is in the log");
            if let Some(chosen) = self.position_committed(index) {
                assert_eq!(chosen, here, "State Machine Safety: {id} at {index}");
                continue;
            }
            let entry = node.entry(index);
            let entry = entry
                .unwrap_or_else(|| panic!("{id} has a snapshot of what is not committed: {index}"));
            // A disk that lost it has made up for that: its node votes for no log that lacks it. A node that
            // is gone for good votes for none at all.
            let on_disk = |id: &NodeId| {
                let disk =
                    members.get(id).map(|it| it.disk.durable()).or_else(|| self.graves.get(id));
                disk.is_some_and(|it| has_or_had(it, entry.position()))
            };
            let have = seen.membership.nodes().filter(on_disk).collect();
            assert!(
                is_quorum(&seen.membership, &have),
                "committed without a durable majority: {entry} by {id}"
            );
            assert!(!self.dead.contains(&entry.position()), "committed after all: {entry}");
            self.committed.push(entry.clone());
            self.committed_in.push(status.term);
        }
    }

    fn check_leader(&mut self, id: NodeId, status: &Status, append_only: bool) {
        let first = *self.leaders.entry(status.term).or_insert(id);
        assert_eq!(first, id, "Election Safety: two leaders in term {}", status.term);
        let seen = self.last_seen.get_mut(&id).expect("looked at just now");
        let led = seen.role == RoleKind::Leader && seen.term == status.term;
        if !led {
            (seen.complete, seen.matches) = (0, Vec::new());
        }
        let earlier = self.committed_in.partition_point(|&term| term < status.term);
        for place in seen.complete..earlier {
            let chosen = self.committed[place].position();
            assert_eq!(seen.log.get(place), Some(&chosen), "Leader Completeness: {id}");
        }
        seen.complete = seen.complete.max(earlier);
        assert!(!led || append_only, "Leader Append-Only: {id}");
        if led && seen.membership_index != status.membership_index {
            self.configurations += 1;
            check_quorums_meet(&seen.membership, &status.membership);
        }
    }

    /// Within its term a leader gives up when its timer says so, or when a configuration without its vote is
    /// committed, and then it must (thesis §4.2.2). A joint phase that is committed is left at once, whoever
    /// leads (§6). Both only once something of the term is committed.
    fn check_duties(&mut self, id: NodeId, status: &Status, cause: &Cause) {
        let seen = self.last_seen.get_mut(&id).expect("looked at just now");
        let (commit, led) = (status.commit, seen.role == RoleKind::Leader);
        let of_term = position(&seen.log, commit).is_some_and(|last| last.term == status.term);
        let without_it = |at: LogIndex, membership: &Membership| {
            of_term && at <= commit && !membership.is_joint() && !membership.is_voter(id)
        };
        // In the step in which it is committed another one may follow.
        seen.removed = led && seen.term == status.term && seen.removed
            || led && without_it(seen.membership_index, &seen.membership)
            || without_it(status.membership_index, &status.membership);
        if status.role != RoleKind::Leader {
            let gave_up = led && seen.term == status.term;
            let reason = seen.removed || matches!(cause, Cause::Timer);
            assert!(!gave_up || reason, "{id} gives up leadership for no reason");
            return;
        }
        let joint = of_term && status.membership_index <= commit && status.membership.is_joint();
        assert!(!joint, "{id} goes on with a joint phase that is committed");
        let leads_on = seen.removed && matches!(cause, Cause::Poll);
        assert!(!leads_on, "{id} leads on, although it was removed");
    }

    /// A leader does not take a peer to have more than that peer has on its disk, and never less than before,
    /// unless the peer has come back with another disk.
    fn check_match(
        &mut self,
        members: &BTreeMap<NodeId, Member<impl Storage>>,
        id: NodeId,
        status: &Status,
    ) {
        let Seen { matches, log, .. } = self.last_seen.get_mut(&id).expect("looked at just now");
        // Those who have left are forgotten.
        matches.retain(|(peer, ..)| status.peers.iter().any(|it| it.id == *peer));
        for peer in &status.peers {
            assert!(peer.match_index < peer.next_index, "match below next: {id} of {}", peer.id);
            assert!(peer.next_index <= status.last.index.next(), "next beyond the log: {id}");
            let disk = members.get(&peer.id).map(|it| it.disk.durable());
            let incarnation = disk.map_or(Incarnation(0), |it| it.incarnation);
            match matches.iter_mut().find(|(known, ..)| *known == peer.id) {
                Some(known) => {
                    // The leader learns of another disk later than we do: once for each.
                    if peer.match_index < known.1 {
                        let reborn = incarnation > known.2;
                        assert!(reborn, "the match index of {} fell at {id}", peer.id);
                        known.2 = incarnation;
                    }
                    known.1 = peer.match_index;
                }
                // What it acknowledged on an earlier disk may still be on its way.
                None => matches.push((peer.id, peer.match_index, Incarnation(0))),
            }
            let matching = position(log, peer.match_index).expect("it matches within the log");
            // Once the peer knows of a newer term its log may change under a deposed leader.
            if let Some(disk) = disk.filter(|disk| disk.hard_state.term == status.term) {
                let had = has_or_had(disk, matching);
                assert!(had, "match beyond the disk: {id} of {}", peer.id);
            }
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
