//! The one task that owns the node. Nothing else touches it, so it needs no lock.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use raft_core::{
    ChangeRefusal, Consistency, Event, Ignored, Input, Instant as Moment, LogIndex, LogPosition,
    Node, NodeId, Output, ProposeRefusal, Proposed, RoleKind, Snapshot, SnapshotId, Timestamp,
    TransferRefusal,
};
use raft_wal::{Completion, Repair, Wal};
use tokio::time::Instant;

use crate::apply::ApplyQueue;
use crate::error::{Fatal, NotApplied, Unknown};
use crate::full_disk::FullDisk;
use crate::handshake::Identity;
use crate::inbox::{Gate, Inbox, Read, Turn};
use crate::orders::{
    Answer, Edit, Order, OrderError, PendingChanges, PendingTransfer, has_caught_up, target,
};
use crate::peer::Links;
use crate::pending::{
    Failure, PendingProposals, PendingReads, Proposal, ReadFailure, Waiter, answer_reads,
};
use crate::queue::Weigh;
use crate::requests::Requests;
use crate::snapshots::{News, Snapshots};
use crate::status::{Publisher, QueueDepths};
use crate::throttle::Throttle;

/// While this many bytes wait for the disk no proposals are taken in.
const BACKLOG_BYTES_MAX_FOR_PROPOSALS: u64 = 16 << 20;

/// While this many bytes wait for the disk no messages are taken in either. It is much more,
/// because among them are the heartbeats that keep a slow disk from becoming an election, and a
/// leader does not send much beyond what has been acknowledged anyway.
const BACKLOG_BYTES_MAX_FOR_MESSAGES: u64 = 64 << 20;

/// How many bytes go into one call of [`Node::propose`]: it takes all or nothing.
const PROPOSE_BYTES: u64 = 1 << 20;

/// How long closing the log may take: a few syncs, and what was still queued.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often waiters that gave up are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The monotonic clock that the node is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let origin = Instant::now();
        Self { origin }
    }

    pub(crate) fn now(self) -> Moment {
        let nanos = self.origin.elapsed().as_nanos();
        Moment::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// When to wake up for `moment`: at the latest after an hour, which harms nobody.
    fn instant(self, moment: Moment) -> Instant {
        let now = self.now();
        self.origin
            + now.since(Moment::default())
            + moment.since(now).min(Duration::from_secs(3600))
    }
}

/// The owner of the node, and everything that it moves between the queues.
///
/// The order of the fields matters when it is dropped half-way: without an inbox the log's thread
/// finds nobody to wait for, and can be joined.
pub(crate) struct Driver {
    pub(crate) inbox: Inbox,
    pub(crate) node: Node,
    pub(crate) clock: Clock,
    pub(crate) wal: Wal,
    pub(crate) apply: ApplyQueue,
    pub(crate) snapshots: Snapshots,
    pub(crate) identity: Arc<Identity>,
    pub(crate) links: Arc<Links>,
    pub(crate) publisher: Publisher,
    pub(crate) requests: Arc<Requests>,
    pub(crate) shutdown_grace: Duration,
    pub(crate) nonsense: Throttle,
    pub(crate) state: State,
}

/// What the driver itself remembers.
#[derive(Debug, Default)]
pub(crate) struct State {
    output: Output,
    proposals: PendingProposals,
    reads: PendingReads,
    applied: LogIndex,
    /// When the waiters are swept.
    sweep_due: Moment,
    /// When a node that is stopping gives up what is still in flight.
    give_up_at: Option<Moment>,
    /// A node that is stopping hands its leadership over, if it has it.
    handing_over: bool,
    /// What the log's disk wants to be given again.
    repair: Repair,
    /// A snapshot is to be cut, as soon as no other is.
    snapshot_due: bool,
    /// Who wants to know of the next one, and of the one that is being cut.
    wants_snapshot: Vec<Answer<SnapshotId>>,
    awaits_snapshot: Vec<Answer<SnapshotId>>,
    changes: PendingChanges,
    transfer: PendingTransfer,
    full_disk: FullDisk,
}

impl State {
    /// The state machine reflects the log up to here, whose segments are of this length.
    pub(crate) fn starting_at(applied: LogIndex, segment_bytes: u64) -> Self {
        let default = Self::default();
        Self { applied, full_disk: FullDisk::new(segment_bytes), ..default }
    }
}

impl Driver {
    /// The life of the node.
    pub(crate) async fn run(mut self) -> Result<(), Fatal> {
        let mut turn = Turn::default();
        let end = loop {
            let deadline = self.clock.instant(self.deadline());
            if let Err(fatal) = self.inbox.next_turn(deadline, self.gate(), &mut turn).await {
                break Err(fatal);
            }
            let now = self.clock.now();
            if let Err(fatal) = self.take_in(now, &mut turn) {
                break Err(fatal);
            }
            self.node.poll(&mut self.state.output);
            self.hand_on();
            let queues = self.queue_depths();
            self.publisher.publish(now, &self.node, &self.links, &self.wal, queues);
            if self.is_drained(now) {
                break Ok(());
            }
        };
        self.finish(end).await
    }

    fn queue_depths(&self) -> QueueDepths {
        QueueDepths {
            proposals_in_log: self.state.proposals.len(),
            reads_waiting: self.state.reads.len(),
            ..self.inbox.depths()
        }
    }

    fn deadline(&self) -> Moment {
        let give_up_at = self.state.give_up_at.unwrap_or(Moment::FAR_FUTURE);
        let publish_due = self.publisher.due();
        self.node.deadline().min(publish_due).min(give_up_at)
    }

    /// When the disk or the state machine is behind, bulk input has to wait.
    fn gate(&self) -> Gate {
        let backlog = self.wal.backlog_bytes();
        Gate {
            frames: backlog < BACKLOG_BYTES_MAX_FOR_MESSAGES,
            proposals: backlog < BACKLOG_BYTES_MAX_FOR_PROPOSALS
                && !self.state.proposals.is_full()
                && !self.state.full_disk.is_short_of_room(),
        }
    }

    /// Tells the node everything that has queued up.
    fn take_in(&mut self, now: Moment, turn: &mut Turn) -> Result<(), Fatal> {
        let Turn { completions, applied, frames, proposals, reads, news, orders } = turn;
        self.state.full_disk.observe(&self.wal);
        for completion in completions.drain(..) {
            match completion {
                Completion::Durable(receipt) => self.node.step(now, Input::Written(receipt)),
                Completion::Failed(error) => return Err(Fatal::Disk(error)),
                Completion::Damaged(Repair::Snapshot) => self.state.snapshot_due = true,
                Completion::Damaged(repair) => self.state.repair = repair,
            }
        }
        if let Some(index) = applied.take() {
            self.node.step(now, Input::Applied(index));
            self.state.applied = index;
            self.state.reads.on_applied(index);
        }
        for news in news.drain(..) {
            self.hear(now, news)?;
        }
        if !self.snapshots.go_on(&self.node)? {
            let newest = self.node.status().snapshot;
            self.answer_who_awaits_snapshot(newest, "there is nothing to keep yet");
        }
        for envelope in frames.drain(..).flatten() {
            if self.state.full_disk.admits(&envelope) {
                self.node.step(now, Input::Message(envelope));
            }
        }
        self.propose(now, proposals);
        self.read(now, reads);
        orders.drain(..).for_each(|order| self.obey(now, order));
        if now >= self.node.deadline() {
            self.node.step(now, Input::Timer);
        }
        self.leave_to_who_has_room(now);
        if now >= self.state.sweep_due {
            self.state.sweep_due = now.after(SWEEP_INTERVAL);
            self.state.proposals.sweep();
            self.links.follow(&self.node.status().membership);
            self.state.reads.sweep();
        }
        Ok(())
    }

    /// What came of the work on snapshots.
    fn hear(&mut self, now: Moment, news: News) -> Result<(), Fatal> {
        let input = match news {
            News::Captured(index, capture) => {
                self.snapshots.captured(index, capture);
                None
            }
            News::Cut(cut) => {
                let told = cut.as_ref().map(Snapshot::id);
                self.answer_who_awaits_snapshot(told, "there is no room on the disk");
                self.snapshots.cut_ended(cut, &self.node)
            }
            News::ChunkRead(order, bytes) => Some(Input::ChunkRead { order, bytes }),
            News::Held(snapshot, bytes) => Some(Input::SnapshotHeld { snapshot, bytes }),
            News::Failed(fatal) => return Err(fatal),
        };
        if let Some(input) = input {
            self.node.step(now, input);
        }
        Ok(())
    }

    fn answer_who_awaits_snapshot(&mut self, snapshot: Option<SnapshotId>, else_why: &'static str) {
        for answer in self.state.awaits_snapshot.drain(..) {
            // Whoever asked may have given up.
            let _ = answer.send(snapshot.ok_or(OrderError::NoSnapshot(else_why)));
        }
    }

    /// Does what an operator wants, or begins it.
    fn obey(&mut self, now: Moment, order: Order) {
        match order {
            Order::Change(edit, answer) => match self.begin_change(now, &edit) {
                Ok(Some(change)) => {
                    if let Edit::AddLearner { id, address, note } = &edit {
                        self.identity.book.set(*id, address, note);
                    }
                    self.state.changes.register(change, answer);
                }
                Ok(None) => drop(answer.send(Ok(()))),
                Err(why) => drop(answer.send(Err(why))),
            },
            Order::Transfer(to, answer) => match self.node.transfer_leadership(now, to) {
                Ok(_) => self.state.transfer.register(answer),
                // It is on its way there already.
                Err(TransferRefusal::InFlight { to: target })
                    if to.is_none_or(|to| to == target) =>
                {
                    self.state.transfer.register(answer);
                }
                Err(why) => drop(answer.send(Err(why.into()))),
            },
            Order::Snapshot(answer) => {
                self.state.snapshot_due = true;
                // While one is being cut, those who gave up must not pile up.
                self.state.wants_snapshot.retain(|waiting| !waiting.is_closed());
                self.state.wants_snapshot.push(answer);
            }
        }
    }

    fn begin_change(
        &mut self,
        now: Moment,
        edit: &Edit,
    ) -> Result<Option<LogPosition>, OrderError> {
        let status = self.node.status();
        if status.role != RoleKind::Leader {
            return Err(OrderError::NotLeader { leader: status.leader });
        }
        match *edit {
            Edit::AddLearner { id, .. }
                if !status.membership.contains(id)
                    && status.peers.iter().any(|peer| peer.id == id) =>
            {
                return Err(OrderError::Leaving(id));
            }
            // Asked of the node itself: what it last published may be older than the learner.
            Edit::Promote(id) if status.membership.target().learners().contains(&id) => {
                has_caught_up(&status, id)?;
            }
            Edit::AddLearner { .. } | Edit::Promote(_) | Edit::Remove(_) => {}
        }
        // Whether it is so already only counts when it is committed.
        let settled = status.commit >= status.membership_index && !status.membership.is_joint();
        let index = status.membership_index;
        match target(&status.membership, edit)? {
            Some(target) => {
                let change =
                    self.node.change_membership(now, wall_clock(), &target, Some(index))?;
                Ok(Some(change))
            }
            None if settled => Ok(None),
            None => Err(ChangeRefusal::InFlight { index }.into()),
        }
    }

    /// A leader that cannot write any more lets another node lead, if one can.
    fn leave_to_who_has_room(&mut self, now: Moment) {
        let leads = self.node.role().0 == RoleKind::Leader;
        if self.state.full_disk.offers_leadership(leads, now) {
            let node = self.publisher.id();
            match self.node.transfer_leadership(now, None) {
                Ok(to) => tracing::warn!(%node, "its disk is full: {to} is to lead"),
                Err(why) => {
                    tracing::warn!(%node, "its disk is full, and nobody else can lead: {why}");
                }
            }
        }
    }

    /// All proposals that have queued up become one, or a few if they are large.
    fn propose(&mut self, now: Moment, queued: &mut Vec<Proposal>) {
        let mut commands = Vec::with_capacity(queued.len());
        let mut waiters = Vec::with_capacity(queued.len());
        let mut bytes = 0;
        for proposal in queued.drain(..) {
            if !proposal.waiter.claim() {
                continue; // Its caller has given up.
            }
            let size = proposal.size_bytes();
            bytes += size;
            let Proposal { command, waiter } = proposal;
            commands.push(command);
            waiters.push((waiter, size));
            if bytes >= PROPOSE_BYTES {
                let together = (std::mem::take(&mut commands), std::mem::take(&mut waiters));
                self.propose_together(now, together.0, together.1);
                bytes = 0;
            }
        }
        if !commands.is_empty() {
            self.propose_together(now, commands, waiters);
        }
    }

    fn propose_together(&mut self, now: Moment, commands: Vec<Bytes>, waiters: Vec<(Waiter, u64)>) {
        let why: Failure = match self.try_propose(now, commands) {
            Ok(proposed) => return self.state.proposals.register(proposed, waiters),
            Err(why) => why,
        };
        for (waiter, _) in waiters {
            waiter.answer(Err(why.clone()));
        }
    }

    fn try_propose(&mut self, now: Moment, commands: Vec<Bytes>) -> Result<Proposed, Failure> {
        let leads = self.node.role().0 == RoleKind::Leader;
        if leads && !self.state.full_disk.admits_commands(&commands) {
            return Err(match self.node.status().transferring_to {
                Some(to) => Failure::NotLeader { hint: Some(to) },
                None if self.state.full_disk.is_full() => NotApplied::DiskFull.into(),
                None => NotApplied::Busy.into(),
            });
        }
        let refused = match self.node.propose(now, wall_clock(), commands) {
            Ok(proposed) => return Ok(proposed),
            Err(refused) => refused,
        };
        Err(match refused.reason {
            ProposeRefusal::NotLeader { hint } => Failure::NotLeader { hint },
            ProposeRefusal::Transferring { to } => Failure::NotLeader { hint: Some(to) },
            ProposeRefusal::Busy { .. } => NotApplied::Busy.into(),
            // Whatever a later core may add: it is in no log, the caller looks around.
            _ => Failure::NotLeader { hint: None },
        })
    }

    /// All linearizable reads that have queued up share one question.
    fn read(&mut self, now: Moment, queued: &mut Vec<Read>) {
        if queued.is_empty() {
            return;
        }
        if !self.state.reads.has_room(queued.len()) {
            let refuse = |read| match read {
                Read::Linearizable(waiter) | Read::AtLeast(_, waiter) => waiter,
            };
            let waiters = queued.drain(..).map(refuse).collect();
            return answer_reads(waiters, Err(ReadFailure::Busy));
        }
        let mut linearizable = Vec::new();
        for read in queued.drain(..) {
            match read {
                Read::Linearizable(waiter) => linearizable.push(waiter),
                Read::AtLeast(index, waiter) if index <= self.state.applied => {
                    answer_reads(vec![waiter], Ok(()));
                }
                Read::AtLeast(index, waiter) => {
                    self.state.reads.wait_for_apply(index, vec![waiter]);
                }
            }
        }
        if linearizable.is_empty() {
            return;
        }
        match self.node.read(now, Consistency::Linearizable) {
            Ok(id) => self.state.reads.wait_for_index(id, linearizable),
            Err(why) => answer_reads(linearizable, Err(why.into())),
        }
    }

    /// Does everything that the node wants done.
    fn hand_on(&mut self) {
        let Output {
            write,
            messages,
            restore,
            committed,
            reads,
            proposals,
            changes,
            snapshot_due,
            chunks,
            incoming,
            compacted,
            events,
        } = &mut self.state.output;
        if let Some(write) = write.take() {
            self.wal.submit(write);
        }
        if let Some(base) = compacted.take() {
            self.wal.compact(base);
        }
        if let Repair::Entries { after } = std::mem::take(&mut self.state.repair) {
            // All that the node has was submitted just now, so this is where the log ends; and what it
            // compacted was, so this is where it begins.
            let first = after.max(self.node.status().base.index).next();
            let entry = |index| self.node.entry(LogIndex(index)).cloned();
            self.wal.rewrite((first.0..).map_while(entry).collect());
        }
        for envelope in messages.drain(..) {
            self.links.send(envelope);
        }
        for outcome in proposals.drain(..) {
            self.state.proposals.settle(outcome);
        }
        for outcome in changes.drain(..) {
            self.state.changes.settle(outcome);
        }
        self.snapshots.hand_on(chunks, incoming);
        if let Some(snapshot) = restore.take() {
            self.apply.restore(snapshot, self.wal.snapshots().clone());
        }
        if !committed.is_empty() {
            let entries: Vec<_> = committed.drain_entries().collect();
            let waiters = self.state.proposals.take_committed(&entries);
            self.apply.push(entries, waiters);
        }
        self.state.snapshot_due |= std::mem::take(snapshot_due);
        // Asked for behind all that was just handed over.
        if self.state.snapshot_due && self.snapshots.cut(&self.apply) {
            self.state.snapshot_due = false;
            self.state.awaits_snapshot.append(&mut self.state.wants_snapshot);
        }
        for outcome in reads.drain(..) {
            self.state.reads.settle(outcome, self.state.applied);
        }
        for event in events.drain(..) {
            if let Event::MembershipChanged { index, membership } = &event {
                self.identity.on_members(membership, *index);
                self.links.follow(membership);
            }
            if matches!(event, Event::SnapshotInstalled { .. }) {
                // Who was removed and added again in what it stands for may have a new directory.
                let status = self.node.status();
                self.identity.book.forget_directories(|_| true);
                self.identity.on_members(&status.membership, status.membership_index);
                self.links.follow(&status.membership);
            }
            self.state.transfer.on_event(self.publisher.id(), &event);
            self.publisher.on_event(&event);
            tell(self.publisher.id(), &event, &self.nonsense);
        }
    }

    /// Is the node asked to stop, and nothing in flight any more, or the time for it up?
    fn is_drained(&mut self, now: Moment) -> bool {
        if self.inbox.doors_are_open() {
            return false;
        }
        let give_up_at = *self.state.give_up_at.get_or_insert(now.after(self.shutdown_grace));
        let State { proposals, reads, .. } = &self.state;
        let in_flight = !proposals.is_empty() || !reads.is_empty() || self.requests.in_flight() > 0;
        now >= give_up_at || (!in_flight && self.has_handed_over(now))
    }

    /// A leader does not leave its followers to find out by a timeout that it is gone (thesis §3.10).
    fn has_handed_over(&mut self, now: Moment) -> bool {
        let leads = |node: &Node| node.role().0 == RoleKind::Leader;
        if !self.state.handing_over {
            self.state.handing_over = true;
            if !leads(&self.node) || self.node.transfer_leadership(now, None).is_err() {
                return true; // Nobody could take over, or this node has nothing to hand over.
            }
            self.node.poll(&mut self.state.output);
            self.hand_on();
        }
        let status = self.node.status();
        let failed = leads(&self.node) && status.transferring_to.is_none();
        failed || status.leader.is_some_and(|leader| leader != status.id)
    }

    /// Answers everyone, closes the log.
    async fn finish(self, end: Result<(), Fatal>) -> Result<(), Fatal> {
        let Self { inbox, wal, apply, snapshots, state, publisher, .. } = self;
        if let Err(fatal) = &end {
            tracing::error!(node = %publisher.id(), "the node stops: {fatal}");
        }
        // Nobody takes receipts any more: the log's thread must not wait for it.
        drop(inbox);
        let State { mut proposals, mut reads, .. } = state;
        proposals.fail_all(&Unknown::ShuttingDown);
        reads.fail_all();
        let closed = tokio::task::spawn_blocking(move || {
            apply.close();
            drop(snapshots);
            wal.close()
        });
        // A disk that does not answer must not keep the process from ending.
        match tokio::time::timeout(CLOSE_TIMEOUT, closed).await {
            Ok(closed) => end.and(closed.map_err(|_| Fatal::Bug)?.map_err(Fatal::Disk)),
            Err(_) => end.and(Err(Fatal::DiskHangs)),
        }
    }
}

/// The only look at the wall clock, for the timestamps of the entries that this node proposes.
pub(crate) fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// Writes an event into the log of the program.
fn tell(node: NodeId, event: &Event, nonsense: &Throttle) {
    match event {
        Event::Role { role, term, leader } => match (role, leader) {
            (RoleKind::Leader, _) => tracing::info!(%node, "leads term {term}"),
            (RoleKind::Follower, Some(leader)) => {
                tracing::info!(%node, "follows {leader} in term {term}");
            }
            (role, _) => tracing::info!(%node, "is a {role} in term {term}, without a leader"),
        },
        Event::TransferStarted { to } => tracing::info!(%node, "hands leadership over to {to}"),
        Event::TransferFailed { to } => {
            tracing::warn!(%node, "goes on leading: {to} did not take over");
        }
        Event::Committed { .. } => {}
        Event::QuorumLost { term } => {
            tracing::warn!(%node, "gives up term {term}: it hears from no majority any more");
        }
        Event::DiskHangs { term } => {
            tracing::warn!(%node, "gives up term {term}: its disk is much slower than the others'");
        }
        Event::MembershipChanged { index, membership } => {
            tracing::info!(%node, "the members are {membership} as of index {index}");
        }
        // Late messages of a disk that was repaired since; or of a new directory that its node takes to be older.
        Event::Ignored { from: Some(from), why: Ignored::StaleIncarnation } => {
            if let Some(suppressed) = nonsense.allow() {
                tracing::warn!(
                    %node,
                    suppressed,
                    "ignored {from}: it speaks for an older disk than it had; if that goes on, its clock was \
                     behind when its data directory was made: make it anew with a right clock"
                );
            }
        }
        Event::Ignored { from, why } if is_nonsense(*why) => {
            if let Some(suppressed) = nonsense.allow() {
                let from = from.map(tracing::field::display);
                tracing::warn!(%node, from, suppressed, "ignored nonsense: {why:?}");
            }
        }
        Event::Ignored { from, why } => {
            let from = from.map(tracing::field::display);
            tracing::trace!(%node, from, "ignored: {why:?}");
        }
        event => tracing::debug!(%node, ?event),
    }
}

/// Can it only come from a node that does not run this code, or from damage?
fn is_nonsense(why: Ignored) -> bool {
    matches!(
        why,
        Ignored::Misdirected
            | Ignored::AbsurdTerm
            | Ignored::Malformed
            | Ignored::ContradictsCommit
            | Ignored::SecondLeader
            | Ignored::BeyondLog
            | Ignored::ForeignReceipt
            | Ignored::BadAppliedIndex
    )
}
