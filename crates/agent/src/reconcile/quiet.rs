//! Kibana asked to be left alone (`Retry-After` of a 429 or 503, RFC 9110 section 10.2.3): no call begins until then.

use std::time::Duration;

use keyfleet_core::binding::Failure;
use tokio::time::Instant;

use super::Reconciler;
use super::advance::QUIET_TRIES;
use crate::wish::Place;
use crate::work::Trouble;

/// The most that a Kibana is left alone: a broken header must not silence an agent for hours.
const LONGEST: Duration = Duration::from_secs(300);
/// A quiet time that lasts longer is reported where something waits for its end; one that is over for longer is
/// forgotten.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this Kibana wants to be left alone.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    asked: Option<Asked>,
}

/// What it asked for, perhaps several times in a row.
#[derive(Debug)]
struct Asked {
    since: Instant,
    until: Instant,
    n_times: u32,
    failure: Failure,
}

impl Quiet {
    /// A call failed; perhaps Kibana asked to be left alone.
    pub(super) fn hear(&mut self, trouble: &Trouble, now: Instant) {
        if let Some(wait) = trouble.retry_after {
            self.ask(wait, &trouble.failure, now);
        }
    }

    /// Kibana asks to be left alone for so long.
    pub(super) fn ask(&mut self, wait: Duration, failure: &Failure, now: Instant) {
        let until = now + wait.min(LONGEST);
        self.asked.take_if(|asked| asked.until + PATIENCE <= now);
        let asked = self.asked.get_or_insert_with(|| Asked {
            since: now,
            until,
            n_times: 0,
            failure: failure.clone(),
        });
        // Calls that were under way together ask once.
        if asked.n_times == 0 || asked.until <= now {
            asked.n_times = asked.n_times.saturating_add(1);
        }
        asked.until = asked.until.max(until);
        asked.failure.clone_from(failure);
    }

    /// No call may begin before this time; `None`: go on.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        let asked = self.asked.as_ref()?;
        (asked.until > now).then_some(asked.until)
    }

    /// Why something waits, once that is news; else when it becomes so.
    fn reason(&self, now: Instant) -> Result<&Failure, Option<Instant>> {
        let asked = self.asked.as_ref().ok_or(None)?;
        let loud_at = asked.since + PATIENCE;
        if asked.n_times >= QUIET_TRIES || loud_at <= now {
            return Ok(&asked.failure);
        }
        Err(Some(loud_at))
    }
}

impl Reconciler {
    /// Where Kibana wants to be left alone: says so where something waits, and gives the time to come back.
    pub(super) fn keep_quiet(&mut self, now: Instant) -> Option<Instant> {
        let until = self.quiet.until(now)?;
        let failure = match self.quiet.reason(now) {
            Ok(failure) => failure.clone(),
            Err(loud_at) => return Some(loud_at.map_or(until, |at| at.min(until))),
        };
        let waiting: Vec<Place> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.refused.is_none() && !slot.is_gone())
            .filter(|(place, slot)| {
                let proven = |goal| self.ledger.get(place).is_proven(goal);
                !slot.wish.goal.is_some_and(proven)
            })
            .map(|(place, _)| place.clone())
            .collect();
        for place in waiting {
            self.report_failed(&place, &failure);
        }
        Some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::failure;
    use keyfleet_core::failure::FailureClass;

    fn asks(quiet: &mut Quiet, secs: u64, now: Instant) {
        let failure = failure(FailureClass::KibanaDown, "too many requests");
        quiet.ask(Duration::from_secs(secs), &failure, now);
    }

    #[test]
    fn it_is_left_alone_as_long_as_it_asks_and_at_most_five_minutes() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut quiet = Quiet::default();
        assert_eq!(quiet.until(start), None);
        asks(&mut quiet, 20, start);
        asks(&mut quiet, 5, at(1));
        assert_eq!(quiet.until(at(2)), Some(at(20)), "the longest counts");
        assert_eq!(quiet.until(at(20)), None);
        asks(&mut quiet, 86_400, at(20));
        assert_eq!(quiet.until(at(21)), Some(at(320)));
    }

    #[test]
    fn it_is_news_after_the_third_time_or_a_minute() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut quiet = Quiet::default();
        for n in 0..3 {
            assert!(quiet.reason(at(n)).is_err());
            asks(&mut quiet, 1, at(n));
        }
        assert!(quiet.reason(at(2)).is_ok());
        // What was long ago is forgotten.
        asks(&mut quiet, 100, at(100));
        assert_eq!(quiet.reason(at(101)).unwrap_err(), Some(at(160)));
        assert!(quiet.reason(at(160)).is_ok());
    }
}
