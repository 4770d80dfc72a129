//! A backup: one file that holds everything of a moment, made while the service runs.
//!
//! SQLite's online backup copies a snapshot, so that the service goes on writing meanwhile. The copy is written under
//! another name, checked, put on disk and only then given its name: a file of that name is always a whole backup.

use std::path::{Path, PathBuf};

use keyfleet_core::Timestamp;
use keyfleet_core::audit::Hash;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OptionalExtension as _};

use crate::file::{self, Look};
use crate::rows::{nanos, time_opt};
use crate::{Error, Tx, schema};

/// What is in a database, to tell one from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// When it was made, where it is a backup.
    pub backed_up_at: Option<Timestamp>,
    /// Version of its tables.
    pub schema: i64,
    /// Starts of the service on it.
    pub epoch: u64,
    /// Number and hash of the newest entry of the audit log; 0 and zeros where there is none.
    pub audit_head: (u64, Hash),
    /// Deployments that are enrolled.
    pub deployments: u64,
    /// Connectors, by name.
    pub connectors: u64,
    /// Keys.
    pub keys: u64,
    /// Rollouts, running and ended.
    pub rollouts: u64,
    /// When its history ends.
    pub last_event_at: Option<Timestamp>,
}

/// Writes a backup of `database` into `file` and says what is in it. The service may run. It needs no lock.
///
/// # Errors
/// [`Error::Exists`] where the file is there and may not be replaced; [`Error::Damaged`] where the database is not
/// sound: nothing is written then, and an older backup stays.
pub fn backup(
    database: &Path,
    file: &Path,
    replace: bool,
    now: Timestamp,
) -> Result<Contents, Error> {
    let exists = || Error::Exists {
        path: file.to_owned(),
    };
    if !replace && file.exists() {
        return Err(exists());
    }
    let draft = Draft::new(file::beside(file, &format!(".{}.new", std::process::id())))?;
    copy(database, draft.path())?;
    let contents = {
        let connection = file::open_alone(draft.path())?;
        if schema::version(&connection)? == schema::known() {
            connection.execute("UPDATE service SET backed_up_at = ?1", [nanos(now)])?;
        }
        file::check(&connection, database, Look::Full)?;
        Contents {
            backed_up_at: Some(now),
            ..Contents::read(&connection, database)?
        }
    };
    file::sync(draft.path())?;
    if !replace && file.exists() {
        return Err(exists());
    }
    draft.publish(file)?;
    Ok(contents)
}

/// Copies a snapshot of one database into another file, whoever writes to it meanwhile.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let missing = |source| Error::File {
        verb: "read",
        path: from.to_owned(),
        source,
    };
    if std::fs::metadata(from).map_err(missing)?.len() == 0 {
        return Err(Error::Damaged {
            path: from.to_owned(),
            problem: "the file is empty".to_owned(),
        });
    }
    let source = file::open_reader(from)?;
    // Here rather than as a backup that fails, so that the file is named.
    file::check_length(&source, from)?;
    let mut target = Connection::open(to)?;
    // All of it in one step: a step is one snapshot, and readers do not hold up the writer.
    let copied = Backup::new(&source, &mut target)?.step(-1);
    if copied.map_err(|err| file::damaged(from, err))? == StepResult::Done {
        return Ok(());
    }
    // Somebody else has the unfinished file open.
    Err(Error::Locked {
        path: to.to_owned(),
    })
}

impl Contents {
    /// Reads what is in a database of this schema or an older one.
    pub(crate) fn read(connection: &Connection, path: &Path) -> Result<Self, Error> {
        let schema = schema::version(connection)?;
        let read = || -> Result<Self, Error> {
            let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u64>(0));
            let is_first = schema < 2;
            let backed_up_at = match is_first {
                true => None,
                false => connection
                    .query_row("SELECT backed_up_at FROM service", [], |row| row.get(0))?,
            };
            let audit_head = match is_first {
                true => (0, Hash::default()),
                false => Tx(connection).audit_head()?,
            };
            let last = "SELECT at FROM events ORDER BY id DESC LIMIT 1";
            let last = connection.query_row(last, [], |row| row.get(0));
            Ok(Self {
                backed_up_at: time_opt("service", backed_up_at)?,
                schema,
                epoch: count("SELECT epoch FROM service")?,
                audit_head,
                deployments: count("SELECT count(*) FROM deployments")?,
                connectors: count("SELECT count(DISTINCT name) FROM connectors")?,
                keys: count("SELECT count(*) FROM keys")?,
                rollouts: count("SELECT count(*) FROM rollouts")?,
                last_event_at: time_opt("events", last.optional()?)?,
            })
        };
        // A sound database without our tables is not ours.
        read().map_err(|err| {
            let err = file::damaged(path, err);
            if let Error::Sqlite(source) = &err {
                return Error::Damaged {
                    path: path.to_owned(),
                    problem: format!("it is no database of keyfleet-control ({source})"),
                };
            }
            err
        })
    }
}

/// A file that is not finished: it is removed where it does not get its name.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
}

impl Draft {
    /// Begins anew, whatever an earlier try has left there.
    pub(crate) fn new(path: PathBuf) -> Result<Self, Error> {
        let draft = Self { path };
        draft.clear()?;
        file::private_file(&draft.path).map_err(Error::file("write", &draft.path))?;
        Ok(draft)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name, in one step, and puts that on disk.
    pub(crate) fn publish(self, name: &Path) -> Result<(), Error> {
        std::fs::rename(&self.path, name).map_err(Error::file("write", name))?;
        file::sync_directory(name)
    }

    fn clear(&self) -> Result<(), Error> {
        // A journal beside it would be taken for its own.
        for suffix in ["-journal", "-wal", "-shm", ""] {
            file::remove(&file::beside(&self.path, suffix))?;
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // One that is left behind is in nobody's way.
        let _ = self.clear();
    }
}
