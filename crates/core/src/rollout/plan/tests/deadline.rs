//! When a wave is overdue, and when that is not judged.

use super::{Event, Opening, Scene, at, secs};
use crate::rollout::is_past_deadline;
use crate::rollout::plan::PlanInput;
use crate::rollout::strategy::{Amount, Approval};

const HOUR: i64 = 3_600;

/// A wave whose deadline of two hours passes at this moment.
fn scene(waves: &str, now: i64) -> Scene {
    Scene::new(waves).with(|s| {
        s.now = at(now);
        s.strategy.deadlines.ack = secs(99_999);
        s.strategy.waves[0].concurrency = Amount::Count(1);
    })
}

#[test]
fn a_wave_is_overdue_from_its_deadline_on() {
    let check = |waves: &str, now: i64, expected: Option<Event>| {
        assert_eq!(scene(waves, now).event(), expected, "{waves} {now}");
    };
    check("ow", 2 * HOUR - 1, None);
    check("ow", 2 * HOUR, Some(Event::WaveOverdue));
    check("- w", 2 * HOUR, Some(Event::WaveOverdue));
    // It is done: that comes first.
    check("p w", 9 * HOUR, Some(Event::WaveStarted(1)));
    // The clock stepped back.
    check("ow", -HOUR, None);
    let forward = scene("ow", 2 * HOUR).with(|s| s.run.fast_forward = Some(0));
    assert_eq!(forward.event(), None);
}

#[test]
fn who_waits_for_a_window_is_not_late() {
    let closed = Opening::Closed {
        opens: None,
        blackout: None,
    };
    let waits = scene("pw", 2 * HOUR).with(|s| s.targets[1].opening = closed);
    assert_eq!(waits.event(), None);
}

/// Nobody could be offered the change for as long as windows were closed, whoever is there when they open.
#[test]
fn the_time_for_which_windows_were_closed_is_not_the_waves() {
    let check = |waves: &str, shut: i64, now: i64, expected: Option<Event>| {
        let scene = scene(waves, now).with(|s| {
            s.targets[1].shut = secs(shut.try_into().unwrap());
            s.strategy.offline.max_percent = 0;
        });
        assert_eq!(scene.event(), expected, "{waves} {shut} {now}");
    };
    let late = Some(Event::WaveOverdue);
    for waves in ["pw", "p-", "po", "wf -"] {
        check(waves, 9 * HOUR, 9 * HOUR, None);
        check(waves, 9 * HOUR, 11 * HOUR - 1, None);
        check(waves, 9 * HOUR, 11 * HOUR, late);
        // What was open before they closed counts.
        check(waves, HOUR / 2, 2 * HOUR, None);
        check(waves, HOUR / 2, 5 * HOUR / 2, late);
    }
    // Who only comes later, or has settled in an earlier wave, gives this one no time.
    check("o w", 9 * HOUR, 9 * HOUR, late);
    let check = |letters: &str, expected: Option<Event>| {
        let earlier = scene(letters, 3 * HOUR).with(|s| {
            s.run.wave = Some(1);
            s.targets[0].shut = secs(2 * 3_600);
        });
        assert_eq!(earlier.event(), expected, "{letters}");
    };
    check("p o", late);
    check("o o", None);
    let scene = scene("po", 11 * HOUR).with(|s| s.targets[1].shut = secs(9 * 3_600));
    let expected = "wave \"a\" (1 of 1) took longer than its deadline of 2h, beside 9h for which windows were closed: 1 of 2 deployments proven";
    assert_eq!(scene.sentence(), expected);
    assert_eq!(
        scene.with(|s| s.now = at(0)).plan().wake_at,
        Some(at(11 * HOUR))
    );
}

#[test]
fn what_is_offered_after_the_deadline_has_the_whole_time() {
    let check = |now: i64, expected: Option<Event>| {
        let offered = scene("po", now).with(|s| s.targets[1].offered_at = Some(at(9 * HOUR)));
        assert_eq!(offered.event(), expected, "{now}");
    };
    check(9 * HOUR, None);
    check(11 * HOUR - 1, None);
    check(11 * HOUR, Some(Event::WaveOverdue));
}

#[test]
fn who_is_away_while_its_window_is_closed_is_not_late() {
    let opens = Some(at(20 * HOUR));
    let closed = Opening::Closed {
        opens,
        blackout: None,
    };
    let check = |change: fn(&mut Scene)| {
        let away = scene("- w", 9 * HOUR).with(change);
        assert_eq!(away.event(), Some(Event::WaveOverdue));
        let away = away.with(|s| s.targets[0].opening = closed.clone());
        assert_eq!(away.event(), None);
        assert_eq!(away.plan().wake_at, opens);
    };
    check(|_| {});
    check(|s| s.strategy.offline.max_percent = 0);
    check(|s| s.strategy.waves[0].mandatory = true);
}

#[test]
fn a_wave_that_only_people_hold_is_not_late() {
    let check = |waves: &str, expected: Option<Event>, offers: &[usize]| {
        let scene = scene(waves, 9 * HOUR).with(|s| {
            s.strategy.waves[1].approval = Some(Approval {
                required: 1,
                not_author: false,
            });
        });
        assert_eq!(scene.event(), expected, "{waves}");
        assert_eq!(scene.offers(), offers, "{waves}");
    };
    check("p w", None, &[]);
    // Somebody came back meanwhile.
    check("pw w", None, &[1]);
    check("po w", None, &[]);
    // Nobody came: the wave is not done.
    check("- w", Some(Event::WaveOverdue), &[]);
}

/// An approval is for people's time: what the wave has left of its own stays.
#[test]
fn an_approval_gives_time_only_to_a_wave_that_has_none_left() {
    let check = |waves: &str, now: i64, shut: u64, expected: bool| {
        let scene = scene(waves, now).with(|s| s.targets[0].shut = secs(shut));
        let input = PlanInput {
            now: scene.now,
            andon: None,
            strategy: &scene.strategy,
            run: &scene.run,
            targets: &scene.targets,
        };
        assert_eq!(is_past_deadline(&input), expected, "{waves} {now} {shut}");
    };
    check("ow w w", 0, 0, false);
    check("ow w w", 2 * HOUR - 1, 0, false);
    check("ow w w", 2 * HOUR, 0, true);
    check("ow w w", 2 * HOUR, 1, false);
    let before = scene("w", 9 * HOUR).with(|s| s.run.wave = None);
    let input = PlanInput {
        now: before.now,
        andon: None,
        strategy: &before.strategy,
        run: &before.run,
        targets: &before.targets,
    };
    assert!(!is_past_deadline(&input), "no wave has begun");
}
