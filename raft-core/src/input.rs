//! What the world does to a node.

use crate::message::Envelope;
use crate::types::LogIndex;
use crate::write::Receipt;

/// Something that happened, to be fed to [`Node::step`](crate::Node::step) in the order in which it did.
#[derive(Debug)]
pub enum Input {
    /// [`Node::deadline`](crate::Node::deadline) has passed. Early, late or needless calls are harmless.
    Timer,
    /// A message arrived. It may be late, repeated, out of order or nonsense.
    Message(Envelope),
    /// A write became durable.
    Written(Receipt),
    /// The state machine has applied all entries up to this index.
    Applied(LogIndex),
}
