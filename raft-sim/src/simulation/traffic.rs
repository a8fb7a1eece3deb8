//! What is on its way between clients and nodes.

use std::fmt;

use bytes::Bytes;
use raft_core::{Instant, LogPosition, NodeId};

use crate::history::Request;
use crate::machine::Workload;

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

impl Asked {
    pub(super) fn told(&self, workload: &impl Workload) -> String {
        format!("{} {}", self.caller, self.request.told(workload))
    }
}

impl Answer {
    /// As an answer to this.
    pub(super) fn told(&self, request: &Request, workload: &impl Workload) -> String {
        match self {
            Self::Done { position, response } => {
                format!("{} as of {position}", workload.describe(request.answer(response)))
            }
            Self::Refused(why) => format!("a refusal: {why}"),
            Self::Unknown => "that nobody knows".to_owned(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "nobody is there",
            Self::NotLeader => "not the leader",
            Self::Busy => "too much waits",
            Self::Superseded => "another leader's entry took its place",
            Self::NotReached => "not there yet",
        })
    }
}

/// Without the words that are said: who lost them knows what was on its way.
impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick(client) | Self::Step(client) => write!(f, "c{client}'s turn"),
            Self::Request(to, asked) => write!(f, "{} → {to} request", asked.caller),
            Self::Forward(from, to, asked) => {
                write!(f, "{from} → {to} {}, forwarded", asked.caller)
            }
            Self::Serve(id, _) => write!(f, "{id} takes in what it is asked"),
            Self::Relay(from, to, _, caller, _) => write!(f, "{from} → {to} answer for {caller}"),
            Self::Answer(caller, _) => write!(f, "→ {caller} answer"),
        }
    }
}
