//! Openings by hand: windows, blackouts, time zones, and the days when clocks change.

use std::time::Duration;

use keyfleet_core::rollout::{Deadlines, default_strategy};

use super::*;

/// A change needs 15 minutes.
fn strategy(windows: &[(&str, u64, Zone)], blackouts: &[(&str, &str)]) -> Strategy {
    let minutes = |n| Duration::from_secs(60 * n);
    let window = |(cron, n_minutes, zone): &(&str, u64, Zone)| Window {
        cron: (*cron).to_owned(),
        duration: minutes(*n_minutes),
        zone: zone.clone(),
    };
    let blackout = |(from, until): &(&str, &str)| Blackout {
        from: from.parse().unwrap(),
        until: until.parse().unwrap(),
        reason: "freeze".to_owned(),
    };
    Strategy {
        deadlines: Deadlines {
            ack: minutes(5),
            apply: minutes(5),
            prove: minutes(5),
            wave: minutes(600),
        },
        windows: windows.iter().map(window).collect(),
        blackouts: blackouts.iter().map(blackout).collect(),
        ..default_strategy("default".parse().unwrap())
    }
}

fn berlin() -> Zone {
    Zone::Named("Europe/Berlin".to_owned())
}

fn labels(zone: &str) -> Labels {
    [(TIME_ZONE_LABEL.to_owned(), zone.to_owned())].into()
}

/// `open until T`, `opens T`, `never`, each with the blackout behind it.
fn say(opening: &Opening) -> String {
    match opening {
        Opening::Always => "always".to_owned(),
        Opening::Open { until } => format!("open until {until}"),
        Opening::Closed { opens, blackout } => {
            let opens = opens.map_or_else(|| "never".to_owned(), |opens| format!("opens {opens}"));
            blackout
                .iter()
                .fold(opens, |text, blackout| format!("{text} ({blackout})"))
        }
    }
}

#[track_caller]
fn check_at(strategy: &Strategy, zone: &str, cases: &[(&str, &str)]) {
    let calendar = Calendar::new(strategy);
    for (now, expected) in cases {
        let opening = calendar.opening(&labels(zone), now.parse().unwrap());
        assert_eq!(say(&opening), *expected, "at {now}");
    }
}

#[test]
fn without_windows_and_blackouts_it_is_always_open() {
    check_at(
        &strategy(&[], &[]),
        "",
        &[("2026-11-23T12:00:00Z", "always")],
    );
}

#[test]
fn a_window_across_midnight_closes_so_early_that_a_change_ends_in_it() {
    // Monday to Thursday; 2026-11-26 is a Thursday.
    let strategy = strategy(&[("0 22 * * 1-4", 240, berlin())], &[]);
    check_at(
        &strategy,
        "",
        &[
            ("2026-11-26T20:59:59Z", "opens 2026-11-26T21:00:00Z"),
            ("2026-11-26T21:00:00Z", "open until 2026-11-27T00:45:00Z"),
            ("2026-11-27T00:44:59Z", "open until 2026-11-27T00:45:00Z"),
            ("2026-11-27T00:45:00Z", "opens 2026-11-30T21:00:00Z"),
            ("2026-11-27T02:00:00Z", "opens 2026-11-30T21:00:00Z"),
        ],
    );
}

#[test]
fn each_deployment_has_its_own_clock() {
    let strategy = strategy(&[("0 22 * * *", 60, Zone::OfDeployment)], &[]);
    for (zone, opens) in [
        ("Asia/Kolkata", "opens 2026-11-23T16:30:00Z"),
        ("America/New_York", "opens 2026-11-24T03:00:00Z"),
        ("Pacific/Kiritimati", "opens 2026-11-24T08:00:00Z"),
        ("", "opens 2026-11-23T22:00:00Z"),
        ("Mars/Olympus", "opens 2026-11-23T22:00:00Z"),
    ] {
        check_at(&strategy, zone, &[("2026-11-23T12:00:00Z", opens)]);
    }
}

#[test]
fn a_time_that_the_clocks_skip_comes_after_the_jump() {
    // On 2027-03-28 the clocks of Berlin go from 02:00 to 03:00.
    let within = strategy(&[("30 2 * * *", 60, berlin())], &[]);
    check_at(
        &within,
        "",
        &[
            ("2027-03-28T00:30:00Z", "opens 2027-03-28T01:30:00Z"),
            ("2027-03-28T01:30:00Z", "open until 2027-03-28T02:15:00Z"),
            ("2027-03-28T12:00:00Z", "opens 2027-03-29T00:30:00Z"),
        ],
    );
    // Windows last as long as they say, whatever the clocks do.
    let across = strategy(&[("0 1 * * *", 180, berlin())], &[]);
    let open = ("2027-03-28T00:00:00Z", "open until 2027-03-28T02:45:00Z");
    check_at(&across, "", &[open]);
}

#[test]
fn a_time_that_comes_twice_is_the_first_of_the_two() {
    // On 2027-10-31 the clocks of Berlin go back from 03:00 to 02:00.
    let strategy = strategy(&[("30 2 * * *", 60, berlin())], &[]);
    check_at(
        &strategy,
        "",
        &[
            ("2027-10-31T00:00:00Z", "opens 2027-10-31T00:30:00Z"),
            ("2027-10-31T00:30:00Z", "open until 2027-10-31T01:15:00Z"),
            // The second 02:30.
            ("2027-10-31T01:30:00Z", "opens 2027-11-01T01:30:00Z"),
        ],
    );
}

#[test]
fn windows_that_overlap_or_meet_are_one() {
    let utc = || Zone::Named("UTC".to_owned());
    let overlapping = strategy(
        &[("0 20 * * *", 120, utc()), ("0 21 * * *", 180, berlin())],
        &[],
    );
    let case = ("2026-11-23T20:30:00Z", "open until 2026-11-23T22:45:00Z");
    check_at(&overlapping, "", &[case]);

    // Neither of the two is long enough alone.
    let meeting = strategy(
        &[("0 20 * * *", 10, utc()), ("10 20 * * *", 10, utc())],
        &[],
    );
    check_at(
        &meeting,
        "",
        &[
            ("2026-11-23T12:00:00Z", "opens 2026-11-23T20:00:00Z"),
            ("2026-11-23T20:04:00Z", "open until 2026-11-23T20:05:00Z"),
            ("2026-11-23T20:05:00Z", "opens 2026-11-24T20:00:00Z"),
        ],
    );

    let opens_always = strategy(&[("0 * * * *", 60, utc())], &[]);
    let opening =
        Calendar::new(&opens_always).opening(&labels(""), "2026-11-23T12:34:00Z".parse().unwrap());
    assert!(matches!(opening, Opening::Open { .. }), "{opening:?}");
}

#[test]
fn a_window_shorter_than_the_deadlines_never_opens() {
    let strategy = strategy(&[("0 22 * * *", 15, berlin())], &[]);
    check_at(&strategy, "", &[("2026-11-23T21:00:00Z", "never")]);
}

#[test]
fn blackouts_close_windows_and_everything_where_there_are_none() {
    let days = [("2026-12-24", "2026-12-26")];
    let alone = strategy(&[], &days);
    check_at(
        &alone,
        "Europe/Berlin",
        &[
            ("2026-12-01T00:00:00Z", "open until 2026-12-23T23:00:00Z"),
            (
                "2026-12-23T23:00:00Z",
                "opens 2026-12-26T23:00:00Z (2026-12-24 to 2026-12-26: freeze)",
            ),
        ],
    );
    let with_windows = strategy(&[("0 22 * * *", 240, berlin())], &days);
    check_at(
        &with_windows,
        "Europe/Berlin",
        &[
            // The window of the evening before is cut at midnight.
            ("2026-12-23T22:00:00Z", "open until 2026-12-23T22:45:00Z"),
            // That of the 26th begins when the blackout ends.
            (
                "2026-12-23T22:45:00Z",
                "opens 2026-12-26T23:00:00Z (2026-12-24 to 2026-12-26: freeze)",
            ),
            ("2026-12-27T03:00:00Z", "opens 2026-12-27T21:00:00Z"),
        ],
    );
    // Two that follow each other, in the wrong order; the second is what is waited for.
    let two = strategy(
        &[],
        &[("2026-12-27", "2026-12-27"), ("2026-12-24", "2026-12-26")],
    );
    let case = (
        "2026-12-25T12:00:00Z",
        "opens 2026-12-28T00:00:00Z (2026-12-27: freeze)",
    );
    check_at(&two, "", &[case]);
}

#[test]
fn what_does_not_open_within_a_year_never_opens() {
    // The next 29th of February is in 2028.
    let leap_day = strategy(&[("0 0 29 2 *", 60, berlin())], &[]);
    check_at(&leap_day, "", &[("2026-11-23T12:00:00Z", "never")]);
    let all_year = strategy(
        &[("0 22 * * *", 60, berlin())],
        &[("2026-01-01", "9999-12-31")],
    );
    check_at(
        &all_year,
        "",
        &[(
            "2026-11-23T12:00:00Z",
            "never (2026-01-01 to 9999-12-31: freeze)",
        )],
    );
}

#[test]
fn what_is_wrong_is_said_with_its_field() {
    let field = |window| check(&strategy(&[window], &[])).unwrap_err().0;
    assert_eq!(field(("0 25 * * *", 60, berlin())), "windows[0].cron");
    let nowhere = Zone::Named("Mars/Olympus".to_owned());
    assert_eq!(field(("0 22 * * *", 60, nowhere)), "windows[0].timeZone");
    assert_eq!(
        check(&strategy(&[("0 22 * * *", 60, berlin())], &[])),
        Ok(())
    );
}

#[test]
fn deployments_without_a_zone_are_counted() {
    let fleet = [
        ("a", labels("UTC")),
        ("b", Labels::new()),
        ("c", labels("x")),
    ];
    let warn = |strategy: &Strategy, n| {
        let fleet = fleet.iter().take(n).map(|(name, labels)| (*name, labels));
        zones_missing(strategy, fleet)
    };
    let own = strategy(&[("0 22 * * *", 60, Zone::OfDeployment)], &[]);
    assert_eq!(warn(&own, 1), None);
    assert!(
        warn(&own, 2)
            .unwrap()
            .contains("deployment b has no known time zone")
    );
    assert!(
        warn(&own, 3)
            .unwrap()
            .contains("2 deployments, b among them, have")
    );
    assert_eq!(
        warn(&strategy(&[("0 22 * * *", 60, berlin())], &[]), 3),
        None
    );
}

/// Every minute for a year, thirty-one times over, in several time zones: answered in moments, because each is answered from what
/// is near. The bar is far above that, and far below what looking at each opening of a year costs.
#[test]
fn a_window_that_opens_every_minute_costs_no_more() {
    let crons: Vec<String> = (1..32).map(|n| format!("* * {n}-31 * *")).collect();
    let windows: Vec<_> = crons
        .iter()
        .map(|cron| (cron.as_str(), 366 * 1_440, Zone::OfDeployment))
        .collect();
    let calendar = Calendar::new(&strategy(&windows, &[]));
    let began = std::time::Instant::now();
    for zone in [
        "UTC",
        "Europe/Berlin",
        "Antarctica/Troll",
        "Australia/Lord_Howe",
    ] {
        let opening = calendar.opening(&labels(zone), "2026-11-24T12:00:30Z".parse().unwrap());
        assert!(matches!(opening, Opening::Open { .. }), "{opening:?}");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn what_no_window_lets_through_is_known_afterwards() {
    let nights = strategy(
        &[("0 22 * * *", 240, Zone::OfDeployment)],
        &[("2026-11-24", "2026-11-24")],
    );
    let check =
        |strategy: &Strategy, zone: &str, (from, until): (&str, &str), expected: &[&str]| {
            let calendar = Calendar::new(strategy);
            let shut = calendar.shut(&labels(zone), from.parse().unwrap(), until.parse().unwrap());
            let said: Vec<String> = shut
                .iter()
                .map(|shut| format!("{} to {}", shut.from, shut.until))
                .collect();
            assert_eq!(said, expected, "{from} {until}");
        };
    let day = ("2026-11-22T12:00:00Z", "2026-11-23T12:00:00Z");
    let expected = [
        "2026-11-22T12:00:00Z to 2026-11-22T22:00:00Z",
        "2026-11-23T01:45:00Z to 2026-11-23T12:00:00Z",
    ];
    check(&nights, "", day, &expected);
    let expected = [
        "2026-11-22T12:00:00Z to 2026-11-22T21:00:00Z",
        "2026-11-23T00:45:00Z to 2026-11-23T12:00:00Z",
    ];
    check(&nights, "Europe/Berlin", day, &expected);
    check(
        &nights,
        "",
        ("2026-11-22T23:00:00Z", "2026-11-23T01:00:00Z"),
        &[],
    );
    // A blackout cuts a window off, and closes the next.
    let week = ("2026-11-23T21:00:00Z", "2026-11-25T23:00:00Z");
    let expected = [
        "2026-11-23T21:00:00Z to 2026-11-23T22:00:00Z",
        "2026-11-23T23:45:00Z to 2026-11-25T00:00:00Z",
        "2026-11-25T01:45:00Z to 2026-11-25T22:00:00Z",
    ];
    check(&nights, "", week, &expected);
    // The clock stepped back.
    check(
        &nights,
        "",
        ("2026-11-23T12:00:00Z", "2026-11-22T12:00:00Z"),
        &[],
    );
    check(&strategy(&[], &[]), "", day, &[]);
    let never = strategy(&[("0 0 30 2 *", 60, berlin())], &[]);
    let expected = ["2026-11-22T12:00:00Z to 2026-11-23T12:00:00Z"];
    check(&never, "", day, &expected);
}

#[test]
fn only_what_lies_before_an_offer_was_in_its_way() {
    let at = |hour: i64| Timestamp::from_second(hour * 3_600).unwrap();
    let shut = Shut {
        from: at(2),
        until: at(5),
    };
    for (moment, hours) in [(1, 0), (2, 0), (4, 2), (5, 3), (9, 3)] {
        assert_eq!(shut.before(at(moment)), Duration::from_secs(hours * 3_600));
    }
}
