//! What a step writes: what a deployment shall have from now on, and what came too late.

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{BindingId, BindingState, Failure};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::DeploymentId;
use keyfleet_core::rollout::Deadline;
use keyfleet_store::{Desired, Progress, RolloutBinding, Tx};

use super::{Loaded, Surroundings, is_proven};
use crate::app::ending::key_at;
use crate::error::Error;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Back,
}

impl Loaded {
    pub(super) fn time_out(
        &mut self,
        tx: &Tx<'_>,
        deployment: DeploymentId,
        deadline: Deadline,
        now: Timestamp,
    ) -> Result<(), Error> {
        let text = format!(
            "the {} deadline passed without an answer",
            deadline.as_str()
        );
        let is_late = |change: &&RolloutBinding| self.waits_for(change).all(is_proven);
        let late = self.changes_of(deployment).iter().filter(is_late);
        let ids: Vec<BindingId> = late.map(|change| change.id.clone()).collect();
        for id in ids {
            let Some(binding) = self.bindings.get_mut(&id) else {
                continue;
            };
            if binding.progress.state != BindingState::Proven {
                let failure = Failure {
                    class: FailureClass::Timeout,
                    text: text.clone(),
                };
                binding.progress.state = BindingState::Failed;
                binding.progress.at = now;
                binding.progress.failure = Some(failure);
                tx.put_binding(binding)?;
            }
        }
        Ok(())
    }

    /// Writes what a deployment shall have into its desired state, holdings first.
    pub(super) fn tell(
        &mut self,
        tx: &Tx<'_>,
        deployment: DeploymentId,
        direction: Direction,
        around: &Surroundings,
    ) -> Result<(), Error> {
        let generation = tx.next_generation(deployment, around.epoch)?;
        let floor = tx.floors()?.attempt;
        let mut changes = self.changes.remove(&deployment).unwrap_or_default();
        let mut failure = None;
        for change in &mut changes {
            let assignment = match direction {
                Direction::Forward => change.to,
                Direction::Back => change.from,
            };
            let Some(binding) = self.bindings.get_mut(&change.id) else {
                continue;
            };
            if let Some(assignment) = assignment {
                let key = key_at(tx, &change.id.connector, assignment.revision)?;
                tx.open_holding(&change.id, &key, assignment.key_version, around.now)?;
                // What was agreed was agreed for the removal that this is not.
                binding.references_agreed = 0;
            }
            if let (Direction::Back, Some(failed)) = (direction, &binding.progress.failure) {
                tx.blame(self.rollout.id, &change.id, failed.class)?;
                change.failure = Some(failed.class);
                failure = failure.or(Some(failed.clone()));
            }
            let is_same = binding
                .desired
                .is_some_and(|told| told.assignment == assignment);
            let tried = binding.desired.map_or(0, |told| told.attempt);
            binding.desired = Some(Desired {
                assignment,
                // Never counts anew: an answer to an older try must not pass for an answer to this one.
                attempt: tried.max(floor) + 1,
                generation,
            });
            // A retry of the same is still judged by what was there before the first try.
            let is_new = direction == Direction::Forward && !is_same;
            let baseline_ok = binding.progress.baseline_ok.filter(|_| !is_new);
            let state = BindingState::Offered;
            binding.progress = Progress {
                state,
                at: around.now,
                failure: None,
                baseline_ok,
            };
            tx.put_binding(binding)?;
        }
        self.changes.insert(deployment, changes);
        // They are in order of their ids.
        let found = self
            .targets
            .binary_search_by_key(&deployment, |t| t.deployment);
        if let Some(target) = found.ok().and_then(|index| self.targets.get_mut(index)) {
            match direction {
                Direction::Forward => target.offered_at = Some(around.now),
                Direction::Back => {
                    target.rollback_at = Some(around.now);
                    target.failure = target.failure.take().or(failure);
                }
            }
            tx.put_rollout_target(self.rollout.id, target)?;
        }
        Ok(())
    }
}
