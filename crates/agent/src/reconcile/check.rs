//! The preflight: asked before anything else, again after trouble, and every few minutes.

use std::collections::BTreeSet;
use std::time::Duration;

use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::SpaceId;
use keyfleet_kibana::{CheckName, CheckOutcome, Preflight, Problem, Scope};
use tokio::time::Instant;

use super::Reconciler;
use super::slot::Slot;
use crate::backoff::Backoff;
use crate::decide::Seen;
use crate::facts::facts;
use crate::wish::{Place, Wish, listed};
use crate::work::{Job, failure, is_transient};

/// How long a preflight without problems is good for.
const GOOD_FOR: Duration = Duration::from_secs(300);
/// Calls at a time of a preflight that asks what the credentials allow in each space.
const PRIVILEGE_CALLS: usize = 4;
/// How long one is good for whose problems a person must solve.
const BAD_FOR: Duration = Duration::from_secs(60);

/// What the last preflight found, and when the next one is due.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) found: Option<Preflight>,
    types: BTreeSet<String>,
    spaces: BTreeSet<SpaceId>,
    running: bool,
    /// The one that is running does not ask about all that matters by now.
    outdated: bool,
    /// The one that is running asks what the credentials allow.
    asks_privileges: bool,
    due: Instant,
    n_failures: u32,
    /// Somebody waits for what the next one finds: one that is under way began too early.
    asked: bool,
    /// The one that is running is the one that somebody waits for.
    answers: bool,
    /// The facts are to be reported, whether or not they changed.
    urgent: bool,
    /// The next one also asks what the credentials allow, which costs a call for each space.
    privileges: bool,
    privileges_at: Option<Instant>,
}

/// Why a binding cannot go on.
#[derive(Debug)]
pub(super) enum Block<'a> {
    /// The first preflight is under way.
    NotYet,
    /// Kibana does not answer; it may do so soon.
    Passing,
    /// Somebody must do something.
    Lasting(&'a Problem),
}

impl Check {
    pub(super) fn new(now: Instant) -> Self {
        let (types, spaces) = Default::default();
        Self {
            found: None,
            types,
            spaces,
            running: false,
            outdated: false,
            asks_privileges: false,
            due: now,
            n_failures: 0,
            asked: false,
            answers: false,
            urgent: false,
            privileges: true,
            privileges_at: None,
        }
    }

    /// Takes in which types and spaces matter; new ones are asked about before anything is done with them.
    pub(super) fn covers<'a>(
        &mut self,
        slots: impl Iterator<Item = (&'a Place, &'a Slot)>,
        now: Instant,
    ) {
        let (types, spaces): (BTreeSet<String>, BTreeSet<SpaceId>) = slots
            .filter(|(_, slot)| slot.refused.is_none())
            .filter_map(|(place, slot)| {
                Some((
                    slot.wish.spec.as_ref()?.connector_type.clone(),
                    place.space.clone(),
                ))
            })
            .unzip();
        if !types.is_subset(&self.types) || !spaces.is_subset(&self.spaces) {
            self.found = None;
            self.due = now;
            self.privileges = true;
            self.outdated = self.running;
        }
        (self.types, self.spaces) = (types, spaces);
    }

    /// Something went wrong that another preflight would explain.
    pub(super) fn doubt(&mut self, class: FailureClass, now: Instant) {
        if self.n_failures == 0 {
            self.due = self.due.min(now);
        }
        let asked_lately = self.privileges_at.is_some_and(|at| at + GOOD_FOR > now);
        self.privileges |= class == FailureClass::KibanaAuth && !asked_lately;
    }

    /// How many calls the preflight that is due makes at a time; 0: none is due.
    pub(super) fn n_calls_due(&self, now: Instant) -> usize {
        match (self.running || self.due > now, self.privileges) {
            (true, _) => 0,
            (false, true) => PRIVILEGE_CALLS,
            (false, false) => 1,
        }
    }

    /// How many calls the preflight that is under way makes beyond the one that every job makes.
    pub(super) fn n_more_calls(&self) -> usize {
        match self.running && self.asks_privileges {
            true => PRIVILEGE_CALLS - 1,
            false => 0,
        }
    }

    /// Somebody wants everything asked afresh, now.
    pub(super) fn ask(&mut self, now: Instant) {
        (self.asked, self.privileges, self.due) = (true, true, now);
    }

    /// True once after a preflight that somebody waited for.
    pub(super) fn take_urgent(&mut self) -> bool {
        std::mem::take(&mut self.urgent)
    }

    /// The preflight to begin now, or when the next one is due.
    pub(super) fn begin(&mut self, now: Instant) -> Result<Job, Option<Instant>> {
        if self.running {
            return Err(None);
        }
        if self.due > now {
            return Err(Some(self.due));
        }
        self.running = true;
        self.answers = std::mem::take(&mut self.asked);
        self.asks_privileges = std::mem::take(&mut self.privileges);
        if self.asks_privileges {
            self.privileges_at = Some(now);
        }
        Ok(Job::Preflight {
            types: self.types.iter().cloned().collect(),
            spaces: self.spaces.iter().cloned().collect(),
            privileges: self.asks_privileges,
        })
    }

    /// Notes what was found. True where Kibana has come back.
    pub(super) fn end(&mut self, found: Preflight, now: Instant) -> bool {
        self.running = false;
        self.urgent |= std::mem::take(&mut self.answers);
        let has =
            |is: fn(FailureClass) -> bool| found.problems.iter().any(|problem| is(problem.class));
        let passing = has(is_transient);
        // What could not be asked is asked once it can be.
        let is_open = |check: &keyfleet_kibana::Check| {
            check.name == CheckName::Privileges && check.outcome == CheckOutcome::Warning
        };
        let stuck = found
            .problems
            .iter()
            .any(|problem| problem.scope == Scope::Kibana);
        self.privileges |= self.asks_privileges && (stuck || found.checks.iter().any(is_open));
        let back = !passing && self.n_failures > 0;
        self.n_failures = if passing {
            self.n_failures.saturating_add(1)
        } else {
            0
        };
        self.due = now
            + match (passing, found.problems.is_empty()) {
                (true, _) => Backoff::KIBANA.wait(self.n_failures),
                (false, true) => GOOD_FOR,
                (false, false) => BAD_FOR,
            };
        let outdated = std::mem::take(&mut self.outdated);
        // Somebody asked while this one was under way.
        if self.asked || (outdated && !passing) {
            self.due = now;
        }
        self.found = (!outdated || passing).then_some(found);
        back
    }

    /// Why this binding cannot go on; `None`: it can.
    pub(super) fn blocks(&self, place: &Place, wish: &Wish) -> Option<Block<'_>> {
        let Some(found) = &self.found else {
            return Some(Block::NotYet);
        };
        let kind = wish
            .spec
            .as_ref()
            .map_or("", |spec| spec.connector_type.as_str());
        // Whether a connector is gone from a space that is gone too can be looked up all the same.
        let is_removal = wish.goal.is_none();
        let covers = |problem: &&Problem| {
            let is_of_space = matches!(problem.scope, Scope::Space(_));
            problem.scope.covers(kind, &place.space) && !(is_removal && is_of_space)
        };
        let problem = found.problems.iter().find(covers)?;
        let patient =
            problem.class == FailureClass::KibanaDown || problem.class == FailureClass::Timeout;
        Some(
            match patient && self.n_failures < super::advance::QUIET_TRIES {
                true => Block::Passing,
                false => Block::Lasting(problem),
            },
        )
    }
}

impl Reconciler {
    /// Takes in what a preflight found.
    pub(super) fn on_preflight(&mut self, mut found: Preflight, now: Instant) {
        if let Some(earlier) = &self.check.found {
            found.complete_from(earlier);
        }
        match (found.retry_after, found.problems.first()) {
            (Some(wait), Some(problem)) => {
                let failure = failure(problem.class, &problem.sentence);
                self.quiet.ask(wait, &failure, now);
            }
            (Some(wait), None) => {
                let text = "Kibana asks to be left alone for a while";
                self.quiet
                    .ask(wait, &failure(FailureClass::KibanaDown, text), now);
            }
            (None, _) => {}
        }
        let mut fresh = facts(&found, self.checked.as_ref(), Self::now_on_the_wall());
        // Where this agent would put nothing, nothing shall be asked for.
        fresh
            .spaces
            .retain(|space| listed(&self.accept.spaces, &space.id));
        let known = self.checked.as_ref().map(|known| &known.problems);
        if known != Some(&fresh.problems) {
            for problem in &fresh.problems {
                tracing::warn!(%problem, "Kibana is not ready for connectors");
            }
        }
        if !found.spaces.is_empty() {
            self.survey_covers(&found.spaces, now);
        }
        let before = self.version();
        self.take_up_what_waited(&found);
        let back = self.check.end(found, now);
        if self
            .version()
            .is_some_and(|now| before.is_some_and(|before| before != now))
        {
            tracing::info!(
                "Kibana has another version: every connector is looked at and proven again"
            );
            for slot in self.slots.values_mut() {
                slot.seen = Seen::Unknown;
            }
        }
        self.checked = Some(fresh);
        self.publish_facts();
        if back {
            for slot in self.slots.values_mut() {
                slot.strain
                    .take_if(|strain| strain.failure.class == FailureClass::KibanaDown);
            }
        }
    }

    /// What failed for a reason that is gone now is tried again at once.
    fn take_up_what_waited(&mut self, found: &Preflight) {
        let before = self.check.found.iter().flat_map(|found| &found.problems);
        let gone: Vec<&Problem> = before
            .filter(|problem| !found.problems.contains(problem))
            .collect();
        for (place, slot) in &mut self.slots {
            let spec = slot.wish.spec.as_ref();
            let kind = spec.map_or("", |spec| spec.connector_type.as_str());
            slot.strain.take_if(|strain| {
                let is_its = |problem: &&Problem| {
                    problem.class == strain.failure.class
                        && problem.scope.covers(kind, &place.space)
                };
                gone.iter().any(is_its)
            });
        }
    }
}
