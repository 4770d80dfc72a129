//! Notes what came of a call.

use jiff::Timestamp;
use keyfleet_core::failure::FailureClass;
use keyfleet_kibana::{Preflight, ProbeResult};
use tokio::time::Instant;

use super::Reconciler;
use super::advance::QUIET_TRIES;
use super::slot::{Slot, Stage, Strain};
use crate::backoff::Backoff;
use crate::decide::Seen;
use crate::facts::{facts, same};
use crate::ledger::{Applied, Entry, GivenUp};
use crate::wish::{Goal, Place};
use crate::work::{Done, Outcome, Trouble, is_transient};

/// After so many tries of the same goal only a new try helps, or patience where it worked before. A Kibana that is
/// down is tried for ever.
const TRIES_MAX: u32 = 10;

impl Reconciler {
    pub(super) fn on_done(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Preflight(found) => self.on_preflight(*found, now),
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

    fn on_preflight(&mut self, found: Preflight, now: Instant) {
        let fresh = facts(&found, Self::now_on_the_wall());
        if !self.facts.as_ref().is_some_and(|known| same(known, &fresh)) {
            for problem in &fresh.problems {
                tracing::warn!(%problem, "Kibana is not ready for connectors");
            }
            self.outbox.facts(fresh.clone());
            self.facts = Some(fresh);
        }
        if self.check.end(found, now) {
            for slot in self.slots.values_mut() {
                slot.strain
                    .take_if(|strain| strain.failure.class == FailureClass::KibanaDown);
            }
        }
    }

    /// A write for an earlier wish was done all the same; everything else of it is void.
    fn on_late_outcome(&mut self, place: &Place, outcome: Outcome) {
        if let Outcome::Wrote {
            goal,
            fingerprint,
            result: Ok(()),
        } = outcome
        {
            self.note_written(place, goal, fingerprint);
        }
    }

    fn on_outcome(&mut self, place: &Place, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Looked(Ok(seen)) => self.with(place, |slot| {
                (slot.seen, slot.seen_at) = (seen, now);
                slot.relieve(Stage::Look);
            }),
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
                result,
            } => self.on_wrote(place, goal, fingerprint, (result, now)),
            Outcome::Probed {
                goal,
                began,
                result,
            } => self.on_probed(place, goal, began, (result, now)),
            Outcome::Deleted(result) => {
                self.with(place, |slot| slot.seen = Seen::Unknown);
                match result {
                    Ok(()) => self.with(place, |slot| slot.relieve(Stage::Write)),
                    Err(trouble) => self.strain(place, Stage::Look, trouble, now),
                }
            }
        }
    }

    fn on_wrote(
        &mut self,
        place: &Place,
        goal: Goal,
        fingerprint: String,
        (result, now): (Result<(), Trouble>, Instant),
    ) {
        self.with(place, |slot| slot.seen = Seen::Unknown);
        match result {
            Ok(()) => {
                self.note_written(place, goal, fingerprint);
                self.with(place, |slot| slot.relieve(Stage::Write));
            }
            Err(trouble) => {
                if trouble.refused {
                    self.keep(place, |entry| entry.intent = None);
                }
                self.strain(place, Stage::Write, trouble, now);
            }
        }
    }

    fn note_written(&mut self, place: &Place, goal: Goal, fingerprint: String) {
        self.keep(place, |entry| {
            let ever_proven = entry.ever_proven(goal);
            let intent = entry.intent.take().filter(|intent| intent.goal == goal);
            let applied = Applied {
                goal,
                fingerprint,
                baseline_ok: intent.as_ref().and_then(|intent| intent.baseline_ok),
                n_writes: intent.map_or(1, |intent| intent.n_writes),
                agreed: false,
                proven_at: None,
                ever_proven,
            };
            *entry = Entry {
                applied: Some(applied),
                ..Entry::default()
            };
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
            Ok(ProbeResult::Proven { .. }) => {
                self.keep(place, |entry| {
                    if let Some(applied) = &mut entry.applied {
                        (applied.goal, applied.proven_at) = (goal, Some(began));
                        applied.ever_proven = true;
                    }
                });
                return self.with(place, |slot| slot.relieve(Stage::Prove));
            }
            Ok(ProbeResult::Failed { class, text }) => {
                Trouble::new(class, &text, is_transient(class))
            }
            Err(trouble) => {
                self.with(place, |slot| slot.seen = Seen::Unknown);
                trouble
            }
        };
        self.strain(place, Stage::Prove, trouble, now);
    }

    /// Something failed: try again later, or give this goal up. What worked once is never given up.
    pub(super) fn strain(&mut self, place: &Place, stage: Stage, trouble: Trouble, now: Instant) {
        let Trouble {
            failure,
            retryable,
            retry_after,
            ..
        } = trouble;
        if matches!(
            failure.class,
            FailureClass::KibanaDown | FailureClass::KibanaAuth
        ) {
            self.check.doubt(now);
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
        if !loud || (proven && stage == Stage::Look) {
            return;
        }
        if stage == Stage::Prove {
            self.keep(place, |entry| {
                if let Some(applied) = &mut entry.applied {
                    applied.proven_at = None;
                }
            });
        }
        self.report_failed(place, failure);
    }

    /// Changes the ledger. What cannot be kept holds in memory, and the next change writes it too.
    pub(super) fn keep(&mut self, place: &Place, change: impl FnOnce(&mut Entry)) {
        if let Err(error) = self.ledger.change(place, change) {
            tracing::error!(%error, binding = %place, "cannot write the ledger; after a restart this connector may be written once more");
        }
    }

    fn with(&mut self, place: &Place, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slots.get_mut(place) {
            change(slot);
        }
    }
}
