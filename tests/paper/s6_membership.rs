//! §6: membership changes by joint consensus.

use raft_core::{
    Event, Fate, HardState, Ignored, Membership, ProposeRefusal, Restored, RoleKind, Term,
};

use crate::room::Room;
use crate::stand::{ELECTION_TIMEOUT, HEARTBEAT, Stand};
use crate::words::{
    append, at, configuration, entries, entry, heartbeat, joint, n, transfer_vote, vote, voters,
    with_learners,
};

/// Node 1, leader of n1, n2 and n3 in term 1, has just begun to change to n1, n4 and n5.
fn changing() -> Stand {
    let config = raft_core::Config::new(n(1), 1);
    let mut stand = Stand::leader_with(config, with_learners(&[1, 2, 3], &[4, 5]));
    assert_eq!(stand.change(&voters(&[1, 4, 5])), Ok(at(2, 1)));
    stand
}

/// Node 1 on the way from n1, n2, n3 to n1, n4, n5 according to its log, in term 1, as a follower.
fn joint_follower() -> Stand {
    let disk = Restored {
        hard_state: HardState { term: Term(1), voted_for: None },
        entries: vec![entry(1, 1, ""), configuration(2, 1, joint(&[1, 4, 5], &[1, 2, 3]))],
        ..Restored::empty(voters(&[1, 2, 3]))
    };
    Stand::start(raft_core::Config::new(n(1), 1), disk)
}

/// §6: a change begins with a joint configuration, which takes effect as soon as it is in the log,
/// committed or not: on the leader that appends it and on the followers that receive it.
#[test]
fn a_configuration_takes_effect_when_it_is_appended() {
    let stand = changing();
    assert_eq!(stand.members(), joint(&[1, 4, 5], &[1, 2, 3]).to_string());
    assert_eq!(stand.commit(), 1);
    let mut follower = Stand::new(&[1, 2, 3]);
    let change = configuration(1, 1, joint(&[1, 4, 5], &[1, 2, 3]));
    follower.hear(2, 1, append(at(0, 0), vec![change], 0));
    assert_eq!(follower.members(), joint(&[1, 4, 5], &[1, 2, 3]).to_string());
    assert_eq!(follower.commit(), 0);
    follower.restart();
    assert_eq!(follower.members(), joint(&[1, 4, 5], &[1, 2, 3]).to_string());
}

/// §6: during the joint phase entries go to the servers of both configurations.
#[test]
fn entries_go_to_the_servers_of_both_configurations() {
    let mut stand = changing();
    stand.propose(&["a"]).unwrap();
    for entry in ["[2@1={n1 n4 n5 from n1 n2 n3}]", "[3@1=a]"] {
        let carries = |words: &str| words.ends_with(entry);
        let to = stand.messages.iter().filter(|envelope| carries(&envelope.to_string()));
        let to: Vec<u64> = to.map(|envelope| envelope.to.get()).collect();
        assert_eq!(to, [2, 3, 4, 5], "{entry}");
    }
}

/// §6: agreement takes a majority of the old servers and a majority of the new ones.
#[test]
fn a_joint_entry_is_committed_by_two_majorities() {
    for (acknowledged, commits) in
        [(&[2, 3][..], false), (&[4, 5], false), (&[2, 4], true), (&[3, 5], true)]
    {
        let mut stand = changing();
        for &id in acknowledged {
            stand.acknowledge(id, 2);
        }
        assert_eq!(stand.commit() >= 2, commits, "{acknowledged:?}");
    }
}

/// §6: so does an election.
#[test]
fn a_joint_election_takes_two_majorities() {
    for (granted, wins) in
        [(&[2, 3][..], false), (&[4, 5], false), (&[2, 4], true), (&[3, 5], true)]
    {
        let mut stand = joint_follower();
        stand.wait_for_timer();
        for &id in granted {
            stand.answer(id, true);
        }
        assert_eq!(stand.role().0 == RoleKind::Candidate, wins, "pre-votes of {granted:?}");
        if wins {
            for &id in granted {
                stand.answer(id, true);
            }
            assert!(stand.leads(), "votes of {granted:?}");
        }
    }
    let mut stand = joint_follower();
    stand.stand_for_election();
    stand.answer(2, true);
    stand.answer(3, true);
    assert!(!stand.leads(), "the old ones alone");
}

/// §6: and so does the proof that a leader still leads.
#[test]
fn a_joint_leader_needs_to_hear_from_two_majorities() {
    for (heard, stays) in [(&[2, 3][..], false), (&[4, 5], false), (&[2, 4], true)] {
        let mut stand = changing();
        for _ in 0..12 {
            stand.wait(ELECTION_TIMEOUT / 6);
            for &id in heard {
                stand.acknowledge(id, 1);
            }
        }
        assert_eq!(stand.leads(), stays, "{heard:?}");
    }
}

/// §6: any server of either configuration may be elected and lead.
#[test]
fn a_server_of_either_configuration_may_lead() {
    for id in [1, 2, 4] {
        let mut stand = Stand::start(raft_core::Config::new(n(id), 1), joint_follower().disk);
        stand.win();
        assert_eq!(stand.role(), (RoleKind::Leader, 2), "n{id}");
    }
}

/// §6: when the joint configuration is committed the leader appends the new one, by itself, and the
/// change is over when that is committed, by a majority of the new servers alone.
#[test]
fn a_committed_joint_configuration_is_followed_by_the_new_one() {
    let mut stand = changing();
    stand.acknowledge(2, 2);
    assert_eq!(stand.members(), joint(&[1, 4, 5], &[1, 2, 3]).to_string());
    stand.acknowledge(4, 2);
    assert_eq!(stand.members(), voters(&[1, 4, 5]).to_string());
    assert_eq!(stand.commit(), 2);
    stand.acknowledge(2, 3);
    stand.acknowledge(3, 3);
    assert_eq!((stand.commit(), stand.changes.len()), (2, 0), "the old ones do not count any more");
    stand.acknowledge(5, 3);
    assert_eq!(stand.commit(), 3);
    assert_eq!((stand.changes[0].change, stand.changes[0].fate), (at(2, 1), Fate::Committed));
}

/// §6: not before it is committed, whatever else is.
#[test]
fn an_uncommitted_joint_configuration_stays() {
    let config = raft_core::Config::new(n(1), 1);
    let mut stand = Stand::leader_with(config, with_learners(&[1, 2, 3], &[4, 5]));
    stand.propose(&["a"]).unwrap();
    stand.change(&voters(&[1, 4, 5])).unwrap();
    stand.acknowledge(2, 2);
    stand.acknowledge(4, 2);
    assert_eq!((stand.commit(), stand.members()), (2, joint(&[1, 4, 5], &[1, 2, 3]).to_string()));
}

/// §6: a leader that finds a joint configuration in its log, of an earlier leader that did not get
/// to the end, finishes the change: once it has committed in its own term.
#[test]
fn the_next_leader_leaves_the_joint_phase() {
    let mut stand = joint_follower();
    stand.win();
    assert_eq!(stand.log().matches('@').count(), 3);
    stand.acknowledge(2, 2);
    stand.acknowledge(4, 2);
    assert_eq!(stand.members(), joint(&[1, 4, 5], &[1, 2, 3]).to_string());
    stand.acknowledge(2, 3);
    stand.acknowledge(4, 3);
    assert_eq!(stand.members(), voters(&[1, 4, 5]).to_string());
    stand.acknowledge(4, 4);
    assert_eq!(stand.commit(), 4);
}

/// §6: until then nobody begins another change: also if the joint one is known to be committed.
#[test]
fn the_next_leader_begins_no_change_in_the_joint_phase() {
    let mut stand = joint_follower();
    stand.hear(2, 1, heartbeat(at(2, 1), 2));
    stand.win();
    assert_eq!(stand.commit(), 2);
    let refusal = raft_core::ChangeRefusal::InFlight { index: raft_core::LogIndex(2) };
    assert_eq!(stand.change(&voters(&[1, 2, 3])), Err(refusal));
}

/// §6: at no moment can two groups of servers decide without each other: each configuration that a
/// change goes through shares a member with every majority of the one before. Shown for all changes
/// among five servers. Where that is so without a joint phase, none is taken (thesis §4.1).
#[test]
fn every_step_of_a_change_overlaps_with_the_one_before() {
    let ids: Vec<u64> = (1..=5).collect();
    let sets: Vec<Vec<u64>> = (1..32_u64)
        .map(|set| ids.iter().copied().filter(|id| set >> (id - 1) & 1 == 1).collect())
        .collect();
    let quorums = |members: &Membership| -> Vec<u64> {
        (0..32_u64).filter(|set| members.is_quorum(|id| set >> (id.get() - 1) & 1 == 1)).collect()
    };
    let overlap = |one: &Membership, other: &Membership| {
        let others = quorums(other);
        quorums(one).iter().all(|set| others.iter().all(|theirs| set & theirs != 0))
    };
    let mut direct = 0;
    for old in &sets {
        for new in &sets {
            let (old, new) = (voters(old), voters(new));
            let step = old.toward(&new);
            assert!(overlap(&old, &step), "{old} to {step}");
            assert!(overlap(&step, &step.target()) && step.target() == new, "{step} to {new}");
            direct += usize::from(step == new && old != new);
        }
    }
    assert_eq!(direct, 31 * 5 - 5, "one voter more or one less, and never none");
}

/// §6: clients are served all the time.
#[test]
fn commands_are_taken_during_a_change() {
    let mut stand = changing();
    assert_eq!(stand.propose(&["a"]).map(|run| run.first), Ok(at(3, 1)));
    stand.acknowledge(2, 3);
    stand.acknowledge(4, 3);
    assert_eq!(stand.commit(), 3);
    assert_eq!(stand.log().matches('@').count(), 4, "then the new configuration");
}

/// §6: new servers are fed the log first, without a vote: they are never counted.
#[test]
fn servers_without_a_vote_receive_the_log_and_never_count() {
    let config = raft_core::Config::new(n(1), 1);
    let mut stand = Stand::leader_with(config, with_learners(&[1, 2, 3], &[4, 5]));
    stand.propose(&["a"]).unwrap();
    assert_eq!(stand.told(4), ["AppendEntries prev=1@1 commit=1 round=1 [2@1=a]"]);
    stand.acknowledge(4, 2);
    stand.acknowledge(5, 2);
    assert_eq!(stand.commit(), 1);
    let disk = Restored::empty(with_learners(&[1, 2, 3], &[4, 5]));
    let mut candidate = Stand::start(raft_core::Config::new(n(1), 1), disk.clone());
    candidate.wait_for_timer();
    assert_eq!(candidate.asked_for_votes().len(), 2, "learners are not asked");
    candidate.answer(4, true);
    candidate.answer(5, true);
    assert!(candidate.ignored(Ignored::NotAMember));
    assert_eq!(candidate.role().0, RoleKind::PreCandidate);
    let mut learner = Stand::start(raft_core::Config::new(n(4), 1), disk);
    learner.wait(10 * ELECTION_TIMEOUT);
    assert_eq!(learner.asked_for_votes(), [], "and do not ask");
}

/// §6: a leader without a vote in the new configuration leads until that is committed, without
/// counting itself, and steps down then. (Ours asks another to take over at once, so that nobody
/// waits for a timeout: thesis §4.2.2.)
#[test]
fn a_leader_outside_of_the_new_configuration_steps_down_when_it_is_committed() {
    let config = raft_core::Config::new(n(1), 1);
    let mut stand = Stand::leader_with(config, with_learners(&[1, 2, 3], &[4, 5]));
    stand.change(&voters(&[3, 4, 5])).unwrap();
    stand.acknowledge(3, 2);
    stand.acknowledge(4, 2);
    assert_eq!((stand.commit(), stand.leads()), (2, true));
    assert_eq!(stand.members(), voters(&[3, 4, 5]).to_string());
    stand.acknowledge(3, 3);
    assert_eq!((stand.commit(), stand.leads()), (2, true), "its own copy does not count");
    stand.forget();
    stand.acknowledge(4, 3);
    assert_eq!((stand.commit(), stand.role()), (3, (RoleKind::Follower, 1)));
    let said = stand.said();
    let last_words = "AppendEntries prev=3@1 commit=3 round=1 []";
    let expected = [
        format!("n1@1 → n3 {last_words}"),
        format!("n1@1 → n4 {last_words}"),
        "n1@1 → n3 TimeoutNow".to_string(),
    ];
    assert!(expected.iter().all(|words| said.contains(words)), "{said:?}");
    assert_eq!(stand.propose(&["a"]), Err(ProposeRefusal::NotLeader { hint: None }));
}

/// §6: a server that hears from a leader ignores requests for its vote: it neither votes nor takes
/// over the term, so that removed servers, which hear nothing, disturb nobody.
#[test]
fn a_request_for_a_vote_is_ignored_while_a_leader_is_heard() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.hear(2, 1, heartbeat(at(0, 0), 0));
    stand.wait(ELECTION_TIMEOUT - 1);
    stand.forget();
    stand.hear(9, 5, vote(at(9, 4)));
    stand.hear(3, 5, vote(at(9, 4)));
    assert!(stand.ignored(Ignored::LeaderIsAlive));
    assert_eq!((stand.term(), stand.voted_for(), stand.follows()), (1, None, Some(2)));
    assert_eq!(stand.said(), [""; 0]);
}

/// §6: only for the shortest election timeout: after that elections are as ever. And a leader that
/// consents to an election (thesis §4.2.3) is not protected from it.
#[test]
fn votes_are_given_again_when_the_leader_is_silent_or_consents() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.hear(2, 1, heartbeat(at(0, 0), 0));
    stand.wait(ELECTION_TIMEOUT);
    stand.hear(3, 2, vote(at(0, 0)));
    assert_eq!((stand.term(), stand.voted_for()), (2, Some(3)));
    stand.hear(3, 2, heartbeat(at(0, 0), 0));
    stand.hear(2, 3, transfer_vote(at(0, 0)));
    assert_eq!((stand.term(), stand.voted_for()), (3, Some(2)));
}

/// §6: a leader does not let itself be deposed by such a request either, while a majority answers.
#[test]
fn a_leader_ignores_requests_for_votes() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.hear(9, 7, vote(at(9, 6)));
    assert!(stand.ignored(Ignored::LeaderIsAlive));
    assert_eq!(stand.role(), (RoleKind::Leader, 1));
}

/// §6: whoever is not in the newest configuration that a server knows is listened to all the same:
/// it may be in one that the server does not know yet.
#[test]
fn leaders_and_candidates_from_elsewhere_are_listened_to() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.hear(8, 1, append(at(0, 0), entries(1, &[1]), 1));
    assert_eq!((stand.log().as_str(), stand.commit(), stand.follows()), ("1@1", 1, Some(8)));
    stand.wait(ELECTION_TIMEOUT);
    stand.hear(9, 2, vote(at(1, 1)));
    assert_eq!(stand.voted_for(), Some(9));
    // And a server that is in no configuration that it knows of votes, too: its vote may be needed.
    let mut outsider =
        Stand::start(raft_core::Config::new(n(7), 1), Restored::empty(voters(&[1, 2, 3])));
    outsider.hear(1, 1, vote(at(0, 0)));
    assert_eq!(outsider.said(), ["n7@1 → n1 RequestVoteReply granted"]);
}

/// §6: the newest configuration in the log counts; if it is removed from there, the one before.
#[test]
fn a_removed_configuration_gives_way_to_the_one_before() {
    let mut stand = Stand::new(&[1, 2, 3]);
    let first = configuration(1, 1, voters(&[1, 2, 3, 4]));
    let second = configuration(2, 1, joint(&[1, 5], &[1, 2, 3, 4]));
    stand.hear(2, 1, append(at(0, 0), vec![first, second], 0));
    assert_eq!(stand.members(), joint(&[1, 5], &[1, 2, 3, 4]).to_string());
    stand.hear(3, 2, append(at(1, 1), entries(2, &[2]), 0));
    assert_eq!(stand.members(), voters(&[1, 2, 3, 4]).to_string());
    stand.hear(2, 3, append(at(0, 0), entries(1, &[3]), 0));
    assert_eq!(stand.members(), voters(&[1, 2, 3]).to_string());
    let changes = stand.events.iter();
    let changes = changes.filter(|event| matches!(event, Event::MembershipChanged { .. }));
    assert_eq!(changes.count(), 4, "each is told");
}

/// §6, the whole way, any set to any other: three servers hand over to three others, one of which
/// leads in the end; what was committed is there.
#[test]
fn a_whole_cluster_is_replaced_in_one_request() {
    let mut room = Room::of(6, &with_learners(&[1, 2, 3], &[4, 5, 6]), |_| {});
    room.elect(1);
    room.node(1).propose(&["a"]).unwrap();
    room.wait(200);
    room.node(1).change(&voters(&[4, 5, 6])).unwrap();
    room.wait(200);
    let leaders = room.leaders();
    assert!(leaders.len() == 1 && leaders[0].1 >= 4, "{leaders:?}");
    for id in 1..=6 {
        assert_eq!(room.node(id).members(), voters(&[4, 5, 6]).to_string(), "n{id}");
    }
    room.cut_off = vec![1, 2, 3];
    let leader = leaders[0].1;
    room.node(leader).propose(&["b"]).unwrap();
    room.wait(200);
    assert!(room.node(6).applies().ends_with("=b"));
    assert_eq!(room.node(1).changes[0].fate, Fate::Committed);
}

/// §6: removed servers disturb nobody. One that knows of its removal does not even ask; one that
/// does not know asks and is not heard.
#[test]
fn removed_servers_disturb_nobody() {
    let mut room = Room::new(5);
    room.elect(1);
    room.wait(HEARTBEAT);
    room.cut_off = vec![5];
    room.node(1).change(&voters(&[1, 2, 3])).unwrap();
    room.wait(ELECTION_TIMEOUT + HEARTBEAT);
    assert_eq!(room.node(4).members(), voters(&[1, 2, 3]).to_string(), "it was told");
    assert_eq!(room.node(5).members(), voters(&[1, 2, 3, 4, 5]).to_string(), "it was not");
    room.cut_off.clear();
    room.wait(10 * ELECTION_TIMEOUT);
    assert_eq!(room.leaders(), [(1, 1)]);
    assert_eq!(room.node(4).role(), (RoleKind::Follower, 1));
    assert_eq!(room.node(5).role(), (RoleKind::PreCandidate, 1));
}
