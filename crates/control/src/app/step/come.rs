//! How far a deployment has come, from how far its bindings have.

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingState;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::rollout::Step;
use keyfleet_store::{Progress, RolloutTarget};

/// How far the worst binding of a deployment has come.
pub(super) fn step_of<'a>(
    target: &RolloutTarget,
    bindings: impl Iterator<Item = &'a Progress>,
) -> Step {
    let bindings: Vec<&Progress> = bindings.collect();
    let is_failed = |state| matches!(state, BindingState::Failed | BindingState::Drifted);
    let failed = bindings
        .iter()
        .find(|progress| is_failed(progress.state))
        .map(|progress| {
            (
                progress.at,
                progress
                    .failure
                    .as_ref()
                    .map_or(FailureClass::Agent, |f| f.class),
            )
        });
    let latest = |fallback: Timestamp| bindings.iter().map(|p| p.at).max().unwrap_or(fallback);
    let least = bindings
        .iter()
        .map(|progress| progress.state)
        .min()
        .unwrap_or(BindingState::Proven);
    match (target.offered_at, target.rollback_at) {
        (_, Some(at)) => match failed {
            Some((at, class)) => Step::RollbackFailed(at, class),
            None if least == BindingState::Proven => Step::RolledBack(latest(at)),
            None => Step::RollbackOffered(at_least(&bindings, BindingState::Offered, at)),
        },
        (Some(at), None) => match (failed, least) {
            (Some((at, class)), _) => Step::Failed(at, class),
            (None, BindingState::Proven | BindingState::Waived) => Step::Proven(latest(at)),
            (None, BindingState::Applied) => Step::Applied(at_least(&bindings, least, at)),
            (None, BindingState::Received) => Step::Received(at_least(&bindings, least, at)),
            (None, _) => Step::Offered(at_least(&bindings, BindingState::Offered, at)),
        },
        (None, None) => Step::Waiting,
    }
}

/// True where what fails (or, as long as nothing does, anything) was broken before the change. One binding that was
/// broken before does not excuse another that fails now.
pub(super) fn was_broken<'a>(bindings: impl Iterator<Item = &'a Progress>) -> bool {
    let is_red = |progress: &&Progress| progress.baseline_ok == Some(false);
    let bindings: Vec<&Progress> = bindings.collect();
    let mut failed = bindings
        .iter()
        .filter(|progress| progress.failure.is_some())
        .peekable();
    if failed.peek().is_none() {
        return bindings.iter().any(is_red);
    }
    failed.all(is_red)
}

/// Since when the slowest bindings are in the state `least`: the deadline of a step counts from the last of them.
fn at_least(bindings: &[&Progress], least: BindingState, fallback: Timestamp) -> Timestamp {
    bindings
        .iter()
        .filter(|p| p.state == least)
        .map(|p| p.at)
        .max()
        .unwrap_or(fallback)
}
