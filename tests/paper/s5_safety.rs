//! §5.4 to §5.6, and the five properties of Figure 3.

use std::time::Duration;

use raft_core::{Config, Event, Fate, Ignored, Node, StartError, VoteRefusal};

use crate::room::Room;
use crate::stand::{HEARTBEAT, Stand};
use crate::words::{append, at, entries, entry, heartbeat, n, vote};

/// §5.4.1: a vote goes to no log that is behind the voter's: first the terms of the last entries
/// are compared, and the lengths if these are the same.
#[test]
fn a_vote_goes_only_to_a_log_that_is_at_least_as_up_to_date() {
    let cases = [
        (at(3, 2), true),  // the same
        (at(4, 2), true),  // longer
        (at(2, 2), false), // shorter
        (at(1, 3), true),  // shorter, of a later term
        (at(9, 1), false), // longer, of an earlier term
        (at(0, 0), false), // empty
    ];
    for (last, granted) in cases {
        let mut stand = Stand::with_log(&[1, 2, 3], 3, &[1, 2, 2]);
        stand.hear(2, 4, vote(last));
        let word = if granted { "granted" } else { "refused" };
        assert_eq!(stand.said(), [format!("n1@4 → n2 RequestVoteReply {word}")], "{last}");
        assert_eq!(stand.voted_for(), granted.then_some(2));
        let why = VoteRefusal::LogBehind { candidate: last, needed: at(3, 2) };
        let refused = Event::VoteRefused { candidate: n(2), why };
        assert_eq!(stand.events.contains(&refused), !granted);
    }
}

/// §5.4.1: what is not committed, and what is not on the disk yet, is part of the log as well.
#[test]
fn uncommitted_entries_count_for_the_comparison() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.stall();
    stand.hear(2, 1, append(at(0, 0), entries(1, &[1]), 0));
    stand.wait(600);
    stand.hear(3, 2, vote(at(0, 0)));
    assert_eq!(stand.voted_for(), None);
    assert!(matches!(stand.events[stand.events.len() - 1], Event::VoteRefused { .. }));
}

/// §5.4.1: a candidate tells with its question where its log ends.
#[test]
fn a_candidate_tells_the_end_of_its_log() {
    let mut stand = Stand::with_log(&[1, 2, 3], 5, &[1, 2, 2, 5]);
    stand.stand_for_election();
    let told = stand.told(3);
    assert_eq!(told, ["PreVote last=4@5", "RequestVote last=4@5"]);
}

/// §5.4.2: that a majority has an entry of an earlier term does not commit it; only an entry of the
/// leader's own term is counted, and takes along what is before it. (Golden: `figure_8`,
/// `figure_8_committed`, `commit_needs_entry_of_own_term`.)
#[test]
fn an_entry_of_an_earlier_term_is_not_committed_by_counting() {
    let mut stand = Stand::with_log(&[1, 2, 3, 4, 5], 3, &[1, 2]);
    stand.win();
    stand.acknowledge(2, 2);
    stand.acknowledge(3, 2);
    stand.acknowledge(4, 2);
    assert_eq!((stand.commit(), stand.applies().as_str()), (0, ""));
    stand.acknowledge(2, 3);
    stand.acknowledge(3, 3);
    assert_eq!((stand.commit(), stand.applies().as_str()), (3, "1@1 2@2 3@4"));
}

/// §5.4.2: entries keep the term of the leader that made them when a later one replicates them.
#[test]
fn a_later_leader_does_not_change_the_terms_of_entries() {
    let mut stand = Stand::with_log(&[1, 2, 3], 6, &[1, 3, 3]);
    stand.win();
    let round = stand.round;
    stand.forget();
    stand.hear(2, 7, crate::words::refused(3, at(0, 0), round));
    assert_eq!(stand.told(2), ["AppendEntries prev=0@0 commit=0 round=1 [1@1 2@3 3@3 4@7]"]);
}

/// §5.4.2 and §8: a new leader opens its term with an empty entry of its own, so that what it has
/// inherited can be committed without a client's help.
#[test]
fn a_leader_opens_its_term_with_an_empty_entry() {
    let mut stand = Stand::with_log(&[1, 2, 3], 3, &[1, 3]);
    stand.win();
    assert_eq!(stand.log(), "1@1 2@3 3@4");
    stand.acknowledge(3, 3);
    assert_eq!(stand.commit(), 3);
}

/// Figure 3, Election Safety: two candidates of one term share the voters: at most one wins.
#[test]
fn figure_3_election_safety() {
    let mut room = Room::new(5);
    // Both get as far as being candidates in term 1 before any voter is asked for real.
    for id in [1, 5] {
        room.node(id).stand_for_election();
        room.node(id).messages.retain(|envelope| match &envelope.message {
            raft_core::Message::RequestVote { ballot, .. } => ballot.kind.binds(),
            _ => true,
        });
    }
    room.talk();
    let leaders = room.leaders();
    assert_eq!(leaders.len(), 1, "{leaders:?}");
    assert_eq!(room.node(1).term(), room.node(5).term());
}

/// Figure 3, Leader Append-Only: however often leaders change, what a leader has in its log when
/// its term begins is there when it ends, and what follows is new.
#[test]
fn figure_3_leader_append_only() {
    let mut room = Room::new(3);
    let mut terms = Vec::new();
    for _ in 0..6 {
        room.wait(1500);
        let (term, leader) = *room.leaders().last().expect("two of three are connected");
        terms.push(term);
        let before = room.node(leader).log();
        room.node(leader).propose(&["x"]).unwrap();
        room.cut_off.clear();
        room.wait(4 * HEARTBEAT);
        let after = room.node(leader).log();
        assert!(after.starts_with(&format!("{before} ")), "{before} | {after}");
        // It goes on alone for a while, with entries that the next leader will not have.
        room.cut_off = vec![leader];
        room.node(leader).propose(&["y"]).unwrap();
        assert!(room.node(leader).log().starts_with(&after));
    }
    assert!(terms.is_sorted_by(|earlier, later| earlier < later), "{terms:?}");
}

/// Figure 3, Log Matching: two logs with the same entry somewhere are the same up to there.
#[test]
fn figure_3_log_matching() {
    let mut room = with_divergent_logs();
    for id in 1..=5 {
        assert_matching(&mut room, id);
    }
    room.cut_off.clear();
    room.wait(1500);
    for id in 1..=5 {
        assert_matching(&mut room, id);
    }
    let log = room.node(1).log();
    assert!((2..=5).all(|id| room.node(id).log() == log), "in the end all are the same");
}

fn assert_matching(room: &mut Room, id: u64) {
    let log = room.node(id).log();
    for other in 1..=5 {
        let theirs = room.node(other).log();
        let (mine, theirs): (Vec<_>, Vec<_>) =
            (log.split(' ').collect(), theirs.split(' ').collect());
        let same = (0..mine.len().min(theirs.len())).rev().find(|&i| mine[i] == theirs[i]);
        assert!(same.is_none_or(|i| mine[..i] == theirs[..i]), "n{id} and n{other}");
    }
}

/// Five nodes, of which n1 has entries of term 1 that nobody else has, and n2 leads the others.
fn with_divergent_logs() -> Room {
    let mut room = Room::new(5);
    room.elect(1);
    room.node(1).propose(&["a"]).expect("it leads");
    room.wait(2 * HEARTBEAT);
    room.cut_off = vec![1];
    room.node(1).propose(&["lost", "lost too"]).expect("it leads");
    room.wait(700);
    let (_, leader) = *room.leaders().last().expect("the other four have elected somebody");
    room.node(leader).propose(&["b"]).expect("it leads");
    room.wait(2 * HEARTBEAT);
    room
}

/// Figure 3, Leader Completeness: what is committed is in the log of every later leader: a server
/// without it is not elected, however often it tries.
#[test]
fn figure_3_leader_completeness() {
    let mut room = Room::new(3);
    room.elect(1);
    room.cut_off = vec![3];
    room.node(1).propose(&["a"]).unwrap();
    room.wait(2 * HEARTBEAT);
    assert_eq!(room.node(1).commit(), 2);
    room.cut_off = vec![1];
    // n3, which has nothing, tries ten times before n2's timer would run out.
    for _ in 0..10 {
        room.node(3).wait_for_timer();
        room.talk();
        assert!(!room.node(3).leads());
    }
    room.wait(1500);
    assert!(room.node(2).leads());
    assert!(room.node(2).log().contains("2@1=a"));
}

/// Figure 3, State Machine Safety: no two servers apply different entries at one index.
#[test]
fn figure_3_state_machine_safety() {
    let mut room = with_divergent_logs();
    room.cut_off.clear();
    room.wait(1500);
    let applied: Vec<String> = room.stands.values_mut().map(Stand::applies).collect();
    assert!(applied.iter().all(|words| *words == applied[0]), "{applied:?}");
    assert!(applied[0].contains("2@1=a") && applied[0].contains("=b"));
    assert!(!applied[0].contains("lost"));
    let fates: Vec<Fate> = room.node(1).proposals.iter().map(|outcome| outcome.fate).collect();
    assert_eq!(fates, [Fate::Committed, Fate::Superseded]);
}

/// §5.4.3: what is committed is never removed again: entries that contradict it have no effect.
#[test]
fn committed_entries_are_never_removed() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.hear(2, 1, append(at(0, 0), entries(1, &[1, 1]), 2));
    stand.hear(3, 2, append(at(1, 1), entries(2, &[2]), 2));
    assert!(stand.ignored(Ignored::ContradictsCommit));
    assert_eq!((stand.log().as_str(), stand.commit()), ("1@1 2@1", 2));
}

/// §5.5: a request that arrives twice does no more than one that arrives once.
#[test]
fn requests_are_idempotent() {
    let mut stand = Stand::new(&[1, 2, 3]);
    let message = append(at(0, 0), vec![entry(1, 1, "a"), entry(2, 1, "b")], 1);
    stand.hear(2, 1, message.clone());
    let (log, commit) = (stand.log(), stand.commit());
    stand.forget();
    for _ in 0..3 {
        stand.hear(2, 1, message.clone());
        assert_eq!(stand.said(), ["n1@1 → n2 AppendEntriesReply durable=2 round=1"]);
    }
    assert_eq!((stand.log(), stand.commit()), (log, commit));
    assert_eq!(stand.applies(), "");
    let mut voter = Stand::with_log(&[1, 2, 3], 1, &[]);
    for _ in 0..3 {
        voter.hear(2, 2, vote(at(0, 0)));
        assert_eq!((voter.voted_for(), voter.term()), (Some(2), 2));
    }
}

/// §5.5: a server that crashed between doing and answering is asked again when it is back, and
/// answers.
#[test]
fn a_crashed_follower_is_brought_up_to_date_when_it_is_back() {
    let mut room = Room::new(3);
    room.elect(1);
    room.cut_off = vec![3];
    room.node(1).propose(&["a", "b"]).unwrap();
    room.wait(200);
    room.node(3).restart();
    room.cut_off.clear();
    room.wait(2 * HEARTBEAT);
    assert_eq!(room.node(3).log(), "1@1 2@1=a 3@1=b");
    assert_eq!(room.node(3).commit(), 3);
    assert_eq!(room.leaders(), [(1, 1)]);
}

/// Figure 2 (persistent and volatile state): term, vote and log are there after a crash; the commit
/// index is learned anew, and entries are applied again from the beginning.
#[test]
fn a_restart_keeps_the_log_and_learns_the_commit_index_anew() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.hear(2, 1, append(at(0, 0), entries(1, &[1, 1]), 2));
    assert_eq!((stand.commit(), stand.applies().as_str()), (2, "1@1 2@1"));
    stand.restart();
    assert_eq!((stand.log().as_str(), stand.commit()), ("1@1 2@1", 0));
    stand.hear(2, 1, heartbeat(at(2, 1), 2));
    assert_eq!((stand.commit(), stand.applies().as_str()), (2, "1@1 2@1"));
}

/// Figure 2 (stable storage): what the disk had not finished at a crash was promised to nobody.
#[test]
fn a_crash_takes_back_no_promise() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.hear(2, 1, append(at(0, 0), entries(1, &[1]), 0));
    stand.forget();
    stand.stall();
    stand.hear(2, 1, append(at(1, 1), entries(2, &[1, 1]), 0));
    assert_eq!(stand.said(), [""; 0]);
    stand.restart();
    assert_eq!(stand.log(), "1@1");
    stand.hear(2, 1, append(at(3, 1), entries(4, &[1]), 0));
    let asked = ["n1@1 → n2 AppendEntriesReply refused prev=3 hint=1@1 round=1"];
    assert_eq!(stand.said(), asked);
}

/// §5.6: an election timeout that is not well above the time between heartbeats is refused at the
/// start.
#[test]
fn an_election_timeout_near_the_heartbeat_interval_is_refused() {
    let mut config = Config::new(n(1), 1);
    config.election_timeout = config.heartbeat_interval * 4 - Duration::from_nanos(1);
    let disk = Stand::new(&[1, 2, 3]).disk;
    let error = Node::new(config, disk, raft_core::Instant::default()).map(|_| ()).unwrap_err();
    let StartError::Config(error) = error else { panic!("{error}") };
    assert_eq!(error.field, "election_timeout");
}

/// §5.6: as long as messages are faster than timeouts, a leader stays for ever; when it is gone,
/// another one is there within a few election timeouts.
#[test]
fn a_steady_leader_stays_and_a_lost_one_is_replaced() {
    let mut room = Room::new(5);
    room.elect(2);
    room.wait(6000);
    assert_eq!(room.leaders(), [(1, 2)]);
    room.cut_off = vec![2];
    room.wait(1500);
    let leaders = room.leaders();
    assert!(leaders.len() == 1 && leaders[0].1 != 2, "{leaders:?}");
}
