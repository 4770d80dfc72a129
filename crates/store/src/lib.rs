//! What must survive a restart: one SQLite file.
//!
//! # What is stored
//! The operators' objects, the fleet, what each binding shall run and what it was seen to run, holdings,
//! evidence, rollouts, tokens (hashes) and the history. Never a secret: of a key only its fingerprint and a
//! masked form.
//!
//! # Who owns what
//! One writer thread owns the one writing connection ([`Store::write`]); it commits what is waiting in groups,
//! with `synchronous=FULL`, before anybody is told that it is done. Readers have their own connections and see
//! the last commit. A lock file beside the database keeps a second control service out.

mod bindings;
mod deployments;
mod events;
mod holdings;
mod keys;
mod objects;
mod rollouts;
mod rows;
mod schema;
mod tokens;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};

pub use bindings::{Binding, Desired, Progress};
pub use deployments::{Deployment, Facts, Space};
pub use events::{Event, EventScope};
pub use holdings::{Evidence, Holding};
pub use keys::{KeyRow, KeyVersionRow};
pub use objects::Connector;
pub use rollouts::{Rollout, RolloutBinding, RolloutTarget};
pub use tokens::{Token, TokenUse};
use writer::Writer;

/// Reader connections kept open; more readers at once open their own.
const READERS_KEPT_MAX: usize = 4;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another control service has the lock.
    #[error("database {path} is in use by another control service: stop it first")]
    Locked {
        /// The database file.
        path: PathBuf,
    },
    /// The lock file cannot be made or locked.
    #[error("cannot lock {path}: is the directory there and writable?")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was made by a newer version.
    #[error("database {path} has schema {found}, this version knows {known}: use the newer keyfleet-control")]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// SQLite failed.
    #[error("database failed")]
    Sqlite(#[from] rusqlite::Error),
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

impl Error {
    fn corrupt(table: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::Corrupt { table, problem: problem.to_string() }
    }
}

/// A handle to the database; cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    epoch: u64,
    writer: Writer,
    readers: Mutex<Vec<Connection>>,
    // Held for as long as the store is open; the system frees it when the process dies.
    _lock: std::fs::File,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

/// One transaction: reads see the writes before them; everything is undone if the closure fails.
#[derive(Debug)]
pub struct Tx<'a>(&'a Connection);

impl Store {
    /// Opens or makes the database, takes the lock, brings the schema up to date and starts a new epoch.
    ///
    /// # Errors
    /// [`Error::Locked`] where another process has it; [`Error::TooNew`] after a downgrade.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let lock = take_lock(path)?;
        let mut connection = Connection::open(path)?;
        configure(&connection)?;
        schema::migrate(&mut connection, path)?;
        let epoch = schema::next_epoch(&connection)?;
        let inner = Inner {
            path: path.to_owned(),
            epoch,
            writer: Writer::start(connection),
            readers: Mutex::new(Vec::new()),
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Counts the starts of the control service on this database.
    pub fn epoch(&self) -> u64 {
        self.inner.epoch
    }

    /// Runs `work` in a transaction on the writer; returns when it is on disk.
    ///
    /// # Errors
    /// What `work` said, after undoing all of it; or [`Error`] where the commit failed.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.inner.writer.run(work).await
    }

    /// Runs `work` on a reader: a consistent view of the last commit.
    ///
    /// # Errors
    /// What `work` said.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let store = self.clone();
        let task = tokio::task::spawn_blocking(move || store.read_now(work));
        task.await.unwrap_or_else(|_| Err(E::from(Error::Closed)))
    }

    /// Waits until everything handed to the writer is on disk, then ends it.
    pub async fn close(&self) {
        self.inner.writer.close().await;
    }

    fn read_now<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Tx<'_>) -> Result<T, E>,
        E: From<Error>,
    {
        let kept = self.readers().pop();
        let connection = match kept {
            Some(connection) => connection,
            None => open_reader(&self.inner.path)?,
        };
        connection.execute_batch("BEGIN").map_err(Error::from)?;
        let result = work(&Tx(&connection));
        connection.execute_batch("COMMIT").map_err(Error::from)?;
        let mut readers = self.readers();
        if readers.len() < READERS_KEPT_MAX {
            readers.push(connection);
        }
        result
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_lock(path: &Path) -> Result<std::fs::File, Error> {
    let lock_path = path.with_added_extension("lock");
    let failed = |source| Error::Lock { path: lock_path.clone(), source };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Locked { path: path.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn configure(connection: &Connection) -> Result<(), Error> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(())
}

fn open_reader(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}
