//! Bringing back a backup: the database of an earlier moment, made safe for a fleet that has gone on since.
//!
//! # What is different after a restore
//! - The epoch is above every epoch that agents may have seen, so that they accept what they are told.
//! - Nobody has been told anything: what each binding shall have is worked out anew, and nothing is sent on the word
//!   of the backup alone. Rollouts that ran are set aside.
//! - The fleet-wide stop is on, until an operator has looked.
//! - Numbers of tries and revisions that may have been given since the backup are not given again.
//! - Where the present database can be read and continues the history of the backup, who is trusted is taken from it
//!   (identities of agents, tokens), and so are the holdings: a restore brings no revoked token back to life. Else every
//!   join token of the backup is void.
//!
//! # What a crash leaves
//! The new database is made under another name. The steps that put it in place ([`STEPS`]) leave, wherever they are cut
//! off, the old database or the new one; the old one stays beside it for good.

mod rewrite;

use std::fs::File;
use std::path::{Path, PathBuf};

use keyfleet_core::Timestamp;
use keyfleet_core::audit::Hash;

use crate::backup::{Contents, Draft, copy};
use crate::file::{self, Look};
use crate::{Error, schema};

pub use rewrite::Floors;

/// A restore that is prepared: everything is checked, nothing is changed. Dropping it changes nothing either.
#[derive(Debug)]
pub struct Restore {
    /// What the backup holds, as it was made.
    pub backup: Contents,
    /// What would be replaced.
    pub present: Present,
    database: PathBuf,
    draft: Draft,
    // Held to the end, so that no service starts meanwhile.
    _lock: File,
}

/// The database that a restore replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Present {
    /// There is none.
    Missing,
    /// There is a file that cannot be read, and this is why.
    Unreadable(String),
    /// There is a sound one.
    Readable {
        /// What it holds.
        contents: Contents,
        /// It is the backup's own history, gone on.
        continues: bool,
    },
}

/// Who brings the backup back, and why.
#[derive(Debug, Clone)]
pub struct Why {
    /// The principal for the audit log.
    pub principal: String,
    /// In words; may be empty.
    pub reason: String,
    /// Now.
    pub at: Timestamp,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Where the replaced database is kept.
    pub kept: Option<PathBuf>,
    /// The epoch that the next start goes on from.
    pub epoch: u64,
    /// Numbers up to these are not given again.
    pub floors: Floors,
}

impl Restore {
    /// Takes the lock, copies the backup beside the database and checks both.
    ///
    /// # Errors
    /// [`Error::Locked`] while the service runs; [`Error::Damaged`] and [`Error::TooNew`] where the backup cannot be
    /// used; [`Error::Lock`] and [`Error::File`] where a file cannot be read or written.
    pub fn prepare(database: &Path, backup: &Path) -> Result<Self, Error> {
        let lock = file::take_lock(database)?;
        let draft = Draft::new(file::beside(database, ".restore"))?;
        copy(backup, draft.path())?;
        let mut connection = file::open_alone(draft.path())?;
        file::check(&connection, backup, Look::Full)?;
        let contents = Contents::read(&connection, backup)?;
        schema::migrate(&mut connection, backup)?;
        Ok(Self {
            present: Present::look(database, &contents),
            backup: contents,
            database: database.to_owned(),
            draft,
            _lock: lock,
        })
    }

    /// Puts the backup in the place of the database.
    ///
    /// # Errors
    /// Where the disk does not take it: then the present database is still there.
    pub fn carry_out(self, why: &Why) -> Result<Restored, Error> {
        let (restored, mut swap) = self.begin(why)?;
        for step in STEPS {
            step(&mut swap)?;
        }
        Ok(restored)
    }

    fn begin(self, why: &Why) -> Result<(Restored, Swap), Error> {
        let is_there = self.present != Present::Missing;
        if matches!(self.present, Present::Readable { .. }) {
            // Then all of it is in the one file.
            drop(file::open_alone(&self.database)?);
        }
        let rewritten = rewrite::rewrite(&self, why)?;
        file::sync(self.draft.path())?;
        let time = why.at.strftime("%Y%m%dT%H%M%SZ");
        let kept = file::beside(&self.database, &format!(".before-restore-{time}"));
        let restored = Restored {
            kept: is_there.then(|| kept.clone()),
            epoch: rewritten.epoch,
            floors: rewritten.floors,
        };
        let swap = Swap {
            database: self.database,
            kept: restored.kept.clone(),
            draft: Some(self.draft),
            _lock: self._lock,
        };
        Ok((restored, swap))
    }
}

/// The files that change places.
struct Swap {
    database: PathBuf,
    kept: Option<PathBuf>,
    draft: Option<Draft>,
    _lock: File,
}

type Step = fn(&mut Swap) -> Result<(), Error>;

/// In this order. Only the last one changes which database is found.
const STEPS: [Step; 3] = [Swap::keep, Swap::take_log_away, Swap::publish];

impl Swap {
    /// Gives the present files a second name.
    fn keep(&mut self) -> Result<(), Error> {
        let Some(kept) = &self.kept else {
            return Ok(());
        };
        for suffix in ["-wal", ""] {
            let (from, to) = (
                file::beside(&self.database, suffix),
                file::beside(kept, suffix),
            );
            if from.exists() {
                link_or_copy(&from, &to)?;
            }
        }
        file::sync_directory(kept)
    }

    /// A log of the old database would be played into the new one. A sound database has none by now; of one that is
    /// not, nothing is lost that could be read.
    fn take_log_away(&mut self) -> Result<(), Error> {
        for suffix in ["-wal", "-shm", "-journal"] {
            file::remove(&file::beside(&self.database, suffix))?;
        }
        file::sync_directory(&self.database)
    }

    fn publish(&mut self) -> Result<(), Error> {
        match self.draft.take() {
            Some(draft) => draft.publish(&self.database),
            None => Ok(()),
        }
    }
}

/// A second name where the file system has that, else a copy.
fn link_or_copy(from: &Path, to: &Path) -> Result<(), Error> {
    if to.exists() {
        return Err(Error::Exists {
            path: to.to_owned(),
        });
    }
    if std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    std::fs::copy(from, to).map_err(Error::file("write", to))?;
    file::sync(to)
}

impl Present {
    fn look(database: &Path, backup: &Contents) -> Self {
        match std::fs::metadata(database) {
            Ok(file) if file.len() > 0 => {}
            Ok(_) => return Self::Unreadable("the file is empty".to_owned()),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Self::Missing,
            Err(err) => return Self::Unreadable(err.to_string()),
        }
        match read(database, backup) {
            Ok((contents, continues)) => Self::Readable {
                contents,
                continues,
            },
            Err(Error::Damaged { problem, .. }) => Self::Unreadable(problem),
            Err(err) => Self::Unreadable(err.to_string()),
        }
    }

    /// What it holds, where it can be read.
    pub fn contents(&self) -> Option<&Contents> {
        match self {
            Self::Readable { contents, .. } => Some(contents),
            Self::Missing | Self::Unreadable(_) => None,
        }
    }
}

fn read(database: &Path, backup: &Contents) -> Result<(Contents, bool), Error> {
    let connection = file::open_reader(database)?;
    file::check_length(&connection, database)?;
    file::check(&connection, database, Look::Quick)?;
    let contents = Contents::read(&connection, database)?;
    let (number, hash) = backup.audit_head;
    let is_in_chain = match number {
        0 => true,
        _ => {
            let sql = "SELECT count(*) FROM audit WHERE number = ?1 AND hash = ?2";
            let found: Result<u64, _> = connection.query_row(sql, (number, hash), |row| row.get(0));
            found.is_ok_and(|found| found == 1)
        }
    };
    let is_ours = contents.schema == schema::known();
    let continues = is_ours && is_in_chain && contents.epoch >= backup.epoch;
    Ok((contents, continues))
}

/// A hash for people: its beginning.
pub(crate) fn short(hash: &Hash) -> String {
    hash.iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests;
