//! What is replicated: commands, as compact versioned bytes.
//!
//! The log keeps these bytes, so every version that ever wrote them stays readable for ever. A new
//! kind gets a new number; a change of the layout gets a new version. Integers are little-endian. A
//! *text* is its length in bytes (one byte) and as many bytes of UTF-8.
//!
//! | bytes | version 1 |
//! |---|---|
//! | 1 | version: 1 |
//! | 1 | kind: 1 = add a vote |
//! | text | the board |
//! | text | the player |
//! | 8 | the change of the score, signed |
//! | text | the idempotency key; empty if there is none |
//! | 16 | the fingerprint of the request; only if there is a key |
//!
//! Nothing follows. Kinds that some member does not know yet must not be proposed: it would answer
//! [`Outcome::Unreadable`](crate::reply::Outcome) where others apply, and its state would differ.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use crate::codec::{self, DecodeError, Reader};
use crate::idempotency::{Idempotency, IdempotencyKey};
use crate::types::{BoardId, Player, Score};

const VERSION: u8 = 1;
const KIND_ADD_VOTE: u8 = 1;

/// A change of the leaderboard, replicated in the log and applied on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Adds to a player's score.
    AddVote(AddVote),
}

/// Adds `delta` to the score of `player` on `board`; the player joins the board if need be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddVote {
    /// Where.
    pub board: BoardId,
    /// Whose score.
    pub player: Player,
    /// By how much, also downwards.
    pub delta: Score,
    /// What tells a repetition from a second vote, if the client cares.
    pub idempotency: Option<Idempotency>,
}

impl AddVote {
    /// What the request asks for, in 128 bits: equal for the same vote, however it was spelled (JSON,
    /// form, query). Goes into [`Idempotency::fingerprint`]; fixed for ever, as it is replicated.
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        let mut bytes = b"add_vote".to_vec();
        codec::put_short_text(&mut bytes, self.board.as_str());
        codec::put_short_text(&mut bytes, self.player.as_str());
        bytes.extend_from_slice(&self.delta.get().to_le_bytes());
        xxh3_128(&bytes)
    }
}

impl Command {
    /// The bytes to propose, at most 300 or so.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let Self::AddVote(AddVote { board, player, delta, idempotency }) = self;
        let mut bytes = vec![VERSION, KIND_ADD_VOTE];
        codec::put_short_text(&mut bytes, board.as_str());
        codec::put_short_text(&mut bytes, player.as_str());
        bytes.extend_from_slice(&delta.get().to_le_bytes());
        match idempotency {
            Some(Idempotency { key, fingerprint }) => {
                codec::put_short_text(&mut bytes, key.as_str());
                bytes.extend_from_slice(&fingerprint.to_le_bytes());
            }
            None => codec::put_short_text(&mut bytes, ""),
        }
        bytes.into()
    }

    /// Reads what [`Command::encode`] wrote, in this version or an earlier one.
    ///
    /// # Errors
    /// For bytes of a newer version, and for any that no version wrote. Never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        match reader.u8()? {
            VERSION => {}
            version => return Err(DecodeError::UnknownVersion(version)),
        }
        match reader.u8()? {
            KIND_ADD_VOTE => {}
            kind => return Err(DecodeError::UnknownKind(kind)),
        }
        let board = BoardId::new(reader.short_text()?)
            .map_err(|_| DecodeError::Damaged("the board has no valid name"))?;
        let player = Player::new(reader.short_text()?)
            .map_err(|_| DecodeError::Damaged("the player has no valid name"))?;
        let delta = Score::new(reader.i64()?)
            .ok_or(DecodeError::Damaged("the score is beyond its bounds"))?;
        let idempotency = match reader.short_text()? {
            "" => None,
            key => {
                let key = IdempotencyKey::new(key)
                    .map_err(|_| DecodeError::Damaged("the idempotency key is not valid"))?;
                Some(Idempotency { key, fingerprint: reader.u128()? })
            }
        };
        reader.end()?;
        Ok(Self::AddVote(AddVote { board, player, delta, idempotency }))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn add_vote() -> impl Strategy<Value = AddVote> {
        let name = || "[a-zA-Z0-9 äß🎲-]{1,16}";
        let key = prop::option::of(("[ -~]{1,128}", any::<u128>()));
        (name(), name(), Score::MIN.get()..=Score::MAX.get(), key).prop_map(
            |(board, player, delta, key)| AddVote {
                board: BoardId::new(&board).unwrap(),
                player: Player::new(&player).unwrap(),
                delta: Score::new(delta).unwrap(),
                idempotency: key.map(|(key, fingerprint)| Idempotency {
                    key: IdempotencyKey::new(&key).unwrap(),
                    fingerprint,
                }),
            },
        )
    }

    proptest! {
        #[test]
        fn reads_what_it_wrote(vote in add_vote()) {
            let command = Command::AddVote(vote);
            prop_assert_eq!(Command::decode(&command.encode()), Ok(command));
        }

        #[test]
        fn hostile_bytes_are_refused_or_read_back_the_same(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            if let Ok(command) = Command::decode(&bytes) {
                prop_assert_eq!(&command.encode()[..], &bytes[..]);
            }
        }

        #[test]
        fn a_damaged_command_is_refused_or_another_one(
            vote in add_vote(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = Command::AddVote(vote).encode().to_vec();
            prop_assert!(Command::decode(&bytes[..cut.index(bytes.len())]).is_err());
            let mut damaged = bytes.clone();
            damaged[at.index(bytes.len())] = byte;
            if let Ok(command) = Command::decode(&damaged) {
                prop_assert_eq!(&command.encode()[..], &damaged[..]);
            }
            let mut longer = bytes;
            longer.push(byte);
            prop_assert!(Command::decode(&longer).is_err());
        }
    }

    #[test]
    fn version_1_stays_readable() {
        let mut vote = AddVote {
            board: BoardId::default(),
            player: Player::new("zoë").unwrap(),
            delta: Score::new(-2).unwrap(),
            idempotency: None,
        };
        let plain = b"\x01\x01\x07default\x04zo\xc3\xab\xfe\xff\xff\xff\xff\xff\xff\xff\x00";
        assert_eq!(Command::decode(plain), Ok(Command::AddVote(vote.clone())));
        let keyed = b"\x01\x01\x07default\x04zo\xc3\xab\xfe\xff\xff\xff\xff\xff\xff\xff\x02k1\
                      \x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let key = IdempotencyKey::new("k1").unwrap();
        vote.idempotency = Some(Idempotency { key, fingerprint: 5 });
        assert_eq!(Command::decode(keyed), Ok(Command::AddVote(vote.clone())));
        assert_eq!(vote.fingerprint(), FINGERPRINT_FOR_EVER);
        assert_eq!(Command::decode(b"\x02\x01"), Err(DecodeError::UnknownVersion(2)));
        assert_eq!(Command::decode(b"\x01\x09"), Err(DecodeError::UnknownKind(9)));
    }

    /// A retry may be answered by a node of another version: the fingerprint must not change.
    const FINGERPRINT_FOR_EVER: u128 = 0x71b6c388_f0cc11cb_e50ce5f6_b4dcb20d;
}
