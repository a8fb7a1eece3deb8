//! A digest of 128 bits that is the same in every build and process: what tells two runs apart.

use std::hash::Hasher;

/// Two lanes of multiply and rotate. Good against accidents, not against an adversary.
#[derive(Clone, Debug)]
pub(crate) struct Digest {
    lanes: [u64; 2],
}

impl Default for Digest {
    fn default() -> Self {
        Self { lanes: [0x6C62_272E_07BB_0142, 0x62B8_2175_6295_C58D] }
    }
}

impl Digest {
    pub(crate) fn value(&self) -> u128 {
        u128::from(mix(self.lanes[0])) << 64 | u128::from(mix(self.lanes[1] ^ self.lanes[0]))
    }
}

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        self.write_u64(bytes.len() as u64);
    }

    fn write_u64(&mut self, word: u64) {
        let [one, other] = &mut self.lanes;
        *one = (*one ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        *other = other.rotate_left(31).wrapping_add(word).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        self.value() as u64
    }
}

/// The finish of SplitMix64: every bit of the input moves every bit of the output.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// One seed from two numbers.
pub(crate) const fn seed_of(one: u64, other: u64) -> u64 {
    mix(mix(one.wrapping_add(0x9E37_79B9_7F4A_7C15)) ^ other.wrapping_mul(0xD6E8_FEB8_6659_FD93))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::Hash;

    use super::*;

    #[test]
    fn what_differs_has_other_digests() {
        let of = |parts: &[&str]| {
            let mut digest = Digest::default();
            parts.iter().for_each(|part| part.hash(&mut digest));
            digest.value()
        };
        let all = [
            of(&[]),
            of(&[""]),
            of(&["a"]),
            of(&["b"]),
            of(&["a", "b"]),
            of(&["b", "a"]),
            of(&["ab"]),
            of(&["a\0"]),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn the_digest_is_the_same_in_every_build() {
        let mut digest = Digest::default();
        (1_u8, "two", 3_u128).hash(&mut digest);
        assert_eq!(digest.value(), 301_307_402_537_217_354_228_793_516_304_611_125_645);
    }

    #[test]
    fn seeds_differ() {
        let seeds: BTreeSet<u64> =
            (0..100).flat_map(|one| (0..100).map(move |other| seed_of(one, other))).collect();
        assert_eq!(seeds.len(), 10_000);
    }
}
