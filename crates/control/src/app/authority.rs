//! The CA: what it is, and replacing it.
//!
//! What is to be done stands in the audit log before it is done. Files cannot be part of a transaction: where they then
//! cannot be written, the log says that too.

use keyfleet_core::Timestamp;
use keyfleet_core::audit::{Entry, Outcome};
use keyfleet_core::standing::Standing;
use keyfleet_core::token::Role;
use keyfleet_proto::{WireTime, v1};
use keyfleet_store::{Deployment, Tx};

use super::audit::{Act, record, record_own};
use super::delete::must_say_why;
use super::{Actor, App, KEYFLEET};
use crate::ca::{self, Ca};
use crate::clock;
use crate::error::Error;

/// Deployments that are named as what the end of a rotation waits for.
const WAITING_MAX: usize = 20;

/// Target of these acts in the audit log.
const TARGET: &str = "ca";

impl App {
    /// The CA, and the next one while it is being replaced. Deployments outside the caller's scope are counted and not
    /// named.
    pub(crate) async fn ca(&self, actor: &Actor) -> Result<v1::GetCaResponse, Error> {
        actor.must_be(Role::Viewer)?;
        let (cas, scope) = (self.authority.cas(), actor.scope.clone());
        let (online, ends_after) = (self.sessions.online(), self.rotation_ends_after());
        let look = move |tx: &Tx<'_>| {
            let next = cas.next.as_deref();
            let mut waiting = Vec::new();
            if let Some(next) = next {
                let late = tx
                    .deployments()?
                    .into_iter()
                    .filter(|row| is_late(row, next));
                let (named, others): (Vec<_>, Vec<_>) =
                    late.partition(|row| scope.matches(&row.labels));
                let sentences = named.iter().take(WAITING_MAX);
                waiting.extend(sentences.map(|row| late_sentence(row, online.contains(&row.id))));
                let more = named.len().saturating_sub(WAITING_MAX) + others.len();
                if more > 0 {
                    waiting.push(format!("{more} deployments more have not renewed yet"));
                }
            }
            Ok::<_, Error>(v1::GetCaResponse {
                current: Some(wire(tx, &cas.current)?),
                next: next.map(|next| wire(tx, next)).transpose()?,
                waiting,
                ends_after: ends_after.map(|at| WireTime(at).into()),
            })
        };
        self.store.read(look).await
    }

    /// Makes the next CA. Both are trusted from here on; every connected agent renews at once.
    pub(crate) async fn rotate_ca(
        &self,
        actor: &Actor,
        reason: &str,
    ) -> Result<v1::GetCaResponse, Error> {
        actor.must_be(Role::Admin)?;
        actor.must_be_for_all()?;
        must_say_why(reason)?;
        let turn = self.authority.lock().await;
        let cas = self.authority.cas();
        if let Some(next) = &cas.next {
            let text = format!(
                "the CA is being replaced by {} already: `keyfleet ca show` says what that waits for",
                next.pin
            );
            return Err(Error::Precondition(text));
        }
        let (who, now) = (actor.clone(), clock::now());
        let act = Act {
            action: "ca.rotate",
            target: TARGET.to_owned(),
            reason: reason.to_owned(),
            detail: format!("the CA {} is to be replaced", cas.current.pin),
        };
        let write = move |tx: &Tx<'_>| record(tx, &who, act, now);
        self.store.write(write).await?;
        if let Err(err) = self.authority.begin_rotation(now) {
            return Err(self.not_done(actor, "ca.rotate", &err).await?);
        }
        drop(turn);
        tracing::info!("the CA is being replaced: every agent renews its certificate");
        self.sessions.notify(&self.sessions.online());
        self.ca(actor).await
    }

    /// Ends the trust in the older CA; `yes` leaves agents behind that have not renewed.
    pub(crate) async fn finish_ca_rotation(
        &self,
        actor: &Actor,
        reason: &str,
        yes: bool,
    ) -> Result<v1::GetCaResponse, Error> {
        actor.must_be(Role::Admin)?;
        actor.must_be_for_all()?;
        must_say_why(reason)?;
        let turn = self.authority.lock().await;
        let next = self.authority.cas().next.clone();
        let text = "no rotation of the CA is under way: `keyfleet ca rotate` begins one";
        let next = next.ok_or_else(|| Error::Precondition(text.to_owned()))?;
        let (who, reason, now) = (actor.clone(), reason.to_owned(), clock::now());
        let write = move |tx: &Tx<'_>| {
            let late = late(tx, &next)?;
            if !late.is_empty() && !yes {
                let text = format!(
                    "{} have no certificate of the next CA yet and could not connect any more: `keyfleet ca show` names them; wait, or say --yes and let `keyfleet deployment replace` bring them back",
                    deployments(late.len())
                );
                return Err(Error::Precondition(text));
            }
            let act = Act {
                action: "ca.finish",
                target: TARGET.to_owned(),
                reason,
                detail: finished(&next, late.len()),
            };
            record(tx, &who, act, now)?;
            Ok(late)
        };
        let late = self.store.write(write).await?;
        if let Err(err) = self.authority.finish_rotation() {
            return Err(self.not_done(actor, "ca.finish", &err).await?);
        }
        drop(turn);
        self.leave_behind(&late);
        self.ca(actor).await
    }

    /// Ends a rotation that nobody is waited for any more, once operators had their time; true where it did.
    pub(crate) async fn finish_ca_rotation_if_done(&self) -> Result<bool, Error> {
        let ends_after = self.rotation_ends_after();
        if ends_after.is_none_or(|at| clock::now() < at) {
            return Ok(false);
        }
        let _turn = self.authority.lock().await;
        let Some(next) = self.authority.cas().next.clone() else {
            return Ok(false);
        };
        let (pin, now) = (next.pin.clone(), clock::now());
        let look = move |tx: &Tx<'_>| Ok::<_, Error>(tx.is_awaited_by_ca(&pin)?);
        if self.store.read(look).await? {
            return Ok(false);
        }
        let write = move |tx: &Tx<'_>| {
            if tx.is_awaited_by_ca(&next.pin)? {
                return Ok(false);
            }
            record_own(tx, "ca.finish", TARGET.to_owned(), finished(&next, 0), now)?;
            Ok::<_, Error>(true)
        };
        if !self.store.write(write).await? {
            return Ok(false);
        }
        self.authority
            .finish_rotation()
            .map_err(|err| Error::internal(&err))?;
        self.leave_behind(&[]);
        Ok(true)
    }

    /// The moment before which a rotation does not end by itself; `None` where none is under way.
    fn rotation_ends_after(&self) -> Option<Timestamp> {
        let overlap = self.config.agents.ca_overlap;
        let begun = self.authority.cas().next.as_ref()?.made_at();
        Some(begun.saturating_add(overlap).unwrap_or(begun))
    }

    /// What operators must know of a rotation while one is under way.
    pub(super) fn rotation_problem(&self) -> Option<String> {
        let at = self.rotation_ends_after()?;
        let when = match at > clock::now() {
            true => format!("before {at}"),
            false => "now: it ends as soon as the last agent has renewed".to_owned(),
        };
        Some(format!(
            "the CA is being replaced: every operator runs `keyfleet ca show` once {when}, which lets their context trust the next one"
        ))
    }

    /// The older CA is trusted no more, and neither are sessions under its certificates.
    fn leave_behind(&self, late: &[Deployment]) {
        for row in late {
            let text = "the CA was replaced, and this agent has no certificate of the new one: enrol it again";
            self.sessions.end(row.id, text);
        }
        tracing::info!(left_behind = late.len(), "the CA was replaced");
        self.changed();
    }

    /// The log says that it is to be done; now it says that it was not. What to answer.
    async fn not_done(
        &self,
        actor: &Actor,
        action: &'static str,
        err: &ca::Error,
    ) -> Result<Error, Error> {
        let detail = keyfleet_telemetry::error_chain(err);
        let entry = Entry {
            number: 0,
            at: clock::now(),
            principal: KEYFLEET.to_owned(),
            token: String::new(),
            action: action.to_owned(),
            target: TARGET.to_owned(),
            outcome: Outcome::Refused,
            reason: format!("asked for by {}", actor.principal),
            detail,
        };
        let write = move |tx: &Tx<'_>| Ok::<_, Error>(tx.append_audit(entry)?);
        self.store.write(write).await?;
        Ok(Error::internal(err))
    }

    /// True where a deployment's agent should renew now, because of the CA.
    pub(crate) fn renews_for_ca(&self, row: &Deployment) -> bool {
        let cas = self.authority.cas();
        cas.next.as_deref().is_some_and(|next| is_late(row, next))
    }
}

/// True where the end of the rotation waits for the deployment: it has not come with a certificate of the next CA.
fn is_late(row: &Deployment, next: &Ca) -> bool {
    let has_come = row.certificate_ca == next.pin && row.certificate_seen == row.certificate_given;
    row.standing != Standing::Revoked && !has_come
}

fn late(tx: &Tx<'_>, next: &Ca) -> Result<Vec<Deployment>, Error> {
    let mut rows = tx.deployments()?;
    rows.retain(|row| is_late(row, next));
    Ok(rows)
}

fn late_sentence(row: &Deployment, is_online: bool) -> String {
    let name = &row.name;
    match (row.standing, is_online) {
        (Standing::Cloned, _) => {
            format!("{name}: two agents use its identity; an operator must decide first")
        }
        (_, true) => format!("{name}: its agent is connected and has not renewed yet"),
        (_, false) => format!(
            "{name}: its agent is not connected; it renews when it returns, or `keyfleet ca finish --yes` leaves it behind"
        ),
    }
}

fn finished(next: &Ca, n_late: usize) -> String {
    let late = match n_late {
        0 => String::new(),
        n_late => format!("; left behind: {}", deployments(n_late)),
    };
    format!("{} is the CA from here on{late}", next.pin)
}

fn deployments(count: usize) -> String {
    match count {
        1 => "1 deployment".to_owned(),
        count => format!("{count} deployments"),
    }
}

fn wire(tx: &Tx<'_>, ca: &Ca) -> Result<v1::Ca, Error> {
    Ok(v1::Ca {
        pin: ca.pin.clone(),
        not_after: Some(WireTime(ca.not_after).into()),
        deployments: tx.deployments_of_ca(&ca.pin)?,
        certificate_pem: ca.certificate_pem.clone(),
    })
}
