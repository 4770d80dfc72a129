//! Durations as operators write them: `90s`, `15m`, `1h30m`, `1h 30m`, `90d`; a bare number is seconds.

use std::time::Duration;

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a number with s, m, h or d, such as 90s, 15m, 1h30m or 90d")]
pub(crate) struct Invalid;

/// Parses a duration of at least one second.
///
/// # Errors
/// [`Invalid`] for everything else.
pub(crate) fn parse(text: &str) -> Result<Duration, Invalid> {
    let mut secs: u64 = 0;
    let mut number = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        // Between parts, as [`short`] writes them.
        if c == ' ' && number.is_empty() && secs > 0 {
            continue;
        }
        let part = number
            .parse::<u64>()
            .ok()
            .zip(unit_secs(c))
            .and_then(|(n, unit)| n.checked_mul(unit));
        secs = part
            .and_then(|part| secs.checked_add(part))
            .ok_or(Invalid)?;
        number.clear();
    }
    match (number.as_str(), secs) {
        ("", 0) => Err(Invalid),
        ("", secs) => Ok(Duration::from_secs(secs)),
        (bare, 0) => bare
            .parse()
            .ok()
            .filter(|secs| *secs > 0)
            .map(Duration::from_secs)
            .ok_or(Invalid),
        _ => Err(Invalid),
    }
}

fn unit_secs(unit: char) -> Option<u64> {
    match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3_600),
        'd' => Some(86_400),
        _ => None,
    }
}

/// A duration in its two largest units: `3m`, `1h 5m`, `12d 3h`.
pub(crate) fn short(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60);
    let two = |big: u64, big_unit: char, small: u64, small_unit: char| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit} {small}{small_unit}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs}s"),
        (0, 0, minutes) => two(minutes, 'm', secs % 60, 's'),
        (0, hours, minutes) => two(hours, 'h', minutes, 'm'),
        (days, hours, _) => two(days, 'd', hours, 'h'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let check = |text: &str, secs: Option<u64>| {
            assert_eq!(parse(text).ok(), secs.map(Duration::from_secs), "{text:?}");
        };
        check("90", Some(90));
        check("90s", Some(90));
        check("1h30m", Some(5_400));
        check("90d", Some(7_776_000));
        for bad in [
            "",
            "0",
            "0s",
            "h",
            "1x",
            "1h30",
            "-1s",
            "1.5h",
            "99999999999999999999d",
            " 1s",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn durations_are_shown_short() {
        let check = |secs: u64, text: &str| assert_eq!(short(secs), text);
        check(0, "0s");
        check(59, "59s");
        check(180, "3m");
        check(190, "3m 10s");
        check(3_900, "1h 5m");
        check(86_400 * 12 + 3 * 3_600, "12d 3h");
    }
}
