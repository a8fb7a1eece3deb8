//! What the other nodes call: their Raft messages go into the driver's inbox, their forwarded
//! proposals and orders into the queues at the door, and the answers back.

use std::sync::Arc;
use std::time::Duration;

use raft_core::Envelope;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::connect::{FRAME_BYTES_TARGET, GREETING_TIMEOUT};
use crate::convert::{answer_to_wire, order_from_wire, order_outcome_to_wire};
use crate::error::NotApplied;
use crate::forward::{FRAME_PROPOSALS_MAX, UNDER_WAY_MAX};
use crate::handshake::{Identity, Refusal, Visit, Visitors};
use crate::meters::refused_peers;
use crate::orders::Orders;
use crate::peer::Links;
use crate::pending::{Answer, Forwarded, Proposal, Waiter};
use crate::queue::{Refused, Sender};
use crate::throttle::Throttle;
use crate::transport::Remote;
use crate::wire;
use crate::wire::raft_server::Raft;

/// Replies of a stream that wait to be written to its connection.
const REPLIES_MAX: usize = 2;

/// How long an order may take that another node passes on. Its operator waits no longer either, most likely.
const ORDER_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// The callee's side of `proto/raft.proto`.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) identity: Arc<Identity>,
    pub(crate) visitors: Arc<Visitors>,
    pub(crate) links: Arc<Links>,
    pub(crate) frames: mpsc::Sender<Vec<Envelope>>,
    pub(crate) proposals: Sender<Proposal>,
    pub(crate) orders: Orders,
    pub(crate) command_bytes_max: u64,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) throttle: Arc<Throttle>,
}

#[tonic::async_trait]
impl Raft for Service {
    type PeerStream = ReceiverStream<Result<wire::PeerReply, Status>>;

    async fn peer(
        &self,
        request: Request<Streaming<wire::PeerRequest>>,
    ) -> Result<Response<Self::PeerStream>, Status> {
        use wire::peer_request::Content;
        let remote = Remote::of(&request);
        let mut requests = request.into_inner();
        let first = within_greeting_timeout(requests.message()).await?;
        let hello = match first.and_then(|request| request.content) {
            Some(Content::Hello(hello)) => Some(hello),
            Some(Content::Frame(_) | Content::Addresses(_)) | None => None,
        };
        let visit = self.admit(remote.as_ref(), hello)?;
        let (replies, stream) = mpsc::channel(REPLIES_MAX);
        let welcome = wire::peer_reply::Content::Welcome(self.identity.welcome());
        let content = Some(welcome);
        let _ = replies.send(Ok(wire::PeerReply { content })).await; // The queue is empty.
        let messages = Messages {
            requests,
            frames: self.frames.clone(),
            visit,
            identity: Arc::clone(&self.identity),
            links: Arc::clone(&self.links),
        };
        let (stop, throttle) = (self.stop.clone(), Arc::clone(&self.throttle));
        self.tasks.spawn(async move {
            let ended = stop.run_until_cancelled(messages.take_in()).await;
            if let Some(Err(status)) = ended {
                complain(&throttle, remote.as_ref(), &status);
                let _ = replies.send(Err(status)).await; // The caller may be gone.
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type ForwardStream = ReceiverStream<Result<wire::ForwardReply, Status>>;

    async fn forward(
        &self,
        request: Request<Streaming<wire::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        use wire::forward_request::Content;
        let remote = Remote::of(&request);
        let mut requests = request.into_inner();
        let first = within_greeting_timeout(requests.message()).await?;
        let hello = match first.and_then(|request| request.content) {
            Some(Content::Hello(hello)) => Some(hello),
            Some(Content::Proposals(_)) | None => None,
        };
        let visit = self.admit(remote.as_ref(), hello)?;
        let (replies, stream) = mpsc::channel(REPLIES_MAX);
        let welcome = wire::forward_reply::Content::Welcome(self.identity.welcome());
        let _ = replies.send(Ok(forward_reply(welcome))).await; // The queue is empty.
        let forwarding = Forwarding {
            requests,
            replies: replies.clone(),
            proposals: self.proposals.clone(),
            command_bytes_max: self.command_bytes_max,
            _visit: visit,
        };
        let (stop, throttle) = (self.stop.clone(), Arc::clone(&self.throttle));
        self.tasks.spawn(async move {
            let ended = stop.run_until_cancelled(forwarding.serve()).await;
            if let Some(Err(status)) = ended {
                complain(&throttle, remote.as_ref(), &status);
                let _ = replies.send(Err(status)).await; // The caller may be gone.
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn order(
        &self,
        request: Request<wire::OrderRequest>,
    ) -> Result<Response<wire::OrderReply>, Status> {
        let remote = Remote::of(&request);
        let wire::OrderRequest { hello, timeout_ms, order } = request.into_inner();
        let visit = self.admit(remote.as_ref(), hello)?;
        let wanted = order_from_wire(order)
            .map_err(|why| Status::invalid_argument(format!("malformed order: {why}")))?;
        tracing::info!(node = %self.identity.id, "{} passes on an order: {wanted}", visit.caller());
        let timeout = Duration::from_millis(timeout_ms).min(ORDER_TIMEOUT_MAX);
        // Ends with the driver at the latest.
        let end = self.orders.carry_out(&wanted, Instant::now() + timeout).await;
        let (welcome, outcome) = (self.identity.welcome(), order_outcome_to_wire(end));
        Ok(Response::new(wire::OrderReply { welcome: Some(welcome), outcome: Some(outcome) }))
    }
}

impl Service {
    /// Lets a caller in by its greeting.
    fn admit(&self, remote: Option<&Remote>, hello: Option<wire::Hello>) -> Result<Visit, Status> {
        let admitted = hello.ok_or(Refusal::NoGreeting).and_then(|hello| {
            let names = remote.and_then(|remote| remote.names.as_deref());
            Identity::check_version(&hello)?;
            self.identity.check_certificate(&hello, names)?;
            let caller = self.identity.check_hello(&hello)?;
            let visit = Visitors::enter(&self.visitors, caller)?;
            self.identity.learn_from(caller, hello.members);
            Ok(visit)
        });
        match admitted {
            Ok(visit) => {
                self.links.wake(visit.caller());
                Ok(visit)
            }
            Err(why) => {
                refused_peers().increment(1);
                if let Some(suppressed) = self.throttle.allow() {
                    let node = self.identity.id;
                    let remote = remote.map(|remote| tracing::field::display(remote.address));
                    tracing::warn!(%node, remote, suppressed, "refused a peer: {why}");
                }
                Err(Status::from(&why))
            }
        }
    }
}

async fn within_greeting_timeout<T>(
    first: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let first = tokio::time::timeout(GREETING_TIMEOUT, first).await;
    first.unwrap_or_else(|_| Err(Status::from(&Refusal::NoGreeting)))
}

/// A stream that ended badly: a peer that broke a rule is worth a line, a broken connection is not.
fn complain(throttle: &Throttle, remote: Option<&Remote>, status: &Status) {
    let remote = remote.map(|remote| tracing::field::display(remote.address));
    if status.code() != tonic::Code::InvalidArgument && status.code() != tonic::Code::OutOfRange {
        tracing::debug!(remote, "a peer's stream broke: {}", status.message());
    } else if let Some(suppressed) = throttle.allow() {
        tracing::warn!(remote, suppressed, "closed a peer's stream: {}", status.message());
    }
}

/// A stream of Raft messages.
struct Messages {
    requests: Streaming<wire::PeerRequest>,
    frames: mpsc::Sender<Vec<Envelope>>,
    visit: Visit,
    identity: Arc<Identity>,
    links: Arc<Links>,
}

impl Messages {
    /// Takes messages in until the stream ends. When the inbox is full it waits, which HTTP/2 flow
    /// control passes on to the sender.
    async fn take_in(mut self) -> Result<(), Status> {
        while let Some(request) = self.requests.message().await? {
            let frame = match request.content {
                Some(wire::peer_request::Content::Frame(frame)) => frame,
                Some(wire::peer_request::Content::Addresses(addresses)) => {
                    self.identity.book.merge(addresses.members);
                    continue;
                }
                Some(wire::peer_request::Content::Hello(_)) | None => {
                    return Err(Status::invalid_argument("expected a frame of messages"));
                }
            };
            self.links.heard(self.visit.caller());
            let envelopes = frame.envelopes.into_iter();
            let envelopes: Vec<_> =
                envelopes.map(|envelope| self.check(envelope)).collect::<Result<_, _>>()?;
            if self.frames.send(envelopes).await.is_err() {
                return Ok(()); // The driver has ended.
            }
        }
        Ok(())
    }

    /// Nobody speaks for somebody else.
    fn check(&self, envelope: wire::Envelope) -> Result<Envelope, Status> {
        let envelope = Envelope::try_from(envelope)
            .map_err(|why| Status::invalid_argument(format!("malformed message: {why}")))?;
        let caller = self.visit.caller();
        if envelope.from != caller || envelope.to != self.identity.id {
            let Envelope { from, to, .. } = envelope;
            let why = format!("a message from {from} to {to} on a stream of {caller}");
            return Err(Status::invalid_argument(why));
        }
        Ok(envelope)
    }
}

/// A stream of forwarded proposals.
struct Forwarding {
    requests: Streaming<wire::ForwardRequest>,
    replies: mpsc::Sender<Result<wire::ForwardReply, Status>>,
    proposals: Sender<Proposal>,
    command_bytes_max: u64,
    _visit: Visit,
}

impl Forwarding {
    /// Proposes what arrives and sends the answers, until the stream ends. Takes nothing in as long
    /// as there might be no place for the answers.
    async fn serve(mut self) -> Result<(), Status> {
        let (answers, mut answered) = mpsc::channel(UNDER_WAY_MAX);
        let mut ready = Vec::new();
        loop {
            let has_room = answers.capacity() >= FRAME_PROPOSALS_MAX;
            tokio::select! {
                request = self.requests.message(), if has_room => match request? {
                    Some(request) => self.take_in(request, &answers)?,
                    None => return Ok(()),
                },
                _ = answered.recv_many(&mut ready, UNDER_WAY_MAX) => {
                    for reply in frames(&mut ready) {
                        if self.replies.send(Ok(reply)).await.is_err() {
                            return Ok(()); // The caller is gone.
                        }
                    }
                }
            }
        }
    }

    fn take_in(
        &self,
        request: wire::ForwardRequest,
        answers: &mpsc::Sender<(u64, Answer)>,
    ) -> Result<(), Status> {
        use wire::forward_request::Content;
        let Some(Content::Proposals(wire::Proposals { proposals })) = request.content else {
            return Err(Status::invalid_argument("expected a frame of proposals"));
        };
        if proposals.len() > FRAME_PROPOSALS_MAX {
            let why = format!("at most {FRAME_PROPOSALS_MAX} proposals fit into a frame");
            return Err(Status::invalid_argument(why));
        }
        for wire::Proposal { id, command } in proposals {
            // There is room: it was checked before the frame was taken in, and nobody else sends.
            let Ok(permit) = answers.clone().try_reserve_owned() else {
                return Err(Status::resource_exhausted("too many proposals under way"));
            };
            let waiter = Waiter::Forwarded(Forwarded::new(id, permit));
            self.propose(command, waiter);
        }
        Ok(())
    }

    /// Overload is refused at the door.
    fn propose(&self, command: bytes::Bytes, waiter: Waiter) {
        let (bytes, max) = (command.len() as u64, self.command_bytes_max);
        if bytes > max {
            return waiter.answer(Err(NotApplied::TooLarge { bytes, max }.into()));
        }
        match self.proposals.try_send(Proposal { command, waiter }) {
            Ok(()) => {}
            Err(Refused::Full(proposal)) => proposal.waiter.answer(Err(NotApplied::Busy.into())),
            Err(Refused::Closed(proposal)) => proposal.waiter.send_away(),
        }
    }
}

/// All answers that are ready, in as few frames as their sizes allow.
fn frames(ready: &mut Vec<(u64, Answer)>) -> Vec<wire::ForwardReply> {
    let mut frames = Vec::new();
    let mut answers = Vec::new();
    let mut bytes = 0;
    for (id, answer) in ready.drain(..) {
        let response = answer.as_ref().map_or(0, |applied| applied.response.len());
        bytes += response as u64 + raft_core::ENTRY_OVERHEAD_BYTES;
        answers.push(answer_to_wire(id, answer));
        if bytes >= FRAME_BYTES_TARGET {
            frames.push(answers_reply(std::mem::take(&mut answers)));
            bytes = 0;
        }
    }
    if !answers.is_empty() {
        frames.push(answers_reply(answers));
    }
    frames
}

fn answers_reply(answers: Vec<wire::Answer>) -> wire::ForwardReply {
    forward_reply(wire::forward_reply::Content::Answers(wire::Answers { answers }))
}

fn forward_reply(content: wire::forward_reply::Content) -> wire::ForwardReply {
    let content = Some(content);
    wire::ForwardReply { content }
}

#[cfg(test)]
mod tests;
