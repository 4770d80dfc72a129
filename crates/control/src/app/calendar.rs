//! Maintenance windows and blackouts: whether one is open for a deployment now, and when the next one opens.
//!
//! Windows that overlap are one. A time of day that the clocks skip lies after the jump by as much, and one that comes
//! twice is the first of the two. Time zones are those that are compiled in: no file of the host is read.

mod cron;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, ToSpan};
use keyfleet_core::Timestamp;
use keyfleet_core::fleet::Labels;
use keyfleet_core::rollout::{Blackout, Opening, Strategy, TIME_ZONE_LABEL, Window, Zone};

use cron::Cron;

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// How far ahead an opening is looked for.
const AHEAD_DAYS: i32 = 366;

/// How far windows that run into each other are followed; what is open for longer is asked again then.
const FOLLOWED: SignedDuration = SignedDuration::from_hours(24);

/// Times of day whose clocks change in between come in another order than their instants: by less than this. Only what
/// is as near is looked at twice, so that a window that opens every minute costs no more than another.
const CLOCK_CHANGE_MAX: SignedDuration = SignedDuration::from_hours(3);

/// Most gaps and blackouts that are passed over: a valid strategy has far fewer.
const TRIES_MAX: usize = 1000;

/// The windows and blackouts of a strategy, ready to be asked for each deployment.
#[derive(Debug)]
pub(crate) struct Calendar {
    windows: Vec<Openings>,
    blackouts: Vec<Blackout>,
    /// What a change needs, from its offer to its proof.
    needs: SignedDuration,
    /// What was answered for a time zone, and when: deployments share few of them.
    known: RefCell<BTreeMap<String, (Timestamp, Opening)>>,
}

#[derive(Debug)]
struct Openings {
    cron: Cron,
    duration: SignedDuration,
    /// `None` = that of the deployment.
    zone: Option<TimeZone>,
}

/// A time in which nothing new may be offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shut {
    from: Timestamp,
    until: Timestamp,
}

impl Shut {
    /// How much of it lies before this moment.
    pub(crate) fn before(self, moment: Timestamp) -> Duration {
        let until = self.until.min(moment);
        Duration::try_from(until.duration_since(self.from)).unwrap_or_default()
    }
}

/// Days without change as one deployment sees them.
struct Closed {
    from: Timestamp,
    until: Timestamp,
    why: Arc<str>,
}

impl Calendar {
    /// Reads the windows of a strategy that [`check`] found right; a window that it would not is never open.
    pub(crate) fn new(strategy: &Strategy) -> Self {
        let deadlines = &strategy.deadlines;
        let needs = [deadlines.ack, deadlines.apply, deadlines.prove].map(signed);
        let needs = needs
            .into_iter()
            .fold(SignedDuration::ZERO, SignedDuration::saturating_add);
        Self {
            windows: strategy.windows.iter().map(Openings::new).collect(),
            blackouts: strategy.blackouts.clone(),
            needs,
            known: RefCell::default(),
        }
    }

    /// Whether a deployment with these labels may be offered the change now.
    pub(crate) fn opening(&self, labels: &Labels, now: Timestamp) -> Opening {
        if self.windows.is_empty() && self.blackouts.is_empty() {
            return Opening::Always;
        }
        let name = labels.get(TIME_ZONE_LABEL).map_or("", String::as_str);
        let mut known = self.known.borrow_mut();
        if let Some((at, opening)) = known.get(name)
            && *at == now
        {
            return opening.clone();
        }
        let zone = zone(name).unwrap_or(TimeZone::UTC);
        let opening = self.opening_in(&zone, now);
        known.insert(name.to_owned(), (now, opening.clone()));
        opening
    }

    /// When a deployment with these labels could not be offered the change, of the time between two moments.
    pub(crate) fn shut(&self, labels: &Labels, from: Timestamp, until: Timestamp) -> Vec<Shut> {
        let name = labels.get(TIME_ZONE_LABEL).map_or("", String::as_str);
        let zone = zone(name).unwrap_or(TimeZone::UTC);
        let (mut at, mut all) = (from, Vec::new());
        for _ in 0..TRIES_MAX {
            if at >= until {
                return all;
            }
            at = match self.opening_in(&zone, at) {
                Opening::Always => return all,
                Opening::Open { until } => until,
                Opening::Closed { opens, .. } => {
                    let opens = opens.unwrap_or(until).min(until);
                    all.push(Shut {
                        from: at,
                        until: opens,
                    });
                    opens
                }
            };
        }
        // Nobody is late for what is not looked at.
        all.push(Shut { from: at, until });
        all
    }

    fn opening_in(&self, zone: &TimeZone, now: Timestamp) -> Opening {
        let closed = self.closed(zone, now);
        let (mut from, mut blackout) = (now, None);
        for _ in 0..TRIES_MAX {
            let Some((start, close)) = self.open_from(zone, from) else {
                break;
            };
            if let Some(day) = closed.iter().find(|c| c.from <= start && start < c.until) {
                (from, blackout) = (day.until, Some(Arc::clone(&day.why)));
                continue;
            }
            let next = closed.iter().find(|closed| closed.from > start);
            let cut = next.filter(|next| next.from < close);
            let close = cut.map_or(close, |cut| cut.from);
            let until = minus(close, self.needs);
            // Without windows a blackout begins for new offers only: what was offered before may end in it.
            let until = if self.windows.is_empty() {
                close
            } else {
                until
            };
            if until > start {
                return match start <= now {
                    true => Opening::Open { until },
                    false => Opening::Closed {
                        opens: Some(start),
                        blackout,
                    },
                };
            }
            if let Some(cut) = cut {
                blackout = Some(Arc::clone(&cut.why));
            }
            from = close;
        }
        Opening::Closed {
            opens: None,
            blackout,
        }
    }

    /// The first time at or after `from` at which some window is open, and until when one is.
    fn open_from(&self, zone: &TimeZone, from: Timestamp) -> Option<(Timestamp, Timestamp)> {
        if self.windows.is_empty() {
            return Some((from, Timestamp::MAX));
        }
        let open_now = self.close_of(zone, from) > from;
        let start = match open_now {
            true => from,
            false => {
                let next = self.windows.iter().filter_map(|w| w.next(zone, from));
                next.min()?
            }
        };
        let followed = plus(plus(start, self.needs), FOLLOWED);
        let mut close = self.close_of(zone, start);
        while close < followed {
            let later = self.close_of(zone, close);
            if later <= close {
                break;
            }
            close = later;
        }
        Some((start, close))
    }

    /// When the last of the windows closes that are open at `at`; at `at` itself where none is.
    fn close_of(&self, zone: &TimeZone, at: Timestamp) -> Timestamp {
        let closes = self.windows.iter().filter_map(|w| w.close(zone, at));
        closes.max().map_or(at, |close| close.max(at))
    }

    /// The blackouts that are not over, in order of their beginning.
    fn closed(&self, zone: &TimeZone, now: Timestamp) -> Vec<Closed> {
        let closed = self.blackouts.iter().map(|blackout| {
            let after = blackout.until.tomorrow().ok();
            let until = after.and_then(|after| midnight(zone, after));
            Closed {
                from: midnight(zone, blackout.from).unwrap_or(Timestamp::MIN),
                until: until.unwrap_or(Timestamp::MAX),
                why: words(blackout).into(),
            }
        });
        let closed = closed.filter(|closed| closed.until > now);
        let mut closed: Vec<Closed> = closed.collect();
        closed.sort_by_key(|closed| closed.from);
        closed
    }
}

impl Openings {
    fn new(window: &Window) -> Self {
        let (zone, is_known) = match &window.zone {
            Zone::OfDeployment => (None, true),
            Zone::Named(name) => (zone(name), zone(name).is_some()),
        };
        let cron = Cron::parse(&window.cron).unwrap_or_else(|_| Cron::never());
        Self {
            cron: if is_known { cron } else { Cron::never() },
            duration: signed(window.duration),
            zone,
        }
    }

    /// When it closes, where it is open at `at`.
    fn close(&self, zone: &TimeZone, at: Timestamp) -> Option<Timestamp> {
        let zone = self.zone.as_ref().unwrap_or(zone);
        let from = minus(at, self.duration);
        let newest = zone.to_datetime(plus(at, CLOCK_CHANGE_MAX));
        let oldest = zone.to_datetime(minus(from, CLOCK_CHANGE_MAX)).date();
        let days = newest.date().series(-1.day());
        let days = days.take_while(|date| *date >= oldest);
        let moments = days
            .filter(|date| self.cron.is_on(*date))
            .flat_map(|date| self.cron.times().rev().map(move |time| civil(date, time)))
            .skip_while(|moment| *moment > newest);
        let mut opened = moments
            .filter_map(|moment| Some((moment, instant(zone, moment)?)))
            .filter(|(_, open)| *open <= at);
        let (last, open) = opened.next()?;
        let until = last.saturating_sub(CLOCK_CHANGE_MAX);
        let near = opened.take_while(|(moment, _)| *moment >= until);
        let open = near.fold(open, |latest, (_, open)| latest.max(open));
        (open > from).then(|| plus(open, self.duration))
    }

    /// When it opens next after `after`.
    fn next(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        let zone = self.zone.as_ref().unwrap_or(zone);
        let oldest = zone.to_datetime(minus(after, CLOCK_CHANGE_MAX));
        let today = oldest.date();
        let days = (0..=AHEAD_DAYS).filter_map(|days| today.checked_add(days.days()).ok());
        let moments = days
            .filter(|date| self.cron.is_on(*date))
            .flat_map(|date| self.cron.times().map(move |time| civil(date, time)))
            .skip_while(|moment| *moment < oldest);
        let mut opens = moments
            .filter_map(|moment| Some((moment, instant(zone, moment)?)))
            .filter(|(_, open)| *open > after);
        let (first, open) = opens.next()?;
        let until = first.saturating_add(CLOCK_CHANGE_MAX);
        let near = opens.take_while(|(moment, _)| *moment <= until);
        Some(near.fold(open, |earliest, (_, open)| earliest.min(open)))
    }
}

/// What is wrong with the windows of a strategy: the field's path, and what to change.
pub(crate) fn check(strategy: &Strategy) -> Result<(), (String, String)> {
    for (index, window) in strategy.windows.iter().enumerate() {
        let field = |name: &str| format!("windows[{index}].{name}");
        Cron::parse(&window.cron).map_err(|problem| (field("cron"), problem))?;
        if let Zone::Named(name) = &window.zone
            && zone(name).is_none()
        {
            let problem = format!(
                "there is no time zone {name:?}: use an IANA name such as Europe/Berlin, or \"deployment\""
            );
            return Err((field("timeZone"), problem));
        }
    }
    Ok(())
}

/// A warning where a strategy goes by the time zones of deployments and some have none that is known.
pub(crate) fn zones_missing<'a>(
    strategy: &Strategy,
    deployments: impl Iterator<Item = (&'a str, &'a Labels)>,
) -> Option<String> {
    let by_deployment = |window: &Window| window.zone == Zone::OfDeployment;
    if strategy.blackouts.is_empty() && !strategy.windows.iter().any(by_deployment) {
        return None;
    }
    let is_known = |labels: &Labels| {
        let name = labels.get(TIME_ZONE_LABEL);
        name.is_some_and(|name| zone(name).is_some())
    };
    let mut without = deployments.filter(|(_, labels)| !is_known(labels));
    let (first, _) = without.next()?;
    let n = 1 + without.count();
    let which = match n {
        1 => format!("deployment {first} has"),
        _ => format!("{n} deployments, {first} among them, have"),
    };
    Some(format!(
        "strategy {} goes by the time of each deployment, and {which} no known time zone in the label {TIME_ZONE_LABEL}: UTC is used",
        strategy.name
    ))
}

fn zone(name: &str) -> Option<TimeZone> {
    ZONES.get(name).ok()
}

fn words(blackout: &Blackout) -> String {
    let Blackout {
        from,
        until,
        reason,
    } = blackout;
    let days = match from == until {
        true => from.to_string(),
        false => format!("{from} to {until}"),
    };
    match reason.is_empty() {
        true => days,
        false => format!("{days}: {reason}"),
    }
}

fn civil(date: Date, (hour, minute): (i8, i8)) -> DateTime {
    date.at(hour, minute, 0, 0)
}

/// When a time of day is reached.
fn instant(zone: &TimeZone, moment: DateTime) -> Option<Timestamp> {
    zone.to_timestamp(moment).ok()
}

/// When a day begins.
fn midnight(zone: &TimeZone, date: Date) -> Option<Timestamp> {
    let day = date.to_zoned_datetime(zone.clone()).ok()?;
    Some(day.timestamp())
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn plus(at: Timestamp, duration: SignedDuration) -> Timestamp {
    at.checked_add(duration).unwrap_or(Timestamp::MAX)
}

fn minus(at: Timestamp, duration: SignedDuration) -> Timestamp {
    at.checked_sub(duration).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests;
