//! The words of a leaderboard: players, boards, scores. Each value is checked where it is made, so
//! that everything that holds one can rely on it.

use std::fmt;
use std::sync::Arc;

/// The longest name of a player or a board, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 64;

/// Who plays: 1 to [`NAME_BYTES_MAX`] bytes of UTF-8 without control characters, compared byte for
/// byte (no normalisation: two spellings are two players). Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Player(Arc<str>);

/// Which board: a name under the same rules as a [`Player`]'s. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoardId(Arc<str>);

/// Why a text cannot name a player or a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no bytes at all.
    #[error("must not be empty")]
    Empty,
    /// It has more than [`NAME_BYTES_MAX`] bytes.
    #[error("has {bytes} bytes of UTF-8, at most {NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// It has a control character (Unicode category Cc), which terminals and logs would obey.
    #[error("has a control character at byte {at}")]
    ControlCharacter {
        /// Where, counted in bytes from 0.
        at: usize,
    },
}

fn checked(name: &str) -> Result<Arc<str>, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    match name.char_indices().find(|(_, character)| character.is_control()) {
        Some((at, _)) => Err(NameError::ControlCharacter { at }),
        None => Ok(Arc::from(name)),
    }
}

impl Player {
    /// The player of this name.
    ///
    /// # Errors
    /// If the name breaks the rules of [`Player`].
    pub fn new(name: &str) -> Result<Self, NameError> {
        checked(name).map(Self)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Player {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BoardId {
    /// The board of this name.
    ///
    /// # Errors
    /// If the name breaks the rules of [`BoardId`].
    pub fn new(name: &str) -> Result<Self, NameError> {
        checked(name).map(Self)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for BoardId {
    /// The board `default`, which always exists.
    fn default() -> Self {
        Self(Arc::from("default"))
    }
}

impl std::borrow::Borrow<str> for BoardId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BoardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A score or a change of one: an integer within ±(2^53 − 1), which JSON carries exactly everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Score(i64);

impl Score {
    /// The highest, 2^53 − 1.
    pub const MAX: Self = Self((1 << 53) - 1);
    /// The lowest, −(2^53 − 1).
    pub const MIN: Self = Self(-((1 << 53) - 1));

    /// This score, or `None` beyond [`Score::MIN`] and [`Score::MAX`].
    #[must_use]
    pub const fn new(score: i64) -> Option<Self> {
        if score < Self::MIN.0 || score > Self::MAX.0 { None } else { Some(Self(score)) }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The sum, or `None` beyond the bounds: a score never wraps and never sticks.
    #[must_use]
    pub const fn checked_add(self, delta: Self) -> Option<Self> {
        // Two values within ±2^53 cannot overflow an i64.
        Self::new(self.0 + delta.0)
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_printable() {
        assert_eq!(Player::new(""), Err(NameError::Empty));
        assert!(Player::new(&"a".repeat(64)).is_ok());
        assert_eq!(Player::new(&"a".repeat(65)), Err(NameError::TooLong { bytes: 65 }));
        assert!(Player::new(&"é".repeat(32)).is_ok());
        assert_eq!(Player::new(&"é".repeat(33)), Err(NameError::TooLong { bytes: 66 }));
        assert_eq!(Player::new("a\nb"), Err(NameError::ControlCharacter { at: 1 }));
        assert_eq!(Player::new("é\u{85}"), Err(NameError::ControlCharacter { at: 2 }));
        assert_eq!(BoardId::new("\0"), Err(NameError::ControlCharacter { at: 0 }));
        assert_eq!(BoardId::default(), BoardId::new("default").unwrap());
    }

    #[test]
    fn scores_end_at_the_bounds() {
        let one = Score::new(1).unwrap();
        assert_eq!(Score::MAX.get(), 9_007_199_254_740_991);
        assert_eq!(Score::new(9_007_199_254_740_992), None);
        assert_eq!(Score::MAX.checked_add(one), None);
        assert_eq!(Score::MIN.checked_add(Score::MIN), None);
        assert_eq!(Score::MAX.checked_add(Score::MIN), Some(Score::default()));
        assert_eq!(Score::new(i64::MIN), None);
    }
}
