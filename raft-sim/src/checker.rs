//! The invariants of Raft, checked on the whole cluster after every step of any node.
//!
//! The checker sees what no node can: all logs, all disks, everything that was ever said. It remembers
//! what must never change (who led which term, what was committed, who voted for whom) and panics with
//! the name of the invariant that broke. Beside it the specification ([`Spec`]) must explain each step.
//! Both look at what a step has changed, so that a step costs little however long the logs are; now and
//! then the whole log of a node is looked at.
//!
//! A step is a call of [`Cluster::step`](super::cluster::Cluster::step), of what takes requests, of a poll, or a
//! start. After each of them holds, and is checked by the function named (`nodes.rs` is
//! `checker/nodes.rs`, `spec.rs` with what is below `spec/`):
//!
//! | invariant | here | in the specification |
//! |---|---|---|
//! | Election Safety: one leader per term | `nodes.rs: check_leader` | `become_leader` |
//! | Log Matching | `nodes.rs: check_log` | `append_entries`, `compare` |
//! | Leader Completeness | `nodes.rs: check_leader` | `become_leader`, `advance_commit_index` |
//! | State Machine Safety | `check_handed_out`, `nodes.rs: check_commit`, `../reference.rs` | `advance_commit_index` |
//! | committed by a majority, in both halves of a joint phase, on disk | `nodes.rs: check_commit` | `advance_commit_index` |
//! | what is committed is never replaced | `nodes.rs: check_log`, `check_commit` | `append_entries`, `install_snapshot` |
//! | commit ≤ last, applied ≤ handed out ≤ commit | `nodes.rs: check_indexes`, `check_handed_out` | `compare` |
//! | durable before visible: terms, votes, acknowledgements | `check_durable_before_visible` | `send` |
//! | durable before it counts: the own vote, the own disk | `nodes.rs: check_log`, `check_commit` | `become_leader`, `advance_commit_index`, `explain_disk` |
//! | match ≤ what the peer holds on its disk, and has acknowledged | `nodes.rs: check_match` | `compare` |
//! | match < next ≤ last + 1 | `nodes.rs: check_match` | `compare` |
//! | term, commit, applied never fall | `nodes.rs: check_indexes` | `explain` |
//! | match never falls, per leadership and incarnation of the peer | `nodes.rs: check_match` | – |
//! | one vote per term, over all lives of a node | `nodes.rs: check_indexes`, `check_vote` | `handle_request_vote_request`, `restart` |
//! | a leader gives up only for a reason, and a removed one does; a joint phase that is committed ends | `nodes.rs: check_duties` | – |
//! | Leader Append-Only | `nodes.rs: check_leader` | `explain_appended` |
//! | of two configurations in a row no two majorities miss each other | `nodes.rs: check_leader` | `client_request` |
//! | what was durable is there after a restart | `storage::shipping` (`found.rs`) | `restart` |
//! | a snapshot is of what is committed, and makes the same state | `check_restored`, `../reference.rs` | `install_snapshot`, `send` |
//! | reads are not stale; fates are true | `check_reads`, `check_fates` | `send` |

mod nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use raft_core::{
    AppendOutcome, Consistency, Entry, Envelope, Fate, LogIndex, LogPosition, Message, NodeId,
    ReadId, ReadOutcome, Snapshot, Term,
};

use super::cluster::{Effects, Member};
use super::spec::{Cause, Spec, View};
use super::storage::Storage;
use super::storage::durable::Durable;
use nodes::Seen;

/// What must stay true for ever, and what it was last time.
pub struct Checker {
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
    /// How many snapshots of other nodes took the place of a state machine.
    pub snapshots_installed: u64,
    /// How many membership changes were declared committed.
    pub changes_committed: u64,
    /// How many proposals and changes ended as unknown.
    pub unknown_fates: u64,
    /// What must explain every step. `None` once something has happened that no protocol explains.
    spec: Option<Spec>,
}

impl Default for Checker {
    fn default() -> Self {
        Self::new()
    }
}

impl Checker {
    /// A checker that has seen nothing yet.
    pub fn new() -> Self {
        Self {
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            committed: Vec::new(),
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
            spec: Some(Spec::default()),
        }
    }

    /// How many terms had a leader.
    pub fn elections(&self) -> usize {
        self.leaders.len()
    }

    /// From here on the specification explains nothing: someone has made messages or disks up.
    pub fn forgo_spec(&mut self) {
        self.spec = None;
    }

    /// A new life begins with what was found on the disk: what was only in memory may be gone.
    pub fn on_restart(
        &mut self,
        members: &BTreeMap<NodeId, Member<impl Storage>>,
        id: NodeId,
        found: &Durable,
    ) {
        let member = &members[&id];
        let node = member.node.as_ref().expect("it was started just now");
        let status = node.status();
        if let Some(spec) = &mut self.spec {
            spec.start(id, found);
        }
        self.last_seen.insert(id, Seen::starting(&status));
        self.on_step(members, id, &Cause::Progress);
    }

    /// A node has moved, for this reason: everything about it that has changed is checked.
    pub fn on_step(
        &mut self,
        members: &BTreeMap<NodeId, Member<impl Storage>>,
        id: NodeId,
        cause: &Cause,
    ) {
        let member = &members[&id];
        let node = member.node.as_ref().expect("a node that moves runs");
        let (status, disk) = (node.status(), member.disk.durable());
        self.check_node(members, id, &status, cause);
        if let Some(spec) = &mut self.spec {
            spec.observe(id, cause, View { node, status: &status, disk });
        }
    }

    /// A node is gone for good; its disk counts for what was committed with its help.
    pub fn on_death(&mut self, id: NodeId, disk: Durable) {
        self.last_seen.remove(&id);
        if let Some(spec) = &mut self.spec {
            spec.end(id);
        }
        self.graves.insert(id, disk);
    }

    /// A node took commands, or a change of the members, at these indexes of a term: it owes their fate.
    pub fn on_taken(&mut self, id: NodeId, term: Term, indexes: RangeInclusive<LogIndex>) {
        let seen = self.last_seen.get_mut(&id).expect("a node that takes something runs");
        let indexes = (indexes.start().0..=indexes.end().0).map(LogIndex);
        seen.open.extend(indexes.map(|index| LogPosition::new(term, index)));
    }

    /// The first thing of which a running node owes the fate.
    #[must_use]
    pub fn open_fate(&self, id: NodeId) -> Option<LogPosition> {
        self.last_seen.get(&id)?.open.first().copied()
    }

    /// A read was asked for: what it must at least reflect is known now.
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
        self.on_step(members, id, &Cause::Poll);
        for envelope in &effects.messages {
            check_durable_before_visible(envelope, member.disk.durable());
            self.check_vote(envelope);
            if let Some(spec) = &mut self.spec {
                spec.send(envelope, member.disk.durable());
            }
        }
        if let Some(snapshot) = &effects.restore {
            self.check_restored(id, snapshot);
        }
        self.check_handed_out(id, &effects.committed);
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
            let open = &mut self.last_seen.get_mut(&id).expect("checked just before").open;
            for index in (first.index.0..=last.index.0).map(LogIndex) {
                let position = LogPosition::new(first.term, index);
                assert!(open.remove(&position), "{id}: nobody waits for the fate of {position}");
            }
            match fate {
                Fate::Committed => {
                    for end in [first, last] {
                        let chosen = self.position_committed(end.index);
                        assert_eq!(chosen, Some(end), "fate: committed");
                    }
                }
                Fate::Superseded => {
                    let dead = (first.index.0..=last.index.0).map(LogIndex);
                    for dead in dead.map(|index| LogPosition::new(first.term, index)) {
                        let chosen = self.position_committed(dead.index);
                        assert_ne!(chosen, Some(dead), "fate: superseded");
                        self.dead.insert(dead);
                    }
                }
                Fate::Unknown => {
                    let hides = self.last_seen[&id].hides(first.index..=last.index);
                    assert!(hides, "{id}: nothing hides the fate of {first} to {last}");
                    self.unknown_fates += 1;
                }
            }
        }
        let done = effects.changes.iter().filter(|it| it.fate == Fate::Committed).count();
        self.changes_committed += done as u64;
    }

    /// A snapshot is one of what was committed, and takes the state machine forward.
    fn check_restored(&mut self, id: NodeId, snapshot: &Snapshot) {
        let index = snapshot.index();
        let chosen = self.position_committed(index);
        assert_eq!(chosen, Some(snapshot.base.position), "a snapshot of something else: {id}");
        let seen = self.last_seen.get_mut(&id).expect("checked just before");
        assert!(index > seen.handed_out, "{id}: a snapshot takes the state machine back");
        seen.hidden.push((seen.handed_out.next(), index));
        seen.handed_out = index;
        self.snapshots_installed += 1;
    }

    fn position_committed(&self, index: LogIndex) -> Option<LogPosition> {
        let slot = usize::try_from(index.0.checked_sub(1)?).ok()?;
        self.committed.get(slot).map(Entry::position)
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
