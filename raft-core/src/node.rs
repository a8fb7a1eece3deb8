//! One member of one Raft group: its state and its doors.
//!
//! [`Node::step`] is the table of contents: what the world did is dispatched to the chapter that holds
//! the whole conversation. The chapters are the files below `node/`; what is private here is private to
//! them.

mod change;
mod commit;
mod election;
mod fingerprint;
mod invariants;
mod outbox;
mod prelude;
mod read;
mod replication;
mod role;
mod snapshot;
mod timeless;
mod transfer;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::config::Config;
use crate::configurations::Configurations;
use crate::entry::Entry;
use crate::event::{Event, Ignored};
use crate::input::Input;
use crate::log::Log;
use crate::membership::Membership;
use crate::message::{Message, QuestionId};
use crate::output::{
    ChangeOutcome, Consistency, Output, ProposalOutcome, Proposed, ReadId, ReadOutcome,
};
use crate::progress::Pace;
use crate::random::Random;
use crate::refusal::{ChangeRefusal, ProposeRefused, ReadRefused, TransferRefusal};
use crate::restored::{Restored, StartError};
use crate::snapshot::{LogBase, Snapshot};
use crate::status::{PeerPace, PeerStatus, RoleKind, Status};
use crate::types::{Incarnation, Instant, LogIndex, LogPosition, NodeId, Term, Timestamp};
use crate::write::HardState;
use change::PendingChange;
use outbox::{Outbox, Sender};
use read::PatientRead;
use role::Role;
use snapshot::Snapshots;
pub use timeless::Alarm;
pub(crate) use timeless::Forgetting;

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

impl Node {
    /// A node with what its storage remembers, a follower at first (§5.2).
    ///
    /// # Errors
    /// If the configuration breaks a rule, or what storage restored cannot be the state of a Raft node.
    pub fn new(config: Config, restored: Restored, now: Instant) -> Result<Self, StartError> {
        config.validate().map_err(StartError::Config)?;
        restored.check()?;
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

    /// Takes in something that happened. `now` must have been read after it did: whoever is fed with an
    /// older time trusts a lease, or a leader, for too long.
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
    /// to be stored with; `None` if this node cannot tell any more, or not yet, because its own disk does
    /// not have that index: then ask again later. To be given back in
    /// [`Input::SnapshotCut`] when it is durable.
    #[must_use]
    pub fn snapshot_base(&self, index: LogIndex) -> Option<LogBase> {
        self.base_at(index)
    }

    /// Collects everything that is to be done now, behind what `output` still holds; its buffers are
    /// reused.
    pub fn poll(&mut self, output: &mut Output) {
        self.log.seal();
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
        if self.snapshots.hand_out_restore(output) {
            self.hand_out_committed(&mut output.committed);
        }
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
        let envelope = self.sender().to(to, message);
        self.outbox.push(envelope);
    }

    fn sender(&self) -> Sender {
        let Config { id, group, .. } = self.config;
        Sender { group, id, term: self.hard_state.term, incarnation: self.incarnation }
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
