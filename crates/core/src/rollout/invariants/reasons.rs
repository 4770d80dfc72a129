//! Nothing waits without a reason, and nothing that has arrived has one.

use std::collections::BTreeSet;

use crate::rollout::phase::Phase;
use crate::rollout::plan::{Plan, Step, Target};
use crate::rollout::waiting::About;

use super::Found;
use super::count::Count;

pub(super) fn check(found: &mut Found, count: &Count<'_>, plan: &Plan) {
    let abouts: Vec<About> = plan
        .waiting_on
        .iter()
        .map(|waiting| waiting.about)
        .collect();
    let once: BTreeSet<About> = abouts.iter().copied().collect();
    found.unless(once.len() == abouts.len(), || {
        "something has two reasons".to_owned()
    });
    for waiting in &plan.waiting_on {
        found.unless(!waiting.on.to_string().trim().is_empty(), || {
            format!("{:?} waits for nothing in words", waiting.about)
        });
    }
    for target in count.targets() {
        let has = once.contains(&About::Deployment(target.deployment));
        let id = target.deployment;
        if let Some(needs) = needs_a_reason(count, target) {
            found.unless(has == needs, || {
                format!(
                    "{id} needs a reason: {needs}, has one: {has}, {:?}",
                    target.step
                )
            });
        }
    }
    let moves = !plan.events.is_empty();
    found.unless(once.contains(&About::Run) != moves, || {
        format!("the run moves: {moves}, has a reason: {}", !moves)
    });
    for wave in later_waves(count) {
        found.unless(moves || once.contains(&About::Wave(wave)), || {
            format!("wave {wave} does not advance and has no reason")
        });
    }
    wakes(found, count, plan);
}

/// Whether a deployment needs a reason; `None` where it may have one.
fn needs_a_reason(count: &Count<'_>, target: &Target) -> Option<bool> {
    let back = count.phase().is_rollback();
    // Who left waits for the end of the run, or has nothing to wait for: the shell knows.
    if target.left && !count.is_in_flight(target) {
        return None;
    }
    match target.step {
        // Before the start nobody has anything, so nothing more is said.
        _ if count.phase() == Phase::Pending => (target.step == Step::Waiting).then_some(true),
        Step::Proven(_) if back => Some(true),
        // The clock stepped back: until it has caught up, it may be said to soak.
        Step::Proven(at) if at > count.input.now => None,
        Step::Proven(_) if count.is_soaked(target) => Some(false),
        // Under andon, or where an operator no longer waits, nothing need be said about soaking.
        Step::Proven(_) if count.input.andon.is_some() || count.is_fast_forward() => None,
        Step::Proven(_) => Some(true),
        Step::Waiting => Some(!back),
        Step::RolledBack(_) => (back || count.input.andon.is_some()).then_some(false),
        Step::RollbackFailed(..) => Some(!(target.baseline_red && back)),
        Step::Offered(_)
        | Step::Received(_)
        | Step::Applied(_)
        | Step::Failed(..)
        | Step::RollbackOffered(_) => Some(true),
    }
}

/// The waves that have deployments and have not begun.
fn later_waves(count: &Count<'_>) -> Vec<usize> {
    if count.phase().is_rollback() || count.input.andon.is_some() {
        return Vec::new();
    }
    let later = |target: &&Target| !count.has_begun(target);
    let waves: BTreeSet<usize> = count
        .present()
        .filter(later)
        .map(|target| count.wave_of(target))
        .collect();
    waves.into_iter().collect()
}

/// A plan that changes something is followed by another at once; else the run sleeps until a later moment.
fn wakes(found: &mut Found, count: &Count<'_>, plan: &Plan) {
    let again = !plan.events.is_empty() || !plan.timed_out.is_empty();
    let now = count.input.now;
    let good = match plan.wake_at {
        Some(at) if again => at == now,
        Some(at) => at > now,
        None => !again,
    };
    found.unless(good, || {
        format!("wakes at {:?}, now is {now}", plan.wake_at)
    });
}
