//! The built-in certificate authority: makes itself at `init`, signs agents' certificates and the servers' own, and
//! lets another one take its place.

mod files;
mod name;
mod parts;
mod verifier;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use keyfleet_core::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, MutexGuard};
use zeroize::Zeroizing;

pub(crate) use name::{Identity, Subject, identity};
pub(crate) use parts::hex;
use parts::{common_name, pem, validity};
pub(crate) use verifier::{AgentVerifier, provider};

/// The CA outlives every fleet that is not looked after; `ca rotate` replaces it before.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// How long a server's own certificate lives; see [`SERVER_RENEWAL`].
const SERVER_LIFETIME: Duration = Duration::from_secs(397 * 86_400);

/// A server makes itself a new certificate at every start, and when the present one is this old.
pub(crate) const SERVER_RENEWAL: Duration = Duration::from_secs(200 * 86_400);

/// Why the CA cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] crate::files::Error),
    /// A certificate or key cannot be made or read.
    #[error("{what} cannot be used")]
    Certificate {
        /// Which.
        what: String,
        /// Why.
        source: rcgen::Error,
    },
    /// A certificate and a key that belong together do not fit.
    #[error("{certificate} holds no certificate of the key in {key}: restore both from one backup")]
    Apart {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A CA's certificate is no good as such.
    #[error("the CA's certificate cannot be trusted by TLS")]
    Trust,
    /// TLS does not take our own certificate.
    #[error("the server's own certificate cannot be used")]
    Server(#[from] rustls::Error),
    /// A certificate request of an agent is no good.
    #[error("the certificate request is not a PKCS #10 request with a signature that fits")]
    Request,
    /// A rotation is under way already, or none is.
    #[error("{0}")]
    Rotation(&'static str),
}

/// A certificate for an agent.
pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) serial: String,
    pub(crate) not_after: Timestamp,
    /// Pin of the CA that signed it.
    pub(crate) ca: String,
}

/// An agent's request, its own signature checked. Only its public key is taken; every name is ours.
pub(crate) struct Request(CertificateSigningRequestParams);

/// One CA, ready to sign.
pub(crate) struct Ca {
    pub(crate) certificate_pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    /// SHA-256 of its public key, hexadecimal.
    pub(crate) pin: String,
    pub(crate) not_after: Timestamp,
}

/// The CAs that are trusted now.
pub(crate) struct Cas {
    /// It signs what our servers present.
    pub(crate) current: Arc<Ca>,
    /// While a rotation is under way: it signs agents' certificates.
    pub(crate) next: Option<Arc<Ca>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// The CA and, during a rotation, the next one; cheap to clone.
#[derive(Clone)]
pub struct Authority {
    inner: Arc<Inner>,
}

struct Inner {
    data_dir: PathBuf,
    cas: RwLock<Arc<Cas>>,
    changing: Mutex<()>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("pin", &self.pin())
            .finish_non_exhaustive()
    }
}

/// Where the CA's certificate lies; operators and agents may read it.
pub fn certificate_path(data_dir: &Path) -> PathBuf {
    data_dir.join("ca.pem")
}

/// Makes a new CA in `data_dir`, unless there is one.
///
/// # Errors
/// Where the files cannot be written.
pub fn create(data_dir: &Path, now: Timestamp) -> Result<(), Error> {
    if certificate_path(data_dir).exists() {
        return Ok(());
    }
    take(&files::create(data_dir, &Ca::make(now)?))
}

fn take(steps: &[files::Step]) -> Result<(), Error> {
    for step in steps {
        step.take()?;
    }
    Ok(())
}

impl Authority {
    /// Reads the CA that `init` made, and goes on with a rotation that a crash interrupted.
    ///
    /// # Errors
    /// Where it is missing or broken.
    pub fn load(data_dir: &Path) -> Result<Self, Error> {
        let (current, next) = files::load(data_dir)?;
        let cas = Cas::new(Arc::new(current), next.map(Arc::new))?;
        let inner = Inner {
            data_dir: data_dir.to_owned(),
            cas: RwLock::new(Arc::new(cas)),
            changing: Mutex::new(()),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The CAs as they are now.
    pub(crate) fn cas(&self) -> Arc<Cas> {
        let cas = self.inner.cas.read();
        cas.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// SHA-256 of the public key of the CA that our servers present, hexadecimal: what a join token carries.
    pub(crate) fn pin(&self) -> String {
        self.cas().current.pin.clone()
    }

    /// Keeps everybody else from changing the CAs.
    pub(crate) async fn lock(&self) -> MutexGuard<'_, ()> {
        self.inner.changing.lock().await
    }

    /// Makes the next CA. From here on both are trusted.
    ///
    /// # Errors
    /// Where a rotation is under way, or the files cannot be written: nothing has changed then.
    pub(crate) fn begin_rotation(&self, now: Timestamp) -> Result<(), Error> {
        let cas = self.cas();
        if cas.next.is_some() {
            return Err(Error::Rotation("a rotation of the CA is under way already"));
        }
        let next = Ca::make(now)?;
        take(&files::begin(&self.inner.data_dir, &cas.current, &next))?;
        self.put(Cas::new(cas.current.clone(), Some(Arc::new(next)))?);
        Ok(())
    }

    /// The next CA becomes the present one, and the older one is trusted no more.
    ///
    /// # Errors
    /// Where none is under way, or the files cannot be written. The next start goes on where that stopped.
    pub(crate) fn finish_rotation(&self) -> Result<(), Error> {
        let next = self.cas().next.clone();
        let next = next.ok_or(Error::Rotation("no rotation of the CA is under way"))?;
        take(&files::finish(&self.inner.data_dir, &next))?;
        self.put(Cas::new(next, None)?);
        Ok(())
    }

    fn put(&self, cas: Cas) {
        let mut place = self
            .inner
            .cas
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *place = Arc::new(cas);
    }
}

impl Cas {
    fn new(current: Arc<Ca>, next: Option<Arc<Ca>>) -> Result<Self, Error> {
        let verifier = verifier::against(std::iter::once(&*current).chain(next.as_deref()))?;
        Ok(Self {
            current,
            next,
            verifier,
        })
    }

    /// The certificates that an agent should trust, the one that our servers present first.
    pub(crate) fn certificates(&self) -> Vec<bytes::Bytes> {
        let trusted = std::iter::once(&self.current).chain(&self.next);
        trusted.map(|ca| ca.certificate.to_vec().into()).collect()
    }

    /// The CA that signs agents' certificates.
    pub(crate) fn signer(&self) -> &Ca {
        self.next.as_deref().unwrap_or(&self.current)
    }

    /// A certificate and key for one of our own ports, in the name of the present CA.
    ///
    /// # Errors
    /// Where a name is not a DNS name or an address.
    pub(crate) fn server(&self, names: &[String], now: Timestamp) -> Result<CertifiedKey, Error> {
        let failed = |source| Error::Certificate {
            what: format!("a server certificate for {}", names.join(", ")),
            source,
        };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
        params.distinguished_name = common_name("keyfleet-control");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        validity(&mut params, now, SERVER_LIFETIME);
        let ca = &self.current;
        let certificate = params.signed_by(&key, &ca.issuer).map_err(failed)?;
        let chain = vec![certificate.der().clone(), ca.certificate.clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(CertifiedKey::from_der(chain, key, &provider())?)
    }
}

impl Request {
    /// Reads a request and checks that whoever made it has the private key.
    ///
    /// # Errors
    /// [`Error::Request`] where it is no good.
    pub(crate) fn read(der: &[u8]) -> Result<Self, Error> {
        let der = CertificateSigningRequestDer::from(der);
        CertificateSigningRequestParams::from_der(&der)
            .map(Self)
            .map_err(|_| Error::Request)
    }

    /// The public key, as an X.509 SubjectPublicKeyInfo.
    pub(crate) fn public_key(&self) -> Vec<u8> {
        self.0.public_key.subject_public_key_info()
    }
}

impl Ca {
    /// A new CA.
    fn make(now: Timestamp) -> Result<Self, Error> {
        let failed = |source| Error::Certificate {
            what: "the new CA".to_owned(),
            source,
        };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("Keyfleet CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, now, CA_LIFETIME);
        let certificate = params.self_signed(&key).map_err(failed)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        let made = Self::read("the new CA", certificate.der(), &key_pem)?;
        made.ok_or(Error::Trust)
    }

    /// The CA of this certificate and key; `None` where they do not belong together.
    fn read(
        what: &str,
        certificate: &CertificateDer<'_>,
        key_pem: &str,
    ) -> Result<Option<Self>, Error> {
        let failed = |source| Error::Certificate {
            what: what.to_owned(),
            source,
        };
        let key = KeyPair::from_pem(key_pem).map_err(failed)?;
        let public_key = key.subject_public_key_info();
        let fits = x509_parser::parse_x509_certificate(certificate)
            .is_ok_and(|(_, parsed)| parsed.public_key().raw == public_key);
        let (true, Some(not_after)) = (fits, name::not_after(certificate)) else {
            return Ok(None);
        };
        let issuer = Issuer::from_ca_cert_der(certificate, key).map_err(failed)?;
        Ok(Some(Self {
            certificate_pem: pem(certificate),
            certificate: certificate.clone().into_owned(),
            issuer,
            pin: hex(&Sha256::digest(public_key)),
            not_after,
        }))
    }

    /// When it was made, to the second: for the next CA the beginning of the rotation. Read from its certificate, so
    /// that it survives a restart.
    pub(crate) fn made_at(&self) -> Timestamp {
        let made_at = self.not_after.saturating_sub(CA_LIFETIME);
        made_at.unwrap_or(self.not_after)
    }

    fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// Signs an agent's request.
    ///
    /// # Errors
    /// [`Error::Request`] where its key cannot be signed.
    pub(crate) fn sign(
        &self,
        request: Request,
        subject: &Subject,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Issued, Error> {
        let Request(mut request) = request;
        let serial = uuid::Uuid::new_v4();
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("keyfleet-agent");
        let uri = subject.uri().try_into().map_err(|_| Error::Request)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
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
        let serial = identity(&certificate).map(|identity| identity.serial);
        Ok(Issued {
            certificate,
            serial: serial.ok_or(Error::Request)?,
            not_after,
            ca: self.pin.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
