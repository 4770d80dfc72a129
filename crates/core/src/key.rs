//! A Key: the rotation unit, and the life of its versions.

use std::collections::BTreeMap;
use std::fmt;

use crate::fleet::Selector;
use crate::id::{KeyName, KeyVersion};

/// Where a Key lies in Vault: one KV secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyLocation {
    /// Mount point of the KV engine, without slashes at its ends.
    pub mount: String,
    /// Path below the mount, without slashes at its ends.
    pub path: String,
    /// What of the secret is the key.
    pub field: KeyField,
}

/// What of a Vault secret is a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyField {
    /// The text of this field.
    One(String),
    /// Several texts that belong together and rotate together: by the name of the part, as the connector type calls it,
    /// the field that holds it. Never empty. The value travels as one JSON object of the parts, in order of their names.
    Parts(BTreeMap<String, String>),
}

impl KeyField {
    /// The names of the parts; none where the key is one text.
    pub fn parts(&self) -> Vec<String> {
        match self {
            Self::One(_) => Vec::new(),
            Self::Parts(parts) => parts.keys().cloned().collect(),
        }
    }
}

impl From<&str> for KeyField {
    fn from(field: &str) -> Self {
        Self::One(field.to_owned())
    }
}

impl fmt::Display for KeyField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(field) => f.write_str(field),
            Self::Parts(parts) => {
                let fields: Vec<&str> = parts.values().map(String::as_str).collect();
                f.write_str(&fields.join("+"))
            }
        }
    }
}

impl fmt::Display for KeyLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.mount, self.path, self.field)
    }
}

/// The definition of a Key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: KeyName,
    /// Where the value lies.
    pub location: KeyLocation,
    /// Hosts that this key may travel to, lower case, without port; never empty.
    pub allowed_hosts: Vec<String>,
    /// Deployments that may use it.
    pub scope: Selector,
    /// How a new version takes the place of an old one.
    pub rotation: Rotation,
}

/// How a new version of a Key takes the place of an old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// How long the old version is kept alive once everybody has proven the new one, so that a rollback needs nothing from
    /// the provider; in seconds.
    pub overlap_secs: u64,
    /// How many people have to agree before the old version is revoked.
    pub approvals: u32,
}

impl Default for Rotation {
    /// A day, and one person.
    fn default() -> Self {
        Self {
            overlap_secs: 24 * 60 * 60,
            approvals: 1,
        }
    }
}

/// Where a version of a Key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyState {
    /// Seen in Vault, being rolled out.
    Pending,
    /// Proven by every binding that uses the Key.
    Current,
    /// The one before.
    Previous,
    /// About to be revoked: nothing may name it any more.
    Retiring,
    /// Dead at the provider.
    Revoked,
    /// Never became current.
    Abandoned,
    /// Found at the provider, not ours.
    Orphan,
    /// Leaked.
    Compromised,
}

impl KeyState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Current,
        Self::Previous,
        Self::Retiring,
        Self::Revoked,
        Self::Abandoned,
        Self::Orphan,
        Self::Compromised,
    ];

    /// The name in tables, rows and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Current => "CURRENT",
            Self::Previous => "PREVIOUS",
            Self::Retiring => "RETIRING",
            Self::Revoked => "REVOKED",
            Self::Abandoned => "ABANDONED",
            Self::Orphan => "ORPHAN",
            Self::Compromised => "COMPROMISED",
        }
    }

    /// The state of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// True where a new binding may be given this version.
    pub const fn may_be_assigned(self) -> bool {
        matches!(self, Self::Pending | Self::Current | Self::Previous)
    }
}

/// The version that bindings shall get: the newest that is current or on its way to become so.
///
/// `versions` may come in any order. `None` where the Key has no usable version yet.
pub fn goal_version(versions: &[(KeyVersion, KeyState)]) -> Option<KeyVersion> {
    versions
        .iter()
        .filter(|(_, state)| matches!(state, KeyState::Pending | KeyState::Current))
        .map(|(version, _)| *version)
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_one_name() {
        for state in KeyState::ALL {
            assert_eq!(KeyState::parse(state.as_str()), Some(state));
        }
    }

    #[test]
    fn an_abandoned_version_is_never_the_goal() {
        let versions = [
            (KeyVersion(1), KeyState::Previous),
            (KeyVersion(2), KeyState::Current),
            (KeyVersion(3), KeyState::Abandoned),
        ];
        assert_eq!(goal_version(&versions), Some(KeyVersion(2)));
        assert_eq!(goal_version(&versions[..1]), None);
    }
}
