//! New beginnings of what is under way: nobody is late for the time in which nobody was there.

use std::collections::BTreeSet;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingState;
use keyfleet_core::id::{DeploymentId, RolloutId};
use keyfleet_core::rollout::Run;
use keyfleet_store::{Binding, Tx};

use crate::error::Error;

/// Gives everything that is under way a new beginning: after a start of control nobody was watching, and agents
/// need a moment to come back. Without it every deadline would have passed at once. What gates said is old by now.
pub(crate) fn begin_anew(tx: &Tx<'_>, now: Timestamp) -> Result<(), Error> {
    for rollout in tx.active_rollouts()? {
        let run = Run {
            wave_started_at: now,
            gates: Vec::new(),
            ..rollout.run
        };
        tx.set_run(rollout.id, &run, None)?;
        let mut under_way = BTreeSet::new();
        for mut binding in tx.bindings_in(rollout.id)? {
            if is_under_way(&binding) {
                under_way.insert(binding.id.deployment);
                binding.progress.at = now;
                tx.put_binding(&binding)?;
            }
        }
        if run.phase.is_rollback() {
            tell_anew(tx, rollout.id, &under_way, now)?;
        }
    }
    Ok(())
}

/// Gives what a deployment was told while it was away a new beginning: it could not know before it came back. On the way
/// back that is also what it had received.
pub(crate) fn begin_again(
    tx: &Tx<'_>,
    deployment: DeploymentId,
    now: Timestamp,
) -> Result<(), Error> {
    let bindings = tx.bindings_of(deployment)?;
    for rollout in tx.active_rollouts()? {
        if rollout.run.phase.is_rollback() {
            let changes = tx.rollout_bindings(rollout.id)?;
            let is_of = |binding: &&Binding| changes.iter().any(|change| change.id == binding.id);
            if bindings.iter().filter(is_of).any(is_under_way) {
                tell_anew(tx, rollout.id, &BTreeSet::from([deployment]), now)?;
            }
        }
    }
    let is_offered = |binding: &Binding| binding.progress.state == BindingState::Offered;
    for mut binding in bindings.into_iter().filter(is_offered) {
        binding.progress.at = now;
        tx.put_binding(&binding)?;
    }
    Ok(())
}

/// True where the deployment was told, and it has neither come of it nor failed.
pub(crate) fn is_under_way(binding: &Binding) -> bool {
    matches!(
        binding.progress.state,
        BindingState::Offered | BindingState::Received | BindingState::Applied
    )
}

/// The way back has one deadline, which counts from when it was told.
fn tell_anew(
    tx: &Tx<'_>,
    id: RolloutId,
    under_way: &BTreeSet<DeploymentId>,
    now: Timestamp,
) -> Result<(), Error> {
    for mut target in tx.rollout_targets(id)? {
        if target.rollback_at.is_some() && under_way.contains(&target.deployment) {
            target.rollback_at = Some(now);
            tx.put_rollout_target(id, &target)?;
        }
    }
    Ok(())
}
