//! A database in memory: what would happen is tried on it, and then it is forgotten.

use rusqlite::Connection;
use rusqlite::backup::Backup;

use crate::{Error, Tx, schema};

/// A database in memory with the schema of the real one; all its work happens in the caller's thread.
#[derive(Debug)]
pub struct Scratch {
    connection: Connection,
}

impl Scratch {
    /// An empty one.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub fn empty() -> Result<Self, Error> {
        let mut connection = open()?;
        schema::migrate(&mut connection, "a database in memory".as_ref())?;
        Ok(Self { connection })
    }

    /// A copy of what a transaction sees.
    ///
    /// # Errors
    /// Where there is no memory for it, or the original cannot be read.
    pub fn copy_of(tx: &Tx<'_>) -> Result<Self, Error> {
        copy(tx.0)
    }

    /// Another one with the same content.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub fn fork(&self) -> Result<Self, Error> {
        copy(&self.connection)
    }

    /// How many rows were ever written: as long as this stays, nothing has changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.connection.total_changes()
    }

    /// Runs `work` in a transaction.
    ///
    /// # Errors
    /// What `work` said, after undoing all of it.
    pub fn run<T, E: From<Error>>(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let execute = |sql| self.connection.execute_batch(sql).map_err(Error::from);
        execute("BEGIN")?;
        let result = work(&Tx(&self.connection));
        // SQLite may have given the transaction up by itself: then there is nothing to end.
        match (&result, self.connection.is_autocommit()) {
            (Ok(_), _) => execute("COMMIT")?,
            (Err(_), false) => execute("ROLLBACK")?,
            (Err(_), true) => {}
        }
        result
    }
}

fn open() -> Result<Connection, Error> {
    let connection = Connection::open_in_memory()?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.set_prepared_statement_cache_capacity(crate::file::STATEMENTS_MAX);
    Ok(connection)
}

fn copy(from: &Connection) -> Result<Scratch, Error> {
    let mut connection = open()?;
    let backup = Backup::new(from, &mut connection)?;
    // All pages in one step: nobody else waits for this thread.
    while backup.step(-1)? != rusqlite::backup::StepResult::Done {}
    drop(backup);
    Ok(Scratch { connection })
}
