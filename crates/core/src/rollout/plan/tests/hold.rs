//! What holds a wave: people, gates, windows, a mandatory wave; and what passes it.

use super::{Event, Opening, Phase, Scene, at, secs};
use crate::rollout::gate::{Gate, GateCheck, GateState, Verdict};
use crate::rollout::phase::Verb;
use crate::rollout::strategy::{Action, Approval};
use crate::rollout::waiting::About;

fn gate() -> Gate {
    Gate {
        name: "errors".to_owned(),
        check: GateCheck::Http {
            url: "https://gate.example/ok".parse().unwrap(),
        },
        interval: secs(10),
        action: Action::Halt,
        fail_after: 2,
        inconclusive_after: 3,
    }
}

/// A run with a gate that last answered so, as often in a row, at the moment 0.
fn gated(waves: &str, answer: Option<(Verdict, u32)>) -> Scene {
    Scene::new(waves).with(|s| {
        s.strategy.gates = vec![gate()];
        s.run
            .gates
            .extend(answer.map(|(verdict, streak)| GateState {
                name: "errors".to_owned(),
                verdict,
                streak,
                at: at(0),
                text: "3 of 100".to_owned(),
            }));
    })
}

#[test]
fn a_wave_begins_when_enough_people_have_agreed() {
    let check = |not_author: bool, who: &[(usize, &str)], expected: &str| {
        let scene = Scene::new("p w w").with(|s| {
            s.strategy.waves[1].approval = Some(Approval {
                required: 2,
                not_author,
            });
            for (wave, principal) in who {
                s.run.approve(*wave, principal);
            }
        });
        let begins = scene.event() == Some(Event::WaveStarted(1));
        assert_eq!(begins, expected.is_empty(), "{who:?}");
        assert_eq!(scene.why(About::Run), expected, "{who:?}");
    };
    let waits = |given: u32, more: &str| {
        format!("wave \"b\" (2 of 3) waits for approval: {given} of 2 have agreed{more}")
    };
    let author = ", ada who started the rollout does not count";
    check(false, &[], &waits(0, ""));
    check(false, &[(1, "ada"), (1, "ada"), (2, "eve")], &waits(1, ""));
    check(false, &[(1, "ada"), (1, "eve")], "");
    check(true, &[(1, "ada"), (1, "eve")], &waits(1, author));
    check(true, &[(1, "bob"), (1, "eve")], "");
}

#[test]
fn later_waves_say_what_comes_first_while_people_are_waited_for() {
    let scene = Scene::new("w w").with(|s| {
        s.run.wave = None;
        s.strategy.waves[0].approval = Some(Approval {
            required: 1,
            not_author: false,
        });
    });
    let waits = "wave \"a\" (1 of 2) waits for approval: 0 of 1 have agreed";
    assert_eq!(scene.why(About::Wave(0)), waits);
    assert_eq!(scene.why_not(0), waits);
    let later = "wave \"b\" (2 of 2) has not started: wave 1 \"a\" comes first";
    assert_eq!(scene.why(About::Wave(1)), later);
    assert_eq!(scene.why_not(1), later);
    assert_eq!(scene.event(), None);
}

#[test]
fn a_gate_that_does_not_pass_now_keeps_everything_new_back() {
    let check = |answer: Option<(Verdict, u32)>, now: i64, passes: bool| {
        for wave in [None, Some(0)] {
            let scene = gated("w", answer).with(|s| {
                s.run.wave = wave;
                s.now = at(now);
            });
            let plan = scene.plan();
            let acts = !plan.offer.is_empty() || !plan.events.is_empty();
            assert_eq!(acts, passes, "{answer:?} {now} {wave:?}");
            let holds = scene
                .why_not(0)
                .starts_with("gate \"errors\" does not pass: ");
            assert_eq!(holds, !passes, "{}", scene.why_not(0));
        }
    };
    check(None, 0, false);
    check(Some((Verdict::Pass, 1)), 0, true);
    check(Some((Verdict::Pass, 1)), 29, true);
    check(Some((Verdict::Pass, 1)), 30, false);
    // The clock stepped back.
    check(Some((Verdict::Pass, 1)), -500, true);
    check(Some((Verdict::Fail, 1)), 0, false);
    check(Some((Verdict::Inconclusive, 2)), 0, false);
}

#[test]
fn a_gate_holds_the_run_after_enough_answers_in_a_row() {
    let check = |answer, action, can_roll_back, expected| {
        let scene = gated("pw", Some(answer)).with(|s| {
            s.strategy.gates[0].action = action;
            s.targets[0].can_roll_back = can_roll_back;
        });
        assert_eq!(scene.event(), Some(expected), "{answer:?}");
    };
    let fail = (Verdict::Fail, 2);
    check(fail, Action::Halt, true, Event::GateFailed(Action::Halt));
    check(fail, Action::Pause, true, Event::GateFailed(Action::Pause));
    check(
        fail,
        Action::Rollback,
        true,
        Event::GateFailed(Action::Rollback),
    );
    check(fail, Action::Rollback, false, Event::RollbackImpossible);
    check(
        (Verdict::Inconclusive, 3),
        Action::Halt,
        true,
        Event::GateInconclusive,
    );
    // What is in flight goes on, and so does a way back.
    assert_eq!(gated("o", Some((Verdict::Fail, 1))).event(), None);
    let back = gated("o", Some(fail)).with(|s| s.run.phase = Phase::RollingBack);
    assert_eq!(back.returns(), [0]);
}

#[test]
fn a_window_holds_what_is_not_offered_and_nothing_else() {
    let closed = |opens: Option<i64>| Opening::Closed {
        opens: opens.map(at),
        blackout: None,
    };
    let check = |opening: Opening, expected: &[usize], why: &str| {
        let scene = Scene::new("www").with(|s| s.targets[1].opening = opening.clone());
        assert_eq!(scene.offers(), expected, "{opening:?}");
        let reason = scene.why_not(1);
        assert!(reason.starts_with(why), "{opening:?}: {reason}");
    };
    let outside = "outside of its maintenance windows";
    check(Opening::Open { until: at(1) }, &[0, 1, 2], "the agent");
    check(Opening::Open { until: at(0) }, &[0, 2], outside);
    check(closed(Some(60)), &[0, 2], outside);
    check(closed(None), &[0, 2], outside);
    let alone = Scene::new("w").with(|s| s.targets[0].opening = closed(Some(7)));
    assert_eq!(alone.plan().wake_at, Some(at(7)));
    let expected = "wave \"a\" (1 of 1): 1 deployment left, outside of maintenance windows: the next opens in 7s";
    assert_eq!(alone.why(About::Run), expected);
    // Who is away is not waited for, and a way back is not held.
    let away = Scene::new("- w").with(|s| s.targets[0].opening = closed(Some(7)));
    assert_eq!(
        away.why(About::Wave(0)),
        "wave \"a\" (1 of 2): 0 of 1 deployments proven, so it says nothing about the next (1 offline, 0 failed as before the change)"
    );
    let back = Scene::new("o").with(|s| {
        s.targets[0].opening = closed(Some(7));
        s.run.phase = Phase::RollingBack;
    });
    assert_eq!(back.returns(), [0]);
}

#[test]
fn a_mandatory_wave_waits_for_everybody() {
    let check = |letters: &str, goes_on: bool| {
        let waves = format!("{letters} w");
        let scene = Scene::new(&waves).with(|s| s.strategy.waves[0].mandatory = true);
        let begins = scene.event() == Some(Event::WaveStarted(1));
        assert_eq!(begins, goes_on, "{letters}");
    };
    check("pp", true);
    check("pp-", false);
    check("ppb", false);
    let scene = Scene::new("ppb- w").with(|s| s.strategy.waves[0].mandatory = true);
    let expected = "wave \"a\" (1 of 2): mandatory, 2 of 4 deployments proven: 1 offline, 1 failed as before the change; fast-forward to go on without them";
    assert_eq!(scene.why(About::Wave(0)), expected);
    // Any failure halts it, though no budget names it.
    let failed = Scene::new("pf w").with(|s| s.strategy.waves[0].mandatory = true);
    assert_eq!(failed.event(), Some(Event::BudgetSpent(Action::Halt)));
    let failed = failed.with(|s| s.run.fast_forward = Some(0));
    assert_eq!(failed.event(), Some(Event::BudgetSpent(Action::Halt)));
}

#[test]
fn fast_forward_passes_soak_and_absences_of_the_running_wave() {
    let check = |waves: &str, forward: usize, expected: Option<Event>| {
        let scene = Scene::new(waves).with(|s| {
            s.strategy.waves[0].soak = secs(600);
            s.strategy.waves[0].mandatory = true;
            s.strategy.offline.max_percent = 0;
            s.run.fast_forward = Some(forward);
        });
        assert_eq!(scene.event(), expected, "{waves} {forward}");
    };
    let begins = Some(Event::WaveStarted(1));
    for waves in ["p w", "- w", "b w", "p-b w"] {
        check(waves, 0, begins);
        check(waves, 1, None);
    }
    check("po w", 0, None);
    check("pw w", 0, None);
    // What an operator went past holds nobody up later either.
    let later = Scene::new("p p").with(|s| {
        s.strategy.waves[0].soak = secs(600);
        (s.run.wave, s.run.fast_forward) = (Some(1), Some(0));
    });
    assert_eq!(later.event(), Some(Event::Finished));
    let forward = |wave, phase| {
        let mut run = Scene::new("w").run;
        (run.wave, run.phase) = (wave, phase);
        run.happen(Event::Verb(Verb::FastForward), "", at(9))
            .unwrap();
        run.fast_forward
    };
    assert_eq!(forward(Some(1), Phase::Paused), Some(1));
    assert_eq!(forward(None, Phase::Pending), None);
    assert_eq!(forward(Some(1), Phase::RollingBack), None);
}

#[test]
fn a_gate_also_keeps_the_change_from_who_is_away_at_the_end() {
    let check = |waves: &str, answer: Option<(Verdict, u32)>, expected: &[usize]| {
        let scene = gated(waves, answer);
        let ends = scene.event() == Some(Event::Finished);
        assert_eq!(scene.plan().offer.len(), expected.len(), "{waves}");
        assert_eq!(scene.offers(), expected, "{waves}");
        assert_eq!(ends, scene.why(About::Run).is_empty(), "{waves}");
        ends
    };
    assert!(check("p-", Some((Verdict::Pass, 1)), &[1]));
    assert!(!check("p-", Some((Verdict::Fail, 1)), &[]));
    assert!(!check("p-", None, &[]));
    assert!(check("pp", None, &[]));
}
