//! Goals and the start of rollouts: from what operators want to what must change where.

mod exchange;
mod insert;
mod members;
mod spaces;

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingId, BindingState};
use keyfleet_core::connector::ConnectorRevision;
use keyfleet_core::goal::{Goal, GoalInput, Goals, goals, superseded};
use keyfleet_core::id::{ConnectorName, DeploymentId, PlacementName, RolloutId, StrategyName};
use keyfleet_core::key::goal_version;
use keyfleet_core::placement::Placement;
use keyfleet_core::rollout::{Strategy, default_strategy};
use keyfleet_store::{Binding, Connector, Deployment, Progress, Tx};

use super::adopt;
use super::barred::Barred;
use super::step::load;
use super::travel::Travel;
use crate::error::Error;
pub(crate) use exchange::{Exchanges, older_than};
use insert::insert;
pub(crate) use insert::{NOBODY_LEFT, supersede, time_ordered};
pub(crate) use members::{later, phase_of};
pub(crate) use spaces::{absent, full, site, spaces_changed, usable};

/// What a change of goals did.
#[derive(Debug, Default)]
pub(crate) struct GoalChanges {
    /// Bindings whose goal is new, with what it was.
    pub(crate) changed: Vec<BindingId>,
    /// Bindings that shall go away.
    pub(crate) removed: Vec<BindingId>,
    /// The connectors of which a binding that was known before is to have something that no rollout brings yet.
    renewed: BTreeSet<ConnectorName>,
    /// How many more bindings a placement's patterns ask for on a deployment that has as many as it may have.
    pub(crate) beyond: BTreeMap<(DeploymentId, PlacementName), usize>,
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
    /// What older rollouts are set aside for: a new revision or key version. Who comes or goes sets nothing aside.
    pub(crate) fn spread(&self) -> Spread {
        Spread {
            changed: self.renewed.clone(),
            again: BTreeSet::new(),
        }
    }
}

/// Works out what every binding shall have, and stores what is new.
pub(crate) fn refresh_goals(tx: &Tx<'_>, now: Timestamp) -> Result<GoalChanges, Error> {
    refresh(tx, None, now)
}

/// The same of one deployment, or of all.
fn refresh(tx: &Tx<'_>, only: Option<DeploymentId>, now: Timestamp) -> Result<GoalChanges, Error> {
    let placements = tx.placements()?;
    let (deployments, bindings) = match only {
        Some(id) => (
            tx.deployment(id)?.into_iter().collect(),
            tx.bindings_of(id)?,
        ),
        None => (tx.deployments()?, tx.bindings()?),
    };
    let known: BTreeMap<BindingId, Binding> = bindings
        .into_iter()
        .map(|binding| (binding.id.clone(), binding))
        .collect();
    let wanted = wanted(tx, &placements, &deployments, &known)?;
    let mut changes = GoalChanges {
        beyond: wanted.beyond,
        ..GoalChanges::default()
    };
    let (brought, mut joined) = (members::brought(tx)?, Vec::new());
    for (id, goal) in &wanted.bindings {
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
                let Some(new) = goal.assignment else { continue };
                if before.is_none_or(|before| before.goal.is_none()) {
                    joined.push(id);
                } else if !brought.contains(&(id.connector.clone(), new)) {
                    changes.renewed.insert(id.connector.clone());
                }
            }
        }
    }
    let anew = exchanged_anew(tx, &known, &joined)?;
    changes.renewed.extend(anew);
    for (id, binding) in &known {
        if wanted.bindings.contains_key(id) {
            continue;
        }
        if binding.is_untold() {
            tx.delete_binding(id)?;
            changes.changed.push(id.clone());
        } else if binding.goal.is_some() {
            tx.put_binding(&without_goal(binding))?;
            changes.removed.push(id.clone());
        }
    }
    go_on_with_removals(tx, &known, &mut changes)?;
    Ok(changes)
}

/// The connectors that are on their way out somewhere, and whose place something else is to take there than when that
/// began: their removal waits for the new one, so that the rollout under way cannot go on with it.
fn exchanged_anew(
    tx: &Tx<'_>,
    known: &BTreeMap<BindingId, Binding>,
    joined: &[&BindingId],
) -> Result<BTreeSet<ConnectorName>, Error> {
    let exchanges = Exchanges::load(tx)?;
    let mut found = BTreeSet::new();
    if exchanges.is_empty() {
        return Ok(found);
    }
    let is_going = |b: &&Binding| b.goal.is_none() && !b.is_untold() && !b.is_converged();
    let going = known.values().filter(is_going);
    let going: BTreeSet<_> = going.map(|b| (b.id.deployment, &b.id.connector)).collect();
    for newer in joined {
        let older = exchanges.older_of(&newer.connector).iter();
        let going = older.filter(|older| going.contains(&(newer.deployment, older)));
        found.extend(going.cloned());
    }
    Ok(found)
}

fn without_goal(binding: &Binding) -> Binding {
    Binding {
        goal: None,
        held_by: None,
        ..binding.clone()
    }
}

/// A removal that was held because what was to take the connector's place failed goes on with something new there.
fn go_on_with_removals(
    tx: &Tx<'_>,
    known: &BTreeMap<BindingId, Binding>,
    changes: &mut GoalChanges,
) -> Result<(), Error> {
    let exchanges = Exchanges::load(tx)?;
    if exchanges.is_empty() {
        return Ok(());
    }
    let older = |id: &BindingId| {
        let older = exchanges.older_of(&id.connector).iter();
        let deployment = id.deployment;
        older.map(move |older| (deployment, older.clone()))
    };
    let renewed: BTreeSet<_> = changes.changed.iter().flat_map(older).collect();
    for (id, binding) in known {
        let is_held = binding.goal.is_none() && binding.held_by.is_some();
        if is_held && renewed.contains(&(id.deployment, id.connector.clone())) {
            tx.put_binding(&without_goal(binding))?;
            changes.removed.push(id.clone());
        }
    }
    Ok(())
}

fn wanted(
    tx: &Tx<'_>,
    placements: &[Placement],
    deployments: &[Deployment],
    known: &BTreeMap<BindingId, Binding>,
) -> Result<Goals, Error> {
    let mut by_deployment: BTreeMap<DeploymentId, Vec<&Binding>> = BTreeMap::new();
    for binding in known.values() {
        let all = by_deployment.entry(binding.id.deployment).or_default();
        all.push(binding);
    }
    let fleet = deployments.iter().map(|deployment| {
        let own = by_deployment.remove(&deployment.id);
        site(deployment, own.into_iter().flatten())
    });
    let mut input = GoalInput {
        placements,
        fleet: fleet.collect(),
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
            .filter(|v| v.released)
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
        None if binding.desired.is_some() => binding.last_proven.or_else(|| as_told(binding)),
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

/// What was there before us is not taken away because its first change was never proven.
fn as_told(binding: &Binding) -> Option<Assignment> {
    binding.adopted_id.as_ref()?;
    binding.desired?.assignment
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
        adopted_id: None,
        rung: None,
        references: 0,
        references_agreed: 0,
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
    let exchanges = Exchanges::load(tx)?;
    let (mut active, mut connectors_of) = (Vec::new(), Vec::new());
    for rollout in tx.active_rollouts()? {
        let mut loaded = load(tx, rollout)?;
        if loaded.take_leave(tx, now)? {
            connectors_of.push(exchanges.families(&loaded.connectors()));
            active.push(loaded.rollout);
        } else {
            supersede(tx, &loaded.rollout, NOBODY_LEFT, now)?;
        }
    }
    let (taken_over, older) = superseded(&exchanges.families(&spread.changed), &connectors_of);
    let busy: BTreeSet<ConnectorName> = connectors_of
        .iter()
        .enumerate()
        .filter(|(index, _)| !older.contains(index))
        .flat_map(|(_, connectors)| connectors.iter().cloned())
        .collect();
    let mut bindings = tx.bindings()?;
    if adopt::settle(tx, &bindings, now)? {
        bindings = tx.bindings()?;
    }
    let mut chosen = BTreeSet::new();
    for binding in &bindings {
        let is_in_flight = taken_over.contains(&binding.id.connector)
            && !older.is_empty()
            && !binding.is_converged();
        let waits = binding.held_by.is_some() || busy.contains(&binding.id.connector);
        let is_wanted =
            !binding.is_told_goal() || is_in_flight || spread.again.contains(&binding.id);
        if !waits && is_wanted {
            chosen.insert(binding.id.clone());
        }
    }
    // Nothing is offered that nobody could do. Who can do what is looked up only where there is something to offer: it
    // reads every connector's address for every binding, and this is asked after each plan.
    if !chosen.is_empty() {
        let barred = Barred::load(tx, &bindings)?;
        chosen.retain(|id| !barred.contains(id));
    }
    let goes_with = exchanges.settle(&bindings, &mut chosen);
    let mut started = Vec::new();
    for (name, bindings) in by_strategy(tx, bindings, &chosen, &goes_with)? {
        let strategy = strategy_named(tx, &name)?;
        started.push(insert(tx, strategy, &bindings, cause, actor, now)?);
    }
    for index in older {
        if let Some(rollout) = active.get(index) {
            supersede(tx, rollout, &by(&started), now)?;
        }
    }
    Ok(started)
}

/// Why an older rollout is set aside.
fn by(started: &[RolloutId]) -> String {
    let ids: Vec<String> = started.iter().map(ToString::to_string).collect();
    match ids.as_slice() {
        [] => "what it was to bring is wanted no more".to_owned(),
        ids => format!(
            "a newer rollout of the same connectors took over: {}",
            ids.join(", ")
        ),
    }
}

/// The chosen bindings by how they are spread: as their placement says, or the placement that they go with.
fn by_strategy(
    tx: &Tx<'_>,
    bindings: Vec<Binding>,
    chosen: &BTreeSet<BindingId>,
    goes_with: &BTreeMap<BindingId, PlacementName>,
) -> Result<BTreeMap<StrategyName, Vec<Binding>>, Error> {
    // What a deleted placement leaves behind goes away as everything else of it spread.
    let placements = tx.deleted_placements()?.into_iter().chain(tx.placements()?);
    let strategies: BTreeMap<PlacementName, StrategyName> =
        placements.map(|p| (p.name, p.strategy)).collect();
    let mut by_strategy: BTreeMap<StrategyName, Vec<Binding>> = BTreeMap::new();
    for binding in bindings {
        if chosen.contains(&binding.id) {
            let placement = goes_with.get(&binding.id).unwrap_or(&binding.placement);
            let strategy = strategies.get(placement).cloned();
            let strategy = strategy.map_or_else(default_name, Ok)?;
            by_strategy.entry(strategy).or_default().push(binding);
        }
    }
    Ok(by_strategy)
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
