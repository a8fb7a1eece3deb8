//! Everything that the driver is told, and the wait for it. What has queued up when the driver
//! looks is one turn: the queue is the batch.

use std::pin::Pin;

use raft_core::{Envelope, LogIndex};
use raft_wal::{Completion, WalError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::error::Fatal;
use crate::orders::{ORDERS_MAX, Order};
use crate::pending::{Proposal, ReadWaiter};
use crate::queue::{Receiver, Sender, Weigh, queue};
use crate::snapshots::{News, NewsSender, news};
use crate::status::QueueDepths;

/// Receipts of the log. When it is full the log's thread waits, which cannot last: the driver never
/// waits for the log.
const COMPLETIONS_MAX: usize = 1024;

/// Frames of messages from peers, each at most 4 MiB. When it is full the streams are not read, and
/// HTTP/2 flow control stops their senders. One turn takes them all: what they make the log write at
/// once, at most six times their bytes (many tiny entries), must stay below what one write may have
/// (`raft_wal::WalConfig::write_bytes_max`).
const FRAMES_MAX: usize = 8;

/// Proposals at the door. When it is full they are refused as busy.
const PROPOSALS_MAX: usize = 8192;
const PROPOSALS_BYTES_MAX: u64 = 32 << 20;

/// Reads at the door. When it is full they are refused as busy.
const READS_MAX: usize = 8192;

/// How many bytes of proposals one turn takes in, so that none takes long.
const TURN_PROPOSALS_BYTES: u64 = 4 << 20;

/// A read that must wait.
#[derive(Debug)]
pub(crate) enum Read {
    /// For everything that was acknowledged before.
    Linearizable(ReadWaiter),
    /// Until this index is applied.
    AtLeast(LogIndex, ReadWaiter),
}

/// The ends of the queues where things go in.
#[derive(Clone, Debug)]
pub(crate) struct Senders {
    pub(crate) completions: mpsc::Sender<Completion>,
    pub(crate) frames: mpsc::Sender<Vec<Envelope>>,
    pub(crate) proposals: Sender<Proposal>,
    pub(crate) reads: mpsc::Sender<Read>,
    pub(crate) news: NewsSender,
    pub(crate) orders: mpsc::Sender<Order>,
}

/// The queues before the driver.
pub(crate) struct Inbox {
    completions: mpsc::Receiver<Completion>,
    applied: watch::Receiver<LogIndex>,
    frames: mpsc::Receiver<Vec<Envelope>>,
    proposals: Receiver<Proposal>,
    reads: mpsc::Receiver<Read>,
    news: mpsc::Receiver<News>,
    orders: mpsc::Receiver<Order>,
    /// Ask it to open no doors any more.
    draining: CancellationToken,
    doors_are_open: bool,
    timer: Pin<Box<Sleep>>,
    /// Kept so that no queue looks closed because nobody happens to hold its other end.
    _frames: mpsc::Sender<Vec<Envelope>>,
    _doors: (Sender<Proposal>, mpsc::Sender<Read>, mpsc::Sender<Order>),
    _news: NewsSender,
}

/// Which bulk input may come in. Receipts, applied indexes and the timer always may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate {
    pub(crate) frames: bool,
    pub(crate) proposals: bool,
}

/// What came in. The buffers are reused.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) completions: Vec<Completion>,
    pub(crate) applied: Option<LogIndex>,
    pub(crate) frames: Vec<Vec<Envelope>>,
    pub(crate) proposals: Vec<Proposal>,
    pub(crate) reads: Vec<Read>,
    pub(crate) news: Vec<News>,
    pub(crate) orders: Vec<Order>,
}

/// Makes the queues.
pub(crate) fn inbox(
    applied: watch::Receiver<LogIndex>,
    draining: CancellationToken,
) -> (Senders, Inbox) {
    let (completions_in, completions) = mpsc::channel(COMPLETIONS_MAX);
    let (frames_in, frames) = mpsc::channel(FRAMES_MAX);
    let (proposals_in, proposals) = queue(PROPOSALS_MAX, PROPOSALS_BYTES_MAX);
    let (reads_in, reads) = mpsc::channel(READS_MAX);
    let (news_in, news) = news();
    let (orders_in, orders) = mpsc::channel(ORDERS_MAX);
    let inbox = Inbox {
        completions,
        applied,
        frames,
        proposals,
        reads,
        news,
        orders,
        draining,
        doors_are_open: true,
        timer: Box::pin(sleep_until(Instant::now())),
        _frames: frames_in.clone(),
        _doors: (proposals_in.clone(), reads_in.clone(), orders_in.clone()),
        _news: news_in.clone(),
    };
    let senders = Senders {
        completions: completions_in,
        frames: frames_in,
        proposals: proposals_in,
        reads: reads_in,
        news: news_in,
        orders: orders_in,
    };
    (senders, inbox)
}

impl Inbox {
    /// Is the node still taking requests?
    pub(crate) fn doors_are_open(&self) -> bool {
        self.doors_are_open
    }

    /// What waits in the queues now.
    pub(crate) fn depths(&self) -> QueueDepths {
        QueueDepths {
            proposals: self.proposals.len(),
            reads: self.reads.len(),
            frames: self.frames.len(),
            receipts: self.completions.len(),
            ..QueueDepths::default()
        }
    }

    /// Waits until something has come in or `deadline` has passed, then takes everything that is
    /// there.
    ///
    /// # Errors
    /// If a stage behind the driver has ended.
    pub(crate) async fn next_turn(
        &mut self,
        deadline: Instant,
        gate: Gate,
        turn: &mut Turn,
    ) -> Result<(), Fatal> {
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        let doors = self.doors_are_open;
        tokio::select! {
            biased;
            completion = self.completions.recv() => {
                turn.completions.push(completion.ok_or_else(log_ended)?);
            }
            // Before `applied`, which is closed by a thread that has told why.
            news = self.news.recv() => turn.news.extend(news),
            applied = self.applied.changed() => {
                applied.map_err(|_| Fatal::StateMachinePanicked)?;
                turn.applied = Some(*self.applied.borrow_and_update());
            }
            frame = self.frames.recv(), if gate.frames => turn.frames.extend(frame),
            proposal = self.proposals.recv(), if doors && gate.proposals => {
                turn.proposals.extend(proposal);
            }
            read = self.reads.recv(), if doors => turn.reads.extend(read),
            order = self.orders.recv(), if doors => turn.orders.extend(order),
            () = self.draining.cancelled(), if doors => self.close_doors(),
            () = self.timer.as_mut() => {}
        }
        self.take_the_rest(gate, turn);
        Ok(())
    }

    fn take_the_rest(&mut self, gate: Gate, turn: &mut Turn) {
        fill(&mut turn.completions, COMPLETIONS_MAX, || self.completions.try_recv().ok());
        if self.applied.has_changed().unwrap_or(false) {
            turn.applied = Some(*self.applied.borrow_and_update());
        }
        fill(&mut turn.news, usize::MAX, || self.news.try_recv().ok());
        if gate.frames {
            fill(&mut turn.frames, FRAMES_MAX, || self.frames.try_recv().ok());
        }
        if !self.doors_are_open {
            return;
        }
        if gate.proposals {
            let mut bytes: u64 = turn.proposals.iter().map(Weigh::size_bytes).sum();
            fill(&mut turn.proposals, PROPOSALS_MAX, || {
                let next = (bytes < TURN_PROPOSALS_BYTES).then(|| self.proposals.try_recv())?;
                bytes += next.as_ref().map_or(0, Weigh::size_bytes);
                next
            });
        }
        fill(&mut turn.reads, READS_MAX, || self.reads.try_recv().ok());
        fill(&mut turn.orders, ORDERS_MAX, || self.orders.try_recv().ok());
    }

    /// Nothing new is taken; what is at the doors is sent away.
    fn close_doors(&mut self) {
        self.doors_are_open = false;
        self.proposals.close();
        while let Some(proposal) = self.proposals.try_recv() {
            proposal.waiter.send_away();
        }
        self.reads.close();
        self.orders.close();
        // Dropped, they say that the node stops.
        while self.reads.try_recv().is_ok() {}
        while self.orders.try_recv().is_ok() {}
    }
}

/// Takes up to `max` items together.
fn fill<T>(items: &mut Vec<T>, max: usize, mut next: impl FnMut() -> Option<T>) {
    while items.len() < max
        && let Some(item) = next()
    {
        items.push(item);
    }
}

/// The log's thread is gone without having said why.
fn log_ended() -> Fatal {
    Fatal::Disk(WalError::WriterPanicked)
}
