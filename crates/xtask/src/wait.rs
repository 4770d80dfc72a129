//! Waiting for a condition with a deadline. Nothing else in this crate pauses.

use std::time::{Duration, Instant};

/// Time between two looks at a condition: short beside everything that is waited for here.
const STEP: Duration = Duration::from_millis(15);

/// Looks until `look` gives a value or the deadline has passed (`None`). It looks at least once.
pub fn until<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = look() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that pauses between two looks at a condition"
)]
fn pause() {
    std::thread::sleep(STEP);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_first_value_and_stops_at_the_deadline() {
        let mut looks = 0;
        let found = until(Duration::from_secs(5), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, Some(3));
        assert_eq!(until(Duration::ZERO, || None::<u8>), None);
    }
}
