//! The only source of chance: election timeouts from a seed (§5.2).

use core::time::Duration;

/// SplitMix64, by Steele, Lea and Flood (2014): small, and good enough to keep timeouts apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A time from `shortest` up to, not including, twice that.
    pub(crate) fn between_once_and_twice(&mut self, shortest: Duration) -> Duration {
        let nanos = u64::try_from(shortest.as_nanos()).unwrap_or(u64::MAX).max(1);
        // The high half of a 128-bit product is uniform to within nanos / 2^64.
        let extra = (u128::from(self.next()) * u128::from(nanos)) >> 64;
        shortest.saturating_add(Duration::from_nanos(extra as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_spread_over_the_whole_range() {
        let mut random = Random::new(7);
        let shortest = Duration::from_millis(100);
        let drawn: alloc::vec::Vec<_> =
            (0..1000).map(|_| random.between_once_and_twice(shortest)).collect();
        assert!(drawn.iter().all(|&time| time >= shortest && time < shortest * 2));
        assert!(drawn.iter().any(|&time| time < shortest * 11 / 10));
        assert!(drawn.iter().any(|&time| time > shortest * 19 / 10));
    }
}
