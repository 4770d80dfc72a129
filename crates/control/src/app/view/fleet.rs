//! Deployments, bindings, connectors, placements, strategies, and the fleet in numbers.

use std::collections::BTreeMap;

use keyfleet_core::binding::BindingState;
use keyfleet_core::fleet::Selector;
use keyfleet_core::id::{ConnectorName, DeploymentId, DeploymentName};
use keyfleet_core::rollout::{Strategy, Wave};
use keyfleet_proto::v1;
use keyfleet_store::{Binding, Connector, Deployment, EventScope, Facts, Tx};

use super::{Reasons, Scene, count_states, events, wire_time};
use crate::error::Error;

/// Events shown of one deployment.
const EVENTS_MAX: u32 = 50;

/// Sentences shown in the status of the whole fleet.
const WAITING_MAX: usize = 20;

/// Every deployment that the selector chooses.
pub(crate) fn deployments(
    tx: &Tx<'_>,
    scene: &Scene,
    selector: &Selector,
) -> Result<Vec<v1::Deployment>, Error> {
    let reasons = Reasons::load(tx, scene)?;
    let mut by_deployment: BTreeMap<DeploymentId, Vec<Binding>> = BTreeMap::new();
    for binding in tx.bindings()? {
        by_deployment
            .entry(binding.id.deployment)
            .or_default()
            .push(binding);
    }
    let chosen = tx
        .deployments()?
        .into_iter()
        .filter(|d| selector.matches(&d.labels));
    Ok(chosen
        .map(|deployment| {
            let bindings = by_deployment.remove(&deployment.id).unwrap_or_default();
            wire_deployment(&deployment, &bindings, scene, &reasons)
        })
        .collect())
}

/// One deployment with its bindings and history.
pub(crate) fn deployment(
    tx: &Tx<'_>,
    scene: &Scene,
    name: &str,
) -> Result<v1::GetDeploymentResponse, Error> {
    let missing = || Error::NotFound {
        kind: "deployment",
        name: name.to_owned(),
    };
    let parsed: DeploymentName = name.parse().map_err(|_| missing())?;
    let row = tx.deployment_named(&parsed)?.ok_or_else(missing)?;
    let reasons = Reasons::load(tx, scene)?;
    let bindings = tx.bindings_of(row.id)?;
    let names = BTreeMap::from([(row.id, row.name.clone())]);
    Ok(v1::GetDeploymentResponse {
        deployment: Some(wire_deployment(&row, &bindings, scene, &reasons)),
        bindings: bindings
            .iter()
            .filter(|b| !reasons.is_gone(b))
            .map(|b| wire_binding(b, &names, &reasons))
            .collect(),
        events: events(tx.events(EventScope::Deployment(row.id), EVENTS_MAX)?),
    })
}

fn wire_deployment(
    row: &Deployment,
    bindings: &[Binding],
    scene: &Scene,
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
        connected: scene.online.contains(&row.id),
        last_seen: scene
            .left
            .get(&row.id)
            .copied()
            .or(row.last_seen)
            .and_then(wire_time),
        facts: row.facts.as_ref().map(wire_facts),
        agent_version: row.agent_version.clone(),
        bindings: count_states(shown_states(bindings, reasons)),
        certificate_not_after: wire_time(row.certificate_not_after),
        generation: Some(row.generation.into()),
        waiting: waiting.unwrap_or_default(),
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

fn wire_facts(facts: &Facts) -> v1::KibanaFacts {
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
    }
}

/// Bindings, of one deployment or connector where named.
pub(crate) fn binding_views(
    tx: &Tx<'_>,
    scene: &Scene,
    deployment: &str,
    connector: &str,
) -> Result<Vec<v1::Binding>, Error> {
    let reasons = Reasons::load(tx, scene)?;
    let names = names(tx)?;
    let is_named = |binding: &Binding| {
        let name = names
            .get(&binding.id.deployment)
            .map(DeploymentName::as_str);
        (deployment.is_empty() || name == Some(deployment))
            && (connector.is_empty() || binding.id.connector.as_str() == connector)
    };
    let bindings = tx.bindings()?;
    let is_shown = |binding: &&Binding| is_named(binding) && !reasons.is_gone(binding);
    let chosen = bindings.iter().filter(is_shown);
    Ok(chosen
        .map(|binding| wire_binding(binding, &names, &reasons))
        .collect())
}

pub(super) fn names(tx: &Tx<'_>) -> Result<BTreeMap<DeploymentId, DeploymentName>, Error> {
    Ok(tx
        .deployments()?
        .into_iter()
        .map(|d| (d.id, d.name))
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
        connector_id: binding.id.connector_id().as_hyphenated().to_string(),
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
pub(crate) fn connectors(tx: &Tx<'_>, scene: &Scene) -> Result<Vec<v1::Connector>, Error> {
    let reasons = Reasons::load(tx, scene)?;
    let mut all: Vec<v1::Connector> = Vec::new();
    for connector in tx.connectors()? {
        let name = connector.revision.connector.as_str();
        if connector.withdrawn_by.is_some() || all.last().is_some_and(|newer| newer.name == name) {
            continue;
        }
        let bindings = tx.bindings_with(&connector.revision.connector)?;
        all.push(wire_connector(&connector, &bindings, &reasons));
    }
    Ok(all)
}

/// One connector with its revisions and where it is.
pub(crate) fn connector(
    tx: &Tx<'_>,
    scene: &Scene,
    name: &str,
) -> Result<v1::GetConnectorResponse, Error> {
    let missing = || Error::NotFound {
        kind: "connector",
        name: name.to_owned(),
    };
    let parsed: ConnectorName = name.parse().map_err(|_| missing())?;
    let revisions: Vec<Connector> = tx
        .connectors()?
        .into_iter()
        .filter(|c| c.revision.connector == parsed)
        .collect();
    let current = revisions
        .iter()
        .find(|revision| revision.withdrawn_by.is_none());
    let newest = current.or(revisions.first()).ok_or_else(missing)?;
    let bindings = tx.bindings_with(&parsed)?;
    let reasons = Reasons::load(tx, scene)?;
    Ok(v1::GetConnectorResponse {
        connector: Some(wire_connector(newest, &bindings, &reasons)),
        revisions: revisions
            .iter()
            .map(|revision| wire_connector(revision, &[], &reasons))
            .collect(),
        bindings: binding_views(tx, scene, "", name)?,
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
        created_at: wire_time(connector.created_at),
        bindings: count_states(shown_states(bindings, reasons)),
        withdrawn_by: connector
            .withdrawn_by
            .map(|id| id.to_string())
            .unwrap_or_default(),
    }
}

/// Every placement.
pub(crate) fn placements(tx: &Tx<'_>) -> Result<Vec<v1::Placement>, Error> {
    let deployments = tx.deployments()?;
    let count = |selector: &Selector| {
        let matching = deployments
            .iter()
            .filter(|d| selector.matches(&d.labels))
            .count();
        u32::try_from(matching).unwrap_or(u32::MAX)
    };
    Ok(tx
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
            strategy: placement.strategy.to_string(),
            drift_policy: v1::DriftPolicy::from(placement.drift_policy).into(),
            deployments: count(&placement.selector),
        })
        .collect())
}

/// Every strategy; the built-in default too, where none of that name is stored.
pub(crate) fn strategies(tx: &Tx<'_>) -> Result<Vec<v1::Strategy>, Error> {
    let mut all = tx.strategies()?;
    if !all
        .iter()
        .any(|strategy| strategy.name.as_str() == "default")
        && let Ok(name) = "default".parse()
    {
        all.insert(0, keyfleet_core::rollout::default_strategy(name));
    }
    let wire = |strategy: Strategy| v1::Strategy {
        name: strategy.name.to_string(),
        waves: strategy.waves.iter().map(wave_sentence).collect(),
    };
    Ok(all.into_iter().map(wire).collect())
}

fn wave_sentence(wave: &Wave) -> String {
    let sample = wave
        .sample
        .map_or_else(|| "all".to_owned(), |sample| sample.0.to_string());
    let strict = if wave.strict { ", strict" } else { "" };
    format!(
        "{}: {sample} of {}, {} at a time{strict}, soak {:#}",
        wave.name,
        wave.selector,
        wave.concurrency,
        jiff::SignedDuration::try_from(wave.soak).unwrap_or(jiff::SignedDuration::MAX)
    )
}

/// The fleet in numbers.
pub(crate) fn status(tx: &Tx<'_>, scene: &Scene) -> Result<v1::GetStatusResponse, Error> {
    let all = deployments(tx, scene, &Selector::default())?;
    let bindings = tx.bindings()?;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let problems = tx
        .keys()?
        .into_iter()
        .filter(|row| row.vault_status != "ok")
        .map(|row| format!("key {}: {}", row.key.name, row.vault_status))
        .collect();
    let waiting = all
        .iter()
        .filter(|deployment| !deployment.waiting.is_empty())
        .take(WAITING_MAX)
        .map(|d| v1::Waiting {
            deployment: d.name.clone(),
            sentence: d.waiting.clone(),
        })
        .collect();
    let mut active_rollouts = Vec::new();
    for rollout in tx.active_rollouts()? {
        active_rollouts.push(super::rollout(tx, scene, rollout)?);
    }
    Ok(v1::GetStatusResponse {
        deployments: count(all.len()),
        deployments_connected: count(all.iter().filter(|d| d.connected).count()),
        bindings: count_states(shown_states(&bindings, &Reasons::load(tx, scene)?)),
        active_rollouts,
        problems,
        andon: false,
        control_version: env!("CARGO_PKG_VERSION").to_owned(),
        waiting,
    })
}
