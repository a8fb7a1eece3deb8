//! The bytes of version 1 of the protocol, pinned: nodes of two versions must understand each other while a cluster
//! is upgraded. What these bytes are must never change; a message that is to look different is a new version.

use bytes::Bytes;
use prost::Message as _;
use raft_core::*;

use crate::wire;

const PINNED: &str = include_str!("golden.txt");

fn n(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

fn position(term: u64, index: u64) -> LogPosition {
    LogPosition::new(Term(term), LogIndex(index))
}

fn entry(index: u64, payload: Payload) -> Entry {
    Entry {
        index: LogIndex(index),
        term: Term(7),
        timestamp: Timestamp(1_700_000_000_000),
        payload,
    }
}

/// One message of each kind, and of each shape of those that have several.
fn messages() -> Vec<(&'static str, Message)> {
    let question = QuestionId { life: 0x1122_3344_5566_7788, number: 9 };
    let ballot = |kind| Ballot { kind, campaign: question };
    let (prev, commit, round) = (position(6, 40), LogIndex(39), Round(3));
    let append = |entries: Vec<Entry>| Message::AppendEntries {
        prev,
        entries: entries.into(),
        commit,
        round,
    };
    let joint = Membership::from_parts(vec![n(1), n(2), n(4)], vec![n(1), n(2), n(3)], vec![n(5)]);
    let membership = joint.unwrap();
    let id = SnapshotId { position: position(5, 30), length: 1000, digest: 0xABCD << 64 | 0xEF };
    let entries = vec![
        entry(41, Payload::Noop),
        entry(42, Payload::Command(Bytes::from_static(b"ten to alice"))),
        entry(43, Payload::Membership(membership.clone())),
    ];
    let base = LogBase {
        position: position(5, 30),
        timestamp: Timestamp(1_600_000_000_000),
        membership,
        membership_index: LogIndex(29),
    };
    let reply = |outcome| Message::AppendEntriesReply { round, outcome };
    let chunk = |bytes| Message::SnapshotChunk { snapshot: id, offset: 512, bytes };
    let request_vote = |kind| Message::RequestVote { ballot: ballot(kind), last: position(6, 40) };
    vec![
        ("pre-vote", request_vote(BallotKind::PreVote)),
        ("vote", request_vote(BallotKind::Vote)),
        ("vote of a transfer", request_vote(BallotKind::Transfer)),
        (
            "vote granted",
            Message::RequestVoteReply { ballot: ballot(BallotKind::Vote), granted: true },
        ),
        (
            "vote refused",
            Message::RequestVoteReply { ballot: ballot(BallotKind::PreVote), granted: false },
        ),
        ("heartbeat", append(Vec::new())),
        ("entries", append(entries)),
        (
            "entries accepted",
            reply(AppendOutcome::Accepted { durable: LogIndex(42), received: LogIndex(43) }),
        ),
        (
            "entries refused",
            reply(AppendOutcome::Refused { prev: LogIndex(40), hint: position(5, 38) }),
        ),
        ("read index", Message::ReadIndex { ticket: question, lease: false }),
        ("lease read index", Message::ReadIndex { ticket: question, lease: true }),
        (
            "read index known",
            Message::ReadIndexReply { ticket: question, index: Some(LogIndex(0)) },
        ),
        ("read index unknown", Message::ReadIndexReply { ticket: question, index: None }),
        (
            "snapshot offered",
            Message::InstallSnapshot {
                snapshot: Snapshot { base, length: id.length, digest: id.digest },
            },
        ),
        ("snapshot wanted", Message::SnapshotRequest { snapshot: id, offset: 512 }),
        ("snapshot piece", chunk(Some(Bytes::from_static(b"piece")))),
        ("snapshot gone", chunk(None)),
        ("time out now", Message::TimeoutNow),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Bytes {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect::<Vec<u8>>().into()
}

/// The lines `NAME: HEX`.
fn pinned(name: &str) -> Option<&'static str> {
    let line = PINNED.lines().find(|line| line.split_once(": ").is_some_and(|(it, _)| it == name));
    line.and_then(|line| line.split_once(": ")).map(|(_, bytes)| bytes)
}

fn compare(name: &str, bytes: &[u8], wrong: &mut Vec<String>) {
    let hex = hex(bytes);
    if pinned(name) != Some(&*hex) {
        wrong.push(format!("{name}: {hex}"));
    }
}

#[test]
fn the_bytes_of_version_1_do_not_change() {
    let mut wrong = Vec::new();
    for (name, message) in messages() {
        let (group, term, incarnation) = (GroupId(0), Term(7), Incarnation(2));
        let envelope = Envelope { group, from: n(1), to: n(2), term, incarnation, message };
        let bytes = wire::Envelope::from(envelope.clone()).encode_to_vec();
        compare(name, &bytes, &mut wrong);
        let known = pinned(name).map(from_hex).unwrap_or_default();
        let back = wire::Envelope::decode(known).map(Envelope::try_from);
        if !matches!(&back, Ok(Ok(back)) if *back == envelope) {
            wrong.push(format!("{name} is read as {back:?}"));
        }
    }
    for (name, bytes) in greetings_and_forwarding().into_iter().chain(orders()) {
        compare(name, &bytes, &mut wrong);
    }
    assert!(wrong.is_empty(), "not as pinned in golden.txt:\n{}", wrong.join("\n"));
}

/// What else is said on the streams.
fn greetings_and_forwarding() -> Vec<(&'static str, Vec<u8>)> {
    use wire::answer::{Applied, NotLeader, Outcome, SizeLimit};
    let incarnation = Bytes::from_static(&[0xA5; 16]);
    let members = vec![wire::Member {
        node: 1,
        address: "10.0.0.1:7081".into(),
        note: "http 10.0.0.1:8081".into(),
        version: 1_700_000_000_000,
    }];
    let hello = wire::Hello {
        protocol_version: 1,
        cluster: "board".into(),
        from: 1,
        to: 2,
        incarnation: incarnation.clone(),
        members: members.clone(),
        membership: Some(wire::Membership { voters: vec![1, 2, 3], ..Default::default() }),
        membership_index: 12,
        oldest_protocol_version: 1,
    };
    let welcome = wire::Welcome { node: 2, incarnation, members, protocol_version: 1 };
    let answer = |id, outcome| wire::Answer { id, outcome: Some(outcome) };
    let limit = SizeLimit { bytes: 2_000_000, max: 1_048_576 };
    let answers = vec![
        answer(1, Outcome::Applied(Applied { term: 7, index: 42, response: "10".into() })),
        answer(2, Outcome::NotLeader(NotLeader { leader: Some(3) })),
        answer(3, Outcome::NotApplied(1)),
        answer(4, Outcome::Unknown(1)),
        answer(5, Outcome::TooLarge(limit)),
        answer(6, Outcome::ResponseTooLarge(limit)),
    ];
    let proposals = vec![wire::Proposal { id: 1, command: "ten to alice".into() }];
    vec![
        ("hello", hello.encode_to_vec()),
        ("welcome", welcome.encode_to_vec()),
        ("proposals", wire::Proposals { proposals }.encode_to_vec()),
        ("answers", wire::Answers { answers }.encode_to_vec()),
    ]
}

/// Orders of operators, which a node that does not know them need not understand.
fn orders() -> Vec<(&'static str, Vec<u8>)> {
    use wire::order_reply::{Done, Outcome, Refusal};
    use wire::order_request::{AddMember, Order, TransferLeadership};
    let member = wire::Member {
        node: 4,
        address: "10.0.0.4:7081".into(),
        note: "http=10.0.0.4:8081".into(),
        version: 0,
    };
    let request = |order| wire::OrderRequest { hello: None, timeout_ms: 5000, order: Some(order) };
    let reply = |outcome| wire::OrderReply { welcome: None, outcome: Some(outcome) };
    let refusal = Refusal {
        reason: wire::order_reply::Reason::NotCaughtUp.into(),
        node: 4,
        index: 12,
        ready: 1,
        needed: 2,
        missing_entries: Some(1001),
        snapshot_bytes_held: Some(65536),
        text: "not yet".into(),
    };
    let to = TransferLeadership { to: Some(2) };
    let not_leader = wire::answer::NotLeader { leader: Some(3) };
    vec![
        (
            "order add",
            request(Order::AddMember(AddMember { member: Some(member) })).encode_to_vec(),
        ),
        ("order promote", request(Order::Promote(4)).encode_to_vec()),
        ("order remove", request(Order::RemoveMember(1)).encode_to_vec()),
        ("order transfer", request(Order::TransferLeadership(to)).encode_to_vec()),
        ("order done", reply(Outcome::Done(Done { leader: Some(2) })).encode_to_vec()),
        ("order not leader", reply(Outcome::NotLeader(not_leader)).encode_to_vec()),
        ("order refused", reply(Outcome::Refusal(refusal)).encode_to_vec()),
        ("order unknown", reply(Outcome::Unknown(2)).encode_to_vec()),
    ]
}
