//! What control hears of this Kibana.

use jiff::Timestamp;
use keyfleet_kibana::Preflight;
use keyfleet_proto::{WireTime, v1};
use keyfleet_seal::scrub;

/// Spaces that control keeps of one Kibana.
const SPACES_MAX: usize = 1_000;

/// The preflight's findings for the wire.
pub(crate) fn facts(found: &Preflight, now: Timestamp) -> v1::KibanaFacts {
    let status = found.status.as_ref();
    let spaces = found.spaces.iter().take(SPACES_MAX).map(|space| v1::Space {
        id: space.id.to_string(),
        actions_enabled: space.actions_enabled,
    });
    v1::KibanaFacts {
        reachable: status.is_some(),
        version: status
            .map(|status| status.version.to_string())
            .unwrap_or_default(),
        uuid: status.map(|status| status.uuid.clone()).unwrap_or_default(),
        flavor: status
            .map(|status| status.flavor.clone())
            .unwrap_or_default(),
        licence: found
            .licence
            .as_ref()
            .map(|licence| format!("allows up to {licence}"))
            .unwrap_or_default(),
        spaces: spaces.collect(),
        problems: found
            .problems
            .iter()
            .map(|problem| scrub(&problem.sentence).into_owned())
            .collect(),
        observed_at: Some(WireTime(now).into()),
    }
}

/// True where nothing changed but the time of looking.
pub(crate) fn same(one: &v1::KibanaFacts, other: &v1::KibanaFacts) -> bool {
    let timeless = |facts: &v1::KibanaFacts| v1::KibanaFacts {
        observed_at: None,
        ..facts.clone()
    };
    timeless(one) == timeless(other)
}
