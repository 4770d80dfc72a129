//! What an agent said of its Kibana, for the wire.

use keyfleet_proto::v1;
use keyfleet_store::{Check, Facts, Inventory, SeenConnector};

use super::wire_time;
use crate::app::status::facts::outcome;

/// Facts as who asks about one deployment sees them.
pub(super) fn whole_facts(facts: &Facts, inventory: Inventory) -> v1::KibanaFacts {
    v1::KibanaFacts {
        checks: facts.checks.iter().map(wire_check).collect(),
        connectors_complete: inventory.is_complete,
        connectors: inventory.connectors.into_iter().map(wire_seen).collect(),
        ..wire_facts(facts)
    }
}

/// Facts as lists show them: the checks and the connectors of others are for who asks about one deployment.
pub(super) fn wire_facts(facts: &Facts) -> v1::KibanaFacts {
    let observed_at = keyfleet_core::Timestamp::from_microsecond(facts.observed_at).ok();
    v1::KibanaFacts {
        reachable: facts.reachable,
        version: facts.version.clone(),
        uuid: facts.uuid.clone(),
        flavor: facts.flavor.clone(),
        licence: facts.licence.clone(),
        spaces: facts
            .spaces
            .iter()
            .map(|s| v1::Space {
                id: s.id.clone(),
                actions_enabled: s.actions_enabled,
            })
            .collect(),
        problems: facts.problems.clone(),
        observed_at: observed_at.and_then(wire_time),
        checks: Vec::new(),
        connectors: Vec::new(),
        connectors_complete: false,
    }
}

fn wire_check(check: &Check) -> v1::Check {
    v1::Check {
        name: check.name.clone(),
        outcome: outcome(&check.outcome).into(),
        sentence: check.sentence.clone(),
        detail: check.detail.clone(),
    }
}

fn wire_seen(seen: SeenConnector) -> v1::SeenConnector {
    v1::SeenConnector {
        space: seen.space,
        id: seen.id,
        name: seen.name,
        r#type: seen.connector_type,
        config_json: seen.config,
        read_only: seen.is_read_only,
        missing_secrets: seen.is_missing_secrets,
        references: seen.references,
    }
}
