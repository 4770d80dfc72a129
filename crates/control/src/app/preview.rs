//! What a plan shows: objects, bindings per deployment, waves.

mod binding;
mod strategy;

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use keyfleet_core::adoption::Adopt;
use keyfleet_core::binding::{Assignment, BindingId};
use keyfleet_core::connector::{ConnectorSpec, Probe};
use keyfleet_core::fleet::{Labels, Selector};
use keyfleet_core::id::{ConnectorName, DeploymentId, RolloutId};
use keyfleet_core::key::{Key, KeyField, KeyLocation};
use keyfleet_core::placement::Placement;
use keyfleet_core::rollout::{Strategy, wave_shapes};
use keyfleet_proto::v1;
use keyfleet_store::{Rollout, RolloutTarget, Tx};

use super::{adopt, calendar};
use crate::error::Error;
use strategy::strategy_differences;

/// What happens to one object.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    change: v1::ChangeKind,
    details: Vec<String>,
    /// What the operator should know.
    pub(crate) warnings: Vec<String>,
    /// What nobody knows, for the operator to judge.
    pub(crate) notes: Vec<String>,
}

/// What the bindings were told before.
pub(crate) type Before = BTreeMap<BindingId, Option<Assignment>>;

impl Change {
    fn new(kind: &'static str, name: &str, is_new: bool, details: Vec<String>) -> Self {
        let change = match (is_new, details.is_empty()) {
            (true, _) => v1::ChangeKind::Create,
            (false, true) => v1::ChangeKind::Unchanged,
            (false, false) => v1::ChangeKind::Update,
        };
        Self {
            kind,
            name: name.to_owned(),
            change,
            details,
            warnings: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// True where something is stored that was not before.
    pub(crate) fn is_change(&self) -> bool {
        self.change != v1::ChangeKind::Unchanged
    }

    /// True where the object is there for the first time.
    pub(crate) fn is_new(&self) -> bool {
        self.change == v1::ChangeKind::Create
    }

    /// One more thing that is different.
    pub(crate) fn add(&mut self, detail: String) {
        self.details.push(detail);
        if self.change == v1::ChangeKind::Unchanged {
            self.change = v1::ChangeKind::Update;
        }
    }

    /// The object, for people: `Placement everywhere`, or `(deleted) Placement everywhere`.
    pub(crate) fn sentence(&self) -> String {
        let is_deleted = self.change == v1::ChangeKind::Remove;
        let deleted = if is_deleted { "(deleted) " } else { "" };
        format!("{deleted}{} {}", self.kind, self.name)
    }

    /// An object that stays as it is.
    pub(crate) fn unchanged(kind: &'static str, name: &str) -> Self {
        Self::new(kind, name, false, Vec::new())
    }

    /// An object that is deleted.
    pub(crate) fn removed(kind: &'static str, name: &str, details: Vec<String>) -> Self {
        Self {
            change: v1::ChangeKind::Remove,
            ..Self::new(kind, name, false, details)
        }
    }

    /// A deployment whose labels are changed.
    pub(crate) fn labels(name: &str, old: &Labels, new: &Labels) -> Self {
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let show = |value: Option<&String>| value.cloned().unwrap_or_else(|| "(none)".to_owned());
        let details = keys
            .into_iter()
            .filter(|key| old.get(*key) != new.get(*key))
            .map(|key| {
                format!(
                    "labels.{key}: {} -> {}",
                    show(old.get(key)),
                    show(new.get(key))
                )
            });
        Self::new("Deployment", name, false, details.collect())
    }

    pub(crate) fn key(old: Option<&Key>, new: &Key) -> Self {
        let details = old.map_or_else(Vec::new, |old| {
            differences(&[
                ("spec.vault", place(&old.location), place(&new.location)),
                (
                    "spec.allowedHosts",
                    old.allowed_hosts.join(","),
                    new.allowed_hosts.join(","),
                ),
                ("spec.scope", old.scope.to_string(), new.scope.to_string()),
                (
                    "spec.rotation.overlap",
                    format!("{}s", old.rotation.overlap_secs),
                    format!("{}s", new.rotation.overlap_secs),
                ),
                (
                    "spec.rotation.approvals",
                    old.rotation.approvals.to_string(),
                    new.rotation.approvals.to_string(),
                ),
            ])
        });
        Self::new("Key", new.name.as_str(), old.is_none(), details)
    }

    pub(crate) fn connector(
        name: &ConnectorName,
        old: Option<&ConnectorSpec>,
        new: &ConnectorSpec,
    ) -> Self {
        let details = old.map_or_else(Vec::new, |old| {
            let mut details = differences(&[
                (
                    "spec.type",
                    old.connector_type.clone(),
                    new.connector_type.clone(),
                ),
                (
                    "spec.displayName",
                    old.display_name.clone(),
                    new.display_name.clone(),
                ),
                ("spec.key", old.key.to_string(), new.key.to_string()),
                (
                    "spec.ifSupported",
                    old.if_supported.join(","),
                    new.if_supported.join(","),
                ),
                (
                    "spec.replaces",
                    given(old.replaces.as_ref()),
                    given(new.replaces.as_ref()),
                ),
            ]);
            details.extend(probe_differences(&old.probe, &new.probe));
            details.extend(config_differences(&old.config, &new.config));
            details
        });
        Self::new("Connector", name.as_str(), old.is_none(), details)
    }

    pub(crate) fn placement(old: Option<&Placement>, new: &Placement) -> Self {
        fn list<T: ToString>(items: &[T]) -> String {
            items
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",")
        }
        let task = |placement: &Placement| {
            let task = placement.task.map(|task| task.to_string());
            task.unwrap_or_else(|| "(none)".to_owned())
        };
        let details = old.map_or_else(Vec::new, |old| {
            differences(&[
                (
                    "spec.selector",
                    old.selector.to_string(),
                    new.selector.to_string(),
                ),
                (
                    "spec.connectors",
                    list(&old.connectors),
                    list(&new.connectors),
                ),
                ("spec.spaces", list(&old.spaces), list(&new.spaces)),
                (
                    "spec.exceptSpaces",
                    list(&old.except_spaces),
                    list(&new.except_spaces),
                ),
                ("spec.adopt", adopted(&old.adopt), adopted(&new.adopt)),
                (
                    "spec.drift",
                    old.drift_policy.as_str().into(),
                    new.drift_policy.as_str().into(),
                ),
                (
                    "spec.strategyRef",
                    old.strategy.to_string(),
                    new.strategy.to_string(),
                ),
                ("spec.task", task(old), task(new)),
            ])
        });
        Self::new("Placement", new.name.as_str(), old.is_none(), details)
    }

    pub(crate) fn strategy(old: Option<&Strategy>, new: &Strategy) -> Self {
        let details = old.map_or_else(Vec::new, |old| strategy_differences(old, new));
        Self::new("Strategy", new.name.as_str(), old.is_none(), details)
    }
}

fn differences(fields: &[(&str, String, String)]) -> Vec<String> {
    let changed = fields.iter().filter(|(_, old, new)| old != new);
    changed
        .map(|(field, old, new)| format!("{field}: {old} -> {new}"))
        .collect()
}

/// Where a Key lies, with the names of its parts.
fn place(location: &KeyLocation) -> String {
    match &location.field {
        KeyField::One(_) => location.to_string(),
        KeyField::Parts(parts) => {
            let parts: Vec<String> = parts.iter().map(|(p, f)| format!("{p}={f}")).collect();
            let KeyLocation { mount, path, .. } = location;
            format!("{mount}/{path}#{}", parts.join("+"))
        }
    }
}

fn given<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "(none)".to_owned(), |value| value.to_string())
}

fn adopted(all: &[Adopt]) -> String {
    let each = |adopt: &Adopt| format!("{} by {}", adopt.connector, adopt.by);
    all.iter().map(each).collect::<Vec<_>>().join(", ")
}

fn probe_differences(old: &Probe, new: &Probe) -> Vec<String> {
    let interval = |probe: &Probe| {
        let span = probe
            .interval
            .and_then(|span| SignedDuration::try_from(span).ok());
        given(span.map(|span| format!("{span:#}")))
    };
    differences(&[
        (
            "spec.probe.body",
            given(old.body.as_ref()),
            given(new.body.as_ref()),
        ),
        (
            "spec.probe.maxTokens",
            given(old.max_tokens),
            given(new.max_tokens),
        ),
        (
            "spec.probe.model",
            given(old.model.as_ref()),
            given(new.model.as_ref()),
        ),
        ("spec.probe.interval", interval(old), interval(new)),
    ])
}

fn config_differences(old: &str, new: &str) -> Vec<String> {
    type Fields = BTreeMap<String, serde_json::Value>;
    let read = |text: &str| serde_json::from_str::<Fields>(text).unwrap_or_default();
    let (old, new) = (read(old), read(new));
    let show = |value: Option<&serde_json::Value>| match value {
        None => "(none)".to_owned(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name));
    changed
        .map(|name| {
            format!(
                "spec.config.{name}: {} -> {}",
                show(old.get(name)),
                show(new.get(name))
            )
        })
        .collect()
}

/// What every binding is told now.
pub(crate) fn before(tx: &Tx<'_>) -> Result<Before, Error> {
    let told =
        |b: keyfleet_store::Binding| (b.id, b.desired.and_then(|desired| desired.assignment));
    Ok(tx.bindings()?.into_iter().map(told).collect())
}

/// What an operator of this scope sees.
pub(crate) fn result(
    tx: &Tx<'_>,
    changes: Vec<Change>,
    before: &Before,
    started: &[RolloutId],
    scope: &Selector,
) -> Result<v1::PlanResult, Error> {
    let deployments = tx.deployments()?;
    let in_scope = deployments.iter().filter(|d| scope.matches(&d.labels));
    let in_scope: BTreeSet<DeploymentId> = in_scope.map(|d| d.id).collect();
    let names: BTreeMap<DeploymentId, &str> = deployments
        .iter()
        .map(|d| (d.id, d.name.as_str()))
        .collect();
    let mut result = v1::PlanResult::default();
    let mut by_deployment: BTreeMap<DeploymentId, Vec<v1::BindingChange>> = BTreeMap::new();
    for rollout in tx
        .active_rollouts()?
        .iter()
        .filter(|rollout| started.contains(&rollout.id))
    {
        let changes = binding::Changes::load(tx, rollout)?;
        for change in changes.iter() {
            let told = before.get(&change.id).copied().flatten();
            // The proof of the change, and a try of what is there before it.
            let is_install = change.to.is_some();
            result.probe_calls += u32::from(is_install) + u32::from(is_install && told.is_some());
            by_deployment
                .entry(change.id.deployment)
                .or_default()
                .push(changes.wire(tx, change, told)?);
        }
        let targets = tx.rollout_targets(rollout.id)?;
        let touched: BTreeSet<DeploymentId> = targets.iter().map(|t| t.deployment).collect();
        let touched = deployments.iter().filter(|d| touched.contains(&d.id));
        let labelled = touched.map(|d| (d.name.as_str(), &d.labels));
        let zones = calendar::zones_missing(&rollout.strategy, labelled);
        result.warnings.extend(zones);
        result.rollouts.push(planned(rollout, &targets));
    }
    for (id, adoption) in adopt::problems(tx, &placements_of(&changes), &in_scope)? {
        let of_deployment = by_deployment.entry(id.deployment).or_default();
        of_deployment.push(binding::waiting(&id, adoption));
    }
    result.deployments = by_deployment
        .into_iter()
        .map(|(id, bindings)| {
            let name = names.get(&id).map(|name| (*name).to_owned());
            let deployment = name.unwrap_or_else(|| id.to_string());
            v1::DeploymentChange {
                deployment,
                bindings,
            }
        })
        .collect();
    for change in changes {
        result.warnings.extend(change.warnings);
        result.notes.extend(change.notes);
        result.objects.push(v1::ObjectChange {
            kind: change.kind.to_owned(),
            name: change.name,
            change: change.change.into(),
            details: change.details,
        });
    }
    Ok(result)
}

/// The placements among the objects, changed or not.
fn placements_of(changes: &[Change]) -> BTreeSet<&str> {
    let placements = changes.iter().filter(|change| change.kind == "Placement");
    placements.map(|change| change.name.as_str()).collect()
}

/// What the waves of a rollout amount to, and what holds for all of them.
fn planned(rollout: &Rollout, targets: &[RolloutTarget]) -> v1::PlannedRollout {
    let waves: Vec<usize> = targets.iter().map(|target| target.wave).collect();
    let waves = wave_shapes(&rollout.strategy, &waves)
        .into_iter()
        .map(|shape| v1::PlannedWave {
            name: shape.name,
            deployments: shape.deployments,
            concurrency: shape.concurrency,
            strict: shape.strict,
            overshoot_max: shape.overshoot_max,
            mandatory: shape.mandatory,
            soak_secs: shape.soak.as_secs(),
            approvals: shape.approvals,
            rule: shape.rule,
        })
        .collect();
    v1::PlannedRollout {
        strategy: rollout.strategy.name.to_string(),
        waves,
        rules: rollout.strategy.rules(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_change_of_the_live_call_is_shown_field_by_field() {
        let old = Probe {
            max_tokens: Some(5),
            model: Some("a".to_owned()),
            ..Probe::default()
        };
        let new = Probe {
            max_tokens: Some(16),
            model: Some("a".to_owned()),
            interval: Some(Duration::from_secs(5_400)),
            ..Probe::default()
        };
        assert_eq!(
            probe_differences(&old, &new),
            [
                "spec.probe.maxTokens: 5 -> 16",
                "spec.probe.interval: (none) -> 1h 30m"
            ]
        );
    }

    #[test]
    fn another_name_for_a_part_is_another_place() {
        let at = |part: &str| KeyLocation {
            mount: "kv".to_owned(),
            path: "ai".to_owned(),
            field: KeyField::Parts([(part.to_owned(), "f".to_owned())].into()),
        };
        assert_ne!(place(&at("a")), place(&at("b")));
        assert_eq!(place(&at("a")), "kv/ai#a=f");
    }
}
