//! The deployments of a simulation: those of the database, those that are made up, and what is said of them.

use std::collections::BTreeMap;
use std::time::Duration;

use keyfleet_core::failure::FailureClass;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{DeploymentId, EnrolmentId, Generation, RolloutId};
use keyfleet_core::key::KeyState;
use keyfleet_core::standing::Standing;
use keyfleet_proto::Invalid;
use keyfleet_store::{Binding, Deployment, Tx};

use super::agent::{Agent, Applied, Entry, Goal};
use super::conditions::Conditions;
use super::kibana::{Held, Kibana, Place};
use super::{Event, Simulation};
use crate::app::ending::key_at;
use crate::error::Error;

/// Agents of a fleet that starts dial within this time.
const DIALS_WITHIN_MILLIS: u64 = 2_000;

impl Simulation {
    /// Every deployment of the database gets its model agent, with what the database says it has.
    pub(super) fn populate(&mut self, conditions: &Conditions) -> Result<(), Error> {
        let (agents, refused, epoch) = self.scratch.run(|tx| {
            let (mut agents, mut epoch) = (Vec::new(), 1);
            for row in tx.deployments()? {
                epoch = row.generation.epoch.max(epoch);
                agents.push(agent_of(tx, &row, conditions.step)?);
            }
            let mut refused = Vec::new();
            for key in tx.keys()? {
                let versions = tx.key_versions(&key.key.name)?.into_iter();
                let dead = versions.filter(|row| row.state == KeyState::Revoked);
                refused.extend(dead.map(|row| (key.key.name.clone(), row.version)));
            }
            Ok::<_, Error>((agents, refused, epoch))
        })?;
        // Agents refuse what is older than what they have.
        self.epoch = epoch;
        self.provider.refused.extend(refused);
        for mut agent in agents {
            let is_away = self.random.chance(conditions.offline);
            agent.has_network = !is_away;
            agent.kibana.is_down = self.random.chance(conditions.kibana_down);
            agent.kibana.change_fails = self.draw(&conditions.fails);
            let wait = Duration::from_millis(self.random.below(DIALS_WITHIN_MILLIS));
            if !is_away {
                self.push(wait, Event::Dial(agent.id));
            }
            self.agents.insert(agent.id, agent);
        }
        Ok(())
    }

    /// How many deployments there are.
    pub(super) fn n_agents(&self) -> u32 {
        u32::try_from(self.agents.len()).unwrap_or(u32::MAX)
    }

    /// True where a deployment's agent cannot connect.
    pub(super) fn is_away(&self, id: DeploymentId) -> bool {
        self.agents.get(&id).is_none_or(|agent| !agent.has_network)
    }

    /// A deployment's agent is away from the start.
    pub(super) fn begin_away(&mut self, id: DeploymentId) {
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.has_network = false;
        }
    }

    fn draw(&mut self, fails: &BTreeMap<FailureClass, u32>) -> Option<FailureClass> {
        let mut drawn = None;
        for (class, share) in fails {
            if self.random.chance(*share) {
                drawn = drawn.or(Some(*class));
            }
        }
        drawn
    }

    /// Takes a line into the story.
    pub(super) fn note(&mut self, who: &str, what: impl FnOnce() -> String) {
        if self.log.is_some() {
            self.note_named(who, what);
        }
    }

    /// The same about a deployment.
    pub(super) fn note_of(&mut self, id: DeploymentId, what: impl FnOnce() -> String) {
        if self.log.is_some() {
            let name = self.name_of(id);
            self.note_named(&name, what);
        }
    }

    fn note_named(&mut self, who: &str, what: impl FnOnce() -> String) {
        let Some(log) = &mut self.log else {
            return;
        };
        let since = self.now.duration_since(self.start);
        let (secs, millis) = (since.as_secs(), since.subsec_millis());
        let (hours, minutes) = (secs / 3600, secs / 60 % 60);
        let what = what();
        log.push_str(&format!(
            "{hours:02}:{minutes:02}:{:02}.{millis:03} {who}: {what}\n",
            secs % 60
        ));
    }

    pub(super) fn name_of(&self, id: DeploymentId) -> String {
        let agent = self.agents.get(&id);
        agent.map_or_else(|| id.to_string(), |agent| agent.name.clone())
    }

    /// Rollouts are numbered in the order in which they began.
    pub(super) fn number_of(&mut self, rollout: RolloutId) -> usize {
        let next = self.phases.len() + 1;
        self.phases
            .get(&rollout)
            .map_or(next, |(number, _)| *number)
    }

    /// Tells of rollouts that begin, or are in another phase than before.
    pub(super) fn note_phases(&mut self) -> Result<(), Error> {
        if self.log.is_none() {
            return Ok(());
        }
        let mut rollouts = self.scratch.run(|tx| tx.rollouts(100))?;
        rollouts.reverse();
        for rollout in rollouts {
            let number = self.number_of(rollout.id);
            let phase = rollout.run.phase;
            let known = self.phases.insert(rollout.id, (number, phase));
            let reason = &rollout.run.hold_reason;
            match known {
                None => self.note("control", || {
                    format!("rollout {number} is {phase}: {}", rollout.cause)
                }),
                Some((_, known)) if known != phase => {
                    self.note("control", || match reason.as_str() {
                        "" => format!("rollout {number} is {phase}"),
                        reason => format!("rollout {number} is {phase}: {reason}"),
                    })
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// A deployment that nobody has.
pub(crate) fn made_up(
    id: DeploymentId,
    name: &str,
    labels: Labels,
    now: keyfleet_core::Timestamp,
) -> Result<Deployment, Error> {
    Ok(Deployment {
        id,
        name: Invalid::parse("name", name)?,
        labels,
        enrolment: EnrolmentId::new(id.uuid()),
        enrolled_at: now,
        sealing_key: vec![0; 32],
        certificate_serial: "model".to_owned(),
        certificate_not_after: now,
        agent_version: "model".to_owned(),
        facts: None,
        last_seen: None,
        generation: Generation::default(),
        standing: Standing::Active,
        standing_reason: String::new(),
        standing_at: None,
        certificate_given: 1,
        certificate_seen: 0,
        certificate_ca: String::new(),
        renewal_allowed: false,
    })
}

/// An agent that has what the database says.
fn agent_of(tx: &Tx<'_>, row: &Deployment, step: Duration) -> Result<Agent, Error> {
    let mut agent = Agent::new(row, step);
    let mut entries = BTreeMap::new();
    for binding in tx.bindings_of(row.id)? {
        if let Some((place, entry)) = entry_of(tx, &binding, &mut agent.kibana)? {
            entries.insert(place, entry);
        }
    }
    agent.know(entries);
    Ok(agent)
}

/// What its agent has done to a binding that runs something.
fn entry_of(
    tx: &Tx<'_>,
    binding: &Binding,
    kibana: &mut Kibana,
) -> Result<Option<(Place, Entry)>, Error> {
    let Some(assignment) = binding.running else {
        return Ok(None);
    };
    if tx
        .connector(&binding.id.connector, assignment.revision)?
        .is_none()
    {
        return Ok(None);
    }
    let key = key_at(tx, &binding.id.connector, assignment.revision)?;
    let place = (binding.id.space.clone(), binding.id.connector.clone());
    let held = Held {
        assignment,
        key: (key, assignment.key_version),
    };
    let is_proven = binding.last_proven == Some(assignment);
    match is_proven {
        true => kibana.start_with(place.clone(), held),
        false => drop(kibana.holds.insert(place.clone(), held)),
    }
    let applied = Applied {
        goal: Goal {
            assignment,
            attempt: binding.desired.map_or(0, |told| told.attempt),
        },
        baseline_ok: binding.progress.baseline_ok,
        agreed: true,
        proven_at: binding.proven_at.filter(|_| is_proven),
        ever_proven: is_proven,
    };
    Ok(Some((place, Entry::done(applied))))
}
