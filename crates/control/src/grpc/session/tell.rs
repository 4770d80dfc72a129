//! What control tells an agent: its desired state and the keys that this names, and nothing while it is not trusted
//! or andon is on.

use std::time::{Duration, Instant};

use keyfleet_core::audit::{Entry, Outcome};
use keyfleet_core::id::{KeyName, KeyVersion};
use keyfleet_proto::v1;
use keyfleet_store::{Deployment, Tx};
use v1::control_message::Message as ToAgent;

use super::{Session, limits, must_be_its_agent, place, wire};
use crate::app::KEYFLEET;
use crate::app::desired::DesiredState;
use crate::app::standing::sentence;
use crate::clock;
use crate::error::Error;
use crate::sessions::told::mark;

/// An agent that was told to renew and did not is told again after this long.
const RENEW_AGAIN: Duration = Duration::from_secs(60);

impl Session {
    /// Something about the deployment changed: it is looked at anew.
    pub(super) async fn on_changed(&mut self) -> Result<(), Error> {
        let (desired, standings) = self.look().await?;
        self.tell(desired, standings).await
    }

    /// What the agent shall have now, and what the seat said before that was read.
    async fn look(&self) -> Result<(DesiredState, u64), Error> {
        let standings = self.seat.standings();
        let desired = self.app.desired(self.reporter.deployment).await?;
        must_be_its_agent(&desired.deployment, &self.reporter)?;
        Ok((desired, standings))
    }

    /// Sends the desired state if it is news, and the keys that it needs and the agent has not. `standings` is what
    /// the seat said before the desired state was read.
    pub(super) async fn tell(
        &mut self,
        desired: DesiredState,
        standings: u64,
    ) -> Result<(), Error> {
        self.say_renew(&desired.deployment).await?;
        self.waits_for_keys = false;
        if !desired.deployment.standing.may_have_keys() {
            self.was_cut_off = true;
            return Ok(());
        }
        if std::mem::take(&mut self.was_cut_off) {
            // What it said meanwhile was not believed; now it is asked again.
            self.answer_report(true).await?;
        }
        if !self.may_send(standings) {
            return Ok(());
        }
        let document = desired.document;
        if self.told.is_news(&document) {
            let mark = mark(&document);
            let place = place(&self.outbox).await?;
            // The queue may have taken its time.
            if !self.may_send(standings) {
                return Ok(());
            }
            place.send(Ok(wire(ToAgent::Desired(document))));
            self.told.sent(mark);
        }
        for key in self.told.lacks(desired.keys) {
            self.waits_for_keys |= !self.send_key(key, standings).await?;
        }
        Ok(())
    }

    /// False where nothing may be sent: andon is on, the certificate has ended, or the standing of the deployment
    /// changed since it was read. Who changed it also woke this session.
    fn may_send(&self, standings: u64) -> bool {
        self.andon.borrow().is_none()
            && self.seat.standings() == standings
            && clock::now() < self.reporter.certificate_not_after
            && !self.seat.end.is_cancelled()
    }

    /// True where the key was sent or may not be; false where Vault does not give it now.
    async fn send_key(
        &mut self,
        (name, version): (KeyName, KeyVersion),
        standings: u64,
    ) -> Result<bool, Error> {
        let key = match self.app.key_for_agent(&name, version).await {
            Ok(key) => key,
            Err(err) => {
                tracing::warn!(key.name = %name, key.version = version.0, error = %err, "a key cannot be sent");
                return Ok(false);
            }
        };
        // A place in the queue first: sealing counts, and what is sealed must be written in that order.
        let place = place(&self.outbox).await?;
        // Vault and the queue may have taken their time.
        if !self.may_send(standings) {
            return Ok(true);
        }
        let ciphertext = self
            .sealer
            .seal(&name, version, &key.value)
            .map_err(|err| Error::internal(&err))?;
        let sealed = v1::SealedKey {
            key: name.to_string(),
            version: version.0,
            ciphertext: ciphertext.into(),
            fingerprint: key.fingerprint,
        };
        place.send(Ok(wire(ToAgent::SealedKey(sealed))));
        self.told.has_key((name, version));
        Ok(true)
    }

    pub(super) async fn on_key_request(
        &mut self,
        name: KeyName,
        version: KeyVersion,
    ) -> Result<(), Error> {
        let (desired, standings) = self.look().await?;
        let key = (name, version);
        let is_named = desired.keys.contains_key(&key);
        if is_named {
            self.told.asks(key.clone());
        }
        let reason = match sentence(&desired.deployment) {
            Some(reason) => reason,
            None if is_named => return self.tell(desired, standings).await,
            None => "the desired state of this deployment does not name it".to_owned(),
        };
        self.note_refusal(&desired.deployment, &key, &reason)
            .await?;
        let refused = v1::KeyRefused {
            key: key.0.to_string(),
            version: key.1.0,
            reason,
        };
        self.send(ToAgent::KeyRefused(refused)).await
    }

    /// Writes a refusal into the audit log: once for each key version, and no more than a log can bear.
    async fn note_refusal(
        &mut self,
        row: &Deployment,
        key: &(KeyName, KeyVersion),
        reason: &str,
    ) -> Result<(), Error> {
        let is_news = self.refused.len() < limits::REFUSALS_MAX && !self.refused.contains(key);
        if !is_news || !self.app.sessions.may_note_refusal(row.id) {
            return Ok(());
        }
        self.refused.insert(key.clone());
        let (name, version) = key;
        tracing::warn!(deployment.id = %row.id, key.name = %name, key.version = version.0, reason, "key refused");
        let entry = Entry {
            number: 0,
            at: clock::now(),
            principal: KEYFLEET.to_owned(),
            token: String::new(),
            action: "key.refuse".to_owned(),
            target: format!("deployment {}", row.name),
            outcome: Outcome::Refused,
            reason: reason.to_owned(),
            detail: format!("its agent asked for key {name} {version}"),
        };
        let write = move |tx: &Tx<'_>| Ok::<_, Error>(tx.append_audit(entry)?);
        self.app.store.write(write).await
    }

    /// Has the agent renew where the CA asks for it; once a session.
    async fn say_renew(&mut self, row: &Deployment) -> Result<(), Error> {
        if self.renewal_told.is_some() || !self.app.renews_for_ca(row) {
            return Ok(());
        }
        // A certificate of the next CA that nobody has spoken under yet is seen with the next message.
        let is_fresh = self.unseen == Some(row.certificate_given);
        let cas = self.app.authority.cas();
        let has_next = cas
            .next
            .as_ref()
            .is_some_and(|next| next.pin == row.certificate_ca);
        if is_fresh && has_next {
            return Ok(());
        }
        self.renew_now().await
    }

    /// An agent that was told to renew, and is still here under the same certificate, is told again.
    pub(super) async fn say_renew_again(&mut self) -> Result<(), Error> {
        let is_due = self
            .renewal_told
            .is_some_and(|told| told.elapsed() >= RENEW_AGAIN);
        if !is_due || self.app.authority.cas().next.is_none() {
            return Ok(());
        }
        self.renew_now().await
    }

    async fn renew_now(&mut self) -> Result<(), Error> {
        self.renewal_told = Some(Instant::now());
        let reason = "the CA is being replaced".to_owned();
        self.send(ToAgent::RenewNow(v1::RenewNow { reason })).await
    }
}
