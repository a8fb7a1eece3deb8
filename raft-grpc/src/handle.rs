//! How the rest of the program talks to its node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use bytes::Bytes;
use raft_core::{LogIndex, LogPosition, NodeId, SnapshotId};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::apply::Machine;
#[cfg(doc)]
use crate::config::NodeConfig;
use crate::error::{ProposeError, ReadError};
use crate::events::{Events, NodeEvent, Readers};
use crate::handshake::Identity;
use crate::orders::{self, Done, Edit, OrderError, Orders, Wanted};
use crate::requests::Requests;
use crate::state_machine::StateMachine;
use crate::status::NodeStatus;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Reflects every write that was acknowledged, by any node, before the read began (thesis
    /// §6.4). Costs one round of messages, shared by all reads that wait; works on followers too.
    Linearizable,
    /// Reflects this index, such as that of the caller's own last write.
    AtLeast(LogIndex),
    /// Whatever this node has applied, however old.
    Stale,
}

/// A command that was committed and applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its place in the log.
    pub position: LogPosition,
    /// What [`StateMachine::apply`] returned.
    pub response: Bytes,
}

/// A node's doors. Cheap to clone. The node lives on when all are dropped.
pub struct RaftHandle<S: StateMachine> {
    shared: Arc<Shared<S>>,
}

/// What all handles of a node share.
pub(crate) struct Shared<S> {
    pub(crate) machine: Arc<RwLock<Machine<S>>>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) orders: Orders,
    pub(crate) identity: Arc<Identity>,
    pub(crate) status: watch::Receiver<NodeStatus>,
    pub(crate) events: Readers,
    pub(crate) local_addr: SocketAddr,
    pub(crate) request_timeout: Duration,
    /// Ask the node to stop.
    pub(crate) draining: CancellationToken,
    /// It has stopped.
    pub(crate) stopped: CancellationToken,
}

impl<S: StateMachine> Clone for RaftHandle<S> {
    fn clone(&self) -> Self {
        let shared = Arc::clone(&self.shared);
        Self { shared }
    }
}

impl<S: StateMachine> std::fmt::Debug for RaftHandle<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shared { requests, .. } = &*self.shared;
        f.debug_struct("RaftHandle").field("id", &requests.id).finish_non_exhaustive()
    }
}

/// A look at the state machine, which does not change as long as this exists: keep it short, and
/// never over an `.await` (it is not [`Send`], so that the compiler minds). Whoever holds one must
/// not ask for a second: when the node waits to apply something between the two, neither goes on.
pub struct ReadGuard<'a, S: StateMachine> {
    machine: RwLockReadGuard<'a, Machine<S>>,
}

impl<S: StateMachine> ReadGuard<'_, S> {
    /// The last entry that the state reflects.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        self.machine.applied
    }
}

impl<S: StateMachine> Deref for ReadGuard<'_, S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.machine.state
    }
}

impl<S: StateMachine> RaftHandle<S> {
    pub(crate) fn new(shared: Shared<S>) -> Self {
        let shared = Arc::new(shared);
        Self { shared }
    }

    /// Replicates a command; answered when it is committed and applied. Any node will do: a
    /// follower forwards it to the leader. Takes at most [`NodeConfig::request_timeout`].
    ///
    /// Once called it may be applied, whether the future is polled to its end or dropped.
    ///
    /// # Errors
    /// [`ProposeError::NotApplied`] if it certainly was not applied, [`ProposeError::Unknown`] if
    /// that cannot be told.
    pub async fn propose(&self, command: Bytes) -> Result<Applied, ProposeError> {
        self.propose_within(command, self.shared.request_timeout).await
    }

    /// [`propose`](Self::propose) with another limit.
    ///
    /// # Errors
    /// As there.
    pub async fn propose_within(
        &self,
        command: Bytes,
        timeout: Duration,
    ) -> Result<Applied, ProposeError> {
        let deadline = deadline_in(timeout);
        self.shared.requests.propose(command, deadline).await
    }

    /// Waits until the local state is as fresh as asked, then looks at it. Takes at most
    /// [`NodeConfig::request_timeout`].
    ///
    /// # Errors
    /// If it did not become fresh enough; always safe to try again.
    pub async fn read(&self, consistency: Consistency) -> Result<ReadGuard<'_, S>, ReadError> {
        self.read_within(consistency, self.shared.request_timeout).await
    }

    /// [`read`](Self::read) with another limit.
    ///
    /// # Errors
    /// As there.
    pub async fn read_within(
        &self,
        consistency: Consistency,
        timeout: Duration,
    ) -> Result<ReadGuard<'_, S>, ReadError> {
        let deadline = deadline_in(timeout);
        let requests = &self.shared.requests;
        match consistency {
            Consistency::Linearizable => requests.read_linearizable(deadline).await?,
            Consistency::AtLeast(index) if self.read_stale().applied().index < index => {
                requests.read_at_least(index, deadline).await?;
            }
            Consistency::AtLeast(_) | Consistency::Stale => {}
        }
        if self.shared.machine.is_poisoned() {
            // The state machine panicked half-way through an entry; the node is about to stop.
            return Err(ReadError::ShuttingDown);
        }
        Ok(self.read_stale())
    }

    /// The local state at once, however old.
    #[must_use]
    pub fn read_stale(&self) -> ReadGuard<'_, S> {
        // Poisoned is the lock of a state machine that panicked: the node stops, see `Fatal`.
        let machine = self.shared.machine.read();
        let machine = machine.unwrap_or_else(PoisonError::into_inner);
        ReadGuard { machine }
    }

    /// What the node last told about itself. Cheap.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        self.shared.status.borrow().clone()
    }

    /// The same, to be told of changes.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<NodeStatus> {
        self.shared.status.clone()
    }

    /// What happens to the node from now on: elections, changes of members, snapshots.
    #[must_use]
    pub fn events(&self) -> Events {
        self.shared.events.listen()
    }

    /// The last 256 things that happened to it since its start, the newest last.
    #[must_use]
    pub fn recent_events(&self) -> Vec<NodeEvent> {
        self.shared.events.last()
    }

    /// Adds a node as a learner: it gets the log and has no vote. Any node can be asked: a follower passes the
    /// order on to the leader. Returns when it is committed; at once if the node is a member already, learner or
    /// not, and then `address` changes nothing. The node itself is to be started with [`NodeConfig::join`],
    /// before or after.
    ///
    /// An order says what is to be in the end, so giving it again is harmless as long as that is still wanted.
    /// It is never given again by itself if it may have had its effect
    /// ([`OrderError::may_have_effect`]): meanwhile somebody else may have wanted something else.
    ///
    /// # Errors
    /// Why not; see [`OrderError`].
    pub async fn add_member(
        &self,
        id: NodeId,
        address: &str,
        timeout: Duration,
    ) -> Result<(), OrderError> {
        self.add_member_with_note(id, address, "", timeout).await
    }

    /// [`add_member`](Self::add_member), with what the others should know about the node until it says so
    /// itself ([`NodeConfig::note`]).
    ///
    /// # Errors
    /// As there.
    pub async fn add_member_with_note(
        &self,
        id: NodeId,
        address: &str,
        note: &str,
        timeout: Duration,
    ) -> Result<(), OrderError> {
        let (address, note) = (address.to_owned(), note.to_owned());
        self.change(Edit::AddLearner { id, address, note }, timeout).await
    }

    /// Makes a learner a voter, as soon as it has caught up. Any node can be asked, and giving the order again
    /// is harmless, as with [`add_member`](Self::add_member). Returns when it is committed; at once if the node
    /// votes already.
    ///
    /// # Errors
    /// Why not; see [`OrderError`]. [`OrderError::NotCaughtUp`] says what was missing when the time was up.
    pub async fn promote(&self, id: NodeId, timeout: Duration) -> Result<(), OrderError> {
        self.change(Edit::Promote(id), timeout).await
    }

    /// Removes a member, the leader itself too: then it hands over. Any node can be asked, and giving the order
    /// again is harmless, as with [`add_member`](Self::add_member). Returns when it is committed; at once if the
    /// node is no member.
    ///
    /// # Errors
    /// Why not; see [`OrderError`].
    pub async fn remove_member(&self, id: NodeId, timeout: Duration) -> Result<(), OrderError> {
        self.change(Edit::Remove(id), timeout).await
    }

    /// Hands leadership over to a voter, or to the one that has most of the log; tells who leads then, which may
    /// be a third one if an election came in between. Any node can be asked, as with
    /// [`add_member`](Self::add_member). Nothing happens if `to` leads already; without `to` every call hands
    /// over once more.
    ///
    /// # Errors
    /// Why not; see [`OrderError`].
    pub async fn transfer_leadership(
        &self,
        to: Option<NodeId>,
        timeout: Duration,
    ) -> Result<NodeId, OrderError> {
        match self.order(&Wanted::Transfer(to), timeout).await? {
            Done::Leads(leader) => Ok(leader),
            // An answer to another order: that of a leader which is not to be trusted.
            Done::Members => Err(OrderError::Unknown),
        }
    }

    async fn change(&self, edit: Edit, timeout: Duration) -> Result<(), OrderError> {
        self.order(&Wanted::Change(edit), timeout).await.map(drop)
    }

    async fn order(&self, wanted: &Wanted, timeout: Duration) -> Result<Done, OrderError> {
        let Shared { requests, orders, identity, .. } = &*self.shared;
        orders::to_leader(requests, orders, identity, wanted, deadline_in(timeout)).await
    }

    /// Cuts a snapshot on this node now, whether it leads or not.
    ///
    /// # Errors
    /// Why not; see [`OrderError`].
    pub async fn snapshot(&self, timeout: Duration) -> Result<SnapshotId, OrderError> {
        self.shared.orders.snapshot(deadline_in(timeout)).await
    }

    /// Where every node that this one knows can be reached, and what it says besides
    /// ([`NodeConfig::note`]): all members, and perhaps some that are none any more.
    #[must_use]
    pub fn addresses(&self) -> BTreeMap<NodeId, (String, String)> {
        let all = self.shared.identity.book.all().into_iter();
        all.map(|(id, entry)| (id, (entry.address, entry.note))).collect()
    }

    /// Where the node listens for the others; of interest if [`NodeConfig::listen`] left the port
    /// to the system.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// Stops the node: nothing new is taken, what is in flight may finish for
    /// [`NodeConfig::shutdown_grace`], the rest is answered, the log is closed and the port
    /// released. Returns when that is done; calling it again is harmless.
    pub async fn shutdown(&self) {
        self.shared.draining.cancel();
        self.shared.stopped.cancelled().await;
    }
}

/// The moment after this time; a time without end is a year.
fn deadline_in(timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    Instant::now() + timeout.min(YEAR)
}
