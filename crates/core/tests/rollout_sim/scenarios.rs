//! Stories of single runs, as a person would read them: `cargo insta review` shows what a change does to them.

use std::time::Duration;

use keyfleet_core::failure::FailureClass;
use keyfleet_core::rollout::{
    Action, Amount, Budget, Phase, Strategy, Verb, Wave, default_strategy,
};

use crate::world::{Fault, World};

/// Waves of (name, concurrency, strict, soak in seconds).
fn strategy(waves: &[(&str, u32, bool, u64)]) -> Strategy {
    let mut strategy = default_strategy("story".parse().unwrap());
    let wave = |&(name, concurrency, strict, soak): &(&str, u32, bool, u64)| Wave {
        name: name.to_owned(),
        selector: Default::default(),
        sample: None,
        concurrency: Amount::Count(concurrency),
        strict,
        soak: Duration::from_secs(soak),
    };
    strategy.waves = waves.iter().map(wave).collect();
    strategy
}

fn check(name: &str, world: &World, phase: Phase) {
    assert_eq!(world.run.phase, phase, "{}", world.log);
    insta::assert_snapshot!(name, world.log);
}

#[test]
fn a_canary_with_a_bad_key_rolls_back_and_touches_nobody_else() {
    let waves = [("canary", 1, true, 600), ("fleet", 2, false, 0)];
    let mut world = World::new(strategy(&waves), &[0, 1, 1]);
    world.agents[0].fault = Fault::Fails(FailureClass::Auth);
    world.settle();
    world.explain();
    world.run_for(100);
    check("canary_fails_with_auth", &world, Phase::RolledBack);
}

#[test]
fn two_waves_with_a_soak_between() {
    let waves = [("canary", 1, true, 600), ("fleet", 2, false, 0)];
    let mut world = World::new(strategy(&waves), &[0, 1, 1, 1]);
    world.settle();
    world.run_for(3);
    world.explain();
    world.run_for(3);
    world.explain();
    world.run_for(100);
    check("two_waves_with_soak", &world, Phase::Completed);
}

#[test]
fn a_canary_that_is_away_holds_the_fleet_back() {
    let mut strategy = strategy(&[("canary", 1, true, 5), ("fleet", 2, false, 0)]);
    strategy.offline_max_percent = 100;
    let mut world = World::new(strategy, &[0, 1, 1, 1]);
    world.targets[0].online = false;
    world.targets[3].online = false;
    world.settle();
    world.explain();
    world.now = world.now.checked_add(Duration::from_secs(1_800)).unwrap();
    world.connect(0, true);
    world.run_for(100);
    check("offline_canary", &world, Phase::Completed);
}

#[test]
fn a_budget_pauses_and_an_operator_resumes() {
    let mut strategy = strategy(&[("fleet", 2, true, 0)]);
    let (max, action) = (Amount::Count(0), Action::Pause);
    strategy.budgets = vec![Budget {
        class: None,
        max,
        min_sample: 0,
        action,
    }];
    let mut world = World::new(strategy, &[0, 0, 0]);
    world.agents[1].fault = Fault::Fails(FailureClass::Quota);
    world.settle();
    world.run_for(100);
    world.explain();
    world.verb(Verb::Resume);
    world.run_for(100);
    check("budget_pause_then_resume", &world, Phase::Completed);
}

#[test]
fn a_wave_that_takes_too_long_halts() {
    let mut strategy = strategy(&[("fleet", 4, false, 0)]);
    strategy.offline_max_percent = 20;
    let mut world = World::new(strategy, &[0, 0, 0]);
    world.targets[2].online = false;
    world.settle();
    world.run_for(6);
    world.explain();
    world.run_for(100);
    world.explain();
    check("wave_overdue", &world, Phase::Halted);
}

#[test]
fn a_rollback_that_cannot_be_done_everywhere_halts() {
    let mut world = World::new(strategy(&[("fleet", 2, false, 0)]), &[0, 0, 0]);
    world.agents[1].fault = Fault::Fails(FailureClass::Auth);
    world.targets[0].can_roll_back = false;
    world.settle();
    world.run_for(100);
    world.explain();
    check("rollback_impossible", &world, Phase::Halted);
}

#[test]
fn a_rollback_that_fails_halts_until_it_is_retried() {
    let mut strategy = strategy(&[("fleet", 2, false, 0)]);
    strategy.rollback_concurrency = Amount::Count(1);
    let mut world = World::new(strategy, &[0, 0, 0]);
    world.agents[0].rollback_fault = Some(FailureClass::KibanaDown);
    world.settle();
    world.run_for(6);
    world.connect(2, false);
    world.verb(Verb::Rollback);
    world.explain();
    world.run_for(100);
    world.explain();
    world.agents[0].rollback_fault = None;
    world.verb(Verb::Retry);
    world.run_for(100);
    check("rollback_fails_then_retry", &world, Phase::RolledBack);
}

#[test]
fn andon_stops_everything_and_blames_nobody() {
    let mut world = World::new(strategy(&[("fleet", 1, false, 0)]), &[0, 0]);
    world.settle();
    world.run_for(1);
    world.set_andon(true);
    world.explain();
    world.now = world.now.checked_add(Duration::from_secs(86_400)).unwrap();
    world.set_andon(false);
    world.run_for(100);
    check("andon", &world, Phase::Completed);
}

#[test]
fn of_several_spent_budgets_the_strongest_action_wins() {
    let mut strategy = strategy(&[("fleet", 4, false, 0)]);
    let budget = |class, action| Budget {
        class: Some(class),
        max: Amount::Count(0),
        min_sample: 3,
        action,
    };
    strategy.budgets = vec![
        budget(FailureClass::Quota, Action::Pause),
        budget(FailureClass::Auth, Action::Rollback),
        budget(FailureClass::Model, Action::Halt),
    ];
    let mut world = World::new(strategy, &[0, 0, 0, 0]);
    world.agents[0].fault = Fault::Fails(FailureClass::Quota);
    world.agents[1].fault = Fault::Fails(FailureClass::Auth);
    world.agents[2].fault = Fault::Fails(FailureClass::Model);
    world.agents[3].delay = Duration::from_secs(25);
    world.settle();
    world.run_for(100);
    check("strongest_action_wins", &world, Phase::RolledBack);
}

#[test]
fn a_strict_wave_keeps_the_place_of_who_was_offered_and_went_away() {
    let mut strategy = strategy(&[("canary", 2, true, 0)]);
    strategy.offline_max_percent = 50;
    let mut world = World::new(strategy, &[0, 0, 0]);
    world.agents[0].fault = Fault::Silent;
    world.settle();
    world.connect(0, false);
    world.run_for(1);
    world.explain();
    world.agents[0].fault = Fault::None;
    world.connect(0, true);
    world.run_for(100);
    check("strict_wave_with_one_away", &world, Phase::Completed);
}

#[test]
fn a_strict_wave_of_what_was_broken_before_needs_a_word() {
    let waves = [("canary", 1, true, 0), ("fleet", 1, false, 0)];
    let mut world = World::new(strategy(&waves), &[0, 1]);
    world.targets[0].baseline_red = true;
    world.agents[0].fault = Fault::Fails(FailureClass::Network);
    world.settle();
    world.run_for(3);
    world.explain();
    world.verb(Verb::Resume);
    world.run_for(100);
    check("canary_broken_before", &world, Phase::Completed);
}
