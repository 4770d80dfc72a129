//! The only caller of `now()` in the control service.

use keyfleet_core::Timestamp;

/// The time.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
