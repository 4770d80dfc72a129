//! Rollouts: waves, counts by state, and why they wait.

use std::collections::BTreeMap;

use keyfleet_core::binding::{BindingState, Failure};
use keyfleet_core::id::{DeploymentId, DeploymentName};
use keyfleet_core::rollout::{Step, Target, wave_shapes};
use keyfleet_proto::v1;
use keyfleet_store::{EventScope, Rollout};

use super::{Sight, count_states, events, wire_time};
use crate::app::step::Loaded;
use crate::error::Error;

/// Rollouts listed at the most, and events of one.
const LISTED_MAX: u32 = 200;

/// The rollouts, the newest first.
pub(crate) fn rollouts(sight: &Sight<'_>, active_only: bool) -> Result<Vec<v1::Rollout>, Error> {
    let rows = if active_only {
        sight.active_rollouts()?
    } else {
        sight.rollouts(LISTED_MAX)?
    };
    rows.into_iter().map(|row| rollout(sight, row)).collect()
}

/// One rollout.
pub(crate) fn rollout(sight: &Sight<'_>, row: Rollout) -> Result<v1::Rollout, Error> {
    let (loaded, targets) = sight.load_rollout(row)?;
    wire(sight, &loaded, &targets)
}

/// One rollout with its targets and history.
pub(crate) fn rollout_detail(
    sight: &Sight<'_>,
    row: Rollout,
) -> Result<v1::GetRolloutResponse, Error> {
    let id = row.id;
    let (loaded, targets) = sight.load_rollout(row)?;
    let names = sight.names();
    let sentences: BTreeMap<DeploymentId, String> = sight
        .waiting(id)
        .filter_map(|waiting| Some((waiting.deployment?, waiting.on.to_string())))
        .collect();
    let seen = targets.iter().filter(|t| sight.sees(t.deployment));
    let wire_targets = seen.map(|target| {
        let failure = failure_of(&loaded, target.deployment);
        let class = failure
            .as_ref()
            .map(|failure| v1::FailureClass::from(failure.class));
        v1::RolloutTarget {
            deployment: name_of(&names, target.deployment),
            wave: u32::try_from(target.wave).unwrap_or(u32::MAX),
            state: v1::BindingState::from(state_of(target.step)).into(),
            failure_class: class.unwrap_or_default().into(),
            text: failure.map(|failure| failure.text).unwrap_or_default(),
            waiting: sentences
                .get(&target.deployment)
                .cloned()
                .unwrap_or_default(),
            rolled_back: matches!(target.step, Step::RolledBack(_)),
        }
    });
    Ok(v1::GetRolloutResponse {
        targets: wire_targets.collect(),
        rollout: Some(wire(sight, &loaded, &targets)?),
        events: events(sight.events(EventScope::Rollout(id), LISTED_MAX)?),
    })
}

/// What failed on a deployment: now, or before it was rolled back.
fn failure_of(loaded: &Loaded, deployment: DeploymentId) -> Option<Failure> {
    let bindings = loaded
        .changes_of(deployment)
        .iter()
        .filter_map(|c| loaded.bindings.get(&c.id));
    let now = bindings
        .filter_map(|binding| binding.progress.failure.clone())
        .next();
    let target = loaded
        .targets
        .iter()
        .find(|target| target.deployment == deployment);
    let is_ours = target.is_some_and(|target| target.offered_at.is_some());
    let then = target.and_then(|target| target.failure.clone());
    then.or(now.filter(|_| is_ours))
}

fn name_of(names: &BTreeMap<DeploymentId, DeploymentName>, id: DeploymentId) -> String {
    names
        .get(&id)
        .map_or_else(|| id.to_string(), ToString::to_string)
}

fn state_of(step: Step) -> BindingState {
    match step {
        Step::Waiting => BindingState::Waiting,
        Step::Offered(_) | Step::RollbackOffered(_) => BindingState::Offered,
        Step::Received(_) => BindingState::Received,
        Step::Applied(_) => BindingState::Applied,
        Step::Proven(_) | Step::RolledBack(_) => BindingState::Proven,
        Step::Failed(..) | Step::RollbackFailed(..) => BindingState::Failed,
    }
}

fn wire(sight: &Sight<'_>, loaded: &Loaded, targets: &[Target]) -> Result<v1::Rollout, Error> {
    let row = &loaded.rollout;
    let names = sight.names();
    let mut connectors: Vec<String> = loaded
        .changes
        .values()
        .flatten()
        .filter(|change| sight.sees(change.id.deployment))
        .map(|change| change.id.connector.to_string())
        .collect();
    connectors.sort();
    connectors.dedup();
    Ok(v1::Rollout {
        id: row.id.to_string(),
        strategy: row.strategy.name.to_string(),
        phase: v1::RolloutPhase::from(row.run.phase).into(),
        cause: row.cause.clone(),
        reason: row.run.hold_reason.clone(),
        waves: waves(sight, loaded, targets),
        wave: u32::try_from(row.run.wave).unwrap_or(u32::MAX),
        started_at: wire_time(row.started_at),
        ended_at: row.ended_at.and_then(wire_time),
        connectors,
        waiting: sight
            .waiting(row.id)
            .map(|waiting| v1::Waiting {
                deployment: waiting
                    .deployment
                    .map(|id| name_of(&names, id))
                    .unwrap_or_default(),
                sentence: waiting.on.to_string(),
            })
            .collect(),
    })
}

/// The waves with the deployments in sight; how many may change at a time is a number of the whole wave.
fn waves(sight: &Sight<'_>, loaded: &Loaded, targets: &[Target]) -> Vec<v1::Wave> {
    let row = &loaded.rollout;
    let indexes: Vec<usize> = targets.iter().map(|target| target.wave).collect();
    let is_over = row.run.phase == keyfleet_core::rollout::Phase::Completed;
    let shapes = wave_shapes(&row.strategy, &indexes).into_iter().enumerate();
    shapes
        .map(|(index, shape)| {
            let is_mine = |t: &&Target| t.wave == index && sight.sees(t.deployment);
            let mine = || targets.iter().filter(is_mine);
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            v1::Wave {
                name: shape.name,
                strict: shape.strict,
                concurrency: shape.concurrency,
                deployments: count(mine().count()),
                states: count_states(mine().map(|target| state_of(target.step))),
                done: is_over || index < row.run.wave,
                baseline_red: count(mine().filter(|target| target.baseline_red).count()),
                offline: count(mine().filter(|target| !target.online).count()),
            }
        })
        .collect()
}
