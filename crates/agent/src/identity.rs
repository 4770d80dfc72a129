//! Who this agent is: what enrolment and renewal gave it, kept in the state directory.
//!
//! Three files, each replaced by one rename, so that a crash at any moment leaves a usable identity:
//! `identity.pem` is the identity that opened a session; `candidate.pem` is its renewal, which replaces it when it
//! opens one; `enrolment.pem` holds the keys of an enrolment that was asked for and not answered yet.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use keyfleet_core::id::{DeploymentId, EnrolmentId};
use keyfleet_seal::SealingSecret;
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::files::{private_dir, sync_parent, write_atomically};
use text::{CERTIFICATE, PRIVATE_KEY, SEALING_KEY, Text};

mod text;

const IDENTITY: &str = "identity.pem";
const CANDIDATE: &str = "candidate.pem";
const ENROLMENT: &str = "enrolment.pem";

const TITLE: &str = "Identity of a Keyfleet agent. It holds private keys: copy it nowhere.";

/// What proves to control that this is the deployment's agent, and what keys are sealed to.
pub struct Identity {
    /// The deployment.
    pub deployment: DeploymentId,
    /// This enrolment of it.
    pub enrolment: EnrolmentId,
    /// The client certificate.
    pub certificate: CertificateDer<'static>,
    /// Control's certificate must come from one of these: there are two while the CA is replaced.
    pub cas: Vec<CertificateDer<'static>>,
    /// When the certificate came, by this host's clock.
    pub received_at: Timestamp,
    /// When the certificate ends, by control's clock.
    pub not_after: Timestamp,
    /// The join token that gave it.
    pub token: TokenHash,
    /// What this host made itself.
    pub keys: Keys,
}

/// The private keys, which never leave the host.
pub struct Keys {
    /// The private key of the client certificate, PKCS #8.
    certificate: Zeroizing<Vec<u8>>,
    /// What keys are sealed to.
    sealing: SealingSecret,
}

/// The SHA-256 of a join token, in hexadecimal digits. The token has 256 random bits, so this gives nothing away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenHash(pub String);

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
    #[error("{} does not hold {what}: restore it, or delete it and enrol with the join token that `keyfleet deployment replace` prints", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// A key cannot be made.
    #[error("cannot make a key")]
    Key(#[source] rcgen::Error),
    /// No randomness for the sealing secret.
    #[error("cannot make a sealing secret")]
    Sealing(#[source] keyfleet_seal::Error),
}

impl Keys {
    /// New ones.
    ///
    /// # Errors
    /// [`Error::Key`] and [`Error::Sealing`].
    pub fn generate() -> Result<Self, Error> {
        Ok(Self {
            certificate: new_key()?,
            sealing: SealingSecret::generate().map_err(Error::Sealing)?,
        })
    }

    /// The same once more, for a second owner.
    ///
    /// # Errors
    /// [`Error::Sealing`].
    pub fn again(&self) -> Result<Self, Error> {
        Ok(Self {
            certificate: self.certificate.clone(),
            sealing: SealingSecret::from_bytes(self.sealing.to_bytes().as_slice())
                .map_err(Error::Sealing)?,
        })
    }

    /// A new key for the next certificate; keys are sealed to the same as before.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn renewed(&self) -> Result<Self, Error> {
        Ok(Self {
            certificate: new_key()?,
            ..self.again()?
        })
    }

    /// What keys are sealed to.
    pub fn sealing(&self) -> &SealingSecret {
        &self.sealing
    }

    /// For TLS.
    pub(crate) fn private_key(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.certificate.to_vec())
    }

    /// For a certificate request.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub(crate) fn key_pair(&self) -> Result<KeyPair, Error> {
        KeyPair::try_from(&self.private_key()).map_err(Error::Key)
    }

    fn write(&self, text: &mut Text) {
        text.block(PRIVATE_KEY, &self.certificate);
        text.block(SEALING_KEY, self.sealing.to_bytes().as_slice());
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let keys = Self {
            certificate: text::block(text, PRIVATE_KEY).ok_or("a private key")?,
            sealing: text::block(text, SEALING_KEY)
                .and_then(|bytes| SealingSecret::from_bytes(&bytes).ok())
                .ok_or("a sealing key")?,
        };
        keys.key_pair().map_err(|_| "a private key")?;
        Ok(keys)
    }
}

fn new_key() -> Result<Zeroizing<Vec<u8>>, Error> {
    let pair = KeyPair::generate().map_err(Error::Key)?;
    Ok(Zeroizing::new(pair.serialize_der()))
}

impl Identity {
    /// The same once more, for a second owner.
    ///
    /// # Errors
    /// [`Error::Sealing`].
    pub fn again(&self) -> Result<Self, Error> {
        Ok(Self {
            certificate: self.certificate.clone(),
            cas: self.cas.clone(),
            token: self.token.clone(),
            keys: self.keys.again()?,
            ..*self
        })
    }

    /// The identity in this state directory; `None` where the agent has not enrolled yet.
    ///
    /// # Errors
    /// Names the file.
    pub fn load(state_dir: &Path) -> Result<Option<Self>, Error> {
        load(&state_dir.join(IDENTITY), Self::read)
    }

    /// The renewal of this identity that has not opened a session yet. One that cannot be used, or is left over from an
    /// earlier enrolment, is dropped: the identity itself is good.
    pub fn load_candidate(&self, state_dir: &Path) -> Option<Self> {
        let loaded = load(&state_dir.join(CANDIDATE), Self::read);
        match loaded {
            Ok(candidate)
                if candidate
                    .as_ref()
                    .is_none_or(|c| c.enrolment == self.enrolment) =>
            {
                return candidate;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(reason = %keyfleet_telemetry::error_chain(&error), "the renewed certificate cannot be used; keeping the old one");
            }
        }
        drop_candidate(state_dir);
        None
    }

    /// Keeps the identity of an enrolment. Whatever was there is void.
    ///
    /// # Errors
    /// Names the file.
    pub fn save(&self, state_dir: &Path) -> Result<(), Error> {
        save(&state_dir.join(IDENTITY), &self.write())?;
        forget(&state_dir.join(CANDIDATE));
        forget(&state_dir.join(ENROLMENT));
        Ok(())
    }

    /// Keeps this renewal beside the identity until [`commit_candidate`].
    ///
    /// # Errors
    /// Names the file.
    pub fn save_candidate(&self, state_dir: &Path) -> Result<(), Error> {
        save(&state_dir.join(CANDIDATE), &self.write())
    }

    fn write(&self) -> Text {
        let mut text = Text::new(TITLE);
        text.field("Deployment", &self.deployment.to_string());
        text.field("Enrolment", &self.enrolment.to_string());
        text.field("Received", &self.received_at.to_string());
        text.field("Ends", &self.not_after.to_string());
        text.field("Join token SHA-256", &self.token.0);
        text.block(CERTIFICATE, &self.certificate);
        for ca in &self.cas {
            text.block(CERTIFICATE, ca);
        }
        self.keys.write(&mut text);
        text
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let mut certificates = text::blocks(text, CERTIFICATE)
            .ok_or("certificates")?
            .into_iter()
            .map(|der| CertificateDer::from(der.to_vec()));
        let certificate = certificates.next().ok_or("a certificate")?;
        let cas: Vec<_> = certificates.collect();
        if cas.is_empty() {
            return Err("the certificate of control's CA");
        }
        Ok(Self {
            deployment: parsed(text, "Deployment").ok_or("a deployment's id")?,
            enrolment: parsed(text, "Enrolment").ok_or("an enrolment's id")?,
            certificate,
            cas,
            received_at: parsed(text, "Received").ok_or("when the certificate came")?,
            not_after: parsed(text, "Ends").ok_or("when the certificate ends")?,
            token: TokenHash(parsed(text, "Join token SHA-256").ok_or("the hash of a join token")?),
            keys: Keys::read(text)?,
        })
    }
}

/// Makes the renewal the identity: it has opened a session.
///
/// # Errors
/// Names the file; the renewal is still there then.
pub fn commit_candidate(state_dir: &Path) -> Result<(), Error> {
    let (candidate, identity) = (state_dir.join(CANDIDATE), state_dir.join(IDENTITY));
    fs::rename(&candidate, &identity)
        .and_then(|()| sync_parent(&identity))
        .map_err(at(&candidate))
}

/// Forgets a renewal that is no good.
pub fn drop_candidate(state_dir: &Path) {
    forget(&state_dir.join(CANDIDATE));
}

/// The keys for an enrolment with this token: those of a request that was not answered, else new ones. They are on
/// disk before anybody hears of them, so that the very same request can be repeated after a crash.
///
/// # Errors
/// Where they cannot be made or kept.
pub fn enrolment_keys(state_dir: &Path, token: &TokenHash) -> Result<Keys, Error> {
    let path = state_dir.join(ENROLMENT);
    let read = |text: &str| {
        let same = text::field(text, "Join token SHA-256") == Some(token.0.as_str());
        Keys::read(text).map(|keys| same.then_some(keys))
    };
    // What is broken or was meant for another token is replaced.
    if let Ok(Some(Some(keys))) = load(&path, read) {
        return Ok(keys);
    }
    let keys = Keys::generate()?;
    let mut text = Text::new(TITLE);
    text.field("Join token SHA-256", &token.0);
    keys.write(&mut text);
    save(&path, &text)?;
    Ok(keys)
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("deployment", &self.deployment)
            .field("enrolment", &self.enrolment)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        path: path.clone(),
        source,
    }
}

fn load<T>(
    path: &Path,
    read: impl FnOnce(&str) -> Result<T, &'static str>,
) -> Result<Option<T>, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path)(error)),
    };
    std::str::from_utf8(&bytes)
        .map_err(|_| "text")
        .and_then(read)
        .map(Some)
        .map_err(|what| Error::Damaged {
            path: path.to_owned(),
            what,
        })
}

fn save(path: &Path, text: &Text) -> Result<(), Error> {
    path.parent()
        .map_or(Ok(()), private_dir)
        .and_then(|()| write_atomically(path, text.as_bytes()))
        .map_err(at(path))
}

/// What cannot be deleted is found out of date by its next reader.
fn forget(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot delete a file of the agent's state");
        }
        Ok(()) | Err(_) => {}
    }
}

fn parsed<T: std::str::FromStr>(text: &str, field: &str) -> Option<T> {
    text::field(text, field)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let keys = Keys::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["agent".to_owned()])
            .unwrap()
            .self_signed(&keys.key_pair().unwrap())
            .unwrap();
        Identity {
            deployment: "3f2504e0-4f89-41d3-9a0c-0305e82c3301".parse().unwrap(),
            enrolment: "3f2504e0-4f89-41d3-9a0c-0305e82c3302".parse().unwrap(),
            certificate: certificate.der().clone(),
            cas: vec![certificate.der().clone(), certificate.der().clone()],
            received_at: "2026-11-23T12:00:00.5Z".parse().unwrap(),
            not_after: "2026-12-07T12:00:00Z".parse().unwrap(),
            token: TokenHash("0f".repeat(32)),
            keys,
        }
    }

    fn same(one: &Identity, other: &Identity) -> bool {
        one.write().as_bytes() == other.write().as_bytes()
    }

    #[test]
    fn an_identity_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        assert!(Identity::load(&state).unwrap().is_none());
        let saved = identity();
        saved.save(&state).unwrap();
        let loaded = Identity::load(&state).unwrap().unwrap();
        assert!(same(&loaded, &saved));
        assert_eq!(loaded.cas.len(), 2);
        assert_eq!(
            loaded.keys.sealing().public(),
            saved.keys.sealing().public()
        );
        assert!(!format!("{loaded:?} {:?}", loaded.keys).contains("PRIVATE"));
    }

    #[test]
    #[cfg(unix)]
    fn nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let identity = identity();
        identity.save(&state).unwrap();
        identity.save_candidate(&state).unwrap();
        enrolment_keys(&state, &identity.token).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        for file in [IDENTITY, CANDIDATE, ENROLMENT] {
            assert_eq!(mode(&state.join(file)), 0o600);
        }
    }

    #[test]
    fn a_damaged_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(IDENTITY);
        identity().save(directory.path()).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let damages = [
            ("Deployment: 3", "Deployment: x"),
            ("Enrolment", "Enrolement"),
            ("Received: 2", "Received: "),
            ("Ends", "End"),
            ("BEGIN CERTIFICATE", "BEGIN certificate"),
            ("BEGIN PRIVATE KEY-----\n", "BEGIN PRIVATE KEY-----\nAAAA"),
            ("SEALING", "ceiling"),
        ];
        for (from, to) in damages {
            fs::write(&path, good.replace(from, to)).unwrap();
            let text = Identity::load(directory.path()).unwrap_err().to_string();
            assert!(
                text.contains(IDENTITY) && text.contains("replace"),
                "{from}: {text}"
            );
        }
        for length in 0..good.len() {
            fs::write(&path, good.get(..length).unwrap_or_default()).unwrap();
            let cut = Identity::load(directory.path());
            assert!(cut.is_err() || length + 1 == good.len(), "cut at {length}");
        }
    }

    #[test]
    fn a_candidate_becomes_the_identity_or_leaves_no_trace() {
        let directory = tempfile::tempdir().unwrap();
        let (state, old) = (directory.path(), identity());
        old.save(state).unwrap();
        assert!(old.load_candidate(state).is_none());
        let new = identity();
        new.save_candidate(state).unwrap();
        // A crash here: both are there, and the old one is still the identity.
        assert!(same(&Identity::load(state).unwrap().unwrap(), &old));
        assert!(same(&old.load_candidate(state).unwrap(), &new));
        commit_candidate(state).unwrap();
        assert!(same(&Identity::load(state).unwrap().unwrap(), &new));
        assert!(new.load_candidate(state).is_none());
        fs::write(state.join(CANDIDATE), "half a cand").unwrap();
        assert!(new.load_candidate(state).is_none());
        assert!(!state.join(CANDIDATE).exists());
        let stranger = Identity {
            enrolment: "3f2504e0-4f89-41d3-9a0c-0305e82c3309".parse().unwrap(),
            ..identity()
        };
        stranger.save_candidate(state).unwrap();
        assert!(new.load_candidate(state).is_none());
        assert!(commit_candidate(state).is_err());
    }

    #[test]
    fn the_keys_of_an_enrolment_are_kept_until_it_is_answered() {
        let directory = tempfile::tempdir().unwrap();
        let (state, token) = (directory.path(), TokenHash("aa".repeat(32)));
        let public = |keys: &Keys| keys.key_pair().unwrap().serialize_der();
        let first = enrolment_keys(state, &token).unwrap();
        let again = enrolment_keys(state, &token).unwrap();
        assert_eq!(public(&first), public(&again));
        assert_eq!(first.sealing().public(), again.sealing().public());
        let other = enrolment_keys(state, &TokenHash("bb".repeat(32))).unwrap();
        assert_ne!(public(&first), public(&other));
        fs::write(state.join(ENROLMENT), "broken").unwrap();
        let new = enrolment_keys(state, &token).unwrap();
        assert_ne!(public(&first), public(&new));
        identity().save(state).unwrap();
        assert!(!state.join(ENROLMENT).exists());
    }
}
