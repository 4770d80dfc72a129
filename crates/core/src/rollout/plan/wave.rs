//! The running wave: what it waits for, when it is overdue, and whether the next one may begin.

use crate::Timestamp;

use super::view::{View, due};
use crate::rollout::gate::{Gate, GateState, Verdict};
use crate::rollout::waiting::{Human, WaitingOn, WaveHold};

/// What the running wave waits for; `None` when it is done, and where none has begun.
pub(super) fn hold(view: &View<'_>) -> Option<WaveHold> {
    let current = view.current?;
    let (tally, wave) = (view.tally(current), view.wave(current));
    let (proven, deployments) = (tally.outcomes.proven, tally.outcomes.deployments);
    let (in_flight, waiting) = (view.sum(|t| t.in_flight), view.sum(|t| t.waiting));
    if in_flight == 0 && waiting > 0 && waiting == view.sum(|t| t.shut) {
        let opens = view.window_opens.map(|at| view.left(at));
        return Some(WaveHold::Windows { waiting, opens });
    }
    if waiting + in_flight > 0 {
        return Some(WaveHold::Running {
            proven,
            deployments,
            in_flight,
            left: None,
        });
    }
    if view.is_fast_forward() {
        return None;
    }
    let (offline, broken_before) = (tally.offline, tally.outcomes.broken_before);
    if wave.mandatory && offline + broken_before > 0 {
        return Some(WaveHold::Mandatory {
            proven,
            deployments,
            offline,
            broken_before,
        });
    }
    let limit_percent = view.input.strategy.offline.max_percent;
    if u64::from(offline) * 100 > u64::from(limit_percent) * u64::from(deployments) {
        return Some(WaveHold::Offline {
            offline,
            deployments,
            limit_percent,
        });
    }
    // A canary does not pass because its only deployment is away, nor, where it is strict, because all it
    // has was broken before; an operator who resumes lets the latter pass.
    let silent = offline > 0 || (wave.strict && broken_before > 0);
    if proven == 0 && silent {
        return Some(WaveHold::Unproven {
            offline,
            broken_before,
            deployments,
        });
    }
    let soaking = view.soaked_at().filter(|at| !view.passed(*at))?;
    Some(WaveHold::Soaking {
        left: view.left(soaking),
    })
}

/// When the running wave, held so, is overdue; `None` while that is not judged.
///
/// It is not where an operator told it to go on, nor while somebody waits for a window (also somebody who is away), nor
/// while the next wave waits for people or a gate anyway and this one has only to finish what it does.
pub(super) fn overdue_at(view: &View<'_>, hold: WaveHold) -> Option<Timestamp> {
    let is_busy = matches!(hold, WaveHold::Running { .. } | WaveHold::Soaking { .. });
    let shut_away = view.current.map_or(0, |index| view.tally(index).shut_away);
    let is_shut = view.sum(|tally| tally.shut) > 0 || shut_away > 0;
    if view.is_fast_forward() || is_shut {
        return None;
    }
    if is_busy
        && view
            .next_wave()
            .and_then(|next| barrier(view, next))
            .is_some()
    {
        return None;
    }
    Some(due_at(view))
}

/// When the time of the running wave is over, judged or not.
///
/// The time for which windows kept the change from a deployment of it is not the wave's. What was offered later than
/// that (somebody came back while people were waited for) has the whole time anew.
pub(super) fn due_at(view: &View<'_>) -> Timestamp {
    let limit = view.input.strategy.deadlines.wave;
    let at = due(due(view.input.run.wave_started_at, view.shut), limit);
    let late = view.last_offered.filter(|offered| *offered >= at);
    late.map_or(at, |offered| due(offered, limit))
}

/// True where the wave waits for who is away.
pub(super) fn is_absence(hold: WaveHold) -> bool {
    match hold {
        WaveHold::Offline { .. } | WaveHold::Unproven { .. } | WaveHold::Mandatory { .. } => true,
        WaveHold::Running { .. } | WaveHold::Windows { .. } | WaveHold::Soaking { .. } => false,
    }
}

/// What keeps the wave of this index from beginning, beside the waves before it: people who have not agreed, or a gate.
pub(super) fn barrier(view: &View<'_>, index: usize) -> Option<WaitingOn> {
    missing_approval(view, index).or_else(|| closed_gate(view))
}

fn missing_approval(view: &View<'_>, index: usize) -> Option<WaitingOn> {
    let run = view.input.run;
    let approval = view.wave(index).approval?;
    let given = run.agreed(index, approval);
    (given < approval.required).then(|| WaitingOn::Approval {
        wave: view.wave_ref(index),
        given,
        required: approval.required,
        except: approval.not_author.then(|| run.author.as_str().into()),
    })
}

/// The first gate that does not pass now: while there is one, nothing is offered and no wave begins.
pub(super) fn closed_gate(view: &View<'_>) -> Option<WaitingOn> {
    let closed = |gate: &Gate| {
        let state = state_of(view, gate);
        let text = why_closed(view, gate, state)?;
        Some(WaitingOn::Gate {
            name: gate.name.as_str().into(),
            text: text.into(),
        })
    };
    view.input.strategy.gates.iter().find_map(closed)
}

/// When the first of the gates that pass counts no longer, unless it answers again.
pub(super) fn gates_fresh_until(view: &View<'_>) -> Option<Timestamp> {
    let gates = view.input.strategy.gates.iter();
    gates
        .filter_map(|gate| Some(due(state_of(view, gate)?.at, gate.fresh_for())))
        .min()
}

/// Where a gate stands; `None` where it was never asked.
pub(super) fn state_of<'a>(view: &View<'a>, gate: &Gate) -> Option<&'a GateState> {
    let run = view.input.run;
    run.gates.iter().find(|state| state.name == gate.name)
}

fn why_closed(view: &View<'_>, gate: &Gate, state: Option<&GateState>) -> Option<String> {
    let Some(state) = state else {
        return Some("it has not answered yet".to_owned());
    };
    let GateState { streak, text, .. } = state;
    match state.verdict {
        Verdict::Pass if !view.passed(due(state.at, gate.fresh_for())) => None,
        Verdict::Pass => Some(format!(
            "its last answer is older than {}",
            Human(gate.fresh_for())
        )),
        Verdict::Fail => Some(format!(
            "failed {streak} times of {} in a row: {text}",
            gate.fail_after
        )),
        Verdict::Inconclusive => Some(format!(
            "inconclusive {streak} times of {} in a row: {text}",
            gate.inconclusive_after
        )),
    }
}
