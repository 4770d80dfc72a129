//! Enrolment: a join token and a certificate request become an identity.

use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{DeploymentId, DeploymentName, EnrolmentId, Generation};
use keyfleet_core::token::label_mismatch;
use keyfleet_proto::{Invalid, labels, v1};
use keyfleet_store::{Deployment, Event, EventScope, TokenUse, Tx};

use super::start::{Spread, refresh_goals, start_rollouts};
use super::tokens::{hash, is_good};
use super::{App, KEYFLEET};
use crate::ca::Issued;
use crate::clock;
use crate::error::Error;

/// X25519 public keys have this length (RFC 7748).
const SEALING_KEY_BYTES: usize = 32;

/// A new agent's identity.
pub(crate) struct Enrolled {
    pub(crate) deployment: DeploymentId,
    pub(crate) enrolment: EnrolmentId,
    pub(crate) issued: Issued,
}

struct Request {
    name: DeploymentName,
    labels: Labels,
    sealing_key: Vec<u8>,
    agent_version: String,
}

impl App {
    /// Enrols an agent; takes one use from its join token.
    pub(crate) async fn enrol(&self, wire: v1::EnrollRequest) -> Result<Enrolled, Error> {
        let token_hash = hash(&wire.join_token);
        let certificate_request = wire.certificate_request_der.clone();
        let request = Request::read(wire)?;
        let now = clock::now();
        let deployment = DeploymentId::new(uuid::Uuid::now_v7());
        let enrolment = EnrolmentId::new(uuid::Uuid::new_v4());
        let lifetime = self.config.agents.certificate_lifetime;
        let issued = self
            .authority
            .agent(&certificate_request, deployment, enrolment, now, lifetime)
            .map_err(|err| Invalid::new("certificate_request_der", err))?;
        let row = Deployment {
            id: deployment,
            name: request.name,
            labels: request.labels,
            enrolment,
            enrolled_at: now,
            sealing_key: request.sealing_key,
            certificate_serial: issued.serial.clone(),
            certificate_not_after: issued.not_after,
            agent_version: request.agent_version,
            facts: None,
            last_seen: None,
            generation: Generation::default(),
        };
        let name = row.name.clone();
        self.store
            .write(move |tx| store(tx, &token_hash, &row))
            .await?;
        tracing::info!(deployment.id = %deployment, deployment.name = %name, "agent enrolled");
        self.changed();
        Ok(Enrolled {
            deployment,
            enrolment,
            issued,
        })
    }
}

impl Request {
    fn read(wire: v1::EnrollRequest) -> Result<Self, Invalid> {
        if wire.sealing_public_key.len() != SEALING_KEY_BYTES {
            let problem = format!("must be {SEALING_KEY_BYTES} bytes of an X25519 public key");
            return Err(Invalid::new("sealing_public_key", problem));
        }
        Ok(Self {
            name: Invalid::parse("deployment_name", &wire.deployment_name)?,
            labels: labels("labels", wire.labels)?,
            sealing_key: wire.sealing_public_key.to_vec(),
            agent_version: wire.agent_version.chars().take(64).collect(),
        })
    }
}

fn store(tx: &Tx<'_>, token_hash: &[u8; 32], row: &Deployment) -> Result<(), Error> {
    let now = row.enrolled_at;
    let refused = |why: &str| {
        Error::Forbidden(format!(
            "the join token is {why}: ask an admin for a new one"
        ))
    };
    let token = tx
        .token_of_hash(token_hash)?
        .ok_or_else(|| refused("unknown"))?;
    let TokenUse::Join { labels, uses_left } = &token.usage else {
        return Err(refused("not a join token"));
    };
    if token.revoked {
        return Err(refused("revoked"));
    }
    if !is_good(&token, now) {
        return Err(refused("out of date"));
    }
    if *uses_left == 0 || !tx.use_token(token.id)? {
        return Err(refused("used up"));
    }
    if let Some(problem) = label_mismatch(labels, &row.labels) {
        return Err(Error::Forbidden(problem));
    }
    if tx.deployment_named(&row.name)?.is_some() {
        let text = format!(
            "a deployment named {} is enrolled already: give this one another name in its agent's configuration",
            row.name
        );
        return Err(Error::AlreadyExists(text));
    }
    tx.insert_deployment(row)?;
    let text = format!(
        "enrolled with join token {} of {}",
        token.id, token.principal
    );
    let event = Event {
        at: now,
        actor: KEYFLEET.to_owned(),
        text,
    };
    tx.add_event(EventScope::Deployment(row.id), &event)?;
    refresh_goals(tx, now)?;
    let cause = format!("deployment {} enrolled", row.name);
    start_rollouts(tx, &Spread::default(), &cause, KEYFLEET, now)?;
    Ok(())
}
