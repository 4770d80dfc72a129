//! Which client certificates the agents' port lets in.
//!
//! An ended certificate passes the handshake, for its agent may still trade it for a new one: everything but the
//! end is checked here, and every call looks at the end itself.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore, SignatureScheme,
};

use super::name::not_after;
use super::{Authority, Ca, Error};

/// Checks against those CAs that are trusted at the moment of each handshake.
#[derive(Debug)]
pub(crate) struct AgentVerifier {
    authority: Authority,
}

impl AgentVerifier {
    pub(crate) fn new(authority: Authority) -> Self {
        Self { authority }
    }

    fn inner(&self) -> Arc<dyn ClientCertVerifier> {
        self.authority.cas().verifier.clone()
    }
}

impl Authority {
    /// True where a CA that is trusted now signed this certificate, which may have ended.
    pub(crate) fn trusts(&self, certificate: &CertificateDer<'_>) -> bool {
        let moment = moment(certificate, UnixTime::now());
        let verifier = self.cas().verifier.clone();
        verifier
            .verify_client_cert(certificate, &[], moment)
            .is_ok()
    }
}

/// The checks of chain and signature against these CAs.
pub(super) fn against<'a>(
    cas: impl IntoIterator<Item = &'a Ca>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots
            .add(ca.certificate.clone())
            .map_err(|_| Error::Trust)?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|_| Error::Trust)
}

/// The one provider of TLS.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The last moment at which the certificate was good, where that has passed; else now.
fn moment(certificate: &CertificateDer<'_>, now: UnixTime) -> UnixTime {
    let ended = not_after(certificate).and_then(|end| u64::try_from(end.as_second()).ok());
    match ended {
        Some(end) if end < now.as_secs() => UnixTime::since_unix_epoch(Duration::from_secs(end)),
        Some(_) | None => now,
    }
}

impl ClientCertVerifier for AgentVerifier {
    // Enrolment comes without a certificate; every other call asks for one itself.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    // Agents have one certificate and need no hint which to choose.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        let moment = moment(end_entity, now);
        self.inner()
            .verify_client_cert(end_entity, intermediates, moment)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner()
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner()
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner().supported_verify_schemes()
    }
}
