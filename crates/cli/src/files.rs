//! Files the operator names: secrets read and written with care, and manifests.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use keyfleet_proto::v1::ManifestFile;

/// Most bytes of one private file: a context file with hundreds of CA certificates stays far below.
const PRIVATE_BYTES_MAX: u64 = 4 << 20;

/// Most bytes of all manifests together: gRPC messages end at 4 MiB by default, and names need room too.
const MANIFEST_BYTES_MAX: u64 = 3 << 20;

/// Deepest folder below a `-f` folder.
const DEPTH_MAX: usize = 32;

/// The name that stands for standard input.
const STDIN: &str = "-";

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Not there, not readable, a folder.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read a file that holds a secret.
    #[error("{} holds a secret but others may read it (mode {mode:04o})", path.display())]
    TooOpen {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that must be new is there.
    #[error("{} is there already", path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// Not UTF-8.
    #[error("{} is not text in UTF-8", path.display())]
    NotText {
        /// Which file.
        path: PathBuf,
    },
    /// Larger than it may be.
    #[error("{} is larger than {} MiB", path.display(), bytes_max >> 20)]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// All manifests together are too large.
    #[error("the manifests are larger than {} MiB together (reached at {})", MANIFEST_BYTES_MAX >> 20, path.display())]
    TooMuch {
        /// The file that passed the limit.
        path: PathBuf,
    },
    /// A folder without manifests.
    #[error("no *.yaml or *.yml file in {} or below", path.display())]
    NoManifests {
        /// Which folder.
        path: PathBuf,
    },
    /// A folder too deep, or a loop.
    #[error("{} is more than {DEPTH_MAX} folders deep", path.display())]
    TooDeep {
        /// Which folder.
        path: PathBuf,
    },
    /// `-f -` twice.
    #[error("standard input can be read only once: `-f -` is given twice")]
    StdinTwice,
}

impl Error {
    /// What the operator can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::TooOpen { path, .. } => Some(format!("run `chmod 600 {}`", path.display())),
            Self::Exists { .. } => Some("choose another file, or remove this one first".to_owned()),
            Self::TooMuch { .. } => Some("apply them in several parts".to_owned()),
            Self::Read { .. }
            | Self::Write { .. }
            | Self::NotText { .. }
            | Self::TooLarge { .. }
            | Self::NoManifests { .. }
            | Self::TooDeep { .. }
            | Self::StdinTwice => None,
        }
    }
}

/// Reads a file that holds a secret.
///
/// # Errors
/// Refuses a regular file that group or others may read; pipes have no such bits.
pub(crate) fn read_private(path: &Path) -> Result<String, Error> {
    let read_err = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(read_err)?;
    let metadata = file.metadata().map_err(read_err)?;
    let mode = metadata.mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(Error::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    read_text(path, file, PRIVATE_BYTES_MAX)
}

/// Reads a text file that is no secret.
///
/// # Errors
/// Where it cannot be read, is too large or is not text.
pub(crate) fn read_public(path: &Path) -> Result<String, Error> {
    let file = File::open(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    read_text(path, file, PRIVATE_BYTES_MAX)
}

/// Writes a file of mode 0600 in one step: a reader sees the old text or the new one, never a half.
///
/// # Errors
/// Where the folder cannot be made or the file not be written.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let write_err = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    // A configuration file is often a link into another folder; the link stays a link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = target.parent().unwrap_or(Path::new("."));
    create_private_dir(dir).map_err(write_err)?;
    let temporary = target.with_extension(format!("{}.tmp", std::process::id()));
    let outcome = write_new(&temporary, text).and_then(|()| fs::rename(&temporary, &target));
    if outcome.is_err() {
        // Nothing is lost when this fails too: the error below is the one that matters.
        let _ = fs::remove_file(&temporary);
    }
    outcome.map_err(write_err)
}

/// Makes a new empty file of mode 0600, to be filled later.
///
/// # Errors
/// [`Error::Exists`] where the file is there already.
pub(crate) fn create_private(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| {
            let path = path.to_owned();
            if source.kind() == io::ErrorKind::AlreadyExists {
                Error::Exists { path }
            } else {
                Error::Write { path, source }
            }
        })
}

/// Standard input as text.
///
/// # Errors
/// Where it is too large or not text.
pub(crate) fn read_stdin() -> Result<String, Error> {
    read_text(
        Path::new("standard input"),
        io::stdin().lock(),
        MANIFEST_BYTES_MAX,
    )
}

/// The manifests of all `-f` arguments: a file, a folder with everything below it, or `-`.
///
/// # Errors
/// Names the first file that cannot be used.
pub(crate) fn manifests(paths: &[PathBuf]) -> Result<Vec<ManifestFile>, Error> {
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == STDIN {
            files.push(stdin_manifest(&files)?);
        } else if path.is_dir() {
            files.extend(folder_manifests(path)?);
        } else {
            files.push(manifest(path)?);
        }
    }
    let mut n_bytes: u64 = 0;
    for file in &files {
        n_bytes += file.text.len() as u64;
        if n_bytes > MANIFEST_BYTES_MAX {
            return Err(Error::TooMuch {
                path: PathBuf::from(&file.name),
            });
        }
    }
    Ok(files)
}

/// How standard input is named in errors.
const STDIN_NAME: &str = "<stdin>";

fn stdin_manifest(files: &[ManifestFile]) -> Result<ManifestFile, Error> {
    if files.iter().any(|file| file.name == STDIN_NAME) {
        return Err(Error::StdinTwice);
    }
    Ok(ManifestFile {
        name: STDIN_NAME.to_owned(),
        text: read_stdin()?,
    })
}

fn folder_manifests(dir: &Path) -> Result<Vec<ManifestFile>, Error> {
    let mut found = Vec::new();
    collect(dir, DEPTH_MAX, &mut found)?;
    if found.is_empty() {
        return Err(Error::NoManifests {
            path: dir.to_owned(),
        });
    }
    found.sort();
    found.iter().map(|path| manifest(path)).collect()
}

/// Collects the YAML files below a folder; hidden files and folders are left out, as shells do.
fn collect(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let read_err = |source| Error::Read {
        path: dir.to_owned(),
        source,
    };
    if depth == 0 {
        return Err(Error::TooDeep {
            path: dir.to_owned(),
        });
    }
    for entry in fs::read_dir(dir).map_err(read_err)? {
        let path = entry.map_err(read_err)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let yaml = path
            .extension()
            .is_some_and(|ext| ext == "yaml" || ext == "yml");
        if hidden {
            continue;
        }
        if path.is_dir() {
            collect(&path, depth - 1, found)?;
        } else if yaml {
            found.push(path);
        }
    }
    Ok(())
}

fn manifest(path: &Path) -> Result<ManifestFile, Error> {
    let file = File::open(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let text = read_text(path, file, MANIFEST_BYTES_MAX)?;
    Ok(ManifestFile {
        name: path.display().to_string(),
        text,
    })
}

fn read_text(path: &Path, reader: impl io::Read, bytes_max: u64) -> Result<String, Error> {
    let mut bytes = Vec::new();
    reader
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > bytes_max {
        return Err(Error::TooLarge {
            path: path.to_owned(),
            bytes_max,
        });
    }
    String::from_utf8(bytes).map_err(|_| Error::NotText {
        path: path.to_owned(),
    })
}

fn create_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_sorted_and_without_other_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/.git")).unwrap();
        for name in [
            "z.yaml",
            "b/a.yml",
            "b/readme.md",
            "b/.git/x.yaml",
            ".hidden.yaml",
        ] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let files = manifests(&[dir.path().to_owned()]).unwrap();
        let texts: Vec<_> = files.iter().map(|file| file.text.as_str()).collect();
        assert_eq!(texts, ["b/a.yml", "z.yaml"]);
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let check = |path: &Path, expect: &str| {
            let err = manifests(&[path.to_owned()]).unwrap_err().to_string();
            assert!(
                err.contains(expect) && err.contains(&path.display().to_string()),
                "{err}"
            );
        };
        check(dir.path(), "no *.yaml");
        check(&dir.path().join("none.yaml"), "cannot read");
        let binary = dir.path().join("binary.yaml");
        fs::write(&binary, [0xff, 0xfe]).unwrap();
        check(&binary, "not text");
        let large = dir.path().join("large.yaml");
        fs::write(
            &large,
            " ".repeat(usize::try_from(MANIFEST_BYTES_MAX).unwrap() + 1),
        )
        .unwrap();
        check(&large, "larger than 3 MiB");
    }

    #[test]
    fn a_private_file_is_written_in_one_step_and_stays_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/config.toml");
        write_private(&path, "one").unwrap();
        write_private(&path, "two").unwrap();
        assert_eq!(read_private(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777,
            0o700
        );
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no temporary file is left"
        );
        assert!(matches!(create_private(&path), Err(Error::Exists { .. })));
    }
}
