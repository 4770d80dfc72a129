//! A session that is up: what comes, what goes, and the renewal beside it.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use keyfleet_core::id::{KeyName, KeyVersion};
use keyfleet_proto::v1::agent_message::Message as Ours;
use keyfleet_proto::v1::control_message::Message as Theirs;
use keyfleet_proto::{Invalid, v1};
use keyfleet_seal::Opener;
use keyfleet_telemetry::error_chain;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;

use super::{Connected, End, Error, Outbound, Session, away, ended};
use crate::identity::Identity;
use crate::reconcile::Command;
use crate::renew;
use crate::said::tidy;

/// How long the last statuses may take to leave when the agent stops.
const FLUSH: Duration = Duration::from_secs(2);
/// A heartbeat interval that control may set.
const HEARTBEAT_SECS: std::ops::RangeInclusive<u32> = 1..=3600;
/// Fingerprints are short.
const FINGERPRINT_CHARS_MAX: usize = 128;

type Renewing = Pin<Box<dyn Future<Output = Result<Identity, renew::Error>> + Send>>;

/// One session.
pub(super) struct Live {
    channel: Channel,
    inbound: Streaming<v1::ControlMessage>,
    outbound: Outbound,
    opener: Opener,
    heartbeat: Duration,
    renewing: Option<Renewing>,
}

impl Live {
    pub(super) fn new(connected: Connected, opener: Opener) -> Self {
        let secs = connected
            .welcome
            .heartbeat_interval_secs
            .clamp(*HEARTBEAT_SECS.start(), *HEARTBEAT_SECS.end());
        Self {
            channel: connected.channel,
            inbound: connected.inbound,
            outbound: connected.outbound,
            opener,
            heartbeat: Duration::from_secs(secs.into()),
            renewing: None,
        }
    }
}

impl Session {
    /// The session itself.
    pub(super) async fn carry(
        &mut self,
        mut live: Live,
        stop: &CancellationToken,
    ) -> Result<End, Error> {
        let mut heartbeat = interval(live.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        loop {
            self.send_what_waits(&live.outbound);
            let room = live.outbound.capacity() > 0;
            let renew_at = self.schedule.at(&self.identity);
            // Every arm is cancel safe: tonic keeps a half-read message, the outbox keeps what was not sent, a
            // renewal stays where it is.
            tokio::select! {
                () = stop.cancelled() => break,
                message = live.inbound.message() => match message {
                    Ok(Some(message)) => if let Some(end) = self.on_message(message, &mut live.opener).await? {
                        return Ok(end);
                    },
                    Ok(None) => return Err(Error::Ended { reason: "it closed the stream".to_owned() }),
                    Err(status) => return Err(ended(&status)),
                },
                () = self.handle.outbox.filled(), if room => {}
                permit = live.outbound.reserve(), if !room => drop(permit.map_err(|_| Error::Ended { reason: "the stream broke".to_owned() })?),
                _ = heartbeat.tick(), if room => {
                    let message = Some(Ours::Heartbeat(v1::Heartbeat {}));
                    // Without room the stream is busy, which is a sign of life too.
                    let _ = live.outbound.try_send(v1::AgentMessage { message });
                }
                () = sleep_until(renew_at), if live.renewing.is_none() => live.renewing = self.begin_renewal(&live.channel),
                renewed = end_of(&mut live.renewing) => {
                    live.renewing = None;
                    match renewed {
                        Ok(candidate) => {
                            self.candidate = Some(candidate);
                            return Ok(End::Renewed);
                        }
                        Err(error) => self.put_renewal_off(&error),
                    }
                }
            }
        }
        self.flush(live).await
    }

    /// Whatever waits is sent before anything else is waited for, as far as the queue has room.
    fn send_what_waits(&self, outbound: &Outbound) {
        while let Ok(permit) = outbound.try_reserve() {
            match self.handle.outbox.next() {
                Some(message) => permit.send(v1::AgentMessage {
                    message: Some(message),
                }),
                None => break,
            }
        }
    }

    /// The call goes over the session's own connection. `None` where it is not due yet.
    fn begin_renewal(&mut self, channel: &Channel) -> Option<Renewing> {
        if !self.schedule.begin(&self.identity) {
            return None;
        }
        match self.identity.again() {
            Ok(identity) => Some(Box::pin(renew::renew(
                channel.clone(),
                identity,
                self.state_dir.clone(),
                self.control.timeout,
            ))),
            Err(error) => {
                self.put_renewal_off(&error.into());
                None
            }
        }
    }

    /// The present certificate is still good, so even a refusal only means to ask again later.
    fn put_renewal_off(&mut self, error: &renew::Error) {
        tracing::warn!(reason = %error_chain(error), ends = %self.identity.not_after, "could not renew the certificate; trying again");
        self.schedule.later();
    }

    async fn on_message(
        &mut self,
        message: v1::ControlMessage,
        opener: &mut Opener,
    ) -> Result<Option<End>, Error> {
        match message.message {
            Some(Theirs::Desired(desired)) => self.tell(Command::Desired(desired)).await?,
            Some(Theirs::SealedKey(sealed)) => self.tell(open(&sealed, opener)?).await?,
            Some(Theirs::KeyRefused(refused)) => {
                let id = key_id(&refused.key, refused.version)?;
                self.tell(Command::KeyRefused {
                    id,
                    reason: tidy(&refused.reason),
                })
                .await?;
            }
            Some(Theirs::StatusAnswer(answer)) => {
                self.handle.outbox.acknowledge(answer.sequence);
                if answer.report_full_state {
                    self.handle.outbox.report_everything();
                }
            }
            Some(Theirs::Andon(andon)) => self.tell(Command::Andon(andon.on)).await?,
            Some(Theirs::GoAway(go_away)) => {
                return Ok(Some(End::GoAway(away(&go_away))));
            }
            Some(Theirs::RenewNow(now)) => {
                tracing::info!(reason = %tidy(&now.reason), "the control service asks for a renewal of the certificate");
                self.schedule.ask();
            }
            Some(Theirs::ProbeGrant(grant)) => self.tell(Command::ProbeGrant(grant.count)).await?,
            Some(Theirs::CheckNow(_)) => self.tell(Command::CheckNow).await?,
            Some(Theirs::ProveNow(now)) => {
                let age = Duration::from_secs(now.older_than_secs.into());
                self.tell(Command::ProveNow(age)).await?;
            }
            // A Welcome comes once; what this version does not know is for newer agents.
            Some(Theirs::Welcome(_)) | None => {}
        }
        Ok(None)
    }

    /// The agent stops: the last statuses leave, control has a moment to store them, the stream closes.
    async fn flush(&self, live: Live) -> Result<End, Error> {
        let Live {
            mut inbound,
            outbound,
            ..
        } = live;
        let flushed = timeout(FLUSH, async {
            while let Some(message) = self.handle.outbox.next() {
                if outbound
                    .send(v1::AgentMessage {
                        message: Some(message),
                    })
                    .await
                    .is_err()
                {
                    return;
                }
            }
            while !self.handle.outbox.is_settled() {
                match inbound.message().await {
                    Ok(Some(v1::ControlMessage {
                        message: Some(Theirs::StatusAnswer(answer)),
                    })) => {
                        self.handle.outbox.acknowledge(answer.sequence);
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return,
                }
            }
        });
        if flushed.await.is_err() {
            tracing::info!(
                "the control service did not confirm the last statuses; they are sent again after the next start"
            );
        }
        drop(outbound);
        Ok(End::Stopped)
    }
}

/// The end of a renewal that is under way; never, where there is none.
async fn end_of(renewing: &mut Option<Renewing>) -> Result<Identity, renew::Error> {
    match renewing {
        Some(renewing) => renewing.await,
        None => pending().await,
    }
}

fn open(sealed: &v1::SealedKey, opener: &mut Opener) -> Result<Command, Error> {
    let id = key_id(&sealed.key, sealed.version)?;
    let value = opener
        .open(&id.0, id.1, &sealed.ciphertext)
        .map_err(Error::Sealing)?;
    Ok(Command::Key {
        id,
        value,
        fingerprint: tidy(&sealed.fingerprint)
            .chars()
            .take(FINGERPRINT_CHARS_MAX)
            .collect(),
    })
}

fn key_id(key: &str, version: u64) -> Result<(KeyName, KeyVersion), Error> {
    let key = Invalid::parse("key", key).map_err(Error::Message)?;
    Ok((key, KeyVersion(version)))
}
