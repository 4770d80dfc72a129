//! The CA's files, and how the next CA takes the place of the present one.
//!
//! `ca.key` decides which CA is the present one; `ca.pem` holds its certificate, and during a rotation the next
//! one's too, so that operators can copy a file that stays right. A rotation is under way exactly while `ca-next.pem`
//! is there with a key of its own. Each change is a list of [`Step`]s of which one commits; [`load`] goes on from
//! whatever a crash has left.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::{Ca, Error, certificate_path};
use crate::files;

fn key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("ca.key")
}

fn next_certificate_path(data_dir: &Path) -> PathBuf {
    data_dir.join("ca-next.pem")
}

fn next_key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("ca-next.key")
}

/// One change of one file, whole or not at all.
pub(super) enum Step {
    Secret(PathBuf, Zeroizing<String>),
    Public(PathBuf, String),
    Remove(PathBuf),
}

impl Step {
    pub(super) fn take(&self) -> Result<(), files::Error> {
        match self {
            Self::Secret(path, text) => files::write_secret(path, text.as_bytes()),
            Self::Public(path, text) => files::write_public(path, text.as_bytes()),
            Self::Remove(path) => files::remove(path),
        }
    }
}

/// The first CA. The certificate commits.
pub(super) fn create(data_dir: &Path, ca: &Ca) -> Vec<Step> {
    vec![
        Step::Secret(key_path(data_dir), ca.key_pem()),
        Step::Public(certificate_path(data_dir), ca.certificate_pem.clone()),
    ]
}

/// A rotation begins. The last step commits; `ca.pem` is complete before, so that [`finish`] finds it so.
pub(super) fn begin(data_dir: &Path, current: &Ca, next: &Ca) -> Vec<Step> {
    vec![
        Step::Secret(next_key_path(data_dir), next.key_pem()),
        Step::Public(certificate_path(data_dir), bundle(current, Some(next))),
        Step::Public(
            next_certificate_path(data_dir),
            next.certificate_pem.clone(),
        ),
    ]
}

/// The next CA becomes the present one. The first step commits: the older key is replaced, and gone.
pub(super) fn finish(data_dir: &Path, next: &Ca) -> Vec<Step> {
    vec![
        Step::Secret(key_path(data_dir), next.key_pem()),
        Step::Public(certificate_path(data_dir), bundle(next, None)),
        Step::Remove(next_certificate_path(data_dir)),
        Step::Remove(next_key_path(data_dir)),
    ]
}

/// Reads the present CA and the next one, if there is one, and clears up what a crash has left.
pub(super) fn load(data_dir: &Path) -> Result<(Ca, Option<Ca>), Error> {
    let (certificates, keys) = (certificate_path(data_dir), key_path(data_dir));
    let text = files::read_text(&certificates)?;
    let key = Zeroizing::new(files::read_text(&keys)?);
    let mut current = None;
    for certificate in certificates_in(&text) {
        current = current.or(Ca::read("the CA", &certificate, &key)?);
    }
    let current = current.ok_or_else(|| Error::Apart {
        certificate: certificates.clone(),
        key: keys,
    })?;
    let next = next(data_dir)?.filter(|next| next.pin != current.pin);
    for step in settle(data_dir, &text, &current, next.as_ref()) {
        step.take()?;
    }
    Ok((current, next))
}

fn next(data_dir: &Path) -> Result<Option<Ca>, Error> {
    let (certificate, key) = (next_certificate_path(data_dir), next_key_path(data_dir));
    if !certificate.exists() {
        return Ok(None);
    }
    let (text, key_pem) = (
        files::read_text(&certificate)?,
        Zeroizing::new(files::read_text(&key)?),
    );
    let der = certificates_in(&text).into_iter().next();
    let read = der
        .map(|der| Ca::read("the next CA", &der, &key_pem))
        .transpose()?;
    read.flatten()
        .ok_or(Error::Apart { certificate, key })
        .map(Some)
}

/// What is still to be done for the files to say what is so.
fn settle(data_dir: &Path, found: &str, current: &Ca, next: Option<&Ca>) -> Vec<Step> {
    let mut steps = Vec::new();
    let meant = bundle(current, next);
    if certificates_in(found) != certificates_in(&meant) {
        steps.push(Step::Public(certificate_path(data_dir), meant));
    }
    if next.is_none() {
        let left = [next_certificate_path(data_dir), next_key_path(data_dir)];
        steps.extend(
            left.into_iter()
                .filter(|path| path.exists())
                .map(Step::Remove),
        );
    }
    steps
}

/// What `ca.pem` holds: the certificate that the servers present first.
fn bundle(current: &Ca, next: Option<&Ca>) -> String {
    let next = next.map_or("", |next| next.certificate_pem.as_str());
    format!("{}{next}", current.certificate_pem)
}

fn certificates_in(text: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .filter_map(Result::ok)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// A directory with a CA, and a rotation under way where asked for.
    fn dir(is_rotating: bool) -> (tempfile::TempDir, Ca, Ca) {
        let dir = tempfile::tempdir().unwrap();
        let (current, next) = (
            Ca::make(clock::now()).unwrap(),
            Ca::make(clock::now()).unwrap(),
        );
        let mut steps = create(dir.path(), &current);
        if is_rotating {
            steps.extend(begin(dir.path(), &current, &next));
        }
        steps.iter().for_each(|step| step.take().unwrap());
        (dir, current, next)
    }

    /// What the files say after a crash behind the first `done` steps, read twice; then the rotation goes to its end.
    fn check(
        is_rotating: bool,
        done: usize,
        expected: impl Fn(&Ca, &Ca) -> (String, Option<String>),
    ) {
        let (dir, current, next) = dir(is_rotating);
        let steps = match is_rotating {
            true => finish(dir.path(), &next),
            false => begin(dir.path(), &current, &next),
        };
        steps
            .iter()
            .take(done)
            .for_each(|step| step.take().unwrap());
        for _ in 0..2 {
            let (now, then) = load(dir.path()).unwrap();
            let found = (now.pin.clone(), then.as_ref().map(|ca| ca.pin.clone()));
            assert_eq!(
                found,
                expected(&current, &next),
                "rotating {is_rotating}, {done} steps"
            );
            let text = files::read_text(&certificate_path(dir.path())).unwrap();
            assert_eq!(text, bundle(&now, then.as_ref()));
            assert_eq!(next_key_path(dir.path()).exists(), then.is_some());
        }
    }

    #[test]
    fn a_crash_while_a_rotation_begins_leaves_it_begun_or_not() {
        for done in 0..=3 {
            check(false, done, |current, next| {
                (current.pin.clone(), (done == 3).then(|| next.pin.clone()))
            });
        }
    }

    #[test]
    fn a_crash_while_a_rotation_ends_leaves_it_ended_or_not() {
        for done in 0..=4 {
            check(true, done, |current, next| match done {
                0 => (current.pin.clone(), Some(next.pin.clone())),
                _ => (next.pin.clone(), None),
            });
        }
    }

    #[test]
    fn a_key_without_its_certificate_is_named() {
        let (dir, _, next) = dir(false);
        Step::Secret(key_path(dir.path()), next.key_pem())
            .take()
            .unwrap();
        let err = load(dir.path()).err().unwrap().to_string();
        assert!(err.contains("ca.pem") && err.contains("ca.key"), "{err}");
    }
}
