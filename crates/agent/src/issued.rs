//! What control answers to an enrolment and to a renewal alike: a certificate, and whom to trust from now on.

use bytes::Bytes;
use jiff::Timestamp;
use keyfleet_proto::Invalid;
use rustls::pki_types::CertificateDer;

/// Two while the CA is replaced; a few more do no harm.
const CAS_MAX: usize = 8;
/// A certificate of ours has a few hundred bytes.
const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// A certificate with what belongs to it.
pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) cas: Vec<CertificateDer<'static>>,
    pub(crate) not_after: Timestamp,
}

impl Issued {
    /// Reads control's answer.
    ///
    /// # Errors
    /// Names the field.
    pub(crate) fn read(
        certificate_der: &Bytes,
        ca_certificates_der: &[Bytes],
        not_after: Timestamp,
    ) -> Result<Self, Invalid> {
        if ca_certificates_der.is_empty() || ca_certificates_der.len() > CAS_MAX {
            let problem = format!("has not 1 to {CAS_MAX} certificates");
            return Err(Invalid::new("ca_certificates_der", problem));
        }
        let ca = |der| certificate("ca_certificates_der", der);
        Ok(Self {
            certificate: certificate("certificate_der", certificate_der)?,
            cas: ca_certificates_der
                .iter()
                .map(ca)
                .collect::<Result<_, _>>()?,
            not_after,
        })
    }
}

fn certificate(field: &str, der: &Bytes) -> Result<CertificateDer<'static>, Invalid> {
    if der.is_empty() || der.len() > CERTIFICATE_BYTES_MAX {
        return Err(Invalid::new(field, "is no certificate"));
    }
    Ok(CertificateDer::from(der.to_vec()))
}
