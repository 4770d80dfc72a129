//! Rollouts: waves, counts by state, and why they wait.

use std::collections::BTreeMap;

use keyfleet_core::binding::{BindingState, Failure};
use keyfleet_core::id::{DeploymentId, DeploymentName};
use keyfleet_core::rollout::{
    Phase, PlanInput, Run, Step, Strategy, Target, Wave, estimate, wave_shapes,
};
use keyfleet_proto::v1;
use keyfleet_store::{EventScope, Rollout};

use super::waits::{Waits, about_to_act, of_run, of_wave};
use super::{Reasons, Sight, count_states, events, wire_time};
use crate::app::andon::words;
use crate::app::step::Loaded;
use crate::error::Error;
use crate::gates;

/// Rollouts listed at the most, and events of one.
const LISTED_MAX: u32 = 200;

/// Deployments that an explanation lists at the most: more than that nobody reads, and counts say the rest.
const EXPLAINED_MAX: usize = 500;

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
    let waits = Waits::load(sight, loaded.rollout.id)?;
    wire(sight, &loaded, &targets, &waits)
}

/// One rollout with its targets and history.
pub(crate) fn rollout_detail(
    sight: &Sight<'_>,
    row: Rollout,
) -> Result<v1::GetRolloutResponse, Error> {
    let id = row.id;
    let (loaded, targets) = sight.load_rollout(row)?;
    let names = sight.names();
    let waits = Waits::load(sight, id)?;
    let is_over = loaded.rollout.run.phase.is_terminal();
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
            waiting: match is_over || is_converged(target) {
                true => waits.get(target.deployment).unwrap_or_default().to_owned(),
                false => waits.of(target.deployment),
            },
            rolled_back: matches!(target.step, Step::RolledBack(_)),
        }
    });
    Ok(v1::GetRolloutResponse {
        targets: wire_targets.collect(),
        rollout: Some(wire(sight, &loaded, &targets, &waits)?),
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

/// Nothing more is to be done there, in this run.
fn is_converged(target: &Target) -> bool {
    matches!(target.step, Step::Proven(_) | Step::RolledBack(_)) || target.left
}

fn wire(
    sight: &Sight<'_>,
    loaded: &Loaded,
    targets: &[Target],
    waits: &Waits,
) -> Result<v1::Rollout, Error> {
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
        wave: u32::try_from(row.run.wave.unwrap_or_default()).unwrap_or(u32::MAX),
        started_at: wire_time(row.started_at),
        ended_at: row.ended_at.and_then(wire_time),
        connectors,
        author: row.run.author.clone(),
        estimate: estimate_of(sight, row, targets)?,
        gates: gate_states(row),
        waiting: waiting(sight, row, waits, &names),
    })
}

/// Why it waits: the run as a whole, then each deployment in sight. What holds a wave up is said with the wave.
fn waiting(
    sight: &Sight<'_>,
    row: &Rollout,
    waits: &Waits,
    names: &BTreeMap<DeploymentId, DeploymentName>,
) -> Vec<v1::Waiting> {
    let run = v1::Waiting {
        deployment: String::new(),
        sentence: of_run(sight, row.id),
    };
    let deployments = waits.all().map(|(id, sentence)| v1::Waiting {
        deployment: name_of(names, id),
        sentence: sentence.to_owned(),
    });
    let run = Some(run).filter(|run| !run.sentence.is_empty());
    run.into_iter().chain(deployments).collect()
}

/// How long the whole rollout still takes, in sight or not; nothing once it has ended.
fn estimate_of(
    sight: &Sight<'_>,
    row: &Rollout,
    targets: &[Target],
) -> Result<Option<v1::Estimate>, Error> {
    if row.run.phase.is_terminal() {
        return Ok(None);
    }
    let andon = sight.andon()?.as_ref().map(words);
    let estimate = estimate(&PlanInput {
        now: sight.now(),
        andon: andon.as_deref(),
        strategy: &row.strategy,
        run: &row.run,
        targets,
    });
    Ok(Some(v1::Estimate {
        left_secs: estimate.left.map(|left| left.as_secs()),
        basis: estimate.basis,
    }))
}

/// Every gate of the strategy, also those that have not answered yet.
fn gate_states(row: &Rollout) -> Vec<v1::GateState> {
    let state = |name: &String| {
        let known = row.run.gates.iter().find(|state| state.name == *name);
        known.map_or_else(
            || v1::GateState {
                name: name.clone(),
                ..v1::GateState::default()
            },
            gates::wire,
        )
    };
    let gates = row.strategy.gates.iter();
    gates.map(|gate| state(&gate.name)).collect()
}

/// Who has agreed with a wave, as far as that counts.
fn approved_by(strategy: &Strategy, run: &Run, index: usize) -> Vec<String> {
    let not_author = strategy
        .waves
        .get(index)
        .and_then(|wave| wave.approval)
        .is_some_and(|approval| approval.not_author);
    let counts = |principal: &&String| !not_author || **principal != run.author;
    let approvals = run.approvals.iter().filter(|a| a.wave == index);
    let principals = approvals.map(|approved| &approved.principal);
    principals.filter(counts).cloned().collect()
}

/// The waves with the deployments in sight; how many may change at a time is a number of the whole wave.
fn waves(sight: &Sight<'_>, loaded: &Loaded, targets: &[Target]) -> Vec<v1::Wave> {
    let row = &loaded.rollout;
    let staying = targets.iter().filter(|target| !target.left);
    let indexes: Vec<usize> = staying.map(|target| target.wave).collect();
    let is_over = row.run.phase == Phase::Completed;
    let shapes = wave_shapes(&row.strategy, &indexes).into_iter().enumerate();
    shapes
        .map(|(index, shape)| {
            let is_seen = |t: &&Target| t.wave == index && sight.sees(t.deployment);
            let all = || targets.iter().filter(is_seen);
            let mine = || all().filter(|target| !target.left);
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let wave: Option<&Wave> = row.strategy.waves.get(index);
            let approval = wave.and_then(|wave| wave.approval);
            v1::Wave {
                name: shape.name,
                strict: shape.strict,
                concurrency: shape.concurrency,
                deployments: count(mine().count()),
                states: count_states(mine().map(|target| state_of(target.step))),
                done: is_over || row.run.wave.is_some_and(|running| index < running),
                baseline_red: count(mine().filter(|target| target.baseline_red).count()),
                offline: count(mine().filter(|target| !target.online).count()),
                mandatory: wave.is_some_and(|wave| wave.mandatory),
                begun: row.run.wave.is_some_and(|running| index <= running),
                approvals_required: approval.map_or(0, |approval| approval.required),
                approved_by: approved_by(&row.strategy, &row.run, index),
                left: count(all().filter(|target| target.left).count()),
                waiting: of_wave(sight, row.id, index),
            }
        })
        .collect()
}

/// Why a rollout does not advance, of this deployment or of all; `id` is empty for the only active one.
pub(crate) fn explain(
    sight: &Sight<'_>,
    row: Rollout,
    deployment: Option<&DeploymentName>,
) -> Result<v1::ExplainRolloutResponse, Error> {
    let (loaded, targets) = sight.load_rollout(row)?;
    let row = &loaded.rollout;
    let waits = Waits::load(sight, row.id)?;
    let wire = wire(sight, &loaded, &targets, &waits)?;
    let (sentence, mut all) = if row.run.phase.is_terminal() {
        (how_it_ended(&wire), left_over(sight, &loaded, &targets)?)
    } else {
        let run = Some(of_run(sight, row.id)).filter(|sentence| !sentence.is_empty());
        let run = run.unwrap_or_else(|| about_to_act(row.id));
        (run, holding(sight, &targets, &waits))
    };
    if let Some(name) = deployment {
        all = vec![one(sight, &targets, name, all)?];
    }
    let more = all.len().saturating_sub(EXPLAINED_MAX);
    all.truncate(EXPLAINED_MAX);
    Ok(v1::ExplainRolloutResponse {
        rollout: Some(v1::Rollout {
            // The same sentences stand in `deployments`.
            waiting: Vec::new(),
            ..wire
        }),
        sentence,
        deployments: all,
        more: u32::try_from(more).unwrap_or(u32::MAX),
    })
}

/// What holds up each deployment in sight that is not converged.
fn holding(sight: &Sight<'_>, targets: &[Target], waits: &Waits) -> Vec<v1::Waiting> {
    let names = sight.names();
    let seen = targets
        .iter()
        .filter(|target| sight.sees(target.deployment));
    let waiting = seen.filter_map(|target| {
        let known = waits.get(target.deployment).map(ToOwned::to_owned);
        let sentence = known.or_else(|| {
            let is_waiting = !is_converged(target);
            is_waiting.then(|| waits.of(target.deployment))
        })?;
        Some(v1::Waiting {
            deployment: name_of(&names, target.deployment),
            sentence,
        })
    });
    waiting.collect()
}

/// What holds up each deployment in sight that a rollout left behind when it ended.
fn left_over(
    sight: &Sight<'_>,
    loaded: &Loaded,
    targets: &[Target],
) -> Result<Vec<v1::Waiting>, Error> {
    let (names, reasons) = (sight.names(), Reasons::load(sight)?);
    let seen = targets
        .iter()
        .filter(|target| sight.sees(target.deployment));
    let waiting = seen.filter_map(|target| {
        let changes = loaded.changes_of(target.deployment).iter();
        let bindings = changes.filter_map(|change| loaded.bindings.get(&change.id));
        let sentence = bindings
            .map(|binding| reasons.of(binding))
            .find(|sentence| !sentence.is_empty())?;
        Some(v1::Waiting {
            deployment: name_of(&names, target.deployment),
            sentence,
        })
    });
    Ok(waiting.collect())
}

/// The answer about the one deployment that was asked for: also one that waits for nothing gets a sentence.
fn one(
    sight: &Sight<'_>,
    targets: &[Target],
    name: &DeploymentName,
    all: Vec<v1::Waiting>,
) -> Result<v1::Waiting, Error> {
    let row = sight.deployment(name).ok_or_else(|| Error::NotFound {
        kind: "deployment",
        name: name.to_string(),
    })?;
    let target = targets.iter().find(|target| target.deployment == row.id);
    let Some(target) = target else {
        return Err(Error::Precondition(format!(
            "deployment {name} has no part in this rollout: `keyfleet describe deployment {name}` says what it waits for"
        )));
    };
    let waits = all
        .into_iter()
        .find(|waiting| waiting.deployment == name.as_str());
    Ok(waits.unwrap_or_else(|| v1::Waiting {
        deployment: name.to_string(),
        sentence: match target.step {
            Step::Proven(at) => format!("it has the change, proven since {at:.0}"),
            Step::RolledBack(at) => format!("it has what it had before, proven since {at:.0}"),
            Step::Waiting
            | Step::Offered(_)
            | Step::Received(_)
            | Step::Applied(_)
            | Step::Failed(..)
            | Step::RollbackOffered(_)
            | Step::RollbackFailed(..) => {
                "nothing holds it back: it waits for nothing in this rollout".to_owned()
            }
        },
    }))
}

/// How a rollout ended, in a sentence.
fn how_it_ended(rollout: &v1::Rollout) -> String {
    let total: u32 = rollout.waves.iter().map(|wave| wave.deployments).sum();
    let is_proven = |count: &&v1::StateCount| count.state() == v1::BindingState::Proven;
    let states = rollout.waves.iter().flat_map(|wave| &wave.states);
    let proven: u32 = states.filter(is_proven).map(|count| count.count).sum();
    let phase = Phase::try_from(rollout.phase()).map_or("unknown", Phase::as_str);
    let reason = match rollout.reason.as_str() {
        "" => String::new(),
        // The numbers say it already.
        _ if rollout.phase() == v1::RolloutPhase::Completed => String::new(),
        reason => format!("; {reason}"),
    };
    format!("it has ended, {phase}: {proven} of {total} deployments proven{reason}")
}
