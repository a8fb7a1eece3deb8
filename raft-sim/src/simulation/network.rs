//! What goes wrong between nodes: links are cut in all shapes, flap, are slow; messages come late.

use std::collections::BTreeSet;
use std::time::Duration;

use raft_core::{Envelope, NodeId};

use super::kinds::Kind;
use super::{Happening, Simulation};
use crate::machine::Workload;
use crate::transcript;

/// Links that are up and down in turns.
#[derive(Clone, Debug)]
pub(super) struct Flapping {
    pub links: Vec<(NodeId, NodeId)>,
    /// So many times more; for ever, if there is no number.
    pub left: Option<u32>,
    /// The number of the present cut.
    pub down: Option<u64>,
}

impl<W: Workload> Simulation<W> {
    pub(super) fn cut_for_a_while(&mut self, links: &[(NodeId, NodeId)]) {
        let number = self.cut_for_ever(links);
        let wait = self.up_to(self.timeout() * 8);
        self.later(wait, Happening::Heal(number));
    }

    /// Cuts links until somebody heals this number.
    pub(super) fn cut_for_ever(&mut self, links: &[(NodeId, NodeId)]) -> u64 {
        self.report.partitions += 1;
        self.trouble.cuts += 1;
        let number = self.trouble.cuts;
        self.cut.extend(links.iter().map(|&(a, b)| (a, b, number)));
        self.note(|| format!("partition {number} cuts {}", transcript::links(links)));
        number
    }

    pub(super) fn heal(&mut self, number: u64) {
        self.note(|| format!("partition {number} heals"));
        self.cut.retain(|(_, _, cut_by)| *cut_by != number);
        self.trouble.slow.retain(|_, (slowed_by, _)| *slowed_by != number);
    }

    /// A node hears nobody for a while.
    pub(super) fn deafen(&mut self, id: NodeId) {
        let others = self.cluster.ids().into_iter().filter(|&from| from != id);
        let links: Vec<_> = others.map(|from| (from, id)).collect();
        if self.chaos {
            self.cut_for_a_while(&links);
        }
    }

    /// Cuts the cluster in this shape. The nodes take their places in it by chance.
    pub(super) fn partition(&mut self, ids: &[NodeId], shape: Kind) {
        let mut places = ids.to_vec();
        self.random.shuffle(&mut places);
        let (leader, count) = (self.leader(), ids.len());
        // In too small a cluster some shapes cut nothing, and one node more or less makes another.
        let shape = match shape {
            Kind::Majorities if count < 5 => Kind::Chain,
            Kind::Bridge | Kind::Chain if count < 3 => Kind::OneWay,
            shape => shape,
        };
        if let Some(leader) = leader.filter(|_| shape == Kind::Isolation || self.random.bool())
            && let Some(place) = places.iter().position(|&id| id == leader)
        {
            // A bridge and an isolated node are the first.
            places.swap(0, place);
        }
        let side: BTreeSet<usize> = (0..count).filter(|_| self.random.bool()).collect();
        let mut links = Vec::new();
        for (a, &from) in places.iter().enumerate() {
            for (b, &to) in places.iter().enumerate() {
                let any = self.random.u8(..4) == 0;
                let cut = is_cut(shape, a, b, count, &side).unwrap_or(any);
                if a != b && cut {
                    links.push((from, to));
                }
            }
        }
        if !links.is_empty() {
            self.count(shape);
            self.cut_for_a_while(&links);
        }
    }

    /// The leader is cut off with what it has been asked, and hears the others again when they have compacted
    /// their logs: what became of it, it may never learn. Where there is no leader yet, one is looked for again
    /// later, so many times.
    pub(super) fn leave_behind(&mut self, tries: u32) {
        let ids = self.cluster.ids();
        let Some(leader) = self.leader().filter(|_| self.chaos && ids.len() > 1) else {
            if self.chaos && tries > 0 {
                let wait = self.up_to(self.timeout());
                self.later(wait, Happening::LeaveBehind(tries - 1));
            }
            return;
        };
        let others: Vec<NodeId> = ids.into_iter().filter(|&id| id != leader).collect();
        self.count(Kind::LeftBehind);
        let links = others.iter().flat_map(|&id| [(leader, id), (id, leader)]);
        let number = self.cut_for_ever(&links.collect::<Vec<_>>());
        let timeout = self.timeout();
        for id in others {
            let wait = timeout * 3 + self.up_to(timeout);
            self.later(wait, Happening::Cut(id, self.life(id)));
        }
        let wait = timeout * 4 + self.up_to(timeout * 2);
        self.later(wait, Happening::Heal(number));
    }

    /// Nobody writes for a while. When all logs are the same, links are cut: then anyone can win.
    pub(super) fn lull(&mut self) {
        self.count(Kind::Lull);
        self.note(|| "a lull: nobody writes".to_owned());
        let (soon, timeout) = (self.up_to(self.timeout()), self.timeout());
        let wait = soon + timeout * 2 + self.up_to(timeout * 2);
        self.trouble.quiet_until = self.cluster.now.after(wait);
        self.later(soon, Happening::Partition);
    }

    /// Links are cut in any shape.
    pub(super) fn any_partition(&mut self) {
        const SHAPES: [Kind; 6] =
            [Kind::Halves, Kind::Isolation, Kind::OneWay, Kind::Bridge, Kind::Chain, Kind::Links];
        let (ids, shape) = (self.cluster.ids(), SHAPES[self.random.usize(..SHAPES.len())]);
        if self.chaos {
            self.partition(&ids, shape);
        }
    }

    /// A link, one way or both, or all links of a node, are up and down for a while.
    pub(super) fn flap(&mut self, ids: &[NodeId], one: NodeId) {
        let links = self.some_links(ids, one);
        let left = Some(self.random.u32(4..=20));
        if links.is_empty() {
            return;
        }
        self.count(Kind::Flap);
        self.note(|| format!("flapping from here on: {}", transcript::links(&links)));
        self.flap_on(Flapping { links, left, down: None });
    }

    fn some_links(&mut self, ids: &[NodeId], one: NodeId) -> Vec<(NodeId, NodeId)> {
        let (place, all, way) =
            (self.random.usize(..), self.random.u8(..3) == 0, self.random.u8(..4));
        let others: Vec<NodeId> = ids.iter().copied().filter(|&it| it != one).collect();
        let other = others.get(place % others.len().max(1)).copied();
        let others = others.into_iter().filter(|&it| all || Some(it) == other);
        let both = others.flat_map(|it| [(it, one), (one, it)]);
        both.filter(|&(from, _)| way > 1 || (from == one) == (way == 0)).collect()
    }

    /// What was up is down now, and the other way round.
    pub(super) fn flap_on(&mut self, flapping: Flapping) {
        let Flapping { links, left, down } = flapping;
        let was_down = down.inspect(|&number| self.heal(number)).is_some();
        if left == Some(0) {
            return;
        }
        let down = (!was_down).then(|| self.cut_for_ever(&links));
        let wait = Duration::from_millis(50) + self.up_to(Duration::from_millis(450));
        let left = left.map(|left| left - 1);
        self.later(wait, Happening::Flap(Flapping { links, left, down }));
    }

    /// Some links take longer, for a while.
    pub(super) fn slow_down(&mut self, ids: &[NodeId], one: NodeId) {
        let links = self.some_links(ids, one);
        let by = self.up_to(self.timeout() * 2);
        if links.is_empty() {
            return;
        }
        self.trouble.cuts += 1;
        let number = self.trouble.cuts;
        self.count(Kind::SlowLink);
        self.note(|| format!("slow link {number}, by {by:?}: {}", transcript::links(&links)));
        self.trouble.slow.extend(links.into_iter().map(|link| (link, (number, by))));
        let wait = self.up_to(self.timeout() * 8);
        self.later(wait, Happening::Heal(number));
    }

    /// By how much longer this message takes.
    pub(super) fn delay_of_link(&self, envelope: &Envelope) -> Duration {
        let slow = self.trouble.slow.get(&(envelope.from, envelope.to));
        slow.map_or(Duration::ZERO, |&(_, by)| by)
    }

    /// A message is held back for seconds, as by an old connection that nobody closed.
    pub(super) fn hold_back(&mut self, envelope: Envelope, wait: Duration) {
        self.count(Kind::Late);
        let lives = (self.life(envelope.from), self.life(envelope.to));
        self.note_often(&(2_u8, &envelope), || format!("held back: {envelope}"));
        self.later(wait, Happening::Late(envelope, lives));
    }

    /// It arrives after all.
    pub(super) fn deliver_late(&mut self, envelope: Envelope, lives: (u64, u64)) {
        let (from, to) = (envelope.from, envelope.to);
        let others = (self.life(from), self.life(to)) != lives;
        if others && self.runs(to) && !self.is_cut(from, to) {
            self.count(Kind::LateAcrossRestart);
        }
        self.deliver(envelope);
    }

    /// How many lives this node has had; none, if it is gone for good.
    pub(super) fn life(&self, id: NodeId) -> u64 {
        self.cluster.members.get(&id).map_or(0, |member| member.lives)
    }
}

/// Is the link from this place to that one cut, of so many? `None` if the shape does not say.
fn is_cut(shape: Kind, a: usize, b: usize, count: usize, side: &BTreeSet<usize>) -> Option<bool> {
    let (near, far) = (a.abs_diff(b), count - a.abs_diff(b));
    Some(match shape {
        Kind::Halves => side.contains(&a) != side.contains(&b),
        Kind::Isolation => a == 0 || b == 0,
        Kind::OneWay => side.contains(&a) && !side.contains(&b),
        // Two sides of nearly the same size.
        Kind::Bridge => a > 0 && b > 0 && a % 2 != b % 2,
        Kind::Chain => near > 1,
        Kind::Majorities => near.min(far) > (count / 2).div_ceil(2),
        _ => return None,
    })
}
