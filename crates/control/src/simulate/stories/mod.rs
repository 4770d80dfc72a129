//! Stories of simulated fleets, as a person would read them: `cargo insta review` shows what a change does to them.
//!
//! `runs` are single runs; `peers` replay what went wrong in comparable products. The failures of those that are not the
//! rollout's have their tests elsewhere:
//!
//! | failure elsewhere | test here |
//! |---|---|
//! | an event is lost while an agent is away | `peers::who_is_away_misses_nothing_and_holds_nobody_up` |
//! | a refused document is sent again and again | `peers::a_refused_document_is_not_offered_again_unchanged` |
//! | soak is counted from a moment of an earlier run | `peers::an_update_soaks_anew_though_everything_was_proven_long_ago` |
//! | the strategy is ignored on update | the same: an update takes the waves of the strategy |
//! | a change of membership aborts the run | `peers::a_run_outlives_comings_goings_and_labels` |
//! | one that is away blocks everybody | `peers::who_is_away_misses_nothing_and_holds_nobody_up` |
//! | a batch is larger than the budget | `peers::no_batch_is_larger_than_the_budget` |
//! | the way back is too slow, or not bounded | `peers::the_way_back_is_quick_and_bounded` |
//! | abort does not work while paused | `peers::a_paused_run_can_be_aborted` |
//! | a restart of the controller restarts the world | `peers::a_restart_of_control_changes_nothing_anywhere` |
//! | an identity is used twice | `tests/e2e/identity.rs`, `two_agents_with_one_identity_are_found_and_neither_gets_a_key_until_an_operator_decides` |
//! | certificates are renewed all at once | `crates/agent/src/renew.rs`, `renewals_are_spread_around_two_thirds_of_the_life` |
//! | a session is half open and nobody notices | `seeds`: control learns late of every session that breaks |
//! | who is alive is taken for dead | being away is no failure: `peers::who_is_away_misses_nothing_and_holds_nobody_up` |
//! | a refused key multiplies calls to the provider | `crates/agent/tests/it/faults.rs`, `a_key_that_the_provider_refuses_is_final_until_a_new_try` |
//! | a revocation fails after it was stored; consumers are slower than the overlap | there is no revocation yet |

mod found;
mod peers;
mod runs;

use std::time::Duration;

use keyfleet_core::failure::FailureClass;
use keyfleet_core::rollout::{Action, Amount, Budget, Per, Phase, Strategy};

use super::small::{openai, quick};
use super::{Event, Simulation};
use crate::error::Error;

const MINUTE: Duration = Duration::from_secs(60);

/// A fleet that has what it shall have; the story begins then.
fn story(strategy: &Strategy, names: &[&str]) -> Simulation {
    let mut story = Simulation::settled(strategy, names, 1);
    begin(&mut story);
    story
}

/// What happened so far is not told, and the clock of the story begins now.
fn begin(story: &mut Simulation) {
    story.start = story.now;
    story.log = Some(String::new());
}

/// One wave of everybody, so many at a time.
fn one_wave(concurrency: u32) -> Strategy {
    let mut strategy = quick();
    strategy.waves.remove(0);
    strategy.waves[0].concurrency = Amount::Count(concurrency);
    strategy
}

/// A budget that bears nothing.
fn budget(class: Option<FailureClass>, action: Action) -> Budget {
    Budget {
        class,
        per: Per::Wave,
        max: Amount::Count(0),
        min_sample: 1,
        action,
    }
}

/// Goes on until the story says this.
fn told(story: &mut Simulation, text: &str) {
    while !story.log().contains(text) {
        let next = story.advance().unwrap();
        assert!(
            next.is_some(),
            "it is never told that {text:?}:\n{}",
            story.log()
        );
    }
}

/// Goes on for so long.
fn wait(story: &mut Simulation, duration: Duration) {
    let until = story.now.checked_add(duration).unwrap();
    let anybody = *story.agents.keys().next().unwrap();
    // Something has to happen at that very moment, else the story goes on to the next thing that does.
    story.push_at(until, Event::Look(anybody));
    while story.now < until {
        story.advance().unwrap();
    }
}

/// The version of the Key that everybody has can no longer be read in Vault.
fn lose_the_key_version(story: &mut Simulation) {
    let lost = story.change(|tx, _| {
        for row in tx.key_versions(&openai())? {
            tx.set_readable(&openai(), row.version, false)?;
        }
        Ok::<_, Error>(())
    });
    lost.unwrap();
}

/// How it ends, and all that happened.
fn check(name: &str, story: &Simulation, phase: Phase) {
    assert_eq!(story.phase(), phase, "{}", story.log());
    insta::assert_snapshot!(name, story.log());
}
