//! What every test of the store needs: a database in a directory of its own, and times.
#![expect(clippy::unwrap_used, reason = "a helper of tests")]

use std::path::PathBuf;

use keyfleet_core::Timestamp;
use keyfleet_store::Store;
use tempfile::TempDir;

/// A database in a directory that is deleted at the end of the test.
pub(crate) struct Database {
    dir: TempDir,
}

impl Database {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("keyfleet.db")
    }

    pub(crate) fn open(&self) -> Store {
        Store::open(&self.path()).unwrap()
    }
}

/// A point in time to the nanosecond, `seconds` after another.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::new(1_795_435_200 + seconds, 123_456_789).unwrap()
}
