//! `leaderboard node`: one member of the cluster, its replicated state and its HTTP interface.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use raft_grpc::{Fatal, NodeConfig, NodeId, NodeTask, RaftHandle, RoleKind, StartError};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::leaderboard::Leaderboard;
use crate::rest::server::{self, Limits};
use crate::rest::{Api, Rest, metrics};

mod args;
pub(crate) mod note;

pub use args::NodeArgs;
pub(crate) use args::node_id;

/// How a node runs.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The Raft side.
    pub raft: NodeConfig,
    /// Where clients connect; port 0 takes a free port.
    pub http: SocketAddr,
    /// Where members answer HTTP that do not tell it, for `GET /v1/cluster`; this node knows its own.
    pub http_peers: BTreeMap<NodeId, String>,
    /// Where clients reach this node, which it tells the others, if its Raft address too is
    /// [advertised](NodeConfig::advertise). Where it listens unless set, if that is an address.
    pub advertise_http: Option<String>,
    /// How many clients may be connected at once; more wait. 1,024 unless set.
    pub connections_max: usize,
    /// How long a client may take to send the head of a request, and be idle between two; 30 s unless
    /// set.
    pub head_timeout: Duration,
    /// How long requests under way may take when the node stops; 5 s unless set.
    pub drain_timeout: Duration,
}

/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// How long a leader that stops waits for another node to take over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);

impl NodeSettings {
    /// The node of `raft` that answers HTTP at `http`, everything else at its default.
    #[must_use]
    pub const fn new(raft: NodeConfig, http: SocketAddr) -> Self {
        Self {
            raft,
            http,
            http_peers: BTreeMap::new(),
            advertise_http: None,
            connections_max: 1024,
            head_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// Why a node did not start, or stopped without being asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The options contradict each other.
    #[error("{0}")]
    Usage(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; free the port or choose another with --http")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The Raft node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The Raft node had to stop.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// A running node. Dropping it does not stop it: [`Node::stop`] does.
pub struct Node {
    address: SocketAddr,
    raft: RaftHandle<Leaderboard>,
    api: Arc<Api>,
    serving: JoinHandle<()>,
    stop_serving: oneshot::Sender<()>,
    life: NodeTask,
}

impl Node {
    /// Binds both ports, recovers the log and answers. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// If a port is taken, or the Raft node does not start; then nothing runs.
    pub async fn start(settings: NodeSettings) -> Result<Self, NodeError> {
        let NodeSettings { mut raft, http, mut http_peers, connections_max, head_timeout, .. } =
            settings;
        let limits = Limits {
            connections_max,
            head_timeout,
            head_bytes_max: HEAD_BYTES_MAX,
            drain_timeout: settings.drain_timeout,
        };
        metrics::collect();
        // The HTTP port first: if it is taken, the log is not even opened.
        let listen_error = |source| NodeError::Listen { address: http.to_string(), source };
        let listener = TcpListener::bind(http).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let node = raft.id;
        let own = settings.advertise_http.or_else(|| http_peers.remove(&node));
        let told = match &own {
            None if address.ip().is_unspecified() => String::new(),
            None => note::of_http(&address.to_string()),
            Some(own) => note::of_http(own),
        };
        if raft.note.is_empty() {
            raft.note = told;
        }
        http_peers.insert(node, own.unwrap_or_else(|| address.to_string()));
        let request_timeout = raft.request_timeout;
        let (raft, life) = raft_grpc::start(raft, Leaderboard::default()).await?;
        let api = Arc::new(Api {
            raft: raft.clone(),
            node,
            http_peers,
            request_timeout,
            stopping: AtomicBool::new(false),
        });
        let (stop_serving, stop) = oneshot::channel();
        let stop = async move {
            // A dropped sender leaves the node running, as documented.
            if stop.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let rest = Rest::new(Arc::clone(&api));
        let serving = tokio::spawn(server::serve(listener, rest, limits, stop));
        tracing::info!(node = node.get(), %address, "the node answers HTTP");
        Ok(Self { address, raft, api, serving, stop_serving, life })
    }

    /// Where it answers HTTP; tells the port when port 0 was asked for.
    #[must_use]
    pub const fn http_address(&self) -> SocketAddr {
        self.address
    }

    /// The Raft node beneath.
    #[must_use]
    pub const fn raft(&self) -> &RaftHandle<Leaderboard> {
        &self.raft
    }

    /// Runs until `shutdown` resolves, then stops.
    ///
    /// # Errors
    /// If the Raft node had to stop, before or while stopping.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), NodeError> {
        let Self { raft, api, serving, stop_serving, life, .. } = self;
        let mut life = std::pin::pin!(life.wait());
        let ended = tokio::select! {
            ended = &mut life => Some(ended),
            () = shutdown => None,
        };
        api.stopping.store(true, Ordering::Relaxed);
        if let Some(ended) = ended {
            // Whoever still waits has been answered; nobody new should be taken.
            serving.abort();
            return Ok(ended?);
        }
        hand_over(&raft).await;
        tracing::info!("stopping: requests under way may finish");
        // The server first: what it still has under way needs the Raft node.
        let _ = stop_serving.send(());
        let _ = serving.await;
        raft.shutdown().await;
        life.await?;
        tracing::info!("stopped");
        Ok(())
    }

    /// Stops: takes nothing new, lets requests under way finish, closes the log, releases the ports.
    ///
    /// # Errors
    /// If the Raft node had to stop instead.
    pub async fn stop(self) -> Result<(), NodeError> {
        self.run_until(std::future::ready(())).await
    }
}

/// Lets another node lead, while this one still answers: it forwards to the next leader what comes meanwhile, so
/// that nobody notices.
async fn hand_over(raft: &RaftHandle<Leaderboard>) {
    let status = raft.status().raft;
    if status.role != RoleKind::Leader || status.membership.voters().len() < 2 {
        return;
    }
    match raft.transfer_leadership(None, HAND_OVER_TIMEOUT).await {
        Ok(to) => tracing::info!("stopping: {to} leads now"),
        Err(why) => tracing::warn!("stopping without handing leadership over: {why}"),
    }
}

/// Runs the node that the options describe until `shutdown` resolves.
///
/// # Errors
/// As [`Node::start`] and [`Node::run_until`], and if the options contradict each other.
pub async fn run(args: NodeArgs, shutdown: impl Future<Output = ()>) -> Result<(), NodeError> {
    let settings = args.into_settings().await?;
    // A signal during a long recovery must not wait for its end.
    let mut shutdown = std::pin::pin!(shutdown);
    let node = tokio::select! {
        node = Node::start(settings) => node?,
        () = &mut shutdown => return Ok(()),
    };
    node.run_until(shutdown).await
}
