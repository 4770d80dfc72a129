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
//! # What the disk does
//! A disk that is full or refuses to write fails the commits of that moment, and whoever waited for them hears it. The
//! writer goes on, reads go on, and the next commit that succeeds ends the trouble ([`Store::trouble`]). A file that
//! contradicts itself is refused at the start: [`Restore`] brings back a [`backup`].
//!
//! # What a panic does
//! A closure that panics undoes its own work only; the panic goes on in the task that handed the closure over, as if
//! it had run there. The writer and its other jobs do not notice.

mod audit;
mod backup;
mod bindings;
mod campaigns;
mod deployments;
mod error;
mod events;
mod file;
mod holdings;
mod identity;
mod keys;
mod objects;
mod restore;
mod rollouts;
mod rows;
mod schema;
mod scratch;
mod seen;
mod service;
mod sets;
mod strategies;
mod tokens;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

pub use audit::AuditEntry;
pub use backup::{Contents, backup};
pub use bindings::{Binding, Desired, Progress};
pub use campaigns::{CampaignRow, CampaignStep};
pub use deployments::{Check, Deployment, Facts, Space};
pub use error::{Error, Trouble};
pub use events::{Event, EventScope, Retention};
use file::{Look, open_reader, open_writer, private_file, take_lock};
pub use holdings::{Evidence, Holding};
pub use identity::{Held, NewCertificate, NewEnrolment};
pub use keys::{KeyRow, KeyVersionRow};
pub use objects::Connector;
pub use restore::{Floors, Present, Restore, Restored, Why};
pub use rollouts::{Rollout, RolloutBinding, RolloutTarget};
pub use scratch::Scratch;
pub use seen::{Inventory, SeenConnector};
pub use service::Andon;
pub use sets::ObjectId;
pub use tokens::{Token, TokenUse};
use writer::Writer;

/// Reads at a time, and so reader connections: enough that a long list does not hold up a session, few enough that
/// their page caches (2 MiB each) do not grow with the fleet. More readers wait their turn.
const READERS_MAX: usize = 8;

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
    /// [`Error::Lock`] where the file cannot be opened; [`Error::Damaged`] where it is not a sound database.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let lock = take_lock(path)?;
        let failed = |source| Error::Lock {
            path: path.to_owned(),
            source,
        };
        // SQLite gives the files beside the database the mode of the database.
        private_file(path).map_err(failed)?;
        let mut connection = open_writer(path).map_err(|err| file::damaged(path, err))?;
        file::check_length(&connection, path)?;
        file::check(&connection, path, Look::Quick)?;
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

    /// What keeps the database from being written, in a sentence; `None` where the last commit went well.
    pub fn trouble(&self) -> Option<String> {
        self.inner.writer.trouble()
    }

    /// Writes something that changes nothing, to see whether the disk takes it again.
    ///
    /// # Errors
    /// What is still wrong.
    pub async fn probe(&self) -> Result<(), Error> {
        let write = |tx: &Tx<'_>| -> Result<(), Error> {
            tx.0.execute("UPDATE service SET epoch = epoch", [])?;
            Ok(())
        };
        self.write(write).await
    }

    /// Waits until everything handed to the writer is on disk, then ends it and frees the lock. Reads still work;
    /// writes are [`Error::Closed`]. Close a store before the same file is opened again.
    pub async fn close(&self) {
        // The last connection to go folds the log into the database: then one file holds everything.
        self.readers().clear();
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
