//! Why the store could not do what was asked, and what of it is the disk's doing.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::ErrorCode;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another control service has the lock.
    #[error("database {path} is in use by another control service or a backup: stop it first")]
    Locked {
        /// The database file.
        path: PathBuf,
    },
    /// The database or its lock file cannot be opened.
    #[error(
        "cannot open {path}: is it ours, on a local disk, in a directory that is there and writable?"
    )]
    Lock {
        /// The file.
        path: PathBuf,
        /// What the system or SQLite said.
        source: std::io::Error,
    },
    /// The file was made by a newer version.
    #[error(
        "{path} has schema {found}, this version knows {known}: use the newer keyfleet-control"
    )]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The file is no database, not one of ours, or its content contradicts itself.
    #[error(
        "{path} is damaged: {problem}; the last backup brings it back: `keyfleet-control restore FILE`"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first thing that is wrong with it.
        problem: String,
    },
    /// A file beside the database, or of a backup, cannot be made.
    #[error("cannot {verb} {path}")]
    File {
        /// What was to be done with it.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What a backup would be written to is there already.
    #[error("{path} is there already: choose another name, or say `--force` to replace it")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The disk does not take or give what it should.
    #[error("{trouble}")]
    Disk {
        /// In what way.
        trouble: Trouble,
        /// What SQLite said; shared, because a failed commit is told to everybody whose work was in it.
        source: Arc<rusqlite::Error>,
    },
    /// Another job of the same commit lost the whole of it.
    #[error(
        "the database gave up this change with others of the same moment, most likely because the disk is full: nothing of it was stored; make space where the database lies and try again"
    )]
    GivenUp,
    /// SQLite failed.
    #[error("database failed")]
    Sqlite(#[source] Arc<rusqlite::Error>),
    /// A row holds something that no version of ours wrote.
    #[error("database row in {table} cannot be read: {problem}")]
    Corrupt {
        /// Where.
        table: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The writer has ended: the service is shutting down.
    #[error("the database is closed: the service is shutting down")]
    Closed,
}

/// What is wrong with the disk, or the file on it, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No space is left.
    Full,
    /// Nothing may be written.
    ReadOnly,
    /// Reading or writing fails.
    Failing,
    /// What is read contradicts itself.
    Damaged,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => {
                "the disk is full: nothing of this was stored; make space where the database lies and try again"
            }
            Self::ReadOnly => {
                "the database may not be written: nothing of this was stored; make its file and directory writable for the service and try again"
            }
            Self::Failing => {
                "the disk refuses the database: nothing of this was stored; look at quota, limits and the system's log, then try again"
            }
            Self::Damaged => {
                "the database is damaged: stop the service and bring back the last backup with `keyfleet-control restore FILE`"
            }
        })
    }
}

impl Trouble {
    fn of(err: &rusqlite::Error) -> Option<Self> {
        let code = err.sqlite_error_code()?;
        // What is not listed is a mistake of ours, or has nothing to do with the disk.
        let known = [
            (ErrorCode::DiskFull, Self::Full),
            (ErrorCode::ReadOnly, Self::ReadOnly),
            (ErrorCode::PermissionDenied, Self::ReadOnly),
            (ErrorCode::SystemIoFailure, Self::Failing),
            (ErrorCode::CannotOpen, Self::Failing),
            (ErrorCode::DatabaseCorrupt, Self::Damaged),
            (ErrorCode::NotADatabase, Self::Damaged),
        ];
        let found = known.into_iter().find(|(known, _)| *known == code);
        found.map(|(_, trouble)| trouble)
    }
}

impl From<rusqlite::Error> for Error {
    fn from(err: rusqlite::Error) -> Self {
        Self::from(Arc::new(err))
    }
}

impl From<Arc<rusqlite::Error>> for Error {
    fn from(source: Arc<rusqlite::Error>) -> Self {
        match Trouble::of(&source) {
            Some(trouble) => Self::Disk { trouble, source },
            None => Self::Sqlite(source),
        }
    }
}

impl Error {
    pub(crate) fn corrupt(table: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::Corrupt {
            table,
            problem: problem.to_string(),
        }
    }

    pub(crate) fn file(
        verb: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { verb, path, source }
    }
}
