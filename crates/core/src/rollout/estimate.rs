//! How long a run still takes, by the pace that was seen in it.
//!
//! It is a rough number for people: whole rounds of as many deployments as may be in flight, each as long as the mean
//! of those that are proven, and the soaks between the waves. Where somebody or something else decides when it goes on,
//! there is no number.

mod pace;

use std::fmt;
use std::time::Duration;

use super::gate::Verdict;
use super::phase::Phase;
use super::plan::{Opening, PlanInput, Step, Target};
use super::strategy::Wave;
use super::waiting::{Deployments, Human};
use crate::Timestamp;
use pace::{Pace, forward_mean, rollback_mean};

/// How long a run still takes; prints as a sentence that says what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// How long; `None` where nobody can tell.
    pub left: Option<Duration>,
    /// What it rests on, or why nobody can tell, in words.
    pub basis: String,
}

/// Estimates from the pace of this run.
pub fn estimate(input: &PlanInput<'_>) -> Estimate {
    let (left, basis) = match found(input) {
        Ok((left, basis)) => (Some(left), basis),
        Err(basis) => (None, basis),
    };
    Estimate { left, basis }
}

fn found(input: &PlanInput<'_>) -> Found {
    let phase = input.run.phase;
    if phase.is_terminal() {
        return Err("the rollout has ended".to_owned());
    }
    if input.andon.is_some() {
        return Err("andon is on".to_owned());
    }
    match phase {
        Phase::Progressing => forward(input),
        Phase::RollingBack => back(input),
        Phase::Pending => Err("the rollout has not started".to_owned()),
        Phase::Paused
        | Phase::Halted
        | Phase::RollbackPaused
        | Phase::RollbackHalted
        | Phase::Completed
        | Phase::RolledBack
        | Phase::Aborted
        | Phase::Superseded => Err(format!("the rollout is {phase}: an operator decides")),
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.left {
            Some(left) => write!(f, "about {}: {}", Human(rounded(left)), self.basis),
            None => write!(f, "nobody can tell: {}", self.basis),
        }
    }
}

/// Seconds of half an hour are no knowledge.
fn rounded(left: Duration) -> Duration {
    let minutes = left.as_secs().div_ceil(60);
    match minutes {
        0..10 => left,
        minutes => Duration::from_secs(minutes.saturating_mul(60)),
    }
}

type Found = Result<(Duration, String), String>;

/// One wave that is not done, with those of its deployments that count.
struct Ahead<'a> {
    index: usize,
    wave: &'a Wave,
    targets: Vec<&'a Target>,
}

impl Ahead<'_> {
    /// Those that are connected and have yet to be proven.
    fn open(&self) -> impl Iterator<Item = &Target> {
        self.targets
            .iter()
            .copied()
            .filter(|target| is_open(target))
    }
}

fn is_open(target: &Target) -> bool {
    target.online && !matches!(target.step, Step::Proven(_) | Step::Failed(..))
}

fn forward(input: &PlanInput<'_>) -> Found {
    let ahead = ahead(input);
    let Some(mean) = forward_mean(input.targets) else {
        return Err("nothing has been proven yet".to_owned());
    };
    waits_for_gate(input)?;
    for wave in &ahead {
        waits_for_person(input, wave)?;
        waits_for_absent(input, wave)?;
        waits_for_window(wave)?;
    }
    let pace = Pace::new(input.strategy, mean);
    let (mut left, mut soak, mut open, mut places) =
        (Duration::ZERO, Duration::ZERO, 0, Vec::new());
    for wave in &ahead {
        let part = pace.wave(input.now, wave.wave, &wave.targets);
        left = left.saturating_add(part.work).saturating_add(part.soak);
        soak = soak.saturating_add(part.soak);
        open += part.open;
        if part.open > 0 {
            places.push(part.places);
        }
    }
    let closes = ahead.iter().flat_map(Ahead::open).filter_map(closes).min();
    if let Some(closes) = closes
        && input.now.checked_add(left).is_ok_and(|end| end > closes)
    {
        return Err("a maintenance window closes before the end".to_owned());
    }
    let counted = input.targets.iter().filter(|target| !target.left).count();
    let mut basis = format!("{open} of {} left", Deployments(counted));
    if let (Some(least), Some(most)) = (places.iter().min(), places.iter().max()) {
        let at_a_time = match least == most {
            true => format!("{least}"),
            false => format!("{least} to {most}"),
        };
        basis = format!(
            "{basis}, {at_a_time} at a time, {} each",
            Human(whole(mean))
        );
    }
    if !soak.is_zero() {
        basis = format!("{basis}, and {} of soak", Human(soak));
    }
    Ok((left, basis))
}

/// The running wave and those after it that have deployments.
fn ahead<'a>(input: &PlanInput<'a>) -> Vec<Ahead<'a>> {
    let strategy = input.strategy;
    let of_wave = |(index, wave)| Ahead {
        index,
        wave,
        targets: input
            .targets
            .iter()
            .filter(|target| target.wave == index && !target.left)
            .collect(),
    };
    let all = strategy.waves.iter().enumerate().map(of_wave);
    all.skip(input.run.wave.unwrap_or(0))
        .filter(|ahead| !ahead.targets.is_empty())
        .collect()
}

fn waits_for_gate(input: &PlanInput<'_>) -> Result<(), String> {
    let passes = |name: &str| {
        let state = input.run.gates.iter().find(|state| state.name == name);
        state.is_some_and(|state| state.verdict == Verdict::Pass)
    };
    match input.strategy.gates.iter().find(|gate| !passes(&gate.name)) {
        Some(gate) => Err(format!("gate {:?} does not pass now", gate.name)),
        None => Ok(()),
    }
}

fn waits_for_person(input: &PlanInput<'_>, ahead: &Ahead<'_>) -> Result<(), String> {
    let Some(approval) = ahead.wave.approval else {
        return Ok(());
    };
    let counts = |principal: &str| !approval.not_author || principal != input.run.author;
    let approvals = input.run.approvals.iter();
    let given = approvals.filter(|of| of.wave == ahead.index && counts(&of.principal));
    let given = given.count();
    let has_begun = input.run.wave.is_some_and(|running| running >= ahead.index);
    if has_begun || given >= usize::try_from(approval.required).unwrap_or(usize::MAX) {
        return Ok(());
    }
    Err(format!(
        "wave {:?} needs {} approvals and has {given}",
        ahead.wave.name, approval.required
    ))
}

/// The running wave is done only when few enough are away.
fn waits_for_absent(input: &PlanInput<'_>, ahead: &Ahead<'_>) -> Result<(), String> {
    let is_running = input.run.wave == Some(ahead.index);
    if !is_running || input.run.fast_forward == Some(ahead.index) {
        return Ok(());
    }
    let is_settled = |target: &&&Target| matches!(target.step, Step::Proven(_) | Step::Failed(..));
    let away = ahead.targets.iter().filter(|target| !target.online);
    let away = away.filter(|target| !is_settled(target)).count();
    let limit = match ahead.wave.mandatory {
        true => 0,
        false => input.strategy.offline.max_percent,
    };
    if away * 100 <= ahead.targets.len() * usize::from(limit) {
        return Ok(());
    }
    Err(format!(
        "{away} of {} in wave {:?} are away",
        Deployments(ahead.targets.len()),
        ahead.wave.name
    ))
}

fn waits_for_window(ahead: &Ahead<'_>) -> Result<(), String> {
    let is_closed = |target: &&Target| {
        matches!(target.opening, Opening::Closed { .. }) && target.step == Step::Waiting
    };
    match ahead.open().filter(is_closed).count() {
        0 => Ok(()),
        1 => Err("1 deployment waits for its maintenance window".to_owned()),
        n => Err(format!(
            "{n} deployments wait for their maintenance windows"
        )),
    }
}

/// Until when it may be offered the change.
fn closes(target: &Target) -> Option<Timestamp> {
    match target.opening {
        Opening::Open { until } => (target.step == Step::Waiting).then_some(until),
        Opening::Always | Opening::Closed { .. } => None,
    }
}

fn back(input: &PlanInput<'_>) -> Found {
    let touched = |target: &&Target| target.offered_at.is_some() || target.rollback_at.is_some();
    let goes = |target: &&Target| match target.step {
        Step::RolledBack(_) | Step::RollbackFailed(..) => false,
        Step::RollbackOffered(_) => true,
        Step::Waiting
        | Step::Offered(_)
        | Step::Received(_)
        | Step::Applied(_)
        | Step::Proven(_)
        | Step::Failed(..) => target.can_roll_back,
    };
    let all = input.targets.iter().filter(touched);
    let total = all.clone().count();
    let left = all.filter(|target| target.online && goes(target)).count();
    let Some(mean) = rollback_mean(input.targets) else {
        return Err("nothing has gone back yet".to_owned());
    };
    let pace = Pace::new(input.strategy, mean);
    let (work, places) = pace.rollback(count(left), count(total));
    let basis = format!(
        "{left} of {} are on their way back, {places} at a time, {} each",
        Deployments(total),
        Human(whole(mean))
    );
    Ok((work, basis))
}

/// Without fractions of a second.
fn whole(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs().max(1))
}

/// A length as the number that strategies count in.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
