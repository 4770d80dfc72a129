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
//! the last commit. A lock file beside the database keeps a second control service out; the writer thread holds it,
//! so that it is free only when nothing can be written any more.
//!
//! # What a panic does
//! A closure that panics undoes its own work only; the panic goes on in the task that handed the closure over, as if
//! it had run there. The writer and its other jobs do not notice.

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

use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

pub use bindings::{Binding, Desired, Progress};
pub use deployments::{Deployment, Facts, Space};
pub use events::{Event, EventScope};
pub use holdings::{Evidence, Holding};
pub use keys::{KeyRow, KeyVersionRow};
pub use objects::Connector;
pub use rollouts::{Rollout, RolloutBinding, RolloutTarget};
pub use tokens::{Token, TokenUse};
use writer::Writer;

/// Reads at a time, and so reader connections: enough that a long list does not hold up a session, few enough that
/// their page caches (2 MiB each) do not grow with the fleet. More readers wait their turn.
const READERS_MAX: usize = 8;

/// Statements that a connection keeps compiled: more than this crate has.
const STATEMENTS_MAX: usize = 128;

/// The database holds no secrets, but who has which connector is nobody else's business.
const FILE_MODE: u32 = 0o600;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another control service has the lock.
    #[error("database {path} is in use by another control service: stop it first")]
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
        "database {path} has schema {found}, this version knows {known}: use the newer keyfleet-control"
    )]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// SQLite failed; shared, because a failed commit is told to everybody whose work was in it.
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

impl From<rusqlite::Error> for Error {
    fn from(err: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(err))
    }
}

impl Error {
    fn corrupt(table: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::Corrupt {
            table,
            problem: problem.to_string(),
        }
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
    reads: Arc<Semaphore>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

/// One transaction: reads see the writes before them; everything is undone if the closure fails.
#[derive(Debug)]
pub struct Tx<'a>(&'a Connection);

impl Store {
    /// Opens or makes the database, takes the lock, brings the schema up to date and starts a new epoch.
    ///
    /// # Errors
    /// [`Error::Locked`] where another store has it, in this process or another; [`Error::TooNew`] after a downgrade;
    /// [`Error::Lock`] where the file cannot be opened or is not a database.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let lock = take_lock(path)?;
        let failed = |source| Error::Lock {
            path: path.to_owned(),
            source,
        };
        // SQLite gives the files beside the database the mode of the database.
        private_file(path).map_err(failed)?;
        let mut connection = open_writer(path).map_err(|err| failed(std::io::Error::other(err)))?;
        schema::migrate(&mut connection, path)?;
        let epoch = schema::next_epoch(&connection)?;
        let inner = Inner {
            path: path.to_owned(),
            epoch,
            writer: Writer::start(connection, lock).map_err(failed)?,
            readers: Mutex::new(Vec::new()),
            reads: Arc::new(Semaphore::new(READERS_MAX)),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Counts the starts of the control service on this database.
    pub fn epoch(&self) -> u64 {
        self.inner.epoch
    }

    /// Runs `work` in a transaction on the writer; returns when it is on disk. A caller that does not wait for the
    /// answer does not take its work back.
    ///
    /// # Errors
    /// What `work` said, after undoing all of it; or [`Error`] where the commit failed: then nothing of it was
    /// written either.
    ///
    /// # Panics
    /// Where `work` does, after undoing all of it.
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
    ///
    /// # Panics
    /// Where `work` does.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let reads = Arc::clone(&self.inner.reads);
        let permit = reads.acquire_owned().await.map_err(|_| Error::Closed)?;
        let store = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            // Kept until the work is done, also where the caller no longer waits for it.
            let _permit = permit;
            store.read_now(work)
        });
        match task.await {
            Ok(result) => result,
            Err(err) => match err.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => Err(E::from(Error::Closed)),
            },
        }
    }

    /// Waits until everything handed to the writer is on disk, then ends it and frees the lock. Reads still work;
    /// writes are [`Error::Closed`]. Close a store before the same file is opened again.
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
        // A connection that cannot end its transaction would show an old state for ever: it is not kept.
        if connection.execute_batch("COMMIT").is_ok() {
            self.readers().push(connection);
        }
        result
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.inner
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_lock(path: &Path) -> Result<std::fs::File, Error> {
    let lock_path = path.with_added_extension("lock");
    let failed = |source| Error::Lock {
        path: lock_path.clone(),
        source,
    };
    let file = private_file(&lock_path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Locked {
            path: path.to_owned(),
        }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Opens or makes a file that only its owner may read.
fn private_file(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(path)?;
    // One that was there before, such as a restored copy, may be open to others.
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

fn open_writer(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

fn open_reader(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}
