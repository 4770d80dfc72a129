//! How long one decision over a large run takes, beside sorting and merging the ids of its bindings.
//! `cargo xtask bench` runs it and reads the one line that it prints.

use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingId;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::DeploymentId;
use keyfleet_core::rollout::{
    Opening, Phase, PlanInput, Run, Step, Strategy, Target, default_strategy, plan,
};
use uuid::Uuid;

/// How often each thing is done; the quickest counts: what is slower is the machine at work on something else.
const ROUNDS: usize = 15;

const NOW: i64 = 1_795_435_200;

fn main() -> std::io::Result<()> {
    let line = serde_json::json!({
        "floor_secs": floor(100_000).as_secs_f64(),
        "plan_secs": decision(100_000).as_secs_f64(),
        "tenth_secs": decision(10_000).as_secs_f64(),
    });
    writeln!(std::io::stdout(), "{line}")
}

/// Two lists of the same ids, each in an order of its own, are sorted and merged: what was wanted and what was seen.
fn floor(n: u32) -> Duration {
    let mut random = fastrand::Rng::with_seed(1);
    let mut shuffled = || {
        let mut ids: Vec<BindingId> = (0..n).map(binding).collect();
        random.shuffle(&mut ids);
        ids
    };
    let (wanted, seen) = (shuffled(), shuffled());
    quickest(|| {
        let (mut wanted, mut seen) = (wanted.clone(), seen.clone());
        let started = Instant::now();
        wanted.sort_unstable();
        seen.sort_unstable();
        let same = wanted.iter().zip(&seen).filter(|(a, b)| a == b).count();
        black_box(same);
        started.elapsed()
    })
}

/// One decision in the middle of the last wave of a run in which every deployment has one binding.
fn decision(n: u32) -> Duration {
    let now = at(0);
    let strategy = strategy();
    let targets: Vec<Target> = (0..n).map(|index| target(index, &strategy)).collect();
    let run = Run {
        phase: Phase::Progressing,
        wave: Some(strategy.waves.len() - 1),
        ..Run::new("bench", at(-60))
    };
    let input = PlanInput {
        now,
        andon: None,
        strategy: &strategy,
        run: &run,
        targets: &targets,
    };
    quickest(|| {
        let started = Instant::now();
        black_box(plan(black_box(&input)));
        started.elapsed()
    })
}

fn strategy() -> Strategy {
    let mut strategy = default_strategy("default".parse().expect("a valid name"));
    // Failures are counted and stop nothing: a run that halts decides less.
    for budget in &mut strategy.budgets {
        budget.action = keyfleet_core::rollout::Action::Continue;
    }
    strategy
}

/// Half proven, the rest in every other state.
fn target(index: u32, strategy: &Strategy) -> Target {
    let step = match index % 20 {
        0 => Step::Failed(at(-20), FailureClass::Model),
        1 => Step::Offered(at(-1)),
        2 => Step::Received(at(-1)),
        3 => Step::Applied(at(-1)),
        4..14 => Step::Proven(at(-30)),
        _ => Step::Waiting,
    };
    Target {
        deployment: deployment(index),
        wave: (strategy.waves.len() - 1).min(index as usize),
        group: None,
        offered_at: (step != Step::Waiting).then(|| at(-50)),
        rollback_at: None,
        opening: Opening::Always,
        shut: Duration::ZERO,
        left: false,
        step,
        online: !index.is_multiple_of(17),
        baseline_red: false,
        forgiven: false,
        can_roll_back: true,
    }
}

fn binding(index: u32) -> BindingId {
    BindingId {
        deployment: deployment(index),
        space: "default".parse().expect("a valid name"),
        connector: "assistant".parse().expect("a valid name"),
    }
}

fn deployment(index: u32) -> DeploymentId {
    DeploymentId::new(Uuid::from_u128(u128::from(index) << 64 | u128::from(index)))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::new(NOW + seconds, 0).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn quickest(mut once: impl FnMut() -> Duration) -> Duration {
    (0..ROUNDS).map(|_| once()).min().unwrap_or_default()
}
