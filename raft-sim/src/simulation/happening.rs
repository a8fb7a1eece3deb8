//! How a story names what happens: the last line of one that breaks.

use std::fmt;

use super::Happening;

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
