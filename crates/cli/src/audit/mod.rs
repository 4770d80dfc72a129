//! The audit log, checked on this side: nothing that control says of its own log is believed here.

pub(crate) mod chain;
pub(crate) mod ecs;

use std::fmt;
use std::str::FromStr;

use keyfleet_core::audit::{Entry, HASH_BYTES, Hash, Outcome};
use keyfleet_proto::v1;

pub(crate) use chain::{Chain, Checked};
pub(crate) use ecs::{read, write};

/// The hash before the first entry.
const NO_HASH: Hash = [0; HASH_BYTES];

/// An entry that cannot be part of the log, or a log with such an entry. The number is the first bad one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// A field that cannot be what control wrote.
    #[error("entry {number} is broken: {problem}")]
    Entry {
        /// Which entry.
        number: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// Not a line that `audit export` writes.
    #[error("line {line} is no exported entry: {problem}")]
    Line {
        /// Line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// An entry is missing, twice there, or at another place.
    #[error("entry {expected} is missing: entry {found} comes where it should be")]
    Gap {
        /// The number that should come.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// The log begins later than at 1, and nothing vouches for what came before.
    #[error("the log begins at entry {first}, and nothing vouches for those before it")]
    Beginning {
        /// Its first entry.
        first: u64,
    },
    /// It does not continue what stands before it.
    #[error("entry {number} is broken: its previous hash is not the hash of entry {}", number - 1)]
    Previous {
        /// Which entry.
        number: u64,
    },
    /// Its content is not what was hashed.
    #[error(
        "entry {number} is broken: it was changed after it was written, its hash is not of what it says"
    )]
    Hash {
        /// Which entry.
        number: u64,
    },
    /// The entry is right in itself, but was another one when its hash was noted.
    #[error(
        "entry {number} is not the one whose hash was noted: the log was replaced at it or before"
    )]
    Anchor {
        /// Which entry.
        number: u64,
    },
    /// The noted entry is not there.
    #[error(
        "the log ends at entry {last}, before entry {number} whose hash was noted: what came after was taken away"
    )]
    Cut {
        /// Its last entry; 0 for an empty log.
        last: u64,
        /// The noted entry.
        number: u64,
    },
}

impl Error {
    /// What the operator can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Line { .. } => "give a file that `keyfleet audit export` wrote",
            Self::Beginning { first } => {
                return Some(format!(
                    "`--anchor {}:HASH` with the hash that was noted, or export from the beginning",
                    first - 1
                ));
            }
            Self::Entry { .. }
            | Self::Gap { .. }
            | Self::Previous { .. }
            | Self::Hash { .. }
            | Self::Anchor { .. }
            | Self::Cut { .. } => {
                "compare with an earlier export, and ask who could write the database"
            }
        };
        Some(text.to_owned())
    }
}

/// An entry with its two hashes: one link of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// What it says.
    pub(crate) entry: Entry,
    /// The hash of the entry before it.
    pub(crate) previous: Hash,
    /// Its own hash.
    pub(crate) hash: Hash,
}

impl TryFrom<v1::AuditEntry> for Link {
    type Error = Error;

    fn try_from(wire: v1::AuditEntry) -> Result<Self, Error> {
        let broken = |problem: &str| Error::Entry {
            number: wire.number,
            problem: problem.to_owned(),
        };
        let at = keyfleet_proto::timestamp_required("at", wire.at)
            .map_err(|err| broken(&err.to_string()))?;
        let hash = |bytes: &[u8]| {
            Hash::try_from(bytes).map_err(|_| broken("a hash of it is not 32 bytes long"))
        };
        Ok(Self {
            previous: hash(&wire.previous_hash)?,
            hash: hash(&wire.hash)?,
            entry: Entry {
                number: wire.number,
                at,
                outcome: outcome(&wire.outcome).map_err(|problem| broken(&problem))?,
                principal: wire.principal,
                token: wire.token,
                action: wire.action,
                target: wire.target,
                reason: wire.reason,
                detail: wire.detail,
            },
        })
    }
}

fn outcome(text: &str) -> Result<Outcome, String> {
    Outcome::parse(text).ok_or_else(|| format!("its outcome {text:?} is not known"))
}

/// A place in the log with its hash: `NUMBER:HASH`. What somebody noted elsewhere cannot be rewritten here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// Which entry.
    pub(crate) number: u64,
    /// Its hash.
    pub(crate) hash: Hash,
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, hex(&self.hash))
    }
}

impl FromStr for Anchor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "write NUMBER:HASH, as `keyfleet audit verify` prints it";
        let (number, hash) = text.trim().split_once(':').ok_or(FORM)?;
        Ok(Self {
            number: number.parse().ok().filter(|n| *n > 0).ok_or(FORM)?,
            hash: unhex(hash).ok_or(FORM)?,
        })
    }
}

/// A hash in hexadecimal, lower case.
pub(crate) fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The log of control has a hash in groups with colons between them: one long word would be masked there.
fn unhex(text: &str) -> Option<Hash> {
    let mut hash = NO_HASH;
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    if digits.len() != 2 * HASH_BYTES {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
    }
    Some(hash)
}
