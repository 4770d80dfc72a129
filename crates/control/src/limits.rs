//! Token buckets: how often something may happen.

use std::time::Instant;

/// A thousandth of a token: what is earned within a millisecond at one token a second.
const MILLI: u64 = 1_000;

/// So many at once, and so many a second after that.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    per_second: u64,
    at_once: u64,
    /// Thousandths of a token.
    left: u64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(per_second: u32, at_once: u32, now: Instant) -> Self {
        let at_once = u64::from(at_once);
        Self {
            per_second: u64::from(per_second),
            at_once,
            left: at_once * MILLI,
            filled_at: now,
        }
    }

    /// Takes one; false where there is none.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled_at).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        if passed > 0 {
            let earned = passed.saturating_mul(self.per_second);
            self.left = self.left.saturating_add(earned).min(self.at_once * MILLI);
            self.filled_at = now;
        }
        let has_one = self.left >= MILLI;
        if has_one {
            self.left -= MILLI;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_is_let_through_and_then_so_many_a_second() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(500, 1_000, begin);
        let take = |bucket: &mut Bucket, tries: usize, at: Instant| {
            (0..tries).filter(|_| bucket.take(at)).count()
        };
        assert_eq!(take(&mut bucket, 2_000, begin), 1_000);
        let later = begin + Duration::from_millis(10);
        assert_eq!(take(&mut bucket, 10, later), 5);
        let much_later = begin + Duration::from_secs(3_600);
        assert_eq!(
            take(&mut bucket, 2_000, much_later),
            1_000,
            "no more than a burst is kept"
        );
        assert_eq!(
            take(&mut bucket, 1, begin),
            0,
            "a clock that goes back gives nothing"
        );
    }
}
