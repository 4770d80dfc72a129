//! Goals and the start of rollouts: from what operators want to what must change where.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{BindingId, BindingState};
use keyfleet_core::connector::ConnectorRevision;
use keyfleet_core::fleet::Labels;
use keyfleet_core::goal::{Goal, GoalInput, goals, superseded};
use keyfleet_core::id::{ConnectorName, DeploymentId, PlacementName, RolloutId, StrategyName};
use keyfleet_core::key::goal_version;
use keyfleet_core::placement::Placement;
use keyfleet_core::rollout::{
    Event as RunEvent, Phase, Run, Strategy, assign_waves, default_strategy,
};
use keyfleet_store::{
    Binding, Connector, Deployment, Event, EventScope, Progress, Rollout, RolloutBinding,
    RolloutTarget, Tx,
};

use super::travel::{Travel, barred};
use crate::error::Error;

/// What a change of goals did.
#[derive(Debug, Default)]
pub(crate) struct GoalChanges {
    /// Bindings whose goal is new, with what it was.
    pub(crate) changed: Vec<BindingId>,
    /// Bindings that shall go away.
    pub(crate) removed: Vec<BindingId>,
}

/// Which bindings a rollout is for, beside those that wait for nobody's word.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    /// The connectors whose change is the cause: older runs of them are superseded.
    pub(crate) changed: BTreeSet<ConnectorName>,
    /// Bindings that were told their goal and shall be told again.
    pub(crate) again: BTreeSet<BindingId>,
}

impl GoalChanges {
    /// The connectors whose goals are new.
    pub(crate) fn spread(&self) -> Spread {
        let ids = self.changed.iter().chain(&self.removed);
        Spread {
            changed: ids.map(|id| id.connector.clone()).collect(),
            again: BTreeSet::new(),
        }
    }
}

/// Works out what every binding shall have, and stores what is new.
pub(crate) fn refresh_goals(tx: &Tx<'_>, now: Timestamp) -> Result<GoalChanges, Error> {
    let placements = tx.placements()?;
    let deployments = tx.deployments()?;
    let known: BTreeMap<BindingId, Binding> = tx
        .bindings()?
        .into_iter()
        .map(|binding| (binding.id.clone(), binding))
        .collect();
    let wanted = wanted(tx, &placements, &deployments, &known)?;
    let mut changes = GoalChanges::default();
    for (id, goal) in &wanted {
        let before = known.get(id);
        let binding = match before {
            Some(binding) => with_goal(binding, goal),
            None => Some(new_binding(id, goal, now)),
        };
        if let Some(binding) = binding {
            tx.put_binding(&binding)?;
            // Another placement alone changes nothing on a Kibana.
            if before.is_none_or(|before| before.goal != binding.goal) {
                changes.changed.push(id.clone());
            }
        }
    }
    for (id, binding) in &known {
        if wanted.contains_key(id) {
            continue;
        }
        if binding.is_untold() {
            tx.delete_binding(id)?;
            changes.changed.push(id.clone());
        } else if binding.goal.is_some() {
            tx.put_binding(&Binding {
                goal: None,
                held_by: None,
                ..binding.clone()
            })?;
            changes.removed.push(id.clone());
        }
    }
    Ok(changes)
}

fn wanted(
    tx: &Tx<'_>,
    placements: &[Placement],
    deployments: &[Deployment],
    known: &BTreeMap<BindingId, Binding>,
) -> Result<BTreeMap<BindingId, Goal>, Error> {
    let mut input = GoalInput {
        placements,
        fleet: deployments.iter().map(|d| (d.id, &d.labels)).collect(),
        owners: known
            .iter()
            .map(|(id, b)| (id.clone(), b.placement.clone()))
            .collect(),
        ..GoalInput::default()
    };
    let mut newest: BTreeMap<ConnectorName, ConnectorRevision> = BTreeMap::new();
    for connector in tx.connectors()?.into_iter().filter(Connector::is_live) {
        let revision = connector.revision;
        // The newest comes first and stays.
        newest.entry(revision.connector.clone()).or_insert(revision);
    }
    let travel = Travel::load(tx)?;
    for (name, ConnectorRevision { revision, spec, .. }) in newest {
        // What may travel nowhere has nothing to spread, and what runs stays as it is.
        if travel.stays(&spec).is_none() {
            input.connectors.insert(name, (revision, spec.key));
        }
    }
    for row in tx.keys()? {
        let versions: Vec<_> = tx
            .key_versions(&row.key.name)?
            .iter()
            .map(|v| (v.version, v.state))
            .collect();
        if let Some(version) = goal_version(&versions) {
            input.key_versions.insert(row.key.name.clone(), version);
        }
        input.scopes.insert(row.key.name, row.key.scope);
    }
    Ok(goals(&input))
}

/// The binding with its new goal; `None` where nothing changes.
///
/// A goal that cannot be told yet (a Key without a version) leaves a binding that runs as it is: nothing we do
/// takes from a binding that worked its last valid key.
fn with_goal(binding: &Binding, goal: &Goal) -> Option<Binding> {
    let placement = goal.placement.clone();
    let new_goal = match goal.assignment {
        None if binding.desired.is_some() => binding.last_proven,
        // After a restore: what it shall have now is what the backup says.
        None if !binding.is_untold() => binding.last_proven.or(binding.goal),
        assignment => assignment,
    };
    if binding.goal == new_goal && binding.placement == placement {
        return None;
    }
    let held_by = if binding.goal == new_goal {
        binding.held_by
    } else {
        None
    };
    Some(Binding {
        goal: new_goal,
        placement,
        held_by,
        ..binding.clone()
    })
}

fn new_binding(id: &BindingId, goal: &Goal, now: Timestamp) -> Binding {
    Binding {
        id: id.clone(),
        placement: goal.placement.clone(),
        goal: goal.assignment,
        held_by: None,
        desired: None,
        progress: Progress {
            state: BindingState::Waiting,
            at: now,
            failure: None,
            baseline_ok: None,
        },
        running: None,
        last_proven: None,
        proven_at: None,
    }
}

/// Starts rollouts for every binding that has not been told its goal, and for those that `spread` names.
///
/// Bindings of connectors that are in some other run wait for its end.
pub(crate) fn start_rollouts(
    tx: &Tx<'_>,
    spread: &Spread,
    cause: &str,
    actor: &str,
    now: Timestamp,
) -> Result<Vec<RolloutId>, Error> {
    let active = tx.active_rollouts()?;
    let mut connectors_of = Vec::new();
    for rollout in &active {
        let bindings = tx.rollout_bindings(rollout.id)?;
        connectors_of.push(
            bindings
                .into_iter()
                .map(|b| b.id.connector)
                .collect::<BTreeSet<_>>(),
        );
    }
    let (taken_over, older) = superseded(&spread.changed, &connectors_of);
    let busy: BTreeSet<ConnectorName> = connectors_of
        .iter()
        .enumerate()
        .filter(|(index, _)| !older.contains(index))
        .flat_map(|(_, connectors)| connectors.iter().cloned())
        .collect();
    let mut by_strategy: BTreeMap<StrategyName, Vec<Binding>> = BTreeMap::new();
    // What a deleted placement leaves behind goes away as everything else of it spread.
    let placements = tx.deleted_placements()?.into_iter().chain(tx.placements()?);
    let strategies: BTreeMap<PlacementName, StrategyName> =
        placements.map(|p| (p.name, p.strategy)).collect();
    // Nothing is offered that nobody could do.
    let barred = barred(tx)?;
    for binding in tx.bindings()? {
        let is_in_flight = taken_over.contains(&binding.id.connector)
            && !older.is_empty()
            && !binding.is_converged();
        let waits = binding.held_by.is_some()
            || busy.contains(&binding.id.connector)
            || barred.contains_key(&binding.id);
        let is_wanted =
            !binding.is_told_goal() || is_in_flight || spread.again.contains(&binding.id);
        if !waits && is_wanted {
            let strategy = strategies
                .get(&binding.placement)
                .cloned()
                .map_or_else(default_name, Ok)?;
            by_strategy.entry(strategy).or_default().push(binding);
        }
    }
    let mut started = Vec::new();
    for (name, bindings) in by_strategy {
        let strategy = strategy_named(tx, &name)?;
        started.push(insert(tx, strategy, &bindings, cause, actor, now)?);
    }
    for index in older {
        if let Some(rollout) = active.get(index) {
            supersede(tx, rollout, &started, now)?;
        }
    }
    Ok(started)
}

fn default_name() -> Result<StrategyName, Error> {
    "default".parse().map_err(|err| Error::internal(&err))
}

/// The stored strategy, or the built-in one.
pub(crate) fn strategy_named(tx: &Tx<'_>, name: &StrategyName) -> Result<Strategy, Error> {
    let stored = tx
        .strategies()?
        .into_iter()
        .find(|strategy| strategy.name == *name);
    Ok(stored.unwrap_or_else(|| default_strategy(name.clone())))
}

fn insert(
    tx: &Tx<'_>,
    strategy: Strategy,
    bindings: &[Binding],
    cause: &str,
    actor: &str,
    now: Timestamp,
) -> Result<RolloutId, Error> {
    let id = RolloutId::new(uuid::Uuid::now_v7());
    let targets = targets(tx, &strategy, bindings)?;
    let changes: Vec<RolloutBinding> = bindings
        .iter()
        .map(|binding| RolloutBinding {
            id: binding.id.clone(),
            from: binding.last_proven,
            to: binding.goal,
            failure: None,
        })
        .collect();
    let rollout = Rollout {
        id,
        strategy,
        cause: cause.to_owned(),
        actor: actor.to_owned(),
        run: Run {
            phase: Phase::Pending,
            wave: 0,
            wave_started_at: now,
            hold_reason: String::new(),
        },
        started_at: now,
        ended_at: None,
    };
    tx.insert_rollout(&rollout, &targets, &changes)?;
    let text = format!(
        "started: {cause}; {} bindings on {} deployments",
        changes.len(),
        targets.len()
    );
    tx.add_event(
        EventScope::Rollout(id),
        &Event {
            at: now,
            actor: actor.to_owned(),
            text,
        },
    )?;
    Ok(id)
}

fn targets(
    tx: &Tx<'_>,
    strategy: &Strategy,
    bindings: &[Binding],
) -> Result<Vec<RolloutTarget>, Error> {
    let labels: BTreeMap<DeploymentId, Labels> = tx
        .deployments()?
        .into_iter()
        .map(|d| (d.id, d.labels))
        .collect();
    let none = Labels::new();
    let deployments: BTreeSet<DeploymentId> = bindings.iter().map(|b| b.id.deployment).collect();
    let fleet: Vec<(DeploymentId, &Labels)> = deployments
        .iter()
        .map(|id| (*id, labels.get(id).unwrap_or(&none)))
        .collect();
    let waves = assign_waves(strategy, &fleet);
    let target = |(deployment, wave): (&DeploymentId, usize)| RolloutTarget {
        deployment: *deployment,
        wave,
        offered_at: None,
        rollback_at: None,
        forgiven: false,
        failure: None,
    };
    Ok(deployments.iter().zip(waves).map(target).collect())
}

fn supersede(
    tx: &Tx<'_>,
    rollout: &Rollout,
    by: &[RolloutId],
    now: Timestamp,
) -> Result<(), Error> {
    let phase = rollout.run.phase.next(RunEvent::Superseded)?;
    let by = by
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let reason = match by.as_str() {
        "" => "what it was to bring is wanted no more".to_owned(),
        by => format!("a newer rollout of the same connectors took over: {by}"),
    };
    let run = Run {
        phase,
        hold_reason: reason.clone(),
        ..rollout.run.clone()
    };
    tx.set_run(rollout.id, &run, Some(now))?;
    let event = Event {
        at: now,
        actor: super::KEYFLEET.to_owned(),
        text: reason,
    };
    tx.add_event(EventScope::Rollout(rollout.id), &event)?;
    Ok(())
}
