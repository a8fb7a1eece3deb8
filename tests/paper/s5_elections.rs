//! §5.1 and §5.2: terms, roles, elections; RequestVote of Figure 2, both sides.

use raft_core::{BallotKind, Event, HardState, Ignored, Message, RoleKind, Round, Term};

use crate::room::Room;
use crate::stand::{ELECTION_TIMEOUT, HEARTBEAT, Stand};
use crate::words::{accepted, append, at, entry, heartbeat, n, refused, vote};

/// §5.1: there are as many votes needed as make more than half, so five servers survive two
/// failures.
#[test]
fn an_election_takes_more_than_half_of_the_votes() {
    for (size, needed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)] {
        let ids: Vec<u64> = (1..=size).collect();
        let mut stand = Stand::new(&ids);
        stand.stand_for_election();
        for (votes, id) in (1..).zip(stand.others()) {
            assert_eq!(stand.leads(), votes >= needed, "{votes} of {size}");
            stand.answer(id, true);
        }
        assert!(stand.leads(), "all of {size}");
    }
}

/// §5.2: every server begins as a follower, whatever it was before it stopped.
#[test]
fn a_server_starts_as_a_follower() {
    let mut stand = Stand::new(&[1, 2, 3]);
    assert_eq!(stand.role(), (RoleKind::Follower, 0));
    stand.win();
    stand.restart();
    assert_eq!(stand.role(), (RoleKind::Follower, 1));
}

/// §5.1, Figure 2 (persistent state): the term only rises, and a restart does not lower it.
#[test]
fn the_term_never_falls_and_survives_a_restart() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.hear(2, 5, heartbeat(at(0, 0), 0));
    stand.hear(3, 4, heartbeat(at(0, 0), 0));
    stand.hear(3, 4, vote(at(9, 4)));
    assert_eq!(stand.term(), 5);
    stand.restart();
    assert_eq!(stand.term(), 5);
}

/// §5.1: the term goes along with everything that is said.
#[test]
fn every_message_carries_its_sender_s_term() {
    let mut room = Room::new(3);
    room.elect(1);
    room.node(1).propose(&["a"]).unwrap();
    for _ in 0..4 {
        for id in 1..=3 {
            let stand = room.node(id);
            let term = stand.term();
            assert!(stand.messages.iter().all(|envelope| envelope.term.0 == term));
        }
        room.wait(HEARTBEAT);
    }
}

/// Figure 2 (all servers): a newer term in any message, question or answer, is adopted by a server
/// in any role, which follows from then on and has no vote given in that term yet.
#[test]
fn a_newer_term_in_any_message_makes_a_follower() {
    let campaign = || Stand::with_log(&[1, 2, 3], 1, &[]);
    let roles: [fn() -> Stand; 4] = [
        || Stand::with_log(&[1, 2, 3], 2, &[]),
        || {
            let mut stand = Stand::with_log(&[1, 2, 3], 2, &[]);
            stand.wait_for_timer();
            stand
        },
        || {
            let mut stand = Stand::with_log(&[1, 2, 3], 1, &[]);
            stand.stand_for_election();
            stand
        },
        || {
            let mut stand = Stand::with_log(&[1, 2, 3], 1, &[]);
            stand.win();
            stand
        },
    ];
    let answer = |granted| {
        let mut asker = campaign();
        asker.stand_for_election();
        Message::RequestVoteReply { ballot: asker.ballot(), granted }
    };
    let messages = [
        answer(false),
        answer(true),
        accepted(0, 0, Round(1)),
        refused(0, at(0, 0), Round(1)),
        heartbeat(at(0, 0), 0),
    ];
    for role in roles {
        for message in &messages {
            let mut stand = role();
            assert_eq!(stand.term(), 2);
            stand.hear(3, 7, message.clone());
            assert_eq!(stand.role(), (RoleKind::Follower, 7), "{message}");
            assert_eq!(stand.voted_for(), None);
        }
    }
}

/// §5.1: a request from an earlier term is refused. The refusal tells the term of today, so that
/// its sender steps down (Figure 2, receivers of both RPCs, rule 1).
#[test]
fn a_request_of_an_earlier_term_is_refused_with_the_current_one() {
    let mut stand = Stand::with_log(&[1, 2, 3], 4, &[1, 2]);
    stand.hear(2, 3, vote(at(9, 3)));
    assert_eq!(stand.said(), ["n1@4 → n2 RequestVoteReply refused"]);
    stand.hear(2, 3, append(at(2, 2), vec![entry(3, 3, "a")], 3));
    let refusal = "n1@4 → n2 AppendEntriesReply refused prev=0 hint=0@0 round=0";
    assert_eq!(stand.said(), [refusal]);
    assert_eq!((stand.log().as_str(), stand.commit()), ("1@1 2@2", 0));
    assert_eq!((stand.voted_for(), stand.follows()), (None, None));
}

/// §5.1: an answer of an earlier term does nothing.
#[test]
fn an_answer_of_an_earlier_term_is_dropped() {
    let mut stand = Stand::with_log(&[1, 2, 3], 4, &[1]);
    stand.win();
    stand.forget();
    stand.hear(2, 4, accepted(2, 2, Round(1)));
    assert!(stand.ignored(Ignored::StaleTerm));
    assert_eq!(stand.commit(), 0);
    assert_eq!(stand.said(), [""; 0]);
}

/// §5.1: questions go to all others at once; nobody waits for anybody.
#[test]
fn requests_are_made_in_parallel() {
    let mut stand = Stand::new(&[1, 2, 3, 4, 5]);
    stand.stand_for_election();
    let asked = stand.asked_for_votes();
    let for_real: Vec<u64> =
        asked.iter().filter(|(kind, _)| kind.binds()).map(|&(_, id)| id).collect();
    assert_eq!(for_real, [2, 3, 4, 5]);
    stand.answer(2, true);
    stand.answer(3, true);
    let entries = "AppendEntries prev=0@0 commit=0 round=1 [1@1]";
    let to_all: Vec<String> = (2..=5).map(|id| format!("n1@1 → n{id} {entries}")).collect();
    assert_eq!(stand.said(), to_all);
}

/// §5.1: what is not answered is asked again.
#[test]
fn a_question_without_an_answer_is_repeated() {
    let mut candidate = Stand::new(&[1, 2, 3]);
    candidate.stand_for_election();
    candidate.forget();
    candidate.wait(2 * ELECTION_TIMEOUT);
    assert_eq!(candidate.asked_for_votes().len(), 2, "one more campaign");
    let mut leader = Stand::elected(&[1, 2, 3]);
    leader.forget();
    leader.wait(HEARTBEAT);
    let again = leader.told(2);
    assert!(again.iter().any(|message| message.ends_with("[1@1]")), "{again:?}");
}

/// §5.2: a follower stays one as long as its leader or candidates that it votes for are heard.
#[test]
fn a_follower_stays_one_while_it_hears_from_its_leader() {
    let mut stand = Stand::new(&[1, 2, 3]);
    for _ in 0..20 {
        stand.hear(2, 1, heartbeat(at(0, 0), 0));
        stand.wait(ELECTION_TIMEOUT - 1);
    }
    assert_eq!(stand.role(), (RoleKind::Follower, 1));
    assert_eq!(stand.asked_for_votes(), []);
}

/// §5.2, Figure 2 (followers): giving a vote starts the wait anew.
#[test]
fn a_vote_given_restarts_the_election_timer() {
    let mut stand = Stand::with_log(&[1, 2, 3], 1, &[]);
    for term in 2..10 {
        stand.wait(ELECTION_TIMEOUT - 1);
        stand.hear(2, term, vote(at(0, 0)));
        assert_eq!(stand.voted_for(), Some(2));
    }
    assert_eq!(stand.asked_for_votes(), [], "ten times it would have been due");
}

/// Figure 2 (followers): only the current leader and a vote given count: neither a vote refused nor
/// a leader of the past starts the wait anew.
#[test]
fn nothing_else_restarts_the_election_timer() {
    let mut stand = Stand::with_log(&[1, 2, 3], 3, &[1, 2]);
    let before = stand.timer();
    stand.wait(100);
    stand.hear(2, 4, vote(at(1, 1)));
    stand.hear(3, 2, heartbeat(at(2, 2), 0));
    stand.hear(3, 4, accepted(0, 0, Round(1)));
    assert_eq!(stand.voted_for(), None);
    assert_eq!(stand.timer(), before - 100);
}

/// §5.2: a leader shows all followers regularly that it is there, by AppendEntries without entries.
#[test]
fn a_leader_sends_heartbeats_to_all_followers() {
    let mut stand = Stand::leader(&[1, 2, 3]);
    for round in 2..6 {
        stand.wait(HEARTBEAT);
        let heartbeat = format!("AppendEntries prev=1@1 commit=1 round={round} []");
        let to = |id| format!("n1@1 → n{id} {heartbeat}");
        assert_eq!(stand.said(), [to(2), to(3)]);
        stand.all_acknowledge();
    }
}

/// §5.2, Figure 2 (leaders): the first word of a leader to all goes out as soon as it is elected.
#[test]
fn a_new_leader_is_heard_by_all_at_once() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.stand_for_election();
    stand.forget();
    stand.answer(2, true);
    let opening = "AppendEntries prev=0@0 commit=0 round=1 [1@1]";
    assert_eq!(stand.said(), [format!("n1@1 → n2 {opening}"), format!("n1@1 → n3 {opening}")]);
}

/// §5.2: a follower that hears nothing for an election timeout begins an election, and not before.
#[test]
fn a_follower_that_hears_nothing_begins_an_election() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.wait(ELECTION_TIMEOUT - 1);
    assert_eq!(stand.asked_for_votes(), []);
    stand.wait(ELECTION_TIMEOUT + 1);
    assert!(!stand.asked_for_votes().is_empty());
}

/// §5.2, Figure 2 (candidates): an election means a term more, the own vote, a new timer and a
/// question to all others. (The question whether it can be won comes first: thesis §9.6.)
#[test]
fn a_candidate_raises_its_term_votes_for_itself_and_asks_all_others() {
    let mut stand = Stand::with_log(&[1, 2, 3], 4, &[1, 3]);
    stand.stand_for_election();
    assert_eq!(stand.role(), (RoleKind::Candidate, 5));
    assert_eq!(stand.voted_for(), Some(1));
    let said = stand.said();
    let ask = |id| format!("n1@5 → n{id} RequestVote last=2@3");
    assert_eq!(said[said.len() - 2..], [ask(2), ask(3)]);
    assert!((ELECTION_TIMEOUT..2 * ELECTION_TIMEOUT).contains(&stand.timer()));
}

/// §5.2: a server gives its vote of a term once, to whoever asks first.
#[test]
fn a_server_votes_for_at_most_one_candidate_in_a_term() {
    let mut stand = Stand::with_log(&[1, 2, 3], 1, &[]);
    stand.hear(2, 2, vote(at(0, 0)));
    stand.hear(3, 2, vote(at(5, 1)));
    let said = stand.said();
    assert_eq!(said, ["n1@2 → n2 RequestVoteReply granted", "n1@2 → n3 RequestVoteReply refused"]);
    assert_eq!(stand.voted_for(), Some(2));
    stand.hear(3, 3, vote(at(5, 1)));
    assert_eq!(stand.said(), ["n1@3 → n3 RequestVoteReply granted"], "a new term, a new vote");
}

/// Figure 2 (RequestVote, rule 2): whoever has the vote and asks again is told so again.
#[test]
fn the_same_candidate_gets_the_same_vote_again() {
    let mut stand = Stand::with_log(&[1, 2, 3], 1, &[]);
    for _ in 0..2 {
        stand.hear(2, 2, vote(at(0, 0)));
        assert_eq!(stand.said(), ["n1@2 → n2 RequestVoteReply granted"]);
    }
}

/// §5.2: a candidate has given its vote of the term to itself; a leader, too.
#[test]
fn a_candidate_refuses_its_vote_to_others_of_its_term() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.stand_for_election();
    stand.forget();
    stand.hear(3, 1, vote(at(9, 0)));
    assert_eq!(stand.said(), ["n1@1 → n3 RequestVoteReply refused"]);
    assert_eq!(stand.role(), (RoleKind::Candidate, 1));
}

/// Figure 2 (persistent state): a crash does not make a server forget whom it voted for.
#[test]
fn a_vote_survives_a_restart() {
    let mut stand = Stand::with_log(&[1, 2, 3], 1, &[]);
    stand.hear(2, 2, vote(at(0, 0)));
    stand.restart();
    stand.hear(3, 2, vote(at(0, 0)));
    stand.hear(2, 2, vote(at(0, 0)));
    let said = stand.said();
    assert_eq!(said, ["n1@2 → n3 RequestVoteReply refused", "n1@2 → n2 RequestVoteReply granted"]);
}

/// Figure 2 (persistent state): a vote is told when it is on the disk, and not earlier; nor is
/// anything else said in a term that a crash could make this server forget.
#[test]
fn a_vote_is_durable_before_it_is_told() {
    let mut stand = Stand::with_log(&[1, 2, 3], 1, &[]);
    stand.stall();
    stand.hear(2, 2, vote(at(0, 0)));
    assert_eq!(stand.said(), [""; 0]);
    assert_eq!(
        stand.writes[0].hard_state(),
        Some(HardState { term: Term(2), voted_for: Some(n(2)) })
    );
    stand.sync();
    assert_eq!(stand.said(), ["n1@2 → n2 RequestVoteReply granted"]);
    stand.hear(2, 3, heartbeat(at(0, 0), 0));
    assert_eq!(stand.said(), [""; 0], "not in term 3 yet");
    stand.sync();
    assert_eq!(stand.said().len(), 1);
}

/// The same at the other end: a candidate asks when its term and its own vote are on its disk, and
/// only then its own vote counts.
#[test]
fn a_candidate_s_own_vote_is_durable_before_it_counts() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.stall();
    stand.stand_for_election();
    assert_eq!(stand.role(), (RoleKind::Candidate, 1));
    assert_eq!(stand.asked_for_votes(), [(BallotKind::PreVote, 2), (BallotKind::PreVote, 3)]);
    stand.sync();
    assert_eq!(stand.asked_for_votes(), [(BallotKind::Vote, 2), (BallotKind::Vote, 3)]);
    // Alone it needs no other vote. The disk is still at an earlier write when the election begins.
    let mut alone = Stand::new(&[1]);
    let patience = alone.timer();
    alone.wait(patience - 100);
    alone.stall();
    alone.hear(9, 5, accepted(0, 0, Round(1)));
    alone.stand_for_election();
    assert_eq!((alone.role(), alone.writes.len()), ((RoleKind::Candidate, 6), 2));
    alone.sync();
    assert_eq!(alone.role(), (RoleKind::Candidate, 6), "that was the earlier one");
    alone.sync();
    assert_eq!(alone.role(), (RoleKind::Leader, 6));
}

/// §5.2: no voter counts twice, a refusal does not count, and nobody else's word does.
#[test]
fn votes_are_counted_once_for_each_voter() {
    let mut stand = Stand::new(&[1, 2, 3, 4, 5]);
    stand.stand_for_election();
    for _ in 0..3 {
        stand.answer(2, true);
        stand.answer(3, false);
        stand.answer(9, true);
    }
    assert_eq!(stand.role(), (RoleKind::Candidate, 1));
    stand.answer(4, true);
    assert!(stand.leads());
}

/// §5.2: votes of another term, or for another campaign, do not elect anybody.
#[test]
fn votes_for_an_earlier_campaign_do_not_count() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.stand_for_election();
    let earlier = stand.ballot();
    stand.stand_for_election();
    assert_eq!(stand.role(), (RoleKind::Candidate, 2));
    stand.events.clear();
    let vote = Message::RequestVoteReply { ballot: earlier, granted: true };
    stand.hear(2, 1, vote.clone());
    assert!(stand.ignored(Ignored::StaleTerm));
    stand.hear(2, 2, vote);
    assert!(stand.ignored(Ignored::StaleReply));
    assert_eq!(stand.role(), (RoleKind::Candidate, 2));
}

/// §5.2: a candidate that hears a leader of its own term, or of a later one, follows it.
#[test]
fn a_candidate_follows_a_leader_of_its_term_or_later() {
    for term in [1, 2] {
        let mut stand = Stand::new(&[1, 2, 3]);
        stand.stand_for_election();
        stand.hear(3, term, heartbeat(at(0, 0), 0));
        assert_eq!(stand.role(), (RoleKind::Follower, term));
        assert_eq!(stand.follows(), Some(3));
        // Its own vote of the term stays given.
        assert_eq!(stand.voted_for(), (term == 1).then_some(1));
    }
}

/// §5.2: a candidate refuses what a leader of an earlier term sends, and goes on.
#[test]
fn a_candidate_refuses_a_leader_of_an_earlier_term() {
    let mut stand = Stand::with_log(&[1, 2, 3], 1, &[]);
    stand.stand_for_election();
    stand.forget();
    stand.hear(3, 1, heartbeat(at(0, 0), 0));
    assert_eq!(stand.said(), ["n1@2 → n3 AppendEntriesReply refused prev=0 hint=0@0 round=0"]);
    assert_eq!(stand.role(), (RoleKind::Candidate, 2));
}

/// §5.2: an election that nobody wins is followed by another one, in a new term.
#[test]
fn a_split_vote_is_followed_by_an_election_in_a_new_term() {
    let mut stand = Stand::new(&[1, 2, 3, 4]);
    stand.stand_for_election();
    stand.answer(2, true);
    stand.answer(3, false);
    stand.answer(4, false);
    assert_eq!(stand.role(), (RoleKind::Candidate, 1), "two of four");
    let patience = stand.timer();
    stand.wait(patience);
    assert_eq!(stand.role(), (RoleKind::Candidate, 1), "not before the timer runs out");
    stand.win();
    assert_eq!(stand.role(), (RoleKind::Leader, 2));
}

/// §5.2: the wait for an election begins anew with the election, however long the question before
/// took.
#[test]
fn a_candidate_restarts_its_timer_when_the_election_begins() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.wait_for_timer();
    let patience = stand.timer();
    stand.wait(patience - 10);
    stand.answer(2, true);
    assert_eq!(stand.role(), (RoleKind::Candidate, 1));
    assert!((ELECTION_TIMEOUT..2 * ELECTION_TIMEOUT).contains(&stand.timer()));
}

/// §5.2: election timeouts are drawn by chance from a range, anew for every wait, and differ
/// between servers, so that elections are rarely split.
#[test]
fn election_timeouts_are_drawn_anew_from_a_range() {
    let mut drawn = Vec::new();
    let mut room = Room::new(5);
    for stand in room.stands.values_mut() {
        for term in 1..10 {
            stand.hear(if stand.id() == 1 { 2 } else { 1 }, term, heartbeat(at(0, 0), 0));
            drawn.push(stand.timer());
        }
    }
    let range = ELECTION_TIMEOUT..2 * ELECTION_TIMEOUT;
    assert!(drawn.iter().all(|time| range.contains(time)), "{drawn:?}");
    drawn.sort_unstable();
    drawn.dedup();
    assert!(drawn.len() > 30, "45 draws from 300 milliseconds: {drawn:?}");
    assert!(
        drawn[0] < ELECTION_TIMEOUT * 6 / 5 && drawn[drawn.len() - 1] > ELECTION_TIMEOUT * 9 / 5
    );
}

/// §5.1: followers only answer. They ask nothing by themselves before their timer runs out.
#[test]
fn a_follower_only_answers() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.hear(2, 1, heartbeat(at(0, 0), 0));
    assert_eq!(stand.said(), ["n1@1 → n2 AppendEntriesReply durable=0 round=1"]);
    stand.wait(ELECTION_TIMEOUT - 1);
    assert_eq!(stand.said(), [""; 0]);
}

/// §5.1: a client that comes to a follower is sent to the leader; nothing is appended.
#[test]
fn a_follower_sends_clients_to_its_leader() {
    use raft_core::ProposeRefusal::NotLeader;
    let mut stand = Stand::new(&[1, 2, 3]);
    assert_eq!(stand.propose(&["a"]), Err(NotLeader { hint: None }));
    stand.hear(2, 1, heartbeat(at(0, 0), 0));
    assert_eq!(stand.propose(&["a"]), Err(NotLeader { hint: Some(n(2)) }));
    assert_eq!(stand.log(), "");
}

/// §5.2: a leader of this term is known as soon as it is heard, and to be forgotten with the term.
#[test]
fn a_follower_knows_the_leader_of_its_term_only() {
    let mut stand = Stand::new(&[1, 2, 3]);
    stand.hear(2, 1, heartbeat(at(0, 0), 0));
    assert_eq!(stand.follows(), Some(2));
    stand.hear(3, 2, refused(0, at(0, 0), Round(1)));
    assert_eq!(stand.follows(), None);
    let role = Event::Role { role: RoleKind::Follower, term: Term(2), leader: None };
    assert!(stand.events.contains(&role));
}

/// §5.2: within one term there is no second leader. One that claims to be has no effect.
#[test]
fn a_second_leader_of_a_term_has_no_effect() {
    let mut follower = Stand::new(&[1, 2, 3]);
    follower.hear(2, 1, append(at(0, 0), vec![entry(1, 1, "a")], 0));
    follower.hear(3, 1, append(at(0, 0), vec![entry(1, 1, "b")], 1));
    assert!(follower.ignored(Ignored::SecondLeader));
    assert_eq!((follower.log().as_str(), follower.commit()), ("1@1=a", 0));
    let mut leader = Stand::leader(&[1, 2, 3]);
    leader.hear(3, 1, append(at(1, 1), vec![entry(2, 1, "b")], 2));
    assert!(leader.ignored(Ignored::SecondLeader));
    assert_eq!((leader.log().as_str(), leader.leads()), ("1@1", true));
}
