//! How far a deployment has come, from how far its bindings have.

use std::borrow::Cow;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingState;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::rollout::Step;
use keyfleet_store::{Binding, Progress, RolloutBinding, RolloutTarget};

use super::{Loaded, is_proven};

/// How far the bindings of a deployment have come, as far as that is theirs to answer for.
///
/// A removal that waits until what takes its place is proven is not late: it counts from then on. Nor is an agent that
/// waited for its `turn` to make a live call, before the change or after it.
pub(super) fn come<'a>(
    loaded: &'a Loaded,
    target: &RolloutTarget,
    turn: Option<Timestamp>,
) -> Vec<Cow<'a, Progress>> {
    let changes = loaded.changes_of(target.deployment).iter();
    let is_forward = target.rollback_at.is_none();
    let come = |change: &RolloutBinding| {
        let progress = &loaded.bindings.get(&change.id)?.progress;
        let is_failed = progress.failure.is_some();
        let mut newer: Vec<&Binding> = loaded.waits_for(change).collect();
        if newer.is_empty() || is_failed || !is_forward {
            return Some(Cow::Borrowed(progress));
        }
        let proven = newer.iter().map(|newer| newer.progress.at).max()?;
        newer.retain(|newer| !is_proven(newer));
        newer.is_empty().then(|| {
            Cow::Owned(Progress {
                at: progress.at.max(proven),
                ..progress.clone()
            })
        })
    };
    changes
        .filter_map(come)
        .map(|progress| since_turn(progress, turn))
        .collect()
}

fn since_turn(progress: Cow<'_, Progress>, turn: Option<Timestamp>) -> Cow<'_, Progress> {
    let calls = matches!(
        progress.state,
        BindingState::Received | BindingState::Applied
    );
    match turn {
        Some(turn) if calls && turn > progress.at => Cow::Owned(Progress {
            at: turn,
            ..progress.into_owned()
        }),
        Some(_) | None => progress,
    }
}

/// How far the worst binding of a deployment has come.
pub(super) fn step_of(target: &RolloutTarget, bindings: &[Cow<'_, Progress>]) -> Step {
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
            None => Step::RollbackOffered(at_least(bindings, BindingState::Offered, at)),
        },
        (Some(at), None) => match (failed, least) {
            (Some((at, class)), _) => Step::Failed(at, class),
            (None, BindingState::Proven | BindingState::Waived) => Step::Proven(latest(at)),
            (None, BindingState::Applied) => Step::Applied(at_least(bindings, least, at)),
            (None, BindingState::Received) => Step::Received(at_least(bindings, least, at)),
            (None, _) => Step::Offered(at_least(bindings, BindingState::Offered, at)),
        },
        (None, None) => Step::Waiting,
    }
}

/// True where what fails (or, as long as nothing does, anything) was broken before the change. One binding that was
/// broken before does not excuse another that fails now.
pub(super) fn was_broken(bindings: &[Cow<'_, Progress>]) -> bool {
    let is_red = |progress: &Cow<'_, Progress>| progress.baseline_ok == Some(false);
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
fn at_least(bindings: &[Cow<'_, Progress>], least: BindingState, fallback: Timestamp) -> Timestamp {
    bindings
        .iter()
        .filter(|p| p.state == least)
        .map(|p| p.at)
        .max()
        .unwrap_or(fallback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waited_for_its_turn_counts_from_then_on() {
        let at = |secs| Timestamp::from_second(secs).unwrap();
        let since = |state, turn| {
            let progress = Progress {
                state,
                at: at(100),
                failure: None,
                baseline_ok: None,
            };
            since_turn(Cow::Owned(progress), turn).at
        };
        let check = |state, turn: Option<i64>, expected| {
            assert_eq!(since(state, turn.map(at)), at(expected), "{state} {turn:?}");
        };
        for state in [BindingState::Received, BindingState::Applied] {
            check(state, None, 100);
            check(state, Some(40), 100);
            check(state, Some(160), 160);
        }
        for state in [
            BindingState::Offered,
            BindingState::Failed,
            BindingState::Proven,
        ] {
            check(state, Some(160), 100);
        }
    }
}
