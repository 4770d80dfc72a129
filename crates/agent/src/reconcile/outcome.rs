//! Notes what came of a call.

use jiff::Timestamp;
use keyfleet_core::binding::Rung;
use keyfleet_core::failure::FailureClass;
use keyfleet_kibana::{ProbeResult, Version};
use tokio::time::Instant;

use super::Reconciler;
use super::advance::QUIET_TRIES;
use super::slot::{Slot, Stage, Strain};
use crate::backoff::Backoff;
use crate::decide::Seen;
use crate::ledger::{Applied, Drift, Entry, GivenUp};
use crate::wish::{Goal, Place};
use crate::work::{Done, Look, Outcome, Trouble, is_transient};

/// After so many tries of the same goal only a new try helps, or patience where it worked before. A Kibana that is
/// down is tried for ever.
const TRIES_MAX: u32 = 10;

/// What a write made: the goal, the key's fingerprint, and the Kibana that it was rendered for.
type Written = (Goal, String, Version);

impl Reconciler {
    pub(super) fn on_done(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Preflight(found) => self.on_preflight(*found, now),
            Done::List {
                space,
                began,
                result,
            } => self.on_listed(&space, began, result),
            Done::Step {
                place,
                serial,
                outcome,
            } => {
                self.busy.remove(&place);
                let slot = self.slots.get(&place);
                if slot.is_some_and(|slot| slot.serial == serial) {
                    self.on_outcome(&place, outcome, now);
                } else {
                    self.on_late_outcome(&place, outcome);
                }
            }
        }
    }

    /// A write for an earlier wish was done all the same; everything else of it is void.
    fn on_late_outcome(&mut self, place: &Place, outcome: Outcome) {
        match outcome {
            Outcome::Wrote {
                goal,
                fingerprint,
                version,
                result: Ok(()),
            } => self.note_written(place, (goal, fingerprint, version)),
            Outcome::Deleted {
                result: Err(trouble),
                ..
            } if trouble.refused => self.keep(place, |entry| entry.removing = false),
            Outcome::Looked(_)
            | Outcome::Baseline(_)
            | Outcome::Wrote { .. }
            | Outcome::Probed { .. }
            | Outcome::Deleted { .. } => {}
        }
    }

    fn on_looked(&mut self, place: &Place, look: Look, now: Instant) {
        let Look { seen, config } = look;
        if matches!(seen, Seen::Ours { .. }) {
            self.keep(place, |entry| entry.removing = false);
        }
        // An older agent did not note the Kibana that it wrote for: it was one that shows what this one shows.
        let agrees = matches!(&seen, Seen::Ours { differences, news } if differences.is_empty() && news.is_empty());
        if let (true, Some(version)) = (agrees, self.version()) {
            self.keep(place, |entry| {
                if let Some(applied) = entry.applied.as_mut().filter(|applied| applied.agreed) {
                    applied.version.get_or_insert(version);
                }
            });
        }
        self.with(place, |slot| {
            (slot.seen, slot.seen_at, slot.config) = (seen, now, config);
            slot.relieve(Stage::Look);
        });
    }

    fn on_outcome(&mut self, place: &Place, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Looked(Ok(look)) => self.on_looked(place, look, now),
            Outcome::Looked(Err(trouble)) => self.strain(place, Stage::Look, trouble, now),
            Outcome::Baseline(Ok(result)) => self.with(place, |slot| {
                slot.baseline_ok = Some(matches!(result, ProbeResult::Proven { .. }));
            }),
            Outcome::Baseline(Err(trouble))
                if trouble.failure.class == FailureClass::KibanaDown =>
            {
                self.with(place, |slot| slot.seen = Seen::Unknown);
                self.strain(place, Stage::Look, trouble, now);
            }
            // It did not answer, or Kibana could not run it: broken before the change.
            Outcome::Baseline(Err(_)) => self.with(place, |slot| slot.baseline_ok = Some(false)),
            Outcome::Wrote {
                goal,
                fingerprint,
                version,
                result,
            } => self.on_wrote(place, (goal, fingerprint, version), (result, now)),
            Outcome::Probed {
                goal,
                began,
                result,
            } => self.on_probed(place, goal, began, (result, now)),
            Outcome::Deleted { references, result } => {
                if let Some(references) = references {
                    self.note_references(place, references);
                }
                self.with(place, |slot| slot.seen = Seen::Unknown);
                match result {
                    Ok(()) => self.with(place, |slot| slot.relieve(Stage::Write)),
                    Err(trouble) => self.strain(place, Stage::Write, trouble, now),
                }
            }
        }
    }

    fn on_wrote(
        &mut self,
        place: &Place,
        written: Written,
        (result, now): (Result<(), Trouble>, Instant),
    ) {
        self.with(place, |slot| slot.seen = Seen::Unknown);
        match result {
            Ok(()) => {
                self.note_written(place, written);
                self.with(place, |slot| slot.relieve(Stage::Write));
            }
            Err(trouble) => {
                if trouble.refused {
                    self.keep(place, Entry::refused);
                }
                self.strain(place, Stage::Write, trouble, now);
            }
        }
    }

    fn note_written(&mut self, place: &Place, (goal, fingerprint, version): Written) {
        let now = Self::now_on_the_wall();
        self.keep(place, |entry| {
            let ever_proven = entry.ever_proven(goal);
            let is_repair = |drift: &Drift| drift.class == FailureClass::Encryption;
            let intent = entry.intent.take().filter(|intent| intent.goal == goal);
            let applied = Applied {
                goal,
                fingerprint,
                baseline_ok: intent.as_ref().and_then(|intent| intent.baseline_ok),
                n_writes: intent.map_or(1, |intent| intent.n_writes),
                agreed: false,
                proven_at: None,
                ever_proven,
                version: Some(version),
                rung: None,
                note: None,
                repaired: entry.drift.as_ref().is_some_and(is_repair),
            };
            entry.wrote(applied, now);
        });
    }

    fn on_probed(
        &mut self,
        place: &Place,
        goal: Goal,
        began: Timestamp,
        (result, now): (Result<ProbeResult, Trouble>, Instant),
    ) {
        let trouble = match result {
            Ok(ProbeResult::Proven { note, rung }) => {
                return self.note_proven(place, (goal, began), (note, rung));
            }
            Ok(ProbeResult::Failed { class, text, rung }) => {
                self.note_rung(place, rung);
                let is_unreadable = class == FailureClass::Encryption;
                Trouble {
                    is_unreadable,
                    ..Trouble::new(class, &text, is_transient(class))
                }
            }
            Err(trouble) => {
                self.note_rung(place, None);
                self.with(place, |slot| slot.seen = Seen::Unknown);
                trouble
            }
        };
        if trouble.is_unreadable && self.is_worth_a_repair(place, goal) {
            let drift = Drift {
                attempt: goal.attempt,
                text: trouble.failure.text,
                class: FailureClass::Encryption,
                is_fight: false,
            };
            return self.drifted(place, drift);
        }
        self.strain(place, Stage::Prove, trouble, now);
    }

    fn note_proven(
        &mut self,
        place: &Place,
        (goal, began): (Goal, Timestamp),
        (note, rung): (Option<String>, Rung),
    ) {
        let version = self.version();
        self.keep(place, |entry| {
            if let Some(applied) = &mut entry.applied {
                (applied.goal, applied.proven_at) = (goal, Some(began));
                (applied.ever_proven, applied.repaired) = (true, false);
                (applied.note, applied.rung) = (note, Some(rung));
                applied.version = version.or(applied.version);
            }
        });
        self.with(place, |slot| slot.relieve(Stage::Prove));
    }

    fn note_rung(&mut self, place: &Place, rung: Option<Rung>) {
        self.keep(place, |entry| {
            if let Some(applied) = &mut entry.applied {
                applied.rung = rung;
            }
        });
    }

    /// Secrets that Kibana could read once are written again, once: if that does not help, the cause is elsewhere.
    fn is_worth_a_repair(&self, place: &Place, goal: Goal) -> bool {
        let entry = self.ledger.get(place);
        let is_repaired = entry
            .applied
            .as_ref()
            .is_some_and(|applied| applied.repaired);
        entry.ever_proven(goal) && !is_repaired
    }

    /// Something failed: try again later, or give this goal up. What worked once is never given up.
    pub(super) fn strain(&mut self, place: &Place, stage: Stage, trouble: Trouble, now: Instant) {
        let Trouble {
            failure,
            retryable,
            retry_after,
            ..
        } = trouble;
        if let Some(wait) = retry_after {
            self.quiet.ask(wait, &failure, now);
        }
        if matches!(
            failure.class,
            FailureClass::KibanaDown
                | FailureClass::KibanaAuth
                | FailureClass::Licence
                | FailureClass::Rejected
                | FailureClass::Encryption
        ) {
            self.check.doubt(failure.class, now);
        }
        let Some(slot) = self.slots.get_mut(place) else {
            return;
        };
        let goal = slot.wish.goal;
        let worked = goal.is_some_and(|goal| self.ledger.get(place).ever_proven(goal));
        let n_failures = slot
            .strain
            .take()
            .map_or(0, |strain| strain.n_failures)
            .saturating_add(1);
        let spent = n_failures >= TRIES_MAX && failure.class != FailureClass::KibanaDown;
        // A look changes nothing, so there is nothing to give up; what is proven stays so.
        let hopeless = stage > Stage::Look && (!retryable || spent);
        let wait = match worked && hopeless {
            true => slot.patience(),
            false => Backoff::KIBANA.wait(n_failures),
        };
        let wait = wait.max(retry_after.unwrap_or_default());
        let loud = !retryable || n_failures >= QUIET_TRIES;
        tracing::debug!(binding = %place, class = %failure.class, n_failures, reason = %failure.text, "a step failed");
        match goal {
            Some(goal) if hopeless && !worked => self.give_up(place, goal, &failure),
            _ => {
                slot.strain = Some(Strain {
                    stage,
                    failure: failure.clone(),
                    n_failures,
                    not_before: now + wait,
                });
                self.report_strain(place, stage, &failure, loud);
            }
        }
    }

    fn give_up(&mut self, place: &Place, goal: Goal, failure: &keyfleet_core::binding::Failure) {
        self.keep(place, |entry| {
            entry.failure = Some(GivenUp {
                goal,
                class: failure.class,
                text: failure.text.clone(),
            });
            if let Some(applied) = &mut entry.applied {
                applied.proven_at = None;
            }
        });
    }

    fn report_strain(
        &mut self,
        place: &Place,
        stage: Stage,
        failure: &keyfleet_core::binding::Failure,
        loud: bool,
    ) {
        let proven = self
            .goal_of(place)
            .is_some_and(|goal| self.ledger.get(place).is_proven(goal));
        // That Kibana does not answer, or not us, says nothing about a connector that works.
        let is_about_us = matches!(
            failure.class,
            FailureClass::KibanaDown | FailureClass::KibanaAuth
        );
        if !loud || (proven && (stage == Stage::Look || is_about_us)) {
            return;
        }
        if stage == Stage::Prove {
            self.void_proof(place);
        }
        self.report_failed(place, failure);
    }

    /// Changes the ledger, which is written before anything else happens.
    pub(super) fn keep(&mut self, place: &Place, change: impl FnOnce(&mut Entry)) {
        self.ledger.change(place, change);
    }

    fn with(&mut self, place: &Place, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.get_mut(place) {
            change(slot);
        }
    }
}
