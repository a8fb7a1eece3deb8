//! One board: who has which score, and in which order they stand.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use crate::codec;
use crate::digest::Digest;
use crate::ordered_index::OrderedIndex;
use crate::reply::Receipt;
use crate::types::{BoardId, Player, Score};

/// No log has a higher index.
const CHANGES_MAX: u64 = 1 << 63;

/// Where somebody stands: the higher score first, and of equal scores the one that was reached first.
/// No two players of a board have the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The score.
    pub score: Score,
    /// Which change of the board, counted from 1, gave the player this score. The log decides it, so
    /// it is the same on all nodes.
    pub seq: u64,
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.cmp(&self.score).then(self.seq.cmp(&other.seq))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One line of the ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// 1 is the best.
    pub rank: u64,
    /// Who.
    pub player: &'a Player,
    /// The score, and what breaks ties.
    pub place: Place,
}

/// The sum would be beyond the bounds of [`Score`]; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfBounds {
    /// The score as it is.
    pub score: Score,
}

/// A board on which votes add up.
///
/// Invariants: `order` has exactly the players of `places`, each at its place; every `seq` is unique
/// and at most `self.seq`; `digest` is that of the board's records.
#[derive(Clone, Debug)]
pub struct Board {
    id: BoardId,
    /// How many changes there have been.
    seq: u64,
    places: HashMap<Player, Place>,
    order: OrderedIndex<(Place, Player)>,
    digest: Digest,
}

impl Board {
    /// A board without players.
    #[must_use]
    pub fn new(id: BoardId) -> Self {
        let mut board = Self {
            id,
            seq: 0,
            places: HashMap::new(),
            order: OrderedIndex::default(),
            digest: Digest::default(),
        };
        board.digest.add(&board.header_bytes());
        board
    }

    /// The board with these lines, best first, after `changes` changes: what [`Board::id`],
    /// [`Board::changes`] and [`Board::rows_from`] told of it.
    ///
    /// # Errors
    /// If no board ever was like that; the text says why.
    pub(crate) fn restore(
        id: BoardId,
        changes: u64,
        rows: Vec<(Player, Place)>,
    ) -> Result<Self, &'static str> {
        // Every change is an entry of its own, so none of them could be counted beyond this.
        if changes > CHANGES_MAX {
            return Err("a board has had more changes than a log can hold");
        }
        if !rows.is_sorted_by(|(_, one), (_, next)| one < next) {
            return Err("the lines of a board are not in order");
        }
        let mut board = Self { seq: changes, ..Self::new(id) };
        board.digest = Digest::default();
        board.digest.add(&board.header_bytes());
        let mut seqs = HashSet::new();
        for (player, place) in rows {
            if place.seq == 0 || place.seq > changes || !seqs.insert(place.seq) {
                return Err("a line of a board comes from none of its changes, or not alone");
            }
            board.digest.add(&board.record_bytes(&player, place));
            board.order.insert((place, player.clone()));
            if board.places.insert(player, place).is_some() {
                return Err("a board has a player twice");
            }
        }
        Ok(board)
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> &BoardId {
        &self.id
    }

    /// How many changes there have been; the next one gets the next number as its `seq`.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.seq
    }

    /// Adds to a score, which starts at 0 for a new player. A sum equal to the score before leaves the
    /// player's place as it was, tie-break included: the score was reached earlier.
    ///
    /// # Errors
    /// If the sum is beyond the bounds; then nothing has changed.
    pub fn add(&mut self, player: &Player, delta: Score) -> Result<Receipt, OutOfBounds> {
        let before = self.places.get(player).copied();
        let previous = before.map(|place| place.score);
        let start = previous.unwrap_or_default();
        let score = start.checked_add(delta).ok_or(OutOfBounds { score: start })?;
        if previous != Some(score) {
            self.digest.remove(&self.header_bytes());
            self.seq += 1;
            self.digest.add(&self.header_bytes());
            if let Some(place) = before {
                self.order.remove(&(place, player.clone()));
                self.digest.remove(&self.record_bytes(player, place));
            }
            let place = Place { score, seq: self.seq };
            self.order.insert((place, player.clone()));
            self.digest.add(&self.record_bytes(player, place));
            self.places.insert(player.clone(), place);
        }
        let rank = self.rank_of(player).expect("a player who was just added has a rank");
        Ok(Receipt { previous, score, rank, of: self.len() })
    }

    /// How many players there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.order.len() as u64
    }

    /// Is there no player?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// A player's line, if the board has that player. O(log n).
    #[must_use]
    pub fn row_of(&self, player: &Player) -> Option<Row<'_>> {
        let (player, &place) = self.places.get_key_value(player)?;
        Some(Row { rank: self.rank_of(player)?, player, place })
    }

    /// All lines in order, from that rank on; rank 1 is the first. O(log n) to start.
    pub fn rows_from(&self, rank: u64) -> impl Iterator<Item = Row<'_>> {
        let before = usize::try_from(rank.saturating_sub(1)).unwrap_or(usize::MAX);
        let rows = self.order.iter_from_rank(before).zip(rank.max(1)..);
        rows.map(|((place, player), rank)| Row { rank, player, place: *place })
    }

    /// All lines in order that stand strictly after a place, whether or not somebody stands there now:
    /// what a cursor needs, which outlives the player's stay. O(log n) to start.
    pub fn rows_after(&self, place: Place) -> impl Iterator<Item = Row<'_>> {
        let before = self.order.partition_point(|(other, _)| *other <= place);
        self.rows_from(before as u64 + 1)
    }

    /// How many players have a better score. O(log n). One more is the rank of that score among other
    /// boards' players too, which is what makes a sharded board possible.
    #[must_use]
    pub fn count_better_than(&self, score: Score) -> u64 {
        self.order.partition_point(|(place, _)| place.score > score) as u64
    }

    /// The digest of the board's records.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    fn rank_of(&self, player: &Player) -> Option<u64> {
        let place = *self.places.get(player)?;
        let before = self.order.partition_point(|(other, _)| *other < place);
        Some(before as u64 + 1)
    }

    /// What is hashed for the board itself: `b`, board, changes so far.
    fn header_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(80);
        bytes.push(b'b');
        codec::put_short_text(&mut bytes, self.id.as_str());
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        bytes
    }

    /// What is hashed for a player: `p`, board, player, score, seq.
    fn record_bytes(&self, player: &Player, place: Place) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(160);
        bytes.push(b'p');
        codec::put_short_text(&mut bytes, self.id.as_str());
        codec::put_short_text(&mut bytes, player.as_str());
        bytes.extend_from_slice(&place.score.get().to_le_bytes());
        bytes.extend_from_slice(&place.seq.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The slow, obviously right twin: a list, sorted anew for every question.
    #[derive(Default)]
    struct Twin {
        seq: u64,
        players: Vec<(String, i64, u64)>,
    }

    impl Twin {
        fn add(&mut self, player: &str, delta: i64) {
            let known = self.players.iter().position(|(name, ..)| name == player);
            let at = known.unwrap_or_else(|| {
                self.players.push((player.into(), i64::MIN, 0));
                self.players.len() - 1
            });
            let before = if known.is_some() { self.players[at].1 } else { 0 };
            if known.is_none() || delta != 0 {
                self.seq += 1;
                self.players[at].1 = before + delta;
                self.players[at].2 = self.seq;
            }
        }

        fn ranking(&self) -> Vec<(String, i64, u64)> {
            let mut ranking = self.players.clone();
            ranking.sort_by_key(|(_, score, seq)| (-score, *seq));
            ranking
        }
    }

    fn score(score: i64) -> Score {
        Score::new(score).unwrap()
    }

    fn player(name: &str) -> Player {
        Player::new(name).unwrap()
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_list(
            votes in prop::collection::vec(("[a-h]{1,2}", -3_i64..=3), 0..120),
            around in -12_i64..12,
        ) {
            let mut board = Board::new(BoardId::default());
            let mut twin = Twin::default();
            for (name, delta) in &votes {
                let receipt = board.add(&player(name), score(*delta)).unwrap();
                twin.add(name, *delta);
                let ranking = twin.ranking();
                let at = ranking.iter().position(|(other, ..)| other == name).unwrap();
                prop_assert_eq!(receipt.rank, at as u64 + 1);
                prop_assert_eq!(receipt.score.get(), ranking[at].1);
                prop_assert_eq!(receipt.of, ranking.len() as u64);
                let row = board.row_of(&player(name)).unwrap();
                prop_assert_eq!((row.rank, row.place.seq), (receipt.rank, ranking[at].2));
            }
            let ranking = twin.ranking();
            let rows: Vec<_> = board
                .rows_from(1)
                .map(|row| (row.player.to_string(), row.place.score.get(), row.place.seq))
                .collect();
            prop_assert_eq!(&rows, &ranking);
            prop_assert!(board.rows_from(0).map(|row| row.rank).eq(1..=board.len()));
            let better = ranking.iter().filter(|(_, score, _)| *score > around).count();
            prop_assert_eq!(board.count_better_than(score(around)), better as u64);
            for (at, (_, points, seq)) in ranking.iter().enumerate() {
                let place = Place { score: score(*points), seq: *seq };
                let rest = board.rows_after(place).map(|row| row.rank);
                prop_assert!(rest.eq(at as u64 + 2..=board.len()));
            }
        }

        /// The digest tells what is on the board, not how it came there, and different boards apart.
        #[test]
        fn the_digest_depends_on_the_records_alone(
            votes in prop::collection::vec(("[a-e]", -2_i64..=2), 1..40),
        ) {
            let mut board = Board::new(BoardId::default());
            for (name, delta) in &votes {
                board.add(&player(name), score(*delta)).unwrap();
            }
            let mut sum = Digest::default();
            sum.add(&board.header_bytes());
            for row in board.rows_from(1) {
                sum.add(&board.record_bytes(row.player, row.place));
            }
            prop_assert_eq!(board.digest(), sum);
            let before = board.digest();
            board.add(&player("z"), score(1)).unwrap();
            prop_assert_ne!(board.digest(), before);
        }
    }

    #[test]
    fn who_was_first_stays_first() {
        let mut board = Board::new(BoardId::default());
        for name in ["first", "second"] {
            board.add(&player(name), score(5)).unwrap();
        }
        assert_eq!(board.add(&player("first"), score(0)).unwrap().rank, 1);
        board.add(&player("first"), score(1)).unwrap();
        // Coming back to a score is reaching it anew.
        assert_eq!(board.add(&player("first"), score(-1)).unwrap().rank, 2);
    }

    #[test]
    fn a_sum_out_of_bounds_changes_nothing() {
        let mut board = Board::new(BoardId::default());
        board.add(&player("a"), Score::MAX).unwrap();
        let before = board.digest();
        assert_eq!(board.add(&player("a"), score(1)), Err(OutOfBounds { score: Score::MAX }));
        assert_eq!(board.digest(), before);
        assert_eq!(board.row_of(&player("a")).unwrap().place, Place { score: Score::MAX, seq: 1 });
        assert_eq!(board.row_of(&player("b")), None);
    }
}
