//! The file as a whole: its lock, its mode, how a connection to it is opened, whether its content is sound.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::{Error, Trouble};

/// Statements that a connection keeps compiled: more than this crate has.
pub(crate) const STATEMENTS_MAX: usize = 128;

/// The database holds no secrets, but who has which connector is nobody else's business.
const FILE_MODE: u32 = 0o600;

/// Takes the lock beside a database; it is free again when the file is dropped.
pub(crate) fn take_lock(path: &Path) -> Result<File, Error> {
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
pub(crate) fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(path)?;
    // One that was there before, such as a copied one, may be open to others.
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

pub(crate) fn open_writer(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

pub(crate) fn open_reader(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// Opens a file that stands alone: a backup, or a database that nobody has open. It has no files beside it when the
/// connection is closed.
pub(crate) fn open_alone(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let mode = "PRAGMA journal_mode = DELETE";
    match connection.query_row(mode, [], |row| row.get::<_, String>(0)) {
        Ok(mode) if mode == "delete" => Ok(connection),
        // Somebody reads it: a backup, or a person with a tool.
        Ok(_) => Err(Error::Locked {
            path: path.to_owned(),
        }),
        Err(err) if err.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
            Err(Error::Locked {
                path: path.to_owned(),
            })
        }
        Err(err) => Err(damaged(path, err)),
    }
}

/// How thoroughly a file is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Look {
    /// Every page, without comparing indexes with their tables: as fast as the disk reads.
    Quick,
    /// Every page and every index.
    Full,
}

/// Refuses a file whose content contradicts itself.
pub(crate) fn check(connection: &Connection, path: &Path, look: Look) -> Result<(), Error> {
    let pragma = match look {
        Look::Quick => "PRAGMA quick_check(1)",
        Look::Full => "PRAGMA integrity_check(1)",
    };
    let said = connection.query_row(pragma, [], |row| row.get::<_, String>(0));
    match said.map_err(|err| damaged(path, err))?.as_str() {
        "ok" => Ok(()),
        problem => Err(Error::Damaged {
            path: path.to_owned(),
            problem: problem.trim().replace('\n', ", "),
        }),
    }
}

/// Refuses a file that ends within a page: SQLite reads the rest of it as zeros.
pub(crate) fn check_length(connection: &Connection, path: &Path) -> Result<(), Error> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
    // The second is answered for any file; the first needs a head that can be read.
    let page = number("schema_version").and_then(|_| number("page_size"));
    let page = page.map_err(|err| damaged(path, err))?;
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    // With a log beside it the file may be torn: the log has the page whole.
    if length(path).is_multiple_of(page) || length(&beside(path, "-wal")) > 0 {
        return Ok(());
    }
    Err(Error::Damaged {
        path: path.to_owned(),
        problem: "it ends within a page: a copy of it was cut off".to_owned(),
    })
}

/// Names the file where it is the content that cannot be read; any other trouble stays what it is.
pub(crate) fn damaged(path: &Path, err: impl Into<Error>) -> Error {
    let err = err.into();
    if let Error::Disk {
        trouble: Trouble::Damaged,
        source,
    } = &err
    {
        return Error::Damaged {
            path: path.to_owned(),
            problem: source.to_string(),
        };
    }
    err
}

/// A file of SQLite beside a database, such as its `-wal`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes a file that need not be there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", path)(err))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Puts the content of a file on disk, whatever happens to the machine.
pub(crate) fn sync(path: &Path) -> Result<(), Error> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(Error::file("write", path))
}

/// Puts the names in a file's directory on disk.
pub(crate) fn sync_directory(path: &Path) -> Result<(), Error> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync(Path::new(".")),
        Some(parent) => sync(parent),
        None => Ok(()),
    }
}
