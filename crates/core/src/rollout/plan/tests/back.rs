//! The way back: its own concurrency, rate and deadline.

use super::{Event, Phase, Scene, at, secs};
use crate::rollout::strategy::{Amount, Rollback};

fn scene(letters: &str, rollback: Rollback) -> Scene {
    Scene::new(letters).with(|s| {
        s.run.phase = Phase::RollingBack;
        s.strategy.rollback = rollback;
    })
}

fn block(concurrency: Amount, max_per_minute: Option<u32>) -> Rollback {
    Rollback {
        concurrency,
        max_per_minute,
        deadline: None,
    }
}

#[test]
fn as_many_go_back_at_a_time_as_may() {
    let check = |letters: &str, concurrency: Amount, expected: &[usize]| {
        let scene = scene(letters, block(concurrency, None));
        assert_eq!(scene.returns(), expected, "{letters} {concurrency}");
    };
    check("pfowk", Amount::Count(2), &[0, 1]);
    check("tpfow", Amount::Count(2), &[1]);
    // A share is of those that the change touched.
    check("ppppwwww", Amount::Percent(50), &[0, 1]);
    check("pw", Amount::Percent(1), &[0]);
}

#[test]
fn no_more_are_told_within_a_minute_than_may_be() {
    let check = |told: &[i64], expected: &[usize], wake: Option<i64>| {
        let letters = format!("{}ppp", "k".repeat(told.len()));
        let scene = scene(&letters, block(Amount::Percent(100), Some(2))).with(|s| {
            for (target, moment) in s.targets.iter_mut().zip(told) {
                target.rollback_at = Some(at(*moment));
            }
        });
        assert_eq!(scene.returns(), expected, "{told:?}");
        assert_eq!(scene.plan().wake_at, wake.map(at), "{told:?}");
    };
    check(&[], &[0, 1], Some(60));
    check(&[-59], &[1], Some(1));
    check(&[-60], &[1, 2], Some(60));
    check(&[-5, -5], &[], Some(55));
    check(&[500, 500], &[], Some(60));
    let full = scene("kkp", block(Amount::Percent(100), Some(2))).with(|s| {
        s.targets[0].rollback_at = Some(at(0));
        s.targets[1].rollback_at = Some(at(-20));
        s.targets[2].online = false;
    });
    // Nobody hears what is told to who is away.
    assert_eq!(full.returns(), [2]);
    let full = full.with(|s| s.targets[2].online = true);
    let expected = "rollback rate of 2 a minute is used up: the next in 40s";
    assert_eq!(full.why_not(2), expected);
}

#[test]
fn one_deadline_is_its_own_or_the_sum_of_all_three() {
    let check = |deadline: Option<u64>, now: i64, late: bool| {
        let rollback = Rollback {
            deadline: deadline.map(secs),
            ..block(Amount::Count(1), None)
        };
        let scene = scene("t", rollback).with(|s| s.now = at(now));
        assert_eq!(
            !scene.plan().timed_out.is_empty(),
            late,
            "{deadline:?} {now}"
        );
    };
    check(None, 329, false);
    check(None, 330, true);
    check(Some(60), 59, false);
    check(Some(60), 60, true);
}

#[test]
fn who_left_goes_back_but_holds_nobody_up() {
    let check = |letter: &str, can_roll_back: bool, left: bool, expected: Option<Event>| {
        let scene = scene(letter, block(Amount::Count(1), None)).with(|s| {
            s.targets[0].left = left;
            s.targets[0].can_roll_back = can_roll_back;
        });
        assert_eq!(scene.event(), expected, "{letter} {can_roll_back} {left}");
    };
    let finished = Some(Event::RollbackFinished);
    check("p", true, true, None);
    check("p", false, false, Some(Event::RollbackFailed));
    check("p", false, true, finished);
    check("x", true, false, Some(Event::RollbackFailed));
    check("x", true, true, finished);
}
