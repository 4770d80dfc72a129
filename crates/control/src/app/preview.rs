//! What a plan shows: objects, bindings per deployment, waves.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::binding::{Assignment, BindingId};
use keyfleet_core::connector::ConnectorSpec;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{ConnectorName, DeploymentId, RolloutId};
use keyfleet_core::key::Key;
use keyfleet_core::placement::Placement;
use keyfleet_core::rollout::{Strategy, wave_shapes};
use keyfleet_proto::v1;
use keyfleet_store::{Rollout, RolloutBinding, Tx};

use crate::error::Error;

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
                (
                    "spec.vault",
                    old.location.to_string(),
                    new.location.to_string(),
                ),
                (
                    "spec.allowedHosts",
                    old.allowed_hosts.join(","),
                    new.allowed_hosts.join(","),
                ),
                ("spec.scope", old.scope.to_string(), new.scope.to_string()),
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
            ]);
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
        let details = match old {
            Some(old) if old != new => {
                vec!["changed; running rollouts keep the strategy they started with".to_owned()]
            }
            _ => Vec::new(),
        };
        Self::new("Strategy", new.name.as_str(), old.is_none(), details)
    }
}

fn differences(fields: &[(&str, String, String)]) -> Vec<String> {
    let changed = fields.iter().filter(|(_, old, new)| old != new);
    changed
        .map(|(field, old, new)| format!("{field}: {old} -> {new}"))
        .collect()
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

/// What the operator sees.
pub(crate) fn result(
    tx: &Tx<'_>,
    changes: Vec<Change>,
    before: &Before,
    started: &[RolloutId],
) -> Result<v1::PlanResult, Error> {
    let names: BTreeMap<DeploymentId, String> = tx
        .deployments()?
        .into_iter()
        .map(|d| (d.id, d.name.to_string()))
        .collect();
    let mut result = v1::PlanResult::default();
    let mut by_deployment: BTreeMap<DeploymentId, Vec<v1::BindingChange>> = BTreeMap::new();
    for rollout in tx
        .active_rollouts()?
        .iter()
        .filter(|rollout| started.contains(&rollout.id))
    {
        for change in tx.rollout_bindings(rollout.id)? {
            let told = before.get(&change.id).copied().flatten();
            result.probe_calls += u32::from(change.to.is_some()) + u32::from(told.is_some());
            let wire = binding_change(tx, &change, told, &rollout.cause)?;
            by_deployment
                .entry(change.id.deployment)
                .or_default()
                .push(wire);
        }
        result.rollouts.push(planned(tx, rollout)?);
    }
    result.deployments = by_deployment
        .into_iter()
        .map(|(id, bindings)| {
            let deployment = names.get(&id).cloned().unwrap_or_else(|| id.to_string());
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

fn binding_change(
    tx: &Tx<'_>,
    change: &RolloutBinding,
    told: Option<Assignment>,
    why: &str,
) -> Result<v1::BindingChange, Error> {
    let kind = match (told, change.to) {
        (_, None) => v1::ChangeKind::Remove,
        (None, Some(_)) => v1::ChangeKind::Create,
        (Some(_), Some(_)) => v1::ChangeKind::Update,
    };
    Ok(v1::BindingChange {
        binding: Some(v1::BindingRef {
            space: change.id.space.to_string(),
            connector: change.id.connector.to_string(),
        }),
        change: kind.into(),
        from: change.from.map(Into::into),
        to: change.to.map(Into::into),
        why: why.to_owned(),
        cannot_roll_back: cannot_roll_back(tx, change)?,
    })
}

fn cannot_roll_back(tx: &Tx<'_>, change: &RolloutBinding) -> Result<String, Error> {
    let Some(from) = change.from else {
        return Ok(String::new());
    };
    let Some(connector) = tx.connector(&change.id.connector, from.revision)? else {
        return Ok(format!("revision {} is not stored any more", from.revision));
    };
    let key = connector.revision.spec.key;
    let versions = tx.key_versions(&key)?;
    let known = versions.iter().find(|row| row.version == from.key_version);
    Ok(match known {
        Some(row) if row.may_be_assigned() => String::new(),
        Some(row) if !row.readable => {
            format!(
                "Vault has the value of key {key} {} no more",
                from.key_version
            )
        }
        Some(row) => format!("key {key} {} is {}", from.key_version, row.state.as_str()),
        None => format!("key {key} {} is not known", from.key_version),
    })
}

fn planned(tx: &Tx<'_>, rollout: &Rollout) -> Result<v1::PlannedRollout, Error> {
    let waves: Vec<usize> = tx
        .rollout_targets(rollout.id)?
        .iter()
        .map(|t| t.wave)
        .collect();
    let waves = wave_shapes(&rollout.strategy, &waves)
        .into_iter()
        .map(|shape| v1::PlannedWave {
            name: shape.name,
            deployments: shape.deployments,
            concurrency: shape.concurrency,
            strict: shape.strict,
            overshoot_max: shape.overshoot_max,
        })
        .collect();
    Ok(v1::PlannedRollout {
        strategy: rollout.strategy.name.to_string(),
        waves,
    })
}
