//! The replicated state: boards and idempotency keys, changed only by commands in log order.
//!
//! Pure: no clock, no I/O, no random numbers, no order that differs between nodes. Time is the
//! leader's, from the entry.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use raft_grpc::{AppliedEntry, Capture, LogPosition, RestoreError, StateMachine, Timestamp};

use crate::board::{Board, OutOfBounds};
use crate::command::{AddVote, Command};
use crate::digest::Digest;
use crate::idempotency::{Decision, IdempotencyTable, Known, Limits};
use crate::reply::{Outcome, Reply};
use crate::types::BoardId;

/// All boards of one Raft group, and the keys of the commands that changed them.
#[derive(Clone, Debug)]
pub struct Leaderboard {
    boards: BTreeMap<BoardId, Board>,
    keys: IdempotencyTable,
}

impl Default for Leaderboard {
    /// As it is before the first entry: the board `default`, without players.
    fn default() -> Self {
        Self::with_limits(Limits::default())
    }
}

impl Leaderboard {
    /// The start, with other limits on idempotency keys than the default.
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        let board = BoardId::default();
        Self {
            boards: BTreeMap::from([(board.clone(), Board::new(board))]),
            keys: IdempotencyTable::with_limits(limits),
        }
    }

    /// What a snapshot told.
    pub(crate) const fn from_parts(
        boards: BTreeMap<BoardId, Board>,
        keys: IdempotencyTable,
    ) -> Self {
        Self { boards, keys }
    }

    /// All boards, in the order of their names.
    pub fn boards(&self) -> impl ExactSizeIterator<Item = &Board> {
        self.boards.values()
    }

    /// The board of that name.
    #[must_use]
    pub fn board(&self, id: &BoardId) -> Option<&Board> {
        self.boards.get(id)
    }

    /// The known idempotency keys.
    #[must_use]
    pub const fn keys(&self) -> &IdempotencyTable {
        &self.keys
    }

    /// The digest of everything here. Equal on all nodes that have applied the same index.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.boards.values().fold(self.keys.digest(), |sum, board| sum.and(board.digest()))
    }

    /// Applies the command of the entry at `position`, stamped by its leader with `timestamp`.
    ///
    /// A refusal under a key is remembered like a success: otherwise a delayed copy of the request
    /// might be applied after its sender was told "not applied".
    pub fn apply_command(
        &mut self,
        position: LogPosition,
        timestamp: Timestamp,
        command: &[u8],
    ) -> Reply {
        let decided = |outcome| Reply { position, replayed: false, outcome };
        let vote = match Command::decode(command) {
            Ok(Command::AddVote(vote)) => vote,
            Err(error) => {
                tracing::warn!(%position, %error, "the entry holds a command that is not readable");
                return decided(Outcome::Unreadable);
            }
        };
        let Some(idempotency) = &vote.idempotency else {
            return decided(self.add_vote(&vote));
        };
        match self.keys.look_up(idempotency) {
            Known::Decided(Decision { position, outcome }) => {
                Reply { position, replayed: true, outcome }
            }
            Known::ForAnother => decided(Outcome::KeyReused),
            Known::No => {
                let outcome = self.add_vote(&vote);
                let decision = Decision { position, outcome };
                self.keys.remember(idempotency.clone(), timestamp, decision);
                decided(outcome)
            }
        }
    }

    fn add_vote(&mut self, vote: &AddVote) -> Outcome {
        let Some(board) = self.boards.get_mut(&vote.board) else {
            return Outcome::UnknownBoard;
        };
        match board.add(&vote.player, vote.delta) {
            Ok(receipt) => Outcome::Added(receipt),
            Err(OutOfBounds { score }) => Outcome::OutOfBounds { score, delta: vote.delta },
        }
    }
}

impl StateMachine for Leaderboard {
    fn apply(&mut self, entry: &AppliedEntry) -> Bytes {
        self.apply_command(entry.position, entry.timestamp, &entry.command).encode()
    }

    fn snapshot(&self) -> Capture {
        self.to_snapshot().into()
    }

    fn restore(&self, snapshot: &mut dyn io::Read) -> Result<Self, RestoreError> {
        let mut bytes = Vec::new();
        snapshot.read_to_end(&mut bytes)?;
        Ok(Self::from_snapshot(&bytes)?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use raft_grpc::{LogIndex, Term};

    use super::*;
    use crate::command::tests::add_vote;
    use crate::idempotency::{Idempotency, IdempotencyKey};
    use crate::types::{Player, Score};

    pub(crate) fn at(index: u64) -> LogPosition {
        LogPosition::new(Term(1), LogIndex(index))
    }

    pub(crate) fn vote(player: &str, delta: i64, key: Option<&str>) -> AddVote {
        let mut vote = AddVote {
            board: BoardId::default(),
            player: Player::new(player).unwrap(),
            delta: Score::new(delta).unwrap(),
            idempotency: None,
        };
        let fingerprint = vote.fingerprint();
        vote.idempotency =
            key.map(|key| Idempotency { key: IdempotencyKey::new(key).unwrap(), fingerprint });
        vote
    }

    fn apply(leaderboard: &mut Leaderboard, index: u64, vote: AddVote) -> Reply {
        let command = Command::AddVote(vote).encode();
        leaderboard.apply_command(at(index), Timestamp(index), &command)
    }

    fn score_of(leaderboard: &Leaderboard, player: &str) -> Option<i64> {
        let board = leaderboard.board(&BoardId::default()).unwrap();
        board.row_of(&Player::new(player).unwrap()).map(|row| row.place.score.get())
    }

    #[test]
    fn a_repeated_key_counts_once_and_gets_the_first_receipt() {
        let mut leaderboard = Leaderboard::default();
        let first = apply(&mut leaderboard, 1, vote("a", 5, Some("k")));
        apply(&mut leaderboard, 2, vote("b", 9, None));
        let digest = leaderboard.digest();
        let again = apply(&mut leaderboard, 3, vote("a", 5, Some("k")));
        assert_eq!(again, Reply { replayed: true, ..first });
        assert_eq!(again.position, at(1), "the receipt is the first one, rank and all");
        let other = apply(&mut leaderboard, 4, vote("a", 6, Some("k")));
        assert_eq!((other.replayed, other.outcome), (false, Outcome::KeyReused));
        assert_eq!(leaderboard.digest(), digest);
        assert_eq!(score_of(&leaderboard, "a"), Some(5));
    }

    #[test]
    fn a_refusal_under_a_key_stays_a_refusal() {
        let mut leaderboard = Leaderboard::default();
        apply(&mut leaderboard, 1, vote("a", Score::MAX.get(), None));
        let refused = apply(&mut leaderboard, 2, vote("a", 1, Some("k")));
        let outcome = Outcome::OutOfBounds { score: Score::MAX, delta: Score::new(1).unwrap() };
        assert_eq!(refused, Reply { position: at(2), replayed: false, outcome });
        apply(&mut leaderboard, 3, vote("a", -10, None));
        let again = apply(&mut leaderboard, 4, vote("a", 1, Some("k")));
        assert_eq!(again, Reply { replayed: true, ..refused });
        assert_eq!(score_of(&leaderboard, "a"), Some(Score::MAX.get() - 10));
    }

    #[test]
    fn other_boards_and_unreadable_commands_change_nothing() {
        let mut leaderboard = Leaderboard::default();
        let digest = leaderboard.digest();
        let elsewhere = AddVote { board: BoardId::new("other").unwrap(), ..vote("a", 1, None) };
        assert_eq!(apply(&mut leaderboard, 1, elsewhere).outcome, Outcome::UnknownBoard);
        for command in [&b""[..], b"\x01", b"\x09\x01", b"garbage"] {
            let reply = leaderboard.apply_command(at(2), Timestamp(2), command);
            assert_eq!(reply.outcome, Outcome::Unreadable);
        }
        assert_eq!(leaderboard.digest(), digest);
    }

    #[test]
    fn keys_are_part_of_the_digest() {
        let mut with_key = Leaderboard::default();
        apply(&mut with_key, 1, vote("a", 1, Some("k")));
        let mut without_key = Leaderboard::default();
        apply(&mut without_key, 1, vote("a", 1, None));
        assert_ne!(with_key.digest(), without_key.digest());
    }

    proptest! {
        /// Any bytes in any order: never a panic, and two replicas stay the same to the last bit.
        #[test]
        fn replicas_agree(
            commands in prop::collection::vec(
                prop_oneof![
                    3 => ("[ab]", -5_i64..5, prop::option::of("[kl]")).prop_map(
                        |(player, delta, key)| {
                            Command::AddVote(vote(&player, delta, key.as_deref())).encode()
                        }
                    ),
                    1 => add_vote().prop_map(|vote| Command::AddVote(vote).encode()),
                    1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Bytes::from),
                ],
                0..60,
            ),
        ) {
            let limits = Limits { kept_at_least: 3, kept_at_most: 6, ..Limits::default() };
            let mut one = Leaderboard::with_limits(limits);
            let mut other = Leaderboard::with_limits(limits);
            for (index, command) in (1..).zip(commands) {
                let entry =
                    AppliedEntry { position: at(index), timestamp: Timestamp(index), command };
                let answer = one.apply(&entry);
                prop_assert!(Reply::decode(&answer).is_ok());
                prop_assert_eq!(answer, other.apply(&entry));
                prop_assert_eq!(one.digest(), other.digest());
            }
        }
    }
}
