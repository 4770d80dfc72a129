//! Control's end of the sessions: what `grpc::session` does between its stream and the use cases, without the stream.

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingState;
use keyfleet_core::id::{DeploymentId, Generation, KeyName, KeyVersion};
use keyfleet_proto::{Invalid, v1};
use keyfleet_store::Tx;
use v1::agent_message::Message as FromAgent;
use v1::control_message::Message as ToAgent;

use super::Simulation;
use crate::app::desired::{DesiredState, settle};
use crate::app::status::{Report, Reporter, answer_of, store};
use crate::app::step::begin_again;
use crate::error::Error;
use crate::sessions::told::{Told, mark};

/// How often the fleet's connectors are proven again by themselves, in seconds: not within a simulation.
const PROBE_INTERVAL_SECS: u32 = 0;

/// A session that control knows.
pub(super) struct Live {
    pub(super) number: u64,
    told: Told,
    /// Its agent has reported something.
    has_reported: bool,
}

impl Simulation {
    /// A message arrives at control.
    pub(super) fn control_hears(
        &mut self,
        id: DeploymentId,
        session: u64,
        message: FromAgent,
    ) -> Result<(), Error> {
        if !self.is_up || !self.agents.contains_key(&id) {
            return Ok(());
        }
        let live = self.sessions.get(&id).map(|live| live.number);
        match message {
            FromAgent::Hello(hello) if live.is_none_or(|live| live < session) => {
                self.open(id, session, &hello)
            }
            FromAgent::StatusReport(report) => {
                let is_ours = live == Some(session);
                // What an older session was about to store when a newer one took its place is stored, but never
                // behind what the newer one says.
                let is_late = self.sessions.get(&id).is_some_and(|live| live.has_reported);
                if !is_ours && is_late {
                    return Ok(());
                }
                self.store_report(id, report.bindings)?;
                if is_ours {
                    if let Some(live) = self.sessions.get_mut(&id) {
                        live.has_reported = true;
                    }
                    let answer = v1::StatusAnswer {
                        sequence: report.sequence,
                        report_full_state: false,
                    };
                    self.send_agent(id, session, ToAgent::StatusAnswer(answer));
                }
                Ok(())
            }
            FromAgent::DesiredAnswer(answer) if live == Some(session) => {
                self.on_answer(id, &answer)
            }
            FromAgent::KeyRequest(request) if live == Some(session) => {
                self.on_key_request(id, session, request)
            }
            FromAgent::Hello(_)
            | FromAgent::DesiredAnswer(_)
            | FromAgent::KeyRequest(_)
            | FromAgent::Heartbeat(_)
            | FromAgent::ProbeRequest(_) => Ok(()),
        }
    }

    /// A message arrives at an agent; false where its session is over.
    pub(super) fn agent_hears(&mut self, id: DeploymentId, session: u64, message: ToAgent) -> bool {
        let now = self.now;
        let agent = self.agents.get_mut(&id);
        let Some(agent) = agent.filter(|agent| agent.session == Some(session)) else {
            return false;
        };
        agent.hear(message, now);
        self.go_on(id);
        true
    }

    fn reporter(&self, id: DeploymentId) -> Option<Reporter> {
        Some(Reporter {
            deployment: id,
            enrolment: self.agents.get(&id)?.enrolment,
            certificate_serial: "model".to_owned(),
            certificate_not_after: Timestamp::MAX,
        })
    }

    fn open(&mut self, id: DeploymentId, session: u64, hello: &v1::Hello) -> Result<(), Error> {
        let told = Told::by(hello)?;
        let number = session;
        let now = self.control_now();
        let epoch = self.epoch;
        let (andon, desired) = self.scratch.run(|tx| {
            begin_again(tx, id, now)?;
            Ok::<_, Error>((tx.andon()?.is_some(), desired(tx, id, epoch)?))
        })?;
        let has_ours = desired.is_some_and(|desired| told.has(&desired.document));
        let live = Live {
            number,
            told,
            has_reported: false,
        };
        self.sessions.insert(id, live);
        self.note_of(id, || "is connected".to_owned());
        let welcome = v1::Welcome {
            report_full_state: !has_ours,
            andon,
            ..v1::Welcome::default()
        };
        self.send_agent(id, session, ToAgent::Welcome(welcome));
        self.tell(id)?;
        self.nudge();
        Ok(())
    }

    /// Sends the desired state if it is news, and the keys that the agent needs and has not.
    pub(super) fn tell(&mut self, id: DeploymentId) -> Result<(), Error> {
        let epoch = self.epoch;
        let Some(number) = self.sessions.get(&id).map(|live| live.number) else {
            return Ok(());
        };
        let (andon, desired) = self
            .scratch
            .run(|tx| Ok::<_, Error>((tx.andon()?.is_some(), desired(tx, id, epoch)?)))?;
        let Some(desired) = desired.filter(|_| !andon) else {
            return Ok(());
        };
        if !desired.deployment.standing.may_have_keys() {
            return Ok(());
        }
        let Some(live) = self.sessions.get_mut(&id) else {
            return Ok(());
        };
        let is_news = live.told.is_news(&desired.document);
        if is_news {
            live.told.sent(mark(&desired.document));
        }
        let keys = live.told.lacks(desired.keys);
        if is_news {
            self.note_document(id, &desired.document);
            #[cfg(test)]
            self.checker.document(id, &desired.document, andon);
            self.send_agent(id, number, ToAgent::Desired(desired.document));
        }
        for key in keys {
            self.send_key(id, number, key)?;
        }
        Ok(())
    }

    fn send_key(
        &mut self,
        id: DeploymentId,
        session: u64,
        key: (KeyName, KeyVersion),
    ) -> Result<(), Error> {
        let may_be_had = self.scratch.run(|tx| {
            let versions = tx.key_versions(&key.0)?;
            let mut known = versions.iter().filter(|row| row.version == key.1);
            Ok::<_, Error>(known.any(|row| row.state.may_be_assigned()))
        })?;
        if !may_be_had {
            return Ok(());
        }
        let sealed = v1::SealedKey {
            key: key.0.to_string(),
            version: key.1.0,
            ..v1::SealedKey::default()
        };
        #[cfg(test)]
        self.checker
            .key(id, &key, self.look(|tx| Ok(tx.andon()?.is_some()))?);
        if let Some(live) = self.sessions.get_mut(&id) {
            live.told.has_key(key);
        }
        self.send_agent(id, session, ToAgent::SealedKey(sealed));
        Ok(())
    }

    fn on_key_request(
        &mut self,
        id: DeploymentId,
        session: u64,
        request: v1::KeyRequest,
    ) -> Result<(), Error> {
        let name: KeyName = Invalid::parse("key_request.key", &request.key)?;
        let key = (name, KeyVersion(request.version));
        let epoch = self.epoch;
        let desired = self.scratch.run(|tx| desired(tx, id, epoch))?;
        if desired.is_some_and(|desired| desired.keys.contains_key(&key)) {
            if let Some(live) = self.sessions.get_mut(&id) {
                live.told.asks(key);
            }
            return self.tell(id);
        }
        let refused = v1::KeyRefused {
            key: request.key,
            version: request.version,
            reason: "the desired state of this deployment does not name it".to_owned(),
        };
        self.send_agent(id, session, ToAgent::KeyRefused(refused));
        Ok(())
    }

    fn on_answer(&mut self, id: DeploymentId, answer: &v1::DesiredAnswer) -> Result<(), Error> {
        let generation: Generation = answer.generation.unwrap_or_default().into();
        if !answer.rejected.is_empty() {
            if let Some(live) = self.sessions.get_mut(&id) {
                live.told.refused((generation, answer.digest.clone()));
            }
            self.note_of(id, || {
                format!("refuses generation {generation}: {}", answer.rejected)
            });
        }
        let now = self.control_now();
        let rejected = &answer.rejected;
        let Some(from) = self.reporter(id) else {
            return Ok(());
        };
        self.scratch
            .run(|tx| answer_of(tx, id, from.enrolment, generation, rejected, now))?;
        match rejected.is_empty() {
            true => self.nudge_later(),
            false => self.nudge(),
        }
        Ok(())
    }

    fn store_report(
        &mut self,
        id: DeploymentId,
        bindings: Vec<v1::BindingStatus>,
    ) -> Result<(), Error> {
        for status in &bindings {
            self.note_status(id, status);
        }
        let is_progress = bindings.iter().all(is_progress);
        let reports = bindings.into_iter().map(|status| Report::read(id, status));
        let reports = reports.collect::<Result<Vec<_>, _>>()?;
        let (Some(from), now) = (self.reporter(id), self.control_now()) else {
            return Ok(());
        };
        self.scratch
            .run(|tx| store(tx, &from, "model", None, &reports, now))?;
        match is_progress {
            true => self.nudge_later(),
            false => self.nudge(),
        }
        Ok(())
    }

    fn note_status(&mut self, id: DeploymentId, status: &v1::BindingStatus) {
        let Ok(state) = BindingState::try_from(status.state()) else {
            return;
        };
        self.note_of(id, || {
            let place = status.binding.as_ref();
            let place = place.map(|place| format!("{}/{}", place.space, place.connector));
            let tried = status
                .attempted
                .map(|it| format!(" r{} v{}", it.revision, it.key_version));
            let place = place.unwrap_or_default();
            match status.removed {
                true => format!("{place} is gone"),
                false => format!(
                    "{place}{} is {state}{}",
                    tried.unwrap_or_default(),
                    why(status)
                ),
            }
        });
    }

    fn note_document(&mut self, id: DeploymentId, document: &v1::Desired) {
        self.note_of(id, || {
            let generation: Generation = document.generation.unwrap_or_default().into();
            let wishes = document.bindings.iter().map(|wish| {
                let place = wish.binding.as_ref();
                let place = place.map(|place| format!("{}/{}", place.space, place.connector));
                let place = place.unwrap_or_default();
                match wish.assignment.filter(|_| !wish.remove) {
                    Some(it) => format!(
                        "{place} r{} v{} try {}",
                        it.revision, it.key_version, wish.attempt
                    ),
                    None => format!("{place} removed"),
                }
            });
            let wishes: Vec<String> = wishes.collect();
            format!("is told generation {generation}: {}", wishes.join(", "))
        });
    }
}

/// True where the agent is at work, and nothing has come of it yet.
fn is_progress(status: &v1::BindingStatus) -> bool {
    let at_work = [v1::BindingState::Received, v1::BindingState::Applied];
    !status.removed && at_work.contains(&status.state())
}

fn why(status: &v1::BindingStatus) -> String {
    let class = status.failure_class();
    if class == v1::FailureClass::Unspecified {
        return String::new();
    }
    let name = class.as_str_name();
    format!(" ({})", name.trim_start_matches("FAILURE_CLASS_"))
}

/// What the agent of a deployment shall have; `None` where it was never told anything, or is gone.
fn desired(tx: &Tx<'_>, id: DeploymentId, epoch: u64) -> Result<Option<DesiredState>, Error> {
    let row = tx.deployment(id)?;
    let is_told = row.is_some_and(|row| row.generation != Generation::default());
    is_told
        .then(|| settle(tx, id, PROBE_INTERVAL_SECS, epoch))
        .transpose()
}
