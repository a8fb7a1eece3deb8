//! §7: snapshots and log compaction; InstallSnapshot of Figure 13, both sides.
//!
//! InstallSnapshot carries no data here: it names a snapshot by its content, and the follower
//! fetches that by offset, at its own pace. So a transfer outlives broken links and changes of
//! leader. It is safe for the reason for which §7 is: what a snapshot contains is committed, so it
//! is the same wherever it comes from.

use raft_core::{
    ChunkOrder, Config, Entry, Event, HardState, Ignored, Incoming, Input, LogIndex, LogPosition,
    Message, PeerPace, Restored, RoleKind, Snapshot, SnapshotId, Term,
};

use crate::room::Room;
use crate::stand::{ELECTION_TIMEOUT, HEARTBEAT, Stand};
use crate::words::{
    accepted, append, at, configuration, entries, entry, heartbeat, joint, n, refused, snapshot,
    vote, voters,
};

/// Snapshots leave nothing of what they contain in the log, and travel in pieces of four bytes.
fn config() -> Config {
    let mut config = Config::new(n(1), 1);
    config.trailing_bytes_max = 0;
    config.snapshot_chunk_bytes_max = 4;
    config
}

/// Node 1, a follower of n2 in term 3, with a log of these terms.
fn follower(log: &[u64]) -> Stand {
    let disk = Stand::with_log(&[1, 2, 3], 3, log).disk;
    let mut stand = Stand::start(config(), disk);
    stand.hear(2, 3, heartbeat(at(0, 0), 0));
    stand.forget();
    stand
}

/// Node 1 leads n2 and n3 in term 2 and has all of its log, `4@2` the last, in a snapshot of ten
/// bytes. n2 has everything, of n3 nothing is known.
fn leader_with_snapshot() -> (Stand, Snapshot) {
    let disk = Stand::with_log(&[1, 2, 3], 1, &[1, 1, 1]).disk;
    let mut stand = Stand::start(config(), disk);
    stand.win();
    stand.acknowledge(2, 4);
    stand.forget();
    let snapshot = stand.cut(4, b"0123456789");
    (stand, snapshot)
}

fn install(snapshot: &Snapshot) -> Message {
    Message::InstallSnapshot { snapshot: snapshot.clone() }
}

fn chunk(snapshot: SnapshotId, offset: u64, bytes: &'static str) -> Message {
    Message::SnapshotChunk { snapshot, offset, bytes: Some(bytes.into()) }
}

/// `stand` is told of the snapshot by node `from` and gets all of it.
fn fetch(stand: &mut Stand, from: u64, term: u64, snapshot: &Snapshot) {
    stand.hear(from, term, install(snapshot));
    stand.hear(from, term, chunk(snapshot.id(), 0, "0123"));
    stand.hear(from, term, chunk(snapshot.id(), 4, "4567"));
    stand.hear(from, term, chunk(snapshot.id(), 8, "89"));
}

fn requests(stand: &mut Stand) -> Vec<String> {
    stand.said().into_iter().filter(|words| words.contains("SnapshotRequest")).collect()
}

// Taking snapshots.

/// §7: every server takes its snapshots by itself, leader or not, of what is committed and applied,
/// and of nothing else.
#[test]
fn each_server_takes_snapshots_of_what_it_has_applied() {
    let mut stand = follower(&[]);
    stand.hear(2, 3, append(at(0, 0), entries(1, &[1, 1, 3]), 2));
    assert_eq!(stand.node.snapshot_base(LogIndex(3)), None, "not committed");
    assert_eq!(stand.node.snapshot_base(LogIndex(0)), None, "there is nothing");
    assert_eq!(stand.node.snapshot_base(LogIndex(2)).map(|base| base.position), Some(at(2, 1)));
    stand.lazy = true;
    stand.hear(2, 3, heartbeat(at(3, 3), 3));
    assert_eq!(stand.commit(), 3);
    assert_eq!(stand.node.snapshot_base(LogIndex(3)), None, "not applied");
    stand.cut(2, b"state");
    assert_eq!(stand.log(), "3@3");
}

/// §7: with the snapshot go the last index and term that it replaces, so that the check for what
/// comes before the next entry still works.
#[test]
fn the_end_of_a_snapshot_stands_for_the_entry_before_the_log() {
    let mut stand = follower(&[]);
    stand.hear(2, 3, append(at(0, 0), entries(1, &[1, 1]), 2));
    stand.cut(2, b"state");
    stand.forget();
    stand.hear(2, 3, append(at(2, 1), entries(3, &[3]), 2));
    assert_eq!(stand.last_word(), "n1@3 → n2 AppendEntriesReply durable=3 round=1");
    stand.cut(2, b"again");
    assert!(stand.ignored(Ignored::BadSnapshot), "there is one as new");
    stand.hear(2, 4, vote(at(2, 1)));
    stand.wait(ELECTION_TIMEOUT);
    stand.hear(2, 4, vote(at(2, 1)));
    assert_eq!(stand.voted_for(), None, "the log with the snapshot is longer");
}

/// The same for an election with nothing but a snapshot: its end is the end of the log.
#[test]
fn a_server_with_only_a_snapshot_compares_by_its_end() {
    let mut stand = follower(&[]);
    stand.hear(2, 3, append(at(0, 0), entries(1, &[1, 3]), 2));
    stand.cut(2, b"state");
    stand.wait(ELECTION_TIMEOUT);
    stand.forget();
    stand.hear(2, 4, vote(at(9, 2)));
    stand.hear(3, 4, vote(at(2, 3)));
    assert_eq!(
        stand.said(),
        ["n1@4 → n2 RequestVoteReply refused", "n1@4 → n3 RequestVoteReply granted"]
    );
}

/// §7: the newest configuration as of the snapshot is part of it, both halves of a joint one; one
/// that is newer is not.
#[test]
fn a_snapshot_contains_the_configuration_as_of_its_end() {
    let mut stand = follower(&[]);
    let log = vec![
        entry(1, 1, ""),
        configuration(2, 1, joint(&[1, 4, 5], &[1, 2, 3])),
        configuration(3, 1, voters(&[1, 4, 5])),
    ];
    stand.hear(2, 3, append(at(0, 0), log, 3));
    let base = |stand: &Stand, index| stand.node.snapshot_base(LogIndex(index)).unwrap();
    assert_eq!(base(&stand, 1).membership, voters(&[1, 2, 3]));
    assert_eq!(base(&stand, 2).membership, joint(&[1, 4, 5], &[1, 2, 3]));
    assert_eq!(base(&stand, 2).membership_index, LogIndex(2));
    assert_eq!(base(&stand, 3).membership, voters(&[1, 4, 5]));
    stand.cut(2, b"state");
    stand.restart();
    assert_eq!(stand.members(), voters(&[1, 4, 5]).to_string(), "the log goes on from there");
}

/// §7: once a snapshot is stored, the log up to its end may go, and what is before it. Not all of
/// it has to go at once: a follower that was away for a moment needs no snapshot then.
#[test]
fn a_snapshot_lets_the_log_before_it_go() {
    let (stand, snapshot) = leader_with_snapshot();
    let status = stand.node.status();
    assert_eq!((stand.log().as_str(), status.base, status.last), ("", at(4, 2), at(4, 2)));
    assert_eq!(status.snapshot, Some(snapshot.id()));
    assert_eq!((stand.disk.base.position, stand.disk.entries.len()), (at(4, 2), 0));
    let mut patient = Stand::leader(&[1, 2, 3]);
    patient.propose(&["a", "b"]).unwrap();
    patient.acknowledge(2, 3);
    patient.cut(3, b"state");
    assert_eq!(patient.log(), "1@1 2@1=a 3@1=b");
    let round = patient.round;
    patient.forget();
    patient.hear(3, 1, refused(3, at(1, 1), round));
    assert_eq!(patient.told(3), ["AppendEntries prev=1@1 commit=3 round=1 [2@1=a 3@1=b]"]);
}

/// §7: a leader takes snapshots of its own term's entries, too, and goes on leading.
#[test]
fn a_leader_takes_snapshots_of_its_own_term() {
    let mut stand = Stand::leader_with(config(), voters(&[1, 2, 3]));
    stand.propose(&["a", "b"]).unwrap();
    stand.acknowledge(2, 3);
    stand.cut(3, b"state");
    assert_eq!(stand.node.status().base, at(3, 1));
    stand.propose(&["c"]).unwrap();
    stand.read(raft_core::Consistency::Linearizable).unwrap();
    stand.acknowledge(2, 4);
    assert_eq!((stand.commit(), stand.reads.len(), stand.log().as_str()), (4, 1, "4@1=c"));
}

/// §7: when the log has grown by a fixed number of bytes a snapshot is due.
#[test]
fn a_snapshot_is_due_when_the_log_has_grown() {
    let mut config = config();
    config.snapshot_after_bytes = 64 * 7;
    let mut stand = Stand::start(config, Restored::empty(voters(&[1, 2, 3])));
    for index in 1..=6 {
        let entry = entry(index, 1, "sixteen bytes ok");
        stand.hear(2, 1, append(at(index - 1, index.min(2) - 1), vec![entry], index));
    }
    assert!(!stand.snapshot_due, "six times 16 bytes, and 48 for each entry");
    stand.hear(2, 1, append(at(6, 1), vec![entry(7, 1, "sixteen bytes ok")], 7));
    assert!(stand.snapshot_due);
    stand.cut(7, b"state");
    stand.forget();
    stand.hear(2, 1, append(at(7, 1), vec![entry(8, 1, "sixteen bytes ok")], 8));
    assert!(!stand.snapshot_due, "not again at once");
}

/// §7: a server starts from its snapshot: what that contains is committed and applied; the rest of
/// the log follows on it.
#[test]
fn a_restart_begins_at_the_snapshot() {
    let (mut stand, _) = leader_with_snapshot();
    stand.propose(&["c"]).unwrap();
    stand.restart();
    assert_eq!((stand.commit(), stand.log().as_str()), (4, "5@2=c"));
    stand.hear(2, 2, heartbeat(at(5, 2), 5));
    assert_eq!(stand.applies(), "5@2=c");
}

// Sending one.

/// §7: a snapshot is sent only if the leader has dropped what the follower needs next.
#[test]
fn a_follower_is_sent_a_snapshot_when_the_log_does_not_go_back_to_it() {
    let (mut stand, snapshot) = leader_with_snapshot();
    assert_eq!(snapshot.id().to_string(), "4@2/10");
    assert_eq!(stand.said(), ["n1@2 → n3 InstallSnapshot 4@2/10 {n1 n2 n3}"]);
    // To the other one the log goes on as ever.
    stand.propose(&["c"]).unwrap();
    assert_eq!(stand.told(2), ["AppendEntries prev=4@2 commit=4 round=1 [5@2=c]"]);
}

/// §7: a follower that fetches one is told so again with every heartbeat, so that nothing gets
/// stuck when something is lost, and that it hears from its leader in the meantime.
#[test]
fn the_offer_is_repeated_with_the_heartbeats() {
    let (mut stand, _) = leader_with_snapshot();
    let round = stand.round;
    stand.hear(3, 2, refused(3, at(1, 1), round));
    stand.forget();
    for round in 2..6 {
        stand.wait(HEARTBEAT);
        let told = stand.told(3);
        let heartbeat = format!("AppendEntries prev=0@0 commit=4 round={round} []");
        assert_eq!(told, [heartbeat, "InstallSnapshot 4@2/10 {n1 n2 n3}".to_string()]);
        stand.acknowledge(2, 4);
    }
}

/// Figure 13, the sender: pieces are sent as the receiver asks for them, each at its offset.
#[test]
fn pieces_are_sent_as_they_are_asked_for() {
    let (mut stand, snapshot) = leader_with_snapshot();
    let id = snapshot.id();
    stand.forget();
    for (offset, bytes_max) in [(0, 4), (4, 4), (8, 2), (4, 4)] {
        stand.hear(3, 2, Message::SnapshotRequest { snapshot: id, offset });
        let order = ChunkOrder { to: n(3), snapshot: id, offset, bytes_max };
        assert_eq!(stand.chunks.pop(), Some(order));
        let piece = format!("SnapshotChunk 4@2/10 offset={offset} bytes={bytes_max}");
        assert_eq!(stand.told(3), [piece]);
    }
    // What is beyond the end, or of a snapshot that is gone, is not there.
    stand.hear(3, 2, Message::SnapshotRequest { snapshot: id, offset: 10 });
    assert_eq!(stand.told(3), ["SnapshotChunk 4@2/10 offset=10 gone"]);
    let other = SnapshotId { digest: 9, ..id };
    stand.hear(3, 2, Message::SnapshotRequest { snapshot: other, offset: 0 });
    assert_eq!(stand.told(3), ["SnapshotChunk 4@2/10 offset=0 gone"]);
    assert_eq!(stand.chunks, []);
}

/// §7: when the follower has the snapshot the log goes on behind it.
#[test]
fn the_log_goes_on_behind_an_installed_snapshot() {
    let (mut stand, _) = leader_with_snapshot();
    let round = stand.round;
    stand.hear(3, 2, refused(3, at(1, 1), round));
    stand.propose(&["c"]).unwrap();
    stand.forget();
    assert!(matches!(stand.node.status().peers[1].pace, PeerPace::Snapshot { .. }));
    stand.hear(3, 2, accepted(4, 4, round));
    assert_eq!(stand.told(3), ["AppendEntries prev=4@2 commit=4 round=1 [5@2=c]"]);
    assert_eq!(stand.node.status().peers[1].match_index, LogIndex(4));
}

// Receiving one.

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
    stand.hear(2, 3, chunk(id, 4, "too much for it"));
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
    stand.wait(ELECTION_TIMEOUT - 1);
    stand.hear(2, 3, heartbeat(at(0, 0), 0));
    stand.wait(1);
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

/// §7, the whole way: a follower that was away for long catches up by a snapshot and the log behind
/// it.
#[test]
fn a_follower_that_was_away_catches_up_by_snapshot() {
    let mut room = Room::of(3, &voters(&[1, 2, 3]), |config| {
        config.trailing_bytes_max = 0;
        config.snapshot_chunk_bytes_max = 4;
    });
    room.set_log(1, 1, &[1; 11]);
    room.set_log(2, 1, &[1; 11]);
    room.cut_off = vec![3];
    room.elect(1);
    room.wait(HEARTBEAT);
    room.node(1).cut(12, b"the state machine");
    room.node(1).propose(&["b"]).unwrap();
    room.wait(HEARTBEAT);
    room.node(3).forget();
    room.cut_off.clear();
    room.wait(4 * HEARTBEAT);
    let follower = room.node(3);
    assert_eq!(follower.restored.len(), 1);
    assert_eq!(follower.stored[0].1, b"the state machine");
    assert_eq!((follower.commit(), follower.applies().as_str()), (13, "13@2=b"));
    let installed = Event::SnapshotInstalled { snapshot: follower.restored[0].id() };
    assert!(follower.events.contains(&installed));
    assert_eq!(room.leaders(), [(2, 1)]);
}

/// §5.3 with §7: entries that a follower has in its snapshot already are skipped; the rest is
/// appended.
#[test]
fn entries_that_the_snapshot_contains_are_skipped() {
    let mut stand = follower(&[]);
    stand.hear(2, 3, append(at(0, 0), entries(1, &[1, 2]), 2));
    stand.cut(2, b"state");
    stand.forget();
    let late: Vec<Entry> = entries(1, &[1, 2, 3]);
    stand.hear(2, 3, append(at(0, 0), late, 2));
    assert_eq!(stand.log(), "3@3");
    assert_eq!(stand.last_word(), "n1@3 → n2 AppendEntriesReply durable=3 round=1");
}
