//! Thesis §6.4: reads without writing to the log; and §6.2, a leader that hears from no majority.

use raft_core::Consistency::{AtLeast, Lease, Linearizable};
use raft_core::{
    Config, Consistency, Envelope, Event, GroupId, Ignored, Incarnation, LogIndex, Message,
    QuestionId, ReadId, ReadOutcome, ReadRefused, Restored, RoleKind, Round,
};

use crate::room::Room;
use crate::stand::{ELECTION_TIMEOUT, HEARTBEAT, Stand};
use crate::words::{
    accepted, append, at, entries, heartbeat, joint, n, vote, voters, with_learners,
};

/// Reads `id` to be served at `index`.
fn served(id: u64, index: u64) -> ReadOutcome {
    ReadOutcome { id: ReadId(id), index: Ok(LogIndex(index)) }
}

fn with_leases(drift_ppm: u32) -> Config {
    let mut config = Config::new(n(1), 1);
    config.lease_clock_drift_ppm = Some(drift_ppm);
    config
}

fn follower() -> Stand {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.hear(2, 1, heartbeat(at(0, 0), 0));
    stand.forget();
    stand
}

/// §6.4, step 1: before a leader has committed an entry of its own term it does not know what is
/// committed, so reads wait.
#[test]
fn reads_wait_for_a_commit_in_the_term() {
    let mut stand = Stand::with_log(&[1, 2, 3], 1, &[1]);
    stand.win();
    stand.read(Linearizable).unwrap();
    let round = stand.round;
    stand.hear(2, 2, accepted(1, 1, round));
    stand.wait(HEARTBEAT);
    let round = stand.round;
    stand.hear(2, 2, accepted(1, 1, round));
    assert_eq!((stand.commit(), stand.reads.len()), (0, 0));
    stand.acknowledge(2, 2);
    assert_eq!((stand.commit(), stand.reads.len()), (2, 0), "and then for a round of their own");
    stand.acknowledge(2, 2);
    assert_eq!(stand.reads, [served(1, 2)]);
}

/// §6.4, steps 2 and 4: a read is served at what was committed when its round began; later commits
/// do not make it wait longer.
#[test]
fn a_read_is_served_at_the_commit_index_of_its_beginning() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.propose(&["a"]).unwrap();
    stand.acknowledge(2, 2);
    stand.read(Linearizable).unwrap();
    let round = stand.round;
    stand.propose(&["b"]).unwrap();
    stand.hear(3, 1, accepted(3, 3, Round(round.0 - 1)));
    assert_eq!((stand.commit(), stand.reads.len()), (3, 0));
    stand.acknowledge(2, 3);
    assert_eq!(stand.reads, [served(1, 2)]);
}

/// §6.4, step 3: a majority has to answer to heartbeats that were sent after the read began;
/// answers to earlier ones prove nothing.
#[test]
fn a_read_takes_a_round_of_heartbeats_of_its_own() {
    let mut stand = Stand::leader(&[1, 2, 3, 4, 5]);
    stand.wait(HEARTBEAT);
    let before = stand.round;
    stand.forget();
    stand.read(Linearizable).unwrap();
    let asked: Vec<u64> = stand.messages.iter().map(|envelope| envelope.to.get()).collect();
    assert_eq!(asked, [2, 3, 4, 5], "at once");
    for id in 2..=5 {
        stand.hear(id, 1, accepted(1, 1, before));
    }
    assert_eq!(stand.reads, []);
    stand.acknowledge(2, 1);
    stand.acknowledge(2, 1);
    assert_eq!(stand.reads, [], "two of five");
    stand.acknowledge(3, 1);
    assert_eq!(stand.reads, [served(1, 1)]);
}

/// §6.4: nor is there an answer of the future: nobody can confirm a round that has not begun.
#[test]
fn a_round_that_has_not_begun_cannot_be_confirmed() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    let next = Round(stand.round.0 + 1);
    stand.hear(2, 1, accepted(1, 1, next));
    assert!(stand.ignored(Ignored::BeyondLog));
    stand.read(Linearizable).unwrap();
    assert_eq!(stand.reads, []);
}

/// §6.4: reads that wait share a round; those that come while it is under way share the next one.
#[test]
fn reads_share_a_round() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.forget();
    for _ in 0..5 {
        stand.read(Linearizable).unwrap();
    }
    assert_eq!(stand.told(2).len(), 1);
    stand.acknowledge(2, 1);
    assert_eq!(stand.reads, [served(1, 1)], "the others came after it had begun");
    assert_eq!(stand.told(2).len(), 1);
    stand.acknowledge(2, 1);
    assert_eq!(stand.reads.len(), 5);
}

/// §6.4: learners prove nothing; in a joint phase both majorities are needed (§6).
#[test]
fn a_round_is_confirmed_by_the_voters() {
    let config = Config::new(n(1), 1);
    let mut stand = Stand::leader_with(config, with_learners(&[1, 2, 3], &[4, 5]));
    stand.read(Linearizable).unwrap();
    stand.acknowledge(4, 1);
    stand.acknowledge(5, 1);
    assert_eq!(stand.reads, []);
    stand.acknowledge(2, 1);
    assert_eq!(stand.reads.len(), 1);
    stand.change(&voters(&[1, 4, 5])).unwrap();
    assert_eq!(stand.members(), joint(&[1, 4, 5], &[1, 2, 3]).to_string());
    stand.read(Linearizable).unwrap();
    stand.acknowledge(2, 1);
    stand.acknowledge(3, 1);
    assert_eq!(stand.reads.len(), 1);
    stand.acknowledge(4, 1);
    assert_eq!(stand.reads.len(), 2);
}

/// A cluster of one has its majority in itself.
#[test]
fn a_cluster_of_one_reads_at_once() {
    let mut stand = Stand::leader(&[1]);
    stand.read(Linearizable).unwrap();
    assert_eq!(stand.reads, [served(1, 1)]);
}

/// §6.4: a leader that is one no more fails its reads: they can be tried elsewhere.
#[test]
fn a_deposed_leader_fails_its_reads() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.read(Linearizable).unwrap();
    stand.hear(2, 2, heartbeat(at(1, 1), 1));
    let failed = ReadOutcome { id: ReadId(1), index: Err(ReadRefused::LeadershipLost) };
    assert_eq!(stand.reads, [failed]);
    let mut cut_off = Stand::leader(&[1, 2, 3]);
    cut_off.read(Linearizable).unwrap();
    cut_off.wait(ELECTION_TIMEOUT);
    assert_eq!(cut_off.reads, [failed], "never served from what may be old");
}

/// §6.4: a follower asks the leader for the index, and serves the read itself at that index; all
/// that wait there share a question.
#[test]
fn a_follower_asks_the_leader_for_the_index() {
    let mut stand = follower();
    stand.read(Linearizable).unwrap();
    assert_eq!(stand.said(), ["n1@1 → n2 ReadIndex #1"]);
    stand.read(Linearizable).unwrap();
    stand.read(Linearizable).unwrap();
    assert_eq!(stand.said(), [""; 0], "one question at a time");
    let answer = |number, index| Message::ReadIndexReply {
        ticket: QuestionId { life: 1, number },
        index: Some(LogIndex(index)),
    };
    stand.hear(2, 1, answer(1, 7));
    assert_eq!(stand.reads, [served(1, 7)]);
    assert_eq!(stand.said(), ["n1@1 → n2 ReadIndex #2"]);
    stand.hear(2, 1, answer(1, 8));
    assert!(stand.ignored(Ignored::StaleReply));
    stand.hear(2, 1, answer(2, 9));
    assert_eq!(stand.reads, [served(1, 7), served(2, 9), served(3, 9)]);
}

/// §6.4: the leader treats a follower's question as a read of its own: no answer without a new
/// round.
#[test]
fn a_follower_s_question_takes_a_round_too() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.forget();
    let ticket = QuestionId { life: 9, number: 4 };
    stand.hear(3, 1, Message::ReadIndex { ticket, lease: false });
    let began = stand.told(3);
    assert_eq!(began, ["AppendEntries prev=1@1 commit=1 round=2 []"]);
    stand.hear(3, 1, accepted(1, 1, Round(1)));
    assert_eq!(stand.told(3), [""; 0]);
    stand.acknowledge(2, 1);
    assert_eq!(stand.told(3), ["ReadIndexReply #4 index=1"]);
}

/// §6.4: an answer that is lost is asked for again; who does not lead has none; and an answer to a
/// question that this follower asked before it was started anew is not taken.
#[test]
fn a_follower_s_question_is_repeated_and_refused() {
    let mut stand = follower();
    stand.read(Linearizable).unwrap();
    stand.forget();
    stand.wait(HEARTBEAT);
    assert_eq!(stand.said(), ["n1@1 → n2 ReadIndex #1"]);
    let ticket = QuestionId { life: 77, number: 1 };
    stand.hear(2, 1, Message::ReadIndexReply { ticket, index: Some(LogIndex(0)) });
    assert!(stand.ignored(Ignored::StaleReply));
    stand.hear(3, 1, Message::ReadIndex { ticket, lease: false });
    assert_eq!(stand.said(), ["n1@1 → n3 ReadIndexReply #1 refused"]);
    stand.hear(3, 2, heartbeat(at(0, 0), 0));
    let failed = ReadOutcome { id: ReadId(1), index: Err(ReadRefused::LeadershipLost) };
    assert_eq!(stand.reads, [failed]);
    let mut alone = Stand::new(&[1, 2, 3]);
    assert_eq!(alone.read(Linearizable), Err(ReadRefused::NoLeader));
}

/// §6.4.1: leases have to be asked for, in the configuration and for the read: else a majority is
/// asked.
#[test]
fn reads_use_no_lease_unless_told_to() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.read(Lease).unwrap();
    assert_eq!(stand.reads, [], "not configured");
    let mut stand = Stand::leader_with(with_leases(0), voters(&[1, 2, 3]));
    stand.read(Linearizable).unwrap();
    assert_eq!(stand.reads, [], "not wanted");
    stand.read(Lease).unwrap();
    assert_eq!(stand.reads, [served(2, 1)]);
}

/// §6.4.1: the same for a follower's reads: the leader's lease answers them if all that share the
/// question may be answered so.
#[test]
fn a_follower_s_question_uses_a_lease_only_if_told_to() {
    let mut stand = Stand::leader_with(with_leases(0), voters(&[1, 2, 3]));
    for (number, lease) in [(1, false), (2, true)] {
        let ticket = QuestionId { life: 9, number };
        stand.forget();
        stand.hear(3, 1, Message::ReadIndex { ticket, lease });
        let at_once = stand.told(3).contains(&format!("ReadIndexReply #{number} index=1"));
        assert_eq!(at_once, lease);
    }
    for (reads, question) in [(&[Lease, Lease][..], " lease"), (&[Lease, Linearizable], "")] {
        let mut stand = follower();
        // Its question is on its way: the others share the next one.
        stand.read(Linearizable).unwrap();
        for &how in reads {
            stand.read(how).unwrap();
        }
        stand.forget();
        let (ticket, index) = (QuestionId { life: 1, number: 1 }, Some(LogIndex(0)));
        stand.hear(2, 1, Message::ReadIndexReply { ticket, index });
        assert_eq!(stand.said(), [format!("n1@1 → n2 ReadIndex #2{question}")]);
    }
}

/// §6.4.1: a lease lasts for an election timeout less the drift of the clocks, from the moment at
/// which the heartbeats were sent that a majority has answered: not from that of the answers.
#[test]
fn a_lease_counts_from_the_sending_of_the_heartbeats() {
    // With clocks that may be wrong by a tenth, 300 ms · 0.9 / 1.1 = 245.45 ms.
    for (drift, lasts) in [(0, ELECTION_TIMEOUT), (100_000, 246)] {
        let mut stand = Stand::leader_with(with_leases(drift), voters(&[1, 2, 3]));
        stand.wait(HEARTBEAT);
        let round = stand.round;
        // The answer takes its time: the next heartbeats are on their way already.
        stand.wait(HEARTBEAT + 10);
        stand.hear(2, 1, accepted(1, 1, round));
        stand.wait(lasts - (HEARTBEAT + 10) - 1);
        stand.forget();
        stand.read(Lease).unwrap();
        assert_eq!(stand.reads.len(), 1, "{drift}: almost at its end");
        stand.wait(1);
        stand.forget();
        if stand.leads() {
            stand.read(Lease).unwrap();
            assert_eq!(stand.reads, [], "{drift}: at its end");
        }
    }
}

/// §6.4.1: a lease needs a commit in the term like any other read, and a majority's answers.
#[test]
fn a_lease_does_not_hold_before_a_commit_in_the_term() {
    let disk = Stand::with_log(&[1, 2, 3], 1, &[1]).disk;
    let mut stand = Stand::start(with_leases(0), disk);
    stand.wait_for_timer();
    stand.answer(2, true);
    stand.answer(2, true);
    assert!(stand.leads());
    let round = stand.round;
    stand.hear(2, 2, accepted(1, 1, round));
    stand.read(Lease).unwrap();
    assert_eq!(stand.reads, []);
}

/// §6.4.1: for a lease to mean anything, a server that has just heard from its leader must not
/// vote, even if it has been started again since, or heard of a newer term.
#[test]
fn nobody_votes_while_a_lease_may_hold() {
    let disk = Restored::empty(voters(&[1, 2, 3]));
    let mut stand = Stand::start(with_leases(0), disk);
    stand.wait(ELECTION_TIMEOUT - 1);
    stand.hear(3, 4, vote(at(9, 3)));
    assert!(stand.ignored(Ignored::LeaderIsAlive));
    assert_eq!((stand.term(), stand.voted_for()), (0, None));
    stand.hear(2, 1, heartbeat(at(0, 0), 0));
    stand.hear(3, 5, accepted(0, 0, Round(1)));
    assert_eq!((stand.term(), stand.follows()), (5, None));
    stand.hear(3, 6, vote(at(9, 3)));
    assert_eq!((stand.term(), stand.voted_for()), (5, None));
    stand.wait(ELECTION_TIMEOUT);
    stand.hear(3, 6, vote(at(9, 3)));
    assert_eq!((stand.term(), stand.voted_for()), (6, Some(3)));
}

/// §6.4: a server that is told which index to see waits for that, on any server, and gives up after
/// a while.
#[test]
fn a_read_can_wait_for_an_index() {
    let mut stand = follower();
    stand.hear(2, 1, append(at(0, 0), entries(1, &[1, 1]), 1));
    stand.read(AtLeast(LogIndex(1))).unwrap();
    stand.read(AtLeast(LogIndex(2))).unwrap();
    assert_eq!(stand.reads, [served(1, 1)]);
    stand.hear(2, 1, heartbeat(at(2, 1), 2));
    assert_eq!(stand.reads, [served(1, 1), served(2, 2)]);
    stand.read(AtLeast(LogIndex(9))).unwrap();
    stand.wait(ELECTION_TIMEOUT);
    let commit = LogIndex(2);
    let failed = ReadOutcome { id: ReadId(3), index: Err(ReadRefused::NotReached { commit }) };
    assert_eq!(stand.reads[2], failed);
}

/// §6.4, the whole way: a leader that was cut off serves no read that could miss what its successor
/// has committed; the successor does.
#[test]
fn no_read_misses_a_later_leader_s_writes() {
    for how in [Linearizable, Lease] {
        let mut room = Room::of(3, &voters(&[1, 2, 3]), |config| {
            config.lease_clock_drift_ppm = Some(0);
        });
        room.wait(ELECTION_TIMEOUT); // Until then leases of earlier leaders may hold.
        room.elect(1);
        room.wait(HEARTBEAT);
        room.node(1).forget();
        room.cut_off = vec![1];
        let mut from_lease = 0;
        for _ in 0..150 {
            let _ = room.node(1).read(how);
            let reads = std::mem::take(&mut room.node(1).reads);
            if reads.iter().any(|read| read.index.is_ok()) {
                from_lease += 1;
                assert_eq!(room.leaders(), [(1, 1)], "nobody else leads");
            }
            room.wait(10);
        }
        assert_eq!(from_lease > 0, how == Lease);
        let (_, leader) = *room.leaders().last().expect("two of three");
        assert_ne!(leader, 1);
        room.node(leader).propose(&["a"]).unwrap();
        room.talk();
        assert_eq!(room.node(1).read(how), Err(ReadRefused::NoLeader), "it has stepped down");
        room.node(leader).read(how).unwrap();
        room.talk();
        let commit = room.node(leader).commit();
        assert_eq!(room.node(leader).reads, [served(1, commit)]);
    }
}

/// §6.2: a leader that has heard from no majority for an election timeout steps down, so that
/// clients go elsewhere; one that hears from a majority stays, whoever else is silent.
#[test]
fn a_leader_that_hears_from_no_majority_steps_down() {
    let mut stand = Stand::leader(&[1, 2, 3, 4, 5]);
    for _ in 0..20 {
        stand.wait(HEARTBEAT);
        stand.acknowledge(4, 1);
        stand.acknowledge(5, 1);
    }
    assert!(stand.leads());
    stand.forget();
    for _ in 0..5 {
        stand.wait(HEARTBEAT);
        stand.acknowledge(4, 1);
    }
    assert!(stand.leads());
    stand.wait(HEARTBEAT);
    assert_eq!(stand.role(), (RoleKind::Follower, 1));
    assert!(stand.events.contains(&Event::QuorumLost { term: raft_core::Term(1) }));
}

/// §6.4: what is said to another group, to another node, or by a node to itself confirms nothing.
#[test]
fn misdirected_answers_do_not_confirm_a_round() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.read(Consistency::Linearizable).unwrap();
    let right = Envelope {
        group: GroupId(0),
        from: n(2),
        to: n(1),
        term: raft_core::Term(1),
        incarnation: Incarnation(0),
        message: accepted(1, 1, stand.round),
    };
    stand.deliver(Envelope { group: GroupId(7), ..right.clone() });
    stand.deliver(Envelope { to: n(3), ..right.clone() });
    stand.deliver(Envelope { from: n(1), ..right.clone() });
    assert_eq!(stand.reads, []);
    stand.deliver(right);
    assert_eq!(stand.reads.len(), 1);
}
