//! One reason for every deployment that is not converged, for every wave that is not done, and for the run.

use super::room::Rooms;
use super::view::{Stage, View};
use super::wave::{barrier, closed_gate, hold, is_absence, overdue_at};
use super::{Opening, Plan, Step, Target};
use crate::failure::FailureClass;
use crate::rollout::phase::Phase;
use crate::rollout::waiting::{About, Deployments, Waiting, WaitingOn, WaveHold};

/// What the reasons on the way forward are made of.
#[derive(Debug)]
pub(super) struct Reasons<'a> {
    view: &'a View<'a>,
    rooms: Option<&'a Rooms<'a>>,
    /// What holds everything: somebody paused the run, or the plan changes it first.
    everything: Option<WaitingOn>,
    /// The gate that keeps everything new back.
    gate: Option<WaitingOn>,
    /// The running wave, and what it waits for; `None` when it is done.
    running: Option<(usize, WaveHold)>,
    /// The wave after it, and what keeps that from beginning beside the running one.
    next: Option<(usize, Option<WaitingOn>)>,
    /// True where the plan changes the run, which then waits for nothing.
    moves: bool,
}

impl<'a> Reasons<'a> {
    /// The reasons once the plan is carried out; the view is of what is then. A held run has no rooms.
    pub(super) fn new(view: &'a View<'a>, plan: &Plan, rooms: Option<&'a Rooms<'a>>) -> Self {
        let running = view
            .current
            .and_then(|current| Some((current, hold(view)?)));
        let running = running.map(|(index, hold)| (index, with_deadline(view, hold)));
        Self {
            view,
            rooms,
            everything: held(view).or_else(|| change(plan)),
            gate: closed_gate(view),
            running,
            next: view.next_wave().map(|next| (next, barrier(view, next))),
            moves: !plan.events.is_empty(),
        }
    }

    /// One for each deployment that is not converged, in their order, one for each wave that is not done, one for the
    /// run.
    pub(super) fn all(&self) -> Vec<Waiting> {
        let targets = self.view.targets();
        let of = |(target, stage): (&Target, Stage)| {
            self.of_deployment(target, stage)
                .map(|on| about_deployment(target, on))
        };
        let mut reasons: Vec<Waiting> = targets.filter_map(of).collect();
        if !self.moves {
            reasons.extend(self.of_waves());
            reasons.extend(self.of_run().map(about_run));
        }
        reasons
    }

    fn of_deployment(&self, target: &Target, stage: Stage) -> Option<WaitingOn> {
        let view = self.view;
        let failed = |class| {
            Some(WaitingOn::Failed {
                class,
                broken_before: target.baseline_red,
            })
        };
        match stage {
            Stage::Waiting => Some(self.not_offered(target)),
            Stage::Ledger { offered: false } if held(view).is_some() => held(view),
            Stage::Ledger { .. } => Some(self.offline(target)),
            Stage::InFlight { deadline, due } => Some(WaitingOn::Step {
                deadline,
                left: view.left(due),
            }),
            Stage::Overdue(_) => failed(FailureClass::Timeout),
            Stage::Proven { soaked_at } if view.passed(soaked_at) => None,
            Stage::Proven { soaked_at } => Some(WaitingOn::Soaking {
                left: view.left(soaked_at),
                soak: view.wave(view.wave_of(target)).soak,
            }),
            Stage::Failed(class) => failed(class),
            Stage::Left => left(target),
        }
    }

    /// Why a connected deployment is not offered the change: of all rules that hold it the widest.
    fn not_offered(&self, target: &Target) -> WaitingOn {
        let view = self.view;
        if let Some(everything) = &self.everything {
            return everything.clone();
        }
        let index = view.wave_of(target);
        if !view.has_begun(index) {
            return self.later(index);
        }
        let next = || WaitingOn::Change("it is offered next".into());
        self.gate
            .clone()
            .or_else(|| shut(view, target))
            .or_else(|| self.rooms?.held_by(target))
            .unwrap_or_else(next)
    }

    /// The wave of this index comes later.
    fn later(&self, index: usize) -> WaitingOn {
        let view = self.view;
        let (before, running) = match (self.running, &self.next) {
            (Some((running, _)), _) => (running, true),
            (None, Some((next, _))) if *next < index => (*next, false),
            (None, Some((_, Some(barrier)))) => return barrier.clone(),
            (None, Some(_) | None) => return WaitingOn::Change("its wave begins".into()),
        };
        WaitingOn::WaveNotStarted {
            wave: view.wave_ref(index),
            before: view.wave_ref(before),
            running,
        }
    }

    /// What a deployment that is not connected means for its wave.
    fn offline(&self, target: &Target) -> WaitingOn {
        let view = self.view;
        let index = view.wave_of(target);
        if !view.has_begun(index) {
            return self.later(index);
        }
        let tally = view.tally(index);
        let keeps_place =
            target.step != Step::Waiting && view.wave(index).strict && tally.waiting > 0;
        let holds = match self.running {
            _ if keeps_place => true,
            Some((running, hold)) => is_absence(hold) && index == running,
            None => false,
        };
        WaitingOn::Offline {
            offline: tally.offline,
            deployments: tally.outcomes.deployments,
            limit_percent: view.input.strategy.offline.max_percent,
            holds,
        }
    }

    fn of_waves(&self) -> impl Iterator<Item = Waiting> {
        let some = |index: &usize| self.view.tally(*index).outcomes.deployments > 0;
        let waves = (0..self.view.waves()).filter(some);
        waves.filter_map(|index| {
            let on = self.of_wave(index)?;
            let about = About::Wave(index);
            Some(Waiting { about, on })
        })
    }

    /// What the wave of this index waits for; `None` where it is done.
    fn of_wave(&self, index: usize) -> Option<WaitingOn> {
        if self.view.has_begun(index) {
            let (running, _) = self.running.filter(|(running, _)| *running == index)?;
            return self.everything.clone().or_else(|| self.of_running(running));
        }
        Some(match &self.everything {
            Some(everything) => everything.clone(),
            None => self.later(index),
        })
    }

    fn of_running(&self, index: usize) -> Option<WaitingOn> {
        let (_, hold) = self.running?;
        let idle = matches!(hold, WaveHold::Running { in_flight: 0, .. });
        let gate = self.gate.clone().filter(|_| idle);
        let wave = self.view.wave_ref(index);
        Some(gate.unwrap_or(WaitingOn::Wave { wave, hold }))
    }

    fn of_run(&self) -> Option<WaitingOn> {
        let running = || self.of_running(self.running?.0);
        let next = || self.next.as_ref()?.1.clone();
        // After the last wave a gate keeps the change from those that are away.
        let last = || self.gate.clone().filter(|_| self.next.is_none());
        let held = self.everything.clone().or_else(running);
        held.or_else(next).or_else(last)
    }
}

/// While andon is on, everything that is not converged waits for its end.
///
/// No deadline is judged: the agents have stopped writing, so lateness says nothing about the change.
pub(super) fn andon(view: &View<'_>, words: &str) -> Plan {
    let rollback = view.input.run.phase.is_rollback();
    let andon = WaitingOn::Andon(words.into());
    let converged = |target: &Target| match target.step {
        Step::Proven(_) => !rollback,
        Step::Waiting => rollback,
        Step::RolledBack(_) => true,
        Step::RollbackFailed(..) => rollback && target.baseline_red,
        Step::Offered(_)
        | Step::Received(_)
        | Step::Applied(_)
        | Step::Failed(..)
        | Step::RollbackOffered(_) => false,
    };
    let of = |(target, stage): (&Target, Stage)| {
        if converged(target) {
            None
        } else if stage == Stage::Left && !rollback {
            left(target)
        } else {
            Some(andon.clone())
        }
    };
    let waves = |view: &View<'_>| match rollback {
        true => Vec::new(),
        false => Reasons::new(view, &Plan::default(), None)
            .of_waves()
            .collect(),
    };
    let mut waiting_on: Vec<Waiting> = view
        .targets()
        .filter_map(|each| Some(about_deployment(each.0, of(each)?)))
        .collect();
    waiting_on.extend(waves(view).into_iter().map(|wave| Waiting {
        on: andon.clone(),
        ..wave
    }));
    waiting_on.push(about_run(andon));
    Plan {
        waiting_on,
        ..Plan::default()
    }
}

/// Before the start everything waits for it.
pub(super) fn not_started(view: &View<'_>) -> Vec<Waiting> {
    let of = |(target, stage): (&Target, Stage)| {
        let on = if stage == Stage::Left {
            left(target)?
        } else {
            WaitingOn::NotStarted
        };
        Some(about_deployment(target, on))
    };
    view.targets().filter_map(of).collect()
}

/// The reason that a held run gives for everything.
pub(super) fn held(view: &View<'_>) -> Option<WaitingOn> {
    let reason = || view.input.run.hold_reason.as_str().into();
    match view.input.run.phase {
        Phase::Paused | Phase::RollbackPaused => Some(WaitingOn::Paused(reason())),
        Phase::Halted | Phase::RollbackHalted => Some(WaitingOn::Halted(reason())),
        Phase::Pending
        | Phase::Progressing
        | Phase::RollingBack
        | Phase::Completed
        | Phase::RolledBack
        | Phase::Aborted
        | Phase::Superseded => None,
    }
}

/// What the plan changes before anything else can happen.
pub(super) fn change(plan: &Plan) -> Option<WaitingOn> {
    let late = Deployments(plan.timed_out.len());
    match plan.events.first() {
        Some((_, sentence)) => Some(WaitingOn::Change(sentence.as_str().into())),
        None if late.0 > 0 => Some(WaitingOn::Change(
            format!("{late} passed a deadline").into(),
        )),
        None => None,
    }
}

pub(super) fn about_deployment(target: &Target, on: WaitingOn) -> Waiting {
    Waiting {
        about: About::Deployment(target.deployment),
        on,
    }
}

pub(super) fn about_run(on: WaitingOn) -> Waiting {
    Waiting {
        about: About::Run,
        on,
    }
}

/// Who left with the change proven has nothing to wait for.
fn left(target: &Target) -> Option<WaitingOn> {
    (!matches!(target.step, Step::Proven(_))).then_some(WaitingOn::Left)
}

/// None of the target's windows is open.
fn shut(view: &View<'_>, target: &Target) -> Option<WaitingOn> {
    match &target.opening {
        Opening::Closed { opens, blackout } => Some(WaitingOn::Window {
            opens: opens.map(|at| view.left(at)),
            blackout: blackout.clone(),
        }),
        Opening::Open { until } if view.passed(*until) => Some(WaitingOn::Window {
            opens: None,
            blackout: None,
        }),
        Opening::Always | Opening::Open { .. } => None,
    }
}

fn with_deadline(view: &View<'_>, hold: WaveHold) -> WaveHold {
    match hold {
        WaveHold::Running {
            proven,
            deployments,
            in_flight,
            ..
        } => WaveHold::Running {
            proven,
            deployments,
            in_flight,
            left: overdue_at(view, hold).map(|at| view.left(at)),
        },
        WaveHold::Windows { .. }
        | WaveHold::Mandatory { .. }
        | WaveHold::Soaking { .. }
        | WaveHold::Offline { .. }
        | WaveHold::Unproven { .. } => hold,
    }
}
