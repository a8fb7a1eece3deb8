//! The gate between promises and the disk (Figure 2: "updated on stable storage before responding").
//!
//! No message leaves while the term and vote that this node stands for are not durable. Acknowledgements
//! of entries are made from what the log knows to be durable (see `acknowledge_leader`), and a candidate's
//! own vote is counted when its receipt comes in. So every message that is handed out may be sent at
//! once, and the leader's own AppendEntries leave in parallel with its disk write (thesis §10.2.1).

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};
use core::time::Duration;

use super::{Alarm, Forgetting, Node};
use crate::event::Ignored;
use crate::message::{Envelope, Message};
use crate::types::{GroupId, Incarnation, Instant, LogIndex, NodeId, Term};
use crate::write::{HardState, LogMark, Receipt, Ticket, Write};

/// So many messages wait for the disk at the most; then the oldest are lost, as any message may be.
const WAITING_MESSAGES_MAX: usize = 4096;

/// Messages on their way out, and writes on their way to the disk.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    /// Names this life of the node in its tickets.
    life: u64,
    messages: Vec<Envelope>,
    writes: VecDeque<WriteInFlight>,
    last_number: u64,
    /// The vote record last put into a write.
    written: HardState,
    /// The vote record that would be found after a crash now, at least.
    durable: HardState,
}

/// A write that was handed out and is not durable yet, or not all before it are.
#[derive(Clone, Debug)]
struct WriteInFlight {
    number: u64,
    mark: LogMark,
    hard_state: HardState,
    /// The log as it is now will be durable up to here. Lowered by every truncation, so that the
    /// receipt of an overwritten suffix does not count for what came in its place.
    covers: LogIndex,
    /// When it was handed out.
    since: Instant,
    /// The receipt has come, before one of an earlier write.
    arrived: bool,
}

/// What all messages of a node have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub(super) group: GroupId,
    pub(super) id: NodeId,
    pub(super) term: Term,
    pub(super) incarnation: Incarnation,
}

impl Sender {
    pub(super) fn to(self, to: NodeId, message: Message) -> Envelope {
        let Self { group, id: from, term, incarnation } = self;
        Envelope { group, from, to, term, incarnation, message }
    }
}

impl Outbox {
    pub(super) fn new(life: u64, hard_state: HardState) -> Self {
        Self {
            life,
            messages: Vec::new(),
            writes: VecDeque::new(),
            last_number: 0,
            written: hard_state,
            durable: hard_state,
        }
    }

    pub(super) fn push(&mut self, envelope: Envelope) {
        self.messages.push(envelope);
    }

    /// Would this vote record survive a crash now?
    pub(super) fn is_durable(&self, hard_state: HardState) -> bool {
        self.durable == hard_state
    }

    /// Hands out the messages, if what this node stands for is durable. What was said in an earlier
    /// term has lost its meaning and is dropped.
    pub(super) fn release(&mut self, current: HardState, out: &mut Vec<Envelope>) {
        self.messages.retain(|envelope| envelope.term == current.term);
        if self.is_durable(current) {
            out.append(&mut self.messages);
        } else {
            let too_many = self.messages.len().saturating_sub(WAITING_MESSAGES_MAX);
            self.messages.drain(..too_many);
        }
    }

    /// The write that has waited for the disk longest: since when, and up to where in the log.
    pub(super) fn oldest_write(&self) -> Option<(Instant, LogIndex)> {
        self.writes.front().map(|write| (write.since, write.mark.index))
    }

    /// The log was truncated: what is on its way to the disk counts only up to before `from`.
    pub(super) fn truncate_from(&mut self, from: LogIndex) {
        for write in &mut self.writes {
            write.covers = write.covers.min(from.prev());
        }
    }

    /// Everything but the numbers by which receipts are told apart.
    pub(super) fn fingerprint(&self, hasher: &mut impl Hasher) {
        let Self { life: _, messages, writes, last_number: _, written, durable } = self;
        (messages, written, durable, writes.len()).hash(hasher);
        for write in writes {
            let WriteInFlight { number: _, mark, hard_state, covers, since, arrived } = write;
            (mark, hard_state, covers, since, arrived).hash(hasher);
        }
    }

    pub(super) fn forget_time(&mut self, forgetting: Forgetting, timeout: Duration) {
        for write in &mut self.writes {
            forgetting.since(&mut write.since, timeout, Alarm::Disk);
        }
    }

    /// Takes in a receipt; how far the log is durable now, if every write up to some point is.
    fn on_receipt(&mut self, ticket: &Ticket) -> Result<Option<LogIndex>, Ignored> {
        let known = self.writes.iter_mut().find(|write| {
            Some(self.life) == ticket.life
                && write.number == ticket.number
                && write.mark == ticket.mark
                && !write.arrived
        });
        known.ok_or(Ignored::ForeignReceipt)?.arrived = true;
        let mut covers = None;
        while self.writes.front().is_some_and(|write| write.arrived) {
            if let Some(write) = self.writes.pop_front() {
                self.durable = write.hard_state;
                covers = Some(write.covers);
            }
        }
        Ok(covers)
    }
}

impl Node {
    /// What the disk does not have yet, as one write: the vote, the snapshot, the truncation, the entries.
    pub(super) fn take_write(&mut self) -> Option<Write> {
        let hard_state = (self.hard_state != self.outbox.written).then_some(self.hard_state);
        let snapshot = self.snapshots.unwritten.take();
        if hard_state.is_none() && snapshot.is_none() && !self.log.has_unwritten() {
            return None;
        }
        let (truncate_from, entries) = self.log.take_unwritten();
        let mark = LogMark { term: self.hard_state.term, index: self.log.last().index };
        let outbox = &mut self.outbox;
        outbox.last_number += 1;
        outbox.written = self.hard_state;
        outbox.writes.push_back(WriteInFlight {
            number: outbox.last_number,
            mark,
            hard_state: self.hard_state,
            covers: mark.index,
            since: self.now,
            arrived: false,
        });
        let ticket = Ticket { life: Some(outbox.life), number: outbox.last_number, mark };
        let group = self.config.group;
        Some(Write { ticket, group, hard_state, snapshot, truncate_from, entries })
    }

    /// A write became durable.
    pub(super) fn on_written(&mut self, receipt: &Receipt) {
        match self.outbox.on_receipt(&receipt.ticket) {
            Ok(Some(index)) => {
                self.log.set_durable(index);
                self.count_own_vote();
                self.advance_commit_index(); // The leader's disk is just another voter.
            }
            Ok(None) => {} // Parked until the writes before it are durable too.
            Err(why) => self.ignore(None, why),
        }
    }
}
