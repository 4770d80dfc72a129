//! What a caller whose token has a scope may change: only what touches deployments of it alone.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::id::{ConnectorName, DeploymentId, RolloutId};
use keyfleet_store::{Deployment, Tx};

use crate::app::Actor;
use crate::app::start::GoalChanges;
use crate::error::Error;
use crate::manifest::Object;

/// Refuses an object that may reach deployments out of the caller's scope, as it is stored or as it shall be.
pub(super) fn may_store(tx: &Tx<'_>, actor: &Actor, object: &Object) -> Result<(), Error> {
    if actor.scope.is_everything() || !is_news(tx, object)? {
        return Ok(());
    }
    if let Object::Placement(new) = object {
        actor.must_cover(&new.selector, &format!("placement {}", new.name))?;
    }
    may_delete(tx, actor, object.kind(), object.name())
}

/// Refuses to take away an object that may reach deployments out of the caller's scope.
pub(super) fn may_delete(tx: &Tx<'_>, actor: &Actor, kind: &str, name: &str) -> Result<(), Error> {
    let is_it = |connector: &ConnectorName| connector.as_str() == name;
    for placement in tx.placements()? {
        let is_touched = match kind {
            "Placement" => placement.name.as_str() == name,
            "Connector" => placement.connectors.iter().any(is_it),
            // Keys and strategies are for the whole fleet.
            _ => return actor.must_be_for_all(),
        };
        if is_touched {
            actor.must_cover(
                &placement.selector,
                &format!("placement {}", placement.name),
            )?;
        }
    }
    match kind {
        "Placement" | "Connector" => Ok(()),
        _ => actor.must_be_for_all(),
    }
}

/// Refuses a change that touches a deployment out of the caller's scope.
pub(super) fn may_touch(
    tx: &Tx<'_>,
    actor: &Actor,
    goals: &GoalChanges,
    started: &[RolloutId],
) -> Result<(), Error> {
    if actor.scope.is_everything() {
        return Ok(());
    }
    let goals = goals.changed.iter().chain(&goals.removed);
    let mut touched: BTreeSet<DeploymentId> = goals.map(|id| id.deployment).collect();
    for rollout in started {
        touched.extend(tx.rollout_targets(*rollout)?.iter().map(|t| t.deployment));
    }
    let fleet: BTreeMap<DeploymentId, Deployment> =
        tx.deployments()?.into_iter().map(|d| (d.id, d)).collect();
    let touched = touched.iter().filter_map(|id| fleet.get(id));
    let others = touched.filter(|row| !actor.scope.matches(&row.labels));
    match others.count() {
        0 => Ok(()),
        // Counted and not named: it may not even see them.
        n => Err(Error::Forbidden(format!(
            "the token of {} is for deployments with {} only, and this also changes {n} others",
            actor.principal, actor.scope
        ))),
    }
}

/// True where storing the object would change something.
fn is_news(tx: &Tx<'_>, object: &Object) -> Result<bool, Error> {
    Ok(match object {
        Object::Key(key) => !tx.keys()?.iter().any(|row| row.key == *key),
        Object::Placement(placement) => !tx.placements()?.contains(placement),
        Object::Strategy(strategy) => !tx.strategies()?.contains(strategy),
        Object::Connector(name, spec) => {
            let connectors = tx.connectors()?;
            let current = connectors
                .iter()
                .find(|c| c.is_live() && c.revision.connector == *name);
            current.is_none_or(|current| current.revision.spec != *spec)
        }
    })
}
