//! What is on the agenda, who sees to it, and how a story names it: the last line of one that breaks.

use std::fmt;

use raft_core::{Envelope, LogIndex, NodeId};

use super::Simulation;
use super::network::Flapping;
use super::traffic::Traffic;
use crate::machine::Workload;

/// Everything that can be on the agenda.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    Deliver(Envelope),
    /// The disk of this life of a node finishes what it was given.
    Sync(NodeId, u64),
    /// This life of a node is polled, if it still waits for that.
    Poll(NodeId, u64),
    Applied(NodeId, u64, LogIndex),
    /// This life of a node reads a chunk for a peer, or stores what has come of a snapshot.
    ReadChunk(NodeId, u64),
    Store(NodeId, u64),
    /// This life of a node cuts a snapshot.
    Cut(NodeId, u64),
    /// The log of this life of a node was idle for a while.
    Mark(NodeId, u64),
    /// Some node reads again what it wrote long ago.
    Scrub,
    /// Something about a disk goes wrong; there is room on this disk again.
    DiskFault,
    Room(NodeId),
    /// The first is gone for good, and the second is to take its place.
    Replace(NodeId, NodeId),
    /// Someone changes the members, hands leadership over, or cuts a snapshot unasked.
    Operator,
    /// This node hears nobody for a while.
    Deafen(NodeId),
    Restart(NodeId),
    /// Links are cut in any shape; those of this number are not any more.
    Partition,
    Heal(u64),
    Flap(Flapping),
    /// The next leader is to be left behind; so many times more it may be looked for.
    LeaveBehind(u32),
    /// A message that was held back, and how many lives its sender and its receiver had had then.
    Late(Envelope, (u64, u64)),
    Pause(NodeId),
    Resume(NodeId),
    /// In a storm this node crashes.
    Storm(NodeId),
    /// Somebody wants other members, while a snapshot is fetched.
    Change,
    Stranger,
    /// Those who are broken for ever say again what was said once.
    Stale,
    Crash(NodeId, u64),
    /// Between clients and nodes.
    Traffic(Traffic),
    Fault,
}

impl<W: Workload> Simulation<W> {
    /// It is its turn: whoever sees to it does.
    pub(super) fn happen(&mut self, happening: Happening) {
        let lives = |id: NodeId, life: u64| {
            self.runs(id) && self.cluster.members.get(&id).is_some_and(|it| it.lives == life)
        };
        match happening {
            Happening::Deliver(envelope) => self.deliver(envelope),
            Happening::Sync(id, life) if lives(id, life) => self.sync(id),
            Happening::Poll(id, life) if lives(id, life) && self.unpolled.contains(&id) => {
                self.poll(id);
            }
            Happening::Applied(id, life, index) if lives(id, life) => self.apply(id, index),
            // A paused node does all that when it goes on.
            Happening::ReadChunk(id, life) if lives(id, life) => {
                self.cluster.read_chunk(id);
                self.miss_snapshot(id);
                self.poll_soon(id);
            }
            Happening::Store(id, life) if lives(id, life) => {
                self.cluster.store_incoming(id);
                self.pieces_stored += u64::from(self.chaos || self.good.contains(&id));
                self.poll_soon(id);
            }
            Happening::Cut(id, life) if lives(id, life) => self.cut(id),
            Happening::Mark(id, life) if lives(id, life) => self.mark(id),
            Happening::Scrub => self.scrub(),
            Happening::DiskFault => self.disk_fault(),
            Happening::Room(id) => self.make_room(id),
            Happening::Replace(old, new) => self.replace(old, new),
            Happening::Operator => self.operator(),
            Happening::Deafen(id) => self.deafen(id),
            Happening::Sync(id, _)
            | Happening::Poll(id, _)
            | Happening::Applied(id, ..)
            | Happening::ReadChunk(id, _)
            | Happening::Store(id, _)
            | Happening::Cut(id, _)
            | Happening::Mark(id, _)
                if self.paused.contains(&id) =>
            {
                self.trouble.held.entry(id).or_default().push(happening);
            }
            Happening::Sync(..)
            | Happening::Poll(..)
            | Happening::Applied(..)
            | Happening::ReadChunk(..)
            | Happening::Store(..)
            | Happening::Cut(..)
            | Happening::Mark(..) => {}
            Happening::Restart(id) => self.restart(id),
            Happening::Partition => self.any_partition(),
            Happening::Heal(number) => self.heal(number),
            Happening::Flap(flapping) => self.flap_on(flapping),
            Happening::LeaveBehind(tries) => self.leave_behind(tries),
            Happening::Late(envelope, lives) => self.deliver_late(envelope, lives),
            Happening::Storm(id) => self.crash_in_storm(id),
            Happening::Change => self.change_while_fetching(),
            Happening::Stranger => self.stranger(),
            Happening::Stale => self.say_again(),
            Happening::Pause(id) => self.pause(id),
            Happening::Resume(id) => self.resume(id),
            Happening::Crash(id, life) => {
                let lives = self.cluster.members.get(&id).is_some_and(|it| it.lives == life);
                if self.chaos && lives {
                    self.crash(id);
                }
            }
            Happening::Traffic(traffic) => self.arrive(traffic),
            Happening::Fault => self.fault(),
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver(envelope) => write!(f, "{envelope} is delivered"),
            Self::Late(envelope, _) => write!(f, "{envelope}, which was held back, is delivered"),
            Self::Sync(id, _) => write!(f, "the disk of {id} does what it was given"),
            Self::Poll(id, _) => write!(f, "{id} is polled"),
            Self::Applied(id, _, index) => write!(f, "the machine of {id} applies up to {index}"),
            Self::ReadChunk(id, _) => write!(f, "{id} reads a piece of a snapshot for a peer"),
            Self::Store(id, _) => write!(f, "{id} stores a piece of a snapshot"),
            Self::Cut(id, _) => write!(f, "{id} cuts a snapshot"),
            Self::Mark(id, _) => write!(f, "{id} marks what is durable in its log"),
            Self::Scrub => f.write_str("a node reads again what it wrote long ago"),
            Self::DiskFault => f.write_str("something about a disk goes wrong"),
            Self::Room(id) => write!(f, "the disk of {id} has room again"),
            Self::Replace(old, new) => write!(f, "{new} takes the place of {old}"),
            Self::Operator => f.write_str("an operator does something"),
            Self::Change => f.write_str("an operator wants other members"),
            Self::Deafen(id) => write!(f, "{id} is made deaf"),
            Self::Restart(id) => write!(f, "{id} starts"),
            Self::Partition => f.write_str("links are cut"),
            Self::Heal(number) => write!(f, "partition {number} heals"),
            Self::Flap(_) => f.write_str("a flapping link goes up or down"),
            Self::LeaveBehind(_) => f.write_str("a leader is left behind"),
            Self::Pause(id) => write!(f, "{id} pauses"),
            Self::Resume(id) => write!(f, "{id} goes on after a pause"),
            Self::Storm(id) => write!(f, "{id} crashes in a storm"),
            Self::Crash(id, _) => write!(f, "{id} crashes"),
            Self::Stranger => f.write_str("a stranger speaks"),
            Self::Stale => f.write_str("old messages are said again"),
            Self::Traffic(traffic) => write!(f, "{traffic} arrives"),
            Self::Fault => f.write_str("a fault is made"),
        }
    }
}
