//! The first words on every stream: who is there, and is it whom we mean? A stranger is refused
//! before anything that it sends can change any state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use raft_core::NodeId;
use tonic::{Code, Status};

use crate::convert::{Malformed, incarnation, incarnation_to_wire, node};
use crate::wire;

/// The version of `proto/raft.proto` that this code speaks.
const PROTOCOL_VERSION: u32 = 1;

/// Who this node is, and whom it knows.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) cluster: String,
    pub(crate) id: NodeId,
    pub(crate) incarnation: u128,
    pub(crate) members: BTreeSet<NodeId>,
}

/// A caller that was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) id: NodeId,
    pub(crate) incarnation: u128,
}

/// Why a caller, or a callee, is not whom it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The stream did not begin with a greeting, or not in time.
    NoGreeting,
    Malformed(Malformed),
    Version(u32),
    Cluster {
        theirs: String,
        ours: String,
    },
    /// The caller believes that another node lives here.
    Target {
        meant: NodeId,
        this: NodeId,
    },
    /// The caller is no member, or says that it is this very node.
    Stranger(NodeId),
    /// Another process with the same node id, but with another data directory, is connected.
    SecondProcess(NodeId),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGreeting => write!(f, "it did not say who it is"),
            Self::Malformed(why) => write!(f, "its greeting is malformed: {why}"),
            Self::Version(theirs) => write!(
                f,
                "it speaks protocol version {theirs}, this node speaks {PROTOCOL_VERSION}"
            ),
            // A hostile name is cut and escaped, so that a line of the log stays one.
            Self::Cluster { theirs, ours } => {
                let theirs: String = theirs.chars().take(64).collect();
                write!(f, "it belongs to the cluster {theirs:?}, this node to {ours:?}")
            }
            Self::Target { meant, this } => {
                write!(f, "it looks for {meant}, this node is {this}; check its list of peers")
            }
            Self::Stranger(id) => write!(f, "{id} is not one of the other members"),
            Self::SecondProcess(id) => write!(
                f,
                "{id} is connected already from another data directory; two processes must never \
                 run as the same node"
            ),
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(why: Malformed) -> Self {
        Self::Malformed(why)
    }
}

impl From<&Refusal> for Status {
    fn from(refusal: &Refusal) -> Self {
        let code = match refusal {
            Refusal::NoGreeting | Refusal::Malformed(_) => Code::InvalidArgument,
            Refusal::Version(_) => Code::Unimplemented,
            Refusal::Target { .. } | Refusal::SecondProcess(_) => Code::FailedPrecondition,
            Refusal::Cluster { .. } | Refusal::Stranger(_) => Code::PermissionDenied,
        };
        Self::new(code, format!("refused: {refusal}"))
    }
}

impl Identity {
    /// The first request on a stream to `to`.
    pub(crate) fn hello(&self, to: NodeId) -> wire::Hello {
        wire::Hello {
            protocol_version: PROTOCOL_VERSION,
            cluster: self.cluster.clone(),
            from: self.id.get(),
            to: to.get(),
            incarnation: incarnation_to_wire(self.incarnation),
        }
    }

    /// The first reply on a stream.
    pub(crate) fn welcome(&self) -> wire::Welcome {
        wire::Welcome { node: self.id.get(), incarnation: incarnation_to_wire(self.incarnation) }
    }

    /// Lets a caller in, or not.
    pub(crate) fn check_hello(&self, hello: &wire::Hello) -> Result<Caller, Refusal> {
        // The version comes first: it says whether the rest means what we think it means.
        if hello.protocol_version != PROTOCOL_VERSION {
            return Err(Refusal::Version(hello.protocol_version));
        }
        if hello.cluster != self.cluster {
            return Err(Refusal::Cluster {
                theirs: hello.cluster.clone(),
                ours: self.cluster.clone(),
            });
        }
        let meant = node(hello.to, "Hello.to")?;
        if meant != self.id {
            let this = self.id;
            return Err(Refusal::Target { meant, this });
        }
        let id = node(hello.from, "Hello.from")?;
        if id == self.id || !self.members.contains(&id) {
            return Err(Refusal::Stranger(id));
        }
        let incarnation = incarnation(&hello.incarnation)?;
        Ok(Caller { id, incarnation })
    }

    /// Is the callee the node that we called?
    pub(crate) fn check_welcome(
        &self,
        welcome: Option<wire::Welcome>,
        meant: NodeId,
    ) -> Result<(), Refusal> {
        let welcome = welcome.ok_or(Refusal::NoGreeting)?;
        let this = node(welcome.node, "Welcome.node")?;
        if this == meant { Ok(()) } else { Err(Refusal::Target { meant, this }) }
    }
}

/// Which data directory stands behind each caller.
///
/// Two processes that run as the same node can vote twice in one term, so the second one is refused
/// while the first is connected. One that comes later may have lost its disk, and with it its
/// votes: that is told.
#[derive(Debug, Default)]
pub(crate) struct Visitors {
    seen: Mutex<BTreeMap<NodeId, Visits>>,
}

#[derive(Debug)]
struct Visits {
    incarnation: u128,
    streams: usize,
}

/// A caller's stream, for as long as it exists.
#[derive(Debug)]
pub(crate) struct Visit {
    visitors: Arc<Visitors>,
    caller: Caller,
}

impl Visitors {
    /// Notes a new stream.
    pub(crate) fn enter(visitors: &Arc<Self>, caller: Caller) -> Result<Visit, Refusal> {
        let Caller { id, incarnation } = caller;
        let mut seen = visitors.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let visits = seen.entry(id).or_insert(Visits { incarnation, streams: 0 });
        if visits.incarnation != incarnation {
            if visits.streams > 0 {
                return Err(Refusal::SecondProcess(id));
            }
            tracing::warn!(
                "{id} came back with another data directory: if its old one is lost, it may vote \
                 twice in a term; add such a node under a new id"
            );
            visits.incarnation = incarnation;
        }
        visits.streams += 1;
        drop(seen);
        Ok(Visit { visitors: Arc::clone(visitors), caller })
    }
}

impl Visit {
    /// Whose stream it is.
    pub(crate) fn caller(&self) -> NodeId {
        self.caller.id
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut seen = self.visitors.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(visits) = seen.get_mut(&self.caller.id) {
            visits.streams = visits.streams.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u64) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn identity(cluster: &str, this: u64) -> Identity {
        Identity {
            cluster: cluster.into(),
            id: id(this),
            incarnation: u128::from(this) << 90,
            members: [1, 2, 3].map(id).into(),
        }
    }

    #[test]
    fn members_meet() {
        let (one, two) = (identity("c", 1), identity("c", 2));
        let caller = Caller { id: id(1), incarnation: one.incarnation };
        assert_eq!(two.check_hello(&one.hello(id(2))), Ok(caller));
        assert_eq!(one.check_welcome(Some(two.welcome()), id(2)), Ok(()));
    }

    #[test]
    fn each_stranger_is_refused_for_its_reason() {
        let here = identity("c", 2);
        let from = |cluster, this| identity(cluster, this).hello(id(2));
        let refusal = |hello| here.check_hello(&hello).map(|_| ()).unwrap_err();

        let cluster = |theirs: &str| Refusal::Cluster { theirs: theirs.into(), ours: "c".into() };
        assert_eq!(refusal(from("other", 1)), cluster("other"));
        assert_eq!(refusal(from("c", 9)), Refusal::Stranger(id(9)));
        assert_eq!(refusal(from("c", 2)), Refusal::Stranger(id(2)));
        let (meant, this) = (id(3), id(2));
        let lost = identity("c", 1).hello(id(3));
        assert_eq!(refusal(lost), Refusal::Target { meant, this });
        let nobody = wire::Hello { protocol_version: 1, cluster: "c".into(), ..Default::default() };
        assert_eq!(refusal(nobody), Refusal::Malformed(Malformed::NoNode("Hello.to")));
        let mut short = from("c", 1);
        short.incarnation = vec![1; 15].into();
        assert!(matches!(refusal(short), Refusal::Malformed(_)));
        let mut newer = from("other", 9);
        newer.protocol_version = 2;
        assert_eq!(refusal(newer), Refusal::Version(2));
    }

    #[test]
    fn a_hostile_name_stays_one_short_line() {
        let refusal = Refusal::Cluster { theirs: "\n".repeat(100_000), ours: "c".into() };
        assert!(!refusal.to_string().contains('\n') && refusal.to_string().len() < 300);
    }

    #[test]
    fn a_callee_that_is_someone_else_is_refused() {
        let one = identity("c", 1);
        let (meant, this) = (id(2), id(3));
        let welcome = identity("c", 3).welcome();
        assert_eq!(one.check_welcome(Some(welcome), meant), Err(Refusal::Target { meant, this }));
        assert_eq!(one.check_welcome(None, meant), Err(Refusal::NoGreeting));
    }

    #[test]
    fn a_second_process_of_the_same_node_waits_until_the_first_is_gone() {
        let visitors = Arc::new(Visitors::default());
        let caller = |incarnation| Caller { id: id(1), incarnation };
        let first = Visitors::enter(&visitors, caller(7)).unwrap();
        let again = Visitors::enter(&visitors, caller(7)).unwrap();
        let second = Visitors::enter(&visitors, caller(8));
        assert_eq!(second.unwrap_err(), Refusal::SecondProcess(id(1)));
        drop((first, again));
        assert_eq!(Visitors::enter(&visitors, caller(8)).unwrap().caller(), id(1));
    }
}
