//! The way of a request from its caller to whoever can answer it: finding the leader, within the
//! time that there is, and never asking twice for something that may have been done.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use raft_core::{LogIndex, NodeId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::error::{NotApplied, ProposeError, ReadError};
use crate::forward::Forwarders;
use crate::handle::Applied;
use crate::inbox::Read;
use crate::meters::Doors;
use crate::pending::{Answer, Failure, Proposal, ReadFailure, ReadWaiter};
use crate::queue::{Refused, Sender};
use crate::status::Leadership;

/// The pauses between looks for a leader, while one is elected: each twice the one before.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// The doors of a node, from the side of its callers.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) id: NodeId,
    pub(crate) proposals: Sender<Proposal>,
    pub(crate) reads: mpsc::Sender<Read>,
    pub(crate) forwarders: Forwarders,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) command_bytes_max: u64,
    /// The node takes nothing new any more.
    pub(crate) draining: CancellationToken,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) doors: Doors,
}

/// Why there is nobody to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Nobody {
    NoLeader,
    ShuttingDown,
}

impl From<Nobody> for ProposeError {
    fn from(why: Nobody) -> Self {
        match why {
            Nobody::NoLeader => NotApplied::NoLeader.into(),
            Nobody::ShuttingDown => NotApplied::ShuttingDown.into(),
        }
    }
}

impl From<Nobody> for ReadError {
    fn from(why: Nobody) -> Self {
        match why {
            Nobody::NoLeader => Self::NoLeader,
            Nobody::ShuttingDown => Self::ShuttingDown,
        }
    }
}

/// A request that counts as in flight for as long as this exists.
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Requests {
    /// How many requests of this process wait for their answers.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    fn enter(&self) -> Result<InFlight<'_>, Nobody> {
        // Counted first: a node that stops sees either the count or nothing of the request.
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        let in_flight = InFlight(&self.in_flight);
        if self.draining.is_cancelled() {
            return Err(Nobody::ShuttingDown);
        }
        Ok(in_flight)
    }

    /// Has a command committed and applied, through the leader.
    pub(crate) async fn propose(
        &self,
        command: Bytes,
        deadline: Instant,
    ) -> Result<Applied, ProposeError> {
        let begin = Instant::now();
        let outcome = self.propose_somewhere(command, deadline).await;
        self.doors.proposed(begin.elapsed(), &outcome);
        outcome
    }

    async fn propose_somewhere(
        &self,
        command: Bytes,
        deadline: Instant,
    ) -> Result<Applied, ProposeError> {
        let (bytes, max) = (command.len() as u64, self.command_bytes_max);
        if bytes > max {
            return Err(NotApplied::TooLarge { bytes, max }.into());
        }
        let _in_flight = self.enter()?;
        let mut pause = PAUSE_MIN;
        let mut redirected = None;
        loop {
            let leader = match redirected {
                Some(leader) => leader,
                None => self.leader_before(deadline).await?,
            };
            let hint = match self.propose_at(leader, command.clone(), deadline).await {
                Ok(applied) => return Ok(applied),
                Err(Failure::Final(error)) => return Err(error),
                // It is in no log: someone else may be asked.
                Err(Failure::NotLeader { hint }) => hint.filter(|&hint| hint != leader),
            };
            // A hint is followed at once, but one only: two nodes that name each other both lag.
            redirected = hint.filter(|_| redirected.is_none());
            if redirected.is_none() {
                self.pause(&mut pause, deadline).await?;
            }
        }
    }

    async fn propose_at(&self, leader: NodeId, command: Bytes, deadline: Instant) -> Answer {
        let (proposal, ticket) = Proposal::local(command);
        if leader == self.id {
            self.proposals.try_send(proposal).map_err(|refused| match refused {
                Refused::Full(_) => Failure::from(NotApplied::Busy),
                Refused::Closed(_) => NotApplied::ShuttingDown.into(),
            })?;
        } else {
            self.forwarders.forward(leader, proposal)?;
        }
        ticket.wait_until(deadline).await
    }

    /// Waits until a linearizable read may look at the state machine of this node.
    pub(crate) async fn read_linearizable(&self, deadline: Instant) -> Result<(), ReadError> {
        let _in_flight = self.enter()?;
        let begin = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            match self.ask_to_read(Read::Linearizable, deadline).await? {
                Ok(()) => {
                    self.doors.read(begin.elapsed());
                    return Ok(());
                }
                Err(ReadFailure::Busy) => return Err(ReadError::Busy),
                Err(ReadFailure::NoLeader) => {}
            }
            self.leader_before(deadline).await?;
            self.pause(&mut pause, deadline).await?;
        }
    }

    /// Waits until the state machine of this node reflects `index`.
    pub(crate) async fn read_at_least(
        &self,
        index: LogIndex,
        deadline: Instant,
    ) -> Result<(), ReadError> {
        let _in_flight = self.enter()?;
        let read = |waiter| Read::AtLeast(index, waiter);
        let answer = self.ask_to_read(read, deadline).await?;
        answer.map_err(|_| ReadError::Busy) // This read asks no leader.
    }

    async fn ask_to_read(
        &self,
        read: impl FnOnce(ReadWaiter) -> Read,
        deadline: Instant,
    ) -> Result<Result<(), ReadFailure>, ReadError> {
        let (waiter, answer) = oneshot::channel();
        self.reads.try_send(read(waiter)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReadError::Busy,
            mpsc::error::TrySendError::Closed(_) => ReadError::ShuttingDown,
        })?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_dropped)) => Err(ReadError::ShuttingDown),
            Err(_elapsed) => Err(ReadError::Timeout),
        }
    }

    /// The leader that this node knows, or will know in time.
    pub(crate) async fn leader_before(&self, deadline: Instant) -> Result<NodeId, Nobody> {
        let known = self.leadership.borrow().leader;
        if let Some(leader) = known {
            return Ok(leader);
        }
        let mut leadership = self.leadership.clone();
        tokio::select! {
            known = leadership.wait_for(|leadership| leadership.leader.is_some()) => {
                // The sender is gone when the node is.
                let known = known.map_err(|_| Nobody::ShuttingDown)?;
                known.leader.ok_or(Nobody::NoLeader)
            }
            () = self.draining.cancelled() => Err(Nobody::ShuttingDown),
            () = tokio::time::sleep_until(deadline) => Err(Nobody::NoLeader),
        }
    }

    /// Lets an election take its time, but no longer than until it shows a result.
    pub(crate) async fn pause(
        &self,
        pause: &mut Duration,
        deadline: Instant,
    ) -> Result<(), Nobody> {
        let mut leadership = self.leadership.clone();
        leadership.mark_unchanged();
        let until = (Instant::now() + *pause).min(deadline);
        *pause = (*pause * 2).min(PAUSE_MAX);
        tokio::select! {
            changed = leadership.changed() => changed.map_err(|_| Nobody::ShuttingDown)?,
            () = self.draining.cancelled() => return Err(Nobody::ShuttingDown),
            () = tokio::time::sleep_until(until) => {}
        }
        if Instant::now() < deadline { Ok(()) } else { Err(Nobody::NoLeader) }
    }
}
