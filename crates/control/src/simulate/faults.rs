//! What tests do to a simulated fleet: faults of either side and of the provider, changes of what is wanted, comings
//! and goings.

use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::connector::ConnectorRevision;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{ConnectorName, DeploymentId, KeyName, KeyVersion, Revision};
use keyfleet_core::key::KeyState;
use keyfleet_proto::{Invalid, v1};
use keyfleet_store::{KeyVersionRow, Tx};
use v1::control_message::Message as ToAgent;

use super::acts::actor;
use super::agent::Agent;
use super::fleet::made_up;
use super::{Event, Simulation};
use crate::app::apply::{Intent, Undo};
use crate::app::campaign::version_found;
use crate::app::label::Relabel;
use crate::app::standing::Word;
use crate::app::start::{Spread, refresh_goals, start_rollouts};
use crate::app::step::begin_anew;
use crate::app::{KEYFLEET, andon};
use crate::error::Error;

/// Something that is wrong with one deployment, until it is [`Fault::None`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// All is well again.
    None,
    /// Kibana does not answer.
    KibanaDown,
    /// Live calls with what has never worked there fail so.
    Fails(FailureClass),
    /// Every live call fails so.
    Broken(FailureClass),
    /// Each step takes so long on average.
    Slow(Duration),
    /// The agent refuses every new document.
    Rejects,
    /// The agent takes documents and does nothing.
    Stuck,
}

impl Simulation {
    /// The network lets an agent through, or does not.
    pub(crate) fn connect(&mut self, name: &str, is_up: bool) {
        let Some(id) = self.id(name) else {
            return;
        };
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.has_network = is_up;
        }
        self.note_of(id, || {
            if is_up {
                "has a network"
            } else {
                "has no network"
            }
            .to_owned()
        });
        match is_up {
            true => self.push(Duration::ZERO, Event::Dial(id)),
            false => self.break_session(id),
        }
    }

    /// The id of a deployment that has an agent.
    pub(crate) fn id(&self, name: &str) -> Option<DeploymentId> {
        let mut agents = self.agents.values();
        agents
            .find(|agent| agent.name == name)
            .map(|agent| agent.id)
    }

    /// Stops the fleet, or lets it go on.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) fn andon(&mut self, reason: Option<&str>) -> Result<(), Error> {
        let on = reason.is_some();
        let reason = reason.unwrap_or("the trouble is over").to_owned();
        self.change(|tx, now| andon::set(tx, &actor("ops"), on, reason, now))?;
        self.note("ops", || format!("andon {}", if on { "on" } else { "off" }));
        let sessions: Vec<_> = self
            .sessions
            .iter()
            .map(|(id, live)| (*id, live.number))
            .collect();
        for (id, number) in sessions {
            self.send_agent(id, number, ToAgent::Andon(v1::Andon { on }));
            if !on {
                self.tell(id)?;
            }
        }
        Ok(())
    }

    /// Control's process dies, and comes back.
    pub(crate) fn crash_control(&mut self, back_after: Duration) {
        if self.is_up {
            self.note("control", || "dies".to_owned());
            self.control_dies(back_after);
        }
    }

    /// Control's process dies: what is in memory is gone, what is stored stays.
    pub(super) fn control_dies(&mut self, back_after: std::time::Duration) {
        self.is_up = false;
        self.plan_at = None;
        self.sessions.clear();
        self.waiting.clear();
        self.gates_asked.clear();
        let in_flight = |event: &Event| {
            matches!(
                event,
                Event::ToControl(..) | Event::Plan | Event::Gone(..) | Event::Gate(..)
            )
        };
        self.queue.retain(|_, event| !in_flight(event));
        let ids: Vec<DeploymentId> = self.agents.keys().copied().collect();
        for id in ids {
            self.break_session(id);
        }
        self.push(back_after, Event::ControlStarts);
    }

    pub(super) fn control_starts(&mut self) -> Result<(), Error> {
        self.is_up = true;
        self.epoch += 1;
        let now = self.control_now();
        self.scratch.run(|tx| begin_anew(tx, now))?;
        self.note("control", || "starts again".to_owned());
        self.nudge();
        Ok(())
    }

    /// An agent's process dies, and comes back.
    pub(crate) fn crash_agent(&mut self, name: &str, back_after: Duration) {
        let Some(id) = self.id(name) else {
            return;
        };
        self.break_session(id);
        let random = &mut self.random;
        if let Some(agent) = self.agents.get_mut(&id).filter(|agent| agent.is_running) {
            agent.crash(random);
            self.note_of(id, || "its agent dies".to_owned());
            self.push(back_after, Event::Start(id));
        }
    }

    /// The session of an agent breaks, and it dials again.
    pub(crate) fn cut(&mut self, name: &str) {
        if let Some(id) = self.id(name) {
            self.note_of(id, || "loses its session".to_owned());
            self.break_session(id);
        }
    }

    /// An agent says everything again, though nobody asked.
    pub(crate) fn repeat(&mut self, name: &str) {
        let Some(id) = self.id(name) else {
            return;
        };
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.repeat_everything();
            self.go_on(id);
        }
    }

    /// Something is wrong with a deployment from now on.
    pub(crate) fn set_fault(&mut self, name: &str, fault: Fault) {
        let Some(id) = self.id(name) else {
            return;
        };
        self.note_of(id, || match fault == Fault::None {
            true => "is well again".to_owned(),
            false => format!("has a fault: {fault:?}"),
        });
        let Some(agent) = self.agents.get_mut(&id) else {
            return;
        };
        let kibana = &mut agent.kibana;
        match fault {
            Fault::None => {
                kibana.is_down = false;
                (kibana.change_fails, kibana.broken) = (None, None);
                (agent.rejects, agent.is_stuck) = (false, false);
                agent.try_again();
            }
            Fault::KibanaDown => kibana.is_down = true,
            Fault::Fails(class) => kibana.change_fails = Some(class),
            Fault::Broken(class) => kibana.broken = Some(class),
            Fault::Slow(step) => agent.step = step,
            Fault::Rejects => agent.rejects = true,
            Fault::Stuck => agent.is_stuck = true,
        }
        self.go_on(id);
    }

    /// The provider refuses a key version, or takes it again.
    pub(crate) fn refuse_key(&mut self, key: &KeyName, version: KeyVersion, is_refused: bool) {
        let id = (key.clone(), version);
        self.note("provider", || {
            format!("refuses {key} {version}: {is_refused}")
        });
        match is_refused {
            true => drop(self.provider.refused.insert(id)),
            false => drop(self.provider.refused.remove(&id)),
        }
    }

    /// The provider's credit is used up, or there is some again.
    pub(crate) fn credit(&mut self, is_there: bool) {
        self.note("provider", || format!("credit: {is_there}"));
        self.provider.no_credit = !is_there;
    }

    /// The model that a revision asks for is not there.
    pub(crate) fn no_model(&mut self, connector: &ConnectorName, revision: Revision) {
        self.provider.no_model.insert((connector.clone(), revision));
    }

    /// What gates answer from now on, in parts of 10,000; the rest says nothing.
    pub(crate) fn set_gates(&mut self, pass: u32, fail: u32) {
        self.gates = (pass, fail);
    }

    /// Control's clock jumps.
    pub(crate) fn step_clock(&mut self, by: jiff::SignedDuration) {
        let skew = self
            .control_now()
            .duration_since(self.now)
            .saturating_add(by);
        self.is_slow = skew.is_negative();
        self.skew = skew.unsigned_abs();
        self.note("control", || {
            format!("its clock jumps by {} s", by.as_secs())
        });
    }

    /// An operator changes labels of a deployment; a removal is agreed with.
    ///
    /// # Errors
    /// Where the change is refused.
    pub(crate) fn relabel(
        &mut self,
        name: &str,
        set: Labels,
        unset: Vec<String>,
    ) -> Result<(), Error> {
        let relabel = Relabel {
            name: Invalid::parse("name", name)?,
            set,
            unset,
            reason: "because".to_owned(),
        };
        self.note("ops", || {
            format!(
                "labels {name}: {:?}, without {:?}",
                relabel.set, relabel.unset
            )
        });
        let intent = Intent::Apply { yes: true };
        let done = self.change(|tx, now| relabel.run(tx, &actor("ops"), intent, now));
        match done {
            Ok(_) | Err(Undo::OnlyPlanned(_)) => Ok(()),
            Err(Undo::Because(err)) => Err(err),
        }
    }

    /// A new deployment enrols, and its agent connects.
    ///
    /// # Errors
    /// Where the name cannot be used or is taken.
    pub(crate) fn join(&mut self, name: &str, labels: Labels) -> Result<DeploymentId, Error> {
        let step = self
            .agents
            .values()
            .next()
            .map_or(Duration::from_secs(2), |agent| agent.step);
        let row = self.change(|tx, now| {
            let n = u128::try_from(tx.deployments()?.len()).unwrap_or_default();
            let moment = u128::try_from(now.as_nanosecond()).unwrap_or_default();
            // Distinct and in order of arrival, and the same in every run of a seed.
            let id = DeploymentId::new(uuid::Uuid::from_u128((moment << 20) + n));
            let row = made_up(id, name, labels, now)?;
            tx.insert_deployment(&row)?;
            refresh_goals(tx, now)?;
            let cause = format!("deployment {name} enrolled");
            start_rollouts(tx, &Spread::default(), &cause, KEYFLEET, now)?;
            Ok::<_, Error>(row)
        })?;
        self.note(name, || "enrols".to_owned());
        self.agents.insert(row.id, Agent::new(&row, step));
        self.push(Duration::ZERO, Event::Dial(row.id));
        Ok(row.id)
    }

    /// An operator removes a deployment; its Kibana keeps what it has.
    ///
    /// # Errors
    /// Where that is refused.
    pub(crate) fn leave(&mut self, name: &str) -> Result<(), Error> {
        let id = self.id(name);
        self.change(|tx, now| Word::new(&actor("ops"), name, "because", now)?.remove(tx, true))?;
        self.note("ops", || format!("removes deployment {name}"));
        if let Some(id) = id {
            self.sessions.remove(&id);
            self.agents.remove(&id);
        }
        Ok(())
    }

    /// Somebody writes a new version of a Key to Vault, and it is found.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) fn new_key_version(&mut self, key: &KeyName) -> Result<KeyVersion, Error> {
        let is_campaigns = self.campaigns.are_on;
        let version = self.change(|tx, now| {
            let known = tx.key_versions(key)?;
            let newest = known.iter().map(|row| row.version.0).max().unwrap_or(0);
            let version = KeyVersion(newest + 1);
            let row = KeyVersionRow {
                version,
                state: KeyState::Pending,
                fingerprint: format!("{key}-{}", version.0),
                shown: "sk-proj-…".to_owned(),
                first_seen: now,
                readable: true,
                released: true,
            };
            if is_campaigns {
                version_found(tx, key, &row, now)?;
            } else {
                tx.insert_key_version(key, &row)?;
                spread(tx, "a new key version", now)?;
            }
            Ok::<_, Error>(version)
        })?;
        self.note("vault", || format!("has {key} {version}"));
        Ok(version)
    }

    /// An operator applies a new revision of a connector.
    ///
    /// # Errors
    /// Where there is no such connector.
    pub(crate) fn new_revision(&mut self, connector: &ConnectorName) -> Result<Revision, Error> {
        let revision = self.change(|tx, now| {
            let missing = || Error::NotFound {
                kind: "connector",
                name: connector.to_string(),
            };
            let known = tx.newest_connector(connector)?.ok_or_else(missing)?;
            let ConnectorRevision {
                revision, mut spec, ..
            } = known.revision;
            let revision = Revision(revision.0 + 1);
            spec.display_name = format!("{connector} {revision}");
            let new = ConnectorRevision {
                connector: connector.clone(),
                revision,
                spec,
            };
            tx.insert_connector(&new, now)?;
            spread(tx, "a new revision", now)?;
            Ok::<_, Error>(revision)
        })?;
        self.note("ops", || format!("applies {connector} {revision}"));
        Ok(revision)
    }
}

/// Goals follow, and rollouts begin.
pub(super) fn spread(tx: &Tx<'_>, cause: &str, now: Timestamp) -> Result<(), Error> {
    let goals = refresh_goals(tx, now)?;
    start_rollouts(tx, &goals.spread(), cause, "ops", now)?;
    Ok(())
}
