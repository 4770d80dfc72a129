//! The names in agents' certificates: who an agent is.

use keyfleet_core::Timestamp;
use keyfleet_core::id::{DeploymentId, EnrolmentId};
use rustls::pki_types::CertificateDer;

use super::hex;

/// Beginning of the URI name in an agent's certificate.
const URI_PREFIX: &str = "urn:keyfleet:v1:";

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) deployment: DeploymentId,
    pub(crate) enrolment: EnrolmentId,
    /// Certificates of one enrolment count from 1.
    pub(crate) number: u64,
}

/// Who an agent's certificate says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) subject: Subject,
    /// Serial number, hexadecimal.
    pub(crate) serial: String,
    /// When the certificate ends, and every session with it.
    pub(crate) not_after: Timestamp,
}

impl Subject {
    /// The URI name (RFC 5280, 4.2.1.6).
    pub(super) fn uri(&self) -> String {
        let Self {
            deployment,
            enrolment,
            number,
        } = self;
        format!("{URI_PREFIX}{deployment}:{enrolment}:{number}")
    }

    fn parse(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix(URI_PREFIX)?.split(':');
        let subject = Self {
            deployment: parts.next()?.parse().ok()?,
            enrolment: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(subject)
    }
}

impl Identity {
    /// True where the certificate has ended. TLS lets it pass, for it may still be renewed.
    pub(crate) fn is_ended(&self, now: Timestamp) -> bool {
        self.not_after <= now
    }
}

/// Who a client certificate (whose signature TLS has checked) says it is; `None` where it is not one of ours.
pub(crate) fn identity(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let subject = names.value.general_names.iter().find_map(|name| {
        let x509_parser::extensions::GeneralName::URI(uri) = name else {
            return None;
        };
        Subject::parse(uri)
    })?;
    Some(Identity {
        subject,
        serial: hex(parsed.raw_serial()),
        not_after: end(&parsed)?,
    })
}

/// When a certificate ends.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    end(&parsed)
}

fn end(parsed: &x509_parser::certificate::X509Certificate<'_>) -> Option<Timestamp> {
    Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_read() {
        let subject = Subject {
            deployment: DeploymentId::new(uuid::Uuid::from_u128(1)),
            enrolment: EnrolmentId::new(uuid::Uuid::from_u128(2)),
            number: 3,
        };
        assert_eq!(Subject::parse(&subject.uri()), Some(subject));
        let right = subject.uri();
        for wrong in [
            "",
            "urn:keyfleet:v1:",
            "spiffe://keyfleet/agent",
            right.trim_end_matches(":3"),
            &right.replace(":3", ":-3"),
            &right.replace(":3", ":18446744073709551616"),
            &format!("{right}:4"),
            &right.replace("v1", "v2"),
        ] {
            assert_eq!(Subject::parse(wrong), None, "{wrong}");
        }
    }
}
