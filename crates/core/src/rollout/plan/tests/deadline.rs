//! When a wave is overdue, and when that is not judged.

use super::{Event, Opening, Scene, at, secs};
use crate::rollout::strategy::{Amount, Approval, Window, Zone};

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
    // When it opens, the change is offered, though the deadline has passed; it then has the whole time.
    let windows = vec![Window {
        cron: "0 22 * * *".to_owned(),
        duration: secs(4 * 3_600),
        zone: Zone::OfDeployment,
    }];
    let opens = scene("pw", 9 * HOUR).with(|s| s.strategy.windows = windows);
    assert_eq!(opens.offers(), [1]);
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
