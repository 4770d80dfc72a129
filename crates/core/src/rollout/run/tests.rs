//! What events do to a run beside its phase: times and reasons.

use super::*;
use crate::rollout::strategy::Action;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// A run in its first wave, after these events, each with its number as time and sentence.
fn after(events: &[Event]) -> Run {
    let mut run = Run::new("ada", at(0));
    let start = [Event::Started, Event::WaveStarted(0)];
    for (number, event) in (0..).zip(start.iter().chain(events)) {
        run.happen(*event, &number.to_string(), at(number)).unwrap();
    }
    run
}

#[test]
fn an_approval_leaves_the_time_of_the_running_wave_alone() {
    let check = |verb: Verb, expected: i64| {
        let run = after(&[Event::WaveStarted(1), Event::Verb(verb)]);
        assert_eq!(run.wave_started_at, at(expected), "{verb:?}");
    };
    check(Verb::Approve, 2);
    check(Verb::FastForward, 2);
    check(Verb::Pause, 2);
    check(Verb::Resume, 3);
    check(Verb::Retry, 3);
}

#[test]
fn a_pause_by_an_operator_has_a_time() {
    let verb = Event::Verb;
    let check = |events: &[Event], expected: Option<i64>| {
        assert_eq!(after(events).paused_at, expected.map(at), "{events:?}");
    };
    check(&[], None);
    check(&[verb(Verb::Pause)], Some(2));
    // Said again it is the same pause.
    check(&[verb(Verb::Pause), verb(Verb::Pause)], Some(2));
    check(&[verb(Verb::Pause), verb(Verb::Resume)], None);
    check(&[verb(Verb::Pause), verb(Verb::Rollback)], None);
    // Where Keyfleet holds it, whoever says `resume` looks at why.
    check(&[Event::BudgetSpent(Action::Pause)], None);
    check(&[Event::GateInconclusive, verb(Verb::Pause)], None);
    check(&[Event::WaveOverdue, verb(Verb::Pause)], None);
    check(&[verb(Verb::Rollback), verb(Verb::Pause)], None);
}

#[test]
fn why_it_goes_back_is_said_to_the_end() {
    let verb = Event::Verb;
    let check = |events: &[Event], expected: &str| {
        assert_eq!(after(events).hold_reason, expected, "{events:?}");
    };
    let (back, failed) = (verb(Verb::Rollback), Event::RollbackFailed);
    check(&[back], "2");
    check(&[back, Event::RollbackFinished], "2; 3");
    check(
        &[
            Event::BudgetSpent(Action::Rollback),
            Event::RollbackFinished,
        ],
        "2; 3",
    );
    check(&[verb(Verb::Pause), back, Event::RollbackFinished], "3; 4");
    check(&[back, failed], "3");
    check(&[back, verb(Verb::Pause)], "3");
    for on in [Verb::Retry, Verb::Resume, Verb::Rollback] {
        check(&[back, failed, verb(on)], "2");
        check(&[back, failed, verb(on), Event::RollbackFinished], "2; 5");
    }
    let paused = [back, verb(Verb::Pause), verb(Verb::Resume)];
    check(&[&paused[..], &[Event::RollbackFinished]].concat(), "2; 5");
    check(&[back, verb(Verb::Abort)], "3");
}
