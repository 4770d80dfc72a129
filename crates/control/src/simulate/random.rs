//! Random numbers that a seed decides: the same seed gives the same run on every machine.

use std::time::Duration;

/// `SplitMix64` (Steele, Lea, Flood 2014): small, quick, and good enough to choose what happens next.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Less than `n`; 0 where `n` is 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next().checked_rem(n).unwrap_or(0)
    }

    /// True in so many of 10,000 cases.
    pub(crate) fn chance(&mut self, of_ten_thousand: u32) -> bool {
        self.below(10_000) < u64::from(of_ten_thousand)
    }

    /// Between half of it and one and a half times it.
    pub(crate) fn about(&mut self, duration: Duration) -> Duration {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2);
        Duration::from_millis(millis / 2 + self.below(millis + 1))
    }

    /// One of them.
    #[cfg(test)]
    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let n = u64::try_from(all.len()).unwrap_or(0);
        let index = usize::try_from(self.below(n)).unwrap_or(0);
        all.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same() {
        let mut random = Random::new(7);
        let first: Vec<u64> = (0..3).map(|_| random.below(100)).collect();
        let mut again = Random::new(7);
        assert_eq!(first, (0..3).map(|_| again.below(100)).collect::<Vec<_>>());
        assert!(!random.chance(0) && random.chance(10_000));
        assert_eq!(random.below(0), 0);
        assert_eq!(random.pick::<u8>(&[]), None);
    }
}
