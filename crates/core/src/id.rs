//! Ids and names: one newtype each, so that no two can be swapped.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Longest name in characters: the limit of a DNS label, which keeps names usable as labels everywhere.
const NAME_CHARS_MAX: usize = 63;

/// A text that is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kind} name {value:?} is not valid: use 1 to {NAME_CHARS_MAX} lowercase letters, digits, `-`, `_` or `.`, beginning and ending with a letter or digit"
)]
pub struct InvalidName {
    kind: &'static str,
    value: String,
}

/// A text that is not a valid id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} id {value:?} is not a UUID")]
pub struct InvalidId {
    kind: &'static str,
    value: String,
}

fn valid_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= NAME_CHARS_MAX
        && text.chars().all(inner)
        && edge(text.chars().next())
        && edge(text.chars().next_back())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                if valid_name(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName { kind: $kind, value: text.chars().take(80).collect() })
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Uuid);

        impl $type {
            /// Wraps a UUID made at the edge.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::parse_str(text)
                    .map(Self)
                    .map_err(|_| InvalidId { kind: $kind, value: text.chars().take(80).collect() })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.as_hyphenated())
            }
        }
    };
}

name!(
    /// The name of a deployment that operators see; unique in the fleet.
    DeploymentName, "deployment"
);
name!(
    /// The name of a fleet-level connector.
    ConnectorName, "connector"
);
name!(
    /// The name of a Key.
    KeyName, "key"
);
name!(
    /// The name of a placement.
    PlacementName, "placement"
);
name!(
    /// The name of a strategy.
    StrategyName, "strategy"
);
name!(
    /// The name of a set of objects that are kept together in files.
    SetName, "set"
);
name!(
    /// The id of a Kibana space (`[a-z0-9_-]+`, Kibana's own rule; `default` is the one without a path prefix).
    SpaceId, "space"
);

id!(
    /// One Kibana, for ever: survives renaming, not enrolling as a new deployment.
    DeploymentId, "deployment"
);
id!(
    /// One enrolment of an agent: evidence counts only from the same one.
    EnrolmentId, "enrolment"
);
id!(
    /// One rollout.
    RolloutId, "rollout"
);
id!(
    /// One campaign.
    CampaignId, "campaign"
);
id!(
    /// One join or operator token; says nothing about its value.
    TokenId, "token"
);

/// The number of a connector's revision, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// The number of a Key's version, as Vault's KV v2 counts them, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyVersion(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// The version of a deployment's desired state; ordered by epoch, then counter.
///
/// The epoch rises at every start of the control service, so that a database restored from a copy can
/// never produce a generation an agent would take for newer than what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation {
    /// Counts the starts of the control service.
    pub epoch: u64,
    /// Counts the changes of this deployment's desired state.
    pub counter: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lowercase_labels() {
        for good in ["a", "prod", "kibana-9.4", "soc_2", "0"] {
            assert_eq!(good.parse::<DeploymentName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a b",
            "ü",
            "a/b",
            "a\n",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<DeploymentName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn generations_order_by_epoch_first() {
        let old = Generation {
            epoch: 1,
            counter: 9,
        };
        let new = Generation {
            epoch: 2,
            counter: 0,
        };
        assert!(old < new);
    }
}
