//! What a change means for the rollouts that are under way: which it takes over, and which it waits for.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::binding::BindingId;
use keyfleet_core::fleet::Selector;
use keyfleet_core::id::{ConnectorName, DeploymentId, RolloutId};
use keyfleet_core::rollout::{Phase, Step};
use keyfleet_proto::v1;
use keyfleet_store::{Rollout, Tx};

use super::start::{Exchanges, GoalChanges, phase_of};
use super::step::{Loaded, load};
use crate::error::Error;

/// The rollouts that were under way before a change, and what becomes of them by it; asked after the change, in its
/// transaction. Who sees some deployments only is told of the rollouts that have one of these, and counts these.
pub(crate) fn conflicts(
    tx: &Tx<'_>,
    before: Vec<Rollout>,
    goals: &GoalChanges,
    scope: &Selector,
) -> Result<Vec<v1::Conflict>, Error> {
    if before.is_empty() {
        return Ok(Vec::new());
    }
    let seen: BTreeSet<DeploymentId> = tx
        .deployments()?
        .into_iter()
        .filter(|row| scope.matches(&row.labels))
        .map(|row| row.id)
        .collect();
    let exchanges = Exchanges::load(tx)?;
    let mut waiting = waiting(tx, goals, &seen)?;
    let mut found = Vec::new();
    for rollout in before {
        let id = rollout.id;
        let phase_before = rollout.run.phase;
        let loaded = load(tx, rollout)?;
        if !loaded.targets.iter().any(|t| seen.contains(&t.deployment)) {
            continue;
        }
        let connectors = loaded.connectors();
        let sentence = if phase_of(tx, id)? == Some(Phase::Superseded) {
            Some(taken_over(tx, &loaded, phase_before, &seen)?)
        } else {
            let family = exchanges.families(&connectors);
            let mine = waiting.extract_if(.., |binding, ()| family.contains(&binding.connector));
            waits_for(&loaded, mine.count())
        };
        found.extend(sentence.map(|sentence| conflict(id, &connectors, sentence)));
    }
    Ok(found)
}

fn conflict(id: RolloutId, connectors: &BTreeSet<ConnectorName>, sentence: String) -> v1::Conflict {
    v1::Conflict {
        rollout_id: id.to_string(),
        connectors: connectors.iter().map(ToString::to_string).collect(),
        sentence,
    }
}

/// The bindings whose goal is new and that no rollout has taken up.
fn waiting(
    tx: &Tx<'_>,
    goals: &GoalChanges,
    seen: &BTreeSet<DeploymentId>,
) -> Result<BTreeMap<BindingId, ()>, Error> {
    let mut waiting = BTreeMap::new();
    for id in goals.changed.iter().chain(&goals.removed) {
        let is_left = |binding: keyfleet_store::Binding| !binding.is_told_goal();
        if seen.contains(&id.deployment) && tx.binding(id)?.is_some_and(is_left) {
            waiting.insert(id.clone(), ());
        }
    }
    for rollout in tx.active_rollouts()? {
        let targets = tx.rollout_targets(rollout.id)?.into_iter();
        let members: BTreeSet<DeploymentId> = targets
            .filter(|target| !target.left)
            .map(|target| target.deployment)
            .collect();
        for change in tx.rollout_bindings(rollout.id)? {
            if members.contains(&change.id.deployment) {
                waiting.remove(&change.id);
            }
        }
    }
    Ok(waiting)
}

/// Where a rollout stands, as both sentences begin.
fn standing(loaded: &Loaded, phase: Phase) -> String {
    let strategy = &loaded.rollout.strategy;
    let running = loaded.rollout.run.wave;
    let wave = running.and_then(|index| Some((index, strategy.waves.get(index)?)));
    match wave {
        Some((index, wave)) => {
            let (name, of) = (&wave.name, strategy.waves.len());
            format!("{phase} in wave {name} ({} of {of})", index + 1)
        }
        None => format!("{phase}, and no wave of it has begun"),
    }
}

fn taken_over(
    tx: &Tx<'_>,
    loaded: &Loaded,
    phase: Phase,
    seen: &BTreeSet<DeploymentId>,
) -> Result<String, Error> {
    let now = loaded.rollout.started_at;
    let targets = loaded.plan_targets(tx, now, &BTreeSet::new(), &BTreeMap::new())?;
    let targets = targets.iter().filter(|t| seen.contains(&t.deployment));
    let (mut all, mut proven, mut at_work) = (0, 0, 0);
    for target in targets {
        all += 1;
        match target.step {
            Step::Proven(_) => proven += 1,
            Step::Offered(_) | Step::Received(_) | Step::Applied(_) | Step::RollbackOffered(_) => {
                at_work += 1;
            }
            Step::Waiting | Step::Failed(..) | Step::RolledBack(_) | Step::RollbackFailed(..) => {}
        }
    }
    let (id, standing) = (loaded.rollout.id, standing(loaded, phase));
    Ok(format!(
        "this takes over rollout {id}, which is {standing}: {proven} of {all} deployments have its change and keep it until their turn comes, {at_work} in flight are told anew in their turn; what was proven last is what a rollback returns to; soak, ramp, budgets, approvals and gates begin anew"
    ))
}

fn waits_for(loaded: &Loaded, waiting: usize) -> Option<String> {
    let bindings = match waiting {
        0 => return None,
        1 => "1 binding waits".to_owned(),
        n => format!("{n} bindings wait"),
    };
    let (id, standing) = (
        loaded.rollout.id,
        standing(loaded, loaded.rollout.run.phase),
    );
    Some(format!(
        "{bindings} for the end of rollout {id}, which is {standing} and changes the same connectors"
    ))
}
