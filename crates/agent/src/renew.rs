//! Renewal: the present certificate buys the next one. When it is due, the call, and what its refusals mean.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keyfleet_proto::v1;
use keyfleet_proto::v1::agent_service_client::AgentServiceClient;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::enrol;
use crate::identity::{self, Identity};
use crate::issued::Issued;
use crate::said::said;
use crate::tls;

/// The part of its life after which a certificate is renewed is drawn from this span around two thirds, so that a
/// fleet that enrolled in an hour does not renew in an hour.
const SPAN: (f64, f64) = (0.60, 0.7333);

/// Where the clock says that a fresh certificate has ended already, nothing can be planned by it.
const CLOCKLESS: SignedDuration = SignedDuration::from_hours(1);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the certificate cannot be renewed before an operator allows it: {reason}")]
    NotAllowedYet { reason: String },
    #[error("{reason}")]
    Refused { reason: String },
    #[error("the control service did not renew the certificate: {reason}")]
    Unavailable { reason: String },
    #[error("the control service's answer cannot be used")]
    Answer(#[source] keyfleet_proto::Invalid),
    #[error(transparent)]
    Request(#[from] enrol::Error),
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// When this certificate is to be renewed; `spread` is from 0 to 1, drawn once.
pub(crate) fn due(identity: &Identity, spread: f64) -> Timestamp {
    let life = identity.not_after.duration_since(identity.received_at);
    let wait = if life.is_positive() {
        let part = SPAN.0 + (SPAN.1 - SPAN.0) * spread;
        SignedDuration::try_from_secs_f64(life.as_secs_f64() * part).unwrap_or(life)
    } else {
        CLOCKLESS
    };
    identity
        .received_at
        .saturating_add(wait)
        .unwrap_or(identity.not_after)
}

/// True where the certificate has ended by this host's clock, as far as that can be believed.
pub(crate) fn has_ended(identity: &Identity, now: Timestamp) -> bool {
    identity.not_after <= now && identity.received_at < identity.not_after
}

/// Asks for the next certificate, over a connection that was made with this identity, and keeps it as the candidate.
///
/// # Errors
/// [`Error::Refused`] is final; everything else may pass.
pub(crate) async fn renew(
    channel: Channel,
    identity: Identity,
    state_dir: PathBuf,
    patience: Duration,
) -> Result<Identity, Error> {
    let keys = identity.keys.renewed()?;
    let request = v1::RenewRequest {
        certificate_request_der: enrol::certificate_request(&keys, "keyfleet-agent")?.into(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut client = AgentServiceClient::new(channel);
    let answer = timeout(patience, client.renew(request))
        .await
        .map_err(|_| Error::Unavailable {
            reason: format!("no answer within {} s", patience.as_secs()),
        })?
        .map_err(|status| refusal(&status))?
        .into_inner();
    let issued = keyfleet_proto::timestamp_required("not_after", answer.not_after)
        .and_then(|not_after| {
            Issued::read(
                &answer.certificate_der,
                &answer.ca_certificates_der,
                not_after,
            )
        })
        .map_err(Error::Answer)?;
    let candidate = Identity {
        certificate: issued.certificate,
        cas: issued.cas,
        received_at: Timestamp::now(),
        not_after: issued.not_after,
        keys,
        ..identity
    };
    // What does not fit together must not be kept.
    tls::mutual(&candidate, &[])?;
    candidate.save_candidate(&state_dir)?;
    warn_of_clock(&candidate);
    Ok(candidate)
}

fn warn_of_clock(candidate: &Identity) {
    if candidate.not_after <= candidate.received_at {
        tracing::warn!(ends = %candidate.not_after, now = %candidate.received_at, "the new certificate has ended already by this host's clock: set the clock right");
    } else {
        tracing::info!(ends = %candidate.not_after, "the certificate is renewed");
    }
}

fn refusal(status: &Status) -> Error {
    if let Some(reason) = tls::refusal(status) {
        return Error::Refused { reason };
    }
    let reason = said(status);
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied | Code::NotFound => {
            Error::Refused { reason }
        }
        Code::FailedPrecondition => Error::NotAllowedYet { reason },
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Error::Unavailable { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Keys, TokenHash};

    fn identity(received_at: &str, not_after: &str) -> Identity {
        Identity {
            deployment: "3f2504e0-4f89-41d3-9a0c-0305e82c3301".parse().unwrap(),
            enrolment: "3f2504e0-4f89-41d3-9a0c-0305e82c3302".parse().unwrap(),
            certificate: Vec::new().into(),
            cas: Vec::new(),
            received_at: received_at.parse().unwrap(),
            not_after: not_after.parse().unwrap(),
            token: TokenHash(String::new()),
            keys: Keys::generate().unwrap(),
        }
    }

    #[test]
    fn renewals_are_spread_around_two_thirds_of_the_life() {
        let fortnight = identity("2026-11-01T00:00:00Z", "2026-11-15T00:00:00Z");
        let at = |spread| due(&fortnight, spread).to_string();
        assert!(at(0.0).starts_with("2026-11-09T09:36:00"), "{}", at(0.0));
        assert!(at(0.5).starts_with("2026-11-10T07:59"), "{}", at(0.5));
        assert!(at(1.0).starts_with("2026-11-11T06:2"), "{}", at(1.0));
        let ended = |now: &str| has_ended(&fortnight, now.parse().unwrap());
        assert!(!ended("2026-11-14T23:59:59Z") && ended("2026-11-15T00:00:00Z"));
    }

    #[test]
    fn a_clock_that_is_weeks_ahead_causes_no_flood_of_renewals() {
        let skewed = identity("2027-01-01T00:00:00Z", "2026-11-15T00:00:00Z");
        assert_eq!(due(&skewed, 0.5).to_string(), "2027-01-01T01:00:00Z");
        assert!(!has_ended(&skewed, "2027-01-01T00:00:01Z".parse().unwrap()));
        let absurd = identity("-009999-01-02T01:59:59Z", "9999-12-30T22:00:00Z");
        assert!(due(&absurd, 1.0) < absurd.not_after);
    }

    #[test]
    fn only_a_clear_no_is_final() {
        let check = |code: Code| match refusal(&Status::new(code, "why")) {
            Error::Refused { .. } => "final",
            Error::NotAllowedYet { .. } => "approval",
            Error::Unavailable { .. }
            | Error::Answer(_)
            | Error::Request(_)
            | Error::Identity(_)
            | Error::Tls(_) => "later",
        };
        for (code, expected) in [
            (Code::Unauthenticated, "final"),
            (Code::PermissionDenied, "final"),
            (Code::NotFound, "final"),
            (Code::FailedPrecondition, "approval"),
            (Code::Unavailable, "later"),
            (Code::Unimplemented, "later"),
            (Code::Internal, "later"),
        ] {
            assert_eq!(check(code), expected, "{code:?}");
        }
    }
}
