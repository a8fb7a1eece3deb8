//! A member that breaks the rules is cut off, and told why.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use raft_core::{LogIndex, NodeId, Term};
use raft_wal::sim::SimDisk;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::Channel;

use super::*;
use crate::connect::connect;
use crate::convert::answer_from_wire;
use crate::handshake::identity_of;
use crate::node::testing::start_on_disk;
use crate::pending::Failure;
use crate::wire::forward_request::Content as Forward;
use crate::wire::peer_request::Content as Peer;
use crate::wire::raft_client::RaftClient;

mod liars;

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// A running node 1 of three, a connection to it, and the identity of node 2.
struct Setup {
    node: crate::RaftHandle<crate::node::testing::Count>,
    client: RaftClient<Channel>,
    identity: Identity,
}

async fn setup() -> Setup {
    let peers = (1..=3).map(|number| (id(number), format!("localhost:{number}")));
    let peers: BTreeMap<_, _> = peers.collect();
    let (node, _task) = start_on_disk(&SimDisk::new(1), peers).await;
    let SocketAddr::V4(address) = node.local_addr() else { panic!("it listens on 127.0.0.1") };
    let identity = identity_of("test", 2, &[1, 2, 3], 0);
    let address = address.to_string();
    identity.book.merge(vec![wire::Member { node: 1, address, version: 1, ..Default::default() }]);
    let client = connect(&identity, id(1)).await.unwrap();
    Setup { node, client, identity }
}

/// How a stream ends that begins with these requests.
async fn peer_end(client: &mut RaftClient<Channel>, requests: Vec<Peer>) -> Result<(), Status> {
    let requests = requests.into_iter().map(|content| {
        let content = Some(content);
        wire::PeerRequest { content }
    });
    // It stays open, so that it is the node that ends it.
    let (keep_open, open) = mpsc::channel(1);
    let requests = tokio_stream::iter(requests).chain(ReceiverStream::new(open));
    let mut replies = client.peer(requests).await?.into_inner();
    let end = async {
        while replies.message().await?.is_some() {}
        Ok(())
    };
    let end = tokio::time::timeout(Duration::from_secs(30), end).await.expect("it is ended");
    drop(keep_open);
    end
}

fn read_index(from: u64, to: u64) -> wire::Envelope {
    let ticket = raft_core::QuestionId { life: 1, number: 1 };
    let message = raft_core::Message::ReadIndex { ticket, lease: false };
    let (group, term) = (raft_core::GroupId(0), Term(0));
    let incarnation = raft_core::Incarnation(0);
    Envelope { group, from: id(from), to: id(to), term, incarnation, message }.into()
}

fn frame(envelopes: Vec<wire::Envelope>) -> Peer {
    Peer::Frame(wire::Frame { envelopes })
}

#[tokio::test]
async fn a_stream_of_messages_must_keep_the_rules() {
    let Setup { node, mut client, identity } = setup().await;
    let hello = || Peer::Hello(identity.hello(id(1)));
    let mut other_version = identity.hello(id(1));
    (other_version.oldest_protocol_version, other_version.protocol_version) = (99, 99);
    let empty = wire::Envelope::default();
    let cases = [
        (vec![frame(vec![])], Code::InvalidArgument, "it did not say who it is"),
        (vec![Peer::Hello(other_version)], Code::Unimplemented, "versions 99 to 99"),
        (vec![Peer::Hello(identity.hello(id(3)))], Code::FailedPrecondition, "looks for n3"),
        (vec![hello(), hello()], Code::InvalidArgument, "expected a frame"),
        (vec![hello(), frame(vec![read_index(3, 1)])], Code::InvalidArgument, "from n3 to n1"),
        (vec![hello(), frame(vec![read_index(2, 3)])], Code::InvalidArgument, "from n2 to n3"),
        (vec![hello(), frame(vec![empty])], Code::InvalidArgument, "malformed message"),
    ];
    for (requests, code, reason) in cases {
        let end = peer_end(&mut client, requests).await.unwrap_err();
        assert_eq!(end.code(), code, "{end}");
        assert!(end.message().contains(reason), "{end}");
    }
    let huge = wire::Entry {
        payload: Some(wire::entry::Payload::Command(vec![0; 5 << 20].into())),
        ..Default::default()
    };
    let append = wire::AppendEntries { entries: vec![huge], ..Default::default() };
    let mut envelope = read_index(2, 1);
    envelope.message = Some(wire::envelope::Message::AppendEntries(append));
    let end = peer_end(&mut client, vec![hello(), frame(vec![envelope])]).await.unwrap_err();
    assert_eq!(end.code(), Code::OutOfRange, "{end}");
    assert_eq!(node.status().raft.commit, LogIndex(0), "nothing has happened");
    node.shutdown().await;
}

#[tokio::test]
async fn a_stranger_is_let_wait_for_its_greeting_only_so_long() {
    let Setup { node, mut client, .. } = setup().await;
    let end = peer_end(&mut client, vec![]).await.unwrap_err();
    assert_eq!(end.code(), Code::InvalidArgument, "{end}");
    node.shutdown().await;
}

#[tokio::test]
async fn a_stream_of_proposals_is_answered_one_by_one_by_a_node_that_does_not_lead() {
    let Setup { node, mut client, identity } = setup().await;
    let proposal = |id, bytes| wire::Proposal { id, command: Bytes::from(vec![0; bytes]) };
    let proposals = vec![proposal(7, 1), proposal(8, 2 << 20), proposal(9, 3)];
    let requests =
        [Forward::Hello(identity.hello(id(1))), Forward::Proposals(wire::Proposals { proposals })];
    let requests = requests.map(|content| {
        let content = Some(content);
        wire::ForwardRequest { content }
    });
    let (_keep_open, open) = mpsc::channel(1);
    let requests = tokio_stream::iter(requests).chain(ReceiverStream::new(open));
    let mut replies = client.forward(requests).await.unwrap().into_inner();
    let mut answers = BTreeMap::new();
    while answers.len() < 3 {
        let reply = replies.message().await.unwrap().expect("it stays open");
        if let Some(wire::forward_reply::Content::Answers(frame)) = reply.content {
            let frame = frame.answers.into_iter();
            answers.extend(frame.map(|answer| (answer.id, answer_from_wire(answer.outcome))));
        }
    }
    let not_leader = Err(Failure::NotLeader { hint: None });
    let (bytes, max) = (2 << 20, 1 << 20);
    let too_large = Err(NotApplied::TooLarge { bytes, max }.into());
    assert_eq!(answers, [(7, not_leader.clone()), (8, too_large), (9, not_leader)].into());
    node.shutdown().await;
}

#[tokio::test]
async fn an_order_must_come_from_a_member_and_mean_something() {
    use wire::order_request::Order;
    let Setup { node, mut client, identity } = setup().await;
    let remove = |id| Some(Order::RemoveMember(id));
    let hello = || Some(identity.hello(id(1)));
    let stranger = identity_of("test", 9, &[1, 2, 3, 9], 0);
    for (hello, order, code, reason) in [
        (None, remove(3), Code::InvalidArgument, "it did not say who it is"),
        (Some(stranger.hello(id(1))), remove(3), Code::PermissionDenied, "n9 is not one of"),
        (hello(), None, Code::InvalidArgument, "malformed order"),
        (hello(), remove(0), Code::InvalidArgument, "malformed order"),
    ] {
        let request = wire::OrderRequest { hello, timeout_ms: 1000, order };
        let end = client.order(request).await.unwrap_err();
        assert_eq!(end.code(), code, "{end}");
        assert!(end.message().contains(reason), "{end}");
    }
    let request = wire::OrderRequest { hello: hello(), timeout_ms: 1000, order: remove(3) };
    let reply = client.order(request).await.unwrap().into_inner();
    assert_eq!(identity.check_welcome(reply.welcome, id(1)), Ok(()));
    let end = crate::convert::order_outcome_from_wire(reply.outcome);
    assert_eq!(end, Err(crate::OrderError::NotLeader { leader: None }), "it does not lead");
    node.shutdown().await;
}
