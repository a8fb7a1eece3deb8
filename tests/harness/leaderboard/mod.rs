//! The leaderboard in the simulation: what its clients do and see, and who judges it.

pub mod registers;

use std::time::Duration;

use bytes::Bytes;
use leaderboard_app::command::{AddVote, Command};
use leaderboard_app::idempotency::{Idempotency, IdempotencyKey, Limits};
use leaderboard_app::leaderboard::Leaderboard;
use leaderboard_app::reply::{Outcome, Reply};
use leaderboard_app::types::{BoardId, Player, Score};
use raft_core::{LogPosition, Timestamp};
use raft_sim::cluster::WALL_CLOCK_AHEAD_MAX;
use raft_sim::history::{End, Freshness, History, Record, Request};
use raft_sim::machine::{Operation, RestoreError, StateMachine, Words, Workload};
use raft_sim::simulation::clients::RETRY_MAX;

use registers::{Answer, Asked, Observed};

/// The leaderboard that ships, as the simulation sees it.
pub struct Replicated(Leaderboard);

impl StateMachine for Replicated {
    fn apply(&mut self, position: LogPosition, timestamp: Timestamp, command: &Bytes) -> Bytes {
        self.0.apply_command(position, timestamp, command).encode()
    }

    /// `score PLAYER`, `rank PLAYER`, or `top COUNT`; answered in text.
    fn query(&self, query: &Bytes) -> Bytes {
        let query = std::str::from_utf8(query).expect("a query of ours is text");
        let (what, argument) = query.split_once(' ').expect("a query of ours has an argument");
        let board = self.0.board(&BoardId::default()).expect("the board that always exists");
        let row = || board.row_of(&Player::new(argument).expect("a player of ours"));
        let text = match what {
            "score" => row().map_or_else(|| NOBODY.to_owned(), |row| row.place.score.to_string()),
            "rank" => row().map_or_else(|| NOBODY.to_owned(), |row| row.rank.to_string()),
            _ => {
                let count = argument.parse().expect("a number of ours");
                let rows = board.rows_from(1).take(count);
                rows.map(|row| format!("{} {}\n", row.player, row.place.score)).collect()
            }
        };
        text.into()
    }

    fn snapshot(&self) -> Bytes {
        self.0.to_snapshot()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        self.0 = Leaderboard::from_snapshot(snapshot)?;
        Ok(())
    }

    fn digest(&self) -> u128 {
        self.0.digest().get()
    }
}

/// The answer about a player who is not on the board.
const NOBODY: &str = "not on the board";

/// Clients that vote, most of them with idempotency keys, and look at the board.
pub struct Voters {
    limits: Limits,
    players: u64,
    /// How many votes in eight have a key.
    keyed: u8,
    /// How many operations in sixteen are questions.
    questions: u8,
}

impl Voters {
    /// What this seed draws.
    pub fn of_seed(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x707E);
        // As few keys as possible, for just so long as a client may come back with one, by the clocks of any
        // two leaders; or by far enough.
        let age = RETRY_MAX + WALL_CLOCK_AHEAD_MAX;
        let tight = Limits { kept_at_least: 1, age, dropped_at_once: 2, ..Limits::default() };
        Self {
            limits: if random.bool() { tight } else { Limits::default() },
            players: if random.bool() { random.u64(1..=3) } else { random.u64(4..=12) },
            keyed: [4, 8, 8][random.usize(..3)],
            questions: [5, 5, 10][random.usize(..3)],
        }
    }
}

impl Workload for Voters {
    type Machine = Replicated;

    fn machine(&self) -> Replicated {
        Replicated(Leaderboard::with_limits(self.limits))
    }

    fn next(&self, client: u64, number: u64, random: &mut fastrand::Rng) -> Operation {
        let player = format!("player {}", random.u64(..self.players));
        if random.u8(..16) < self.questions {
            let query = match random.u8(..8) {
                0 => format!("rank {player}"),
                1 => format!("top {}", random.u8(..5)),
                _ => format!("score {player}"),
            };
            return Operation::Query(query.into());
        }
        // Scores are bounded, and now and then a vote reaches for the bounds. The others differ so much that
        // a score tells which votes are in it: that makes the search short, and sharp.
        let large = random.u8(..32) == 0;
        let delta = if large { Score::MAX.get() } else { random.i64(-300_000_000..=900_000_000) };
        let mut vote = AddVote {
            board: BoardId::default(),
            player: Player::new(&player).expect("a short name"),
            delta: Score::new(delta).expect("within the bounds"),
            idempotency: None,
        };
        let keyed = random.u8(..8) < self.keyed;
        if keyed {
            let key = IdempotencyKey::new(&format!("{client}-{number}")).expect("a short key");
            vote.idempotency = Some(Idempotency { key, fingerprint: vote.fingerprint() });
        }
        Operation::Write { command: Command::AddVote(vote).encode(), repeatable: keyed }
    }

    fn decides(&self, _command: &Bytes, response: &Bytes) -> bool {
        !decode(response).replayed
    }

    /// A panic in the middle of a story would hide what broke: what is not ours is shown as it is.
    fn describe(&self, words: Words<'_>) -> String {
        let raw = || format!("\"{}\"", words.bytes().escape_ascii());
        match words {
            Words::Command(command) => match Command::decode(command) {
                Ok(Command::AddVote(AddVote { player, delta, idempotency, .. })) => {
                    let key = idempotency
                        .map(|it| format!(", key {}", it.key.as_str()))
                        .unwrap_or_default();
                    format!("{player} {:+}{key}", delta.get())
                }
                _ => raw(),
            },
            Words::Response(response) => match Reply::decode(response) {
                Ok(Reply { replayed, outcome, .. }) => {
                    let known = if replayed { ", known" } else { "" };
                    match outcome {
                        Outcome::Added(receipt) => format!("{}{known}", receipt.score.get()),
                        Outcome::OutOfBounds { score, .. } => {
                            format!("out of bounds, stays {}{known}", score.get())
                        }
                        other => format!("{other:?}{known}"),
                    }
                }
                Err(_) => raw(),
            },
            Words::Query(query) => String::from_utf8_lossy(query).into_owned(),
            Words::Answer(answer) => {
                let text = String::from_utf8_lossy(answer);
                let text = text.trim_end().replace('\n', ", ");
                if text.is_empty() { "nothing".to_owned() } else { text }
            }
        }
    }

    fn check(&self, history: &History) -> Result<(), String> {
        let observed: Vec<Observed> = history.operations().iter().filter_map(observe).collect();
        registers::check(&observed)
    }
}

fn decode(response: &Bytes) -> Reply {
    Reply::decode(response).expect("a reply of ours")
}

/// What tells something about the score of one player, at a moment between its call and its return.
fn observe(record: &Record) -> Option<Observed> {
    let (player, asked) = match &record.request {
        Request::Write { command, .. } => {
            let Ok(Command::AddVote(vote)) = Command::decode(command) else { return None };
            (vote.player.to_string(), Asked::Add(vote.delta.get()))
        }
        Request::Read { query, how: Freshness::Linearizable | Freshness::Lease } => {
            let player = query.strip_prefix(b"score ")?;
            (String::from_utf8_lossy(player).into_owned(), Asked::Read)
        }
        Request::Read { .. } => return None,
    };
    if record.end == End::Open && record.decided.is_none() {
        return None;
    }
    let answered = match &record.end {
        // The search would try all that may have become of it. The log knows: nothing at all, or this, but
        // nobody was told when.
        End::Open => {
            record.decided.as_ref().map(|(_, response)| (u64::MAX, answer(asked, response)))
        }
        End::Refused { at } => Some((*at, Answer::NotApplied)),
        End::Answered { at, response, .. } => Some((*at, answer(asked, response))),
    };
    let Record { client, called, .. } = *record;
    Some(Observed { client, player, call: called, asked, answered })
}

fn answer(asked: Asked, response: &Bytes) -> Answer {
    if asked == Asked::Read {
        let text = std::str::from_utf8(response).expect("an answer of ours is text");
        return Answer::Score(text.parse().ok());
    }
    match decode(response).outcome {
        Outcome::Added(receipt) => Answer::Added(receipt.score.get()),
        Outcome::OutOfBounds { score, .. } => Answer::OutOfBounds(score.get()),
        other => panic!("no vote of ours is answered with {other:?}"),
    }
}

/// Every key is known for as long as a client may repeat it.
const _: () = assert!(RETRY_MAX.as_nanos() <= Duration::from_secs(600).as_nanos());
