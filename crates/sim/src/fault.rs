//! What the fault switches of both simulators have in common.

use std::num::NonZeroU32;

use serde::de::DeserializeOwned;

use crate::reply::{Call, Reply};

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
