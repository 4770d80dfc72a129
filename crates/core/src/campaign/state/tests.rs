//! The table of states walked to its ends: every course, every event, every verb.

use std::collections::BTreeSet;

use super::*;

const EVENTS: [Event; 23] = [
    Event::MintBegan,
    Event::VersionFound,
    Event::LeakRevokeBegan,
    Event::Minted,
    Event::Validated,
    Event::Converged,
    Event::DrainBegan,
    Event::Drained,
    Event::Overtaken,
    Event::DrainLost,
    Event::RevokeBegan,
    Event::Revoked,
    Event::Dead,
    Event::Failed,
    Event::GivenUp,
    Event::RolloutWentBack,
    Event::BackEverywhere,
    Event::NothingToRevoke,
    Event::Verb(Verb::Pause),
    Event::Verb(Verb::Resume),
    Event::Verb(Verb::Rollback),
    Event::Verb(Verb::Approve),
    Event::Verb(Verb::Confirm),
];

/// A campaign as its row has it.
type At = (State, Course, Option<State>);

/// The row after an event: who halts remembers where.
fn after((state, course, stopped): At, event: Event) -> Option<At> {
    let (next, course) = state.next(course, stopped, event).ok()?;
    let stopped = match (state, next) {
        (State::Halted, State::Halted) => stopped,
        (from, State::Halted) => Some(from),
        _ => None,
    };
    Some((next, course, stopped))
}

/// Everything that can be reached from the two ways to begin, with how.
fn steps() -> BTreeSet<(At, At)> {
    let begin = |course| (State::Planned, course, None);
    let mut open = vec![begin(Course::Forward), begin(Course::RevokeFirst)];
    let (mut seen, mut steps): (BTreeSet<At>, _) =
        (open.iter().copied().collect(), BTreeSet::new());
    while let Some(at) = open.pop() {
        for next in EVENTS.iter().filter_map(|event| after(at, *event)) {
            steps.insert((at, next));
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    steps
}

fn walk(course: Course, events: &[Event]) -> (State, Course) {
    let mut at = (State::Planned, course, None);
    for event in events {
        at = after(at, *event).unwrap_or_else(|| panic!("{event} in {at:?}"));
    }
    (at.0, at.1)
}

#[test]
fn every_state_course_and_verb_has_one_name() {
    for state in State::ALL {
        assert_eq!(State::parse(state.as_str()), Some(state));
    }
    for course in Course::ALL {
        assert_eq!(Course::parse(course.as_str()), Some(course));
    }
    for verb in Verb::ALL {
        assert_eq!(Verb::parse(verb.as_str()), Some(verb));
    }
}

#[test]
fn each_way_through_ends_where_it_should() {
    use Event::*;
    let death = [Drained, RevokeBegan, Revoked, Dead];
    let check = |course, events: &[&[Event]], end| {
        assert_eq!(walk(course, &events.concat()).0, end, "{events:?}");
    };
    let bring = [Validated, Converged, DrainBegan];
    check(
        Course::Forward,
        &[&[MintBegan, Minted], &bring, &death],
        State::Closed,
    );
    check(
        Course::Forward,
        &[&[VersionFound], &bring, &death],
        State::Closed,
    );
    let back = [
        MintBegan,
        Minted,
        Validated,
        RolloutWentBack,
        BackEverywhere,
    ];
    check(Course::Forward, &[&back, &death], State::RolledBack);
    check(
        Course::Forward,
        &[&back, &[NothingToRevoke]],
        State::RolledBack,
    );
    check(
        Course::Forward,
        &[&[MintBegan, Minted, GivenUp], &death],
        State::Cancelled,
    );
    let first = [LeakRevokeBegan, Revoked, Dead, Minted, Validated, Converged];
    check(Course::RevokeFirst, &[&first], State::Closed);
}

#[test]
fn whatever_happened_there_is_a_way_to_an_end() {
    let steps = steps();
    let mut ending: BTreeSet<At> = steps
        .iter()
        .flat_map(|(from, to)| [*from, *to])
        .filter(|at| at.0.is_terminal())
        .collect();
    loop {
        let more: Vec<At> = steps
            .iter()
            .filter(|(from, to)| ending.contains(to) && !ending.contains(from))
            .map(|(from, _)| *from)
            .collect();
        if more.is_empty() {
            break;
        }
        ending.extend(more);
    }
    for (from, _) in &steps {
        assert!(ending.contains(from), "no end from {from:?}");
    }
    let reached: BTreeSet<State> = steps.iter().map(|(_, to)| to.0).collect();
    let all = State::ALL.into_iter().filter(|s| *s != State::Planned);
    assert!(all.into_iter().all(|state| reached.contains(&state)));
}

#[test]
fn from_a_revocation_nothing_leads_back() {
    for (from, to) in steps() {
        if from.1 == Course::Forward && from.0.is_past_return() {
            assert!(to.0.is_past_return(), "{from:?} to {to:?}");
            assert_eq!(to.1, Course::Forward);
        }
        // What dies is settled for good once it is being revoked.
        if from.0.is_past_return() && !from.0.is_terminal() {
            assert_eq!(from.1, to.1);
        }
        assert!(!from.0.is_terminal(), "{from:?} is an end");
    }
}

#[test]
fn nothing_is_revoked_that_was_not_ready() {
    for (from, to) in steps() {
        if to.0 == State::Revoking && from.0 != State::Revoking {
            let is_leak = from.0 == State::Planned && from.1 == Course::RevokeFirst;
            assert!(from.0 == State::RevokeReady || is_leak, "{from:?}");
        }
    }
}

#[test]
fn a_verb_said_twice_is_said_once() {
    for (at, _) in steps() {
        for verb in Verb::ALL {
            let Some(once) = after(at, Event::Verb(verb)) else {
                continue;
            };
            if once.0.is_terminal() {
                continue;
            }
            assert_eq!(
                after(once, Event::Verb(verb)),
                Some(once),
                "{verb:?} in {at:?}"
            );
        }
    }
}

#[test]
fn a_newer_version_takes_over_until_something_is_being_revoked() {
    let over = |state: State, course, stopped| state.next(course, stopped, Event::Overtaken).ok();
    for course in Course::ALL {
        for state in State::ALL {
            let to = over(state, course, Some(State::Rolling)).map(|to| to.0);
            let expected = match state {
                _ if course.kills_the_new() => None,
                State::Planned => Some(State::Planned),
                State::Validating
                | State::Rolling
                | State::Converged
                | State::Draining
                | State::RevokeReady
                | State::Halted => Some(State::Validating),
                State::Minting
                | State::Revoking
                | State::VerifyingDead
                | State::Closed
                | State::RollingBack
                | State::RolledBack
                | State::Cancelled => None,
            };
            assert_eq!(to, expected, "{state} {course:?}");
        }
    }
    assert_eq!(
        over(State::Halted, Course::Forward, Some(State::Planned)),
        None
    );
}

#[test]
fn without_a_key_to_go_back_to_only_a_person_helps() {
    use Event::*;
    let minted = [LeakRevokeBegan, Revoked, Dead, Minted];
    let refused = walk(Course::RevokeFirst, &[&minted[..], &[GivenUp]].concat());
    assert_eq!(refused, (State::Halted, Course::RevokeFirst));
    let failed = walk(
        Course::RevokeFirst,
        &[&minted[..], &[Validated, RolloutWentBack]].concat(),
    );
    assert_eq!(failed, (State::Halted, Course::RevokeFirst));
    let back = failed
        .0
        .next(failed.1, Some(State::Rolling), Verb(super::Verb::Rollback));
    assert_eq!(
        back.unwrap_err().to_string(),
        "a campaign that is HALTED does not take rollback"
    );
}
