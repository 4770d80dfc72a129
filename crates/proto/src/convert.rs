//! Conversions between wire and core. What a peer sent is checked here once; each failure names the field.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingState, Rung};
use keyfleet_core::campaign;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::fleet::{LABEL_CHARS_MAX, Labels, is_label};
use keyfleet_core::id::{Generation, KeyVersion, Revision};
use keyfleet_core::key::KeyState;
use keyfleet_core::placement::DriftPolicy;
use keyfleet_core::rollout::{Phase, Verb, Verdict};
use keyfleet_core::standing::Standing;
use keyfleet_core::token::Role;

use crate::v1;

/// Most labels a deployment may claim.
const LABELS_MAX: usize = 64;

/// A wire message that cannot be used: which field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}` {problem}")]
pub struct Invalid {
    /// Path of the field in the message.
    pub field: String,
    /// What is wrong, to be read after the field's name.
    pub problem: String,
}

impl Invalid {
    /// A field with this problem.
    pub fn new(field: impl Into<String>, problem: impl Display) -> Self {
        Self {
            field: field.into(),
            problem: problem.to_string(),
        }
    }

    /// A field that must be there and is not.
    pub fn missing(field: impl Into<String>) -> Self {
        Self::new(field, "is missing")
    }

    /// Parses a text field.
    ///
    /// # Errors
    /// Names the field and what its type says.
    pub fn parse<T>(field: &str, text: &str) -> Result<T, Self>
    where
        T: FromStr,
        T::Err: Display,
    {
        text.parse()
            .map_err(|err| Self::new(field, format_args!("is not valid: {err}")))
    }
}

/// A point in time from the wire; absent stays absent.
///
/// # Errors
/// Where it is out of range.
pub fn timestamp(
    field: &str,
    wire: Option<prost_types::Timestamp>,
) -> Result<Option<Timestamp>, Invalid> {
    wire.map(|wire| {
        Timestamp::new(wire.seconds, wire.nanos).map_err(|_| {
            Invalid::new(
                field,
                "is not a point in time between the years -9999 and 9999",
            )
        })
    })
    .transpose()
}

/// A point in time that must be there.
///
/// # Errors
/// Where it is absent or out of range.
pub fn timestamp_required(
    field: &str,
    wire: Option<prost_types::Timestamp>,
) -> Result<Timestamp, Invalid> {
    timestamp(field, wire)?.ok_or_else(|| Invalid::missing(field))
}

/// Whole seconds for the wire, at most what fits.
pub fn duration_secs(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// Labels from the wire.
///
/// # Errors
/// Where there are too many, or a key or value is empty, too long, or has characters that selectors cannot name.
pub fn labels(field: &str, wire: BTreeMap<String, String>) -> Result<Labels, Invalid> {
    if wire.len() > LABELS_MAX {
        return Err(Invalid::new(
            field,
            format_args!("has more than {LABELS_MAX} labels"),
        ));
    }
    for (key, value) in &wire {
        if !is_label(key) || !is_label(value) {
            let problem = format!(
                "has label {key:?}={value:?}: use 1 to {LABEL_CHARS_MAX} letters, digits, `-`, `_`, `.` or `/` on each side"
            );
            return Err(Invalid::new(field, problem));
        }
    }
    Ok(wire)
}

impl From<Generation> for v1::Generation {
    fn from(core: Generation) -> Self {
        Self {
            epoch: core.epoch,
            counter: core.counter,
        }
    }
}

impl From<v1::Generation> for Generation {
    fn from(wire: v1::Generation) -> Self {
        Self {
            epoch: wire.epoch,
            counter: wire.counter,
        }
    }
}

impl From<Assignment> for v1::Assignment {
    fn from(core: Assignment) -> Self {
        Self {
            revision: core.revision.0,
            key_version: core.key_version.0,
        }
    }
}

impl From<v1::Assignment> for Assignment {
    fn from(wire: v1::Assignment) -> Self {
        Self {
            revision: Revision(wire.revision),
            key_version: KeyVersion(wire.key_version),
        }
    }
}

/// A core enum and its wire enum, variant by variant, in both directions.
macro_rules! wire_enum {
    ($core:ty, $wire:ty, { $($variant:ident),+ $(,)? }) => {
        impl From<$core> for $wire {
            fn from(core: $core) -> Self {
                match core {
                    $(<$core>::$variant => Self::$variant,)+
                }
            }
        }

        impl TryFrom<$wire> for $core {
            type Error = Invalid;

            fn try_from(wire: $wire) -> Result<Self, Invalid> {
                match wire {
                    $(<$wire>::$variant => Ok(Self::$variant),)+
                    <$wire>::Unspecified => Err(Invalid::missing(stringify!($core))),
                }
            }
        }
    };
}

wire_enum!(BindingState, v1::BindingState, {
    Waiting, Offered, Received, Applied, Proven, Failed, Drifted, Waived, Unknown,
});
wire_enum!(FailureClass, v1::FailureClass, {
    Auth, Egress, Quota, RateLimit, Model, Network, Provider, Licence, KibanaAuth, KibanaDown, Rejected,
    Conflict, Encryption, Timeout, Unreachable, Agent,
});
wire_enum!(DriftPolicy, v1::DriftPolicy, { Correct, Report, Pause });
wire_enum!(Rung, v1::ProbeRung, { Loaded, Reached, KeyAccepted, Answered });
wire_enum!(KeyState, v1::KeyState, {
    Pending, Current, Previous, Retiring, Revoked, Abandoned, Orphan, Compromised,
});
wire_enum!(Phase, v1::RolloutPhase, {
    Pending, Progressing, Paused, Halted, RollingBack, RollbackPaused, RollbackHalted, Completed, RolledBack,
    Aborted, Superseded,
});
wire_enum!(Verb, v1::RolloutVerb, { Pause, Resume, Abort, Rollback, Retry, Approve, FastForward });
wire_enum!(campaign::State, v1::CampaignState, {
    Planned, Minting, Validating, Rolling, Converged, Draining, RevokeReady, Revoking, VerifyingDead, Closed, Halted,
    RollingBack, RolledBack, Cancelled,
});
wire_enum!(campaign::Course, v1::CampaignCourse, { Forward, RevokeFirst, Back, Cancel });
wire_enum!(campaign::Verb, v1::CampaignVerb, { Pause, Resume, Rollback, Approve, Confirm });
wire_enum!(Verdict, v1::GateVerdict, { Pass, Fail, Inconclusive });
wire_enum!(Role, v1::Role, { Viewer, Operator, Admin });
wire_enum!(Standing, v1::Standing, { Active, Suspended, Cloned, Revoked });

/// A point in time for the wire.
impl From<WireTime> for prost_types::Timestamp {
    fn from(WireTime(at): WireTime) -> Self {
        Self {
            seconds: at.as_second(),
            nanos: at.subsec_nanosecond(),
        }
    }
}

/// Wraps a core timestamp on its way to the wire.
#[derive(Debug, Clone, Copy)]
pub struct WireTime(pub Timestamp);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_enum_is_named() {
        let err = BindingState::try_from(v1::BindingState::Unspecified).unwrap_err();
        assert_eq!(err.to_string(), "field `BindingState` is missing");
    }

    #[test]
    fn every_class_survives_the_wire() {
        for class in FailureClass::ALL {
            assert_eq!(
                FailureClass::try_from(v1::FailureClass::from(class)),
                Ok(class)
            );
        }
        for phase in Phase::ALL {
            assert_eq!(Phase::try_from(v1::RolloutPhase::from(phase)), Ok(phase));
        }
    }

    #[test]
    fn timestamps_survive_the_wire_and_nonsense_is_refused() {
        let at: Timestamp = "2026-11-23T12:00:00.5Z".parse().unwrap();
        let wire = prost_types::Timestamp::from(WireTime(at));
        assert_eq!(timestamp("at", Some(wire)), Ok(Some(at)));
        let nonsense = prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        };
        assert!(
            timestamp("at", Some(nonsense))
                .unwrap_err()
                .to_string()
                .contains("`at`")
        );
    }

    #[test]
    fn labels_are_checked() {
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert!(labels("labels", map("env", "prod")).is_ok());
        for (key, value) in [("", "x"), ("x", ""), ("a b", "c"), ("a", "b\n"), ("a", "ü")] {
            assert!(
                labels("labels", map(key, value)).is_err(),
                "{key:?} {value:?}"
            );
        }
    }
}
