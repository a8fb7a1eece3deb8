//! Linearizable reads without writing to the log (ReadIndex and leases, thesis §6.4).
//!
//! A leader notes its commit index, makes sure with one round of heartbeats, shared by all reads that
//! wait, that it still leads, and then lets them read at that index. A follower asks the leader for the
//! index, once for all reads that wait. A leader whose lease holds need not make sure.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use super::role::{Follower, Leader, Role};
use super::{Alarm, Forgetting, Node};
use crate::event::Ignored;
use crate::message::{Message, QuestionId, Round};
use crate::output::{Consistency, ReadId, ReadOutcome};
use crate::refusal::ReadRefused;
use crate::types::{Instant, LogIndex, NodeId};

/// A read that waits at the leader.
#[derive(Clone, Debug, Hash)]
pub(super) struct WaitingRead {
    asker: Asker,
    /// The round that must be confirmed and the index to read at; not before that round is started.
    question: Option<(Round, LogIndex)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Asker {
    Here(ReadId),
    Follower { id: NodeId, ticket: QuestionId },
}

/// Until when no other node can have been elected, if clocks drift no more than configured.
///
/// A follower that has heard from its leader refuses its vote for an election timeout (see
/// `leader_is_alive`), so the lease counts from the moment at which the round was *sent* that a majority
/// has answered: they heard it later (thesis §6.4.1).
#[derive(Clone, Debug, Hash)]
pub(super) struct Lease {
    /// When rounds were sent that no majority has answered yet.
    sent: VecDeque<(Round, Instant)>,
    from: Option<Instant>,
    /// The leader has given its consent to an election, which may come at any time.
    revoked: bool,
}

impl Lease {
    /// So many rounds are remembered; a lease that is older has run out anyway.
    const ROUNDS_MAX: usize = 64;

    pub(super) fn new(now: Instant) -> Self {
        Self { sent: VecDeque::from([(Round(1), now)]), from: None, revoked: false }
    }

    pub(super) fn on_sent(&mut self, round: Round, now: Instant) {
        if self.sent.len() == Self::ROUNDS_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((round, now));
    }

    fn on_confirmed(&mut self, round: Round) {
        while let Some(&(_, at)) = self.sent.front().filter(|(sent, _)| *sent <= round) {
            self.from = Some(at);
            self.sent.pop_front();
        }
    }

    /// Leases are off: nothing looks at it.
    pub(super) fn forget(&mut self) {
        *self = Self { sent: VecDeque::new(), from: None, revoked: false };
    }

    /// Ends it for the rest of the term.
    pub(super) fn revoke(&mut self) {
        self.revoked = true;
    }

    fn holds(&self, now: Instant, duration: Option<Duration>) -> bool {
        let (Some(from), Some(duration)) = (self.from, duration) else {
            return false;
        };
        !self.revoked && now < from.after(duration)
    }
}

/// A read that waits until an index is known to be committed here.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct PatientRead {
    id: ReadId,
    index: LogIndex,
    until: Instant,
}

impl PatientRead {
    pub(super) fn forget_time(&mut self, forgetting: Forgetting) {
        forgetting.due(&mut self.until, Alarm::Rest);
    }
}

/// Reads that wait at a follower.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct FollowerReads {
    /// Not asked for yet.
    queued: Vec<ReadId>,
    /// One of them must not be answered from a lease.
    queued_strict: bool,
    asked: Option<Asked>,
}

/// A request on its way to the leader; one at a time, all that queue meanwhile share the next.
#[derive(Clone, Debug, Hash)]
struct Asked {
    ticket: QuestionId,
    lease: bool,
    reads: Vec<ReadId>,
    retry_due: Instant,
}

impl FollowerReads {
    pub(super) fn retry_due(&self) -> Instant {
        self.asked.as_ref().map_or(Instant::FAR_FUTURE, |asked| asked.retry_due)
    }

    pub(super) fn forget_time(&mut self, forgetting: Forgetting) {
        if let Some(asked) = &mut self.asked {
            forgetting.due(&mut asked.retry_due, Alarm::Heartbeat);
        }
    }

    fn len(&self) -> usize {
        self.queued.len() + self.asked.as_ref().map_or(0, |asked| asked.reads.len())
    }
}

impl Node {
    pub(super) fn take_read(&mut self, consistency: Consistency) -> Result<ReadId, ReadRefused> {
        let id = ReadId(self.reads_taken + 1);
        if let Consistency::AtLeast(index) = consistency {
            self.take_patient_read(id, index)?;
        } else {
            self.take_linearizable_read(id, consistency == Consistency::Lease)?;
        }
        self.reads_taken = id.0;
        Ok(id)
    }

    fn take_linearizable_read(&mut self, id: ReadId, lease: bool) -> Result<(), ReadRefused> {
        let max = self.config.waiting_reads_max;
        if lease && self.lease_holds() {
            self.answer_read(Asker::Here(id), Ok(self.commit_index));
            return Ok(());
        }
        match &mut self.role {
            Role::Leader(leader) if leader.reads.len() < max => {
                leader.reads.push_back(WaitingRead { asker: Asker::Here(id), question: None });
            }
            Role::Follower(Follower { leader: Some(_), reads }) if reads.len() < max => {
                reads.queued.push(id);
                reads.queued_strict |= !lease;
            }
            Role::Leader(_) | Role::Follower(Follower { leader: Some(_), .. }) => {
                return Err(ReadRefused::Busy);
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                return Err(ReadRefused::NoLeader);
            }
        }
        Ok(())
    }

    /// A lease is no good before an entry of the term is committed, as for any read of a leader.
    fn lease_holds(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => {
                leader.lease.holds(self.now, self.config.lease_duration())
                    && leader.transfer.is_none()
                    && self.commit_index >= leader.opening
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    fn take_patient_read(&mut self, id: ReadId, index: LogIndex) -> Result<(), ReadRefused> {
        if index <= self.commit_index {
            self.answer_read(Asker::Here(id), Ok(index));
        } else if self.patient_reads.len() < self.config.waiting_reads_max {
            let until = self.now.after(self.config.election_timeout);
            self.patient_reads.push_back(PatientRead { id, index, until });
        } else {
            return Err(ReadRefused::Busy);
        }
        Ok(())
    }

    /// When the read gives up that has been patient longest. All are equally patient.
    pub(super) fn patience_deadline(&self) -> Instant {
        self.patient_reads.front().map_or(Instant::FAR_FUTURE, |read| read.until)
    }

    /// The commit index has risen, or time has passed.
    pub(super) fn release_patient_reads(&mut self) {
        let (commit, now) = (self.commit_index, self.now);
        let Self { patient_reads, read_outcomes, .. } = self;
        patient_reads.retain(|&PatientRead { id, index, until }| {
            let outcome = if index <= commit {
                Ok(index)
            } else if until <= now {
                Err(ReadRefused::NotReached { commit })
            } else {
                return true;
            };
            read_outcomes.push(ReadOutcome { id, index: outcome });
            false
        });
    }

    /// Starts a round for the reads that wait, unless one is under way: then they share the next.
    pub(super) fn start_read_round(&mut self) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let under_way = leader.reads.front().is_some_and(|read| read.question.is_some());
        // Until an entry of its own term is committed a leader does not know what is (thesis §6.4).
        if leader.reads.is_empty() || under_way || self.commit_index < leader.opening {
            return;
        }
        let question = Some((leader.round.next(), self.commit_index));
        for read in &mut leader.reads {
            read.question = question;
        }
        self.start_round();
        self.release_reads(); // A cluster of one has its majority already.
    }

    /// A majority has confirmed a round: the reads that waited for it may go.
    pub(super) fn release_reads(&mut self) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let leases = self.config.lease_clock_drift_ppm.is_some();
        if leader.reads.is_empty() && !leases {
            return;
        }
        let confirmed = confirmed_round(self.configurations.current(), leader);
        leader.lease.on_confirmed(confirmed);
        let mut answers = Vec::new();
        while let Some(WaitingRead { asker, question: Some((round, index)) }) = leader.reads.front()
        {
            if *round > confirmed {
                break;
            }
            answers.push((*asker, *index));
            leader.reads.pop_front();
        }
        for (asker, index) in answers {
            self.answer_read(asker, Ok(index));
        }
    }

    /// The leader stopped leading: its own readers may try again elsewhere at once, followers are told
    /// by the change of leader.
    pub(super) fn fail_reads(&mut self, reads: VecDeque<WaitingRead>) {
        for read in reads {
            if let Asker::Here(_) = read.asker {
                self.answer_read(read.asker, Err(ReadRefused::LeadershipLost));
            }
        }
    }

    pub(super) fn fail_follower_reads(&mut self, reads: FollowerReads, why: ReadRefused) {
        let FollowerReads { queued, queued_strict: _, asked } = reads;
        let asked = asked.map_or(Vec::new(), |asked| asked.reads);
        for id in asked.into_iter().chain(queued) {
            self.answer_read(Asker::Here(id), Err(why));
        }
    }

    fn answer_read(&mut self, asker: Asker, index: Result<LogIndex, ReadRefused>) {
        match asker {
            Asker::Here(id) => self.read_outcomes.push(ReadOutcome { id, index }),
            Asker::Follower { id, ticket } => {
                self.send(id, Message::ReadIndexReply { ticket, index: index.ok() });
            }
        }
    }

    /// A follower asks the leader on behalf of all reads that wait.
    pub(super) fn ask_leader_for_index(&mut self) {
        let retry_due = self.now.after(self.config.heartbeat_interval);
        let Role::Follower(Follower { leader: Some(leader), reads }) = &mut self.role else {
            return;
        };
        if reads.asked.is_some() || reads.queued.is_empty() {
            return;
        }
        self.questions += 1;
        let ticket = QuestionId { life: self.config.seed, number: self.questions };
        let queued = core::mem::take(&mut reads.queued);
        let lease = !core::mem::take(&mut reads.queued_strict);
        reads.asked = Some(Asked { ticket, lease, reads: queued, retry_due });
        let to = leader.id;
        self.send(to, Message::ReadIndex { ticket, lease });
    }

    /// The request or its answer may have been lost. Asking again under the same number is safe: any
    /// answer to it was found after all its reads had begun.
    pub(super) fn retry_read_index(&mut self) {
        let (now, later) = (self.now, self.now.after(self.config.heartbeat_interval));
        let Role::Follower(Follower { leader: Some(leader), reads }) = &mut self.role else {
            return;
        };
        let Some(asked) = reads.asked.as_mut().filter(|asked| asked.retry_due <= now) else {
            return;
        };
        asked.retry_due = later;
        let (to, ticket, lease) = (leader.id, asked.ticket, asked.lease);
        self.send(to, Message::ReadIndex { ticket, lease });
    }

    /// A follower asks for an index to read at.
    pub(super) fn on_read_index(&mut self, from: NodeId, ticket: QuestionId, lease: bool) {
        let asker = Asker::Follower { id: from, ticket };
        let max = self.config.waiting_reads_max;
        let lease_holds = lease && self.lease_holds();
        let why = match &mut self.role {
            Role::Leader(leader) if leader.peer(from).is_none() => Ignored::NotAMember,
            Role::Leader(leader) if lease_holds => {
                leader.forget_other_question(from);
                return self.answer_read(asker, Ok(self.commit_index));
            }
            Role::Leader(leader) if leader.reads.iter().any(|read| read.asker == asker) => {
                return; // Asked again while its round is under way.
            }
            Role::Leader(leader) if leader.reads.len() < max => {
                leader.forget_other_question(from);
                return leader.reads.push_back(WaitingRead { asker, question: None });
            }
            Role::Leader(_) => Ignored::Busy,
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => Ignored::NotLeader,
        };
        self.send(from, Message::ReadIndexReply { ticket, index: None });
        self.ignore(Some(from), why);
    }

    /// The leader's answer.
    pub(super) fn on_read_index_reply(
        &mut self,
        from: NodeId,
        ticket: QuestionId,
        index: Option<LogIndex>,
    ) {
        let Role::Follower(Follower { leader: Some(leader), reads }) = &mut self.role else {
            return self.ignore(Some(from), Ignored::StaleReply);
        };
        let fresh =
            leader.id == from && reads.asked.as_ref().is_some_and(|asked| asked.ticket == ticket);
        if !fresh {
            return self.ignore(Some(from), Ignored::StaleReply);
        }
        let answered = reads.asked.take().map_or(Vec::new(), |asked| asked.reads);
        for id in answered {
            self.answer_read(Asker::Here(id), index.ok_or(ReadRefused::LeadershipLost));
        }
    }
}

impl Leader {
    /// A follower has one question at a time: when it asks another, it waits no longer for the one
    /// before. So what waits here is bounded, whatever a peer asks.
    fn forget_other_question(&mut self, follower: NodeId) {
        let is_its = |read: &WaitingRead| match read.asker {
            Asker::Follower { id, .. } => id == follower,
            Asker::Here(_) => false,
        };
        if let Some(place) = self.reads.iter().position(is_its) {
            self.reads.remove(place);
        }
    }
}

/// The latest round that a majority, the leader included, has confirmed.
fn confirmed_round(membership: &crate::membership::Membership, leader: &Leader) -> Round {
    membership.quorum_value(|id| leader.peer(id).map_or(leader.round, |peer| peer.confirmed))
}
