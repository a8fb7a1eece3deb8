//! The moments at which a crash, a pause or a lost message hurts most. Each seed chooses some of them, and
//! how likely it strikes then.

use std::time::Duration;

use raft_core::{Envelope, Event, Ignored, Message, NodeId};

use super::kinds::{Kind, Moment};
use super::{Happening, Simulation};
use crate::machine::Workload;

impl<W: Workload> Simulation<W> {
    /// What a node did is looked through for moments, and maybe one of them is used. True if nothing of
    /// what it says leaves it.
    pub(super) fn strike(&mut self, id: NodeId, events: &[Event], messages: &[Envelope]) -> bool {
        if !self.chaos {
            return false;
        }
        let said = messages.iter().filter_map(|envelope| match &envelope.message {
            Message::TimeoutNow => Some(Moment::TimeoutNowSent),
            Message::ReadIndex { .. } => Some(Moment::ReadRoundOpen),
            _ => None,
        });
        let mut moments: Vec<Moment> = said.collect();
        moments.dedup();
        for event in events {
            moments.extend(self.moment_of(id, event));
            match event {
                Event::SnapshotFetched { .. } => self.change_meanwhile(),
                Event::PeerReborn { peer, incarnation } => {
                    self.speak_from_the_grave(id, *peer, *incarnation);
                }
                _ => {}
            }
        }
        let mut silent = false;
        for moment in moments {
            silent |= self.strike_at(id, moment);
        }
        silent
    }

    fn moment_of(&self, id: NodeId, event: &Event) -> Option<Moment> {
        Some(match event {
            Event::MembershipChanged { membership, .. } if membership.is_joint() => {
                Moment::JointBegun
            }
            Event::MembershipChanged { .. } => Moment::JointEnded,
            Event::TransferStarted { .. } => Moment::TransferStarted,
            Event::Committed { .. } if self.cluster.node(id).status().membership.is_joint() => {
                Moment::JointCommitted
            }
            Event::Committed { .. } => Moment::Committed,
            Event::Compacted { .. } => Moment::Compacted,
            Event::SnapshotFetched { .. } => Moment::SnapshotFetched,
            Event::SnapshotInstalled { .. } => Moment::SnapshotInstalled,
            Event::Promoting { .. } => Moment::Promoting,
            Event::PeerReborn { .. } => Moment::PeerReborn,
            Event::Ignored { why: Ignored::LeaderIsAlive, .. } => Moment::VoteRefused,
            _ => return None,
        })
    }

    /// At this moment the node may die, pause or not be heard. True if nothing that it says now leaves it.
    pub(super) fn strike_at(&mut self, id: NodeId, moment: Moment) -> bool {
        let (chance, seed) = (self.random.f64(), self.random.u64(..));
        let likely = self.options.strike * moment.rarity();
        let chosen = self.options.moments.contains(&moment);
        if !self.chaos || !chosen || chance >= likely || !self.may_intervene(seed) {
            return false;
        }
        *self.report.moments.entry(moment).or_default() += 1;
        self.note(|| format!("{id}: {}", moment.name()));
        let life = self.cluster.members[&id].lives;
        // What is drawn from here on is drawn aside: nothing else depends on it.
        let outer = std::mem::replace(&mut self.random, fastrand::Rng::with_seed(seed));
        let silent = match self.random.u8(..7) {
            0 | 1 => {
                self.later(Duration::ZERO, Happening::Crash(id, life));
                true
            }
            2 => {
                self.later(Duration::ZERO, Happening::Crash(id, life));
                false
            }
            3 => {
                let wait = self.up_to(self.options.delay_max.saturating_add(self.options.sync_max));
                self.later(wait, Happening::Crash(id, life));
                false
            }
            4 => {
                self.be_back_at_once(id, life);
                true
            }
            5 => {
                self.later(Duration::ZERO, Happening::Pause(id));
                self.random.bool()
            }
            _ => {
                let others = self.cluster.ids().into_iter().filter(|&to| to != id);
                let links: Vec<_> = others.map(|to| (id, to)).collect();
                self.cut_for_a_while(&links);
                true
            }
        };
        self.random = outer;
        silent
    }

    /// A node dies and is back before anyone has noticed; what it was asked last, it is asked again.
    fn be_back_at_once(&mut self, id: NodeId, life: u64) {
        self.count(Kind::BackAtOnce);
        self.later(Duration::ZERO, Happening::Crash(id, life));
        let wait = self.up_to(self.options.election_timeout / self.options.heartbeats / 2);
        self.later(wait, Happening::Restart(id));
        if let Some(envelope) = self.trouble.hearing.clone().filter(|it| it.to == id) {
            let wait = wait + self.up_to(Duration::from_millis(1));
            self.later(wait, Happening::Deliver(envelope));
        }
    }

    /// Somebody wants other members, just now.
    fn change_meanwhile(&mut self) {
        let (chance, seed) = (self.random.u8(..4), self.random.u64(..));
        if chance > 0 || !self.chaos || !self.may_intervene(seed) {
            return;
        }
        let outer = std::mem::replace(&mut self.random, fastrand::Rng::with_seed(seed));
        self.later(Duration::ZERO, Happening::Change);
        self.random = outer;
    }

    /// Here they ask for it: some leader takes it on, or none does.
    pub(super) fn change_while_fetching(&mut self) {
        let before = self.report.changes_taken;
        self.change_members();
        if self.report.changes_taken > before {
            self.count(Kind::ChangeDuringSnapshot);
        }
    }
}
