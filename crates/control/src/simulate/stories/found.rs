//! What random seeds found, told alone, so that it stays found.

use keyfleet_core::fleet::Labels;
use keyfleet_core::id::KeyVersion;
use keyfleet_core::key::KeyState;
use keyfleet_core::rollout::{Phase, Verb};

use super::{MINUTE, one_wave, story, told, wait};
use crate::simulate::small::{assistant, openai, quick};
use crate::simulate::{Fault, Simulation};

fn newest_reason(story: &Simulation) -> String {
    let rollouts = story.rollouts();
    rollouts.last().unwrap().run.hold_reason.clone()
}

fn key_state(story: &Simulation, version: u64) -> KeyState {
    let versions = story.look(|tx| Ok(tx.key_versions(&openai())?)).unwrap();
    let found = versions
        .iter()
        .find(|row| row.version == KeyVersion(version));
    found.unwrap().state
}

#[test]
fn a_refusal_that_is_said_again_is_no_news_whatever_happened_meanwhile() {
    let mut story = story(&one_wave(4), &["a", "b"]);
    story.set_fault("a", Fault::Rejects);
    story.new_revision(&assistant()).unwrap();
    told(&mut story, "a: refuses generation");
    wait(&mut story, MINUTE);
    let labels = Labels::from([("room".to_owned(), "1".to_owned())]);
    story.relabel("a", labels, Vec::new()).unwrap();
    story.run_out();
    let before = story.stored().unwrap();
    story.crash_agent("a", MINUTE);
    story.run_out();
    assert_eq!(story.stored().unwrap(), before);
}

#[test]
fn who_is_away_from_a_rollback_is_not_counted_as_back() {
    let mut strategy = quick();
    strategy.waves[0].soak = MINUTE * 60;
    let mut story = story(&strategy, &["canary", "b"]);
    story.new_key_version(&openai()).unwrap();
    told(&mut story, "canary: default/assistant r1 v2 is PROVEN");
    story.connect("canary", false);
    story.crash_control(MINUTE);
    wait(&mut story, MINUTE * 2);
    let rollout = story.rollouts().last().unwrap().id;
    story
        .say(rollout, Verb::Rollback, "ops", "", "wrong account")
        .unwrap();
    wait(&mut story, MINUTE);
    assert_eq!(story.phase(), Phase::RolledBack, "{}", story.log());
    let reason = newest_reason(&story);
    assert!(
        reason.contains("1 away go back when they are connected again"),
        "{reason}"
    );
    assert_eq!(key_state(&story, 2), KeyState::Abandoned);
    story.connect("canary", true);
    story.run_out();
    let bindings = story.look(|tx| Ok(tx.bindings()?)).unwrap();
    for binding in bindings {
        assert_eq!(
            binding.last_proven.unwrap().key_version,
            KeyVersion(1),
            "{}",
            story.log()
        );
    }
}

#[test]
fn a_key_version_that_was_proven_before_is_not_abandoned_with_a_revision() {
    let mut story = Simulation::small(&one_wave(1), &["a", "b", "c"], 1);
    told(&mut story, "a: default/assistant r1 v1 is PROVEN");
    story.new_revision(&assistant()).unwrap();
    told(&mut story, "a: default/assistant r2 v1 is PROVEN");
    told(&mut story, "b: is told generation");
    let rollout = story.rollouts().last().unwrap().id;
    story
        .say(rollout, Verb::Rollback, "ops", "", "wrong model")
        .unwrap();
    story.run_out();
    let rollouts = story.rollouts();
    let went_back = rollouts.iter().find(|it| it.id == rollout).unwrap();
    assert_eq!(went_back.run.phase, Phase::RolledBack, "{}", story.log());
    assert!(key_state(&story, 1).may_be_assigned(), "{}", story.log());
}
