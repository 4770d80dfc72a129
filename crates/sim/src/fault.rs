//! What the fault switches of both simulators have in common.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::reply::{Call, Reply};

/// A switch for everything, or only for some ids: `true`, `false` or a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected true, false or a list of ids")]
pub(crate) enum Only {
    Flag(bool),
    These(BTreeSet<String>),
}

impl Default for Only {
    fn default() -> Self {
        Self::Flag(false)
    }
}

impl Only {
    /// Whether the switch is on for this id.
    pub(crate) fn has(&self, id: &str) -> bool {
        match self {
            Self::Flag(flag) => *flag,
            Self::These(ids) => ids.contains(id),
        }
    }
}

/// The time in the form of the `Date` header (RFC 9110), so many seconds from now.
pub(crate) fn http_date(secs_from_now: i64) -> String {
    let then = Timestamp::now().saturating_add(SignedDuration::from_secs(secs_from_now));
    then.ok()
        .and_then(|then| {
            DateTimePrinter::new()
                .timestamp_to_rfc9110_string(&then)
                .ok()
        })
        .unwrap_or_default()
}

/// Reads a fault document. Unknown keys are refused with a text that names them and lists the known ones.
pub(crate) fn read<T: DeserializeOwned>(call: &Call) -> Result<T, Reply> {
    let body = call.body.as_deref().unwrap_or_default();
    serde_json::from_slice(body)
        .map_err(|error| Reply::sim_error(400, &format!("cannot read the faults: {error}")))
}

/// Which requests an HTTP fault is for; an empty list and no text mean all of them.
pub(crate) fn in_scope(call: &Call, methods: &[String], path_contains: Option<&str>) -> bool {
    let method = methods.is_empty()
        || methods
            .iter()
            .any(|m| m.eq_ignore_ascii_case(call.method.as_str()));
    method && path_contains.is_none_or(|part| call.path.contains(part))
}

/// A switch that may go out by itself after a number of hits.
pub(crate) trait Counted: Clone {
    /// How many more requests it hits; `None` means until it is cleared.
    fn remaining(&mut self) -> &mut Option<NonZeroU32>;
}

/// Takes one hit from the switch in `slot` if it is on and `applies`, and clears it after its last hit.
pub(crate) fn take<F: Counted>(slot: &mut Option<F>, applies: impl Fn(&F) -> bool) -> Option<F> {
    let hit = slot.as_ref().filter(|fault| applies(fault))?.clone();
    if let Some(left) = slot.as_mut().map(Counted::remaining).and_then(Option::take) {
        match (NonZeroU32::new(left.get() - 1), slot.as_mut()) {
            (Some(fewer), Some(fault)) => *fault.remaining() = Some(fewer),
            _ => *slot = None,
        }
    }
    Some(hit)
}
