//! Single runs, from the first offer to the end.

use std::time::Duration;

use keyfleet_core::failure::FailureClass;
use keyfleet_core::rollout::{Action, Amount, Budget, Per, Phase, Verb};

use super::{MINUTE, begin, budget, check, lose_the_key_version, one_wave, story, told, wait};
use crate::simulate::Fault;
use crate::simulate::small::{assistant, openai, quick};

#[test]
fn a_canary_with_a_bad_key_goes_back_and_nobody_else_hears_of_it() {
    let mut story = story(&quick(), &["canary", "b", "c"]);
    story.set_fault("canary", Fault::Fails(FailureClass::Auth));
    story.new_key_version(&openai()).unwrap();
    story.run_out();
    check("bad_canary", &story, Phase::RolledBack);
}

#[test]
fn two_waves_with_a_soak_between() {
    let mut strategy = quick();
    strategy.waves[0].soak = MINUTE * 10;
    strategy.waves[1].concurrency = Amount::Count(1);
    let mut story = story(&strategy, &["canary", "b", "c"]);
    story.new_revision(&assistant()).unwrap();
    wait(&mut story, MINUTE);
    story.explain();
    wait(&mut story, MINUTE * 9 + Duration::from_secs(10));
    story.explain();
    story.run_out();
    check("two_waves", &story, Phase::Completed);
}

#[test]
fn a_canary_that_is_away_holds_the_fleet_back() {
    let mut strategy = quick();
    strategy.offline.max_percent = 100;
    let mut story = story(&strategy, &["canary", "b", "c"]);
    story.connect("canary", false);
    wait(&mut story, MINUTE);
    story.new_revision(&assistant()).unwrap();
    wait(&mut story, MINUTE * 30);
    story.explain();
    story.connect("canary", true);
    story.run_out();
    check("canary_away", &story, Phase::Completed);
}

#[test]
fn a_budget_pauses_and_an_operator_resumes() {
    let mut strategy = one_wave(1);
    strategy.budgets = vec![budget(None, Action::Pause)];
    let mut story = story(&strategy, &["a", "b", "c"]);
    story.set_fault("b", Fault::Fails(FailureClass::Quota));
    story.new_revision(&assistant()).unwrap();
    story.run_out();
    story.explain();
    let rollout = story.rollouts().last().unwrap().id;
    story
        .say(rollout, Verb::Resume, "ops", "", "b has no credit")
        .unwrap();
    story.run_out();
    check("budget_pauses", &story, Phase::Completed);
}

#[test]
fn a_wave_that_takes_too_long_halts() {
    let mut story = story(&one_wave(4), &["a", "b", "c"]);
    story.connect("c", false);
    wait(&mut story, MINUTE);
    story.new_revision(&assistant()).unwrap();
    wait(&mut story, MINUTE);
    story.explain();
    story.run_out();
    story.explain();
    check("wave_overdue", &story, Phase::Halted);
}

#[test]
fn a_rollback_that_cannot_be_done_everywhere_halts() {
    let mut story = story(&one_wave(1), &["a", "b"]);
    lose_the_key_version(&mut story);
    story.set_fault("a", Fault::Fails(FailureClass::Auth));
    story.new_key_version(&openai()).unwrap();
    story.run_out();
    story.explain();
    check("rollback_impossible", &story, Phase::Halted);
}

#[test]
fn a_rollback_that_fails_halts_until_it_is_retried() {
    let mut strategy = one_wave(4);
    strategy.rollback.concurrency = Amount::Count(1);
    let mut story = story(&strategy, &["a", "b"]);
    story.new_revision(&assistant()).unwrap();
    told(&mut story, "a: default/assistant r2 v1 is APPLIED");
    story.set_fault("a", Fault::KibanaDown);
    let rollout = story.rollouts().last().unwrap().id;
    story
        .say(rollout, Verb::Rollback, "ops", "", "wrong model")
        .unwrap();
    story.run_out();
    story.explain();
    story.set_fault("a", Fault::None);
    story
        .say(rollout, Verb::Retry, "ops", "", "Kibana is back")
        .unwrap();
    story.run_out();
    check("rollback_retried", &story, Phase::RolledBack);
}

#[test]
fn andon_stops_everything_and_blames_nobody() {
    let mut story = story(&one_wave(1), &["a", "b"]);
    story.new_revision(&assistant()).unwrap();
    told(&mut story, "a: is told generation");
    story.andon(Some("the provider is on fire")).unwrap();
    wait(&mut story, Duration::from_secs(86_400));
    story.explain();
    story.andon(None).unwrap();
    story.run_out();
    check("andon", &story, Phase::Completed);
}

#[test]
fn of_several_spent_budgets_the_strongest_action_wins() {
    let mut strategy = one_wave(4);
    strategy.budgets = [
        budget(Some(FailureClass::Quota), Action::Pause),
        budget(Some(FailureClass::Auth), Action::Rollback),
        budget(Some(FailureClass::Model), Action::Halt),
    ]
    .map(|budget| Budget {
        min_sample: 3,
        ..budget
    })
    .to_vec();
    // Samples are asked of waves of twenty and more; most of this one is away all the time.
    let away: Vec<String> = (1..=17).map(|n| format!("away-{n:02}")).collect();
    let names: Vec<&str> = ["a", "b", "c"]
        .into_iter()
        .chain(away.iter().map(String::as_str))
        .collect();
    let mut story = story(&strategy, &names);
    for name in &away {
        story.connect(name, false);
    }
    wait(&mut story, MINUTE);
    begin(&mut story);
    let faults = [
        ("a", FailureClass::Quota),
        ("b", FailureClass::Auth),
        ("c", FailureClass::Model),
    ];
    for (name, class) in faults {
        story.set_fault(name, Fault::Fails(class));
    }
    story.new_revision(&assistant()).unwrap();
    story.run_out();
    check("strongest_action", &story, Phase::RolledBack);
}

#[test]
fn a_strict_wave_keeps_the_place_of_who_was_offered_and_went_away() {
    let mut strategy = one_wave(2);
    strategy.waves[0].strict = true;
    strategy.budgets = vec![Budget {
        max: Amount::Count(0),
        per: Per::Wave,
        ..budget(None, Action::Halt)
    }];
    let mut story = story(&strategy, &["a", "b"]);
    story.new_revision(&assistant()).unwrap();
    told(&mut story, "a: is told generation");
    story.connect("a", false);
    wait(&mut story, MINUTE);
    story.explain();
    story.connect("a", true);
    story.run_out();
    check("strict_and_away", &story, Phase::Completed);
}

#[test]
fn a_strict_wave_of_what_was_broken_before_needs_a_word() {
    let mut story = story(&quick(), &["canary", "b"]);
    story.set_fault("canary", Fault::Broken(FailureClass::Network));
    story.new_revision(&assistant()).unwrap();
    wait(&mut story, MINUTE);
    story.explain();
    let rollout = story.rollouts().last().unwrap().id;
    story
        .say(rollout, Verb::Resume, "ops", "", "known trouble")
        .unwrap();
    story.run_out();
    check("canary_broken_before", &story, Phase::Completed);
}
