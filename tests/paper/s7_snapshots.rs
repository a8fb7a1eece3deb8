//! §7: snapshots and log compaction, and sending them; `s7_install` has the receiver's side.

use raft_core::{
    ChunkOrder, Config, Entry, Event, Ignored, LogIndex, Message, PeerPace, Restored, Snapshot,
    SnapshotId,
};

use crate::room::Room;
use crate::stand::{ELECTION_TIMEOUT, HEARTBEAT, Stand};
use crate::words::{
    accepted, append, at, configuration, entries, entry, heartbeat, joint, n, refused, vote, voters,
};

/// Snapshots leave nothing of what they contain in the log, and travel in pieces of four bytes.
pub(crate) fn config() -> Config {
    let mut config = Config::new(n(1), 1);
    config.trailing_bytes_max = 0;
    config.snapshot_chunk_bytes_max = 4;
    config
}

/// Node 1, a follower of n2 in term 3, with a log of these terms.
pub(crate) fn follower(log: &[u64]) -> Stand {
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

/// §7: the snapshot before the newest one can still be fetched by who has begun to.
#[test]
fn the_snapshot_before_the_newest_is_still_there() {
    let (mut stand, first) = leader_with_snapshot();
    for (index, there) in [(5, true), (6, false)] {
        stand.propose(&["c"]).unwrap();
        stand.acknowledge(2, index);
        stand.cut(index, b"other bytes");
        stand.forget();
        stand.hear(3, 2, Message::SnapshotRequest { snapshot: first.id(), offset: 0 });
        let answer = if there { "bytes=4" } else { "gone" };
        assert_eq!(stand.told(3), [format!("SnapshotChunk 4@2/10 offset=0 {answer}")]);
    }
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

// The whole of it.

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
