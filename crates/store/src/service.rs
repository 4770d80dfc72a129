//! The one row about the service itself: the fleet-wide stop.

use keyfleet_core::Timestamp;
use rusqlite::params;

use crate::rows::{nanos, time};
use crate::{Error, Tx};

/// The fleet-wide stop, while it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Andon {
    /// Who pulled it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

impl Tx<'_> {
    /// The fleet-wide stop; `None` while it is off.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn andon(&self) -> Result<Option<Andon>, Error> {
        let sql = "SELECT andon_by, andon_reason, andon_at FROM service";
        let mut statement = self.0.prepare_cached(sql)?;
        let (by, reason, at): (Option<String>, String, Option<i64>) =
            statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let (Some(by), Some(at)) = (by, at) else {
            return Ok(None);
        };
        let at = time("service", at)?;
        Ok(Some(Andon { by, reason, at }))
    }

    /// Puts the fleet-wide stop on, or off.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn set_andon(&self, andon: Option<&Andon>) -> Result<(), Error> {
        self.0
            .prepare_cached("UPDATE service SET andon_by = ?1, andon_reason = ?2, andon_at = ?3")?
            .execute(params![
                andon.map(|andon| andon.by.as_str()),
                andon.map_or("", |andon| andon.reason.as_str()),
                andon.map(|andon| nanos(andon.at)),
            ])?;
        Ok(())
    }
}
