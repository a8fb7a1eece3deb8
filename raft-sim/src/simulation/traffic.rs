//! What is on its way between clients and nodes.

use std::fmt;

use bytes::Bytes;
use raft_core::{Instant, LogPosition, NodeId};

use crate::history::{Freshness, Request};

/// Who asks, and how often that was asked before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Caller {
    pub(super) client: u64,
    pub(super) number: u64,
    pub(super) attempt: u32,
    /// Its place in the history.
    pub(super) operation: usize,
    /// When that operation began.
    pub(super) began: Instant,
    /// Until when the client waits.
    pub(super) until: Instant,
    /// The life of the node that passed it on, if one did.
    pub(super) via: Option<(NodeId, u64)>,
}

/// A request on its way, or at a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    pub(super) caller: Caller,
    pub(super) request: Request,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    /// It is done.
    Done { position: LogPosition, response: Bytes },
    /// It is in no log, and will be in none; the client may ask elsewhere.
    Refused(Refusal),
    /// It may be done or not.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Refusal {
    /// There is no such node, or it does not run.
    Unreachable,
    /// No leader is known, or it is another one, or it was one.
    NotLeader,
    /// Too much waits already.
    Busy,
    /// Another leader's entry took the place of this one.
    Superseded,
    /// The index that it asks for is not known here.
    NotReached,
}

/// What is on its way between clients and nodes.
#[derive(Clone, Debug)]
pub(super) enum Traffic {
    /// A client has time, again and again.
    Tick(u64),
    /// A client has time, this once.
    Step(u64),
    /// To a node.
    Request(NodeId, Asked),
    /// From one node to another that it takes for the leader.
    Forward(NodeId, NodeId, Asked),
    /// This life of a node takes in what was asked.
    Serve(NodeId, u64),
    /// From the leader to the life of a node that had passed it on.
    Relay(NodeId, NodeId, u64, Caller, Answer),
    /// From a node to a client.
    Answer(Caller, Answer),
}

impl Traffic {
    /// The node that it is for, if it is for one.
    pub(super) const fn to(&self) -> Option<NodeId> {
        match self {
            Self::Request(to, _) | Self::Forward(_, to, _) => Some(*to),
            Self::Serve(id, _) | Self::Relay(_, id, ..) => Some(*id),
            Self::Tick(_) | Self::Step(_) | Self::Answer(..) => None,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}#{}.{}", self.client, self.number, self.attempt)
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.caller)?;
        match &self.request {
            Request::Write { command, .. } => write!(f, "write {}", command.escape_ascii()),
            Request::Read { query, how } => {
                let query = query.escape_ascii();
                match how {
                    Freshness::AtLeast(index) => write!(f, "read at {index} or later {query}"),
                    how => write!(f, "read {how:?} {query}"),
                }
            }
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { position, response } => {
                write!(f, "{} as of {position}", response.escape_ascii())
            }
            Self::Refused(why) => write!(f, "a refusal: {why:?}"),
            Self::Unknown => f.write_str("that nobody knows"),
        }
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick(client) | Self::Step(client) => write!(f, "c{client}"),
            Self::Request(to, asked) => write!(f, "{asked} → {to}"),
            Self::Forward(from, to, asked) => write!(f, "{asked} {from} → {to}"),
            Self::Serve(id, _) => write!(f, "{id} serves"),
            Self::Relay(from, to, _, caller, answer) => {
                write!(f, "{from} → {to} → {caller}: {answer}")
            }
            Self::Answer(caller, answer) => write!(f, "→ {caller}: {answer}"),
        }
    }
}
