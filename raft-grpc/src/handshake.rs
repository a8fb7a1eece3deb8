//! The first words on every stream: who is there, and is it whom we mean? A stranger is refused
//! before anything that it sends can change any state.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use raft_core::{LogIndex, Membership, NodeId};
use tonic::{Code, Status};

use crate::address_book::AddressBook;
use crate::convert::{Malformed, incarnation, incarnation_to_wire, node};
use crate::security::{CertificateNames, Security};
use crate::wire;

/// The newest version of `proto/raft.proto` that this code speaks.
const PROTOCOL_VERSION: u32 = 1;

/// The oldest one. A node also speaks the version before its own: then nodes can be upgraded one by one.
const OLDEST_PROTOCOL_VERSION: u32 = 1;

const _: () = assert!(
    OLDEST_PROTOCOL_VERSION == PROTOCOL_VERSION,
    "with two versions the one of a conversation must reach whoever encodes in it"
);

/// Who this node is, and whom it knows.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) cluster: String,
    pub(crate) id: NodeId,
    pub(crate) incarnation: u128,
    pub(crate) book: AddressBook,
    /// How this node proves who it is, and the others to it.
    pub(crate) security: Security,
    known: Mutex<KnownMembers>,
}

/// The members, as of the last entry of this node's log.
#[derive(Clone, Debug)]
struct KnownMembers {
    membership: Membership,
    /// Of the entry that brought them.
    index: LogIndex,
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
    /// The caller's certificate does not name the node that it claims to be.
    Certificate {
        names: CertificateNames,
        needed: String,
    },
    /// There is no version that both speak: theirs are these.
    Version {
        oldest: u32,
        newest: u32,
    },
    Cluster {
        theirs: String,
        ours: String,
    },
    /// The caller believes that another node lives here.
    Target {
        meant: NodeId,
        this: NodeId,
    },
    /// The caller is no member, or no longer, or says that it is this very node.
    Stranger(NodeId),
    /// A member that has lost its data directory, and with it its votes and its log.
    Wiped(NodeId),
    /// Another process with the same node id, but with another data directory, is connected.
    SecondProcess(NodeId),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGreeting => write!(f, "it did not say who it is"),
            Self::Malformed(why) => write!(f, "its greeting is malformed: {why}"),
            Self::Certificate { names, needed } => {
                write!(f, "its certificate names {names}, not {needed}, which it claims to be")
            }
            Self::Version { oldest, newest } => write!(
                f,
                "it speaks the protocol versions {oldest} to {newest}, this node \
                 {OLDEST_PROTOCOL_VERSION} to {PROTOCOL_VERSION}; upgrade one version at a time"
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
            Self::Wiped(id) => write!(
                f,
                "{id} is a member, and came back with another data directory: what it promised is lost; \
                 remove it from the cluster and add it again"
            ),
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
            Refusal::Version { .. } => Code::Unimplemented,
            Refusal::Target { .. } | Refusal::SecondProcess(_) | Refusal::Wiped(_) => {
                Code::FailedPrecondition
            }
            Refusal::Certificate { .. } => Code::Unauthenticated,
            Refusal::Cluster { .. } | Refusal::Stranger(_) => Code::PermissionDenied,
        };
        Self::new(code, format!("refused: {refusal}"))
    }
}

impl Identity {
    /// This node, whose log knows these members.
    pub(crate) fn new(
        cluster: String,
        id: NodeId,
        incarnation: u128,
        book: AddressBook,
        security: Security,
        membership: Membership,
        index: LogIndex,
    ) -> Self {
        let known = Mutex::new(KnownMembers { membership, index });
        Self { cluster, id, incarnation, book, security, known }
    }

    fn known(&self) -> KnownMembers {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The log names other members now.
    pub(crate) fn on_members(&self, membership: &Membership, index: LogIndex) {
        let known = KnownMembers { membership: membership.clone(), index };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        // Who comes back after it was removed may have a new directory.
        self.book.forget_directories(|id| !membership.contains(id));
    }

    /// The first request on a stream to `to`.
    pub(crate) fn hello(&self, to: NodeId) -> wire::Hello {
        let KnownMembers { membership, index } = self.known();
        wire::Hello {
            protocol_version: PROTOCOL_VERSION,
            cluster: self.cluster.clone(),
            from: self.id.get(),
            to: to.get(),
            incarnation: incarnation_to_wire(self.incarnation),
            members: self.book.to_wire(),
            membership: Some(membership.into()),
            membership_index: index.0,
            oldest_protocol_version: OLDEST_PROTOCOL_VERSION,
        }
    }

    /// The first reply on a stream.
    pub(crate) fn welcome(&self) -> wire::Welcome {
        wire::Welcome {
            node: self.id.get(),
            incarnation: incarnation_to_wire(self.incarnation),
            members: self.book.to_wire(),
            protocol_version: PROTOCOL_VERSION,
        }
    }

    /// Is the caller the node that it claims to be? `names` are those in its certificate. Without TLS there are
    /// none, and nothing to hold against it.
    pub(crate) fn check_certificate(
        &self,
        hello: &wire::Hello,
        names: Option<&CertificateNames>,
    ) -> Result<(), Refusal> {
        let Security::Tls(rotation) = &self.security else { return Ok(()) };
        let needed = rotation.name_of(node(hello.from, "Hello.from")?);
        match names {
            Some(names) if names.contain(&needed) => Ok(()),
            names => {
                let names = names.cloned().unwrap_or_default();
                Err(Refusal::Certificate { names, needed })
            }
        }
    }

    /// To be looked at first: it says whether the rest means what we think it means.
    pub(crate) fn check_version(hello: &wire::Hello) -> Result<(), Refusal> {
        common_version(hello.oldest_protocol_version, hello.protocol_version).map(drop)
    }

    /// Lets a caller in, or not; whether it is the one that it claims to be is for
    /// [`check_certificate`](Self::check_certificate).
    pub(crate) fn check_hello(&self, hello: &wire::Hello) -> Result<Caller, Refusal> {
        Self::check_version(hello)?;
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
        let known = self.known();
        if id == self.id
            || !(known.admits(self.id, id) || is_newer(hello, id, self.id, known.index)?)
        {
            return Err(Refusal::Stranger(id));
        }
        let incarnation = incarnation(&hello.incarnation)?;
        if !self.book.is_directory(id, incarnation) && known.membership.contains(id) {
            return Err(Refusal::Wiped(id));
        }
        Ok(Caller { id, incarnation })
    }

    /// Learns from a caller that was let in.
    pub(crate) fn learn_from(&self, caller: Caller, members: Vec<wire::Member>) {
        self.book.merge(members);
        self.book.note_directory(caller.id, caller.incarnation);
    }

    /// Is the callee the node that we called?
    pub(crate) fn check_welcome(
        &self,
        welcome: Option<wire::Welcome>,
        meant: NodeId,
    ) -> Result<(), Refusal> {
        let welcome = welcome.ok_or(Refusal::NoGreeting)?;
        let version = welcome.protocol_version.max(1);
        common_version(version, version)?;
        let this = node(welcome.node, "Welcome.node")?;
        if this != meant {
            return Err(Refusal::Target { meant, this });
        }
        let incarnation = incarnation(&welcome.incarnation)?;
        if !self.book.is_directory(this, incarnation) && self.known().membership.contains(this) {
            return Err(Refusal::Wiped(this));
        }
        self.learn_from(Caller { id: this, incarnation }, welcome.members);
        Ok(())
    }
}

/// The version in which both can talk: theirs are these, and 0 is as if it was not said.
fn common_version(oldest: u32, newest: u32) -> Result<u32, Refusal> {
    let oldest = if oldest == 0 { newest } else { oldest };
    let common = newest.min(PROTOCOL_VERSION);
    if common < oldest.max(OLDEST_PROTOCOL_VERSION) {
        return Err(Refusal::Version { oldest, newest });
    }
    Ok(common)
}

impl KnownMembers {
    /// Is that a member? Who is none itself, and waits to be made one, cannot tell.
    fn admits(&self, this: NodeId, id: NodeId) -> bool {
        self.membership.contains(id) || !self.membership.contains(this)
    }
}

/// Does the caller know later members than we do, itself and this node among them?
fn is_newer(
    hello: &wire::Hello,
    id: NodeId,
    this: NodeId,
    known: LogIndex,
) -> Result<bool, Malformed> {
    let Some(membership) = hello.membership.clone() else { return Ok(false) };
    let membership = Membership::try_from(membership)?;
    let both = membership.contains(id) && membership.contains(this);
    Ok(hello.membership_index > known.0 && both)
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
            tracing::warn!("{id} came back with another data directory");
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
            if visits.streams == 0 {
                seen.remove(&self.caller.id);
            }
        }
    }
}

/// A node without a directory, whose log names these voters as of this index.
#[cfg(any(test, fuzzing))]
pub(crate) fn identity_of(cluster: &str, this: u64, voters: &[u64], index: u64) -> Identity {
    use crate::address_book::Entry;
    let id = |number| NodeId::new(number).expect("ids begin at 1");
    let nowhere = std::path::Path::new("there-is-no-such-directory");
    let own = Entry { address: format!("own:{this}"), ..Entry::default() };
    let book = AddressBook::open(nowhere, id(this), own, &BTreeMap::new(), Some(1));
    let members = Membership::new(voters.iter().map(|&number| id(number))).expect("some voters");
    let incarnation = u128::from(this) << 90;
    let (cluster, security) = (cluster.into(), Security::Plaintext);
    Identity::new(cluster, id(this), incarnation, book, security, members, LogIndex(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u64) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn identity(cluster: &str, this: u64) -> Identity {
        identity_of(cluster, this, &[1, 2, 3], 0)
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
        newer.oldest_protocol_version = 0;
        assert_eq!(refusal(newer.clone()), Refusal::Version { oldest: 2, newest: 2 });
        newer.oldest_protocol_version = 2;
        assert_eq!(refusal(newer), Refusal::Version { oldest: 2, newest: 2 });
        let mut nonsense = from("c", 1);
        (nonsense.oldest_protocol_version, nonsense.protocol_version) = (3, 1);
        assert!(matches!(refusal(nonsense), Refusal::Version { .. }));
    }

    /// The next version of this program still speaks this one: an upgrade goes node by node.
    #[test]
    fn a_node_that_speaks_this_version_too_is_let_in() {
        let here = identity("c", 2);
        let mut hello = identity("c", 1).hello(id(2));
        assert_eq!((hello.oldest_protocol_version, hello.protocol_version), (1, 1));
        (hello.oldest_protocol_version, hello.protocol_version) = (1, 2);
        here.check_hello(&hello).unwrap();
        let mut welcome = identity("c", 1).welcome();
        welcome.protocol_version = 2;
        let refused = here.check_welcome(Some(welcome.clone()), id(1));
        assert_eq!(refused, Err(Refusal::Version { oldest: 2, newest: 2 }));
        for version in [0, 1] {
            welcome.protocol_version = version;
            here.check_welcome(Some(welcome.clone()), id(1)).unwrap();
        }
    }

    #[test]
    fn who_joins_hears_everyone_and_who_is_behind_hears_whom_it_does_not_know_yet() {
        let newcomer = identity_of("c", 4, &[1, 2, 3], 0);
        let member = identity_of("c", 1, &[1, 2, 3, 4], 7);
        let hear = |here: &Identity, from: &Identity| {
            let hello = from.hello(here.id);
            let caller = here.check_hello(&hello)?;
            here.learn_from(caller, hello.members);
            Ok::<_, Refusal>(caller)
        };
        assert!(hear(&newcomer, &member).is_ok());
        assert_eq!(newcomer.book.get(id(1)).unwrap().address, "own:1");
        // Two has not heard of 4 yet; 4 says what it heard, and where it is.
        let two = identity("c", 2);
        assert_eq!(
            two.check_hello(&newcomer.hello(id(2))).unwrap_err(),
            Refusal::Stranger(id(4)),
            "it cannot say so itself"
        );
        newcomer.on_members(&Membership::new([1, 2, 3, 4].map(id)).unwrap(), LogIndex(7));
        assert!(hear(&two, &newcomer).is_ok());
        assert_eq!(two.book.get(id(4)).unwrap().address, "own:4");
        // Who was removed and does not know it is refused by all who do.
        two.on_members(&Membership::new([1, 2, 3].map(id)).unwrap(), LogIndex(9));
        let refused = two.check_hello(&newcomer.hello(id(2)));
        assert_eq!(refused, Err(Refusal::Stranger(id(4))));
    }

    #[test]
    fn a_voter_with_another_directory_is_refused_until_it_was_removed() {
        let two = identity("c", 2);
        let before = identity("c", 1);
        let caller = two.check_hello(&before.hello(id(2))).unwrap();
        two.learn_from(caller, before.hello(id(2)).members);
        let mut wiped = before.hello(id(2));
        wiped.incarnation = incarnation_to_wire(99);
        assert_eq!(two.check_hello(&wiped), Err(Refusal::Wiped(id(1))));
        two.on_members(&Membership::new([2, 3].map(id)).unwrap(), LogIndex(5));
        two.on_members(&Membership::from_parts([2, 3].map(id), [], [id(1)]).unwrap(), LogIndex(6));
        assert!(two.check_hello(&wiped).is_ok());
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
