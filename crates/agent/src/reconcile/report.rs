//! What control hears of a binding: only when it changed.

use keyfleet_core::binding::{BindingState, Failure};
use keyfleet_proto::{WireTime, v1};

use super::Reconciler;
use super::slot::Shown;
use crate::ledger::Entry;
use crate::wish::Place;

impl Reconciler {
    /// Reports a failure.
    pub(super) fn report_failed(&mut self, place: &Place, failure: &Failure) {
        self.report(place, BindingState::Failed, Some(failure));
    }

    /// Reports that our connector is confirmed gone.
    pub(super) fn report_removed(&mut self, place: &Place) {
        self.show(place, BindingState::Applied, None, true);
    }

    /// Reports a state; a failure's text explains any state, its class only a failed one.
    pub(super) fn report(&mut self, place: &Place, state: BindingState, failure: Option<&Failure>) {
        self.show(place, state, failure, false);
    }

    fn show(
        &mut self,
        place: &Place,
        state: BindingState,
        failure: Option<&Failure>,
        removed: bool,
    ) {
        let entry = self.ledger.get(place);
        let applied = entry.applied.as_ref();
        let shown = Shown {
            state,
            failure: failure.cloned(),
            proven_at: applied.and_then(|applied| applied.proven_at),
            rung: applied.and_then(|applied| applied.rung),
            removed,
        };
        let Some(slot) = self.slots.get_mut(place) else {
            return;
        };
        if slot.shown.as_ref() == Some(&shown) {
            return;
        }
        slot.shown = Some(shown.clone());
        match (state, failure) {
            (BindingState::Failed, Some(failure)) => {
                tracing::warn!(binding = %place, class = %failure.class, reason = %failure.text, "a binding failed");
            }
            _ => tracing::info!(binding = %place, %state, removed, "a binding changed"),
        }
        let status = self.status(place, &entry, &shown);
        self.outbox.status(place.clone(), status);
    }

    fn status(&self, place: &Place, entry: &Entry, shown: &Shown) -> v1::BindingStatus {
        let goal = self.goal_of(place);
        let failed = shown
            .failure
            .as_ref()
            .filter(|_| matches!(shown.state, BindingState::Failed | BindingState::Drifted));
        let baseline_ok = match (&entry.intent, &entry.applied) {
            (Some(intent), _) if Some(intent.goal) == goal => intent.baseline_ok,
            (_, Some(applied)) if Some(applied.goal) == goal => applied.baseline_ok,
            _ => self.slots.get(place).and_then(|slot| slot.baseline_ok),
        };
        // After a restart an old proof is reported as it was, so that control sees no change.
        let proven_at = shown
            .proven_at
            .filter(|_| shown.state == BindingState::Proven);
        let changed_at = proven_at.unwrap_or_else(Self::now_on_the_wall);
        v1::BindingStatus {
            binding: Some(place.to_wire()),
            running: entry.running().map(Into::into),
            attempted: goal.map(|goal| goal.assignment.into()),
            attempt: goal.map_or(0, |goal| goal.attempt),
            generation: self
                .desired
                .as_ref()
                .map(|desired| desired.generation.into()),
            state: v1::BindingState::from(shown.state).into(),
            failure_class: failed.map_or(0, |failure| v1::FailureClass::from(failure.class).into()),
            text: shown
                .failure
                .as_ref()
                .map(|failure| failure.text.clone())
                .unwrap_or_default(),
            baseline_ok,
            proven_at: shown.proven_at.map(|at| WireTime(at).into()),
            changed_at: Some(WireTime(changed_at).into()),
            removed: shown.removed,
            rung: shown
                .rung
                .map_or(0, |rung| v1::ProbeRung::from(rung).into()),
            references: entry.references,
        }
    }

    /// A list showed how many rules and others refer to the connector.
    pub(super) fn note_references(&mut self, place: &Place, references: u32) {
        let Some(slot) = self.slots.get_mut(place) else {
            return;
        };
        slot.references = references;
        let shown = slot.shown.clone();
        self.keep(place, |entry| entry.references = references);
        let Some(shown) = shown else {
            return;
        };
        let status = self.status(place, &self.ledger.get(place), &shown);
        self.outbox.status(place.clone(), status);
    }
}
