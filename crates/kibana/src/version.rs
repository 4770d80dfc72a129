//! Kibana's version number.

use std::fmt;
use std::str::FromStr;

/// A Kibana release, such as 9.4.0. A snapshot counts as the release it precedes: it has that release's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first number.
    pub major: u16,
    /// The second number; connector fields appear with a minor release.
    pub minor: u16,
    /// The third number.
    pub patch: u16,
}

/// A text that is not a Kibana version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a Kibana version; write three numbers, such as 9.4.0")]
pub struct InvalidVersion(String);

impl Version {
    /// The oldest Kibana that Keyfleet works with: 8.9 was the first with `.gen-ai` (kibana#157228).
    pub const OLDEST: Self = Self::new(8, 9, 0);

    /// The release with these numbers.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let invalid = || InvalidVersion(text.chars().take(40).collect());
        let release = text.strip_suffix("-SNAPSHOT").unwrap_or(text);
        let mut numbers = release.split('.').map(number);
        match (
            numbers.next(),
            numbers.next(),
            numbers.next(),
            numbers.next(),
        ) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => Ok(Self {
                major,
                minor,
                patch,
            }),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Digits only: `u16::from_str` alone would also take a sign.
fn number(text: &str) -> Option<u16> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_three_numbers() {
        for (text, version) in [
            ("9.4.0", Version::new(9, 4, 0)),
            ("8.18.12", Version::new(8, 18, 12)),
            ("9.6.0-SNAPSHOT", Version::new(9, 6, 0)),
        ] {
            assert_eq!(text.parse(), Ok(version));
        }
        for bad in [
            "",
            "9",
            "9.4",
            "9.4.0.1",
            "9.4.x",
            "+9.4.0",
            "9..0",
            "v9.4.0",
            "9.4.0-beta",
            "99999.0.0",
        ] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn versions_order_by_number_and_not_by_text() {
        assert!(Version::new(8, 9, 0) < Version::new(8, 18, 0));
        assert!(Version::new(8, 19, 9) < Version::new(9, 0, 0));
        assert_eq!(Version::new(9, 4, 1).to_string(), "9.4.1");
    }
}
