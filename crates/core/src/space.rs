//! Patterns that choose spaces of a Kibana by their ids.

use std::fmt;
use std::str::FromStr;

use crate::id::{InvalidName, SpaceId};

/// Chooses spaces: an id, or a text in which each `*` stands for any characters, also none.
///
/// An id asks for that space whether or not it was seen; a pattern for the spaces that were seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpacePattern {
    /// This space.
    Exact(SpaceId),
    /// Every space whose id looks like this.
    Like(String),
}

impl SpacePattern {
    /// The one space that it names; `None` for a pattern.
    pub fn exact(&self) -> Option<&SpaceId> {
        match self {
            Self::Exact(id) => Some(id),
            Self::Like(_) => None,
        }
    }

    /// True where it chooses this space.
    pub fn matches(&self, space: &SpaceId) -> bool {
        match self {
            Self::Exact(id) => id == space,
            Self::Like(pattern) => is_like(pattern.as_bytes(), space.as_str().as_bytes()),
        }
    }
}

/// Goes back to the last `*` where something after it does not fit: never more than length times length steps.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(wanted) if wanted == byte => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((after, from)) = star else {
                    return false;
                };
                (p, t) = (after, from + 1);
                star = Some((after, from + 1));
            }
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

impl FromStr for SpacePattern {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if !text.contains('*') {
            return text.parse().map(Self::Exact);
        }
        // With something in place of its stars it is an id.
        SpaceId::from_str(&text.replace('*', "x"))?;
        Ok(Self::Like(text.to_owned()))
    }
}

impl fmt::Display for SpacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(id) => id.fmt(f),
            Self::Like(pattern) => f.write_str(pattern),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        let check = |pattern: &str, space: &str, expected: bool| {
            let pattern: SpacePattern = pattern.parse().unwrap();
            assert_eq!(
                pattern.matches(&space.parse().unwrap()),
                expected,
                "{pattern} {space}"
            );
        };
        check("soc", "soc", true);
        check("soc", "soc-eu", false);
        check("*", "default", true);
        check("soc*", "soc", true);
        check("soc-*", "soc-eu-1", true);
        check("soc-*", "soc", false);
        check("*-eu-*", "soc-eu-1", true);
        check("*-eu", "soc-eu-eu", true);
        check("a*b*c", "a1b11b-d", false);
        check("a*b*c", "a1b22b-c", true);
        check("**", "x", true);
    }

    #[test]
    fn patterns_are_read_as_they_are_shown() {
        for text in ["default", "*", "team-*", "*-prod"] {
            let pattern: SpacePattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), text);
        }
        for bad in ["", "Team-*", "a b*", "a/*"] {
            assert!(bad.parse::<SpacePattern>().is_err(), "{bad}");
        }
    }
}
