//! Outgoing Raft messages: a bounded queue and a long-lived stream per peer. A slow or dead
//! peer fills its own queue and nobody else's; what does not fit is dropped, because Raft sends
//! again what matters and nothing is more useless than an old heartbeat.
//!
//! Pieces of snapshots have a queue and a connection of their own, as long as there are any, so that
//! heartbeats and votes never wait behind them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use metrics::Counter;
use raft_core::{Envelope, Membership, Message, NodeId};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::Streaming;

use crate::connect::{Backoff, FRAME_BYTES_TARGET, LinkError, LinkReport, connect, in_time};
use crate::handshake::Identity;
use crate::meters::dropped_messages;
use crate::queue::{Receiver, Sender, Weigh, queue};
use crate::status::PeerLink;
use crate::wire;
use crate::wire::peer_reply::Content as Reply;
use crate::wire::peer_request::Content as Request;

/// How many messages may wait for one peer, and how many bytes of them: twice what raft-core lets
/// be under way to it without an answer.
const QUEUE_MESSAGES_MAX: usize = 1024;
const QUEUE_BYTES_MAX: u64 = 16 << 20;

/// How many pieces of snapshots may wait for one peer. It asks for one at a time; if it asks again, it has
/// given up the last one.
const PIECES_MAX: usize = 4;
const PIECES_BYTES_MAX: u64 = 8 << 20;

/// How long the connection for pieces of snapshots is kept without any.
const PIECES_IDLE: Duration = Duration::from_secs(10);

/// What a message is taken to cost besides its entries or its chunk of a snapshot.
const MESSAGE_OVERHEAD_BYTES: u64 = 64;

/// How long the link to a node is kept that is no member (any more, or as far as this node knows), and says
/// nothing: it may still have to learn that, or this node that it is one.
const FORMER_MEMBER_KEPT: Duration = Duration::from_secs(10);

/// The outgoing links of a node.
#[derive(Debug)]
pub(crate) struct Links {
    identity: Arc<Identity>,
    tasks: TaskTracker,
    stop: CancellationToken,
    links: RwLock<BTreeMap<NodeId, Link>>,
}

#[derive(Debug)]
struct Link {
    queue: Sender<Envelope>,
    pieces: Sender<Envelope>,
    state: Arc<LinkState>,
    /// Since when the node is no member.
    former_since: Option<Instant>,
    /// Ends its tasks when it is dropped.
    _stop: DropGuard,
}

#[derive(Debug)]
struct LinkState {
    connected: AtomicBool,
    dropped: AtomicU64,
    dropped_meter: Counter,
    /// The peer has said something lately.
    heard: AtomicBool,
    /// The peer has shown that it is alive: do not wait for the next attempt.
    wake: Notify,
}

impl LinkState {
    fn new(peer: NodeId) -> Self {
        Self {
            connected: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            dropped_meter: dropped_messages(peer),
            heard: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.dropped_meter.increment(1);
    }
}

impl Links {
    /// Links to these members. Their tasks are among `tasks`, and end with `stop`.
    pub(crate) fn start(
        identity: &Arc<Identity>,
        membership: &Membership,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let links = Self {
            identity: Arc::clone(identity),
            tasks: tasks.clone(),
            stop: stop.clone(),
            links: RwLock::default(),
        };
        links.follow(membership);
        Arc::new(links)
    }

    fn links(&self) -> RwLockReadGuard<'_, BTreeMap<NodeId, Link>> {
        // Whole after every statement: a panic elsewhere changes nothing.
        self.links.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn links_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<NodeId, Link>> {
        self.links.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// There are links to all of these from now on, and, after a while, to no others. Who is no member itself
    /// calls nobody but who has called.
    pub(crate) fn follow(&self, membership: &Membership) {
        let own = self.identity.id;
        let is_peer = |id: NodeId| id != own && membership.contains(own) && membership.contains(id);
        let mut links = self.links_mut();
        for id in membership.nodes().filter(|&id| is_peer(id)) {
            links.entry(id).or_insert_with(|| self.link(id));
        }
        let now = Instant::now();
        for (&id, link) in links.iter_mut() {
            let speaks = link.state.heard.swap(false, Ordering::Relaxed);
            let since = link.former_since.filter(|_| !speaks).unwrap_or(now);
            link.former_since = (!is_peer(id)).then_some(since);
        }
        links.retain(|_, link| {
            link.former_since.is_none_or(|since| now < since + FORMER_MEMBER_KEPT)
        });
    }

    fn link(&self, peer: NodeId) -> Link {
        let state = Arc::new(LinkState::new(peer));
        let stop = self.stop.child_token();
        let task = |queue| LinkTask {
            identity: Arc::clone(&self.identity),
            peer,
            queue,
            state: Arc::clone(&state),
            backoff: Backoff::new(),
            report: LinkReport::new(self.identity.id, peer),
        };
        let (sender, messages) = queue(QUEUE_MESSAGES_MAX, QUEUE_BYTES_MAX);
        self.tasks.spawn(task(messages).run(stop.clone()));
        let (pieces, waiting) = queue(PIECES_MAX, PIECES_BYTES_MAX);
        self.tasks.spawn(task(waiting).run_for_pieces(stop.clone()));
        let _stop = stop.drop_guard();
        Link { queue: sender, pieces, state, former_since: None, _stop }
    }

    /// Queues a message, or drops it. Never waits.
    pub(crate) fn send(&self, envelope: Envelope) {
        let links = self.links();
        let Some(link) = links.get(&envelope.to) else {
            return tracing::debug!("there is no link to {}", envelope.to);
        };
        let is_piece = matches!(envelope.message, Message::SnapshotChunk { .. });
        let connected = link.state.connected.load(Ordering::Relaxed);
        let queue = if is_piece { &link.pieces } else { &link.queue };
        if !connected || queue.try_send(envelope).is_err() {
            link.state.drop_one();
        }
    }

    /// The peer is alive, it has called: call it back now. It was let in, so it may be a member of which this
    /// node is about to learn.
    pub(crate) fn wake(&self, peer: NodeId) {
        if let Some(link) = self.links_mut().get_mut(&peer) {
            if link.former_since.is_some() {
                link.former_since = Some(Instant::now());
            }
            return link.state.wake.notify_one();
        }
        let new = || Link { former_since: Some(Instant::now()), ..self.link(peer) };
        self.links_mut().entry(peer).or_insert_with(new);
    }

    /// The peer goes on talking to this node, which may be about to learn that it is a member.
    pub(crate) fn heard(&self, peer: NodeId) {
        if let Some(link) = self.links().get(&peer) {
            link.state.heard.store(true, Ordering::Relaxed);
        }
    }

    /// All links, in order of the ids.
    pub(crate) fn statuses(&self) -> Vec<PeerLink> {
        let status = |(&id, link): (&NodeId, &Link)| {
            let known = self.identity.book.get(id).unwrap_or_default();
            PeerLink {
                id,
                address: known.address,
                note: known.note,
                connected: link.state.connected.load(Ordering::Relaxed),
                dropped: link.state.dropped.load(Ordering::Relaxed),
            }
        };
        self.links().iter().map(status).collect()
    }
}

impl Weigh for Envelope {
    fn size_bytes(&self) -> u64 {
        let bulk = match &self.message {
            Message::AppendEntries { entries, .. } => {
                entries.iter().map(raft_core::Entry::size_bytes).sum()
            }
            Message::SnapshotChunk { bytes: Some(bytes), .. } => bytes.len() as u64,
            _ => 0,
        };
        MESSAGE_OVERHEAD_BYTES + bulk
    }
}

/// Where requests go in, and replies come out.
type Stream = (mpsc::Sender<wire::PeerRequest>, Streaming<wire::PeerReply>);

/// The task of one link.
struct LinkTask {
    identity: Arc<Identity>,
    peer: NodeId,
    queue: Receiver<Envelope>,
    state: Arc<LinkState>,
    backoff: Backoff,
    report: LinkReport,
}

impl LinkTask {
    async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                let Err(why) = self.connect_and_send().await;
                self.state.connected.store(false, Ordering::Relaxed);
                self.discard_queue();
                self.report.lost(&why);
                let pause = tokio::time::sleep(self.backoff.next_pause());
                tokio::select! {
                    () = pause => {}
                    () = self.state.wake.notified() => {}
                }
            }
        })
        .await;
        self.state.connected.store(false, Ordering::Relaxed);
    }

    /// The same for pieces of snapshots: connects when there is one, and not for ever.
    async fn run_for_pieces(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            while let Some(first) = self.queue.recv().await {
                let (peer, node) = (self.peer, self.identity.id);
                match self.connect_and_send_pieces(first).await {
                    Ok(()) => tracing::debug!(%node, "no snapshot for {peer} any more"),
                    Err(why) => {
                        tracing::debug!(%node, "a snapshot for {peer} is interrupted: {why}");
                        self.discard_queue();
                        tokio::time::sleep(self.backoff.next_pause()).await;
                    }
                }
            }
        })
        .await;
    }

    async fn connect_and_send_pieces(&mut self, first: Envelope) -> Result<(), LinkError> {
        let (requests, mut replies) = self.connect().await?;
        self.backoff.reset();
        let mut next = Some(first);
        while let Some(piece) = next {
            let envelopes = vec![piece.into()];
            let frame = request(Request::Frame(wire::Frame { envelopes }));
            let sent = unless_ended(&mut replies, requests.send(frame)).await?;
            sent.map_err(|_| LinkError::Closed)?;
            let waiting = tokio::time::timeout(PIECES_IDLE, self.queue.recv());
            next = unless_ended(&mut replies, waiting).await?.ok().flatten();
        }
        Ok(())
    }

    /// One connection, from the greeting to its end.
    async fn connect_and_send(&mut self) -> Result<std::convert::Infallible, LinkError> {
        let mut news = self.identity.book.watch();
        let (requests, mut replies) = self.connect().await?;
        self.backoff.reset();
        self.report.connected();
        self.state.connected.store(true, Ordering::Relaxed);
        loop {
            // A message is only taken from the queue when the stream has room for it.
            let next = async {
                let room = requests.reserve().await.map_err(|_| LinkError::Closed)?;
                let first = tokio::select! {
                    first = self.queue.recv() => Some(first.ok_or(LinkError::Closed)?),
                    _ = news.changed() => None,
                };
                Ok::<_, LinkError>((room, first))
            };
            let (room, first) = unless_ended(&mut replies, next).await??;
            let content = match first {
                Some(first) => Request::Frame(self.fill_frame(first)),
                None => {
                    let members = self.identity.book.to_wire();
                    Request::Addresses(wire::Addresses { members })
                }
            };
            room.send(request(content));
        }
    }

    /// A connection on which the peer has let this node in.
    async fn connect(&mut self) -> Result<Stream, LinkError> {
        let known = self.identity.book.get(self.peer);
        self.report.address = known.ok_or(LinkError::NoAddress)?.address;
        let mut client = connect(&self.identity, self.peer).await?;
        let (requests, outgoing) = mpsc::channel(1);
        let hello = Request::Hello(self.identity.hello(self.peer));
        // The queue is empty: there is room.
        let _ = requests.send(request(hello)).await;
        let replies = in_time(async {
            let replies = client.peer(ReceiverStream::new(outgoing)).await?;
            let mut replies = replies.into_inner();
            self.receive_welcome(&mut replies).await?;
            Ok(replies)
        })
        .await?;
        Ok((requests, replies))
    }

    async fn receive_welcome(
        &self,
        replies: &mut Streaming<wire::PeerReply>,
    ) -> Result<(), LinkError> {
        let reply = replies.message().await?.and_then(|reply| reply.content);
        let welcome = reply.map(|Reply::Welcome(welcome)| welcome);
        let checked = self.identity.check_welcome(welcome, self.peer);
        checked.map_err(LinkError::Refused)
    }

    /// Everything that waits travels in one frame, up to its limit.
    fn fill_frame(&mut self, first: Envelope) -> wire::Frame {
        let mut envelopes = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(envelope) = next {
            bytes += envelope.size_bytes();
            envelopes.push(envelope.into());
            let full = bytes >= FRAME_BYTES_TARGET;
            next = if full { None } else { self.queue.try_recv() };
        }
        wire::Frame { envelopes }
    }

    /// What waited for a connection that is gone is old news.
    fn discard_queue(&mut self) {
        while self.queue.try_recv().is_some() {
            self.state.drop_one();
        }
    }
}

/// What comes first: that, or the end of the stream.
async fn unless_ended<T>(
    replies: &mut Streaming<wire::PeerReply>,
    next: impl Future<Output = T>,
) -> Result<T, LinkError> {
    tokio::select! {
        end = replies.message() => {
            end?;
            Err(LinkError::Closed)
        }
        next = next => Ok(next),
    }
}

fn request(content: Request) -> wire::PeerRequest {
    let content = Some(content);
    wire::PeerRequest { content }
}
