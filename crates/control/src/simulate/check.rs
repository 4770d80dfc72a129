//! What must hold after every event of a simulation: the starred invariants of the design, against the model's own truth.
//!
//! It only reads. What a plan may do is judged by [`invariants::violations`] in the moment it is made; here is judged
//! what came of it: rows, documents, keys, and what the model Kibanas really hold.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::binding::{Assignment, BindingId, BindingState};
use keyfleet_core::id::{ConnectorName, DeploymentId, Generation, KeyName, Revision};
use keyfleet_core::key::KeyState;
use keyfleet_core::rollout::{Phase, Plan, PlanInput, invariants};
use keyfleet_proto::v1;
use keyfleet_store::{Binding, Evidence, Holding, KeyVersionRow, Rollout, RolloutBinding, Tx};

use super::Simulation;
use super::agent::Agent;
use super::kibana::{KeyId, Place};
use crate::error::Error;
use crate::sessions::told::{Mark, mark};

thread_local! {
    /// What was wrong with plans of this thread since somebody last looked.
    static PLANS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// More events than this at one moment mean that something turns in a circle.
const AT_ONCE_MAX: u32 = 2_000;

/// What the checker remembers from event to event.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    found: Vec<String>,
    /// What each generation stands for.
    documents: BTreeMap<(DeploymentId, Generation), bytes::Bytes>,
    generations: BTreeMap<DeploymentId, Generation>,
    refused: BTreeSet<(DeploymentId, Mark)>,
    n_at_once: (Option<keyfleet_core::Timestamp>, u32),
    /// Documents and keys that left control.
    pub(crate) sent: u64,
    /// What the database said after so many changes.
    rows: Option<(u64, Rows)>,
}

/// Sees a plan before it is carried out.
pub(super) fn watch(input: &PlanInput<'_>, plan: &Plan) {
    let broken = invariants::violations(input, plan);
    if !broken.is_empty() {
        PLANS.with_borrow_mut(|found| found.extend(broken));
    }
}

impl Checker {
    /// Control sends a desired state.
    pub(super) fn document(&mut self, id: DeploymentId, document: &v1::Desired, andon: bool) {
        let mark = mark(document);
        let generation = mark.0;
        self.sent += 1;
        if andon {
            self.found.push(format!(
                "generation {generation} is sent to {id} under andon"
            ));
        }
        if self.refused.contains(&(id, mark.clone())) {
            self.found.push(format!(
                "generation {generation}, which {id} refused, is sent to it again"
            ));
        }
        let known = self.documents.entry((id, generation));
        if *known.or_insert_with(|| mark.1.clone()) != mark.1 {
            self.found.push(format!(
                "generation {generation} of {id} stands for two documents"
            ));
        }
    }

    /// Control sends a key.
    pub(super) fn key(&mut self, id: DeploymentId, (key, version): &KeyId, andon: bool) {
        self.sent += 1;
        if andon {
            self.found
                .push(format!("{key} {version} is sent to {id} under andon"));
        }
    }

    /// An agent refuses a desired state.
    pub(super) fn refused(&mut self, id: DeploymentId, answer: &v1::DesiredAnswer) {
        let generation = answer.generation.unwrap_or_default().into();
        self.refused
            .insert((id, (generation, answer.digest.clone())));
    }

    /// Somebody saw something that must not be.
    pub(super) fn report(&mut self, broken: String) {
        self.found.push(broken);
    }
}

impl Simulation {
    /// Everything that must hold does.
    pub(super) fn must_hold(&mut self) -> Result<(), Error> {
        let broken = self.violations()?;
        if broken.is_empty() {
            return Ok(());
        }
        let broken = broken.join("; ");
        self.note("CHECKER", || broken.clone());
        Err(Error::Precondition(broken))
    }

    /// What is broken now; empty where everything holds.
    pub(super) fn violations(&mut self) -> Result<Vec<String>, Error> {
        let mut found = std::mem::take(&mut self.checker.found);
        PLANS.with_borrow_mut(|plans| found.append(plans));
        self.is_turning(&mut found);
        let changes = self.scratch.changes();
        let rows = match self.checker.rows.take() {
            Some((at, rows)) if at == changes => rows,
            _ => {
                let rows = self.scratch.run(Rows::load)?;
                rows.check(&mut found);
                rows
            }
        };
        for agent in self.agents.values() {
            let generation = rows.generations.get(&agent.id).copied().unwrap_or_default();
            let known = self.checker.generations.entry(agent.id).or_default();
            if generation < *known || agent.generation().is_some_and(|has| has > generation) {
                let name = &agent.name;
                found.push(format!(
                    "generation {generation} of {name} is behind what was there"
                ));
            }
            *known = generation.max(*known);
            rows.check_keys(agent, &mut found);
            rows.check_proven(agent, &mut found);
        }
        self.checker.rows = Some((changes, rows));
        Ok(found)
    }

    fn is_turning(&mut self, found: &mut Vec<String>) {
        let (at, n) = &mut self.checker.n_at_once;
        *n = if *at == Some(self.now) { *n + 1 } else { 0 };
        *at = Some(self.now);
        if *n > AT_ONCE_MAX {
            found.push("so much happens at one moment that it never ends".to_owned());
        }
    }

    /// Everything that is stored and that a restart or a reconnect may not change.
    pub(super) fn stored(&self) -> Result<String, Error> {
        self.look(|tx| {
            let rows = Rows::load(tx)?;
            let events: Vec<_> = rows
                .generations
                .keys()
                .map(|id| tx.events(keyfleet_store::EventScope::Deployment(*id), 1_000))
                .collect::<Result<_, _>>()?;
            let rollouts = tx.rollouts(1_000)?;
            Ok(format!(
                "{:#?}{:#?}{:#?}{:#?}{events:#?}{rollouts:#?}",
                rows.bindings, rows.open, rows.evidence, rows.generations
            ))
        })
    }

    /// Writes that Kibanas have carried out.
    pub(super) fn writes(&self) -> u64 {
        self.agents.values().map(|agent| agent.kibana.writes).sum()
    }
}

fn place_of(id: &BindingId) -> Place {
    (id.space.clone(), id.connector.clone())
}

/// What the database says, as far as it is checked.
#[derive(Debug)]
pub(super) struct Rows {
    bindings: Vec<Binding>,
    generations: BTreeMap<DeploymentId, Generation>,
    open: BTreeSet<(BindingId, KeyId)>,
    evidence: Vec<Evidence>,
    assignable: BTreeSet<KeyId>,
    /// Retiring or dead: nothing may run them.
    dying: BTreeSet<KeyId>,
    keys: BTreeMap<(ConnectorName, Revision), KeyName>,
    active: Vec<(Rollout, Vec<RolloutBinding>)>,
}

impl Rows {
    fn load(tx: &Tx<'_>) -> Result<Self, Error> {
        let mut rows = Self {
            bindings: tx.bindings()?,
            generations: BTreeMap::new(),
            open: BTreeSet::new(),
            evidence: Vec::new(),
            assignable: BTreeSet::new(),
            dying: BTreeSet::new(),
            keys: BTreeMap::new(),
            active: Vec::new(),
        };
        for row in tx.deployments()? {
            rows.generations.insert(row.id, row.generation);
        }
        for key in tx.keys()? {
            let name = key.key.name;
            let is_open = |holding: &Holding| holding.closed_at.is_none();
            let open = tx.holdings(&name)?.into_iter().filter(is_open);
            rows.open
                .extend(open.map(|open| (open.binding, (open.key, open.version))));
            rows.evidence.extend(tx.evidence(&name)?);
            let versions = tx.key_versions(&name)?;
            let is_dying =
                |row: &&KeyVersionRow| matches!(row.state, KeyState::Retiring | KeyState::Revoked);
            let dying = versions.iter().filter(is_dying);
            rows.dying
                .extend(dying.map(|row| (name.clone(), row.version)));
            let versions = versions.into_iter();
            let assignable = versions.filter(|row| row.state.may_be_assigned());
            rows.assignable
                .extend(assignable.map(|row| (name.clone(), row.version)));
        }
        for connector in tx.connectors()? {
            let revision = connector.revision;
            rows.keys
                .insert((revision.connector, revision.revision), revision.spec.key);
        }
        for rollout in tx.active_rollouts()? {
            let bindings = tx.rollout_bindings(rollout.id)?;
            rows.active.push((rollout, bindings));
        }
        Ok(rows)
    }

    fn check(&self, found: &mut Vec<String>) {
        for binding in &self.bindings {
            if binding
                .last_proven
                .is_some_and(|proven| !self.may_be_assigned(&binding.id, proven))
            {
                found.push(format!(
                    "what {} proved last may not be assigned any more",
                    binding.id
                ));
            }
            if let Some(told) = binding.desired.and_then(|told| told.assignment) {
                self.check_told(binding, told, found);
            }
        }
        for (rollout, changes) in &self.active {
            for change in changes {
                let is_lost = change
                    .from
                    .is_some_and(|from| !self.may_be_assigned(&change.id, from));
                if is_lost {
                    found.push(format!(
                        "{} of rollout {} cannot go back any more",
                        change.id, rollout.id
                    ));
                }
            }
            if rollout.run.phase == Phase::Pending && rollout.run.wave.is_some() {
                found.push(format!(
                    "rollout {} has a wave and has not begun",
                    rollout.id
                ));
            }
        }
    }

    fn check_told(&self, binding: &Binding, told: Assignment, found: &mut Vec<String>) {
        let id = &binding.id;
        let Some(key) = self.keys.get(&(id.connector.clone(), told.revision)) else {
            return found.push(format!("{id} is told a revision that is not there"));
        };
        let version = (key.clone(), told.key_version);
        if !self.open.contains(&(id.clone(), version)) {
            found.push(format!(
                "{id} is told {told:?}, and no open holding says so"
            ));
        }
        let proves = |evidence: &Evidence| {
            evidence.binding == *id
                && evidence.version == told.key_version
                && evidence.revision == told.revision
        };
        let is_proven = binding.progress.state == BindingState::Proven;
        if is_proven && !self.evidence.iter().any(proves) {
            found.push(format!("{id} counts as proven without evidence"));
        }
    }

    /// Every key that an agent has in memory or in its Kibana is in an open holding.
    fn check_keys(&self, agent: &Agent, found: &mut Vec<String>) {
        let held = agent.kibana.holds.iter();
        let held = held.map(|(place, held)| (Some(place), &held.key));
        let in_memory = agent.keys().iter().map(|key| (None, key));
        for (place, key) in held.chain(in_memory) {
            let open = self.open.iter();
            let mut open = open.filter(|(id, open)| id.deployment == agent.id && open == key);
            let is_open = match place {
                Some(place) => open.any(|(id, _)| place_of(id) == *place),
                None => open.next().is_some(),
            };
            if place.is_some() && self.dying.contains(key) {
                let (name, version) = key;
                found.push(format!(
                    "{} still runs {name} {version}, which is retiring or revoked",
                    agent.name
                ));
            }
            if !is_open {
                let (name, version) = key;
                let at = place.map(|(space, connector)| format!("{space}/{connector}"));
                let at = at.unwrap_or_else(|| "in memory".to_owned());
                found.push(format!(
                    "{} has {name} {version}: {at}, and no open holding says so",
                    agent.name
                ));
            }
        }
    }

    /// What counts as proven is what Kibana really holds.
    fn check_proven(&self, agent: &Agent, found: &mut Vec<String>) {
        let proven = |binding: &&Binding| {
            binding.id.deployment == agent.id && binding.progress.state == BindingState::Proven
        };
        for binding in self.bindings.iter().filter(proven) {
            let holds = agent.kibana.holds.get(&place_of(&binding.id));
            let holds = holds.map(|held| held.assignment);
            let told = binding.desired.and_then(|told| told.assignment);
            if binding.desired.is_some() && holds != told {
                found.push(format!(
                    "{} counts as proven with {told:?}, and Kibana holds {holds:?}",
                    binding.id
                ));
            }
        }
    }

    fn may_be_assigned(&self, id: &BindingId, assignment: Assignment) -> bool {
        let key = self.keys.get(&(id.connector.clone(), assignment.revision));
        key.is_some_and(|key| {
            self.assignable
                .contains(&(key.clone(), assignment.key_version))
        })
    }
}

mod tests;
