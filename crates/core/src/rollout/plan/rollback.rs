//! The way back: every deployment that the change may have reached returns to what it last proved.

use crate::Timestamp;
use crate::failure::FailureClass;
use crate::id::DeploymentId;

use super::pace::LastMinute;
use super::progress::touched;
use super::reasons::{about_deployment, about_run, change, held};
use super::view::{View, due};
use super::{Plan, Step, Target};
use crate::rollout::phase::Event;
use crate::rollout::waiting::{Deadline, RollbackHold, Waiting, WaitingOn};

/// Where a deployment stands on its way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The change never reached it.
    Untouched,
    /// It has to go back.
    ToDo,
    /// It cannot go back.
    Impossible,
    /// It is told to go back, until the deadline.
    OnItsWay { due: Timestamp },
    /// It took too long.
    Overdue,
    /// It goes back when it is connected again.
    Away,
    /// It is back, or was broken before and stays so.
    Back,
    /// It could not be brought back.
    Failed(FailureClass),
    /// It left the run, and nothing more is done about it.
    Left,
}

/// The way back: where every target stands, in their order, and what that adds up to.
#[derive(Debug)]
struct Back<'a> {
    view: &'a View<'a>,
    stages: Vec<Stage>,
    told: LastMinute,
    touched: u32,
    to_do: u32,
    in_progress: u32,
    back: u32,
    away: u32,
    failed: u32,
    impossible: u32,
}

/// Goes on: rolls back as many at a time as the strategy allows, and ends when nothing is left to do.
/// Waves, soak, ramp, windows, gates and budgets do not hold a rollback.
pub(super) fn roll_back(view: &View<'_>) -> Plan {
    let mut back = Back::new(view);
    let mut plan = Plan {
        timed_out: back.timed_out(),
        ..Plan::default()
    };
    if plan.timed_out.is_empty() {
        if back.to_do + back.in_progress == 0 {
            plan.events.push(back.end());
        } else {
            plan.roll_back = back.choose();
        }
    }
    plan.waiting_on = back.reasons(&plan);
    let waits = (back.to_do > 0).then(|| back.full_until()).flatten();
    plan.wake_at = back.next_deadline().into_iter().chain(waits).min();
    plan
}

/// Takes nothing back; deadlines of what is on its way are judged.
pub(super) fn held_back(view: &View<'_>) -> Plan {
    let back = Back::new(view);
    let mut plan = Plan {
        timed_out: back.timed_out(),
        ..Plan::default()
    };
    plan.waiting_on = back.reasons(&plan);
    plan.wake_at = back.next_deadline();
    plan
}

impl<'a> Back<'a> {
    fn new(view: &'a View<'a>) -> Self {
        let targets = view.input.targets;
        let mut back = Self {
            view,
            stages: targets.iter().map(|target| stage(view, target)).collect(),
            told: LastMinute::new(view.input.now),
            touched: 0,
            to_do: 0,
            in_progress: 0,
            back: 0,
            away: 0,
            failed: 0,
            impossible: 0,
        };
        for (index, target) in targets.iter().enumerate() {
            back.count(target, back.stages[index]);
        }
        back
    }

    fn count(&mut self, target: &Target, stage: Stage) {
        self.touched += u32::from(touched(target) && stage != Stage::Left);
        // Who is away was told without taking from the rate: nobody hears it.
        if let Some(at) = target.rollback_at.filter(|_| target.online) {
            self.told.count(at);
        }
        match stage {
            Stage::Untouched | Stage::Left => {}
            Stage::ToDo => self.to_do += 1,
            Stage::Impossible => self.impossible += 1,
            Stage::OnItsWay { .. } | Stage::Overdue => self.in_progress += 1,
            Stage::Away => self.away += 1,
            Stage::Back => self.back += 1,
            Stage::Failed(_) => self.failed += 1,
        }
    }

    fn end(&self) -> (Event, String) {
        let Self {
            touched,
            back,
            away,
            failed,
            impossible,
            ..
        } = self;
        let mut sentence = format!("{back} of {touched} touched deployments are back");
        if *away > 0 {
            sentence += &format!(", {away} away go back when they are connected again");
        }
        if failed + impossible == 0 {
            return (Event::RollbackFinished, sentence);
        }
        let sentence = format!("{sentence}, {failed} failed to go back, {impossible} cannot");
        (Event::RollbackFailed, sentence)
    }

    /// Whom to roll back now, in order of ids: everybody who is away (they learn it on return), and of the others as many
    /// as there is room for, no faster than the rate. From here on they are counted as told.
    fn choose(&mut self) -> Vec<DeploymentId> {
        let mut chosen = Vec::new();
        for (index, target) in self.view.input.targets.iter().enumerate() {
            if self.stages[index] != Stage::ToDo {
                continue;
            }
            let is_full = self.full_until().is_some() || self.in_progress >= self.limit();
            if is_full && target.online {
                continue;
            }
            self.tell(index, target.online);
            chosen.push(target.deployment);
        }
        chosen
    }

    fn tell(&mut self, index: usize, online: bool) {
        let now = self.view.input.now;
        self.to_do -= 1;
        if online {
            self.told.count(now);
            self.in_progress += 1;
            let due = rollback_due(self.view, now);
            self.stages[index] = Stage::OnItsWay { due };
        } else {
            self.away += 1;
            self.stages[index] = Stage::Away;
        }
    }

    fn limit(&self) -> u32 {
        let rollback = self.view.input.strategy.rollback;
        rollback.concurrency.of_at_least_one(self.touched)
    }

    /// When the rate lets one more go back, where this is later than now.
    fn full_until(&self) -> Option<Timestamp> {
        let rollback = self.view.input.strategy.rollback;
        self.told.full_until(rollback.max_per_minute)
    }

    fn timed_out(&self) -> Vec<(DeploymentId, Deadline)> {
        let targets = self.view.input.targets.iter().zip(&self.stages);
        targets
            .filter(|(_, stage)| **stage == Stage::Overdue)
            .map(|(target, _)| (target.deployment, Deadline::Prove))
            .collect()
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let due = |stage: &Stage| {
            if let Stage::OnItsWay { due } = stage {
                Some(*due)
            } else {
                None
            }
        };
        self.stages.iter().filter_map(due).min()
    }

    fn reasons(&self, plan: &Plan) -> Vec<Waiting> {
        let everything = held(self.view).or_else(|| change(plan));
        let of = |(target, stage): (&Target, &Stage)| {
            let on = match (stage, &everything) {
                (Stage::ToDo, Some(everything)) => everything.clone(),
                (Stage::Left, _) => WaitingOn::Left,
                (stage, _) => WaitingOn::Rollback(self.reason(*stage)?),
            };
            Some(about_deployment(target, on))
        };
        let targets = self.view.input.targets.iter().zip(&self.stages);
        let mut reasons: Vec<Waiting> = targets.filter_map(of).collect();
        if plan.events.is_empty() {
            let run = || {
                WaitingOn::Rollback(RollbackHold::Run {
                    back: self.back,
                    touched: self.touched,
                    in_progress: self.in_progress,
                })
            };
            reasons.push(about_run(everything.unwrap_or_else(run)));
        }
        reasons
    }

    fn reason(&self, stage: Stage) -> Option<RollbackHold> {
        Some(match stage {
            Stage::Untouched | Stage::Back | Stage::Left => return None,
            Stage::ToDo => self.why_not_told(),
            Stage::Impossible => RollbackHold::Impossible,
            Stage::OnItsWay { due } => RollbackHold::Step {
                left: self.view.left(due),
            },
            Stage::Overdue => RollbackHold::Failed(FailureClass::Timeout),
            Stage::Away => RollbackHold::Offline,
            Stage::Failed(class) => RollbackHold::Failed(class),
        })
    }

    fn why_not_told(&self) -> RollbackHold {
        let max = self.view.input.strategy.rollback.max_per_minute;
        match (max, self.full_until()) {
            (Some(max), Some(at)) => RollbackHold::Rate {
                max,
                left: self.view.left(at),
            },
            (_, _) => RollbackHold::Concurrency {
                limit: self.limit(),
                in_progress: self.in_progress,
            },
        }
    }
}

fn stage(view: &View<'_>, target: &Target) -> Stage {
    let stage = match target.step {
        Step::Waiting => Stage::Untouched,
        Step::Offered(_)
        | Step::Received(_)
        | Step::Applied(_)
        | Step::Proven(_)
        | Step::Failed(..) => match target.can_roll_back {
            true => Stage::ToDo,
            false => Stage::Impossible,
        },
        Step::RollbackOffered(_) if !target.online => Stage::Away,
        Step::RollbackOffered(at) => match rollback_due(view, at) {
            due if view.passed(due) => Stage::Overdue,
            due => Stage::OnItsWay { due },
        },
        Step::RolledBack(_) => Stage::Back,
        Step::RollbackFailed(..) if target.baseline_red => Stage::Back,
        Step::RollbackFailed(_, class) => Stage::Failed(class),
    };
    // Who left goes back where that is possible, and holds nobody up where it is not.
    if target.left && matches!(stage, Stage::Impossible | Stage::Failed(_)) {
        return Stage::Left;
    }
    stage
}

/// A rollback has one deadline: its own, or the sum of the three of a change.
fn rollback_due(view: &View<'_>, at: Timestamp) -> Timestamp {
    let deadlines = view.input.strategy.deadlines;
    let steps = [deadlines.ack, deadlines.apply, deadlines.prove];
    match view.input.strategy.rollback.deadline {
        Some(limit) => due(at, limit),
        None => steps.into_iter().fold(at, due),
    }
}
