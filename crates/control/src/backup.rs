//! `keyfleet-control backup` and `restore`: the database of a data directory in one file, and back.

use std::path::Path;

use keyfleet_store::{Contents, Restore, Restored, Why};

use crate::init::database_path;
use crate::{clock, files};

/// The principal of a restore in the audit log: nobody with a token is there to ask.
const PRINCIPAL: &str = "keyfleet-control restore";

/// Why there is no backup, or nothing was brought back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The database or the backup.
    #[error(transparent)]
    Store(#[from] keyfleet_store::Error),
}

/// Writes a backup of the database into `file`, beside a service that may run, and says what is in it.
///
/// # Errors
/// As [`keyfleet_store::backup`].
pub fn backup(data_dir: &Path, file: &Path, replace: bool) -> Result<Contents, Error> {
    let database = database_path(data_dir);
    Ok(keyfleet_store::backup(
        &database,
        file,
        replace,
        clock::now(),
    )?)
}

/// Checks a backup and what it would replace; makes the data directory where there is none.
///
/// # Errors
/// As [`Restore::prepare`].
pub fn prepare_restore(data_dir: &Path, file: &Path) -> Result<Restore, Error> {
    if !data_dir.exists() {
        files::make_private_dir(data_dir)?;
    }
    Ok(Restore::prepare(&database_path(data_dir), file)?)
}

/// Puts the backup in the place of the database.
///
/// # Errors
/// As [`Restore::carry_out`].
pub fn restore(prepared: Restore, reason: String) -> Result<Restored, Error> {
    Ok(prepared.carry_out(&Why {
        principal: PRINCIPAL.to_owned(),
        reason,
        at: clock::now(),
    })?)
}
