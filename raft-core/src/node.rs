//! One member of one Raft group: its state, its doors, and the prelude that every message passes.
//!
//! [`Node::step`] is the table of contents: what the world did is dispatched to the chapter that holds
//! the whole conversation. The chapters are the files below `node/`; what is private here is private to
//! them.

mod commit;
mod election;
mod invariants;
mod outbox;
mod read;
mod replication;
mod role;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::config::{Config, ConfigError};
use crate::configurations::Configurations;
use crate::entry::Entry;
use crate::input::Input;
use crate::log::Log;
use crate::membership::Membership;
use crate::message::{AppendOutcome, Envelope, Message, QuestionId};
use crate::output::{
    Event, Ignored, Output, PeerStatus, ProposalOutcome, ProposeRefused, Proposed, ReadId,
    ReadOutcome, ReadRefused, RoleKind, Status,
};
use crate::random::Random;
use crate::types::{Instant, LogIndex, LogPosition, NodeId, Term, Timestamp};
use crate::write::{HardState, Restored};
use outbox::Outbox;
use role::Role;

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
    /// Counts the questions that this life has asked: campaigns, and requests for a read index.
    questions: u64,
    /// Runs of entries that were proposed here and whose fate is open, in log order.
    proposals: VecDeque<(LogPosition, LogPosition)>,
    reads_taken: u64,

    // What the next poll hands out.
    outbox: Outbox,
    read_outcomes: Vec<ReadOutcome>,
    proposal_outcomes: Vec<ProposalOutcome>,
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
        let Restored { hard_state, base, base_timestamp, membership, entries } = restored;
        let configurations = Configurations::new(base.index, membership, &entries);
        let mut random = Random::new(config.seed);
        let election_deadline = now.after(random.between_once_and_twice(config.election_timeout));
        Ok(Self {
            outbox: Outbox::new(config.seed, hard_state),
            config,
            random,
            now,
            hard_state,
            log: Log::restored(base, base_timestamp, entries),
            configurations,
            role: Role::follower(),
            commit_index: base.index,
            handed_out: base.index,
            applied: base.index,
            election_deadline,
            questions: 0,
            proposals: VecDeque::new(),
            reads_taken: 0,
            read_outcomes: Vec::new(),
            proposal_outcomes: Vec::new(),
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

    /// Asks for the index at which a linearizable read may be served (thesis §6.4), on any node: a
    /// follower asks the leader. The answer comes in [`Output::reads`].
    ///
    /// # Errors
    /// If there is no leader to ask, or too many reads wait.
    pub fn read(&mut self, now: Instant) -> Result<ReadId, ReadRefused> {
        self.advance_clock(now);
        let result = self.take_read();
        self.debug_check_invariants();
        result
    }

    /// Collects everything that is to be done now, behind what `output` still holds; its buffers are
    /// reused.
    pub fn poll(&mut self, output: &mut Output) {
        self.start_read_round();
        self.ask_leader_for_index();
        self.replicate();
        self.acknowledge_leader();
        // A write that nobody took yet must not be lost: the next one waits.
        if output.write.is_none() {
            output.write = self.take_write();
        }
        self.outbox.release(self.hard_state, &mut output.messages);
        self.hand_out_committed(&mut output.committed);
        output.reads.append(&mut self.read_outcomes);
        output.proposals.append(&mut self.proposal_outcomes);
        output.events.append(&mut self.events);
        self.debug_check_invariants();
    }

    /// When to call [`step`](Self::step) with [`Input::Timer`], if nothing else happens before.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        match &self.role {
            Role::Leader(leader) => {
                let gives_up = self.quorum_deadline(leader).min(self.disk_deadline());
                leader.heartbeat_due.min(gives_up)
            }
            Role::Follower(follower) => self.election_timer().min(follower.reads.retry_due()),
            Role::PreCandidate(_) | Role::Candidate(_) => self.election_timer(),
        }
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
            membership: self.membership().clone(),
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
        let Envelope { group: _, from, to: _, term, message } = envelope;
        if term < self.hard_state.term {
            return self.on_stale(from, &message);
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
            Message::ReadIndex { ticket } => self.on_read_index(from, ticket),
            Message::ReadIndexReply { ticket, index } => {
                self.on_read_index_reply(from, ticket, index);
            }
        }
    }

    /// What must not change anything, not even the term.
    fn refuse_at_the_gate(&self, envelope: &Envelope) -> Option<Ignored> {
        let Envelope { group, from, to, term, message } = envelope;
        if *group != self.config.group || *to != self.config.id || *from == self.config.id {
            return Some(Ignored::Misdirected);
        }
        if *term > TERM_MAX || term.0 > self.hard_state.term.0.saturating_add(TERM_JUMP_MAX) {
            return Some(Ignored::AbsurdTerm);
        }
        match message {
            // Whoever hears from a leader does not help to depose it (thesis §4.2.3, §9.6).
            Message::RequestVote { .. }
                if *term >= self.hard_state.term && self.leader_is_alive() =>
            {
                Some(Ignored::LeaderIsAlive)
            }
            Message::AppendEntries { prev, entries, .. } if !well_formed(*prev, entries, *term) => {
                Some(Ignored::Malformed)
            }
            _ => None,
        }
    }

    /// A message of a term that has passed. A question is answered with the current term, so that its
    /// sender stops asking (§5.1); an answer is dropped.
    fn on_stale(&mut self, from: NodeId, message: &Message) {
        match message {
            Message::RequestVote { ballot, .. } => {
                let reply = Message::RequestVoteReply { ballot: *ballot, granted: false };
                self.send(from, reply);
            }
            Message::AppendEntries { prev, round, .. } => {
                let hint = self.log.last_at_or_below(prev.index, prev.term);
                let outcome = AppendOutcome::Refused { prev: prev.index, hint };
                self.send(from, Message::AppendEntriesReply { round: *round, outcome });
            }
            Message::ReadIndex { ticket } => {
                self.send(from, Message::ReadIndexReply { ticket: *ticket, index: None });
            }
            Message::RequestVoteReply { .. }
            | Message::AppendEntriesReply { .. }
            | Message::ReadIndexReply { .. } => {}
        }
        self.ignore(Some(from), Ignored::StaleTerm);
    }

    fn on_timer(&mut self) {
        match &self.role {
            Role::Leader(leader) => {
                if self.now >= self.quorum_deadline(leader) {
                    self.step_down_without_quorum();
                } else if self.now >= self.disk_deadline() {
                    self.step_down_with_hanging_disk();
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
        let term = self.hard_state.term;
        self.outbox.push(Envelope { group, from: id, to, term, message });
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
    let mut last = restored.base;
    for entry in &restored.entries {
        if entry.index.0 != last.index.0.wrapping_add(1) {
            return Err(StartError::Gap { expected: last.index.next(), found: entry.index });
        }
        if entry.term < last.term {
            return Err(StartError::TermFalls(entry.position()));
        }
        last = entry.position();
    }
    if restored.hard_state.term > TERM_MAX {
        return Err(StartError::AbsurdTerm(restored.hard_state.term));
    }
    if last.term > restored.hard_state.term {
        return Err(StartError::TermAheadOfVote { last, term: restored.hard_state.term });
    }
    Ok(())
}
