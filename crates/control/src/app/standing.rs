//! Whether a deployment's agent is trusted: suspend, resume, revoke, replace, remove; and what is done about two
//! agents with one identity.
//!
//! Taking trust away never closes a Holding: what an agent was sent it may still have.

mod words;

use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{DeploymentId, DeploymentName};
use keyfleet_core::standing::Standing;
use keyfleet_core::token::Role;
use keyfleet_proto::{Invalid, v1};
use keyfleet_store::{Deployment, Event, EventScope, Token, TokenUse, Tx};
use secrecy::{ExposeSecret as _, SecretString};

use super::audit::{Act, record, record_own};
use super::delete::must_say_why;
use super::enrol::note;
use super::tokens::{self, hash};
use super::{Actor, App, view};
use crate::clock;
use crate::error::Error;
use words::held;
pub(crate) use words::{refusal, sentence};

/// The lowest number of a certificate: from here on every certificate of the enrolment may open a session.
const FIRST_CERTIFICATE: u64 = 1;

impl App {
    /// Suspends, resumes or revokes a deployment's agent, or lets it renew an ended certificate. Saying it twice
    /// changes nothing.
    pub(crate) async fn change_deployment(
        &self,
        actor: &Actor,
        request: v1::ChangeDeploymentRequest,
    ) -> Result<v1::ChangeDeploymentResponse, Error> {
        let word = Word::new(actor, &request.name, &request.reason, clock::now())?;
        let (verb, name) = (request.verb(), request.name);
        let write = move |tx: &Tx<'_>| {
            let row = word.find(tx)?;
            let is_new = word.change(tx, &row, verb)?;
            // As it is now.
            let row = word.find(tx)?;
            let held = held(tx, row.id)?;
            Ok::<_, Error>((row, is_new, held))
        };
        let (row, is_new, held) = self.store.write(write).await?;
        if is_new {
            self.standing_changed(&row, verb).await?;
        }
        let look = move |sight: &view::Sight<'_>| view::deployment(sight, &name);
        let deployment = self.view_as(actor, look).await?.deployment;
        Ok(v1::ChangeDeploymentResponse { deployment, held })
    }

    /// Lets the sessions know, and whoever counts on them.
    async fn standing_changed(
        &self,
        row: &Deployment,
        verb: v1::DeploymentVerb,
    ) -> Result<(), Error> {
        match verb {
            v1::DeploymentVerb::Revoke => self.sessions.end(row.id, &refusal(row)),
            v1::DeploymentVerb::Resume => {
                self.sessions.forget_boots(row.id);
                self.returned(row.id).await?;
                self.sessions.standing_changed(row.id);
            }
            v1::DeploymentVerb::Suspend
            | v1::DeploymentVerb::AllowRenewal
            | v1::DeploymentVerb::Unspecified => self.sessions.standing_changed(row.id),
        }
        self.changed();
        Ok(())
    }

    /// Voids the identity of a deployment's agent and gives a join token for a new agent of the same deployment.
    pub(crate) async fn replace_deployment(
        &self,
        actor: &Actor,
        request: v1::ReplaceDeploymentRequest,
    ) -> Result<Replaced, Error> {
        let word = Word::new(actor, &request.name, &request.reason, clock::now())?;
        let ttl = (request.ttl_secs > 0).then(|| Duration::from_secs(u64::from(request.ttl_secs)));
        let (pin, principal) = (self.authority.pin(), actor.principal.clone());
        let write = move |tx: &Tx<'_>| {
            let row = word.find(tx)?;
            let mut new = tokens::join(Labels::new(), 1, &principal, ttl);
            if let TokenUse::Join { deployment, .. } = &mut new.usage {
                *deployment = Some(row.id);
            }
            let (token, value) = tokens::make(new, &principal, &pin, word.now)?;
            tx.revoke_tokens_of(row.id)?;
            tx.insert_token(&token, &hash(value.expose_secret()))?;
            let reason = format!("replaced by {}: {}", word.actor.principal, word.reason);
            word.distrust(tx, &row, Standing::Revoked, &reason)?;
            let detail = format!("join token {} is for its new agent", token.id);
            word.record(tx, "deployment.replace", detail)?;
            let held = held(tx, row.id)?;
            Ok::<_, Error>((row, reason, token, value, held))
        };
        let (row, why, token, value, held) = self.store.write(write).await?;
        self.sessions.end(row.id, &why);
        self.changed();
        Ok(Replaced {
            token,
            name: row.name,
            value,
            held,
        })
    }

    /// Forgets a deployment. The connectors in its Kibana stay as they are.
    pub(crate) async fn remove_deployment(
        &self,
        actor: &Actor,
        request: v1::RemoveDeploymentRequest,
    ) -> Result<v1::RemoveDeploymentResponse, Error> {
        let word = Word::new(actor, &request.name, &request.reason, clock::now())?;
        let write = move |tx: &Tx<'_>| word.remove(tx, request.yes);
        let gone = self.store.write(write).await?;
        self.sessions.end(gone.id, &gone.why);
        self.sessions.forget_boots(gone.id);
        self.changed();
        Ok(v1::RemoveDeploymentResponse {
            held: gone.held,
            bindings: u32::try_from(gone.bindings).unwrap_or(u32::MAX),
        })
    }

    /// Two agents use one identity: neither gets keys or changes from here on, until an operator decides.
    pub(crate) async fn suspect_clone(&self, id: DeploymentId, why: String) -> Result<(), Error> {
        let (app, now) = (self.clone(), clock::now());
        let write = move |tx: &Tx<'_>| {
            let Some(row) = tx.deployment(id)? else {
                return Ok::<_, Error>(false);
            };
            if matches!(row.standing, Standing::Cloned | Standing::Revoked) {
                return Ok(false);
            }
            let reason = format!("two agents use its identity: {why}");
            tx.set_standing(id, Standing::Cloned, &reason, now)?;
            tx.void_evidence_of(id)?;
            note(tx, id, format!("CLONED: {reason}"), now)?;
            let target = format!("deployment {}", row.name);
            record_own(tx, "deployment.clone", target, reason, now)?;
            tracing::warn!(deployment.id = %id, deployment.name = %row.name, why, "two agents use one identity: keys are held back from both");
            Ok(true)
        };
        let suspect = async move {
            if app.store.write(write).await? {
                app.sessions.standing_changed(id);
                app.changed();
            }
            Ok(())
        };
        self.to_its_end(suspect).await
    }

    /// Somebody uses a certificate after its successor opened a session; what to answer.
    pub(crate) async fn superseded(&self, id: DeploymentId, number: u64) -> Result<Error, Error> {
        let why = format!("certificate {number} was used after a later one had opened a session");
        self.suspect_clone(id, why).await?;
        let text = "a later certificate of this agent is in use: an operator must decide which agent is the right one";
        // Not final: the operator may decide for this one.
        Ok(Error::Precondition(text.to_owned()))
    }
}

/// What lets a new agent take a deployment's place.
pub(crate) struct Replaced {
    pub(crate) token: Token,
    /// The deployment that it is bound to.
    pub(crate) name: DeploymentName,
    pub(crate) value: SecretString,
    /// Every key version that the deployment was ever sent.
    pub(crate) held: Vec<v1::HeldKey>,
}

/// A deployment that was removed.
pub(crate) struct Removed {
    pub(crate) id: DeploymentId,
    /// Who did it, and why.
    why: String,
    held: Vec<v1::HeldKey>,
    bindings: usize,
}

/// What an admin says about one deployment, checked as far as that goes without looking at it.
pub(crate) struct Word {
    actor: Actor,
    name: DeploymentName,
    reason: String,
    now: Timestamp,
}

impl Word {
    pub(crate) fn new(
        actor: &Actor,
        name: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<Self, Error> {
        actor.must_be(Role::Admin)?;
        must_say_why(reason)?;
        Ok(Self {
            actor: actor.clone(),
            name: Invalid::parse("name", name)?,
            reason: reason.trim().to_owned(),
            now,
        })
    }

    /// Forgets the deployment, inside of one transaction.
    pub(crate) fn remove(&self, tx: &Tx<'_>, yes: bool) -> Result<Removed, Error> {
        let row = self.find(tx)?;
        let held = held(tx, row.id)?;
        let bindings = tx.bindings_of(row.id)?.len();
        let open = held.iter().filter(|held| held.open).count();
        if !yes && (bindings > 0 || open > 0) {
            let text = format!(
                "{} has {bindings} bindings and may hold {open} key versions; its Kibana keeps the connectors and their keys, and nobody looks after them any more: say --yes",
                row.name
            );
            return Err(Error::Precondition(text));
        }
        let (who, reason) = (&self.actor.principal, &self.reason);
        let why = format!("deployment removed by {who}: {reason}");
        tx.remove_deployment(row.id, &why, self.now)?;
        let text = format!("deployment {} ({}) removed: {reason}", row.name, row.id);
        let event = Event {
            at: self.now,
            actor: who.clone(),
            text,
        };
        tx.add_event(EventScope::Service, &event)?;
        let detail = format!(
            "id {}, {bindings} bindings, {open} key versions open",
            row.id
        );
        self.record(tx, "deployment.remove", detail)?;
        Ok(Removed {
            id: row.id,
            why,
            held,
            bindings,
        })
    }

    fn find(&self, tx: &Tx<'_>) -> Result<Deployment, Error> {
        let row = tx.deployment_named(&self.name)?;
        let row = row.ok_or_else(|| Error::NotFound {
            kind: "deployment",
            name: self.name.to_string(),
        })?;
        self.actor.must_reach(&row.name, &row.labels)?;
        Ok(row)
    }

    /// True where that changes anything.
    fn change(
        &self,
        tx: &Tx<'_>,
        row: &Deployment,
        verb: v1::DeploymentVerb,
    ) -> Result<bool, Error> {
        let (action, done) = match verb {
            v1::DeploymentVerb::Suspend => ("deployment.suspend", self.suspend(tx, row)?),
            v1::DeploymentVerb::Resume => ("deployment.resume", self.resume(tx, row)?),
            v1::DeploymentVerb::Revoke => ("deployment.revoke", self.revoke(tx, row)?),
            v1::DeploymentVerb::AllowRenewal => {
                ("deployment.allow-renewal", self.allow_renewal(tx, row)?)
            }
            v1::DeploymentVerb::Unspecified => return Err(Invalid::missing("verb").into()),
        };
        if done {
            let detail = format!("it was {} before", row.standing);
            self.record(tx, action, detail)?;
        }
        Ok(done)
    }

    fn suspend(&self, tx: &Tx<'_>, row: &Deployment) -> Result<bool, Error> {
        match row.standing {
            Standing::Active => {
                let reason = format!("suspended by {}: {}", self.actor.principal, self.reason);
                self.distrust(tx, row, Standing::Suspended, &reason)?;
                Ok(true)
            }
            Standing::Suspended => Ok(false),
            Standing::Cloned | Standing::Revoked => Err(Error::Precondition(refusal(row))),
        }
    }

    fn resume(&self, tx: &Tx<'_>, row: &Deployment) -> Result<bool, Error> {
        match row.standing {
            Standing::Active => return Ok(false),
            Standing::Revoked => return Err(Error::Precondition(refusal(row))),
            Standing::Suspended => {}
            // A host restored from a snapshot has an older certificate, and has it rightly.
            Standing::Cloned => {
                let seen = row.certificate_seen.min(FIRST_CERTIFICATE);
                tx.see_certificate(row.id, seen)?;
            }
        }
        tx.set_standing(row.id, Standing::Active, "", self.now)?;
        self.note(tx, row.id, format!("resumed: {}", self.reason))?;
        Ok(true)
    }

    fn revoke(&self, tx: &Tx<'_>, row: &Deployment) -> Result<bool, Error> {
        if row.standing == Standing::Revoked {
            return Ok(false);
        }
        let reason = format!("revoked by {}: {}", self.actor.principal, self.reason);
        tx.revoke_tokens_of(row.id)?;
        self.distrust(tx, row, Standing::Revoked, &reason)?;
        Ok(true)
    }

    fn allow_renewal(&self, tx: &Tx<'_>, row: &Deployment) -> Result<bool, Error> {
        if row.standing == Standing::Revoked {
            return Err(Error::Precondition(refusal(row)));
        }
        if row.renewal_allowed {
            return Ok(false);
        }
        tx.allow_renewal(row.id)?;
        let text = format!("may renew an ended certificate once: {}", self.reason);
        self.note(tx, row.id, text)?;
        Ok(true)
    }

    /// Takes trust away: what the agent has proven counts no more, what it holds it still holds.
    fn distrust(
        &self,
        tx: &Tx<'_>,
        row: &Deployment,
        standing: Standing,
        reason: &str,
    ) -> Result<(), Error> {
        tx.set_standing(row.id, standing, reason, self.now)?;
        tx.void_evidence_of(row.id)?;
        self.note(tx, row.id, format!("{standing}: {}", self.reason))
    }

    fn note(&self, tx: &Tx<'_>, id: DeploymentId, text: String) -> Result<(), Error> {
        let event = Event {
            at: self.now,
            actor: self.actor.principal.clone(),
            text,
        };
        Ok(tx.add_event(EventScope::Deployment(id), &event)?)
    }

    fn record(&self, tx: &Tx<'_>, action: &'static str, detail: String) -> Result<(), Error> {
        let act = Act {
            action,
            target: format!("deployment {}", self.name),
            reason: self.reason.clone(),
            detail,
        };
        record(tx, &self.actor, act, self.now)
    }
}
