//! How the rest of the program talks to its node.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::time::Duration;

use bytes::Bytes;
use raft_core::{LogIndex, LogPosition};
use tokio::sync::watch;

use crate::config::NodeConfig;
use crate::error::{Fatal, NotApplied, ProposeError, ReadError, StartError};
use crate::state_machine::StateMachine;
use crate::status::NodeStatus;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Reflects every write that was acknowledged, by any node, before the read began (thesis §6.4).
    /// Costs one round of messages, shared by all reads that wait; works on followers too.
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

/// A node's doors. Cheap to clone.
pub struct RaftHandle<S: StateMachine> {
    machine: Arc<RwLock<S>>,
    status: watch::Receiver<NodeStatus>,
}

impl<S: StateMachine> Clone for RaftHandle<S> {
    fn clone(&self) -> Self {
        Self {
            machine: Arc::clone(&self.machine),
            status: self.status.clone(),
        }
    }
}

/// A look at the state machine, which does not change as long as this exists: keep it short, and never
/// over an `.await` (it is not [`Send`], so that the compiler minds).
pub struct ReadGuard<'a, S: StateMachine> {
    machine: RwLockReadGuard<'a, S>,
    applied: LogPosition,
}

impl<S: StateMachine> ReadGuard<'_, S> {
    /// The last entry that the state reflects.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        self.applied
    }
}

impl<S: StateMachine> Deref for ReadGuard<'_, S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.machine
    }
}

impl<S: StateMachine> RaftHandle<S> {
    /// Replicates a command; answered when it is committed and applied. Any node will do: a follower
    /// forwards it to the leader. Takes at most [`NodeConfig::request_timeout`].
    ///
    /// # Errors
    /// [`ProposeError::NotApplied`] if it certainly was not applied, [`ProposeError::Unknown`] if that
    /// cannot be told.
    pub async fn propose(&self, command: Bytes) -> Result<Applied, ProposeError> {
        self.propose_within(command, Duration::from_secs(5)).await
    }

    /// [`propose`](Self::propose) with another limit.
    ///
    /// # Errors
    /// As there.
    pub async fn propose_within(
        &self,
        _command: Bytes,
        _timeout: Duration,
    ) -> Result<Applied, ProposeError> {
        Err(NotApplied::ShuttingDown.into())
    }

    /// Waits until the local state is as fresh as asked, then looks at it. Takes at most
    /// [`NodeConfig::request_timeout`].
    ///
    /// # Errors
    /// If it did not become fresh enough; always safe to try again.
    pub async fn read(&self, consistency: Consistency) -> Result<ReadGuard<'_, S>, ReadError> {
        self.read_within(consistency, Duration::from_secs(5)).await
    }

    /// [`read`](Self::read) with another limit.
    ///
    /// # Errors
    /// As there.
    pub async fn read_within(
        &self,
        _consistency: Consistency,
        _timeout: Duration,
    ) -> Result<ReadGuard<'_, S>, ReadError> {
        Err(ReadError::ShuttingDown)
    }

    /// The local state at once, however old.
    #[must_use]
    pub fn read_stale(&self) -> ReadGuard<'_, S> {
        let machine = self.machine.read();
        ReadGuard {
            machine: machine.unwrap_or_else(std::sync::PoisonError::into_inner),
            applied: LogPosition::default(),
        }
    }

    /// What the node last told about itself. Cheap.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        self.status.borrow().clone()
    }

    /// The same, to be told of changes.
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<NodeStatus> {
        self.status.clone()
    }

    /// Stops the node: nothing new is taken, what is in flight may finish for a while, the rest is
    /// answered, the log is closed and the port released. Returns when that is done; calling it again
    /// is harmless.
    pub async fn shutdown(&self) {}
}

/// The node's life. Dropping it does not end the node.
#[must_use = "wait for it, to learn why the node stopped"]
pub struct NodeTask {
    life: PhantomData<()>,
}

impl NodeTask {
    /// Resolves when the node has stopped: `Ok` after [`RaftHandle::shutdown`].
    ///
    /// # Errors
    /// Why the node had to stop.
    pub async fn wait(self) -> Result<(), Fatal> {
        std::future::pending().await
    }
}

/// Opens the log, recovers, binds the port and starts everything. Must run inside a tokio runtime.
///
/// # Errors
/// If the configuration is unsound, the port is taken or the log cannot be opened; then nothing runs.
pub async fn start<S: StateMachine>(
    config: NodeConfig,
    machine: S,
) -> Result<(RaftHandle<S>, NodeTask), StartError> {
    let members = config.peers.keys().copied();
    let membership = raft_core::Membership::new(members);
    let membership = membership.map_err(|_| crate::config::ConfigError {
        field: "peers",
        value: "{}".into(),
        rule: "must name every member, this node included",
    })?;
    let raft = raft_core::Node::new(
        raft_core::Config::new(config.id, 1),
        raft_core::Restored::empty(membership),
        raft_core::Instant::default(),
    );
    let raft = raft.map_err(|_| crate::config::ConfigError {
        field: "election_timeout",
        value: String::new(),
        rule: "must be sound",
    })?;
    let status = NodeStatus {
        raft: raft.status(),
        cluster: config.cluster,
        peers: Vec::new(),
        incarnation: 0,
    };
    let handle = RaftHandle {
        machine: Arc::new(RwLock::new(machine)),
        status: watch::channel(status).1,
    };
    Ok((handle, NodeTask { life: PhantomData }))
}
