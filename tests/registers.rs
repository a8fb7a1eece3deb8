//! The black-box judge of leaderboards, judged: histories that a leaderboard really gave pass, each kind
//! of lie is named.
#![allow(unreachable_pub, reason = "a module of a test is nobody's library")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "harness/leaderboard/registers.rs"]
mod registers;

use leaderboard_app::command::{AddVote, Command};
use leaderboard_app::leaderboard::Leaderboard;
use leaderboard_app::reply::{Outcome, Receipt};
use leaderboard_app::types::{BoardId, Player, Score};
use proptest::collection::vec;
use proptest::prelude::*;
use raft_core::{LogIndex, LogPosition, Term, Timestamp};
use registers::{Answer, Asked, Observed, check};

fn add(player: &str, call: u64, delta: i64, answered: Option<(u64, Answer)>) -> Observed {
    Observed { client: 1, player: player.into(), call, asked: Asked::Add(delta), answered }
}

fn read(player: &str, call: u64, back: u64, score: Option<i64>) -> Observed {
    let answered = Some((back, Answer::Score(score)));
    Observed { client: 2, player: player.into(), call, asked: Asked::Read, answered }
}

fn added(back: u64, score: i64) -> Option<(u64, Answer)> {
    Some((back, Answer::Added(score)))
}

#[test]
fn players_do_not_explain_each_other() {
    let mut history = vec![
        add("a", 1, 5, added(2, 5)),
        read("b", 3, 4, None),
        add("b", 1, 7, None),
        read("b", 5, 6, Some(7)),
        read("a", 5, 6, Some(5)),
    ];
    assert_eq!(check(&history), Ok(()));
    history.push(read("a", 7, 8, Some(12)));
    let why = check(&history).unwrap_err();
    assert!(why.starts_with("player \"a\": not linearizable"), "{why}");
}

#[test]
fn a_retry_counts_once() {
    let retried = add("a", 1, 5, added(9, 5));
    assert_eq!(check(&[retried.clone(), read("a", 10, 11, Some(5))]), Ok(()));
    assert!(check(&[retried, read("a", 10, 11, Some(10))]).is_err());
}

#[test]
fn what_was_refused_never_happened() {
    let refused = |answer| add("a", 1, 5, Some((2, answer)));
    let history = |answer| [refused(answer), read("a", 3, 4, None)];
    assert_eq!(check(&history(Answer::NotApplied)), Ok(()));
    assert!(check(&history(Answer::Added(5))).is_err());
    assert!(check(&[refused(Answer::NotApplied), read("a", 3, 4, Some(5))]).is_err());
    let max = Score::MAX.get();
    let full = [
        add("a", 1, max, added(2, max)),
        add("a", 3, 1, Some((4, Answer::OutOfBounds(max)))),
        read("a", 5, 6, Some(max)),
    ];
    assert_eq!(check(&full), Ok(()));
    assert!(check(&[refused(Answer::OutOfBounds(0))]).is_err());
}

#[test]
fn an_acknowledged_vote_is_not_lost() {
    let history = [add("a", 1, 5, added(2, 5)), add("a", 3, 2, added(4, 2))];
    let why = check(&history).unwrap_err();
    assert!(why.contains("Add(2) -> Added(2)"), "{why}");
}

/// One operation: of whom, by whom, when, and whether its answer is lost.
type Part = (u64, String, Option<i64>, (u64, u64, u64), bool);

/// What clients see of a real leaderboard when each operation happens at a moment of its own, somewhere
/// between call and answer; the answers of some get lost.
fn observed(parts: Vec<Part>) -> Vec<Observed> {
    let mut leaderboard = Leaderboard::default();
    let mut now = 0;
    let mut moments = Vec::new();
    for (number, (client, player, delta, (pause, until, on), lost)) in parts.into_iter().enumerate()
    {
        now += pause;
        moments.push((now + until, number, now, now + until + on, client, player, delta, lost));
    }
    moments.sort();
    let mut history = Vec::new();
    for (index, (_, number, call, back, client, player, delta, lost)) in (1..).zip(moments) {
        let (asked, answer) = match delta {
            None => (Asked::Read, Answer::Score(score_of(&leaderboard, &player))),
            Some(delta) => (Asked::Add(delta), vote(&mut leaderboard, index, &player, delta)),
        };
        let answered = (!lost).then_some((back, answer));
        history.push((number, Observed { client, player, call, asked, answered }));
    }
    history.sort_by_key(|(number, _)| *number);
    history.into_iter().map(|(_, observed)| observed).collect()
}

fn score_of(leaderboard: &Leaderboard, player: &str) -> Option<i64> {
    let board = leaderboard.board(&BoardId::default()).unwrap();
    board.row_of(&Player::new(player).unwrap()).map(|row| row.place.score.get())
}

fn vote(leaderboard: &mut Leaderboard, index: u64, player: &str, delta: i64) -> Answer {
    let command = Command::AddVote(AddVote {
        board: BoardId::default(),
        player: Player::new(player).unwrap(),
        delta: Score::new(delta).unwrap(),
        idempotency: None,
    });
    let position = LogPosition::new(Term(1), LogIndex(index));
    match leaderboard.apply_command(position, Timestamp(index), &command.encode()).outcome {
        Outcome::Added(Receipt { score, .. }) => Answer::Added(score.get()),
        Outcome::OutOfBounds { score, .. } => Answer::OutOfBounds(score.get()),
        other => panic!("{other:?}"),
    }
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let delta = prop_oneof![12 => 1..5_i64, 1 => Just(Score::MAX.get())];
    let times = (0..3_u64, 0..8_u64, 0..8_u64);
    let part =
        (0..8_u64, "[ab]", prop::option::weighted(0.6, delta), times, prop::bool::weighted(0.1));
    vec(part, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_a_leaderboard_tells_is_explained(parts in parts()) {
        prop_assert_eq!(check(&observed(parts)), Ok(()));
    }

    /// A score that nobody could have: beyond all that was added.
    #[test]
    fn a_score_from_nowhere_is_noticed(parts in parts(), place: prop::sample::Index) {
        let mut history = observed(parts);
        let all: i64 = history
            .iter()
            .filter_map(|one| match one.asked {
                Asked::Add(delta) if delta < 5 => Some(delta),
                _ => None,
            })
            .sum();
        prop_assume!(!history.is_empty());
        let place = place.index(history.len());
        let one = &mut history[place];
        let lie = all + 1;
        let back = one.answered.map_or(one.call, |(back, _)| back);
        one.answered = Some(match one.asked {
            Asked::Read => (back, Answer::Score(Some(lie))),
            Asked::Add(_) => (back, Answer::Added(lie)),
        });
        prop_assert!(check(&history).is_err());
    }
}
