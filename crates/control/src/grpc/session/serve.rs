//! A session at work: what comes from the agent, from the rest of the service, and with time.

use std::pin::pin;
use std::time::{Duration, Instant};

use keyfleet_core::id::{Generation, KeyName, KeyVersion};
use keyfleet_proto::{Invalid, timestamp, v1};
use keyfleet_store::{Andon, Event, EventScope, Tx};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use v1::agent_message::Message as FromAgent;
use v1::control_message::Message as ToAgent;

use super::{Outbox, Session, Turn, limits, place, wire};
use crate::app::KEYFLEET;
use crate::clock;
use crate::error::Error;
use crate::sessions::Ending;

/// Agents of a control service that goes down come back within this time, each at its own moment.
const RECONNECT_SPREAD_SECS: u32 = 5;

/// How soon a key that Vault did not give is asked for again.
const KEY_RETRY: Duration = Duration::from_secs(2);

impl Session {
    pub(super) async fn serve(
        mut self,
        mut inbox: Streaming<v1::AgentMessage>,
    ) -> Result<(), Error> {
        let end = self.seat.end.clone();
        let ended = {
            // Pinned here, so that a session has room for each once.
            let andon = pin!(say_andon(self.outbox.clone(), self.andon.clone()));
            let work = pin!(self.work(&mut inbox));
            attend(&end, andon, work).await
        };
        match ended {
            Some(ended) => ended,
            None => self.farewell(),
        }
    }

    async fn work(&mut self, inbox: &mut Streaming<v1::AgentMessage>) -> Result<(), Error> {
        let silence_max = self.app.config.agents.heartbeat * limits::HEARTBEATS_MISSED_MAX;
        let mut heard_at = tokio::time::Instant::now();
        let certificate_left = self
            .reporter
            .certificate_not_after
            .duration_since(clock::now());
        let ends_at = heard_at + Duration::try_from(certificate_left).unwrap_or_default();
        let mut retry_at = heard_at;
        loop {
            if !self.waits_for_keys {
                retry_at = tokio::time::Instant::now() + KEY_RETRY;
            }
            tokio::select! {
                // In this order: what stops goes before what goes on; and after a long wait for Vault the heartbeats
                // that came meanwhile are read before anybody concludes that there were none.
                biased;
                // Cancel-safe: a change stays until it is seen.
                changed = self.andon.changed() => match changed {
                    Ok(()) if self.andon.borrow_and_update().is_none() => self.on_changed().await?,
                    Ok(()) => {}
                    Err(_) => return Ok(()),
                },
                // Cancel-safe: the permit stays until it is taken.
                () = self.seat.changed.notified() => self.on_changed().await?,
                // Cancel-safe: tonic keeps what it has read of a message.
                message = inbox.message() => match message {
                    Ok(Some(message)) => {
                        heard_at = tokio::time::Instant::now();
                        self.on_message(message).await?;
                    }
                    Ok(None) => return Ok(()),
                    // A broken connection is the usual end of a session.
                    Err(_) => return Ok(()),
                },
                // Cancel-safe: the permit stays until it is taken.
                () = self.seat.looks.wanted.notified() => self.say_check_now().await?,
                // Cancel-safe: the permit stays until it is taken.
                () = self.seat.proofs.wanted.notified() => self.say_prove_now().await?,
                // Cancel-safe: the turn is kept outside.
                count = turn(&mut self.turn) => self.on_turn(count).await?,
                // Cancel-safe: the moment is kept outside.
                () = tokio::time::sleep_until(heard_at + silence_max) => {
                    let text = format!("no heartbeat for {} s", silence_max.as_secs());
                    return Err(Error::Unavailable(text));
                }
                // Cancel-safe: the moment is kept outside.
                () = tokio::time::sleep_until(ends_at) => {
                    let text = "the client certificate has ended with this session".to_owned();
                    return Err(Error::Unauthenticated(text));
                }
                // Cancel-safe: the moment is kept outside.
                () = tokio::time::sleep_until(retry_at), if self.waits_for_keys => {
                    self.on_changed().await?;
                    retry_at = tokio::time::Instant::now() + KEY_RETRY;
                }
            }
        }
    }

    pub(super) async fn on_message(&mut self, message: v1::AgentMessage) -> Result<(), Error> {
        if !self.messages.take(Instant::now()) {
            return Err(self.flooded().await?);
        }
        self.note_certificate().await?;
        match message.message {
            Some(FromAgent::StatusReport(report)) => self.on_report(report).await,
            Some(FromAgent::DesiredAnswer(answer)) => {
                if !answer.rejected.is_empty() {
                    let generation = answer.generation.map(Generation::from).unwrap_or_default();
                    self.told.refused((generation, answer.digest.clone()));
                }
                self.app.answered(&self.reporter, answer).await
            }
            Some(FromAgent::KeyRequest(request)) => {
                let name: KeyName = Invalid::parse("key_request.key", &request.key)?;
                self.on_key_request(name, KeyVersion(request.version)).await
            }
            Some(FromAgent::Hello(_)) => {
                Err(Invalid::new("message", "must be Hello only once").into())
            }
            Some(FromAgent::ProbeRequest(request)) => {
                self.on_probe_request(request.count);
                Ok(())
            }
            Some(FromAgent::Heartbeat(_)) => self.say_renew_again().await,
            // A message of a newer agent is none of our business.
            None => Ok(()),
        }
    }

    /// The agent gets in line; once, whatever it says while it waits.
    pub(super) fn on_probe_request(&mut self, count: u32) {
        if self.turn.is_some() || count == 0 {
            return;
        }
        let pace = self.app.sessions.pace.clone();
        self.turn = Some(Box::pin(pace.turn(self.reporter.deployment, count)));
    }

    /// It may make so many live calls now, and asks again for more.
    pub(super) async fn on_turn(&mut self, count: u32) -> Result<(), Error> {
        self.turn = None;
        let grant = v1::ProbeGrant { count };
        self.send(ToAgent::ProbeGrant(grant)).await
    }

    pub(super) async fn say_check_now(&mut self) -> Result<(), Error> {
        self.send(ToAgent::CheckNow(v1::CheckNow {})).await
    }

    async fn say_prove_now(&mut self) -> Result<(), Error> {
        let older_than_secs = self.seat.proofs.older_than_secs();
        self.send(ToAgent::ProveNow(v1::ProveNow { older_than_secs }))
            .await
    }

    pub(super) async fn on_report(&mut self, report: v1::StatusReport) -> Result<(), Error> {
        limits::check_report(&report)?;
        let sequence = report.sequence;
        let facts = report.facts.as_ref();
        let looked_at = timestamp("facts.observed_at", facts.and_then(|it| it.observed_at))?;
        self.app
            .report(&self.reporter, report, &self.agent_version)
            .await?;
        self.sequence = sequence;
        if let Some(at) = looked_at {
            self.seat.found(at);
        }
        self.answer_report(false).await
    }

    /// Up to the last report everything is stored.
    pub(super) async fn answer_report(&mut self, report_full_state: bool) -> Result<(), Error> {
        let answer = v1::StatusAnswer {
            sequence: self.sequence,
            report_full_state,
        };
        self.send(ToAgent::StatusAnswer(answer)).await
    }

    /// Whoever speaks behind the Welcome has heard it: from here on an older certificate is somebody else's.
    async fn note_certificate(&mut self) -> Result<(), Error> {
        let Some(number) = self.unseen.take() else {
            return Ok(());
        };
        let (id, enrolment) = (self.reporter.deployment, self.reporter.enrolment);
        let write = move |tx: &Tx<'_>| {
            let row = tx.deployment(id)?.filter(|row| row.enrolment == enrolment);
            if row.is_some_and(|row| row.certificate_seen < number) {
                tx.see_certificate(id, number)?;
            }
            Ok::<_, Error>(())
        };
        self.app.store.write(write).await
    }

    /// Ends the session; the history says so, once.
    async fn flooded(&self) -> Result<Error, Error> {
        let (id, text) = (self.reporter.deployment, limits::flood());
        let event = Event {
            at: clock::now(),
            actor: KEYFLEET.to_owned(),
            text: text.clone(),
        };
        let write = move |tx: &Tx<'_>| {
            let last = tx.events(EventScope::Deployment(id), 1)?.pop();
            if last.is_none_or(|last| last.text != event.text) {
                tx.add_event(EventScope::Deployment(id), &event)?;
            }
            Ok::<_, Error>(())
        };
        self.app.store.write(write).await?;
        Ok(Error::Precondition(text))
    }

    /// Control is going down, a newer session took the place, or the agent is not trusted any more.
    fn farewell(&self) -> Result<(), Error> {
        let (reconnect_after_secs, reason) = match self.seat.ending() {
            None => (RECONNECT_SPREAD_SECS, "the control service is going down"),
            Some(Ending::TakenOver) => (0, "a newer session took over"),
            Some(Ending::Refused(why)) => return Err(Error::Forbidden(why)),
        };
        let go_away = v1::GoAway {
            reconnect_after_secs,
            reason: reason.to_owned(),
        };
        // Who has not taken what came before is not waited for.
        let sent = self.outbox.try_send(Ok(wire(ToAgent::GoAway(go_away))));
        sent.map_err(|_| Error::Unavailable("the agent takes nothing".to_owned()))
    }
}

/// The agent's turn, where it waits for one.
pub(super) async fn turn(turn: &mut Option<Turn>) -> u32 {
    match turn {
        Some(turn) => turn.await,
        None => std::future::pending().await,
    }
}

/// Tells an agent that the fleet stops or goes on, whatever else its session waits for.
pub(super) async fn say_andon(
    outbox: Outbox,
    mut andon: watch::Receiver<Option<Andon>>,
) -> Result<(), Error> {
    while andon.changed().await.is_ok() {
        let on = andon.borrow_and_update().is_some();
        let place = place(&outbox).await?;
        place.send(Ok(wire(ToAgent::Andon(v1::Andon { on }))));
    }
    Ok(())
}

/// Works until the work or the session ends; the agent hears of andon meanwhile, even where the work waits for Vault or
/// a provider. `None` = somebody ended the session.
pub(super) async fn attend(
    end: &CancellationToken,
    andon: impl Future<Output = Result<(), Error>>,
    work: impl Future<Output = Result<(), Error>>,
) -> Option<Result<(), Error>> {
    tokio::select! {
        biased;
        // Cancel-safe: the token keeps its state.
        () = end.cancelled() => None,
        // Dropped at the end only.
        ended = andon => Some(ended),
        // Dropped in the middle at the end only: a report that was not answered comes again, and nothing is sealed any
        // more.
        ended = work => Some(ended),
    }
}
