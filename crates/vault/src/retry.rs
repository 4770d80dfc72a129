//! Which errors are tried again at once, and after which pause.

use std::time::Duration;

use crate::Error;

/// A standby was measured to lag at most 0.2 s behind the active node.
const STALE_PAUSE: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A caller waits at most this long between two attempts; a longer `Retry-After` is an error at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Slowest pace of logging in while Vault cannot be reached.
const LONGEST_LOGIN_PAUSE: Duration = Duration::from_secs(60);

/// The pause before attempt number `next` (from 1), or `None` where another attempt at once is useless.
pub(crate) fn pause(error: &Error, next: u32) -> Option<Duration> {
    if let Error::Stale = error {
        return Some(STALE_PAUSE.saturating_mul(next) + jitter(STALE_PAUSE));
    }
    if let Error::RateLimited {
        retry_after: Some(after),
    } = error
    {
        return (*after <= LONGEST_PAUSE).then(|| *after + jitter(FIRST_PAUSE));
    }
    // A sealed or new Vault waits for a person: the caller's slow loop comes back.
    let waits_for_a_person = matches!(error, Error::Sealed | Error::Uninitialised);
    (error.is_transient() && !waits_for_a_person).then(|| exponential(next, LONGEST_PAUSE))
}

/// The pause before the next try to renew or log in, after `failures` in a row.
pub(crate) fn login_pause(failures: u32) -> Duration {
    exponential(failures, LONGEST_LOGIN_PAUSE)
}

/// Half fixed, half random, so that callers that failed together do not come back together.
fn exponential(next: u32, longest: Duration) -> Duration {
    let full = FIRST_PAUSE
        .saturating_mul(2_u32.saturating_pow(next.min(16)))
        .min(longest);
    full / 2 + jitter(full / 2)
}

fn jitter(most: Duration) -> Duration {
    most.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_passing_troubles_are_tried_again_and_pauses_are_bounded() {
        let again = |error: &Error| {
            (1..=40)
                .map(|next| pause(error, next))
                .collect::<Option<Vec<_>>>()
        };
        let limit = Duration::from_secs(1);
        for error in [
            Error::Timeout { limit },
            Error::RateLimited {
                retry_after: Some(limit),
            },
        ] {
            let pauses = again(&error).unwrap_or_default();
            assert_eq!(pauses.len(), 40);
            assert!(
                pauses
                    .iter()
                    .all(|pause| *pause <= LONGEST_PAUSE + FIRST_PAUSE)
            );
        }
        let slow = Error::RateLimited {
            retry_after: Some(Duration::from_secs(60)),
        };
        for error in [Error::Sealed, Error::Denied { at: String::new() }, slow] {
            assert!(again(&error).is_none(), "{error}");
        }
        assert!((0..100).all(|failures| login_pause(failures) <= LONGEST_LOGIN_PAUSE));
    }
}
