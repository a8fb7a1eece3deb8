//! Proposals on their way from a follower to the leader. One task and one stream per peer, opened
//! when it is first needed.
//!
//! What may have reached the leader is never sent again: when the stream breaks, everything under
//! way has an unknown outcome. What was still waiting here has certainly not been sent, and its
//! callers are told to look for the leader again.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use raft_core::NodeId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Streaming;

use crate::connect::{Backoff, FRAME_BYTES_TARGET, LinkError, connect, in_time};
use crate::convert::answer_from_wire;
use crate::error::{NotApplied, Unknown};
use crate::handshake::{Identity, Refusal};
use crate::pending::{Failure, Proposal, Waiter};
use crate::queue::{Receiver, Refused, Sender, Weigh, queue};
use crate::wire;
use crate::wire::forward_reply::Content as Reply;
use crate::wire::forward_request::Content as Request;

/// How many proposals one frame may hold.
pub(crate) const FRAME_PROPOSALS_MAX: usize = 1024;

/// How many proposals may be under way on one stream, sent and not answered.
pub(crate) const UNDER_WAY_MAX: usize = 8192;

/// How many proposals may wait for one stream, and how many bytes of them.
const QUEUE_PROPOSALS_MAX: usize = 4096;
const QUEUE_BYTES_MAX: u64 = 16 << 20;

/// The ways to the other nodes' logs, each begun when it is first needed. Who led once is a member, or was one,
/// so there are not many.
#[derive(Debug)]
pub(crate) struct Forwarders {
    identity: Arc<Identity>,
    tasks: TaskTracker,
    stop: CancellationToken,
    queues: Mutex<BTreeMap<NodeId, Sender<Proposal>>>,
}

impl Forwarders {
    /// None yet. Their tasks will be among `tasks`, and end with `stop`.
    pub(crate) fn new(
        identity: &Arc<Identity>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            identity: Arc::clone(identity),
            tasks: tasks.clone(),
            stop: stop.clone(),
            queues: Mutex::default(),
        }
    }

    fn queue_to(&self, peer: NodeId) -> Sender<Proposal> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || {
            let (sender, queue) = queue(QUEUE_PROPOSALS_MAX, QUEUE_BYTES_MAX);
            let identity = Arc::clone(&self.identity);
            let backoff = Backoff::new();
            let task = Forwarder { identity, peer, queue, last_id: 0, backoff };
            let stop = self.stop.clone();
            self.tasks.spawn(async move { stop.run_until_cancelled(task.run()).await });
            sender
        };
        queues.entry(peer).or_insert_with(start).clone()
    }

    /// Queues a proposal for `leader`.
    pub(crate) fn forward(&self, leader: NodeId, proposal: Proposal) -> Result<(), Failure> {
        if self.identity.book.get(leader).is_none() {
            return Err(Failure::NotLeader { hint: None }); // Nobody knows where that is.
        }
        let queue = self.queue_to(leader);
        queue.try_send(proposal).map_err(|refused| match refused {
            Refused::Full(_) => NotApplied::Busy.into(),
            Refused::Closed(_) => NotApplied::ShuttingDown.into(),
        })
    }
}

/// The task of one stream. Ended at any moment, it answers everything by dropping it.
struct Forwarder {
    identity: Arc<Identity>,
    peer: NodeId,
    queue: Receiver<Proposal>,
    last_id: u64,
    backoff: Backoff,
}

/// A stream that the leader has accepted.
struct Stream {
    requests: mpsc::Sender<wire::ForwardRequest>,
    replies: Streaming<wire::ForwardReply>,
}

impl Forwarder {
    async fn run(mut self) {
        let Self { peer, .. } = self;
        let node = self.identity.id;
        while let Some(first) = self.queue.recv().await {
            let mut first = Some(first);
            let mut under_way = HashMap::new();
            let connected = self.open().await;
            let is_connected = connected.is_ok();
            let Err(why) = match connected {
                Ok(stream) => self.forward(&mut first, stream, &mut under_way).await,
                Err(why) => Err(why),
            };
            // The link for Raft messages tells the operator about a peer that is gone.
            tracing::debug!(%node, "cannot forward to {peer}: {why}");
            for (_, waiter) in under_way {
                waiter.answer(Err(Unknown::ConnectionLost.into()));
            }
            if let Some(first) = first {
                first.waiter.answer(not_sent());
            }
            if !is_connected {
                self.refuse_for_a_while().await;
            }
        }
    }

    async fn open(&mut self) -> Result<Stream, LinkError> {
        let mut client = connect(&self.identity, self.peer).await?;
        let (requests, outgoing) = mpsc::channel(1);
        let hello = Request::Hello(self.identity.hello(self.peer));
        // The queue is empty: there is room.
        let _ = requests.send(request(hello)).await;
        in_time(async {
            let replies = client.forward(ReceiverStream::new(outgoing)).await?;
            let mut replies = replies.into_inner();
            let reply = replies.message().await?.and_then(|reply| reply.content);
            let welcome = match reply {
                Some(Reply::Welcome(welcome)) => Some(welcome),
                Some(Reply::Answers(_)) | None => None,
            };
            let checked = self.identity.check_welcome(welcome, self.peer);
            checked.map_err(LinkError::Refused)?;
            Ok(Stream { requests, replies })
        })
        .await
    }

    /// Sends and answers until the stream breaks; `first` stays if it was not sent.
    async fn forward(
        &mut self,
        first: &mut Option<Proposal>,
        stream: Stream,
        under_way: &mut HashMap<u64, Waiter>,
    ) -> Result<Infallible, LinkError> {
        let Stream { requests, mut replies } = stream;
        self.backoff.reset();
        tracing::debug!(node = %self.identity.id, "forwarding to {}", self.peer);
        loop {
            // Answers are always taken in, or the leader and we could wait for each other. A
            // proposal is only taken from the queue when the stream has room for it.
            let next = async {
                let room = requests.reserve().await.map_err(|_| LinkError::Closed)?;
                if let Some(first) = first.take() {
                    return Ok((room, first));
                }
                let next = self.queue.recv().await.ok_or(LinkError::Closed)?;
                Ok::<_, LinkError>((room, next))
            };
            tokio::select! {
                reply = replies.message() => {
                    answer(reply?.ok_or(LinkError::Closed)?, under_way)?;
                }
                next = next, if under_way.len() + FRAME_PROPOSALS_MAX <= UNDER_WAY_MAX => {
                    let (room, next) = next?;
                    let proposals = self.fill_frame(next, under_way);
                    if !proposals.is_empty() {
                        room.send(request(Request::Proposals(wire::Proposals { proposals })));
                    }
                }
            }
        }
    }

    /// Everything that waits and is still wanted travels in one frame, up to its limits.
    fn fill_frame(
        &mut self,
        first: Proposal,
        under_way: &mut HashMap<u64, Waiter>,
    ) -> Vec<wire::Proposal> {
        let mut frame = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(proposal) = next {
            if proposal.waiter.claim() {
                bytes += proposal.size_bytes();
                let Proposal { command, waiter } = proposal;
                self.last_id += 1;
                let id = self.last_id;
                frame.push(wire::Proposal { id, command });
                under_way.insert(id, waiter);
            }
            let full = bytes >= FRAME_BYTES_TARGET || frame.len() >= FRAME_PROPOSALS_MAX;
            next = if full { None } else { self.queue.try_recv() };
        }
        frame
    }

    /// Between two attempts everyone is sent away at once, to look for another leader.
    async fn refuse_for_a_while(&mut self) {
        let pause = tokio::time::sleep(self.backoff.next_pause());
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return,
                Some(proposal) = self.queue.recv() => proposal.waiter.answer(not_sent()),
            }
        }
    }
}

/// It was not sent: another leader may be asked.
fn not_sent() -> Result<crate::handle::Applied, Failure> {
    Err(Failure::NotLeader { hint: None })
}

fn answer(
    reply: wire::ForwardReply,
    under_way: &mut HashMap<u64, Waiter>,
) -> Result<(), LinkError> {
    let Some(Reply::Answers(wire::Answers { answers })) = reply.content else {
        return Err(LinkError::Refused(Refusal::NoGreeting));
    };
    for wire::Answer { id, outcome } in answers {
        // An answer to nothing is harmless.
        if let Some(waiter) = under_way.remove(&id) {
            waiter.answer(answer_from_wire(outcome));
        }
    }
    Ok(())
}

fn request(content: Request) -> wire::ForwardRequest {
    let content = Some(content);
    wire::ForwardRequest { content }
}
