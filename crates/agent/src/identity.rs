//! Who this agent is: what enrolment gave it, kept in the state directory.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyfleet_core::id::{DeploymentId, EnrolmentId};
use keyfleet_seal::SealingSecret;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::files::{private_dir, sync_parent, write_atomically};

const DIRECTORY: &str = "identity";
const KEY: &str = "key.pem";
const CERTIFICATE: &str = "certificate.pem";
const CA: &str = "ca.pem";
const SEALING: &str = "sealing.key";
const DEPLOYMENT: &str = "deployment";
const ENROLMENT: &str = "enrolment";

/// What proves to control that this is the deployment's agent, and what keys are sealed to.
pub struct Identity {
    /// The deployment.
    pub deployment: DeploymentId,
    /// This enrolment of it.
    pub enrolment: EnrolmentId,
    /// The client certificate.
    pub certificate: CertificateDer<'static>,
    /// The one CA that control's certificate must come from.
    pub ca: CertificateDer<'static>,
    /// The private key of the client certificate, PKCS #8 in PEM.
    pub key_pem: Zeroizing<String>,
    /// What keys are sealed to.
    pub sealing: SealingSecret,
}

/// Why the identity cannot be kept or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory or a file in it cannot be read or written.
    #[error("cannot access {} of the agent's identity: check owner and space of the state directory", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file that holds something else than it should.
    #[error("{} does not hold {what}: restore it, or delete the whole directory and enrol with a new join token", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
}

impl Identity {
    /// The identity in this state directory; `None` where the agent has not enrolled yet.
    ///
    /// # Errors
    /// Names the file.
    pub fn load(state_dir: &Path) -> Result<Option<Self>, Error> {
        let directory = state_dir.join(DIRECTORY);
        if !directory.exists() {
            return Ok(None);
        }
        let file = |name: &str| directory.join(name);
        let key_path = file(KEY);
        let key_pem = Zeroizing::new(text(&key_path, "a private key")?);
        if PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).is_err() {
            return Err(Error::Damaged {
                path: key_path,
                what: "a private key",
            });
        }
        let sealing = Zeroizing::new(bytes(&file(SEALING))?);
        let sealing = SealingSecret::from_bytes(&sealing).map_err(|_| Error::Damaged {
            path: file(SEALING),
            what: "a sealing secret",
        })?;
        Ok(Some(Self {
            deployment: parsed(&file(DEPLOYMENT), "a deployment's id")?,
            enrolment: parsed(&file(ENROLMENT), "an enrolment's id")?,
            certificate: certificate(&file(CERTIFICATE))?,
            ca: certificate(&file(CA))?,
            key_pem,
            sealing,
        }))
    }

    /// Keeps the identity. All of it appears at once: the files are written beside and the directory is renamed.
    ///
    /// # Errors
    /// Names the file.
    pub fn save(&self, state_dir: &Path) -> Result<(), Error> {
        let new = state_dir.join("identity.new");
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        private_dir(state_dir).map_err(at(state_dir))?;
        if new.exists() {
            fs::remove_dir_all(&new).map_err(at(&new))?;
        }
        private_dir(&new).map_err(at(&new))?;
        let sealing = self.sealing.to_bytes();
        let (deployment, enrolment) = (self.deployment.to_string(), self.enrolment.to_string());
        for (name, content) in [
            (KEY, self.key_pem.as_bytes()),
            (CERTIFICATE, pem(&self.certificate).as_bytes()),
            (CA, pem(&self.ca).as_bytes()),
            (SEALING, sealing.as_slice()),
            (DEPLOYMENT, deployment.as_bytes()),
            (ENROLMENT, enrolment.as_bytes()),
        ] {
            let path = new.join(name);
            write_atomically(&path, content).map_err(at(&path))?;
        }
        let directory = state_dir.join(DIRECTORY);
        fs::rename(&new, &directory)
            .and_then(|()| sync_parent(&directory))
            .map_err(at(&directory))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("deployment", &self.deployment)
            .field("enrolment", &self.enrolment)
            .finish_non_exhaustive()
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })
}

fn text(path: &Path, what: &'static str) -> Result<String, Error> {
    String::from_utf8(bytes(path)?).map_err(|_| Error::Damaged {
        path: path.to_owned(),
        what,
    })
}

fn parsed<T: std::str::FromStr>(path: &Path, what: &'static str) -> Result<T, Error> {
    text(path, what)?
        .trim()
        .parse()
        .map_err(|_| Error::Damaged {
            path: path.to_owned(),
            what,
        })
}

fn certificate(path: &Path) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(&bytes(path)?).map_err(|_| Error::Damaged {
        path: path.to_owned(),
        what: "a certificate",
    })
}

/// A certificate as PEM (RFC 7468), so that an operator can look at it with the usual tools.
fn pem(certificate: &CertificateDer<'_>) -> String {
    let base64 = STANDARD.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = base64.as_str();
    while let Some((line, after)) = rest.split_at_checked(64) {
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    if !rest.is_empty() {
        text.push_str(rest);
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["agent".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        Identity {
            deployment: "3f2504e0-4f89-41d3-9a0c-0305e82c3301".parse().unwrap(),
            enrolment: "3f2504e0-4f89-41d3-9a0c-0305e82c3302".parse().unwrap(),
            certificate: certificate.der().clone(),
            ca: certificate.der().clone(),
            key_pem: Zeroizing::new(key.serialize_pem()),
            sealing: SealingSecret::generate().unwrap(),
        }
    }

    #[test]
    fn an_identity_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        assert!(Identity::load(&state).unwrap().is_none());
        let saved = identity();
        saved.save(&state).unwrap();
        let loaded = Identity::load(&state).unwrap().unwrap();
        assert_eq!(loaded.deployment, saved.deployment);
        assert_eq!(loaded.certificate, saved.certificate);
        assert_eq!(loaded.sealing.public(), saved.sealing.public());
        assert!(!format!("{loaded:?}").contains("PRIVATE"));
    }

    #[test]
    #[cfg(unix)]
    fn nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        identity().save(&state).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        assert_eq!(mode(&state.join(DIRECTORY).join(SEALING)), 0o600);
        assert_eq!(mode(&state.join(DIRECTORY).join(KEY)), 0o600);
    }

    #[test]
    fn a_damaged_file_is_named() {
        for name in [KEY, CERTIFICATE, CA, SEALING, DEPLOYMENT, ENROLMENT] {
            let directory = tempfile::tempdir().unwrap();
            identity().save(directory.path()).unwrap();
            fs::write(directory.path().join(DIRECTORY).join(name), "nonsense").unwrap();
            let text = Identity::load(directory.path()).unwrap_err().to_string();
            assert!(text.contains(name), "{text}");
        }
    }
}
