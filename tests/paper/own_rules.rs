//! What the texts leave to an implementation: strangers, bounds, receipts of an earlier life, reports that
//! are no news. A sentence of the documentation of `raft_core` demands each.

use raft_core::{
    Config, Consistency, Envelope, Event, GroupId, Ignored, Incarnation, Input, LogIndex, Message,
    QuestionId, ReadRefused, Restored, RoleKind, Term,
};

use crate::stand::Stand;
use crate::words::{accepted, append, at, entries, heartbeat, n, snapshot, vote, voters};

/// A follower of node 2 in term 3, with these no-ops.
fn follower(log: &[u64]) -> Stand {
    let mut stand = Stand::with_log(&[1, 2, 3], 3, log);
    stand.hear(2, 3, heartbeat(at(0, 0), 0));
    stand.forget();
    stand
}

/// An acknowledgement that node `from` sends from this disk of its.
fn from_disk(stand: &mut Stand, from: u64, incarnation: u64) {
    let (term, round) = (Term(stand.term()), stand.round);
    stand.deliver(Envelope {
        group: GroupId(0),
        from: n(from),
        to: n(1),
        term,
        incarnation: Incarnation(incarnation),
        message: accepted(0, 0, round),
    });
}

/// A member's disks are remembered: an older one counts no longer, a newer one is news.
#[test]
fn the_disks_of_members_are_told_apart() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    from_disk(&mut stand, 2, 5);
    from_disk(&mut stand, 2, 4);
    assert!(stand.ignored(Ignored::StaleIncarnation));
    from_disk(&mut stand, 2, 6);
    let reborn = Event::PeerReborn { peer: n(2), incarnation: Incarnation(6) };
    assert!(stand.events.contains(&reborn));
}

/// Nothing is remembered of a node that is no member: whoever invents numbers takes no memory.
#[test]
fn the_disks_of_strangers_are_not_remembered() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    for incarnation in [5, 4, 6] {
        from_disk(&mut stand, 9, incarnation);
        let events = std::mem::take(&mut stand.events);
        let told = |event: &Event| match event {
            Event::Ignored { why, .. } => *why == Ignored::StaleIncarnation,
            event => matches!(event, Event::PeerReborn { .. }),
        };
        assert!(!events.iter().any(told), "{events:?}");
    }
}

/// A snapshot is read for members only.
#[test]
fn a_stranger_gets_nothing_of_a_snapshot() {
    let mut stand = follower(&[1]);
    let wanted = snapshot(at(9, 2), 10, voters(&[1, 2, 3])).id();
    let request = |offset| Message::SnapshotRequest { snapshot: wanted, offset };
    stand.hear(9, 3, request(0));
    assert!(stand.ignored(Ignored::NotAMember));
    assert_eq!(stand.said(), [""; 0]);
    stand.hear(3, 3, request(0));
    assert!(stand.ignored(Ignored::StaleSnapshot), "a member is told that it is not here");
    assert_eq!(stand.said().len(), 1);
}

/// What an earlier life wrote may have reached the disk, or not: its receipt says nothing to this one,
/// although the writes look the same.
#[test]
fn a_receipt_of_an_earlier_life_counts_for_nothing() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.stall();
    stand.hear(2, 1, vote(at(0, 0)));
    let earlier = stand.writes.pop_front().expect("the vote is to be written");
    stand.restart();
    stand.stall();
    stand.hear(2, 1, vote(at(0, 0)));
    stand.forget();
    stand.input(Input::Written(earlier.into_receipt()));
    assert!(stand.ignored(Ignored::ForeignReceipt));
    assert_eq!(stand.said(), [""; 0], "the vote is not durable yet");
    stand.sync();
    assert_eq!(stand.said().len(), 1);
}

/// That the state machine is where it was is no news, and no mistake.
#[test]
fn what_is_applied_may_be_reported_again() {
    let mut stand = follower(&[]);
    stand.hear(2, 3, append(at(0, 0), entries(1, &[3, 3, 3]), 2));
    let is_bad = |stand: &mut Stand, index| {
        stand.input(Input::Applied(LogIndex(index)));
        stand.ignored(Ignored::BadAppliedIndex)
    };
    assert!(!is_bad(&mut stand, 2));
    assert!(is_bad(&mut stand, 1), "it does not go back");
    assert!(is_bad(&mut stand, 3), "that was not handed out");
}

fn patient(reads: usize) -> Config {
    Config { waiting_reads_max: reads, ..Config::new(n(1), 1) }
}

/// Reads that wait are bounded at a follower, those that it has asked about among them.
#[test]
fn a_follower_lets_so_many_reads_wait() {
    let mut stand = Stand::start(patient(2), Restored::empty(voters(&[1, 2, 3])));
    stand.hear(2, 1, heartbeat(at(0, 0), 0));
    for _ in 0..2 {
        assert!(stand.read(Consistency::Linearizable).is_ok());
    }
    assert_eq!(stand.read(Consistency::Linearizable), Err(ReadRefused::Busy));
}

/// And at a leader, those of others among them.
#[test]
fn a_leader_lets_so_many_reads_wait() {
    let mut stand = Stand::leader_with(patient(2), voters(&[1, 2, 3]));
    let ask = |number| Message::ReadIndex { ticket: QuestionId { life: 7, number }, lease: false };
    assert!(stand.read(Consistency::Linearizable).is_ok());
    stand.hear(2, 1, ask(1));
    assert!(!stand.ignored(Ignored::Busy));
    stand.hear(2, 1, ask(2));
    assert!(stand.ignored(Ignored::Busy));
    assert_eq!(stand.read(Consistency::Linearizable), Err(ReadRefused::Busy));
    stand.all_acknowledge();
    assert_eq!(stand.role(), (RoleKind::Leader, 1));
    assert!(stand.read(Consistency::Linearizable).is_ok(), "there is room again");
}
