//! Deployments, bindings, connectors, placements, strategies, and the fleet in numbers.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::adoption::{Adopt, AdoptBy};
use keyfleet_core::binding::BindingState;
use keyfleet_core::connector::Probe;
use keyfleet_core::fleet::Selector;
use keyfleet_core::id::{ConnectorName, DeploymentId, DeploymentName};
use keyfleet_core::rollout::{Strategy, Wave};
use keyfleet_core::standing::Standing;
use keyfleet_proto::{duration_secs, v1};
use keyfleet_store::{Andon, Binding, Connector, Deployment, EventScope};

use super::facts::{whole_facts, wire_facts};
use super::{Reasons, Sight, count_states, events, wire_time};
use crate::app::standing::refusal;
use crate::error::Error;

/// Events shown of one deployment.
const EVENTS_MAX: u32 = 50;

/// Characters of a CA's fingerprint that tell it from the other one.
const CA_SHOWN_CHARS: usize = 12;

/// Sentences shown in the status of the whole fleet.
const WAITING_MAX: usize = 20;

/// Deployments whose agents are not trusted that are named among its problems.
const DISTRUSTED_MAX: usize = 20;

/// Kibanas with several agents that are named there.
const CONFLICTS_MAX: usize = 20;

/// Every deployment that the selector chooses.
pub(crate) fn deployments(
    sight: &Sight<'_>,
    selector: &Selector,
) -> Result<Vec<v1::Deployment>, Error> {
    let reasons = Reasons::load(sight)?;
    let mut by_deployment: BTreeMap<DeploymentId, Vec<Binding>> = BTreeMap::new();
    for binding in sight.bindings()? {
        by_deployment
            .entry(binding.id.deployment)
            .or_default()
            .push(binding);
    }
    let fleet = sight.deployments().iter();
    let chosen = fleet.filter(|d| selector.matches(&d.labels));
    Ok(chosen
        .map(|deployment| {
            let bindings = by_deployment.remove(&deployment.id).unwrap_or_default();
            wire_deployment(deployment, &bindings, sight, &reasons)
        })
        .collect())
}

/// One deployment with its bindings and history.
pub(crate) fn deployment(
    sight: &Sight<'_>,
    name: &str,
) -> Result<v1::GetDeploymentResponse, Error> {
    let missing = || Error::NotFound {
        kind: "deployment",
        name: name.to_owned(),
    };
    let parsed: DeploymentName = name.parse().map_err(|_| missing())?;
    let row = sight.deployment(&parsed).ok_or_else(missing)?;
    let reasons = Reasons::load(sight)?;
    let bindings = sight.bindings_of(row.id)?;
    let names = BTreeMap::from([(row.id, row.name.clone())]);
    let mut deployment = wire_deployment(row, &bindings, sight, &reasons);
    if let (Some(wire), Some(facts)) = (&mut deployment.facts, &row.facts) {
        *wire = whole_facts(facts, sight.inventory(row)?);
    }
    Ok(v1::GetDeploymentResponse {
        deployment: Some(deployment),
        bindings: bindings
            .iter()
            .filter(|b| !reasons.is_gone(b))
            .map(|b| wire_binding(b, &names, &reasons))
            .collect(),
        events: events(sight.events(EventScope::Deployment(row.id), EVENTS_MAX)?),
    })
}

fn wire_deployment(
    row: &Deployment,
    bindings: &[Binding],
    sight: &Sight<'_>,
    reasons: &Reasons,
) -> v1::Deployment {
    let waiting = bindings
        .iter()
        .map(|binding| reasons.of(binding))
        .find(|text| !text.is_empty());
    v1::Deployment {
        id: row.id.to_string(),
        name: row.name.to_string(),
        labels: row.labels.clone(),
        connected: sight.is_online(row.id),
        last_seen: sight.left(row.id).or(row.last_seen).and_then(wire_time),
        facts: row.facts.as_ref().map(wire_facts),
        agent_version: row.agent_version.clone(),
        bindings: count_states(shown_states(bindings, reasons)),
        certificate_not_after: wire_time(row.certificate_not_after),
        generation: Some(row.generation.into()),
        waiting: waiting.unwrap_or_else(|| reasons.of_deployment(row.id)),
        standing: v1::Standing::from(row.standing).into(),
        standing_reason: row.standing_reason.clone(),
        standing_at: row.standing_at.and_then(wire_time),
        certificate_ca: row.certificate_ca.chars().take(CA_SHOWN_CHARS).collect(),
    }
}

/// States of the bindings that are there or shall be; what was removed is not shown.
fn shown_states(bindings: &[Binding], reasons: &Reasons) -> impl Iterator<Item = BindingState> {
    bindings
        .iter()
        .filter(|binding| !reasons.is_gone(binding))
        .map(|binding| shown_state(binding, reasons))
}

/// A binding that has proven what it was told but shall get something else is waiting for that.
fn shown_state(binding: &Binding, reasons: &Reasons) -> BindingState {
    let is_idle = binding.desired.is_none() || (binding.is_converged() && reasons.is_bare(binding));
    if is_idle {
        BindingState::Waiting
    } else {
        binding.progress.state
    }
}

/// Bindings, of one deployment or connector where named.
pub(crate) fn binding_views(
    sight: &Sight<'_>,
    deployment: &str,
    connector: &str,
) -> Result<Vec<v1::Binding>, Error> {
    let reasons = Reasons::load(sight)?;
    let names = sight.names();
    let is_named = |binding: &Binding| {
        let name = names
            .get(&binding.id.deployment)
            .map(DeploymentName::as_str);
        (deployment.is_empty() || name == Some(deployment))
            && (connector.is_empty() || binding.id.connector.as_str() == connector)
    };
    let bindings = sight.bindings()?;
    let is_shown = |binding: &&Binding| is_named(binding) && !reasons.is_gone(binding);
    let chosen = bindings.iter().filter(is_shown);
    Ok(chosen
        .map(|binding| wire_binding(binding, &names, &reasons))
        .collect())
}

fn wire_binding(
    binding: &Binding,
    names: &BTreeMap<DeploymentId, DeploymentName>,
    reasons: &Reasons,
) -> v1::Binding {
    let deployment = names.get(&binding.id.deployment).map(ToString::to_string);
    let failure = binding.progress.failure.as_ref();
    let class = failure.map(|failure| v1::FailureClass::from(failure.class));
    v1::Binding {
        deployment: deployment.unwrap_or_else(|| binding.id.deployment.to_string()),
        binding: Some(v1::BindingRef {
            space: binding.id.space.to_string(),
            connector: binding.id.connector.to_string(),
        }),
        placement: binding.placement.to_string(),
        connector_id: binding.connector_id(),
        adopted: binding.adopted_id.is_some(),
        rung: binding
            .rung
            .map(v1::ProbeRung::from)
            .unwrap_or_default()
            .into(),
        references: binding.references,
        state: v1::BindingState::from(shown_state(binding, reasons)).into(),
        desired: binding
            .desired
            .and_then(|desired| desired.assignment)
            .map(Into::into),
        goal: binding.goal.map(Into::into),
        running: binding.running.map(Into::into),
        last_proven: binding.last_proven.map(Into::into),
        proven_at: binding.proven_at.and_then(wire_time),
        failure_class: class.unwrap_or_default().into(),
        text: failure
            .map(|failure| failure.text.clone())
            .unwrap_or_default(),
        changed_at: wire_time(binding.progress.at),
        waiting: reasons.of(binding),
    }
}

/// The newest revision of every connector that is not withdrawn.
pub(crate) fn connectors(sight: &Sight<'_>) -> Result<Vec<v1::Connector>, Error> {
    let reasons = Reasons::load(sight)?;
    let mut all: Vec<v1::Connector> = Vec::new();
    let connectors = sight.connectors()?;
    let live: BTreeSet<_> = connectors
        .iter()
        .filter(|c| c.deleted_at.is_none())
        .map(|c| c.revision.connector.clone())
        .collect();
    for connector in &connectors {
        let name = &connector.revision.connector;
        let is_listed = all.last().is_some_and(|newer| newer.name == name.as_str());
        let is_older = connector.deleted_at.is_some() && live.contains(name);
        if connector.withdrawn_by.is_some() || is_listed || is_older {
            continue;
        }
        let bindings = sight.bindings_with(name)?;
        // A tombstone is shown as long as something of it is on its way out.
        if connector.deleted_at.is_none() || bindings.iter().any(|b| !reasons.is_gone(b)) {
            all.push(wire_connector(connector, &bindings, &reasons));
        }
    }
    let set_of = sight.set_of()?;
    for connector in &mut all {
        connector.set = set_of("Connector", &connector.name);
    }
    Ok(all)
}

/// One connector with its revisions and where it is.
pub(crate) fn connector(sight: &Sight<'_>, name: &str) -> Result<v1::GetConnectorResponse, Error> {
    let missing = || Error::NotFound {
        kind: "connector",
        name: name.to_owned(),
    };
    let parsed: ConnectorName = name.parse().map_err(|_| missing())?;
    let revisions: Vec<Connector> = sight
        .connectors()?
        .into_iter()
        .filter(|c| c.revision.connector == parsed)
        .collect();
    let current = revisions.iter().find(|revision| revision.is_live());
    let newest = current.or(revisions.first()).ok_or_else(missing)?;
    let bindings = sight.bindings_with(&parsed)?;
    let reasons = Reasons::load(sight)?;
    Ok(v1::GetConnectorResponse {
        connector: Some(wire_connector(newest, &bindings, &reasons)),
        revisions: revisions
            .iter()
            .map(|revision| wire_connector(revision, &[], &reasons))
            .collect(),
        bindings: binding_views(sight, "", name)?,
    })
}

fn wire_connector(connector: &Connector, bindings: &[Binding], reasons: &Reasons) -> v1::Connector {
    let spec = &connector.revision.spec;
    v1::Connector {
        name: connector.revision.connector.to_string(),
        r#type: spec.connector_type.clone(),
        display_name: spec.display_name.clone(),
        key: spec.key.to_string(),
        revision: connector.revision.revision.0,
        config_json: spec.config.clone(),
        if_supported: spec.if_supported.clone(),
        created_at: wire_time(connector.created_at),
        bindings: count_states(shown_states(bindings, reasons)),
        withdrawn_by: connector
            .withdrawn_by
            .map(|id| id.to_string())
            .unwrap_or_default(),
        deleted_at: connector.deleted_at.and_then(wire_time),
        probe: wire_probe(&spec.probe),
        probe_interval_secs: spec.probe.interval.map(duration_secs).unwrap_or_default(),
        replaces: spec
            .replaces
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        ..v1::Connector::default()
    }
}

/// What a definition says of the live call; nothing where it is the type's own.
fn wire_probe(probe: &Probe) -> Option<v1::Probe> {
    let wire = v1::Probe {
        body_json: probe.body.clone().unwrap_or_default(),
        max_tokens: probe.max_tokens.unwrap_or_default(),
        model: probe.model.clone().unwrap_or_default(),
    };
    (wire != v1::Probe::default()).then_some(wire)
}

fn wire_adopt(adopt: &Adopt) -> v1::Adopt {
    v1::Adopt {
        connector: adopt.connector.to_string(),
        by: Some(match &adopt.by {
            AdoptBy::Name(name) => v1::adopt::By::Name(name.clone()),
            AdoptBy::Id(id) => v1::adopt::By::Id(id.clone()),
        }),
    }
}

/// Every placement.
pub(crate) fn placements(sight: &Sight<'_>) -> Result<Vec<v1::Placement>, Error> {
    let deployments = sight.deployments();
    let count = |selector: &Selector| {
        let matching = deployments
            .iter()
            .filter(|d| selector.matches(&d.labels))
            .count();
        u32::try_from(matching).unwrap_or(u32::MAX)
    };
    let set_of = sight.set_of()?;
    Ok(sight
        .placements()?
        .into_iter()
        .map(|placement| v1::Placement {
            name: placement.name.to_string(),
            selector: placement.selector.to_string(),
            connectors: placement
                .connectors
                .iter()
                .map(ToString::to_string)
                .collect(),
            spaces: placement.spaces.iter().map(ToString::to_string).collect(),
            except_spaces: placement
                .except_spaces
                .iter()
                .map(ToString::to_string)
                .collect(),
            adopt: placement.adopt.iter().map(wire_adopt).collect(),
            strategy: placement.strategy.to_string(),
            drift_policy: v1::DriftPolicy::from(placement.drift_policy).into(),
            deployments: count(&placement.selector),
            set: set_of("Placement", placement.name.as_str()),
            task: placement
                .task
                .map(|task| task.to_string())
                .unwrap_or_default(),
        })
        .collect())
}

/// Every strategy; the built-in default too, where none of that name is stored.
pub(crate) fn strategies(sight: &Sight<'_>) -> Result<Vec<v1::Strategy>, Error> {
    let mut all = sight.strategies()?;
    if !all
        .iter()
        .any(|strategy| strategy.name.as_str() == "default")
        && let Ok(name) = "default".parse()
    {
        all.insert(0, keyfleet_core::rollout::default_strategy(name));
    }
    let set_of = sight.set_of()?;
    let wire = |strategy: Strategy| v1::Strategy {
        rules: strategy.rules(),
        name: strategy.name.to_string(),
        waves: strategy.waves.iter().map(Wave::sentence).collect(),
        set: set_of("Strategy", strategy.name.as_str()),
    };
    Ok(all.into_iter().map(wire).collect())
}

/// The fleet-wide stop for the wire.
pub(crate) fn wire_andon(andon: Andon) -> v1::AndonState {
    v1::AndonState {
        by: andon.by,
        reason: andon.reason,
        at: wire_time(andon.at),
    }
}

/// The deployments whose agents are not trusted, a sentence each, and how many more there are.
fn distrusted(sight: &Sight<'_>) -> Vec<String> {
    let distrusted = sight
        .deployments()
        .iter()
        .filter(|row| row.standing != Standing::Active);
    let count = distrusted.clone().count();
    let mut sentences: Vec<String> = distrusted.take(DISTRUSTED_MAX).map(refusal).collect();
    if count > DISTRUSTED_MAX {
        let more = count - DISTRUSTED_MAX;
        sentences.push(format!(
            "{more} deployments more are suspended, cloned or revoked: `keyfleet get deployments` names them"
        ));
    }
    sentences
}

/// The fleet in numbers.
pub(crate) fn status(sight: &Sight<'_>) -> Result<v1::GetStatusResponse, Error> {
    let all = deployments(sight, &Selector::default())?;
    let bindings = sight.bindings()?;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let broken = sight.keys()?.into_iter();
    let broken = broken
        .filter(|row| row.vault_status != "ok")
        .map(|row| format!("key {}: {}", row.key.name, row.vault_status));
    let problems = sight.problems().iter().cloned().chain(broken);
    let reasons = Reasons::load(sight)?;
    let conflicts = reasons
        .barred
        .rivals()
        .sentences(&reasons.names)
        .into_iter();
    let problems = problems
        .chain(distrusted(sight))
        .chain(conflicts.take(CONFLICTS_MAX));
    let problems = problems.collect();
    let waiting = all
        .iter()
        .filter(|deployment| !deployment.waiting.is_empty())
        .take(WAITING_MAX)
        .map(|d| v1::Waiting {
            deployment: d.name.clone(),
            sentence: d.waiting.clone(),
        })
        .collect();
    let andon = sight.andon()?;
    let mut active_rollouts = Vec::new();
    for rollout in sight.active_rollouts()? {
        active_rollouts.push(super::rollout(sight, rollout)?);
    }
    Ok(v1::GetStatusResponse {
        deployments: count(all.len()),
        deployments_connected: count(all.iter().filter(|d| d.connected).count()),
        bindings: count_states(shown_states(&bindings, &reasons)),
        active_rollouts,
        problems,
        andon: andon.is_some(),
        andon_state: andon.map(wire_andon),
        control_version: env!("CARGO_PKG_VERSION").to_owned(),
        waiting,
    })
}
