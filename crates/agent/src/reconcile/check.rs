//! The preflight: asked before anything else, again after trouble, and every few minutes.

use std::collections::BTreeSet;
use std::time::Duration;

use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::SpaceId;
use keyfleet_kibana::{Preflight, Problem};
use tokio::time::Instant;

use super::slot::Slot;
use crate::backoff::Backoff;
use crate::wish::{Place, Wish};
use crate::work::{Job, is_transient};

/// How long a preflight without problems is good for.
const GOOD_FOR: Duration = Duration::from_secs(300);
/// How long one is good for whose problems a person must solve.
const BAD_FOR: Duration = Duration::from_secs(60);

/// What the last preflight found, and when the next one is due.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) found: Option<Preflight>,
    types: BTreeSet<String>,
    spaces: BTreeSet<SpaceId>,
    running: bool,
    due: Instant,
    n_failures: u32,
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
            due: now,
            n_failures: 0,
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
        }
        (self.types, self.spaces) = (types, spaces);
    }

    /// Something went wrong that another preflight would explain.
    pub(super) fn doubt(&mut self, now: Instant) {
        if self.n_failures == 0 {
            self.due = self.due.min(now);
        }
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
        Ok(Job::Preflight {
            types: self.types.iter().cloned().collect(),
            spaces: self.spaces.iter().cloned().collect(),
        })
    }

    /// Notes what was found. True where Kibana has come back.
    pub(super) fn end(&mut self, found: Preflight, now: Instant) -> bool {
        self.running = false;
        let passing = found
            .problems
            .iter()
            .any(|problem| is_transient(problem.class));
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
        self.found = Some(found);
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
        let covers = |problem: &&Problem| problem.scope.covers(kind, &place.space);
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
