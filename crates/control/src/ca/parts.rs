//! What certificates are put together from.

use std::time::Duration;

use base64::Engine as _;
use keyfleet_core::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType};
use rustls::pki_types::CertificateDer;

/// Clocks of agents may be behind by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(3_600);

/// A name for people; nobody relies on it.
pub(super) fn common_name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// Sets when a certificate begins and ends; says when it ends.
pub(super) fn validity(
    params: &mut CertificateParams,
    now: Timestamp,
    lifetime: Duration,
) -> Timestamp {
    let begin = now.saturating_sub(CLOCK_SKEW).unwrap_or(now);
    let end = now.saturating_add(lifetime).unwrap_or(now);
    params.not_before = offset(begin);
    params.not_after = offset(end);
    end
}

fn offset(at: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(at.as_second())
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

/// Lines of 64 characters (RFC 7468).
pub(super) fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
