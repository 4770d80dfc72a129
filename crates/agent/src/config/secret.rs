//! Secrets come from files, one each.

use std::fs;
use std::path::Path;

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::Error;

/// The longest file that is read as a secret.
const SECRET_BYTES_MAX: u64 = 16 * 1024;

/// Reads a secret from a file: one trailing line break is dropped, any other white space is refused.
///
/// # Errors
/// Names the file and says what is wrong with it; never what is in it.
pub fn read_secret(what: &'static str, path: &Path) -> Result<SecretString, Error> {
    let failed = |source| Error::File {
        what,
        path: path.to_owned(),
        source,
    };
    let refused = |problem: &str| Error::Secret {
        what,
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > SECRET_BYTES_MAX {
        return Err(refused("it is not a file of at most 16 KiB"));
    }
    warn_if_open(path, &metadata);
    let bytes = Zeroizing::new(fs::read(path).map_err(failed)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| refused("it is not text"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(refused("it is empty"));
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(refused(
            "it holds white space; it must hold the secret alone, on one line",
        ));
    }
    Ok(SecretString::from(text))
}

#[cfg(unix)]
fn warn_if_open(path: &Path, metadata: &fs::Metadata) {
    use std::os::unix::fs::PermissionsExt;
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "other users may read this secret; set its mode to 0600");
    }
}

#[cfg(not(unix))]
fn warn_if_open(_: &Path, _: &fs::Metadata) {}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn secrets_come_from_files_and_only_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let check = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            read_secret("the test's secret", &path).map(|secret| secret.expose_secret().to_owned())
        };
        assert_eq!(check(b"abc\n").unwrap(), "abc");
        assert_eq!(check(b"abc\r\n").unwrap(), "abc");
        for bad in [&b""[..], b"\n", b"abc\n\n", b"a b", b" abc", b"abc\xff"] {
            let text = check(bad).unwrap_err().to_string();
            assert!(
                text.contains("the test's secret") && !text.contains("abc"),
                "{text}"
            );
        }
        assert!(read_secret("it", Path::new("/nowhere/at/all")).is_err());
    }
}
