//! Thesis §3.10: leadership transfer.

use raft_core::{
    BallotKind, Config, Consistency, Event, Ignored, Message, ProposeRefusal, Restored, RoleKind,
    TransferRefusal,
};

use crate::room::Room;
use crate::stand::{ELECTION_TIMEOUT, HEARTBEAT, Stand};
use crate::words::{at, heartbeat, joint, n, transfer_vote, voters, with_learners};

/// Node 1, a leader of three whose n2 and n3 have everything.
fn leader() -> Stand {
    Stand::leader(&[1, 2, 3])
}

fn follower() -> Stand {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.hear(2, 1, heartbeat(at(0, 0), 0));
    stand.forget();
    stand
}

/// §3.10, step 1: while leadership is on its way no new commands are taken (nor changes of
/// membership).
#[test]
fn no_commands_are_taken_during_a_transfer() {
    let mut stand = leader();
    assert_eq!(stand.transfer(Some(2)), Ok(2));
    assert_eq!(stand.propose(&["a"]), Err(ProposeRefusal::Transferring { to: n(2) }));
    let change = stand.change(&voters(&[1, 2]));
    assert_eq!(change, Err(raft_core::ChangeRefusal::Transferring { to: n(2) }));
    assert_eq!(stand.log(), "1@1");
    assert_eq!(stand.transfer(Some(3)), Err(TransferRefusal::InFlight { to: n(2) }));
}

/// §3.10, steps 2 and 3: the target is sent what it lacks as usual, and told to campaign when it
/// has all of the log on its disk, and not before.
#[test]
fn the_target_has_the_whole_log_before_it_is_told() {
    let mut stand = leader();
    stand.propose(&["a", "b"]).unwrap();
    stand.forget();
    stand.transfer(Some(2)).unwrap();
    stand.acknowledge(3, 3);
    stand.acknowledge(2, 2);
    assert!(!stand.said().iter().any(|words| words.contains("TimeoutNow")));
    stand.acknowledge(2, 3);
    assert!(stand.told(2).contains(&"TimeoutNow".to_string()));
}

/// The same at once, if there is nothing to catch up with.
#[test]
fn a_target_that_has_everything_is_told_at_once() {
    let mut stand = leader();
    stand.transfer(Some(3)).unwrap();
    assert_eq!(stand.said(), ["n1@1 → n3 TimeoutNow"]);
}

/// §3.10, step 3: the target campaigns at once: in a new term, without waiting for its timer, and
/// without asking first whether it would win.
#[test]
fn the_target_campaigns_at_once() {
    let mut stand = follower();
    stand.hear(2, 1, Message::TimeoutNow);
    assert_eq!(stand.role(), (RoleKind::Candidate, 2));
    assert_eq!(stand.voted_for(), Some(1));
    assert_eq!(stand.asked_for_votes(), [(BallotKind::Transfer, 2), (BallotKind::Transfer, 3)]);
    stand.answer(3, true);
    assert_eq!(stand.role(), (RoleKind::Leader, 2));
}

/// §3.10 with §4.2.3: voters that hear from the leader vote for the target all the same: it says
/// that it has the leader's consent. The leader itself, too.
#[test]
fn a_campaign_with_consent_is_not_disregarded() {
    let mut voter = follower();
    voter.hear(3, 2, transfer_vote(at(0, 0)));
    assert_eq!(voter.said(), ["n1@2 → n3 TransferVoteReply granted"]);
    let mut old = leader();
    old.transfer(Some(2)).unwrap();
    old.forget();
    old.hear(2, 2, transfer_vote(at(1, 1)));
    assert_eq!((old.role(), old.voted_for()), ((RoleKind::Follower, 2), Some(2)));
}

/// §3.10: consent does not replace anything else: one vote a term, and only for a log that is
/// up-to-date.
#[test]
fn a_campaign_with_consent_obeys_the_other_rules() {
    let mut stand = Stand::with_log(&[1, 2, 3], 1, &[1, 1]);
    stand.hear(3, 2, transfer_vote(at(1, 1)));
    assert_eq!((stand.term(), stand.voted_for()), (2, None));
    stand.hear(2, 2, transfer_vote(at(2, 1)));
    stand.hear(3, 2, transfer_vote(at(3, 1)));
    assert_eq!(stand.voted_for(), Some(2));
}

/// §3.10: if the target does not take over in about an election timeout, the leader gives up the
/// transfer and takes commands again.
#[test]
fn a_transfer_that_does_not_succeed_ends_by_itself() {
    let mut stand = leader();
    stand.transfer(Some(2)).unwrap();
    let mut waited = 0;
    while stand.propose(&["a"]).is_err() {
        stand.wait(10);
        waited += 10;
        stand.acknowledge(2, 1);
        stand.acknowledge(3, 1);
        assert!(waited <= ELECTION_TIMEOUT + 10);
    }
    assert!(waited >= ELECTION_TIMEOUT);
    assert!(stand.leads());
    assert!(stand.events.contains(&Event::TransferFailed { to: n(2) }));
    assert_eq!(stand.transfer(Some(3)), Ok(3), "and may try another one");
}

/// §3.10: the order may be lost; it is repeated.
#[test]
fn a_lost_order_is_repeated() {
    let mut stand = leader();
    stand.transfer(Some(2)).unwrap();
    stand.forget();
    for _ in 0..3 {
        stand.wait(HEARTBEAT);
        assert!(stand.told(2).contains(&"TimeoutNow".to_string()));
        stand.all_acknowledge();
    }
}

/// §3.10: an order that is late, or from somebody who does not lead, makes nobody campaign.
#[test]
fn only_the_leader_s_order_counts() {
    let mut stand = follower();
    stand.hear(3, 1, Message::TimeoutNow);
    assert!(stand.ignored(Ignored::SecondLeader));
    stand.hear(2, 0, Message::TimeoutNow);
    assert!(stand.ignored(Ignored::StaleTerm));
    assert_eq!(stand.role(), (RoleKind::Follower, 1));
    let mut leads = leader();
    leads.hear(2, 1, Message::TimeoutNow);
    assert!(leads.ignored(Ignored::StaleReply));
    assert!(leads.leads());
}

/// §3.10: only a voter can take over, and only one that answers; nor does anybody else campaign.
#[test]
fn the_target_is_a_voter_that_answers() {
    let members = with_learners(&[1, 2, 3], &[4]);
    let mut stand = Stand::leader_with(Config::new(n(1), 1), members.clone());
    assert_eq!(stand.transfer(Some(4)), Err(TransferRefusal::NotAVoter));
    assert_eq!(stand.transfer(Some(9)), Err(TransferRefusal::NotAVoter));
    assert_eq!(stand.transfer(Some(1)), Err(TransferRefusal::AlreadyLeads));
    for _ in 0..6 {
        stand.wait(HEARTBEAT);
        stand.acknowledge(3, 1);
    }
    assert_eq!(stand.transfer(Some(2)), Err(TransferRefusal::NotAlive));
    let mut follower = follower();
    assert_eq!(follower.transfer(None), Err(TransferRefusal::NotLeader { hint: Some(n(2)) }));
    let mut learner = Stand::start(Config::new(n(4), 1), Restored::empty(members));
    learner.hear(1, 1, heartbeat(at(0, 0), 0));
    learner.hear(1, 1, Message::TimeoutNow);
    assert!(learner.ignored(Ignored::CannotLead));
    assert_eq!(learner.role(), (RoleKind::Follower, 1));
}

/// In a joint phase (§6) only a server that stays is a target: another one would have to step down
/// at once.
#[test]
fn the_target_is_not_on_its_way_out() {
    let config = Config::new(n(1), 1);
    let mut stand = Stand::leader_with(config, with_learners(&[1, 2, 3], &[4]));
    stand.change(&voters(&[1, 2, 4])).unwrap();
    stand.acknowledge(3, 2);
    assert_eq!(stand.members(), joint(&[1, 2, 4], &[1, 2, 3]).to_string());
    assert_eq!(stand.transfer(Some(3)), Err(TransferRefusal::NotAlive));
    assert_eq!(stand.transfer(None), Ok(2));
}

/// Without a target, the one is chosen that has most of the log.
#[test]
fn the_best_target_is_the_one_with_most_of_the_log() {
    let mut stand = leader();
    stand.propose(&["a", "b"]).unwrap();
    stand.acknowledge(2, 2);
    stand.acknowledge(3, 3);
    assert_eq!(stand.transfer(None), Ok(3));
}

/// §6.4.1 with §3.10: with its consent to an election a leader gives up its lease, for the rest of
/// its term.
#[test]
fn a_transfer_ends_the_lease() {
    let mut config = Config::new(n(1), 1);
    config.lease_clock_drift_ppm = Some(0);
    let mut stand = Stand::leader_with(config, voters(&[1, 2, 3]));
    stand.read(Consistency::Lease).unwrap();
    assert_eq!(stand.reads.len(), 1, "the lease holds");
    stand.transfer(Some(2)).unwrap();
    for _ in 0..8 {
        stand.wait(HEARTBEAT);
        stand.all_acknowledge();
    }
    assert_eq!(stand.node.status().transferring_to, None);
    stand.reads.clear();
    stand.read(Consistency::Lease).unwrap();
    assert_eq!(stand.reads, [], "it asks a majority, although the transfer is over");
    stand.all_acknowledge();
    assert_eq!(stand.reads.len(), 1);
}

/// §3.10, the whole way: nothing is lost, and nobody waits for a timeout.
#[test]
fn a_transfer_takes_no_election_timeout() {
    let mut room = Room::new(3);
    room.elect(1);
    room.node(1).propose(&["a"]).unwrap();
    room.node(1).transfer(Some(3)).unwrap();
    room.talk();
    assert_eq!(room.leaders(), [(2, 3)]);
    assert_eq!(room.node(3).log(), "1@1 2@1=a 3@2");
    assert_eq!(room.node(3).propose(&["b"]).map(|run| run.first), Ok(at(4, 2)));
    room.talk();
    assert_eq!(room.node(1).applies(), "1@1 2@1=a 3@2 4@2=b");
}
