//! Renewal: an agent trades its certificate for the next one, in time or after its end.

use keyfleet_core::Timestamp;
use keyfleet_core::standing::Standing;
use keyfleet_proto::{Invalid, v1};
use keyfleet_store::{Deployment, Tx};

use super::App;
use super::enrol::{Issuing, certificate, note};
use crate::ca::{Identity, Issued, Request, Subject};
use crate::clock;
use crate::error::Error;

/// What came of a request.
enum Renewed {
    Issued(Issued),
    /// A later certificate has opened a session: whoever asks is not that agent.
    Superseded,
}

impl App {
    /// Gives the next certificate of an enrolment. The present one stays good until a session with the next was
    /// opened.
    pub(crate) async fn renew(
        &self,
        identity: &Identity,
        wire: v1::RenewRequest,
        issuing: &Issuing,
    ) -> Result<Issued, Error> {
        let id = identity.subject.deployment;
        if !self.sessions.may_renew(id) {
            let text = "this agent asks for too many certificates: one a second is enough";
            return Err(Error::Unavailable(text.to_owned()));
        }
        issuing.certificate()?;
        let request = Request::read(&wire.certificate_request_der)
            .map_err(|err| Invalid::new("certificate_request_der", err))?;
        let (app, identity, now) = (self.clone(), identity.clone(), clock::now());
        let number = identity.subject.number;
        let write = move |tx: &Tx<'_>| store(tx, &app, &identity, request, now);
        match self.store.write(write).await? {
            Renewed::Issued(issued) => Ok(issued),
            Renewed::Superseded => Err(self.superseded(id, number).await?),
        }
    }
}

fn store(
    tx: &Tx<'_>,
    app: &App,
    identity: &Identity,
    request: Request,
    now: Timestamp,
) -> Result<Renewed, Error> {
    let row = enrolled(tx, identity)?;
    if identity.subject.number < row.certificate_seen {
        return Ok(Renewed::Superseded);
    }
    if row.standing == Standing::Cloned {
        let text = format!(
            "two agents use the identity of {}: an operator must decide first",
            row.name
        );
        // Not final: the operator may decide for this one.
        return Err(Error::Precondition(text));
    }
    if identity.is_ended(now) {
        may_renew_ended(app, &row, identity, now)?;
        let text = format!("renewed a certificate that ended at {}", identity.not_after);
        note(tx, row.id, text, now)?;
    }
    // A database that was restored may not know the newest certificate; its owner shows it.
    let newest = row.certificate_given.max(identity.subject.number);
    let subject = Subject {
        number: newest.saturating_add(1),
        ..identity.subject
    };
    let lifetime = app.config.agents.certificate_lifetime;
    let cas = app.authority.cas();
    let issued = cas.signer().sign(request, &subject, now, lifetime);
    let issued = issued.map_err(|err| Invalid::new("certificate_request_der", err))?;
    tx.give_certificate(row.id, subject.number, &certificate(&issued))?;
    tracing::debug!(deployment.id = %row.id, number = subject.number, "certificate renewed");
    Ok(Renewed::Issued(issued))
}

/// The deployment of this identity, if it is the one that is enrolled now and may connect.
pub(crate) fn enrolled(tx: &Tx<'_>, identity: &Identity) -> Result<Deployment, Error> {
    let id = identity.subject.deployment;
    let row = tx
        .deployment(id)?
        .filter(|row| row.enrolment == identity.subject.enrolment);
    let row = row.ok_or_else(|| {
        let text =
            format!("deployment {id} is not enrolled with this certificate: enrol the agent again");
        Error::Unauthenticated(text)
    })?;
    if !row.standing.may_connect() {
        return Err(Error::Forbidden(super::standing::refusal(&row)));
    }
    Ok(row)
}

fn may_renew_ended(
    app: &App,
    row: &Deployment,
    identity: &Identity,
    now: Timestamp,
) -> Result<(), Error> {
    let settings = &app.config.agents;
    let name = &row.name;
    let limit = identity.not_after.saturating_add(settings.renew_ended);
    if limit.is_ok_and(|limit| limit <= now) {
        let days = settings.renew_ended.as_secs() / 86_400;
        return Err(Error::Forbidden(format!(
            "the certificate ended at {}, more than {days} days ago: `keyfleet deployment replace {name}` makes a join token for a new identity",
            identity.not_after
        )));
    }
    if settings.renew_ended_needs_approval && !row.renewal_allowed {
        return Err(Error::Precondition(format!(
            "the certificate ended at {}, and an operator must allow its renewal: `keyfleet deployment allow-renewal {name}`",
            identity.not_after
        )));
    }
    Ok(())
}
