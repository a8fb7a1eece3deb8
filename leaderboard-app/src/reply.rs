//! What became of a command: the answer that travels from the node that applied it to the one that
//! was asked, as compact versioned bytes.
//!
//! | bytes | version 1 |
//! |---|---|
//! | 1 | version: 1 |
//! | 1 | 1 if this is the answer of an earlier command with the same key, else 0 |
//! | 8, 8 | term and index of the entry that decided it |
//! | 1 | kind: 1 added, 2 out of bounds, 3 unknown board, 4 key reused, 5 unreadable |
//! | 1, 8, 8, 8, 8 | *added*: 1 if there was a score before, that score, the new one, rank, players |
//! | 8, 8 | *out of bounds*: the score as it was and stays, the change that was refused |
//!
//! Integers are little-endian; nothing follows.

use bytes::Bytes;
use raft_grpc::{LogIndex, LogPosition, Term};

use crate::codec::{DecodeError, Reader};
use crate::types::Score;

const VERSION: u8 = 1;
const KIND_ADDED: u8 = 1;
const KIND_OUT_OF_BOUNDS: u8 = 2;
const KIND_UNKNOWN_BOARD: u8 = 3;
const KIND_KEY_REUSED: u8 = 4;
const KIND_UNREADABLE: u8 = 5;

/// The answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The entry that decided the outcome; for a replay the one of the first time.
    pub position: LogPosition,
    /// Was it decided earlier, by a command with the same idempotency key?
    pub replayed: bool,
    /// The decision.
    pub outcome: Outcome,
}

/// What a command did. All but [`Outcome::Added`] changed no score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The score was added.
    Added(Receipt),
    /// The sum would be beyond the bounds of [`Score`].
    OutOfBounds {
        /// The score, as it was and stays.
        score: Score,
        /// The change that was refused.
        delta: Score,
    },
    /// There is no such board.
    UnknownBoard,
    /// The idempotency key was used for a different request.
    KeyReused,
    /// The bytes of the command mean nothing to this version.
    Unreadable,
}

/// What the board looked like for the player right after the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The score before, `None` if the player was new.
    pub previous: Option<Score>,
    /// The score now.
    pub score: Score,
    /// The rank now; 1 is the best.
    pub rank: u64,
    /// How many players the board has.
    pub of: u64,
}

impl Outcome {
    const fn kind(&self) -> u8 {
        match self {
            Self::Added(_) => KIND_ADDED,
            Self::OutOfBounds { .. } => KIND_OUT_OF_BOUNDS,
            Self::UnknownBoard => KIND_UNKNOWN_BOARD,
            Self::KeyReused => KIND_KEY_REUSED,
            Self::Unreadable => KIND_UNREADABLE,
        }
    }

    /// Appends the kind and its fields; also the form in which outcomes are hashed.
    pub(crate) fn put(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.kind());
        match self {
            Self::Added(Receipt { previous, score, rank, of }) => {
                bytes.push(u8::from(previous.is_some()));
                bytes.extend_from_slice(&previous.unwrap_or_default().get().to_le_bytes());
                bytes.extend_from_slice(&score.get().to_le_bytes());
                bytes.extend_from_slice(&rank.to_le_bytes());
                bytes.extend_from_slice(&of.to_le_bytes());
            }
            Self::OutOfBounds { score, delta } => {
                bytes.extend_from_slice(&score.get().to_le_bytes());
                bytes.extend_from_slice(&delta.get().to_le_bytes());
            }
            Self::UnknownBoard | Self::KeyReused | Self::Unreadable => {}
        }
    }

    /// Reads what [`Outcome::put`] wrote.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            KIND_ADDED => {
                let had_score = read_flag(reader)?;
                let previous = read_score(reader)?;
                if !had_score && previous != Score::default() {
                    return Err(DecodeError::Damaged("a new player has a score from before"));
                }
                Self::Added(Receipt {
                    previous: had_score.then_some(previous),
                    score: read_score(reader)?,
                    rank: reader.u64()?,
                    of: reader.u64()?,
                })
            }
            KIND_OUT_OF_BOUNDS => {
                let score = read_score(reader)?;
                Self::OutOfBounds { score, delta: read_score(reader)? }
            }
            KIND_UNKNOWN_BOARD => Self::UnknownBoard,
            KIND_KEY_REUSED => Self::KeyReused,
            KIND_UNREADABLE => Self::Unreadable,
            kind => return Err(DecodeError::UnknownKind(kind)),
        })
    }
}

impl Reply {
    /// The bytes to answer with, at most 59.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let Self { position, replayed, outcome } = self;
        let mut bytes = vec![VERSION, u8::from(*replayed)];
        bytes.extend_from_slice(&position.term.0.to_le_bytes());
        bytes.extend_from_slice(&position.index.0.to_le_bytes());
        outcome.put(&mut bytes);
        bytes.into()
    }

    /// Reads what [`Reply::encode`] wrote, on this node or another.
    ///
    /// # Errors
    /// For bytes of a newer version, and for any that no version wrote. Never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        match reader.u8()? {
            VERSION => {}
            version => return Err(DecodeError::UnknownVersion(version)),
        }
        let replayed = read_flag(&mut reader)?;
        let term = Term(reader.u64()?);
        let position = LogPosition::new(term, LogIndex(reader.u64()?));
        let outcome = Outcome::read(&mut reader)?;
        reader.end()?;
        Ok(Self { position, replayed, outcome })
    }
}

fn read_flag(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Damaged("a flag is neither 0 nor 1")),
    }
}

fn read_score(reader: &mut Reader<'_>) -> Result<Score, DecodeError> {
    Score::new(reader.i64()?).ok_or(DecodeError::Damaged("a score is beyond its bounds"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome() -> impl Strategy<Value = Outcome> {
        let score = || (Score::MIN.get()..=Score::MAX.get()).prop_map(|s| Score::new(s).unwrap());
        prop_oneof![
            (prop::option::of(score()), score(), any::<u64>(), any::<u64>()).prop_map(
                |(previous, score, rank, of)| {
                    Outcome::Added(Receipt { previous, score, rank, of })
                }
            ),
            (score(), score()).prop_map(|(score, delta)| Outcome::OutOfBounds { score, delta }),
            Just(Outcome::UnknownBoard),
            Just(Outcome::KeyReused),
            Just(Outcome::Unreadable),
        ]
    }

    proptest! {
        #[test]
        fn reads_what_it_wrote(
            outcome in outcome(),
            replayed: bool,
            term: u64,
            index: u64,
            cut in any::<prop::sample::Index>(),
        ) {
            let position = LogPosition::new(Term(term), LogIndex(index));
            let reply = Reply { position, replayed, outcome };
            let bytes = reply.encode();
            prop_assert!(bytes.len() <= 59);
            prop_assert_eq!(Reply::decode(&bytes), Ok(reply));
            prop_assert!(Reply::decode(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn hostile_bytes_are_refused_or_read_back_the_same(
            bytes in prop::collection::vec(0_u8..6, 0..70),
        ) {
            if let Ok(reply) = Reply::decode(&bytes) {
                prop_assert_eq!(&reply.encode()[..], &bytes[..]);
            }
        }
    }
}
