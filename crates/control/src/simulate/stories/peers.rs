//! What went wrong elsewhere, and does not here.

use keyfleet_core::failure::FailureClass;
use keyfleet_core::fleet::Labels;
use keyfleet_core::rollout::{Action, Amount, Budget, Phase, Verb};

use super::{MINUTE, budget, check, one_wave, story, told, wait};
use crate::simulate::Fault;
use crate::simulate::small::{assistant, openai, quick, tier};

#[test]
fn who_is_away_misses_nothing_and_holds_nobody_up() {
    let mut strategy = one_wave(4);
    strategy.offline.max_percent = 50;
    let mut story = story(&strategy, &["a", "b", "c"]);
    story.connect("c", false);
    wait(&mut story, MINUTE);
    story.new_revision(&assistant()).unwrap();
    wait(&mut story, MINUTE * 10);
    story.connect("c", true);
    story.run_out();
    check("away_and_back", &story, Phase::Completed);
}

#[test]
fn a_refused_document_is_not_offered_again_unchanged() {
    let mut strategy = one_wave(4);
    strategy.budgets = vec![budget(None, Action::Pause)];
    let mut story = story(&strategy, &["a", "b"]);
    story.set_fault("a", Fault::Rejects);
    story.new_revision(&assistant()).unwrap();
    wait(&mut story, MINUTE * 60);
    story.cut("a");
    wait(&mut story, MINUTE * 60);
    story.explain();
    story.set_fault("a", Fault::None);
    let rollout = story.rollouts().last().unwrap().id;
    story
        .say(rollout, Verb::Retry, "ops", "", "the agent was updated")
        .unwrap();
    story.run_out();
    check("refused_document", &story, Phase::Completed);
}

#[test]
fn an_update_soaks_anew_though_everything_was_proven_long_ago() {
    let mut strategy = quick();
    strategy.waves[0].soak = MINUTE * 10;
    let mut story = story(&strategy, &["canary", "b"]);
    wait(&mut story, MINUTE * 600);
    story.new_revision(&assistant()).unwrap();
    story.run_out();
    check("soak_anew", &story, Phase::Completed);
}

#[test]
fn a_run_outlives_comings_goings_and_labels() {
    let mut strategy = quick();
    strategy.waves[0].soak = MINUTE * 10;
    let mut story = story(&strategy, &["canary", "b", "c"]);
    story.new_revision(&assistant()).unwrap();
    wait(&mut story, MINUTE);
    story.join("d", tier("d")).unwrap();
    wait(&mut story, MINUTE);
    let canary = Labels::from([("tier".to_owned(), "canary".to_owned())]);
    story.relabel("b", canary, Vec::new()).unwrap();
    wait(&mut story, MINUTE);
    story.leave("c").unwrap();
    wait(&mut story, MINUTE);
    story.explain();
    story.run_out();
    check("membership", &story, Phase::Completed);
}

#[test]
fn no_batch_is_larger_than_the_budget() {
    let mut strategy = one_wave(4);
    strategy.waves[0].strict = true;
    strategy.budgets = vec![Budget {
        max: Amount::Count(1),
        ..budget(None, Action::Halt)
    }];
    let mut story = story(&strategy, &["a", "b", "c", "d"]);
    for name in ["a", "b", "c", "d"] {
        story.set_fault(name, Fault::Fails(FailureClass::Model));
    }
    story.new_revision(&assistant()).unwrap();
    story.run_out();
    story.explain();
    check("batch_and_budget", &story, Phase::Halted);
}

#[test]
fn the_way_back_is_quick_and_bounded() {
    let mut strategy = quick();
    strategy.waves[0].soak = MINUTE * 10;
    strategy.rollback.concurrency = Amount::Count(2);
    let mut story = story(&strategy, &["canary", "b", "c", "d"]);
    story.new_revision(&assistant()).unwrap();
    told(&mut story, "d: default/assistant r2 v1 is APPLIED");
    let rollout = story.rollouts().last().unwrap().id;
    story
        .say(rollout, Verb::Rollback, "ops", "", "wrong answers")
        .unwrap();
    story.run_out();
    check("way_back", &story, Phase::RolledBack);
}

#[test]
fn a_paused_run_can_be_aborted() {
    let mut story = story(&one_wave(1), &["a", "b", "c"]);
    story.new_revision(&assistant()).unwrap();
    told(&mut story, "a: is told generation");
    let rollout = story.rollouts().last().unwrap().id;
    story.say(rollout, Verb::Pause, "ops", "", "lunch").unwrap();
    wait(&mut story, MINUTE);
    story.explain();
    story
        .say(rollout, Verb::Abort, "ops", "", "never mind")
        .unwrap();
    story.run_out();
    check("abort_while_paused", &story, Phase::Aborted);
}

#[test]
fn a_restart_of_control_changes_nothing_anywhere() {
    let mut story = story(&quick(), &["canary", "b", "c"]);
    let writes = |story: &super::Simulation| -> u64 {
        story.agents.values().map(|agent| agent.kibana.writes).sum()
    };
    let before = writes(&story);
    story.crash_control(MINUTE);
    story.run_out();
    story.crash_agent("b", MINUTE);
    story.run_out();
    assert_eq!(writes(&story), before, "{}", story.log());
    check("restarts", &story, Phase::Completed);
}

#[test]
fn a_restart_in_the_middle_of_a_run_goes_on_where_it_was() {
    let mut story = story(&one_wave(1), &["a", "b"]);
    story.new_key_version(&openai()).unwrap();
    told(&mut story, "a: is told generation");
    story.crash_control(MINUTE * 20);
    story.run_out();
    check("restart_in_the_middle", &story, Phase::Completed);
}
