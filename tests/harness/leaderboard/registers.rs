//! The leaderboard as clients see it who know nothing of logs and indexes: for each player a register
//! to which votes add, each at most once, and which tells the score.
//!
//! Ranks couple all players and are left to the checker that knows the order of the log. Here nothing
//! is trusted but the clients' own clock and what they were told.

use leaderboard_app::types::Score;
use raft_sim::linearizability::{self, Model, Operation, by_key};

/// What a client did, and what it was told in the end. A vote that is repeated under one key is one
/// operation, from its first call to its last answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Who asked; only for people.
    pub client: u64,
    /// Whose score.
    pub player: String,
    /// When it was asked for the first time; of one clock for all, in any unit.
    pub call: u64,
    /// What was asked.
    pub asked: Asked,
    /// When it was answered, and what. `None` is for all of which the client cannot know whether it
    /// happened, or may yet happen: no answer, or `Unknown`.
    pub answered: Option<(u64, Answer)>,
}

/// What is asked of one player's register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// So much is added, at most once.
    Add(i64),
    /// The score is told.
    Read,
}

/// What was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a vote: the score right after it.
    Added(i64),
    /// To a vote: the score as it was and stays, because the sum would be beyond the bounds.
    OutOfBounds(i64),
    /// To a vote or a read: it did not happen, and never will.
    NotApplied,
    /// To a read: the score, `None` if there is no such player.
    Score(Option<i64>),
}

/// How many steps the search may take for one player.
const BUDGET: u64 = 20_000_000;

/// Is there for each player an order of votes and reads that explains what all clients were told?
///
/// # Errors
/// If not, or if that could not be found out: in words, with the answers that contradict each other.
pub fn check(history: &[Observed]) -> Result<(), String> {
    for (player, observed) in by_key(history, |one| one.player.as_str()) {
        // What did not happen says nothing of anything else.
        let happened = observed
            .into_iter()
            .filter(|one| !matches!(one.answered, Some((_, Answer::NotApplied))));
        let operations: Vec<_> = happened.map(operation).collect();
        linearizability::check(&Register, &operations, BUDGET)
            .into_result()
            .map_err(|why| format!("player {player:?}: {why}"))?;
    }
    Ok(())
}

fn operation(observed: &Observed) -> Operation<Asked, Answer> {
    let &Observed { client, call, asked, answered, .. } = observed;
    Operation { client, call, input: asked, returned: answered }
}

/// One player's score; `None` before the first vote.
struct Register;

impl Model for Register {
    type State = Option<i64>;
    type Input = Asked;
    type Output = Answer;

    fn initial(&self) -> Option<i64> {
        None
    }

    fn step(
        &self,
        score: &Option<i64>,
        asked: &Asked,
        answer: Option<&Answer>,
    ) -> Option<Option<i64>> {
        if answer == Some(&Answer::NotApplied) {
            return Some(*score);
        }
        let (right, after) = match *asked {
            Asked::Read => (Answer::Score(*score), *score),
            Asked::Add(delta) => {
                let before = score.unwrap_or(0);
                // The bounds of the leaderboard's scores are far within those of i64.
                match Score::new(before + delta) {
                    Some(_) => (Answer::Added(before + delta), Some(before + delta)),
                    None => (Answer::OutOfBounds(before), *score),
                }
            }
        };
        answer.is_none_or(|answer| *answer == right).then_some(after)
    }

    fn changes_nothing(&self, asked: &Asked, answer: Option<&Answer>) -> bool {
        let refused = matches!(answer, Some(Answer::OutOfBounds(_) | Answer::NotApplied));
        refused || *asked == Asked::Read
    }
}
