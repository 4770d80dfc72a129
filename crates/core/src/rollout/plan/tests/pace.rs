//! How many at a time: ramp, rate, spread.

use super::super::pace::RampStep;
use super::{Scene, at};
use crate::rollout::strategy::{Amount, Ramp, Spread};

#[test]
fn a_ramp_doubles_with_what_is_proven() {
    let ramp = Ramp {
        start: 1,
        factor_percent: 200,
    };
    let check = |ramp: Ramp, concurrency, proven, limit, missing| {
        let expected = RampStep { limit, missing };
        assert_eq!(
            RampStep::of(ramp, concurrency, proven),
            expected,
            "{ramp:?} {concurrency} {proven}"
        );
    };
    for (proven, limit, missing) in [
        (0, 1, 1),
        (1, 2, 2),
        (2, 2, 1),
        (3, 4, 4),
        (6, 4, 1),
        (7, 8, 8),
    ] {
        check(ramp, 100, proven, limit, missing);
    }
    // The wave's concurrency is its end.
    check(ramp, 3, 3, 3, 0);
    check(ramp, 1, 0, 1, 0);
    check(ramp, 100, u32::MAX, 100, 0);
    // Half as many more is rounded down, but at least one more.
    let slow = Ramp {
        start: 1,
        factor_percent: 150,
    };
    for (proven, limit) in [(0, 1), (1, 2), (3, 3), (6, 4), (10, 6)] {
        assert_eq!(RampStep::of(slow, 100, proven).limit, limit, "{proven}");
    }
}

#[test]
fn a_wave_begins_with_few() {
    let check = |letters: &str, expected: &[usize], why: &str| {
        let scene = Scene::new(letters).with(|s| {
            s.strategy.ramp = Some(Ramp {
                start: 1,
                factor_percent: 200,
            });
        });
        assert_eq!(scene.offers(), expected, "{letters}");
        assert_eq!(scene.why_not(letters.len() - 1), why);
    };
    check(
        "wwww",
        &[0],
        "ramp of wave \"a\" allows 1 of 4 at a time: 1 in flight, more once 1 more are proven",
    );
    check(
        "pwww",
        &[1, 2],
        "ramp of wave \"a\" allows 2 of 4 at a time: 2 in flight, more once 2 more are proven",
    );
    // A failure frees a place and lets nothing grow.
    check(
        "fwww",
        &[1],
        "ramp of wave \"a\" allows 1 of 4 at a time: 1 in flight, more once 1 more are proven",
    );
}

#[test]
fn no_more_are_offered_within_a_minute_than_may_be() {
    let check = |offered: &[i64], expected: &[usize], wake: i64| {
        let letters = format!("{}www", "p".repeat(offered.len()));
        let scene = Scene::new(&letters).with(|s| {
            s.strategy.max_per_minute = Some(2);
            s.now = at(0);
            for (target, moment) in s.targets.iter_mut().zip(offered) {
                target.offered_at = Some(at(*moment));
            }
        });
        assert_eq!(scene.offers(), expected, "{offered:?}");
        assert_eq!(
            scene.plan().wake_at.map(|t| t.min(at(60))),
            Some(at(wake)),
            "{offered:?}"
        );
    };
    // The ack deadline of 30 s is what wakes it where something was offered now.
    check(&[], &[0, 1], 30);
    check(&[-59], &[1], 1);
    check(&[-60], &[1, 2], 30);
    check(&[-50, -10], &[], 10);
    // The clock stepped back: what was offered in the future counts as offered now.
    check(&[500, 900], &[], 60);
}

#[test]
fn the_rate_says_its_number() {
    let scene = Scene::new("www").with(|s| s.strategy.max_per_minute = Some(2));
    assert_eq!(
        scene.why_not(2),
        "rate of 2 a minute is used up: the next in 1m"
    );
}

#[test]
fn others_go_on_past_those_whose_group_is_full() {
    let check = |letters: &str, groups: &str, max: u32, expected: &[usize]| {
        let scene = Scene::new(letters).with(|s| {
            s.strategy.waves[0].spread = Some(Spread {
                label: "region".to_owned(),
                max,
            });
            for (target, group) in s.targets.iter_mut().zip(groups.chars()) {
                target.group = (group != '.').then(|| group.to_string().into());
            }
        });
        assert_eq!(scene.offers(), expected, "{letters} {groups}");
    };
    check("wwww", "eeuu", 1, &[0, 2]);
    check("wwww", "eeeu", 2, &[0, 1, 3]);
    check("owww", "eeuu", 1, &[2]);
    check("pwww", "eeuu", 1, &[1, 2]);
    // Those without the label are one group.
    check("www", "..e", 1, &[0, 2]);
}

#[test]
fn in_a_strict_wave_who_is_away_with_the_change_keeps_the_place_of_its_group() {
    let scene = |strict| {
        Scene::new("oww").with(|s| {
            s.strategy.waves[0].strict = strict;
            s.strategy.waves[0].spread = Some(Spread {
                label: "region".to_owned(),
                max: 1,
            });
            s.targets[0].online = false;
            for target in &mut s.targets {
                target.group = Some("eu".into());
            }
            s.now = at(30);
        })
    };
    assert_eq!(scene(false).offers(), [1]);
    assert_eq!(scene(true).offers(), [0; 0]);
    assert_eq!(
        scene(true).why_not(1),
        "spread of wave \"a\" allows 1 at a time with region=eu: 1 in flight"
    );
}

#[test]
fn concurrency_is_rounded_down_and_at_least_one() {
    let check = |count: usize, percent: u8, expected: usize| {
        let scene = Scene::new(&"w".repeat(count))
            .with(|s| s.strategy.waves[0].concurrency = Amount::Percent(percent));
        assert_eq!(scene.offers().len(), expected, "{percent}% of {count}");
    };
    check(1, 10, 1);
    check(9, 10, 1);
    check(19, 10, 1);
    check(20, 10, 2);
    check(9, 30, 2);
}
