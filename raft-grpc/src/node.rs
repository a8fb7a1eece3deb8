//! Starting a node, and ending it in order.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use raft_core::{
    Incarnation, LogIndex, LogPosition, Membership, Node, NodeId, Payload, Restored, Snapshot,
};
use raft_wal::{Completion, OpenError, Opened, SnapshotStore, Wal, WalConfig};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use crate::address_book::{AddressBook, Entry};
use crate::apply::{Applier, ApplyQueue, Machine, restore};
use crate::config::{ConfigError, NodeConfig};
use crate::connect::{
    CONNECTION_WINDOW_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MESSAGE_BYTES_MAX,
    STREAM_WINDOW_BYTES, random,
};
use crate::driver::{Clock, Driver, State, wall_clock};
use crate::error::{Fatal, StartError};
use crate::forward::Forwarders;
use crate::handle::{RaftHandle, Shared};
use crate::handshake::{Identity, Visitors};
use crate::inbox::{Read, Senders, inbox};
use crate::listener::{self, ACCEPTED_MAX};
use crate::meters::Doors;
use crate::orders::Orders;
use crate::peer::Links;
use crate::pending::Proposal;
use crate::queue::Sender;
use crate::requests::Requests;
use crate::security::Security;
use crate::service::Service;
use crate::snapshots::{NewsSender, Snapshots};
use crate::state_machine::StateMachine;
use crate::status::{Published, Publisher};
use crate::throttle::Throttle;
use crate::wire::raft_server::RaftServer;

/// How long the streams to other nodes have to end when the node has.
const STREAMS_GRACE: Duration = Duration::from_secs(1);

/// How many streams one connection may have open; a peer needs two.
const STREAMS_PER_CONNECTION_MAX: u32 = 16;

/// The node's life. Dropping it does not end the node.
#[derive(Debug)]
#[must_use = "wait for it, to learn why the node stopped"]
pub struct NodeTask {
    life: JoinHandle<Result<(), Fatal>>,
}

impl NodeTask {
    /// Resolves when the node has stopped: `Ok` after [`RaftHandle::shutdown`].
    ///
    /// # Errors
    /// Why the node had to stop.
    pub async fn wait(self) -> Result<(), Fatal> {
        match self.life.await {
            Ok(end) => end,
            Err(error) if error.is_panic() => Err(Fatal::Bug),
            Err(_cancelled) => Ok(()), // The runtime is being shut down.
        }
    }
}

/// Opens the log, recovers, binds the port and starts everything. Must run inside a tokio runtime
/// with time and I/O enabled.
///
/// # Errors
/// If the configuration is unsound, the log cannot be opened or the port is taken; then nothing
/// runs.
pub async fn start<S: StateMachine>(
    config: NodeConfig,
    machine: S,
) -> Result<(RaftHandle<S>, NodeTask), StartError> {
    launch(config, None, machine, Box::new(Wal::open)).await
}

/// [`start`] on a port that is bound already, instead of on [`NodeConfig::listen`]: for tests,
/// which must know the ports of all nodes before the first one starts, and for sockets handed down
/// by a supervisor.
///
/// # Errors
/// As [`start`].
pub async fn start_on<S: StateMachine>(
    listener: TcpListener,
    config: NodeConfig,
    machine: S,
) -> Result<(RaftHandle<S>, NodeTask), StartError> {
    launch(config, Some(listener), machine, Box::new(Wal::open)).await
}

/// Opens a log: on the file system, or in tests on a disk that fails.
type OpenLog = Box<dyn FnOnce(WalConfig, OnCompletion) -> Result<Opened, OpenError> + Send>;

/// What the log's thread calls.
type OnCompletion = Box<dyn FnMut(Completion) + Send>;

async fn launch<S: StateMachine>(
    mut config: NodeConfig,
    bound: Option<TcpListener>,
    machine: S,
    open: OpenLog,
) -> Result<(RaftHandle<S>, NodeTask), StartError> {
    let security = check(&mut config, bound.as_ref())?;
    let clock = Clock::start();
    let draining = CancellationToken::new();
    let (applied, watch_applied) = watch::channel(LogIndex::default());
    let (senders, inbox) = inbox(watch_applied, draining.clone());
    let opened = open_log(&config, open, senders.completions.clone()).await?;
    let Opened { wal, restored, identity, report } = opened;
    tracing::info!(node = %config.id, dir = %config.data_dir.display(), "recovered: {report:?}");
    let (members_index, members) = members_of(&restored);
    tell_members(&config, &members);
    let (lost, snapshot) = (restored.lost, restored.snapshot.clone());
    let node = Node::new(config.raft(random()), restored, clock.now())?;
    let (local_addr, listener) = listen(&config, bound)
        .map_err(|source| StartError::Listen { address: config.listen, source })?;
    let stages = Stages::start(&config, machine, wal.snapshots(), snapshot, applied, &senders.news);
    let Stages { machine, base, apply, snapshots } = stages.await?;

    // From here on nothing fails.
    tracing::info!(node = %config.id, cluster = config.cluster, "listening on {local_addr}");
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let incarnation = identity.incarnation;
    let identity = introduce(&config, security, incarnation, members.clone(), members_index);
    let network = Network::start(&config, &identity, &members, senders, listener, &tasks, &stop);
    let Network { links, forwarders, proposals, reads, orders } = network;
    let (publisher, published) = Publisher::new(&identity, &node, &links, &wal, lost);
    let Published { status, leadership, events } = published;
    let requests = Arc::new(Requests {
        id: config.id,
        proposals,
        reads,
        forwarders,
        leadership,
        command_bytes_max: config.command_bytes_max,
        draining: draining.clone(),
        in_flight: AtomicUsize::new(0),
        doors: Doors::new(),
    });
    let driver_identity = Arc::clone(&identity);
    let driver = Driver {
        inbox,
        node,
        clock,
        wal,
        apply,
        snapshots,
        identity,
        links,
        publisher,
        requests: Arc::clone(&requests),
        shutdown_grace: config.shutdown_grace,
        nonsense: Throttle::new(Duration::from_secs(1)),
        state: State::starting_at(base, config.segment_bytes),
    };
    let stopped = CancellationToken::new();
    let ending = Ending { draining: draining.clone(), tasks, stop, stopped: stopped.clone() };
    let life = tokio::spawn(ending.supervise(tokio::spawn(driver.run())));
    let shared = Shared {
        machine,
        requests,
        orders,
        identity: driver_identity,
        status,
        events,
        local_addr,
        request_timeout: config.request_timeout,
        draining,
        stopped,
    };
    Ok((RaftHandle::new(shared), NodeTask { life }))
}

/// Before anything is touched: is the configuration sound, also with the port that is bound already, and can the
/// files for TLS be used?
fn check(config: &mut NodeConfig, bound: Option<&TcpListener>) -> Result<Security, StartError> {
    if let Some(address) = bound.and_then(|bound| bound.local_addr().ok()) {
        config.listen = address;
    }
    config.validate()?;
    let security = Security::open(config)?;
    config.security.warn(config.id);
    Ok(security)
}

/// What is behind the log: the state machine, and its snapshots.
struct Stages<S> {
    machine: Arc<RwLock<Machine<S>>>,
    /// What the state machine reflects.
    base: LogIndex,
    apply: ApplyQueue,
    snapshots: Snapshots,
}

impl<S: StateMachine> Stages<S> {
    async fn start(
        config: &NodeConfig,
        machine: S,
        store: &SnapshotStore,
        snapshot: Option<Snapshot>,
        applied: watch::Sender<LogIndex>,
        news: &NewsSender,
    ) -> Result<Self, StartError> {
        let machine = from_snapshot(machine, store.clone(), snapshot).await?;
        let base = machine.applied.index;
        let machine = Arc::new(RwLock::new(machine));
        let (id, pace) = (config.id, config.snapshot_bytes_per_second_max);
        let applier = Applier { id, machine: Arc::clone(&machine), applied, news: news.clone() };
        let apply = applier.spawn().map_err(StartError::Thread)?;
        let snapshots = Snapshots::start(id, store.clone(), news.clone(), pace);
        let snapshots = snapshots.map_err(StartError::Thread)?;
        Ok(Self { machine, base, apply, snapshots })
    }
}

/// What the others are told about this node, and what it knows about them.
fn introduce(
    config: &NodeConfig,
    security: Security,
    incarnation: u128,
    members: Membership,
    members_index: LogIndex,
) -> Arc<Identity> {
    let entry = Entry {
        address: config.own_address().cloned().unwrap_or_default(),
        note: config.note.clone(),
        ..Entry::default()
    };
    // Who is not told to advertise itself is where the others' configurations say.
    let now = config.advertise.as_ref().map(|_| wall_clock().0);
    let book = AddressBook::open(&config.data_dir, config.id, entry, &config.peers, now);
    let cluster = config.cluster.clone();
    let (id, index) = (config.id, members_index);
    Arc::new(Identity::new(cluster, id, incarnation, book, security, members, index))
}

/// The state machine as of the snapshot that the node starts from, if there is one.
async fn from_snapshot<S: StateMachine>(
    state: S,
    store: SnapshotStore,
    snapshot: Option<Snapshot>,
) -> Result<Machine<S>, StartError> {
    let Some(snapshot) = snapshot else {
        return Ok(Machine { state, applied: LogPosition::ZERO });
    };
    let applied = snapshot.base.position;
    let restored =
        tokio::task::spawn_blocking(move || restore(&state, &store, &snapshot, None)).await;
    let restored = restored.map_err(|error| StartError::Thread(std::io::Error::other(error)))?;
    Ok(Machine { state: restored.map_err(StartError::Snapshot)?, applied })
}

/// The members of the cluster as of the end of the log, and the index of the entry that says so.
fn members_of(restored: &Restored) -> (LogIndex, Membership) {
    let latest = restored.entries.iter().rev().find_map(|entry| match &entry.payload {
        Payload::Membership(membership) => Some((entry.index, membership.clone())),
        Payload::Noop | Payload::Command(_) => None,
    });
    let base = || (restored.base.membership_index, restored.base.membership.clone());
    latest.unwrap_or_else(base)
}

/// The log knows the members of its cluster, and so do the others. A list of peers cannot change them: whoever
/// believes that it can should hear of it.
fn tell_members(config: &NodeConfig, members: &Membership) {
    let configured: Vec<NodeId> = config.first_members().collect();
    if !members.nodes().eq(configured.iter().copied()) {
        let configured: Vec<String> = configured.iter().map(ToString::to_string).collect();
        let configured = configured.join(" ");
        tracing::info!(
            node = %config.id,
            "the members are {members}, as the log says; peers names {configured}, of which only the addresses count"
        );
    }
}

fn configured_members(config: &NodeConfig) -> Result<Membership, StartError> {
    let members = Membership::new(config.first_members());
    Ok(members.map_err(|_| ConfigError {
        field: "peers",
        value: "{}".into(),
        rule: "must name every member, this node included",
    })?)
}

/// Opens the log, whose receipts go into the inbox. Recovery reads it all, so it gets a thread.
async fn open_log(
    config: &NodeConfig,
    open: OpenLog,
    completions: mpsc::Sender<Completion>,
) -> Result<Opened, StartError> {
    let membership = configured_members(config)?;
    let mut wal = WalConfig::new(&config.data_dir, &config.cluster, config.id, membership);
    wal.segment_bytes = config.segment_bytes;
    wal.scrub_interval = config.scrub_interval;
    wal.accept_data_loss = config.accept_data_loss;
    wal.first_incarnation = Incarnation(wall_clock().0 / 1000);
    let on_completion = Box::new(move |completion| {
        // Waits when the queue is full; fails when the driver has ended, and nobody cares.
        let _ = completions.blocking_send(completion);
    });
    let opened = tokio::task::spawn_blocking(move || open(wal, on_completion)).await;
    let opened = opened.map_err(|error| StartError::Thread(std::io::Error::other(error)))?;
    Ok(opened?)
}

/// The bound port, and where it is.
fn listen(
    config: &NodeConfig,
    bound: Option<TcpListener>,
) -> std::io::Result<(SocketAddr, tokio::net::TcpListener)> {
    let listener = match bound {
        Some(bound) => bound,
        None => TcpListener::bind(config.listen)?,
    };
    listener.set_nonblocking(true)?;
    Ok((listener.local_addr()?, tokio::net::TcpListener::from_std(listener)?))
}

/// Everything between this node and the others.
struct Network {
    links: Arc<Links>,
    forwarders: Forwarders,
    proposals: Sender<Proposal>,
    reads: mpsc::Sender<Read>,
    orders: Orders,
}

impl Network {
    /// Starts the tasks that call the others, and those that are called by them.
    fn start(
        config: &NodeConfig,
        identity: &Arc<Identity>,
        members: &Membership,
        senders: Senders,
        listener: tokio::net::TcpListener,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let links = Links::start(identity, members, tasks, stop);
        let forwarders = Forwarders::new(identity, tasks, stop);
        let Senders { completions: _, frames, proposals, reads, news: _, orders } = senders;
        let orders = Orders::new(orders);
        let service = Service {
            identity: Arc::clone(identity),
            visitors: Arc::new(Visitors::default()),
            links: Arc::clone(&links),
            frames,
            proposals: proposals.clone(),
            orders: orders.clone(),
            command_bytes_max: config.command_bytes_max,
            tasks: tasks.clone(),
            stop: stop.clone(),
            throttle: Arc::new(Throttle::new(Duration::from_secs(1))),
        };
        serve(service, listener, tasks, stop);
        Self { links, forwarders, proposals, reads, orders }
    }
}

/// Starts the tasks that accept connections and serve them.
fn serve(
    service: Service,
    listener: tokio::net::TcpListener,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let (accepted, connections) = mpsc::channel(ACCEPTED_MAX);
    let node = service.identity.id;
    let security = service.identity.security.clone();
    if let Security::Tls(rotation) = &security {
        tasks.spawn(Arc::clone(rotation).follow(stop.clone()));
    }
    tasks.spawn(listener::accept(node, listener, security, accepted, stop.clone()));
    let service = RaftServer::new(service);
    let service = service.max_decoding_message_size(MESSAGE_BYTES_MAX);
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
    let connections = ReceiverStream::new(connections);
    let stop = stop.clone().cancelled_owned();
    let serving = server.serve_with_incoming_shutdown(service, connections, stop);
    tasks.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%node, "the server for peers ended: {error}");
        }
    });
}

/// What is to be ended, in order.
struct Ending {
    draining: CancellationToken,
    tasks: TaskTracker,
    stop: CancellationToken,
    stopped: CancellationToken,
}

impl Ending {
    /// Waits for the driver, which ends by itself when it has drained, then ends the rest.
    async fn supervise(self, driver: JoinHandle<Result<(), Fatal>>) -> Result<(), Fatal> {
        // Whoever waits for the end must not wait for ever, even if this task is dropped.
        let _stopped = self.stopped.drop_guard();
        let end = match driver.await {
            Ok(end) => end,
            Err(error) if error.is_panic() => Err(Fatal::Bug),
            Err(_cancelled) => Ok(()),
        };
        self.draining.cancel();
        self.stop.cancel();
        self.tasks.close();
        // A peer that does not let go is left to its keepalive.
        let _ = tokio::time::timeout(STREAMS_GRACE, self.tasks.wait()).await;
        end
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
