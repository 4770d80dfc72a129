//! Points in time for people: an age in tables, RFC 3339 in UTC where it must be exact.

use jiff::Timestamp;

use super::View;
use crate::duration::short;

/// A point in time from the wire; one that cannot be is left out.
fn timestamp(wire: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    wire.and_then(|wire| Timestamp::new(wire.seconds, wire.nanos).ok())
}

/// RFC 3339 in UTC, whole seconds.
pub(crate) fn rfc3339(wire: Option<prost_types::Timestamp>) -> String {
    timestamp(wire)
        .map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

/// The time of day in UTC, for lines of a log.
pub(crate) fn time_of_day(now: Timestamp) -> String {
    now.strftime("%H:%M:%SZ").to_string()
}

/// `3m ago` or `in 14d` in a table, RFC 3339 in a wide one, empty where there is none.
pub(crate) fn when(wire: Option<prost_types::Timestamp>, view: &View) -> String {
    let Some(at) = timestamp(wire) else {
        return String::new();
    };
    if view.wide {
        return rfc3339(wire);
    }
    let secs = view.now.as_second() - at.as_second();
    match secs {
        0..=1 => "now".to_owned(),
        _ if secs > 0 => format!("{} ago", largest(secs.unsigned_abs())),
        _ => format!("in {}", largest(secs.unsigned_abs())),
    }
}

/// Only the largest unit: an age in a table need not be exact.
fn largest(secs: u64) -> String {
    short(secs).split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short_and_wide_times_exact() {
        let at: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let check = |offset: i64, wide: bool, expect: &str| {
            let view = View { wide, now: at };
            let wire = prost_types::Timestamp {
                seconds: at.as_second() + offset,
                nanos: 0,
            };
            assert_eq!(when(Some(wire), &view), expect);
        };
        check(-190, false, "3m ago");
        check(-190, true, "2026-11-23T11:56:50Z");
        check(0, false, "now");
        check(86_400 * 14, false, "in 14d");
        assert_eq!(
            when(
                None,
                &View {
                    wide: false,
                    now: at
                }
            ),
            ""
        );
    }
}
