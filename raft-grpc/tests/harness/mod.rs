//! Clusters in one process: every node has a runtime of its own, so that it can be killed without
//! warning, and an address of its own, so that its port stays free while it is down.
#![allow(dead_code, unreachable_pub, reason = "every test file uses its part")]

pub mod certificates;
pub mod logs;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_grpc::{
    AppliedEntry, Capture, Consistency, Fatal, LogIndex, LogPosition, NodeConfig, NodeId, NodeTask,
    ProposeError, RaftHandle, RestoreError, RoleKind, StartError, StateMachine, Term,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Adds up numbers, and remembers in which order they came.
#[derive(Debug, Default)]
pub struct Counter {
    pub sum: u64,
    pub commands: u64,
    /// Changes with every command and with their order.
    pub digest: u64,
    pub last: LogPosition,
    /// So many bytes more are in its snapshots.
    pub padding: usize,
}

impl StateMachine for Counter {
    fn apply(&mut self, entry: &AppliedEntry) -> Bytes {
        let Ok(number) = <[u8; 8]>::try_from(&*entry.command) else {
            return Bytes::from_static(b"not a number");
        };
        let number = u64::from_be_bytes(number);
        assert!(entry.position > self.last, "entries come in order");
        self.last = entry.position;
        self.sum += number;
        self.commands += 1;
        let mixed = self.digest.rotate_left(7) ^ number ^ entry.timestamp.0;
        self.digest = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        number_command(self.sum)
    }

    fn snapshot(&self) -> Capture {
        let Self { sum, commands, digest, last, padding } = self;
        let numbers = [*sum, *commands, *digest, last.term.0, last.index.0];
        let padding = vec![7; *padding];
        Capture::new(move |to| {
            numbers.iter().try_for_each(|number| to.write_all(&number.to_be_bytes()))?;
            to.write_all(&padding)
        })
    }

    fn restore(&self, snapshot: &mut dyn std::io::Read) -> Result<Self, RestoreError> {
        let mut number = || {
            let mut bytes = [0; 8];
            snapshot.read_exact(&mut bytes).map(|()| u64::from_be_bytes(bytes))
        };
        let (sum, commands, digest) = (number()?, number()?, number()?);
        let last = LogPosition::new(Term(number()?), LogIndex(number()?));
        let mut padding = Vec::new();
        snapshot.read_to_end(&mut padding)?;
        Ok(Self { sum, commands, digest, last, padding: padding.len() })
    }
}

/// The command that adds `number`, which is also how the counter answers.
pub fn number_command(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

pub fn number_in(response: &Bytes) -> u64 {
    u64::from_be_bytes(response[..].try_into().expect("the counter answers with a number"))
}

pub fn id(number: usize) -> NodeId {
    NodeId::new(number as u64).expect("ids begin at 1")
}

/// An address that nobody else uses: on Linux the whole of 127/8 is this machine, elsewhere only
/// one address is, where another program may take a free port.
pub fn address() -> SocketAddr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let ip = if cfg!(target_os = "linux") {
        let number = std::process::id().wrapping_mul(251) + COUNT.fetch_add(1, Ordering::Relaxed);
        let [_, a, b, c] = number.to_be_bytes();
        Ipv4Addr::new(127, a.max(1), b, c.max(1))
    } else {
        Ipv4Addr::LOCALHOST
    };
    let listener = TcpListener::bind((ip, 0)).expect("an address of this machine");
    listener.local_addr().expect("it is bound")
}

/// A node that runs.
pub struct Running<S: StateMachine> {
    runtime: Option<Runtime>,
    pub handle: RaftHandle<S>,
    life: watch::Receiver<Option<Arc<Result<(), Fatal>>>>,
}

impl<S: StateMachine> Running<S> {
    pub fn start(config: NodeConfig, machine: S) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let started = runtime.block_on(raft_grpc::start(config, machine));
        let (handle, task): (_, NodeTask) = started?;
        let (ended, life) = watch::channel(None);
        runtime.spawn(async move { ended.send(Some(Arc::new(task.wait().await))) });
        let runtime = Some(runtime);
        Ok(Self { runtime, handle, life })
    }

    /// Waits for the end of the node's life.
    pub async fn life_end(&self) -> Arc<Result<(), Fatal>> {
        let mut life = self.life.clone();
        let ended = life.wait_for(Option::is_some).await.expect("the runtime lives");
        ended.clone().expect("it was waited for")
    }

    /// Ends everything that the node does, in the middle of it.
    pub fn kill(mut self) {
        self.stop_runtime();
    }

    fn stop_runtime(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }
}

impl<S: StateMachine> Drop for Running<S> {
    fn drop(&mut self) {
        self.stop_runtime();
    }
}

/// A few nodes with counters.
pub struct Cluster {
    pub dir: TempDir,
    pub configs: Vec<NodeConfig>,
    /// So many bytes more are in the snapshots of nodes that start from now on.
    pub padding: usize,
    nodes: Vec<Option<Running<Counter>>>,
    runtime: Runtime,
}

impl Cluster {
    /// The nodes 1 to `size`, not running yet.
    pub fn new(size: usize) -> Self {
        logs::capture();
        let dir = tempfile::tempdir().expect("a directory");
        let addresses: Vec<SocketAddr> = (0..size).map(|_| address()).collect();
        let peers: BTreeMap<NodeId, String> = (1..)
            .zip(&addresses)
            .map(|(number, address)| (id(number), address.to_string()))
            .collect();
        let configs = (1..).zip(&addresses).map(|(number, &address)| {
            let data_dir = dir.path().join(format!("n{number}"));
            NodeConfig::new("test", id(number), data_dir, address, peers.clone())
        });
        let configs = configs.collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self {
            dir,
            configs,
            padding: 0,
            nodes: (0..size).map(|_| None).collect(),
            runtime: runtime.expect("a runtime"),
        }
    }

    /// Another node, not running yet; its number is the next one.
    pub fn add(&mut self, config: NodeConfig) {
        self.configs.push(config);
        self.nodes.push(None);
    }

    pub fn started(size: usize) -> Self {
        let mut cluster = Self::new(size);
        for number in 1..=size {
            cluster.start(number);
        }
        cluster
    }

    pub fn start(&mut self, number: usize) {
        let config = self.configs[number - 1].clone();
        let node = Running::start(config, Counter { padding: self.padding, ..Counter::default() })
            .expect("the node starts");
        self.nodes[number - 1] = Some(node);
    }

    pub fn kill(&mut self, number: usize) {
        self.take(number).kill();
    }

    pub fn take(&mut self, number: usize) -> Running<Counter> {
        self.nodes[number - 1].take().expect("it runs")
    }

    pub fn handle(&self, number: usize) -> RaftHandle<Counter> {
        self.nodes[number - 1].as_ref().expect("it runs").handle.clone()
    }

    /// The numbers of the nodes that run.
    pub fn running(&self) -> Vec<usize> {
        let numbers = 1..=self.nodes.len();
        numbers.filter(|&number| self.nodes[number - 1].is_some()).collect()
    }

    /// Does something from outside of all nodes.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            let within = tokio::time::timeout(PATIENCE, future).await;
            within.expect("it ends in time")
        })
    }

    pub fn propose(&self, number: usize, addend: u64) -> Result<u64, ProposeError> {
        let handle = self.handle(number);
        let applied = self.block_on(handle.propose(number_command(addend)))?;
        Ok(number_in(&applied.response))
    }

    /// Waits for a leader that itself and all other members that run agree on.
    pub fn leader(&self) -> usize {
        wait_for("a leader that all agree on", || {
            let statuses =
                self.running().into_iter().map(|number| self.handle(number).status().raft);
            let statuses: Vec<_> = statuses.collect();
            let leader = statuses.iter().find(|status| status.role == RoleKind::Leader)?;
            let members = statuses.iter().filter(|it| leader.membership.contains(it.id));
            let mut members = members.peekable();
            members.peek()?;
            let agreed = members
                .all(|status| status.leader == Some(leader.id) && status.term == leader.term);
            agreed.then(|| usize::try_from(leader.id.get()).expect("a small number"))
        })
    }

    /// A node that runs and does not lead.
    pub fn follower(&self) -> usize {
        let leader = self.leader();
        let mut followers = self.running().into_iter().filter(|&number| number != leader);
        followers.next().expect("more than one runs")
    }

    /// Waits until all that run have the same state, and gives its sum and its number of commands.
    pub fn agreed_state(&self) -> (u64, u64) {
        let running = self.running();
        let leader = self.handle(self.leader());
        let index = self.block_on(async {
            let read = leader.read(Consistency::Linearizable).await;
            read.expect("the leader serves reads").applied().index
        });
        let states = running.iter().map(|&number| {
            let handle = self.handle(number);
            self.block_on(async {
                let read = handle.read(Consistency::AtLeast(index)).await.expect("it catches up");
                // Nobody proposes any more. Behind `index` there may be what a new leader begins
                // its term with, of which the state knows nothing.
                (read.sum, read.commands, read.digest)
            })
        });
        let states: Vec<_> = states.collect();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "they differ: {states:?}");
        (states[0].0, states[0].1)
    }
}

/// Looks again and again until there is something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
