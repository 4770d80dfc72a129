//! The built-in certificate authority: makes itself at `init`, signs agents' certificates and the servers' own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::id::{DeploymentId, EnrolmentId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest, Sha256};

use crate::files;

/// The CA outlives every fleet that is not looked after; `ca rotate` replaces it before.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A server makes itself a new certificate at every start.
const SERVER_LIFETIME: Duration = Duration::from_secs(397 * 86_400);

/// Clocks of agents may be behind by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(3_600);

/// Beginning of the URI name in an agent's certificate.
const URI_PREFIX: &str = "urn:keyfleet:v1:";

/// Why the CA cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A certificate or key cannot be made or read.
    #[error("{what} cannot be used")]
    Certificate {
        /// Which.
        what: String,
        /// Why.
        source: rcgen::Error,
    },
    /// A certificate request of an agent is no good.
    #[error("the certificate request is not a PKCS #10 request with a signature that fits")]
    Request,
}

/// Who an agent's certificate says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) deployment: DeploymentId,
    pub(crate) enrolment: EnrolmentId,
    /// Serial number, hexadecimal.
    pub(crate) serial: String,
    /// When the certificate ends, and every session with it.
    pub(crate) not_after: Timestamp,
}

/// A certificate for an agent.
pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) serial: String,
    pub(crate) not_after: Timestamp,
}

/// The CA, ready to sign.
pub struct Authority {
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    pin: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}

/// Where the CA's certificate lies; operators and agents may read it.
pub fn certificate_path(data_dir: &Path) -> PathBuf {
    data_dir.join("ca.pem")
}

fn key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("ca.key")
}

/// Makes a new CA in `data_dir`, unless there is one.
///
/// # Errors
/// Where the files cannot be written.
pub fn create(data_dir: &Path, now: Timestamp) -> Result<(), Error> {
    if certificate_path(data_dir).exists() {
        return Ok(());
    }
    let failed = |source| Error::Certificate {
        what: "the new CA".to_owned(),
        source,
    };
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name("Keyfleet CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, now, CA_LIFETIME);
    let certificate = params.self_signed(&key).map_err(failed)?;
    files::write_secret(&key_path(data_dir), key.serialize_pem().as_bytes())?;
    files::write_public(&certificate_path(data_dir), certificate.pem().as_bytes())?;
    Ok(())
}

impl Authority {
    /// Reads the CA that `init` made.
    ///
    /// # Errors
    /// Where it is missing or broken.
    pub fn load(data_dir: &Path) -> Result<Self, Error> {
        let certificate_pem = files::read_text(&certificate_path(data_dir))?;
        let key_pem = files::read_text(&key_path(data_dir))?;
        let failed = |source| Error::Certificate {
            what: "the CA".to_owned(),
            source,
        };
        let key = KeyPair::from_pem(&key_pem).map_err(failed)?;
        let pin = hex(&Sha256::digest(
            rcgen::PublicKeyData::subject_public_key_info(&key),
        ));
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(failed)?;
        let certificate = pem_certificate(&certificate_pem).ok_or(Error::Request)?;
        Ok(Self {
            certificate_pem,
            certificate,
            issuer,
            pin,
        })
    }

    /// The CA's certificate as PEM.
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The CA's certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the CA's public key, hexadecimal: what a join token carries.
    pub(crate) fn pin(&self) -> &str {
        &self.pin
    }

    /// A certificate chain and key (PEM) for one of our own ports.
    ///
    /// # Errors
    /// Where a name is not a DNS name or an address.
    pub(crate) fn server(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<(String, String), Error> {
        let failed = |source| Error::Certificate {
            what: format!("a server certificate for {}", names.join(", ")),
            source,
        };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
        params.distinguished_name = name("keyfleet-control");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        validity(&mut params, now, SERVER_LIFETIME);
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let chain = format!("{}{}", certificate.pem(), self.certificate_pem);
        Ok((chain, key.serialize_pem()))
    }

    /// Signs an agent's request. Only its public key is taken; every name is ours.
    ///
    /// # Errors
    /// [`Error::Request`] where the request is no good.
    pub(crate) fn agent(
        &self,
        request_der: &[u8],
        deployment: DeploymentId,
        enrolment: EnrolmentId,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Issued, Error> {
        let der = CertificateSigningRequestDer::from(request_der);
        let mut request =
            CertificateSigningRequestParams::from_der(&der).map_err(|_| Error::Request)?;
        let serial = uuid::Uuid::new_v4();
        let mut params = CertificateParams::default();
        params.distinguished_name = name("keyfleet-agent");
        let uri = format!("{URI_PREFIX}{deployment}:{enrolment}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(|_| Error::Request)?)];
        params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let not_after = validity(&mut params, now, lifetime);
        request.params = params;
        let certificate = request
            .signed_by(&self.issuer)
            .map_err(|_| Error::Request)?;
        let certificate = certificate.der().clone();
        // Read back as sessions will read it: leading zeros are written one way only.
        let serial = identity(&certificate, now).map(|identity| identity.serial);
        let serial = serial.ok_or(Error::Request)?;
        Ok(Issued {
            certificate,
            serial,
            not_after,
        })
    }
}

/// Who a client certificate (whose signature TLS has checked) says it is; `None` where it is not one of
/// ours or has ended. A session checks this again: a resumed TLS connection does not.
pub(crate) fn identity(certificate: &CertificateDer<'_>, now: Timestamp) -> Option<Identity> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let now = x509_parser::time::ASN1Time::from_timestamp(now.as_second()).ok()?;
    if !parsed.validity().is_valid_at(now) {
        return None;
    }
    let names = parsed.subject_alternative_name().ok()??;
    let uri = names.value.general_names.iter().find_map(|name| {
        let x509_parser::extensions::GeneralName::URI(uri) = name else {
            return None;
        };
        uri.strip_prefix(URI_PREFIX)
    })?;
    let (deployment, enrolment) = uri.split_once(':')?;
    Some(Identity {
        deployment: deployment.parse().ok()?,
        enrolment: enrolment.parse().ok()?,
        serial: hex(parsed.raw_serial()),
        not_after: Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?,
    })
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn validity(params: &mut CertificateParams, now: Timestamp, lifetime: Duration) -> Timestamp {
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

fn pem_certificate(pem: &str) -> Option<CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn an_agents_certificate_says_who_it_is_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let now = at("2026-11-23T12:00:00Z");
        create(dir.path(), now).unwrap();
        let authority = Authority::load(dir.path()).unwrap();
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let deployment = DeploymentId::new(uuid::Uuid::from_u128(1));
        let enrolment = EnrolmentId::new(uuid::Uuid::from_u128(2));
        let day = Duration::from_secs(86_400);
        let issued = authority
            .agent(request.der(), deployment, enrolment, now, day * 14)
            .unwrap();
        let found = identity(&issued.certificate, now).unwrap();
        assert_eq!((found.deployment, found.enrolment), (deployment, enrolment));
        assert_eq!(found.serial, issued.serial);
        assert_eq!(
            identity(&issued.certificate, at("2026-12-08T12:00:00Z")),
            None
        );
        assert!(matches!(
            authority.agent(b"nonsense", deployment, enrolment, now, day),
            Err(Error::Request)
        ));
        assert_eq!(authority.pin().len(), 64);
    }
}
