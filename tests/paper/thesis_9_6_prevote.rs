//! Thesis §9.6: pre-votes, which are always on here.

use raft_core::{BallotKind, Event, Ignored, Message, RoleKind, VoteRefusal};

use crate::room::Room;
use crate::stand::{ELECTION_TIMEOUT, HEARTBEAT, Stand};
use crate::words::{append, at, entries, heartbeat, n, pre_vote, vote};

/// §9.6: a server asks whether it would win before it raises its term, as often as it has to.
#[test]
fn a_pre_candidate_does_not_raise_its_term() {
    let mut stand = Stand::with_log(&[1, 2, 3], 4, &[1]);
    for _ in 0..10 {
        stand.wait_for_timer();
        assert_eq!(stand.role(), (RoleKind::PreCandidate, 4));
        let asked = stand.asked_for_votes();
        assert_eq!(asked, [(BallotKind::PreVote, 2), (BallotKind::PreVote, 3)]);
    }
    assert_eq!((stand.voted_for(), stand.disk.hard_state.term.0), (None, 4));
}

/// §9.6: it begins the election, in the next term, when a majority would vote for it, and not
/// before.
#[test]
fn a_majority_of_pre_votes_begins_the_election() {
    for (size, needed) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
        let ids: Vec<u64> = (1..=size).collect();
        let mut stand = Stand::new(&ids);
        stand.wait_for_timer();
        for id in 2..2 + needed {
            assert_eq!(stand.role(), (RoleKind::PreCandidate, 0), "of {size}");
            stand.answer(id, true);
            stand.answer(id.min(2), stand.role().0 == RoleKind::PreCandidate);
        }
        assert_eq!(stand.term(), 1, "of {size}");
    }
}

/// §9.6: a pre-vote is no vote: the election is a question of its own to everybody.
#[test]
fn pre_votes_do_not_count_as_votes() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.wait_for_timer();
    let question = stand.ballot();
    stand.answer(2, true);
    assert_eq!(stand.role(), (RoleKind::Candidate, 1));
    for id in [2, 3] {
        let ballot = question;
        stand.hear(id, 1, Message::RequestVoteReply { ballot, granted: true });
    }
    assert_eq!(stand.role(), (RoleKind::Candidate, 1));
    assert!(stand.ignored(Ignored::StaleReply));
}

/// §9.6: a refusal does not count, and nobody counts twice.
#[test]
fn pre_votes_are_counted_once_for_each_voter() {
    let mut stand = Stand::new(&[1, 2, 3, 4, 5]);
    stand.wait_for_timer();
    for _ in 0..3 {
        stand.answer(2, true);
        stand.answer(3, false);
        stand.answer(7, true);
    }
    assert_eq!(stand.role().0, RoleKind::PreCandidate);
}

/// §9.6: whoever has not heard from a leader for an election timeout would vote for a log that is
/// up-to-date.
#[test]
fn a_pre_vote_is_granted_when_no_leader_is_heard() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.hear(2, 1, heartbeat(at(0, 0), 0));
    stand.forget();
    stand.wait(ELECTION_TIMEOUT - 1);
    stand.hear(3, 1, pre_vote(at(0, 0)));
    assert!(stand.ignored(Ignored::LeaderIsAlive));
    assert_eq!(stand.said(), [""; 0]);
    stand.wait(1);
    stand.hear(3, 1, pre_vote(at(0, 0)));
    assert_eq!(stand.said(), ["n1@1 → n3 PreVoteReply granted"]);
}

/// §9.6: and for no other log (§5.4.1).
#[test]
fn a_pre_vote_is_refused_to_a_log_that_is_behind() {
    let cases = [(at(2, 2), true), (at(3, 2), true), (at(1, 3), true), (at(1, 2), false)];
    for (last, granted) in cases {
        let mut stand = Stand::with_log(&[1, 2, 3], 3, &[1, 2]);
        stand.hear(2, 3, pre_vote(last));
        let word = if granted { "granted" } else { "refused" };
        assert_eq!(stand.said(), [format!("n1@3 → n2 PreVoteReply {word}")], "{last}");
        let why = VoteRefusal::LogBehind { candidate: last, needed: at(2, 2) };
        let refused = Event::VoteRefused { candidate: n(2), why };
        assert_eq!(stand.events.contains(&refused), !granted);
    }
}

/// §9.6: the answer binds nobody: no term, no vote, no timer changes, and others may be told the
/// same.
#[test]
fn a_pre_vote_changes_nothing_at_the_voter() {
    let mut stand = Stand::with_log(&[1, 2, 3], 3, &[1]);
    stand.wait(100);
    let (timer, disk) = (stand.timer(), stand.disk.clone());
    stand.hear(2, 3, pre_vote(at(1, 1)));
    stand.hear(3, 3, pre_vote(at(1, 1)));
    assert_eq!(stand.said(), ["n1@3 → n2 PreVoteReply granted", "n1@3 → n3 PreVoteReply granted"]);
    assert_eq!((stand.timer(), &stand.disk), (timer, &disk));
    assert_eq!((stand.role(), stand.voted_for()), ((RoleKind::Follower, 3), None));
}

/// §9.6: it is about the next term: a vote that was given in this one does not stand in its way.
#[test]
fn a_vote_given_in_this_term_does_not_refuse_a_pre_vote() {
    let mut stand = Stand::with_log(&[1, 2, 3], 2, &[]);
    stand.hear(2, 3, vote(at(0, 0)));
    stand.forget();
    stand.hear(3, 3, pre_vote(at(0, 0)));
    assert_eq!(stand.said(), ["n1@3 → n3 PreVoteReply granted"]);
    assert_eq!(stand.voted_for(), Some(2));
}

/// §9.6: a pre-candidate whose term is behind is told so, and goes on in the newer term.
#[test]
fn a_pre_candidate_of_an_earlier_term_learns_the_current_one() {
    let mut voter = Stand::with_log(&[1, 2, 3], 5, &[]);
    voter.hear(2, 4, pre_vote(at(9, 4)));
    assert_eq!(voter.said(), ["n1@5 → n2 PreVoteReply refused"]);
    let mut asker = Stand::new(&[1, 2, 3]);
    asker.wait_for_timer();
    let ballot = asker.ballot();
    asker.hear(2, 5, Message::RequestVoteReply { ballot, granted: false });
    assert_eq!(asker.role(), (RoleKind::Follower, 5));
}

/// §9.6: candidates and pre-candidates answer each other, or two of them could wait for ever.
#[test]
fn pre_candidates_answer_each_other() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.wait_for_timer();
    stand.forget();
    stand.hear(2, 0, pre_vote(at(0, 0)));
    assert_eq!(stand.said(), ["n1@0 → n2 PreVoteReply granted"]);
    assert_eq!(stand.role(), (RoleKind::PreCandidate, 0));
}

/// §9.6: a leader does not answer: there is one.
#[test]
fn a_leader_ignores_pre_votes() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    stand.hear(2, 1, pre_vote(at(9, 1)));
    stand.hear(2, 8, pre_vote(at(9, 8)));
    assert!(stand.ignored(Ignored::LeaderIsAlive));
    assert_eq!(stand.said(), [""; 0]);
    assert_eq!(stand.role(), (RoleKind::Leader, 1));
}

/// §9.6: a pre-candidate that hears from the leader goes back to following it, in the same term.
#[test]
fn a_pre_candidate_follows_the_leader_again() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.hear(2, 1, heartbeat(at(0, 0), 0));
    stand.wait_for_timer();
    assert_eq!(stand.role(), (RoleKind::PreCandidate, 1));
    stand.hear(2, 1, append(at(0, 0), entries(1, &[1]), 0));
    assert_eq!((stand.role(), stand.follows()), ((RoleKind::Follower, 1), Some(2)));
    stand.answer(3, true);
    assert_eq!(stand.role(), (RoleKind::Follower, 1), "late answers start nothing");
}

/// §9.6, the point of it: a server that was cut off comes back and disturbs nobody.
#[test]
fn a_server_that_comes_back_disturbs_nobody() {
    let mut room = Room::new(5);
    room.elect(1);
    room.talk();
    room.cut_off = vec![5];
    room.wait(20 * ELECTION_TIMEOUT);
    assert_eq!(room.node(5).role(), (RoleKind::PreCandidate, 1));
    room.cut_off.clear();
    room.wait(4 * HEARTBEAT);
    assert_eq!(room.leaders(), [(1, 1)]);
    assert_eq!(room.node(5).role(), (RoleKind::Follower, 1));
}

/// §9.6 does not cost liveness: without a leader, one is elected within a few timeouts, in the next
/// term.
#[test]
fn without_a_leader_one_is_elected() {
    let mut room = Room::new(3);
    room.wait(4 * ELECTION_TIMEOUT);
    let leaders = room.leaders();
    assert_eq!(leaders.len(), 1, "{leaders:?}");
    room.cut_off = vec![leaders[0].1];
    room.wait(4 * ELECTION_TIMEOUT);
    let later = room.leaders();
    assert_eq!(later.len(), 1, "{later:?}");
    assert!(later[0].0 > leaders[0].0 && later[0].1 != leaders[0].1);
}
