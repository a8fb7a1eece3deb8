//! Who waits for what. Every waiter gets an answer, whatever happens: one that is dropped answers
//! by being dropped.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use raft_core::{
    Entry, Fate, LogIndex, NodeId, ProposalOutcome, Proposed, ReadId, ReadOutcome, ReadRefused,
    Term,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::error::{NotApplied, ProposeError, Unknown};
use crate::handle::Applied;
use crate::queue::Weigh;

/// How a proposal ended.
pub(crate) type Answer = Result<Applied, Failure>;

/// Why a proposal has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is in no log; the node that was asked does not lead, but knows who might.
    NotLeader { hint: Option<NodeId> },
    /// Nothing more can be done about it here.
    Final(ProposeError),
}

impl From<NotApplied> for Failure {
    fn from(why: NotApplied) -> Self {
        Self::Final(why.into())
    }
}

impl From<Unknown> for Failure {
    fn from(why: Unknown) -> Self {
        Self::Final(why.into())
    }
}

/// A command on its way to a log.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) command: Bytes,
    pub(crate) waiter: Waiter,
}

impl Proposal {
    /// A command proposed in this process, and where its answer comes.
    pub(crate) fn local(command: Bytes) -> (Self, Ticket) {
        let (sender, answer) = oneshot::channel();
        let claimed = Arc::new(AtomicBool::new(false));
        let ticket = Ticket { answer, claimed: Arc::clone(&claimed) };
        let waiter = Waiter::Local { answer: sender, claimed };
        (Self { command, waiter }, ticket)
    }
}

impl Weigh for Proposal {
    fn size_bytes(&self) -> u64 {
        self.command.len() as u64 + raft_core::ENTRY_OVERHEAD_BYTES
    }
}

/// Who waits for a proposal.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A caller in this process.
    Local {
        answer: oneshot::Sender<Answer>,
        /// Set by whoever comes first: the one that hands the command to a log, or the caller whose
        /// time is up. So the caller knows whether it may be in a log.
        claimed: Arc<AtomicBool>,
    },
    /// A follower that forwarded it.
    Forwarded(Forwarded),
}

impl Waiter {
    /// To be called before the command is handed to a log, or sent to a node that may do so: is it
    /// still wanted?
    pub(crate) fn claim(&self) -> bool {
        match self {
            Self::Local { answer, claimed } => {
                !answer.is_closed() && !claimed.swap(true, Ordering::AcqRel)
            }
            Self::Forwarded(_) => true,
        }
    }

    pub(crate) fn answer(self, answer: Answer) {
        match self {
            // The caller may have given up: then nobody is left to be told.
            Self::Local { answer: to, .. } => drop(to.send(answer)),
            Self::Forwarded(forwarded) => forwarded.answer(answer),
        }
    }

    /// The node takes nothing new any more. A follower's caller need not know: to it this node is
    /// just not the leader that it looks for.
    pub(crate) fn send_away(self) {
        let why = match self {
            Self::Local { .. } => NotApplied::ShuttingDown.into(),
            Self::Forwarded(_) => Failure::NotLeader { hint: None },
        };
        self.answer(Err(why));
    }

    /// Has the caller given up?
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Local { answer, .. } => answer.is_closed(),
            Self::Forwarded(_) => false,
        }
    }
}

/// The way back to a follower: a place in the queue of its answers, reserved in advance, so that
/// answering never waits.
#[derive(Debug)]
pub(crate) struct Forwarded {
    id: u64,
    permit: Option<mpsc::OwnedPermit<(u64, Answer)>>,
}

impl Forwarded {
    pub(crate) fn new(id: u64, permit: mpsc::OwnedPermit<(u64, Answer)>) -> Self {
        let permit = Some(permit);
        Self { id, permit }
    }

    fn answer(mut self, answer: Answer) {
        if let Some(permit) = self.permit.take() {
            permit.send((self.id, answer));
        }
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.send((self.id, Err(Unknown::ShuttingDown.into())));
        }
    }
}

/// Where the answer of a local proposal comes.
#[derive(Debug)]
pub(crate) struct Ticket {
    answer: oneshot::Receiver<Answer>,
    claimed: Arc<AtomicBool>,
}

impl Ticket {
    /// Waits for the answer, or makes one when the time is up.
    pub(crate) async fn wait_until(mut self, deadline: Instant) -> Answer {
        match timeout_at(deadline, &mut self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_dropped)) if self.claimed.load(Ordering::Acquire) => {
                Err(Unknown::ShuttingDown.into())
            }
            Ok(Err(_dropped)) => Err(NotApplied::ShuttingDown.into()),
            Err(_elapsed) if !self.claimed.swap(true, Ordering::AcqRel) => {
                Err(NotApplied::Timeout.into())
            }
            Err(_elapsed) => {
                let late = self.answer.try_recv();
                late.unwrap_or_else(|_| Err(Unknown::Timeout.into()))
            }
        }
    }
}

/// Proposals in this node's log that are not handed to the state machine yet.
#[derive(Debug, Default)]
pub(crate) struct PendingProposals {
    /// Two terms may claim one index: the earlier one has lost it, but that is not certain yet.
    waiting: BTreeMap<(LogIndex, Term), Pending>,
    bytes: u64,
}

#[derive(Debug)]
struct Pending {
    waiter: Waiter,
    /// What its entry counts for.
    bytes: u64,
}

/// How many proposals may be pending, and how many bytes of them, before no more are taken in. Also
/// a state machine that does not keep up is noticed by this.
const PENDING_MAX: usize = 65_536;
const PENDING_BYTES_MAX: u64 = 64 << 20;

impl PendingProposals {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Is it time to let no more in?
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= PENDING_MAX || self.bytes >= PENDING_BYTES_MAX
    }

    /// These wait for the entries from `proposed.first` on, each with what its entry counts for. To
    /// be called before the next poll of the node, which may already commit them.
    pub(crate) fn register(&mut self, proposed: Proposed, waiters: Vec<(Waiter, u64)>) {
        let Proposed { first, last: _ } = proposed;
        for (index, (waiter, bytes)) in (first.index.0..).zip(waiters) {
            self.bytes += bytes;
            let pending = Pending { waiter, bytes };
            self.waiting.insert((LogIndex(index), first.term), pending);
        }
    }

    /// What became of entries, as far as their commit does not say it.
    pub(crate) fn settle(&mut self, outcome: ProposalOutcome) {
        let ProposalOutcome { first, last, fate } = outcome;
        let why: Failure = match fate {
            Fate::Committed => return, // Answered when they are applied.
            Fate::Superseded => NotApplied::Superseded.into(),
            Fate::Unknown => Unknown::LeadershipLost.into(),
        };
        let range = (first.index, first.term)..=(last.index, last.term);
        let keys = self.waiting.range(range).map(|(&key, _)| key);
        let keys: Vec<_> = keys.filter(|(_, term)| *term == first.term).collect();
        for key in keys {
            if let Some(pending) = self.waiting.remove(&key) {
                self.bytes -= pending.bytes;
                pending.waiter.answer(Err(why.clone()));
            }
        }
    }

    /// Takes out those that wait for these committed entries, in order. Whoever waited for another
    /// entry at the same place is told that it lost.
    pub(crate) fn take_committed(&mut self, entries: &[Entry]) -> VecDeque<(LogIndex, Waiter)> {
        let mut taken = VecDeque::new();
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return taken;
        };
        while let Some(pending) = self.waiting.first_entry() {
            let (index, term) = *pending.key();
            if index > last.index {
                break;
            }
            let Pending { waiter, bytes } = pending.remove();
            self.bytes -= bytes;
            let offset = index.0.checked_sub(first.index.0);
            let chosen = offset.and_then(|offset| entries.get(usize::try_from(offset).ok()?));
            match chosen {
                Some(entry) if entry.term == term => taken.push_back((index, waiter)),
                Some(_) => waiter.answer(Err(NotApplied::Superseded.into())),
                None => waiter.answer(Err(Unknown::LeadershipLost.into())),
            }
        }
        taken
    }

    /// Forgets those whose caller has given up.
    pub(crate) fn sweep(&mut self) {
        self.waiting.retain(|_, pending| !pending.waiter.is_abandoned());
        self.bytes = self.waiting.values().map(|pending| pending.bytes).sum();
    }

    pub(crate) fn fail_all(&mut self, why: &Unknown) {
        for (_, pending) in std::mem::take(self).waiting {
            pending.waiter.answer(Err(why.clone().into()));
        }
    }
}

/// Why a read cannot be served now. It had no effect: the caller tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadFailure {
    /// No leader to ask, or the one that was asked is one no longer.
    NoLeader,
    Busy,
}

/// Who waits for a read. Dropped, it says that the node has stopped.
pub(crate) type ReadWaiter = oneshot::Sender<Result<(), ReadFailure>>;

/// Reads that wait for their index, or for the state machine to reach it.
#[derive(Debug, Default)]
pub(crate) struct PendingReads {
    by_id: BTreeMap<ReadId, Vec<ReadWaiter>>,
    by_index: BTreeMap<LogIndex, Vec<ReadWaiter>>,
    count: usize,
}

/// How many reads may wait.
const READS_WAITING_MAX: usize = 100_000;

impl PendingReads {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Is there room for so many more?
    pub(crate) fn has_room(&self, more: usize) -> bool {
        self.count + more <= READS_WAITING_MAX
    }

    /// They share one question to the leader.
    pub(crate) fn wait_for_index(&mut self, id: ReadId, waiters: Vec<ReadWaiter>) {
        self.count += waiters.len();
        self.by_id.insert(id, waiters);
    }

    /// They wait until `index` is applied.
    pub(crate) fn wait_for_apply(&mut self, index: LogIndex, waiters: Vec<ReadWaiter>) {
        self.count += waiters.len();
        self.by_index.entry(index).or_default().extend(waiters);
    }

    /// The leader has answered, or cannot.
    pub(crate) fn settle(&mut self, outcome: ReadOutcome, applied: LogIndex) {
        let waiters = self.by_id.remove(&outcome.id).unwrap_or_default();
        self.count -= waiters.len();
        match outcome.index {
            Ok(index) if index <= applied => answer_reads(waiters, Ok(())),
            Ok(index) => self.wait_for_apply(index, waiters),
            Err(why) => answer_reads(waiters, Err(why.into())),
        }
    }

    /// The state machine has got this far.
    pub(crate) fn on_applied(&mut self, applied: LogIndex) {
        while let Some(entry) = self.by_index.first_entry() {
            if *entry.key() > applied {
                break;
            }
            let waiters = entry.remove();
            self.count -= waiters.len();
            answer_reads(waiters, Ok(()));
        }
    }

    /// Forgets those whose caller has given up.
    pub(crate) fn sweep(&mut self) {
        // A question that is under way stays, even if nobody waits for it: its answer will come.
        for waiters in self.by_id.values_mut().chain(self.by_index.values_mut()) {
            waiters.retain(|waiter| !waiter.is_closed());
        }
        self.by_index.retain(|_, waiters| !waiters.is_empty());
        let waiting = self.by_id.values().chain(self.by_index.values());
        self.count = waiting.map(Vec::len).sum();
    }

    /// Drops all, which tells them that the node has stopped.
    pub(crate) fn fail_all(&mut self) {
        *self = Self::default();
    }
}

impl From<ReadRefused> for ReadFailure {
    fn from(why: ReadRefused) -> Self {
        match why {
            ReadRefused::Busy => Self::Busy,
            // No leader, leadership lost, and whatever a later core may add: the caller tries
            // again.
            _ => Self::NoLeader,
        }
    }
}

pub(crate) fn answer_reads(waiters: Vec<ReadWaiter>, answer: Result<(), ReadFailure>) {
    for waiter in waiters {
        let _ = waiter.send(answer); // The caller may have given up.
    }
}

#[cfg(test)]
mod tests;
