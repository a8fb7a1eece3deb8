//! One member of one Raft group: its state, its doors, and the prelude that every message passes.
//!
//! [`Node::step`] is the table of contents: what the world did is dispatched to the chapter that holds
//! the whole conversation. The chapters are the files below `node/`; what is private here is private to
//! them.

mod change;
mod commit;
mod election;
mod invariants;
mod outbox;
mod read;
mod replication;
mod role;
mod snapshot;
mod transfer;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::config::{Config, ConfigError};
use crate::configurations::Configurations;
use crate::entry::Entry;
use crate::event::{Event, Ignored};
use crate::input::Input;
use crate::log::Log;
use crate::membership::Membership;
use crate::message::{AppendOutcome, BallotKind, Envelope, Message, QuestionId, Round};
use crate::output::{
    ChangeOutcome, Consistency, Output, ProposalOutcome, Proposed, ReadId, ReadOutcome,
};
use crate::progress::Pace;
use crate::random::Random;
use crate::refusal::{ChangeRefusal, ProposeRefused, ReadRefused, TransferRefusal};
use crate::snapshot::{LogBase, Snapshot};
use crate::status::{PeerPace, PeerStatus, RoleKind, Status};
use crate::types::{Incarnation, Instant, LogIndex, LogPosition, NodeId, Term, Timestamp};
use crate::write::{HardState, Restored};
use change::PendingChange;
use outbox::Outbox;
use read::PatientRead;
use role::Role;
use snapshot::Snapshots;

/// A term this far above ours is damage, not an election: terms rise by one at a time.
const TERM_JUMP_MAX: u64 = 1 << 32;

/// No term is above this, so that the next one always exists.
const TERM_MAX: Term = Term(1 << 63);

/// One member of one Raft group, without a clock, a thread, a socket or a file.
///
/// Feed it what happens ([`step`](Self::step), [`propose`](Self::propose), [`read`](Self::read)), as much
/// as has queued up, then [`poll`](Self::poll) once and do what it says; call
/// [`step`](Self::step) with [`Input::Timer`] at [`deadline`](Self::deadline). Nothing that a peer, a
/// client or a clock does makes it fail or panic.
#[derive(Clone, Debug)]
pub struct Node {
    config: Config,
    random: Random,
    now: Instant,

    // Persistent state (Figure 2).
    hard_state: HardState,
    log: Log,
    configurations: Configurations,

    // Volatile state.
    role: Role,
    commit_index: LogIndex,
    /// Committed entries up to here have been handed out.
    handed_out: LogIndex,
    /// The state machine has reported these as applied.
    applied: LogIndex,
    /// When a node that does not lead campaigns.
    election_deadline: Instant,
    /// Until then a leader that this node has heard from may count on it (thesis §4.2.3).
    sticky_until: Instant,
    /// This node's own incarnation, and the highest that it has heard of each other node.
    incarnation: Incarnation,
    incarnations: Vec<(NodeId, Incarnation)>,
    /// What this node may have acknowledged and lost; the default if nothing.
    lost: LogPosition,
    /// Counts the questions that this life has asked: campaigns, and requests for a read index.
    questions: u64,
    /// Runs of entries that were proposed here and whose fate is open, in log order.
    proposals: VecDeque<(LogPosition, LogPosition)>,
    /// The membership change that was taken here and whose fate is open.
    change: Option<PendingChange>,
    reads_taken: u64,
    patient_reads: VecDeque<PatientRead>,
    snapshots: Snapshots,

    // What the next poll hands out.
    outbox: Outbox,
    read_outcomes: Vec<ReadOutcome>,
    proposal_outcomes: Vec<ProposalOutcome>,
    change_outcomes: Vec<ChangeOutcome>,
    events: Vec<Event>,
}

/// Why a node cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration would break Raft.
    Config(ConfigError),
    /// The restored log has `found` where an entry with index `expected` must be.
    Gap {
        /// The index that must come next.
        expected: LogIndex,
        /// The index that is there.
        found: LogIndex,
    },
    /// The entry at this position has a lower term than the one before it.
    TermFalls(LogPosition),
    /// No cluster gets to this term by elections.
    AbsurdTerm(Term),
    /// The log has an entry of a term that the vote record has not seen yet.
    TermAheadOfVote {
        /// The last entry.
        last: LogPosition,
        /// The term of the vote record.
        term: Term,
    },
    /// The log does not begin at its beginning, and there is no snapshot of what came before `base`.
    NoSnapshot {
        /// What the log stands on.
        base: LogPosition,
    },
    /// The snapshot ends before the log begins, or at an entry that the log does not have. (After a
    /// crash while one was installed, the storage has to drop the log before it.)
    SnapshotOffLog {
        /// The last entry in the snapshot.
        snapshot: LogPosition,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "{error}"),
            Self::Gap { expected, found } => {
                write!(f, "restored log: index {found} where {expected} must be")
            }
            Self::TermFalls(position) => {
                write!(f, "restored log: the term falls at {position}")
            }
            Self::AbsurdTerm(term) => write!(f, "restored vote: no cluster reaches term {term}"),
            Self::TermAheadOfVote { last, term } => {
                write!(
                    f,
                    "restored log: its last entry {last} is of a later term than the vote, {term}"
                )
            }
            Self::NoSnapshot { base } => {
                write!(f, "restored log: it begins after {base}, and there is no snapshot")
            }
            Self::SnapshotOffLog { snapshot } => {
                write!(f, "restored snapshot: its last entry {snapshot} is not in the log")
            }
        }
    }
}

impl core::error::Error for StartError {}

impl Node {
    /// A node with what its storage remembers, a follower at first (§5.2).
    ///
    /// # Errors
    /// If the configuration breaks a rule, or what storage restored cannot be the state of a Raft node.
    pub fn new(config: Config, restored: Restored, now: Instant) -> Result<Self, StartError> {
        config.validate().map_err(StartError::Config)?;
        check_restored(&restored)?;
        let Restored { hard_state, incarnation, base, entries, snapshot, lost } = restored;
        let LogBase { position, timestamp, membership, membership_index } = base;
        let configurations = Configurations::new(membership_index, membership, &entries);
        let applied = snapshot.as_ref().map_or(position.index, Snapshot::index);
        let mut random = Random::new(config.seed);
        // Before it was started again it may have heard from a leader that holds a lease.
        let leases = config.lease_clock_drift_ppm.is_some();
        let sticky_until = if leases { now.after(config.election_timeout) } else { now };
        let election_deadline = now.after(random.between_once_and_twice(config.election_timeout));
        Ok(Self {
            outbox: Outbox::new(config.seed, hard_state),
            config,
            random,
            now,
            hard_state,
            log: Log::restored(position, timestamp, entries),
            configurations,
            role: Role::follower(),
            commit_index: applied,
            handed_out: applied,
            applied,
            election_deadline,
            sticky_until,
            incarnation,
            incarnations: Vec::new(),
            lost,
            questions: 0,
            proposals: VecDeque::new(),
            change: None,
            reads_taken: 0,
            patient_reads: VecDeque::new(),
            snapshots: Snapshots::new(snapshot),
            read_outcomes: Vec::new(),
            proposal_outcomes: Vec::new(),
            change_outcomes: Vec::new(),
            events: Vec::new(),
        })
    }

    /// Takes in something that happened.
    pub fn step(&mut self, now: Instant, input: Input) {
        self.advance_clock(now);
        match input {
            Input::Timer => self.on_timer(),
            Input::Message(envelope) => self.on_message(envelope),
            Input::Written(receipt) => self.on_written(&receipt),
            Input::Applied(index) => self.on_applied(index),
            Input::SnapshotCut(snapshot) => self.on_snapshot_cut(snapshot),
            Input::ChunkRead { order, bytes } => self.on_chunk_read(&order, bytes),
            Input::SnapshotHeld { snapshot, bytes } => self.on_snapshot_held(snapshot, bytes),
        }
        self.debug_check_invariants();
    }

    /// Appends commands to the log of a leader (§5.3), to be replicated by the next
    /// [`poll`](Self::poll). `timestamp` is the caller's wall clock; the entries carry it, or the
    /// timestamp of the last entry if that is later.
    ///
    /// # Errors
    /// If this node does not lead, or too much is uncommitted already; the commands come back and are
    /// in no log.
    pub fn propose(
        &mut self,
        now: Instant,
        timestamp: Timestamp,
        commands: Vec<Bytes>,
    ) -> Result<Proposed, ProposeRefused> {
        self.advance_clock(now);
        let result = match self.check_proposal(&commands) {
            Ok(()) => Ok(self.append_commands(timestamp, commands)),
            Err(reason) => Err(ProposeRefused { reason, commands }),
        };
        self.debug_check_invariants();
        result
    }

    /// Asks for the index at which a read may be served (thesis §6.4), on any node: a follower asks the
    /// leader. The answer comes in [`Output::reads`].
    ///
    /// # Errors
    /// If there is no leader to ask, or too many reads wait.
    pub fn read(&mut self, now: Instant, consistency: Consistency) -> Result<ReadId, ReadRefused> {
        self.advance_clock(now);
        let result = self.take_read(consistency);
        self.debug_check_invariants();
        result
    }

    /// Makes the cluster consist of the voters and learners of `target` (§6, thesis §4): any set to any
    /// other, in one request. If `expected` is given, only if the configuration in effect is still the one
    /// at that index ([`Status::membership_index`]). The position names the change; its end comes in
    /// [`Output::changes`].
    ///
    /// New nodes should come as learners first, and be made voters when they have caught up, by another
    /// request or by themselves ([`Config::promotion`]).
    ///
    /// # Errors
    /// Why the change was not begun; nothing has changed then.
    pub fn change_membership(
        &mut self,
        now: Instant,
        timestamp: Timestamp,
        target: &Membership,
        expected: Option<LogIndex>,
    ) -> Result<LogPosition, ChangeRefusal> {
        self.advance_clock(now);
        self.check_change(target, expected)?;
        let change = self.begin_change(timestamp, target);
        self.watch_change(change);
        self.debug_check_invariants();
        Ok(change)
    }

    /// Hands leadership over (thesis §3.10) to the voter `to`, or to the one that has most of the log;
    /// tells to whom. No proposal is taken until that node leads, or an election timeout has passed
    /// ([`Event::TransferFailed`]).
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    pub fn transfer_leadership(
        &mut self,
        now: Instant,
        to: Option<NodeId>,
    ) -> Result<NodeId, TransferRefusal> {
        self.advance_clock(now);
        let result = self.start_transfer(to);
        self.debug_check_invariants();
        result
    }

    /// What a snapshot of the state machine as of `index`, which must have been reported as applied, is
    /// to be stored with; `None` if this node cannot tell (any more). To be given back in
    /// [`Input::SnapshotCut`] when it is durable.
    #[must_use]
    pub fn snapshot_base(&self, index: LogIndex) -> Option<LogBase> {
        self.base_at(index)
    }

    /// Collects everything that is to be done now, behind what `output` still holds; its buffers are
    /// reused.
    pub fn poll(&mut self, output: &mut Output) {
        self.start_read_round();
        self.ask_leader_for_index();
        self.replicate();
        self.hand_over();
        self.retire();
        self.acknowledge_leader();
        self.poll_snapshots(output);
        // A write that nobody took yet must not be lost: the next one waits.
        if output.write.is_none() {
            output.write = self.take_write();
        }
        self.outbox.release(self.hard_state, &mut output.messages);
        self.hand_out_committed(&mut output.committed);
        output.reads.append(&mut self.read_outcomes);
        output.proposals.append(&mut self.proposal_outcomes);
        output.changes.append(&mut self.change_outcomes);
        output.events.append(&mut self.events);
        self.debug_check_invariants();
    }

    /// When to call [`step`](Self::step) with [`Input::Timer`], if nothing else happens before.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let of_role = match &self.role {
            Role::Leader(leader) => {
                let gives_up = self.quorum_deadline(leader).min(self.disk_deadline());
                gives_up.min(leader.heartbeat_due).min(Self::transfer_deadline(leader))
            }
            Role::Follower(follower) => self.election_timer().min(follower.reads.retry_due()),
            Role::PreCandidate(_) | Role::Candidate(_) => self.election_timer(),
        };
        of_role.min(self.patience_deadline()).min(self.snapshots.ask_due())
    }

    /// The node as it sees itself.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            id: self.config.id,
            role: self.role.kind(),
            term: self.hard_state.term,
            voted_for: self.hard_state.voted_for,
            leader: self.leader(),
            last: self.log.last(),
            durable: self.log.durable(),
            commit: self.commit_index,
            applied: self.applied,
            base: self.log.base(),
            snapshot: self.snapshots.held.newest().map(Snapshot::id),
            membership: self.membership().clone(),
            membership_index: self.configurations.current_index(),
            transferring_to: match &self.role {
                Role::Leader(leader) => leader.transfer.as_ref().map(|transfer| transfer.to),
                _ => None,
            },
            peers: self.peer_statuses(),
        }
    }

    /// The role and the term: the part of [`status`](Self::status) that costs nothing.
    #[must_use]
    pub fn role(&self) -> (RoleKind, Term) {
        (self.role.kind(), self.hard_state.term)
    }

    /// The entry at `index`, if it is in this node's log.
    #[must_use]
    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        self.log.get(index)
    }

    /// The prelude of every message: nonsense and the past are dropped, a newer term is adopted
    /// (Figure 2, rules for all servers); then the chapter that it belongs to.
    fn on_message(&mut self, envelope: Envelope) {
        if let Some(why) = self.refuse_at_the_gate(&envelope) {
            return self.ignore(Some(envelope.from), why);
        }
        let Envelope { group: _, from, to: _, term, incarnation, message } = envelope;
        self.note_incarnation(from, incarnation);
        if term < self.hard_state.term {
            return self.on_stale(from, message);
        }
        if term > self.hard_state.term {
            self.become_follower(term);
        }
        match message {
            Message::RequestVote { ballot, last } => self.on_request_vote(from, ballot, last),
            Message::RequestVoteReply { ballot, granted } => {
                self.on_request_vote_reply(from, ballot, granted);
            }
            Message::AppendEntries { prev, entries, commit, round } => {
                self.on_append_entries(from, prev, entries, commit, round);
            }
            Message::AppendEntriesReply { round, outcome } => {
                self.on_append_entries_reply(from, round, outcome);
            }
            Message::ReadIndex { ticket, lease } => self.on_read_index(from, ticket, lease),
            Message::ReadIndexReply { ticket, index } => {
                self.on_read_index_reply(from, ticket, index);
            }
            Message::InstallSnapshot { snapshot } => self.on_install_snapshot(from, snapshot),
            Message::SnapshotRequest { snapshot, offset } => {
                self.on_snapshot_request(from, snapshot, offset);
            }
            Message::SnapshotChunk { snapshot, offset, bytes } => {
                self.on_snapshot_chunk(from, snapshot, offset, bytes);
            }
            Message::TimeoutNow => self.on_timeout_now(from),
        }
    }

    /// What must not change anything, not even the term.
    fn refuse_at_the_gate(&self, envelope: &Envelope) -> Option<Ignored> {
        let Envelope { group, from, to, term, incarnation, message } = envelope;
        if *group != self.config.group || *to != self.config.id || *from == self.config.id {
            return Some(Ignored::Misdirected);
        }
        if *term > TERM_MAX || term.0 > self.hard_state.term.0.saturating_add(TERM_JUMP_MAX) {
            return Some(Ignored::AbsurdTerm);
        }
        if *incarnation < self.incarnation_of(*from) {
            return Some(Ignored::StaleIncarnation);
        }
        match message {
            // Whoever hears from a leader does not help to depose it (thesis §4.2.3, §9.6), unless that
            // leader wants it.
            Message::RequestVote { ballot, .. }
                if *term >= self.hard_state.term
                    && ballot.kind != BallotKind::Transfer
                    && self.leader_is_alive() =>
            {
                Some(Ignored::LeaderIsAlive)
            }
            Message::AppendEntries { prev, entries, .. } if !well_formed(*prev, entries, *term) => {
                Some(Ignored::Malformed)
            }
            Message::InstallSnapshot { snapshot } if !snapshot.base.is_sound(*term) => {
                Some(Ignored::Malformed)
            }
            _ => None,
        }
    }

    fn incarnation_of(&self, peer: NodeId) -> Incarnation {
        let known = self.incarnations.iter().find(|(id, _)| *id == peer);
        known.map_or(Incarnation::default(), |(_, incarnation)| *incarnation)
    }

    /// A peer that comes back with another disk has what that disk has, whatever it said before.
    fn note_incarnation(&mut self, from: NodeId, incarnation: Incarnation) {
        let last = self.log.last().index;
        let is_member = self.membership().contains(from);
        match self.incarnations.iter_mut().find(|(id, _)| *id == from) {
            Some((_, known)) if *known == incarnation => return,
            Some((_, known)) => *known = incarnation,
            // Only members count for anything; so what is remembered is bounded.
            None if is_member => {
                return self.incarnations.push((from, incarnation));
            }
            None => return,
        }
        self.events.push(Event::PeerReborn { peer: from, incarnation });
        if let Role::Leader(leader) = &mut self.role
            && let Some(peer) = leader.peer_mut(from)
        {
            peer.reborn(last);
        }
    }

    /// A message of a term that has passed. A question is answered with the current term, so that its
    /// sender stops asking (§5.1); an answer is dropped.
    fn on_stale(&mut self, from: NodeId, message: Message) {
        match message {
            Message::RequestVote { ballot, .. } => {
                self.send(from, Message::RequestVoteReply { ballot, granted: false });
            }
            Message::AppendEntries { prev, round, .. } => {
                let hint = self.log.last_at_or_below(prev.index, prev.term);
                let outcome = AppendOutcome::Refused { prev: prev.index, hint };
                self.send(from, Message::AppendEntriesReply { round, outcome });
            }
            Message::ReadIndex { ticket, .. } => {
                self.send(from, Message::ReadIndexReply { ticket, index: None });
            }
            Message::InstallSnapshot { .. } => {
                let (round, prev, hint) = (Round(0), LogIndex(0), LogPosition::ZERO);
                let outcome = AppendOutcome::Refused { prev, hint };
                self.send(from, Message::AppendEntriesReply { round, outcome });
            }
            // Content has no term: it is asked for by name.
            Message::SnapshotRequest { snapshot, offset } => {
                return self.on_snapshot_request(from, snapshot, offset);
            }
            Message::SnapshotChunk { snapshot, offset, bytes } => {
                return self.on_snapshot_chunk(from, snapshot, offset, bytes);
            }
            Message::RequestVoteReply { .. }
            | Message::AppendEntriesReply { .. }
            | Message::ReadIndexReply { .. }
            | Message::TimeoutNow => {}
        }
        self.ignore(Some(from), Ignored::StaleTerm);
    }

    fn on_timer(&mut self) {
        if self.now >= self.patience_deadline() {
            self.release_patient_reads();
        }
        match &self.role {
            Role::Leader(leader) => {
                if self.now >= self.quorum_deadline(leader) {
                    self.step_down_without_quorum();
                } else if self.now >= self.disk_deadline() {
                    self.step_down_with_hanging_disk();
                } else if self.now >= Self::transfer_deadline(leader) {
                    self.give_up_transfer();
                } else if self.now >= leader.heartbeat_due {
                    self.heartbeat();
                }
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                if self.now >= self.election_timer() {
                    self.campaign();
                } else {
                    self.retry_read_index();
                }
            }
        }
    }

    /// The state machine has applied entries up to `index`: more may be handed out.
    fn on_applied(&mut self, index: LogIndex) {
        if index < self.applied || index > self.handed_out {
            return self.ignore(None, Ignored::BadAppliedIndex);
        }
        self.applied = index;
    }

    /// A clock that goes back is taken to stand still.
    fn advance_clock(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn membership(&self) -> &Membership {
        self.configurations.current()
    }

    fn new_question(&mut self) -> QuestionId {
        self.questions += 1;
        QuestionId { life: self.config.seed, number: self.questions }
    }

    fn send(&mut self, to: NodeId, message: Message) {
        let Config { id, group, .. } = self.config;
        let (term, incarnation) = (self.hard_state.term, self.incarnation);
        self.outbox.push(Envelope { group, from: id, to, term, incarnation, message });
    }

    fn ignore(&mut self, from: Option<NodeId>, why: Ignored) {
        self.events.push(Event::Ignored { from, why });
    }

    fn peer_statuses(&self) -> Vec<PeerStatus> {
        let Role::Leader(leader) = &self.role else {
            return Vec::new();
        };
        let status = |peer: &crate::progress::Progress| PeerStatus {
            id: peer.id,
            match_index: peer.match_index,
            next_index: peer.next_index,
            recently_active: peer.is_active(self.now, self.config.election_timeout),
            pace: match peer.pace {
                Pace::Probe { .. } => PeerPace::Probe,
                Pace::Replicate(_) => PeerPace::Replicate,
                Pace::Snapshot { held, .. } => PeerPace::Snapshot { held },
            },
        };
        leader.peers.iter().map(status).collect()
    }
}

/// Are these entries what a leader of `term` could send behind `prev`?
fn well_formed(prev: LogPosition, entries: &[Entry], term: Term) -> bool {
    let mut before = (prev, Timestamp::default());
    if prev.term > term || prev.index.0.checked_add(entries.len() as u64).is_none() {
        return false;
    }
    entries.iter().all(|entry| {
        let (last, time) = core::mem::replace(&mut before, (entry.position(), entry.timestamp));
        entry.index == last.index.next()
            && entry.term >= last.term
            && entry.term <= term
            && entry.timestamp >= time
    })
}

fn check_restored(restored: &Restored) -> Result<(), StartError> {
    let base = restored.base.position;
    let mut last = base;
    let snapshot = restored.snapshot.as_ref().map(|snapshot| snapshot.base.position);
    let mut snapshot_in_log = snapshot.is_none_or(|snapshot| snapshot == base);
    for entry in &restored.entries {
        if entry.index.0 != last.index.0.wrapping_add(1) {
            return Err(StartError::Gap { expected: last.index.next(), found: entry.index });
        }
        if entry.term < last.term {
            return Err(StartError::TermFalls(entry.position()));
        }
        last = entry.position();
        snapshot_in_log |= snapshot == Some(last);
    }
    if restored.hard_state.term > TERM_MAX {
        return Err(StartError::AbsurdTerm(restored.hard_state.term));
    }
    if last.term > restored.hard_state.term {
        return Err(StartError::TermAheadOfVote { last, term: restored.hard_state.term });
    }
    match snapshot {
        None if base.index > LogIndex(0) => Err(StartError::NoSnapshot { base }),
        Some(snapshot) if !snapshot_in_log => Err(StartError::SnapshotOffLog { snapshot }),
        _ => Ok(()),
    }
}
