//! Thesis §4: cluster membership changes, one server at a time and any number.

use raft_core::{
    ChangeRefusal, Config, Event, Fate, Ignored, LogIndex, Membership, MembershipError, Promotion,
    RoleKind,
};

use crate::room::Room;
use crate::stand::{ELECTION_TIMEOUT, HEARTBEAT, Stand};
use crate::words::{append, at, configuration, joint, n, vote, voters, with_learners};

/// Node 1 leads three voters; n4 and n5 learn. All have everything.
fn leader() -> Stand {
    Stand::leader_with(Config::new(n(1), 1), with_learners(&[1, 2, 3], &[4, 5]))
}

/// §4.1: one server more or less needs no joint phase: any two majorities share a server. More at
/// once, or one for another, go through one (§4.3).
#[test]
fn one_server_at_a_time_needs_no_joint_phase() {
    let cases = [
        (voters(&[1, 2, 3, 4]), false),
        (voters(&[1, 2]), false),
        (voters(&[2, 3]), false),
        (with_learners(&[1, 2], &[3]), false),
        (voters(&[1, 2, 4]), true),
        (voters(&[1]), true),
        (voters(&[1, 2, 3, 4, 5]), true),
    ];
    for (target, is_joint) in cases {
        let mut stand = leader();
        stand.change(&target).unwrap();
        assert_eq!(stand.node.status().membership.is_joint(), is_joint, "{target}");
        assert_eq!(stand.node.status().membership.target(), target);
    }
}

/// §4.1: a configuration is in effect as soon as the leader has appended it: the new server is sent
/// the log and counts at once.
#[test]
fn a_new_voter_counts_as_soon_as_it_is_in_the_log() {
    let mut stand = leader();
    stand.change(&voters(&[1, 2, 3, 4])).unwrap();
    assert!(stand.told(4)[0].ends_with("[2@1={n1 n2 n3 n4}]"));
    stand.acknowledge(2, 2);
    assert_eq!(stand.commit(), 1, "two of four");
    stand.acknowledge(4, 2);
    assert_eq!(stand.commit(), 2);
    assert_eq!((stand.changes[0].change, stand.changes[0].fate), (at(2, 1), Fate::Committed));
}

/// §4.1: so does the absence of one that leaves: it is not counted any more.
#[test]
fn a_removed_voter_does_not_count_any_more() {
    let mut stand = Stand::leader(&[1, 2, 3, 4]);
    stand.change(&voters(&[1, 2, 3])).unwrap();
    stand.acknowledge(4, 2);
    assert_eq!(stand.commit(), 1);
    stand.acknowledge(3, 2);
    assert_eq!(stand.commit(), 2);
}

/// §4.1: the next change may begin when the last one is committed, its joint phase included.
#[test]
fn one_change_at_a_time() {
    let mut stand = leader();
    stand.change(&voters(&[1, 2, 4])).unwrap();
    let next = voters(&[1, 2, 3]);
    assert_eq!(stand.change(&next), Err(ChangeRefusal::InFlight { index: LogIndex(2) }));
    stand.acknowledge(2, 2);
    assert_eq!(stand.commit(), 2);
    assert_eq!(stand.change(&next), Err(ChangeRefusal::InFlight { index: LogIndex(3) }));
    stand.acknowledge(2, 3);
    assert_eq!(stand.commit(), 3);
    assert_eq!(stand.change(&voters(&[1, 2])), Ok(at(4, 1)));
}

/// The flaw in §4.1 that its author found in 2015: a leader changes nothing before it has committed
/// an entry of its own term, or two leaders' changes could both be decided without each other.
#[test]
fn no_change_before_a_commit_in_the_term() {
    let mut stand = Stand::elected(&[1, 2, 3]);
    assert_eq!(stand.change(&voters(&[1, 2])), Err(ChangeRefusal::NoCommitInTermYet));
    stand.acknowledge(2, 1);
    assert_eq!(stand.change(&voters(&[1, 2])), Ok(at(2, 1)));
}

/// §4.1: a server that has to give up a configuration again falls back to the one before, and goes
/// on with that, as a voter or not. The client is told that its change has not come about.
#[test]
fn an_uncommitted_change_can_be_undone_by_the_next_leader() {
    let mut stand = leader();
    let change = stand.change(&voters(&[1, 2, 3, 4])).unwrap();
    stand.wait(2 * ELECTION_TIMEOUT);
    assert_eq!(stand.role().0, RoleKind::Follower, "nobody answered");
    stand.hear(2, 3, append(at(1, 1), crate::words::entries(2, &[3]), 2));
    assert_eq!(stand.members(), with_learners(&[1, 2, 3], &[4, 5]).to_string());
    assert_eq!((stand.changes[0].change, stand.changes[0].fate), (change, Fate::Superseded));
}

/// §4.1: a server accepts entries from a leader that is in no configuration of its own, and votes
/// for such candidates: a new server has to begin somewhere.
#[test]
fn a_new_server_begins_with_whoever_leads() {
    // It was told of the members, without itself.
    let disk = raft_core::Restored::empty(voters(&[1, 2]));
    let mut stand = Stand::start(Config::new(n(4), 1), disk);
    let change = configuration(1, 1, voters(&[1, 3, 4]));
    stand.hear(3, 1, append(at(0, 0), vec![change], 0));
    assert_eq!((stand.follows(), stand.log().as_str()), (Some(3), "1@1={n1 n3 n4}"));
    stand.wait(ELECTION_TIMEOUT);
    stand.hear(5, 2, vote(at(1, 1)));
    assert_eq!(stand.voted_for(), Some(5));
}

/// §4.2.1: a new server begins without a vote, and is made a voter when it has caught up: when what
/// the log held at the beginning of a round took less than an election timeout to get there.
#[test]
fn a_learner_is_promoted_when_a_round_was_short() {
    let mut config = Config::new(n(1), 1);
    config.promotion = Promotion::WhenCaughtUp;
    let members = with_learners(&[1, 2, 3], &[4]);
    let mut stand = Stand::start(config, raft_core::Restored::empty(members.clone()));
    stand.win();
    stand.acknowledge(2, 1);
    assert_eq!(stand.members(), members.to_string());
    stand.wait(HEARTBEAT);
    stand.acknowledge(4, 0);
    assert_eq!(stand.members(), members.to_string(), "it answers, and has nothing yet");
    stand.acknowledge(4, 1);
    assert!(stand.events.contains(&Event::Promoting { learner: n(4) }));
    assert_eq!(stand.members(), voters(&[1, 2, 3, 4]).to_string());
}

/// §4.2.1: not when its rounds take longer than that: it would hold up the cluster.
#[test]
fn a_learner_that_is_too_slow_is_not_promoted() {
    let mut config = Config::new(n(1), 1);
    config.promotion = Promotion::WhenCaughtUp;
    let members = with_learners(&[1, 2, 3], &[4]);
    let mut stand = Stand::start(config, raft_core::Restored::empty(members.clone()));
    stand.win();
    stand.acknowledge(2, 1);
    let mut last = 1;
    for _ in 0..10 {
        // Each round it gets what the log held an election timeout ago.
        let begin = last;
        for _ in 0..7 {
            last = stand.propose(&["a"]).unwrap().last.index.0;
            stand.wait(HEARTBEAT);
            stand.acknowledge(2, last);
            stand.acknowledge(3, last);
            stand.acknowledge(4, begin - 1);
        }
        stand.acknowledge(4, begin);
    }
    assert_eq!(stand.members(), members.to_string());
    stand.all_acknowledge();
    stand.wait(HEARTBEAT);
    stand.all_acknowledge();
    assert_eq!(stand.members(), voters(&[1, 2, 3, 4]).to_string(), "until it is quick");
}

/// §4.2.1: nobody becomes a voter by itself unless asked for; and one that is silent never does.
#[test]
fn a_learner_stays_one_unless_told_otherwise() {
    let mut manual = leader();
    for _ in 0..20 {
        manual.wait(HEARTBEAT);
        manual.all_acknowledge();
    }
    assert_eq!(manual.members(), with_learners(&[1, 2, 3], &[4, 5]).to_string());
    let mut config = Config::new(n(1), 1);
    config.promotion = Promotion::WhenCaughtUp;
    let members = with_learners(&[1, 2, 3], &[4]);
    let mut silent = Stand::start(config, raft_core::Restored::empty(members.clone()));
    silent.win();
    for _ in 0..20 {
        silent.acknowledge(2, 1);
        silent.wait(HEARTBEAT);
    }
    assert!(silent.leads());
    assert_eq!(silent.members(), members.to_string());
}

/// §4.2.1, the danger of adding servers that are not there: a change after which the new voters
/// that answer are no majority is refused.
#[test]
fn a_change_that_would_lose_the_majority_is_refused() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    let refusal = Err(ChangeRefusal::WouldLoseQuorum { ready: 1, needed: 2 });
    assert_eq!(stand.change(&voters(&[1, 8, 9])), refusal);
    for _ in 0..6 {
        stand.wait(HEARTBEAT);
        stand.acknowledge(2, 1);
    }
    assert_eq!(stand.change(&voters(&[1, 3])), refusal);
    assert_eq!(stand.change(&voters(&[1, 2])), Ok(at(2, 1)));
}

/// §4.2.1: nor by servers that answer and have next to nothing of the log: nothing could be
/// committed until they have caught up.
#[test]
fn a_change_that_rests_on_empty_logs_is_refused() {
    let mut config = Config::new(n(1), 1);
    config.append_bytes_max = 100;
    config.inflight_bytes_max = 200;
    let mut stand = Stand::leader_with(config, with_learners(&[1, 2, 3], &[4, 5]));
    for index in 2..8 {
        stand.propose(&["a"]).unwrap();
        stand.acknowledge(2, index);
    }
    let refusal = Err(ChangeRefusal::WouldLoseQuorum { ready: 1, needed: 2 });
    assert_eq!(stand.change(&voters(&[1, 4, 5])), refusal);
    stand.acknowledge(4, 7);
    assert_eq!(stand.change(&voters(&[1, 4, 5])), Ok(at(8, 1)));
}

/// §4.2.2: a leader that removes itself replicates the entry, without counting itself, and steps
/// down when it is committed. In our case the one that has most of the log takes over without
/// waiting for a timeout.
#[test]
fn a_leader_that_removes_itself_leads_until_that_is_committed() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.change(&voters(&[2, 3])).unwrap();
    assert_eq!(stand.propose(&["a"]).map(|run| run.first), Ok(at(3, 1)));
    stand.acknowledge(2, 3);
    assert_eq!((stand.commit(), stand.leads()), (1, true), "it does not count itself");
    stand.forget();
    stand.acknowledge(3, 2);
    assert_eq!((stand.commit(), stand.role().0), (2, RoleKind::Follower));
    assert_eq!(stand.told(2).last().map(String::as_str), Some("TimeoutNow"));
    stand.wait(10 * ELECTION_TIMEOUT);
    assert_eq!(stand.asked_for_votes(), [], "and does not come back");
}

/// §4.2.2: a leader that demotes itself to a learner does the same, and learns from then on.
#[test]
fn a_leader_that_demotes_itself_hands_over() {
    let mut room = Room::new(3);
    room.elect(1);
    room.talk();
    room.node(1).change(&with_learners(&[2, 3], &[1])).unwrap();
    room.talk();
    let leaders = room.leaders();
    assert!(leaders.len() == 1 && leaders[0].1 != 1, "{leaders:?}");
    let (_, leader) = leaders[0];
    room.node(leader).propose(&["a"]).unwrap();
    room.wait(HEARTBEAT);
    assert!(room.node(1).applies().ends_with("=a"));
}

/// §4.2.2: a server that is on its way out may still have to lead, so that the change can be
/// committed: it campaigns as long as a configuration with it may be in force, and wins, if at all,
/// without counting itself.
#[test]
fn a_server_campaigns_until_its_removal_is_committed() {
    let removal = || append(at(0, 0), vec![configuration(1, 1, voters(&[2, 3]))], 0);
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.hear(2, 1, removal());
    stand.stand_for_election();
    assert_eq!(stand.role(), (RoleKind::Candidate, 2));
    stand.answer(3, true);
    assert_eq!(stand.role().0, RoleKind::Candidate, "its own vote does not count");
    stand.answer(2, true);
    assert_eq!(stand.role(), (RoleKind::Leader, 2));
    stand.acknowledge(2, 2);
    assert_eq!((stand.commit(), stand.leads()), (0, true), "nor does its own copy");
    stand.acknowledge(3, 2);
    assert_eq!((stand.commit(), stand.role().0), (2, RoleKind::Follower), "its duty is done");
    let mut removed = Stand::new(&[1, 2, 3]);
    removed.hear(2, 1, removal());
    removed.hear(2, 1, crate::words::heartbeat(at(1, 1), 1));
    removed.wait(10 * ELECTION_TIMEOUT);
    assert_eq!(removed.role(), (RoleKind::Follower, 1));
    assert_eq!(removed.asked_for_votes(), []);
}

/// §4.2.3: a removed server that does not know it asks for votes in ever higher terms; nobody who
/// hears from a leader takes notice. (With pre-votes it does not even come to higher terms: §9.6.)
#[test]
fn a_removed_server_does_not_disturb_the_others() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    let mut follower = Stand::new(&[1, 2, 3]);
    follower.hear(2, 1, crate::words::heartbeat(at(0, 0), 0));
    for term in 2..20 {
        stand.hear(4, term, vote(at(1, 1)));
        follower.hear(4, term, vote(at(1, 1)));
        assert!(stand.ignored(Ignored::LeaderIsAlive) && follower.ignored(Ignored::LeaderIsAlive));
    }
    assert_eq!((stand.role(), follower.term()), ((RoleKind::Leader, 1), 1));
}

/// §4.2.3: those who have left are told that they have, for an election timeout after that is
/// committed (one message might be lost), and then nothing more.
#[test]
fn those_who_have_left_are_told_so() {
    let mut stand = Stand::leader(&[1, 2, 3, 4]);
    stand.change(&voters(&[1, 2, 3])).unwrap();
    stand.acknowledge(4, 2);
    stand.wait(HEARTBEAT);
    stand.forget();
    stand.acknowledge(2, 2);
    assert_eq!((stand.commit(), stand.told(4).len()), (2, 1));
    for _ in 0..6 {
        assert_eq!(stand.node.status().peers.len(), 3);
        stand.wait(HEARTBEAT);
        stand.acknowledge(2, 2);
        stand.acknowledge(3, 2);
    }
    stand.forget();
    assert_eq!(stand.node.status().peers.len(), 2, "after an election timeout");
    stand.wait(HEARTBEAT);
    assert_eq!(stand.told(4), [""; 0]);
}

/// §4.3: any set of servers to any other; the joint phase is entered, committed and left by the
/// leader alone, and the client hears of the end, not of the middle.
#[test]
fn a_joint_phase_is_entered_and_left_by_the_leader() {
    let mut stand = leader();
    stand.change(&voters(&[1, 4, 5])).unwrap();
    stand.acknowledge(4, 2);
    assert_eq!(stand.commit(), 1, "a majority of the new ones, and one of three of the old ones");
    stand.acknowledge(2, 2);
    assert_eq!((stand.commit(), stand.changes.len()), (2, 0));
    assert_eq!(stand.members(), voters(&[1, 4, 5]).to_string());
    stand.acknowledge(5, 3);
    assert_eq!((stand.commit(), stand.changes.len()), (3, 1));
}

/// §4.3: a joint configuration is a step of the leader's, never a goal; nor is the one that is in
/// effect.
#[test]
fn a_joint_configuration_is_no_goal() {
    let mut stand = leader();
    assert_eq!(stand.change(&joint(&[1, 2], &[1, 2, 3])), Err(ChangeRefusal::JointTarget));
    let same = with_learners(&[1, 2, 3], &[4, 5]);
    assert_eq!(stand.change(&same), Err(ChangeRefusal::NoChange));
    assert_eq!(Membership::new([]), Err(MembershipError::NoVoters));
    assert_eq!(stand.log(), "1@1");
}

/// §4.1: only the leader changes the members.
#[test]
fn only_a_leader_changes_the_members() {
    let mut stand = Stand::new(&[1, 2, 3]);
    let refusal = Err(ChangeRefusal::NotLeader { hint: None });
    assert_eq!(stand.change(&voters(&[1, 2])), refusal);
}

/// §4.3, the whole way: the leader dies in the middle of the joint phase; the next one finishes the
/// change.
#[test]
fn a_change_outlives_its_leader() {
    let mut room = Room::of(5, &with_learners(&[1, 2, 3], &[4, 5]), |_| {});
    room.elect(1);
    room.talk();
    room.node(1).change(&voters(&[2, 3, 4, 5])).unwrap();
    // What it says gets as far as everybody's log, and nothing comes back.
    let said: Vec<_> = room.node(1).messages.drain(..).collect();
    for envelope in said {
        let to = envelope.to.get();
        room.node(to).deliver(envelope);
    }
    room.cut_off = vec![1];
    room.wait(1500);
    let (_, leader) = *room.leaders().last().expect("both halves have a majority without it");
    assert_ne!(leader, 1);
    assert_eq!(room.node(leader).members(), voters(&[2, 3, 4, 5]).to_string());
    room.cut_off.clear();
    room.wait(1500);
    assert_eq!(room.leaders(), [(room.node(leader).term(), leader)]);
}
