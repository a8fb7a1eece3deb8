//! §5.3: log replication; AppendEntries of Figure 2, both sides.

use raft_core::{Fate, Ignored, LogIndex, PeerPace, PeerStatus, ProposalOutcome, Round};

use crate::room::Room;
use crate::stand::{HEARTBEAT, Stand};
use crate::words::{accepted, append, at, entries, entry, heartbeat, n, refused};

fn peer(stand: &Stand, id: u64) -> PeerStatus {
    let peers = stand.node.status().peers;
    *peers.iter().find(|peer| peer.id == n(id)).expect("a member")
}

/// Node 1 leads term 8 with the log of the leader in Figure 7, and one entry more.
fn leader_of_figure_7() -> Stand {
    let mut stand = Stand::with_log(&[1, 2, 3], 7, &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6]);
    stand.win();
    stand.forget();
    stand
}

/// A follower with this log, that has heard its leader, n2, in `term`.
fn follower(term: u64, log: &[u64]) -> Stand {
    let mut stand = Stand::with_log(&[1, 2, 3], term, log);
    stand.hear(2, term, heartbeat(at(0, 0), 0));
    stand.forget();
    stand
}

// The leader's side.

/// §5.3: a command becomes a new entry at the end of the leader's log, with its term and the next
/// index.
#[test]
fn a_leader_appends_commands_with_its_term_and_the_next_index() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    let proposed = stand.propose(&["a", "b"]).unwrap();
    assert_eq!((proposed.first, proposed.last), (at(2, 1), at(3, 1)));
    assert_eq!(stand.log(), "1@1 2@1=a 3@1=b");
}

/// §5.3: new entries go to all others at once, in one message each (§5.3: one round is enough).
#[test]
fn new_entries_go_to_all_followers_at_once() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.propose(&["a", "b"]).unwrap();
    let entries = "AppendEntries prev=1@1 commit=1 round=1 [2@1=a 3@1=b]";
    assert_eq!(stand.said(), [format!("n1@1 → n2 {entries}"), format!("n1@1 → n3 {entries}")]);
    stand.acknowledge(2, 3);
    assert_eq!(stand.commit(), 3);
}

/// §5.3: an entry is committed when a majority has it; then it is applied and its client is told;
/// not before.
#[test]
fn an_entry_is_committed_when_a_majority_has_it() {
    for (size, acknowledgements) in [(2, 1), (3, 1), (4, 2), (5, 2), (6, 3), (7, 3)] {
        let ids: Vec<u64> = (1..=size).collect();
        let mut stand = Stand::leader(&ids);
        let run = stand.propose(&["a"]).unwrap();
        for id in 2..2 + acknowledgements {
            assert_eq!((stand.commit(), stand.applies().as_str()), (1, ""), "of {size}");
            assert_eq!(stand.proposals, []);
            stand.acknowledge(id, 2);
        }
        assert_eq!((stand.commit(), stand.applies().as_str()), (2, "2@1=a"), "of {size}");
        let outcome = ProposalOutcome { first: run.first, last: run.last, fate: Fate::Committed };
        assert_eq!(stand.proposals, [outcome]);
    }
}

/// §5.3: a cluster of one needs nobody else, but its own disk.
#[test]
fn a_cluster_of_one_commits_by_its_own_disk() {
    let mut stand = Stand::leader(&[1]);
    stand.stall();
    stand.propose(&["a"]).unwrap();
    assert_eq!(stand.commit(), 1);
    stand.sync();
    assert_eq!(stand.commit(), 2);
}

/// §5.3 with Figure 2 (stable storage): what a leader has not on its disk does not count for it;
/// the others may commit without it (thesis §10.2.1).
#[test]
fn a_leader_counts_itself_only_when_its_disk_has_the_entry() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.stall();
    stand.propose(&["a"]).unwrap();
    assert_eq!(stand.told(2).len(), 1, "sent while the own disk is at it");
    stand.acknowledge(2, 2);
    assert_eq!(stand.commit(), 1);
    stand.acknowledge(3, 2);
    assert_eq!(stand.commit(), 2);
}

/// §5.3: a follower that has crashed or lost messages is sent what it lacks for as long as it
/// takes, also after the entry was committed and the client answered.
#[test]
fn a_leader_goes_on_until_every_follower_has_every_entry() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.propose(&["a"]).unwrap();
    stand.acknowledge(2, 2);
    assert_eq!(stand.commit(), 2);
    let lost = stand.told(3);
    assert!(lost.iter().any(|message| message.ends_with("[2@1=a]")));
    for _ in 0..50 {
        stand.messages.clear();
        stand.wait(HEARTBEAT);
        stand.acknowledge(2, 2);
        stand.acknowledge(3, 1);
        let again = stand.told(3);
        assert!(again.iter().any(|message| message.ends_with("[2@1=a]")), "{again:?}");
    }
}

/// §5.3: slow followers cost nobody anything: a minority is not waited for, ever.
#[test]
fn a_slow_minority_does_not_delay_commands() {
    let mut stand = Stand::leader(&[1, 2, 3, 4, 5]);
    for count in 1..100 {
        stand.propose(&["a"]).unwrap();
        stand.acknowledge(2, count + 1);
        stand.acknowledge(4, count + 1);
        assert_eq!(stand.commit(), count + 1);
    }
}

/// §5.3: with an entry all before it are committed, too, those of earlier leaders included.
#[test]
fn a_commit_covers_everything_before_it() {
    let mut stand = Stand::with_log(&[1, 2, 3], 3, &[1, 2, 3]);
    stand.win();
    stand.propose(&["a"]).unwrap();
    stand.acknowledge(3, 5);
    assert_eq!(stand.commit(), 5);
    assert_eq!(stand.applies(), "1@1 2@2 3@3 4@4 5@4=a");
}

/// §5.3: what is committed is told with everything that goes out later, heartbeats included, and an
/// idle leader tells it at once.
#[test]
fn the_commit_index_goes_along_with_every_append_entries() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.propose(&["a"]).unwrap();
    stand.forget();
    stand.acknowledge(2, 2);
    let news = ["AppendEntries prev=2@1 commit=2 round=1 []"];
    assert_eq!(stand.told(2), news);
    stand.wait(HEARTBEAT);
    assert_eq!(stand.told(3)[0], "AppendEntries prev=1@1 commit=2 round=2 []");
    stand.propose(&["b"]).unwrap();
    assert_eq!(stand.told(2), ["AppendEntries prev=2@1 commit=2 round=2 [3@1=b]"]);
}

/// §5.3: at first a leader takes every follower to have its whole log (nextIndex), and counts
/// nothing as replicated (matchIndex; Figure 2, state of leaders).
#[test]
fn a_new_leader_begins_at_the_end_of_its_log() {
    let mut stand = Stand::with_log(&[1, 2, 3], 7, &[1, 4, 6]);
    stand.win();
    let told = stand.told(2);
    assert_eq!(told[told.len() - 1], "AppendEntries prev=3@6 commit=0 round=1 [4@8]");
    assert_eq!(peer(&stand, 2).match_index, LogIndex(0));
    stand.restart();
    stand.win();
    assert_eq!(peer(&stand, 2).match_index, LogIndex(0), "an earlier leadership does not count");
}

/// Figure 2 (leaders): what is sent begins at nextIndex, and a success moves nextIndex and
/// matchIndex.
#[test]
fn an_acknowledgement_moves_next_and_match_index() {
    let mut stand = leader_of_figure_7();
    stand.acknowledge(2, 11);
    let peer = peer(&stand, 2);
    assert_eq!((peer.match_index, peer.next_index), (LogIndex(11), LogIndex(12)));
    assert_eq!(peer.pace, PeerPace::Replicate);
    stand.propose(&["a"]).unwrap();
    let told = stand.told(2);
    assert_eq!(told[told.len() - 1], "AppendEntries prev=11@8 commit=11 round=1 [12@8=a]");
}

/// Figure 2 (leaders): acknowledgements may come in any order; matchIndex never falls.
#[test]
fn a_late_acknowledgement_takes_nothing_back() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.propose(&["a", "b"]).unwrap();
    stand.acknowledge(2, 3);
    stand.acknowledge(2, 2);
    stand.hear(2, 1, refused(2, at(1, 1), Round(1)));
    assert_eq!(peer(&stand, 2).match_index, LogIndex(3));
    assert_eq!(stand.commit(), 3);
}

/// §5.3: only what is on a follower's disk counts; what it has merely received does not.
#[test]
fn entries_received_but_not_durable_do_not_count() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.propose(&["a"]).unwrap();
    let round = stand.round;
    stand.hear(2, 1, accepted(1, 2, round));
    stand.hear(3, 1, accepted(1, 2, round));
    assert_eq!((stand.commit(), peer(&stand, 2).match_index), (1, LogIndex(1)));
}

/// §5.3: after a refusal the leader goes back with nextIndex and tries again, at once.
#[test]
fn a_refusal_makes_the_leader_go_back_and_try_again() {
    let mut stand = leader_of_figure_7();
    let round = stand.round;
    stand.hear(2, 8, refused(10, at(9, 6), round));
    assert_eq!(stand.told(2), ["AppendEntries prev=9@6 commit=0 round=1 [10@6 11@8]"]);
    // Not one by one: a whole term of the follower's, or of the leader's, at a time (end of §5.3).
    stand.hear(3, 8, refused(10, at(6, 4), round));
    assert_eq!(
        stand.told(3),
        ["AppendEntries prev=5@4 commit=0 round=1 [6@5 7@5 8@6 9@6 10@6 11@8]"]
    );
}

/// §5.3: going back ends: at the latest at the beginning, which all logs share.
#[test]
fn going_back_ends_at_the_beginning() {
    let mut stand = leader_of_figure_7();
    let round = stand.round;
    stand.hear(2, 8, refused(10, at(0, 0), round));
    let told = stand.told(2);
    assert!(told[0].starts_with("AppendEntries prev=0@0 "), "{told:?}");
}

/// §5.3: a refusal that comes late, of what was asked before, does not move nextIndex.
#[test]
fn a_late_refusal_moves_nothing() {
    let mut stand = leader_of_figure_7();
    let round = stand.round;
    stand.hear(2, 8, refused(10, at(9, 6), round));
    stand.forget();
    stand.hear(2, 8, refused(10, at(3, 1), round));
    assert_eq!(stand.told(2), [""; 0]);
    assert_eq!(peer(&stand, 2).next_index, LogIndex(10));
}

/// §5.3: followers of Figure 7, (a) to (f), are all brought into line by what they refuse and
/// accept. (The golden script `figure_7` tells it message by message.)
#[test]
fn each_follower_of_figure_7_is_brought_into_line() {
    let logs: [&[u64]; 6] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    for log in logs {
        let mut room = Room::new(3);
        room.set_log(1, 7, &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6]);
        room.set_log(2, 7, &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6]);
        room.set_log(3, 7, log);
        room.cut_off = vec![3];
        room.elect(1);
        room.cut_off.clear();
        room.wait(2 * HEARTBEAT);
        assert_eq!(room.node(3).log(), room.node(1).log());
        assert_eq!(room.node(3).commit(), 11);
    }
}

/// §5.3 (Leader Append-Only): a leader never changes or removes what is in its own log, whatever
/// the others say.
#[test]
fn a_leader_only_appends_to_its_own_log() {
    let mut stand = leader_of_figure_7();
    let log = stand.log();
    let round = stand.round;
    stand.hear(2, 8, refused(10, at(0, 0), round));
    stand.hear(3, 8, append(at(3, 1), entries(4, &[7, 7]), 5));
    stand.hear(3, 7, append(at(3, 1), entries(4, &[7, 7]), 5));
    stand.propose(&["a"]).unwrap();
    assert_eq!(stand.log(), format!("{log} 12@8=a"));
}

/// §5.3: a leader makes at most one entry for an index in its term, so that position tells content.
#[test]
fn a_leader_uses_each_index_once() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    let first = stand.propose(&["a"]).unwrap();
    let second = stand.propose(&["b"]).unwrap();
    assert_eq!(second.first.index, first.last.index.next());
    assert_eq!(stand.log(), "1@1 2@1=a 3@1=b");
}

/// Figure 2 (answers): nobody can acknowledge what the leader does not have.
#[test]
fn an_acknowledgement_beyond_the_log_is_ignored() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.hear(2, 1, accepted(9, 9, Round(1)));
    assert!(stand.ignored(Ignored::BeyondLog));
    assert_eq!(peer(&stand, 2).match_index, LogIndex(1));
}

// The follower's side.

/// Figure 2 (AppendEntries, rule 2): no entry at the place before, or one of another term: refused,
/// and the log stays as it is. The answer says where agreement may begin.
#[test]
fn a_follower_refuses_what_does_not_follow_on_its_log() {
    let cases = [
        (at(5, 3), "refused prev=5 hint=3@2"), // Its log is too short.
        (at(3, 3), "refused prev=3 hint=3@2"), // Another entry is there.
        (at(3, 1), "refused prev=3 hint=2@1"), // It skips its term 2, which cannot agree.
    ];
    for (prev, refusal) in cases {
        let mut stand = follower(3, &[1, 1, 2]);
        let next = entry(prev.index.0 + 1, 3, "a");
        stand.hear(2, 3, append(prev, vec![next], 9));
        assert_eq!(stand.said(), [format!("n1@3 → n2 AppendEntriesReply {refusal} round=1")]);
        assert_eq!((stand.log().as_str(), stand.commit()), ("1@1 2@1 3@2", 0));
    }
}

/// §5.3: what follows is appended, and then acknowledged: success means that the logs are the same
/// up to the last new entry.
#[test]
fn a_follower_appends_what_follows_on_its_log() {
    let mut stand = follower(3, &[1, 1, 2]);
    stand.hear(2, 3, append(at(3, 2), vec![entry(4, 3, "a"), entry(5, 3, "b")], 0));
    assert_eq!(stand.last_word(), "n1@3 → n2 AppendEntriesReply durable=5 round=1");
    assert_eq!(stand.log(), "1@1 2@1 3@2 4@3=a 5@3=b");
}

/// Figure 2 (AppendEntries, rule 3): an entry that is different, and all behind it, give way.
#[test]
fn conflicting_entries_and_all_behind_them_are_removed() {
    let mut stand = follower(4, &[1, 1, 2, 2, 3]);
    stand.hear(2, 4, append(at(2, 1), entries(3, &[4]), 0));
    assert_eq!(stand.log(), "1@1 2@1 3@4");
    assert_eq!(stand.disk.entries.len(), 3, "on the disk, too");
    assert_eq!(stand.last_word(), "n1@4 → n2 AppendEntriesReply durable=3 round=1");
}

/// Figure 2 (AppendEntries, rules 3 and 4): what is there already stays, with what is behind it: a
/// late message cannot undo a later one.
#[test]
fn entries_that_are_there_already_stay() {
    let mut stand = follower(3, &[1, 2]);
    stand.hear(2, 3, append(at(2, 2), entries(3, &[3, 3, 3]), 0));
    stand.forget();
    stand.hear(2, 3, append(at(1, 1), entries(2, &[2, 3]), 0));
    stand.hear(2, 3, heartbeat(at(1, 1), 0));
    assert_eq!(stand.log(), "1@1 2@2 3@3 4@3 5@3");
    stand.hear(2, 3, append(at(4, 3), entries(5, &[3, 3]), 0));
    assert_eq!(stand.log(), "1@1 2@2 3@3 4@3 5@3 6@3", "what is new in it is appended");
}

/// Figure 2 (AppendEntries, rule 5): the follower's commit index follows the leader's, but not
/// beyond what this message has shown to be the leader's log.
#[test]
fn a_follower_commits_no_more_than_it_knows_to_match() {
    let mut stand = follower(3, &[1, 2, 2, 2]);
    stand.hear(2, 3, heartbeat(at(2, 2), 9));
    assert_eq!(stand.commit(), 2, "3@2 and 4@2 may not be the leader's");
    stand.hear(2, 3, append(at(2, 2), entries(3, &[2]), 9));
    assert_eq!(stand.commit(), 3);
    stand.hear(2, 3, append(at(3, 2), entries(4, &[3, 3]), 4));
    assert_eq!(stand.commit(), 4, "the leader's commit index is the limit");
    stand.hear(2, 3, heartbeat(at(3, 2), 1));
    assert_eq!(stand.commit(), 4, "never back");
}

/// §5.3, Figure 2 (all servers): what is committed is applied, in the order of the log, each once.
#[test]
fn committed_entries_are_applied_in_order_and_once() {
    let mut stand = follower(1, &[]);
    let some = vec![entry(1, 1, "a"), entry(2, 1, "b"), entry(3, 1, "c")];
    stand.hear(2, 1, append(at(0, 0), some.clone(), 1));
    assert_eq!(stand.applies(), "1@1=a");
    stand.hear(2, 1, append(at(0, 0), some, 3));
    stand.hear(2, 1, heartbeat(at(3, 1), 3));
    assert_eq!(stand.applies(), "2@1=b 3@1=c");
}

/// Figure 2 (stable storage): an entry is acknowledged when it is on the disk. A heartbeat is
/// answered at once: that the leader is followed needs no disk.
#[test]
fn an_entry_is_durable_before_it_is_acknowledged() {
    let mut stand = follower(1, &[]);
    stand.stall();
    stand.hear(2, 1, append(at(0, 0), entries(1, &[1, 1]), 0));
    assert_eq!(stand.said(), [""; 0]);
    let next_round = raft_core::Message::AppendEntries {
        prev: at(0, 0),
        entries: Vec::new().into(),
        commit: LogIndex(0),
        round: Round(2),
    };
    stand.hear(2, 1, next_round);
    assert_eq!(stand.said(), ["n1@1 → n2 AppendEntriesReply durable=0 received=2 round=2"]);
    stand.sync();
    assert_eq!(stand.said(), ["n1@1 → n2 AppendEntriesReply durable=2 round=2"]);
}

/// The same when entries are replaced while they are on their way to the disk: the late receipt of
/// the old ones says nothing about the new ones.
#[test]
fn a_receipt_for_replaced_entries_acknowledges_nothing() {
    let mut stand = follower(1, &[]);
    stand.stall();
    stand.hear(2, 1, append(at(0, 0), entries(1, &[1, 1]), 0));
    stand.hear(3, 2, append(at(0, 0), entries(1, &[2, 2]), 0));
    stand.sync();
    assert_eq!(stand.node.status().durable, LogIndex(0));
    assert_eq!(stand.said(), [""; 0]);
    stand.sync();
    assert_eq!(stand.last_word(), "n1@2 → n3 AppendEntriesReply durable=2 round=1");
}

/// §5.3: log entries are identified by index and term alone: an entry kept with that identity is
/// the same, whoever sends it.
#[test]
fn entries_of_earlier_terms_keep_their_terms() {
    let mut stand = follower(7, &[]);
    stand.hear(2, 7, append(at(0, 0), entries(1, &[1, 3, 3, 7]), 0));
    assert_eq!(stand.log(), "1@1 2@3 3@3 4@7");
}

/// §5.3 (Leader Append-Only), from the other side: a leader does not take back what it has sent, so
/// nothing in its term does, and what was acknowledged stays.
#[test]
fn what_a_leader_has_sent_stays_for_its_term() {
    let mut stand = follower(3, &[]);
    stand.hear(2, 3, append(at(0, 0), entries(1, &[1, 3, 3]), 0));
    stand.hear(2, 3, append(at(1, 1), entries(2, &[2]), 0));
    assert!(stand.ignored(Ignored::Malformed));
    assert_eq!(stand.log(), "1@1 2@3 3@3");
    stand.hear(3, 4, append(at(1, 1), entries(2, &[4]), 0));
    assert_eq!(stand.log(), "1@1 2@4", "the next leader may have something else");
}

/// §5.3: a follower that does not answer is only asked: it is not sent the same entries for ever,
/// and gets them as soon as it answers.
#[test]
fn a_silent_follower_is_only_asked() {
    let mut stand = Stand::elected(&[1, 2, 3]);
    for _ in 0..6 {
        assert!(stand.told(3).iter().any(|words| words.ends_with("[1@1]")), "it may be there");
        stand.acknowledge(2, 1);
        stand.wait(HEARTBEAT);
    }
    for _ in 0..3 {
        let told = stand.told(3);
        assert!(!told.is_empty() && told.iter().all(|words| words.ends_with("[]")), "{told:?}");
        stand.acknowledge(2, 1);
        stand.wait(HEARTBEAT);
    }
    stand.forget();
    stand.acknowledge(3, 0);
    let told = stand.told(3);
    assert!(told.iter().any(|words| words.ends_with("[1@1]")), "{told:?}");
}

/// §5.3: a leader sends what is contiguous, with terms that never fall and are not above its own.
/// Anything else comes from nobody who runs this protocol, and changes nothing.
#[test]
fn what_no_leader_can_send_changes_nothing() {
    let gap = vec![entry(1, 1, ""), entry(3, 1, "")];
    for wrong in [gap, entries(1, &[2, 1]), entries(1, &[4]), entries(2, &[1])] {
        let mut stand = follower(3, &[]);
        stand.hear(2, 3, append(at(0, 0), wrong, 1));
        assert!(stand.ignored(Ignored::Malformed));
        assert_eq!((stand.log().as_str(), stand.commit()), ("", 0));
    }
}
