//! What a connector in Kibana means for a wish.

use keyfleet_core::failure::FailureClass;
use keyfleet_kibana::{Difference, Observed, Version};
use keyfleet_seal::scrub;

use super::{Trouble, driver, failure};
use crate::decide::Seen;
use crate::ledger::Entry;
use crate::wish::Wish;

/// Which Kibana a definition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    /// What runs now, as far as it is known.
    pub(crate) now: Option<Version>,
    /// What ran when the connector was written or proven last; `None` where what is there was not written for this
    /// wish.
    pub(crate) then: Option<Version>,
}

impl Versions {
    pub(crate) fn of(wish: &Wish, entry: &Entry, now: Option<Version>) -> Self {
        let goal = wish.goal.map(|goal| goal.assignment);
        let is_written = entry.intent.is_none() && entry.running() == goal;
        let applied = entry.applied.as_ref().filter(|_| is_written);
        Self {
            now,
            then: applied.and_then(|applied| applied.version),
        }
    }
}

/// What a connector of the wish's id is, compared with the wish.
pub(crate) fn seen(wish: &Wish, versions: Versions, observed: &Observed) -> Result<Seen, Trouble> {
    if observed.is_read_only() {
        let text = "the connector is kept in kibana.yml or by Kibana itself";
        return Ok(Seen::Foreign(failure(FailureClass::Conflict, text)));
    }
    let Some(spec) = &wish.spec else {
        return Ok(Seen::Ours {
            differences: Vec::new(),
            news: Vec::new(),
        });
    };
    if observed.connector_type_id != spec.connector_type {
        let text = format!(
            "a connector of type {} has this id already",
            observed.connector_type_id
        );
        return Ok(Seen::Foreign(failure(FailureClass::Conflict, &text)));
    }
    let (driver, _) = driver(wish)?;
    if let Err(invalid) = driver.check_update(&spec.config, observed) {
        let why = failure(FailureClass::Rejected, &invalid.to_string());
        return Ok(Seen::Foreign(why));
    }
    let compare = |version: Option<Version>| {
        let config = version.map_or_else(
            || spec.config.clone(),
            |version| driver.for_version(&spec.config, &spec.if_supported, &version),
        );
        driver.differences(&config, &spec.display_name, observed)
    };
    // What we left out for the Kibana of then is no difference that somebody made.
    let differences = compare(versions.then.or(versions.now));
    let mut news = match versions.then == versions.now {
        true => Vec::new(),
        false => compare(versions.now.or(versions.then)),
    };
    news.retain(|new| !differences.contains(new));
    Ok(Seen::Ours {
        differences: texts(&differences),
        news: texts(&news),
    })
}

fn texts(differences: &[Difference]) -> Vec<String> {
    differences
        .iter()
        .map(|difference| scrub(&difference.to_string()).into_owned())
        .collect()
}
