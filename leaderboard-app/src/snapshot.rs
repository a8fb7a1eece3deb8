//! The whole replicated state as compact versioned bytes: what stands in for the log before it.
//!
//! Equal states have equal snapshots, byte for byte, on every node; and from a snapshot comes a state
//! that answers every later command as the first one would: the same ranks and tie-breaks, the same
//! answers to repeated keys, and keys that are forgotten at the same entries. A snapshot without the
//! keys would be a second chance for every retry that is still under way.
//!
//! Snapshots are kept by nodes and sent to others, so every version that ever wrote them stays
//! readable; a change of the layout gets a new version. Integers are little-endian. A *text* is its
//! length in bytes (one byte) and as many bytes of UTF-8.
//!
//! | bytes | version 1 |
//! |---|---|
//! | 1 | version: 1 |
//! | 8, 8, 8, 8 | limits on idempotency keys: kept at least, kept at most, age in milliseconds, dropped at once |
//! | 8 | how many boards follow, ascending by name (compared as bytes) |
//! | text | *board*: its name |
//! | 8, 8 | *board*: how many changes it has had, how many lines follow, best first |
//! | text | *line*: the player |
//! | 8, 8 | *line*: the score, signed; which change of the board gave it |
//! | 8 | how many idempotency keys follow, oldest first |
//! | text, 16 | *key*: the key, the fingerprint of its request |
//! | 8 | *key*: the timestamp of the entry that decided it |
//! | 8, 8 | *key*: term and index of that entry |
//! | 1 to 34 | *key*: the outcome, from its kind on, as in a [`reply`](crate::reply) |
//! | 16 | the [`Digest`](crate::digest::Digest) of the state |
//! | 16 | XXH3 (128 bits, seed 0) of all bytes before |
//!
//! Nothing follows. The digest covers the records; the hash at the end covers also what the digest
//! cannot see, the limits and the order of the keys. Both guard against bugs and broken memory, not
//! against someone who forges snapshots on purpose; such a one is refused, or is a state that some
//! log could have led to as far as later commands can tell. No length is believed before the bytes
//! are there.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use raft_grpc::{LogIndex, LogPosition, Term, Timestamp};
use xxhash_rust::xxh3::xxh3_128;

use crate::board::{Board, Place};
use crate::codec::{self, DecodeError, Reader};
use crate::idempotency::{Decision, Idempotency, IdempotencyKey, IdempotencyTable, Limits, Record};
use crate::leaderboard::Leaderboard;
use crate::reply::Outcome;
use crate::types::{BoardId, Player, Score};

const VERSION: u8 = 1;
const HASH_BYTES: usize = size_of::<u128>();

impl Leaderboard {
    /// Everything here as the bytes of a snapshot: about 30 bytes and its name for each player, about
    /// 80 and its text for each known key.
    #[must_use]
    pub fn to_snapshot(&self) -> Bytes {
        let mut bytes = vec![VERSION];
        put_limits(&mut bytes, self.keys().limits());
        put_count(&mut bytes, self.boards().len());
        for board in self.boards() {
            put_board(&mut bytes, board);
        }
        put_count(&mut bytes, self.keys().len());
        for record in self.keys().records() {
            put_record(&mut bytes, record);
        }
        bytes.extend_from_slice(&self.digest().get().to_le_bytes());
        bytes.extend_from_slice(&xxh3_128(&bytes).to_le_bytes());
        bytes.into()
    }

    /// Reads what [`Leaderboard::to_snapshot`] wrote, in this version or an earlier one. The limits on
    /// idempotency keys are those of the snapshot: they are part of the replicated behaviour.
    ///
    /// # Errors
    /// For bytes of a newer version, and for any that no version wrote, damaged ones among them.
    /// Never panics, and takes no more memory than in proportion to the bytes that are there.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, DecodeError> {
        // The version first: how the rest is guarded is its business.
        match Reader(bytes).u8()? {
            VERSION => {}
            version => return Err(DecodeError::UnknownVersion(version)),
        }
        let (guarded, hash) = bytes
            .split_last_chunk::<HASH_BYTES>()
            .ok_or(DecodeError::Damaged("they end too early"))?;
        if xxh3_128(guarded) != u128::from_le_bytes(*hash) {
            return Err(DecodeError::Damaged("their hash is not the one at their end"));
        }
        let mut reader = Reader(guarded);
        let _version = reader.u8()?;
        let leaderboard = read_state(&mut reader)?;
        if leaderboard.digest().get() != reader.u128()? {
            return Err(DecodeError::Damaged("the state has another digest than the one told"));
        }
        reader.end()?;
        Ok(leaderboard)
    }
}

fn put_limits(bytes: &mut Vec<u8>, limits: Limits) {
    let Limits { kept_at_least, kept_at_most, age, dropped_at_once } = limits;
    put_count(bytes, kept_at_least);
    put_count(bytes, kept_at_most);
    // Ages are whole milliseconds, so the fraction of a limit never decides.
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    bytes.extend_from_slice(&age.to_le_bytes());
    put_count(bytes, dropped_at_once);
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend_from_slice(&(count as u64).to_le_bytes());
}

fn put_board(bytes: &mut Vec<u8>, board: &Board) {
    codec::put_short_text(bytes, board.id().as_str());
    bytes.extend_from_slice(&board.changes().to_le_bytes());
    bytes.extend_from_slice(&board.len().to_le_bytes());
    for row in board.rows_from(1) {
        codec::put_short_text(bytes, row.player.as_str());
        bytes.extend_from_slice(&row.place.score.get().to_le_bytes());
        bytes.extend_from_slice(&row.place.seq.to_le_bytes());
    }
}

fn put_record(bytes: &mut Vec<u8>, record: &Record) {
    let Record { idempotency, timestamp, decision: Decision { position, outcome } } = record;
    codec::put_short_text(bytes, idempotency.key.as_str());
    bytes.extend_from_slice(&idempotency.fingerprint.to_le_bytes());
    bytes.extend_from_slice(&timestamp.0.to_le_bytes());
    bytes.extend_from_slice(&position.term.0.to_le_bytes());
    bytes.extend_from_slice(&position.index.0.to_le_bytes());
    outcome.put(bytes);
}

/// What stands between the version and the digest.
fn read_state(reader: &mut Reader<'_>) -> Result<Leaderboard, DecodeError> {
    let limits = read_limits(reader)?;
    let mut boards: BTreeMap<BoardId, Board> = BTreeMap::new();
    for _ in 0..reader.u64()? {
        let board = read_board(reader)?;
        if boards.last_key_value().is_some_and(|(last, _)| last >= board.id()) {
            return Err(DecodeError::Damaged("the boards are not in order"));
        }
        boards.insert(board.id().clone(), board);
    }
    if !boards.contains_key(&BoardId::default()) {
        return Err(DecodeError::Damaged("the board that always exists does not"));
    }
    // Not reserved: that many are only claimed to be there.
    let mut records = Vec::new();
    for _ in 0..reader.u64()? {
        records.push(read_record(reader)?);
    }
    let keys = IdempotencyTable::restore(limits, records).map_err(DecodeError::Damaged)?;
    Ok(Leaderboard::from_parts(boards, keys))
}

fn read_limits(reader: &mut Reader<'_>) -> Result<Limits, DecodeError> {
    Ok(Limits {
        kept_at_least: read_limit(reader)?,
        kept_at_most: read_limit(reader)?,
        age: Duration::from_millis(reader.u64()?),
        dropped_at_once: read_limit(reader)?,
    })
}

fn read_limit(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    usize::try_from(reader.u64()?)
        .map_err(|_| DecodeError::Damaged("a limit is beyond what this machine can count"))
}

fn read_board(reader: &mut Reader<'_>) -> Result<Board, DecodeError> {
    let id = BoardId::new(reader.short_text()?)
        .map_err(|_| DecodeError::Damaged("a board has no valid name"))?;
    let changes = reader.u64()?;
    let mut rows = Vec::new();
    for _ in 0..reader.u64()? {
        let player = Player::new(reader.short_text()?)
            .map_err(|_| DecodeError::Damaged("a player has no valid name"))?;
        let score = Score::new(reader.i64()?)
            .ok_or(DecodeError::Damaged("a score is beyond its bounds"))?;
        rows.push((player, Place { score, seq: reader.u64()? }));
    }
    Board::restore(id, changes, rows).map_err(DecodeError::Damaged)
}

fn read_record(reader: &mut Reader<'_>) -> Result<Record, DecodeError> {
    let key = IdempotencyKey::new(reader.short_text()?)
        .map_err(|_| DecodeError::Damaged("an idempotency key is not valid"))?;
    let idempotency = Idempotency { key, fingerprint: reader.u128()? };
    let timestamp = Timestamp(reader.u64()?);
    let term = Term(reader.u64()?);
    let position = LogPosition::new(term, LogIndex(reader.u64()?));
    let decision = Decision { position, outcome: Outcome::read(reader)? };
    Ok(Record { idempotency, timestamp, decision })
}

#[cfg(test)]
mod tests;
