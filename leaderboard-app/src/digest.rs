//! A fingerprint of the whole replicated state, the same for the same state however it came about.
//!
//! Every record is hashed by itself with XXH3 (128 bits, seed 0) and the hashes are added modulo
//! 2^128. Addition commutes and has an inverse, so a record is replaced in O(1) and neither the order
//! of updates nor the shape of any tree shows. Replicas at equal log index must have equal digests;
//! it guards against bugs and broken memory, not against someone who forges records on purpose.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

/// The sum of the hashes of a set of records. The empty set has digest zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(u128);

impl Digest {
    /// Takes a record in. `bytes` must name its kind first and be unambiguous.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0 = self.0.wrapping_add(xxh3_128(bytes));
    }

    /// Takes out a record that was taken in, with the same bytes.
    pub fn remove(&mut self, bytes: &[u8]) {
        self.0 = self.0.wrapping_sub(xxh3_128(bytes));
    }

    /// As a number, for formats that keep it.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }

    /// The digest of both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl fmt::Display for Digest {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_updates_does_not_show() {
        let mut forwards = Digest::default();
        forwards.add(b"one");
        forwards.add(b"two");
        let mut backwards = Digest::default();
        backwards.add(b"two");
        backwards.add(b"three");
        backwards.add(b"one");
        backwards.remove(b"three");
        assert_eq!(forwards, backwards);
        backwards.remove(b"one");
        backwards.remove(b"two");
        assert_eq!(backwards, Digest::default());
    }

    #[test]
    fn the_hash_is_fixed_for_ever() {
        // Replicas of different versions compare digests: this value must never change.
        let mut digest = Digest::default();
        digest.add(b"");
        assert_eq!(digest.to_string(), "99aa06d3014798d86001c324468d497f");
    }
}
