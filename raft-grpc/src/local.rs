//! A whole cluster in one process, on the loopback interface: for tests of a state machine, for examples, and
//! to try things out. The nodes are the real ones, with real logs and real connections.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use raft_core::{NodeId, RoleKind};

use crate::config::NodeConfig;
use crate::error::{Fatal, StartError};
use crate::handle::RaftHandle;
use crate::node::{NodeTask, start};
use crate::state_machine::StateMachine;

/// How often one looks who leads.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Nodes of one cluster that run in this process.
///
/// ```
/// # use bytes::Bytes;
/// # use raft_grpc::*;
/// # #[derive(Default)]
/// # struct Register(Bytes);
/// # impl StateMachine for Register {
/// #     fn apply(&mut self, entry: &AppliedEntry) -> Bytes {
/// #         std::mem::replace(&mut self.0, entry.command.clone())
/// #     }
/// #     fn snapshot(&self) -> Capture {
/// #         self.0.clone().into()
/// #     }
/// #     fn restore(&self, snapshot: &mut dyn std::io::Read) -> Result<Self, RestoreError> {
/// #         let mut said = Vec::new();
/// #         snapshot.read_to_end(&mut said)?;
/// #         Ok(Self(said.into()))
/// #     }
/// # }
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let mut cluster = LocalCluster::start(dir.path(), 3, |_| Register::default()).await?;
/// let [n1, n2, n3] = [1, 2, 3].map(|id| NodeId::new(id).expect("not zero"));
/// cluster.node(n1).propose("said to n1".into()).await?;
///
/// cluster.stop(n3).await?;
/// cluster.node(n2).propose("said while n3 was away".into()).await?;
/// cluster.restart(n3, Register::default()).await?;
/// let node = cluster.node(n3);
/// assert_eq!(node.read(Consistency::Linearizable).await?.0, "said while n3 was away");
/// cluster.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub struct LocalCluster<S: StateMachine> {
    members: BTreeMap<NodeId, Member<S>>,
}

struct Member<S: StateMachine> {
    config: NodeConfig,
    running: Option<(RaftHandle<S>, NodeTask)>,
}

impl<S: StateMachine> LocalCluster<S> {
    /// Starts the nodes 1 to `size`, with their data directories in `dir` and the state machines that `machine`
    /// makes. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// As [`start`](crate::start).
    ///
    /// # Panics
    /// If `size` is zero.
    pub async fn start(
        dir: impl Into<PathBuf>,
        size: u64,
        machine: impl FnMut(NodeId) -> S,
    ) -> Result<Self, StartError> {
        Self::start_with(dir, size, machine, |_| {}).await
    }

    /// The same with other settings than those of [`NodeConfig::new`].
    ///
    /// # Errors
    /// As [`start`](crate::start).
    ///
    /// # Panics
    /// If `size` is zero.
    pub async fn start_with(
        dir: impl Into<PathBuf>,
        size: u64,
        mut machine: impl FnMut(NodeId) -> S,
        mut configure: impl FnMut(&mut NodeConfig),
    ) -> Result<Self, StartError> {
        assert!(size > 0, "a cluster has at least one node");
        let dir = dir.into();
        let mut addresses = BTreeMap::new();
        for id in (1..=size).filter_map(NodeId::new) {
            addresses.insert(id, free_address()?);
        }
        let peers = addresses.iter().map(|(&id, address)| (id, address.to_string()));
        let peers: BTreeMap<NodeId, String> = peers.collect();
        let mut cluster = Self { members: BTreeMap::new() };
        for (id, address) in addresses {
            let data_dir = dir.join(id.to_string());
            let mut config = NodeConfig::new("local", id, data_dir, address, peers.clone());
            configure(&mut config);
            cluster.members.insert(id, Member { config, running: None });
            cluster.restart(id, machine(id)).await?;
        }
        Ok(cluster)
    }

    /// The handle of a node.
    ///
    /// # Panics
    /// If there is no such node, or it is stopped.
    #[must_use]
    pub fn node(&self, id: NodeId) -> RaftHandle<S> {
        self.running(id).unwrap_or_else(|| panic!("{id} does not run here")).clone()
    }

    /// The handles of all nodes that run, in the order of their ids.
    #[must_use]
    pub fn nodes(&self) -> Vec<RaftHandle<S>> {
        let running = self.members.values().filter_map(|member| member.running.as_ref());
        running.map(|(handle, _)| handle.clone()).collect()
    }

    /// The node that leads; waits for one to be elected. `None` if there is none in this time.
    pub async fn leader(&self, timeout: Duration) -> Option<RaftHandle<S>> {
        let find = async {
            loop {
                let named = self.nodes().into_iter().find_map(|node| node.status().raft.leader);
                let leader = named.and_then(|id| self.running(id));
                // It knows it itself, too.
                let leads = |it: &&RaftHandle<S>| it.status().raft.role == RoleKind::Leader;
                if let Some(leader) = leader.filter(leads) {
                    return leader.clone();
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        tokio::time::timeout(timeout, find).await.ok()
    }

    fn running(&self, id: NodeId) -> Option<&RaftHandle<S>> {
        let running = self.members.get(&id).and_then(|member| member.running.as_ref());
        running.map(|(handle, _)| handle)
    }

    /// Stops a node: it hands over, and closes its log.
    ///
    /// # Errors
    /// If it had to stop by itself, before or now.
    ///
    /// # Panics
    /// If there is no such node, or it is stopped.
    pub async fn stop(&mut self, id: NodeId) -> Result<(), Fatal> {
        let running = self.members.get_mut(&id).and_then(|member| member.running.take());
        let (handle, task) = running.unwrap_or_else(|| panic!("{id} does not run here"));
        handle.shutdown().await;
        task.wait().await
    }

    /// Starts a stopped node again, with a state machine as new as at its first start.
    ///
    /// # Errors
    /// As [`start`](crate::start).
    ///
    /// # Panics
    /// If there is no such node, or it runs.
    pub async fn restart(&mut self, id: NodeId, machine: S) -> Result<(), StartError> {
        let member = self.members.get_mut(&id).filter(|member| member.running.is_none());
        let member = member.unwrap_or_else(|| panic!("{id} is no stopped node of this cluster"));
        member.running = Some(start(member.config.clone(), machine).await?);
        Ok(())
    }

    /// Stops all nodes.
    ///
    /// # Errors
    /// The first of the reasons for which one had to stop by itself.
    pub async fn shutdown(mut self) -> Result<(), Fatal> {
        let mut end = Ok(());
        for member in self.members.values_mut() {
            if let Some((handle, task)) = member.running.take() {
                handle.shutdown().await;
                end = end.and(task.wait().await);
            }
        }
        end
    }
}

impl<S: StateMachine> std::fmt::Debug for LocalCluster<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalCluster").field("nodes", &self.nodes()).finish_non_exhaustive()
    }
}

/// An address that nobody else takes while its node is stopped: on Linux all of 127/8 is this machine. Elsewhere
/// only one address is, and another program may take the port.
fn free_address() -> Result<SocketAddr, StartError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let ip = if cfg!(target_os = "linux") {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let [_, a, b, c] = std::process::id().wrapping_mul(251).wrapping_add(count).to_be_bytes();
        Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254))
    } else {
        Ipv4Addr::LOCALHOST
    };
    let address = SocketAddr::from((ip, 0));
    let bound = TcpListener::bind(address).and_then(|listener| listener.local_addr());
    bound.map_err(|source| StartError::Listen { address, source })
}
