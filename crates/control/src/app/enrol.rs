//! Enrolment: a join token and a certificate request become an identity.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use keyfleet_core::Timestamp;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{DeploymentId, DeploymentName, EnrolmentId, Generation};
use keyfleet_core::standing::Standing;
use keyfleet_core::token::label_mismatch;
use keyfleet_proto::{Invalid, labels, v1};
use keyfleet_store::{
    Deployment, Event, EventScope, NewCertificate, NewEnrolment, Token, TokenUse, Tx,
};
use sha2::{Digest, Sha256};

use super::audit::{Act, record_own};
use super::start::{Spread, refresh_goals, start_rollouts};
use super::tokens::{hash, is_good};
use super::{App, KEYFLEET};
use crate::ca::{self, Issued, Subject};
use crate::clock;
use crate::error::Error;
use crate::limits::Bucket;

/// X25519 public keys have this length (RFC 7748).
const SEALING_KEY_BYTES: usize = 32;

/// What an enrolment is called in the audit log.
const ENROL: &str = "deployment.enrol";

/// Certificates signed at once, and so many a second after that: a fleet of 10,000 renews within a minute.
const CERTIFICATES_AT_ONCE: u32 = 1_000;
const CERTIFICATES_PER_SECOND: u32 = 200;

/// Refused enrolments that are answered and logged at once, and one a second after that. Who has a good join token is
/// not held up by those who have none.
const REFUSED_AT_ONCE: u32 = 20;

/// A new agent's identity.
pub(crate) struct Enrolled {
    pub(crate) deployment: DeploymentId,
    pub(crate) enrolment: EnrolmentId,
    pub(crate) issued: Issued,
}

/// How often certificates are asked for.
pub(crate) struct Issuing {
    certificates: Mutex<Bucket>,
    refused: Mutex<Bucket>,
}

impl Default for Issuing {
    fn default() -> Self {
        let bucket =
            |per_second, at_once| Mutex::new(Bucket::new(per_second, at_once, Instant::now()));
        Self {
            certificates: bucket(CERTIFICATES_PER_SECOND, CERTIFICATES_AT_ONCE),
            refused: bucket(1, REFUSED_AT_ONCE),
        }
    }
}

impl Issuing {
    /// Takes the right to one certificate.
    pub(super) fn certificate(&self) -> Result<(), Error> {
        let text = "more certificates are asked for than this service signs in a second: try again in a moment";
        take(&self.certificates).ok_or_else(|| Error::Unavailable(text.to_owned()))
    }

    fn refused(&self, why: Error) -> Error {
        if take(&self.refused).is_some() {
            tracing::warn!(error = %why, "an enrolment was refused");
            return why;
        }
        let text = "too many enrolments were refused just now: try again in a moment";
        Error::Unavailable(text.to_owned())
    }
}

fn take(bucket: &Mutex<Bucket>) -> Option<()> {
    let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
    bucket.take(Instant::now()).then_some(())
}

/// What an agent asks for, checked.
struct Request {
    name: DeploymentName,
    labels: Labels,
    sealing_key: Vec<u8>,
    agent_version: String,
    certificate: ca::Request,
    token_hash: [u8; 32],
}

impl App {
    /// Enrols an agent; takes one use from its join token. The same request again, before the agent's first session,
    /// gives the same identity again.
    pub(crate) async fn enrol(
        &self,
        wire: v1::EnrollRequest,
        issuing: &Issuing,
    ) -> Result<Enrolled, Error> {
        let token_hash = hash(&wire.join_token);
        let look = move |tx: &Tx<'_>| Ok::<_, Error>(tx.token_of_hash(&token_hash)?);
        let token = self.store.read(look).await?;
        if let Err(why) = join_token(token) {
            return Err(self.refuse_enrolment(issuing, why).await);
        }
        issuing.certificate()?;
        let request = Request::read(wire, token_hash)?;
        let (app, now, name) = (self.clone(), clock::now(), request.name.clone());
        let write = move |tx: &Tx<'_>| store(tx, &app, request, now);
        let enrolled = match self.store.write(write).await {
            Ok(enrolled) => enrolled,
            Err(why @ (Error::Forbidden(_) | Error::AlreadyExists(_))) => {
                return Err(self.refuse_enrolment(issuing, why).await);
            }
            Err(why) => return Err(why),
        };
        let id = enrolled.deployment;
        tracing::info!(deployment.id = %id, deployment.name = %name, "agent enrolled");
        // Where it had another agent before, that one is out.
        self.sessions.forget_boots(id);
        self.sessions
            .end(id, "a new agent of this deployment enrolled");
        self.changed();
        Ok(enrolled)
    }

    /// What to answer; the audit log says so too, but strangers do not fill it.
    async fn refuse_enrolment(&self, issuing: &Issuing, why: Error) -> Error {
        let act = Act {
            action: ENROL,
            target: String::new(),
            reason: String::new(),
            detail: String::new(),
        };
        self.refused(None, act, &why.to_string()).await;
        issuing.refused(why)
    }
}

impl Request {
    fn read(wire: v1::EnrollRequest, token_hash: [u8; 32]) -> Result<Self, Invalid> {
        if wire.sealing_public_key.len() != SEALING_KEY_BYTES {
            let problem = format!("must be {SEALING_KEY_BYTES} bytes of an X25519 public key");
            return Err(Invalid::new("sealing_public_key", problem));
        }
        Ok(Self {
            name: Invalid::parse("deployment_name", &wire.deployment_name)?,
            labels: labels("labels", wire.labels)?,
            sealing_key: wire.sealing_public_key.to_vec(),
            agent_version: version(&wire.agent_version),
            certificate: ca::Request::read(&wire.certificate_request_der)
                .map_err(|err| Invalid::new("certificate_request_der", err))?,
            token_hash,
        })
    }

    /// What makes a request the same again: token, name and both keys, which only one agent has.
    fn mark(&self) -> [u8; 32] {
        let mut mark = Sha256::new();
        for part in [
            self.token_hash.as_slice(),
            self.name.as_str().as_bytes(),
            &self.certificate.public_key(),
            &self.sealing_key,
        ] {
            mark.update(part.len().to_be_bytes());
            mark.update(part);
        }
        mark.finalize().into()
    }
}

/// An agent's version, cut to what a version needs.
pub(crate) fn version(agent_version: &str) -> String {
    agent_version.chars().take(64).collect()
}

/// How many enrolments a join token is still good for, and the deployment that it is bound to.
struct JoinToken {
    token: Token,
    labels: Labels,
    uses_left: u32,
    deployment: Option<DeploymentId>,
}

fn join_token(token: Option<Token>) -> Result<JoinToken, Error> {
    let token = token.ok_or_else(|| refused("unknown"))?;
    if token.revoked {
        return Err(refused("revoked"));
    }
    match token.usage.clone() {
        TokenUse::Operator { .. } => Err(refused("not a join token")),
        TokenUse::Join {
            labels,
            uses_left,
            deployment,
        } => Ok(JoinToken {
            token,
            labels,
            uses_left,
            deployment,
        }),
    }
}

fn refused(why: &str) -> Error {
    Error::Forbidden(format!(
        "the join token is {why}: ask an admin for a new one"
    ))
}

fn store(tx: &Tx<'_>, app: &App, request: Request, now: Timestamp) -> Result<Enrolled, Error> {
    let join = join_token(tx.token_of_hash(&request.token_hash)?)?;
    let (mark, name) = (request.mark(), request.name.clone());
    let known = tx.deployment_named(&request.name)?;
    if let Some(known) = &known
        && known.certificate_seen == 0
        && known.standing.may_connect()
        && tx.enrolled_by(known.id)?.as_deref() == Some(&mark)
    {
        return again(tx, app, request, known, now);
    }
    if !is_good(&join.token, now) {
        return Err(refused("out of date"));
    }
    if join.uses_left == 0 || !tx.use_token(join.token.id)? {
        return Err(refused("used up"));
    }
    let enrolled = match (join.deployment, known) {
        (Some(id), known) => replace(tx, app, request, (id, known), now)?,
        (None, Some(known)) => {
            let text = format!(
                "a deployment named {} is enrolled already: give this one another name in its agent's configuration, or let `keyfleet deployment replace` make a join token for its new agent",
                known.name
            );
            return Err(Error::AlreadyExists(text));
        }
        (None, None) => {
            if let Some(problem) = label_mismatch(&join.labels, &request.labels) {
                return Err(Error::Forbidden(problem));
            }
            first(tx, app, request, now)?
        }
    };
    tx.set_enrolled_by(enrolled.deployment, &mark)?;
    let text = format!(
        "enrolled with join token {} of {}",
        join.token.id, join.token.principal
    );
    record_own(tx, ENROL, format!("deployment {name}"), text.clone(), now)?;
    note(tx, enrolled.deployment, text, now)?;
    Ok(enrolled)
}

/// The answer to the first try was lost: the same identity, with the next certificate.
fn again(
    tx: &Tx<'_>,
    app: &App,
    request: Request,
    known: &Deployment,
    now: Timestamp,
) -> Result<Enrolled, Error> {
    let subject = Subject {
        deployment: known.id,
        enrolment: known.enrolment,
        number: known.certificate_given + 1,
    };
    let enrolled = sign(app, request.certificate, &subject, now)?;
    tx.give_certificate(known.id, subject.number, &enrolled.certificate())?;
    Ok(enrolled)
}

/// A deployment that was not there before.
fn first(tx: &Tx<'_>, app: &App, request: Request, now: Timestamp) -> Result<Enrolled, Error> {
    let subject = subject(DeploymentId::new(uuid::Uuid::now_v7()));
    let enrolled = sign(app, request.certificate, &subject, now)?;
    let issued = &enrolled.issued;
    let row = Deployment {
        id: subject.deployment,
        name: request.name,
        labels: request.labels,
        enrolment: subject.enrolment,
        enrolled_at: now,
        sealing_key: request.sealing_key,
        certificate_serial: issued.serial.clone(),
        certificate_not_after: issued.not_after,
        agent_version: request.agent_version,
        facts: None,
        last_seen: None,
        generation: Generation::default(),
        standing: Standing::Active,
        standing_reason: String::new(),
        standing_at: None,
        certificate_given: 1,
        certificate_seen: 0,
        certificate_ca: issued.ca.clone(),
        renewal_allowed: false,
    };
    tx.insert_deployment(&row)?;
    refresh_goals(tx, now)?;
    let cause = format!("deployment {} enrolled", row.name);
    start_rollouts(tx, &Spread::default(), &cause, KEYFLEET, now)?;
    Ok(enrolled)
}

/// A new agent of a deployment that is there: id, name, labels and connectors stay, whatever the agent claims.
fn replace(
    tx: &Tx<'_>,
    app: &App,
    request: Request,
    (id, known): (DeploymentId, Option<Deployment>),
    now: Timestamp,
) -> Result<Enrolled, Error> {
    let bound = tx.deployment(id)?;
    let bound = bound.ok_or_else(|| refused("for a deployment that was removed"))?;
    if known.is_none_or(|known| known.id != id) {
        let text = format!(
            "the join token is for the new agent of deployment {}, and this agent's configuration names {}",
            bound.name, request.name
        );
        return Err(Error::Forbidden(text));
    }
    let enrolled = sign(app, request.certificate, &subject(id), now)?;
    let new = NewEnrolment {
        enrolment: enrolled.enrolment,
        at: now,
        sealing_key: request.sealing_key,
        agent_version: request.agent_version,
        certificate: enrolled.certificate(),
    };
    tx.enrol_again(id, &new)?;
    // What another agent saw proves nothing about this one.
    tx.void_evidence_of(id)?;
    Ok(enrolled)
}

/// The first certificate of a new enrolment.
fn subject(deployment: DeploymentId) -> Subject {
    Subject {
        deployment,
        enrolment: EnrolmentId::new(uuid::Uuid::new_v4()),
        number: 1,
    }
}

fn sign(
    app: &App,
    request: ca::Request,
    subject: &Subject,
    now: Timestamp,
) -> Result<Enrolled, Error> {
    let lifetime = app.config.agents.certificate_lifetime;
    let issued = app
        .authority
        .cas()
        .signer()
        .sign(request, subject, now, lifetime);
    Ok(Enrolled {
        deployment: subject.deployment,
        enrolment: subject.enrolment,
        issued: issued.map_err(|err| Invalid::new("certificate_request_der", err))?,
    })
}

impl Enrolled {
    fn certificate(&self) -> NewCertificate {
        certificate(&self.issued)
    }
}

/// What is stored of a certificate.
pub(super) fn certificate(issued: &Issued) -> NewCertificate {
    NewCertificate {
        serial: issued.serial.clone(),
        not_after: issued.not_after,
        ca: issued.ca.clone(),
    }
}

/// Writes into a deployment's history what nobody asked for.
pub(super) fn note(
    tx: &Tx<'_>,
    id: DeploymentId,
    text: String,
    now: Timestamp,
) -> Result<(), Error> {
    let event = Event {
        at: now,
        actor: KEYFLEET.to_owned(),
        text,
    };
    tx.add_event(EventScope::Deployment(id), &event)?;
    Ok(())
}
