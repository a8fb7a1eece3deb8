//! What a driver does for a node: it brings it messages, polls it, and carries out what it wants done. On the
//! way messages are lost, doubled, late; disks and state machines take their time.

use std::time::Duration;

use raft_core::{Consistency, Envelope, Event, Fate, Input, Message, NodeId, RoleKind, Snapshot};

use super::{Happening, Simulation};
use crate::cluster::Effects;
use crate::machine::Workload;
use crate::transcript;

impl<W: Workload> Simulation<W> {
    pub(super) fn deliver(&mut self, envelope: Envelope) {
        let (from, to) = (envelope.from, envelope.to);
        if self.is_cut(from, to) || !self.cluster.is_up(to) {
            self.report.lost += 1;
            return self.note_often(&(0_u8, &envelope), || format!("lost: {envelope}"));
        }
        if self.paused.contains(&to) {
            return self.trouble.held.entry(to).or_default().push(Happening::Deliver(envelope));
        }
        self.note_often(&(1_u8, &envelope), || &envelope);
        self.heard.insert((to, from), self.cluster.now);
        if !matches!(envelope.message, Message::AppendEntries { .. }) {
            self.trouble.hearing = Some(envelope.clone());
        }
        self.cluster.step(to, Input::Message(envelope));
        self.poll_soon(to);
    }

    pub(super) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.iter().any(|(a, b, _)| (*a, *b) == (from, to))
    }

    pub(super) fn disk_time(&mut self) -> Duration {
        let calm = Duration::from_millis(4);
        self.up_to(if self.chaos { self.options.sync_max } else { calm })
    }

    pub(super) fn sync_later(&mut self, id: NodeId) {
        let wait = self.disk_time();
        let life = self.cluster.members[&id].lives;
        self.later(wait, Happening::Sync(id, life));
    }

    /// Polls at once, or lets more queue up first.
    pub(super) fn poll_soon(&mut self, id: NodeId) {
        if !self.runs(id) {
            return; // Its disk failed just now.
        }
        if self.random.f64() >= self.options.lazy_poll {
            return self.poll(id);
        }
        if self.unpolled.insert(id) {
            let wait = self.up_to(Duration::from_millis(2));
            let life = self.cluster.members[&id].lives;
            self.later(wait, Happening::Poll(id, life));
        }
    }

    pub(super) fn poll(&mut self, id: NodeId) {
        self.unpolled.remove(&id);
        let Effects {
            messages,
            restore,
            committed,
            reads,
            proposals,
            changes: _,
            snapshot_due,
            events,
            wrote,
            chunks,
            incoming,
            compacted,
        } = self.cluster.poll(id);
        let silent = self.strike(id, &events, &messages);
        for event in events {
            let kind = std::mem::discriminant(&event);
            if transcript::shows_in_story(&event) {
                self.note_often(&(id, kind), || transcript::event(id, &event));
            } else {
                self.trace.take_in(&(id, kind));
            }
            self.report.count(&event);
            if matches!(event, Event::Role { role: RoleKind::Leader, .. }) {
                self.curse(id);
            }
        }
        let life = self.cluster.members[&id].lives;
        for _ in 0..chunks {
            let wait = self.disk_time();
            self.later(wait, Happening::ReadChunk(id, life));
        }
        for _ in 0..incoming {
            let wait = self.disk_time();
            self.later(wait, Happening::Store(id, life));
        }
        if snapshot_due && self.random.u8(..8) > 0 {
            let wait = self.up_to(self.options.sync_max * 4);
            self.later(wait, Happening::Cut(id, life));
        }
        for outcome in &proposals {
            self.report.superseded += u64::from(outcome.fate == Fate::Superseded);
        }
        if wrote || compacted.is_some() {
            self.sync_later(id);
        }
        if let Some(snapshot) = restore.as_ref().map(Snapshot::id) {
            self.note_often(&(9_u8, id), || format!("{id} is to restore snapshot {snapshot}"));
        }
        let restored = restore.map(|snapshot| snapshot.index());
        if let Some(applied) = committed.last().map(|entry| entry.index).or(restored) {
            // In the end a state machine is fast: what it has put off is not what progress is about.
            let calm = Duration::from_micros(30);
            let wait = self.up_to(if self.chaos { self.options.clients.apply_max } else { calm });
            self.later(wait, Happening::Applied(id, life, applied));
        }
        if self.runs(id) {
            self.settle(id, &proposals, &committed, reads);
        }
        for envelope in messages {
            if silent {
                self.report.lost += 1;
                self.note_often(&(0_u8, &envelope), || format!("lost: {envelope}"));
            } else {
                self.transmit(envelope);
            }
        }
        if !committed.is_empty() {
            self.ask_other_leaders(id);
        }
    }

    /// Something is visible: whoever else takes itself to lead must not answer as if it were not.
    pub(super) fn ask_other_leaders(&mut self, than: NodeId) {
        for id in self.cluster.ids() {
            if id != than
                && self.runs(id)
                && self.cluster.node(id).role().0 == RoleKind::Leader
                && self.cluster.read(id, Consistency::Lease).is_ok()
            {
                self.report.asked_old_leaders += 1;
                self.poll(id);
            }
        }
    }

    pub(super) fn transmit(&mut self, envelope: Envelope) {
        // As many draws whatever comes of them: nothing else changes if one of these is left out.
        let (loss, duplication) = (self.random.f64(), self.random.f64());
        let (seed, wait) = (self.random.u64(..), self.up_to(self.options.delay_max * 3));
        let (late, held) = (self.random.f64(), self.up_to(self.timeout() * 20));
        self.record(&envelope, self.seed ^ seed);
        if self.chaos && loss < self.options.loss && self.may_intervene(seed) {
            self.report.lost += 1;
            return self.note_often(&(0_u8, &envelope), || format!("lost: {envelope}"));
        }
        if self.chaos
            && duplication < self.options.duplication
            && self.may_intervene(seed.wrapping_add(1))
        {
            self.report.duplicated += 1;
            self.later(wait, Happening::Deliver(envelope.clone()));
        }
        if self.chaos && late < self.options.late && self.may_intervene(seed.wrapping_add(2)) {
            return self.hold_back(envelope, held);
        }
        let calm = Duration::from_millis(5);
        let longest = if self.chaos { self.options.delay_max } else { calm };
        let wait = self.up_to(longest) + self.delay_of_link(&envelope);
        self.later(wait, Happening::Deliver(envelope));
    }
}
