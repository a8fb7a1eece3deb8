//! §7: receiving a snapshot (InstallSnapshot of Figure 13); `s7_snapshots` has the rest.
//!
//! InstallSnapshot carries no data here: it names a snapshot by its content, and the follower
//! fetches that by offset, at its own pace. So a transfer outlives broken links and changes of
//! leader. It is safe for the reason for which §7 is: what a snapshot contains is committed, so it
//! is the same wherever it comes from.

use raft_core::{
    HardState, Ignored, Incoming, Input, LogIndex, LogPosition, Message, Restored, RoleKind,
    Snapshot, SnapshotId, Term,
};

use crate::s7_snapshots::{config, follower};
use crate::stand::{ELECTION_TIMEOUT, Stand};
use crate::words::{append, at, entries, entry, joint, snapshot, voters};

fn install(snapshot: &Snapshot) -> Message {
    Message::InstallSnapshot { snapshot: snapshot.clone() }
}

fn chunk(snapshot: SnapshotId, offset: u64, bytes: &'static str) -> Message {
    Message::SnapshotChunk { snapshot, offset, bytes: Some(bytes.into()) }
}

/// `stand` is told of the snapshot by node `from` and gets all of it.
pub(crate) fn fetch(stand: &mut Stand, from: u64, term: u64, snapshot: &Snapshot) {
    stand.hear(from, term, install(snapshot));
    stand.hear(from, term, chunk(snapshot.id(), 0, "0123"));
    stand.hear(from, term, chunk(snapshot.id(), 4, "4567"));
    stand.hear(from, term, chunk(snapshot.id(), 8, "89"));
}

fn requests(stand: &mut Stand) -> Vec<String> {
    stand.said().into_iter().filter(|words| words.contains("SnapshotRequest")).collect()
}

/// Figure 13, rule 1: what a leader of an earlier term offers is refused, with the current term.
#[test]
fn an_offer_of_an_earlier_term_is_refused() {
    let mut stand = follower(&[]);
    stand.hear(3, 2, install(&snapshot(at(9, 2), 10, voters(&[1, 2, 3]))));
    let words = stand.last_word();
    assert!(words.starts_with("n1@3 → n3 AppendEntriesReply refused"), "{words}");
    assert_eq!((stand.incoming.len(), stand.follows()), (0, Some(2)));
}

/// Figure 13, rules 2 to 5: the follower asks for piece after piece, from the beginning, stores
/// each at its offset, and takes nothing for the snapshot that is not all of it.
#[test]
fn a_snapshot_is_fetched_piece_by_piece() {
    let mut stand = follower(&[1]);
    let snapshot = snapshot(at(9, 2), 10, voters(&[1, 2, 3]));
    let id = snapshot.id();
    stand.hear(2, 3, install(&snapshot));
    assert_eq!(stand.incoming, [Incoming::Begin(snapshot)]);
    for (offset, bytes) in [(0, "0123"), (4, "4567"), (8, "89")] {
        let request = format!("n1@3 → n2 SnapshotRequest 9@2/10 offset={offset}");
        assert_eq!(requests(&mut stand), [request]);
        assert_eq!((stand.log().as_str(), stand.commit()), ("1@1", 0));
        stand.hear(2, 3, chunk(id, offset, bytes));
        let piece = Incoming::Chunk { snapshot: id, offset, bytes: bytes.into() };
        assert_eq!(stand.incoming.last(), Some(&piece));
    }
    assert_eq!((stand.log().as_str(), stand.commit()), ("", 9));
    assert_eq!(requests(&mut stand), [""; 0]);
}

/// Figure 13 (offset): a piece for another place than the next one, or of something else, is not
/// stored.
#[test]
fn only_the_next_piece_is_taken() {
    let mut stand = follower(&[1]);
    let snapshot = snapshot(at(9, 2), 10, voters(&[1, 2, 3]));
    let id = snapshot.id();
    stand.hear(2, 3, install(&snapshot));
    stand.hear(2, 3, chunk(id, 0, "0123"));
    stand.forget();
    for (id, offset) in [(id, 0), (id, 8), (SnapshotId { digest: 5, ..id }, 4)] {
        stand.hear(2, 3, chunk(id, offset, "xxxx"));
        assert!(stand.ignored(Ignored::StaleSnapshot));
    }
    stand.hear(2, 3, chunk(id, 4, "too much"));
    assert!(stand.ignored(Ignored::Malformed));
    assert_eq!(stand.incoming, []);
}

/// Figure 13, rules 7 and 8: a snapshot that goes beyond the log, or contradicts it, takes the
/// place of all of it; the state machine begins anew from it, and its configuration is in effect.
#[test]
fn a_snapshot_takes_the_place_of_the_log() {
    for log in [&[1][..], &[1, 1, 1, 3, 3, 3]] {
        let mut stand = follower(log);
        let snapshot = snapshot(at(5, 2), 10, joint(&[1, 2, 4], &[1, 2, 3]));
        fetch(&mut stand, 2, 3, &snapshot);
        assert_eq!(stand.log(), "", "all of it is gone");
        assert_eq!(stand.restored, [snapshot]);
        assert_eq!(stand.members(), joint(&[1, 2, 4], &[1, 2, 3]).to_string());
        let status = stand.node.status();
        assert_eq!((status.commit, status.applied), (LogIndex(5), LogIndex(5)));
        assert_eq!(stand.last_word(), "n1@3 → n2 AppendEntriesReply durable=5 round=1");
        stand.hear(2, 3, append(at(5, 2), vec![entry(6, 3, "x")], 6));
        assert_eq!((stand.applies().as_str(), stand.log().as_str()), ("6@3=x", "6@3=x"));
        stand.restart();
        assert_eq!((stand.log().as_str(), stand.commit()), ("6@3=x", 5));
    }
}

/// Figure 13, rule 6: if the log has the snapshot's last entry, what follows that stays; the log is
/// known to be right up to there.
#[test]
fn a_log_that_contains_the_snapshot_is_kept() {
    let mut stand = follower(&[1, 2, 3, 3]);
    stand.hear(2, 3, install(&snapshot(at(2, 2), 10, voters(&[1, 2, 3]))));
    assert_eq!(stand.log(), "1@1 2@2 3@3 4@3");
    assert_eq!((stand.commit(), stand.applies().as_str()), (2, "1@1 2@2"));
    assert_eq!((stand.incoming.len(), stand.restored.len()), (0, 0), "nothing is fetched");
    assert_eq!(stand.last_word(), "n1@3 → n2 AppendEntriesReply durable=2 round=1");
}

/// The same if the log gets there while the snapshot is on its way.
#[test]
fn a_log_that_overtakes_the_snapshot_is_kept() {
    let mut stand = follower(&[]);
    let snapshot = snapshot(at(2, 2), 10, voters(&[1, 2, 3]));
    stand.hear(2, 3, install(&snapshot));
    stand.hear(2, 3, chunk(snapshot.id(), 0, "0123"));
    stand.hear(2, 3, append(at(0, 0), entries(1, &[1, 2, 3]), 3));
    stand.hear(2, 3, chunk(snapshot.id(), 4, "456789"));
    assert_eq!((stand.log().as_str(), stand.commit()), ("1@1 2@2 3@3", 3));
    assert_eq!(stand.restored, []);
    assert_eq!(stand.incoming.last(), Some(&Incoming::Abandon(snapshot.id())));
}

/// §7: a snapshot of less than is committed here changes nothing: state never goes back.
#[test]
fn a_snapshot_never_takes_the_state_back() {
    let mut stand = follower(&[]);
    stand.hear(2, 3, append(at(0, 0), entries(1, &[1, 2, 3]), 3));
    stand.cut(3, b"state");
    stand.forget();
    for position in [at(1, 1), at(2, 2), at(3, 3)] {
        stand.hear(2, 3, install(&snapshot(position, 10, voters(&[1]))));
        assert_eq!((stand.commit(), stand.incoming.len()), (3, 0));
        assert_eq!(stand.members(), voters(&[1, 2, 3]).to_string());
    }
    assert_eq!(stand.applies(), "");
}

/// Figure 13: a piece, and the snapshot as a whole, is acknowledged when it is durable. Until then
/// a crash leaves the log as it was.
#[test]
fn a_snapshot_is_durable_before_it_is_acknowledged() {
    let mut stand = follower(&[1]);
    stand.stall();
    let snapshot = snapshot(at(5, 2), 10, voters(&[1, 2, 3]));
    fetch(&mut stand, 2, 3, &snapshot);
    assert_eq!(stand.commit(), 5);
    let said = stand.said();
    assert!(!said.iter().any(|words| words.contains("durable=5")), "{said:?}");
    assert_eq!(stand.writes[0].snapshot(), Some(&snapshot));
    stand.sync();
    assert_eq!(stand.last_word(), "n1@3 → n2 AppendEntriesReply durable=5 round=1");
}

/// §7: entries that were on their way to the disk when a snapshot took the place of the log say
/// nothing about the entries that the snapshot stands for. (The storage may hold all of it from
/// before a crash, so that it is installed while older writes are still under way.)
#[test]
fn a_write_of_replaced_entries_acknowledges_nothing() {
    let mut stand = follower(&[1]);
    stand.stall();
    stand.hear(2, 4, append(at(1, 1), entries(2, &[4, 4]), 1));
    let snapshot = snapshot(at(9, 5), 10, voters(&[1, 2, 3]));
    stand.hear(3, 5, install(&snapshot));
    stand.input(Input::SnapshotHeld { snapshot: snapshot.id(), bytes: 10 });
    assert_eq!((stand.commit(), stand.writes.len()), (9, 3));
    for _ in 0..2 {
        let write = stand.writes.pop_front().unwrap();
        assert_eq!(write.snapshot(), None);
        stand.input(Input::Written(write.into_receipt()));
    }
    let said = stand.said();
    assert!(!said.iter().any(|words| words.contains("durable=3")), "{said:?}");
    stand.sync();
    assert_eq!(stand.last_word(), "n1@5 → n3 AppendEntriesReply durable=9 round=0");
}

/// §7: the offer is a sign of life of the leader, so that nobody campaigns while a snapshot takes
/// its time.
#[test]
fn an_offer_restarts_the_election_timer() {
    let mut stand = Stand::new(&[1, 2, 3]);
    let snapshot = snapshot(at(9, 1), 10, voters(&[1, 2, 3]));
    for _ in 0..10 {
        stand.hear(2, 1, install(&snapshot));
        stand.wait(ELECTION_TIMEOUT - 1);
    }
    assert_eq!(stand.role(), (RoleKind::Follower, 1));
    assert_eq!(stand.asked_for_votes(), []);
    assert_eq!(stand.follows(), Some(2));
}

/// §7: a candidate follows whoever offers it a snapshot as the leader of its term.
#[test]
fn a_candidate_follows_a_leader_that_offers_a_snapshot() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.stand_for_election();
    stand.hear(3, 1, install(&snapshot(at(9, 1), 10, voters(&[1, 2, 3]))));
    assert_eq!((stand.role(), stand.follows()), ((RoleKind::Follower, 1), Some(3)));
}

/// §5.2 with §7: an offer of somebody who does not lead the term has no effect.
#[test]
fn an_offer_of_a_second_leader_has_no_effect() {
    let offer = install(&snapshot(at(9, 1), 10, voters(&[1, 2, 3])));
    let mut follower = follower(&[1]);
    follower.hear(3, 3, offer.clone());
    assert!(follower.ignored(Ignored::SecondLeader));
    assert_eq!((follower.follows(), follower.incoming.len()), (Some(2), 0));
    let mut leader = Stand::leader(&[1, 2, 3]);
    leader.hear(3, 1, offer);
    assert!(leader.ignored(Ignored::SecondLeader));
    assert_eq!((leader.leads(), leader.incoming.len()), (true, 0));
}

/// Departure from Figure 13: a transfer goes on where it was after a crash, and with the next
/// leader if that has the same snapshot. Its name is its content, so the pieces fit.
#[test]
fn a_transfer_outlives_a_crash_and_a_change_of_leader() {
    let mut stand = follower(&[1]);
    let snapshot = snapshot(at(9, 2), 10, voters(&[1, 2, 3]));
    stand.hear(2, 3, install(&snapshot));
    stand.hear(2, 3, chunk(snapshot.id(), 0, "0123"));
    stand.restart();
    stand.hear(3, 4, install(&snapshot));
    assert_eq!(requests(&mut stand), ["n1@4 → n3 SnapshotRequest 9@2/10 offset=4"]);
    stand.hear(2, 5, install(&snapshot));
    assert_eq!(requests(&mut stand), ["n1@5 → n2 SnapshotRequest 9@2/10 offset=4"]);
    stand.hear(3, 4, chunk(snapshot.id(), 4, "456789"));
    assert_eq!(stand.commit(), 9, "content has no term");
}

/// A request or a piece that is lost is asked for again.
#[test]
fn a_lost_piece_is_asked_for_again() {
    let mut stand = follower(&[1]);
    let snapshot = snapshot(at(9, 2), 10, voters(&[1, 2, 3]));
    stand.hear(2, 3, install(&snapshot));
    stand.forget();
    for _ in 0..3 {
        stand.wait(ELECTION_TIMEOUT - 1);
        stand.hear(2, 3, install(&snapshot));
        stand.wait(1);
        stand.hear(2, 3, install(&snapshot));
        assert_eq!(requests(&mut stand), ["n1@3 → n2 SnapshotRequest 9@2/10 offset=0"]);
    }
}

/// A snapshot that its sender has no more is given up, so that another one can come at once.
#[test]
fn a_snapshot_that_is_gone_is_given_up() {
    let mut stand = follower(&[1]);
    let one = snapshot(at(9, 2), 10, voters(&[1, 2, 3]));
    let other = snapshot(at(12, 2), 10, voters(&[1, 2, 3]));
    stand.hear(2, 3, install(&one));
    stand.hear(2, 3, Message::SnapshotChunk { snapshot: one.id(), offset: 0, bytes: None });
    stand.hear(2, 3, install(&other));
    let expected =
        [Incoming::Begin(one.clone()), Incoming::Abandon(one.id()), Incoming::Begin(other)];
    assert_eq!(stand.incoming, expected);
}

/// A snapshot whose bytes are not what its name says is fetched again from the beginning.
#[test]
fn a_damaged_snapshot_is_fetched_again() {
    let mut stand = follower(&[1]);
    let snapshot = snapshot(at(9, 2), 10, voters(&[1, 2, 3]));
    stand.hear(2, 3, install(&snapshot));
    stand.forget();
    stand.input(Input::SnapshotHeld { snapshot: snapshot.id(), bytes: 0 });
    assert_eq!(requests(&mut stand), ["n1@3 → n2 SnapshotRequest 9@2/10 offset=0"]);
    assert_eq!(stand.restored, []);
}

/// Figure 13, rule 5: an unfinished snapshot gives way to another one; not while it is still
/// coming, so that a leader that takes snapshots faster than they travel does not keep a follower
/// from ever getting one.
#[test]
fn an_unfinished_snapshot_gives_way_when_it_has_stopped_coming() {
    let mut stand = follower(&[1]);
    let (one, other) =
        (snapshot(at(9, 2), 10, voters(&[1, 2, 3])), snapshot(at(12, 2), 10, voters(&[1, 2, 3])));
    stand.hear(2, 3, install(&one));
    stand.hear(2, 3, install(&other));
    assert_eq!(stand.incoming, [Incoming::Begin(one.clone())]);
    for _ in 0..4 {
        stand.wait(ELECTION_TIMEOUT - 1);
        stand.hear(2, 3, install(&other));
        assert_eq!(stand.incoming.len(), 1, "it may still come");
    }
    stand.wait(4);
    stand.hear(2, 3, install(&other));
    assert_eq!(stand.incoming[1..], [Incoming::Abandon(one.id()), Incoming::Begin(other)]);
}

/// §7: what says that it stands on an entry of a later term than its sender's is nonsense.
#[test]
fn an_impossible_snapshot_is_ignored() {
    for position in [at(5, 4), LogPosition::ZERO] {
        let mut stand = follower(&[1]);
        stand.hear(2, 3, install(&snapshot(position, 10, voters(&[1, 2, 3]))));
        assert!(stand.ignored(Ignored::Malformed));
        assert_eq!(stand.incoming, []);
    }
}

/// §7: a crash while a snapshot is installed leaves the old log or the snapshot; a log that does
/// not reach the snapshot is refused at the start, so that storage has to drop it.
#[test]
fn a_log_that_its_snapshot_does_not_belong_to_is_refused() {
    let disk = Restored {
        hard_state: HardState { term: Term(3), voted_for: None },
        entries: entries(1, &[1, 1]),
        snapshot: Some(snapshot(at(5, 2), 10, voters(&[1, 2, 3]))),
        ..Restored::empty(voters(&[1, 2, 3]))
    };
    let node = raft_core::Node::new(config(), disk, raft_core::Instant::default());
    let expected = raft_core::StartError::SnapshotOffLog { snapshot: at(5, 2) };
    assert_eq!(node.map(|_| ()), Err(expected));
}
