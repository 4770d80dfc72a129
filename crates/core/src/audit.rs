//! The audit log: what an entry says, and the bytes that its hash covers.
//!
//! Each entry's hash covers the hash before it, so that nobody changes, drops or inserts an entry in the middle
//! without every later hash being wrong. Who can write the database could still replace the whole log from some
//! entry on: an export that lies elsewhere, or one hash that somebody noted, tells.

use crate::Timestamp;

/// Length of a hash: SHA-256 (FIPS 180-4), which any language has.
pub const HASH_BYTES: usize = 32;

/// A hash of the chain; all zero before the first entry.
pub type Hash = [u8; HASH_BYTES];

/// Beginning of the bytes that are hashed; a change of the encoding changes it.
const LABEL: &[u8] = b"keyfleet-audit-v1";

/// What came of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused.
    Refused,
}

impl Outcome {
    /// The name in rows, exports and the hash.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }

    /// The outcome of this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Done, Self::Refused]
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
    }
}

/// One act: who did what to what, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place, from 1, without gaps.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Who: a principal, or `keyfleet` for what nobody asked for.
    pub principal: String,
    /// Id of the operator token; empty where nobody called.
    pub token: String,
    /// What was done, as `noun.verb`, such as `rollout.pause`.
    pub action: String,
    /// To what, as `noun name`.
    pub target: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Why, as the caller said.
    pub reason: String,
    /// What else there is to know, a sentence.
    pub detail: String,
}

impl Entry {
    /// The bytes whose SHA-256 is the entry's hash: a label, the hash before it, the number and the time
    /// (nanoseconds since 1970, UTC) as 8 bytes big-endian each, then each text as its length (8 bytes big-endian)
    /// and its UTF-8, in the order of the fields.
    pub fn hashed_bytes(&self, previous: &Hash) -> Vec<u8> {
        let mut bytes = LABEL.to_vec();
        bytes.extend_from_slice(previous);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        let nanos = i64::try_from(self.at.as_nanosecond()).unwrap_or_default();
        bytes.extend_from_slice(&nanos.to_be_bytes());
        for text in [
            self.principal.as_str(),
            &self.token,
            &self.action,
            &self.target,
            self.outcome.as_str(),
            &self.reason,
            &self.detail,
        ] {
            bytes.extend_from_slice(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(principal: &str, token: &str) -> Entry {
        Entry {
            number: 1,
            at: Timestamp::UNIX_EPOCH,
            principal: principal.to_owned(),
            token: token.to_owned(),
            action: "token.create".to_owned(),
            target: "token 1".to_owned(),
            outcome: Outcome::Done,
            reason: String::new(),
            detail: String::new(),
        }
    }

    #[test]
    fn no_two_entries_share_their_bytes() {
        let none = [0; HASH_BYTES];
        let bytes = entry("ab", "c").hashed_bytes(&none);
        assert_ne!(bytes, entry("a", "bc").hashed_bytes(&none));
        assert_ne!(bytes, entry("ab", "c").hashed_bytes(&[1; HASH_BYTES]));
        let refused = Entry {
            outcome: Outcome::Refused,
            ..entry("ab", "c")
        };
        assert_ne!(bytes, refused.hashed_bytes(&none));
    }
}
