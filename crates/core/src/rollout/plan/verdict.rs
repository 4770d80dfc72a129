//! What budgets and gates do to the run.

use super::progress::touched;
use super::view::View;
use super::wave::state_of;
use crate::rollout::budget::{Breach, budgets_of_run, budgets_of_wave};
use crate::rollout::gate::{Gate, Verdict};
use crate::rollout::phase::Event;
use crate::rollout::strategy::Action;

/// Something that holds the run.
#[derive(Debug)]
struct Hold {
    action: Action,
    event: Event,
    sentence: String,
}

/// What budgets and gates do to the run: the strongest action; of equals the first, budgets before gates, so that the
/// sentence names the earliest wave.
///
/// A rollback that cannot be done everywhere is a halt.
pub(super) fn verdict(view: &View<'_>) -> Option<(Event, String)> {
    let mut worst: Option<Hold> = None;
    for hold in breaches(view).into_iter().chain(gates(view)) {
        if worst
            .as_ref()
            .is_none_or(|worst| worst.action < hold.action)
        {
            worst = Some(hold);
        }
    }
    let worst = worst?;
    if worst.action != Action::Rollback {
        return Some((worst.event, worst.sentence));
    }
    let touched = || view.input.targets.iter().filter(|target| touched(target));
    let impossible = touched()
        .filter(|target| !target.left && !target.can_roll_back)
        .count();
    if impossible == 0 {
        return Some((worst.event, worst.sentence));
    }
    let (touched, reason) = (touched().count(), worst.sentence);
    let sentence =
        format!("{reason}, but {impossible} of {touched} touched deployments cannot go back: halt");
    Some((Event::RollbackImpossible, sentence))
}

/// The budgets that are spent: of every wave that has begun, then of the run.
fn breaches(view: &View<'_>) -> Vec<Hold> {
    let (strategy, mut breaches) = (view.input.strategy, Vec::new());
    for (index, tally) in view.begun() {
        let (wave, name) = (view.wave(index), view.name(index));
        let strict = wave.strict;
        breaches.extend(
            budgets_of_wave(strategy, wave)
                .iter()
                .filter_map(|budget| tally.outcomes.breach(strategy, budget, strict, Some(&name))),
        );
    }
    if let Some(current) = view.current {
        let (all, strict) = (view.outcomes(), view.wave(current).strict);
        breaches.extend(
            budgets_of_run(strategy)
                .filter_map(|budget| all.breach(strategy, budget, strict, None)),
        );
    }
    let hold = |breach: Breach| Hold {
        action: breach.budget.action,
        event: Event::BudgetSpent(breach.budget.action),
        sentence: breach.to_string(),
    };
    breaches.into_iter().map(hold).collect()
}

/// The gates that have failed, or said nothing, too often in a row.
fn gates<'a>(view: &'a View<'_>) -> impl Iterator<Item = Hold> + 'a {
    view.input
        .strategy
        .gates
        .iter()
        .filter_map(|gate| gate_hold(view, gate))
}

fn gate_hold(view: &View<'_>, gate: &Gate) -> Option<Hold> {
    let state = state_of(view, gate)?;
    let (name, streak, text) = (&gate.name, state.streak, &state.text);
    match state.verdict {
        Verdict::Fail if streak >= gate.fail_after => {
            // A gate always does something: `continue` is refused in manifests.
            let action = gate.action.max(Action::Pause);
            let word = action.as_str();
            Some(Hold {
                action,
                event: Event::GateFailed(action),
                sentence: format!("gate {name} failed {streak} times in a row: {text}: {word}"),
            })
        }
        Verdict::Inconclusive if streak >= gate.inconclusive_after => Some(Hold {
            action: Action::Pause,
            event: Event::GateInconclusive,
            sentence: format!("gate {name} said nothing {streak} times in a row: {text}: pause"),
        }),
        Verdict::Pass | Verdict::Fail | Verdict::Inconclusive => None,
    }
}
