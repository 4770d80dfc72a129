//! Each state with what lets it go on, and what holds it.

use super::*;
use crate::Timestamp;
use crate::campaign::Verb;

const OLD: KeyVersion = KeyVersion(1);
const NEW: KeyVersion = KeyVersion(2);

fn campaign(state: State, course: Course) -> Campaign {
    Campaign {
        state,
        stopped: None,
        course,
        old: Some(OLD),
        new: Some(NEW),
        overtaken: BTreeSet::new(),
        reason: String::new(),
    }
}

fn case(version: KeyVersion) -> Case {
    Case {
        now: Timestamp::UNIX_EPOCH,
        version,
        holders: Vec::new(),
        users: Vec::new(),
        evidence_secs: None,
        seen: None,
        rollback_until: None,
        approvals: 0,
        approvals_needed: 0,
        is_fenced: false,
    }
}

/// Nobody stands in the way of the version that dies, and `approvals` of 1 have agreed.
fn quiet(version: KeyVersion, approvals: u32) -> Found {
    Found {
        users: 2,
        proven: 2,
        cases: vec![Case {
            approvals,
            approvals_needed: 1,
            ..case(version)
        }],
        ..Found::default()
    }
}

/// A rollback may need the old one.
fn promised() -> Found {
    let until = Timestamp::from_second(60).unwrap();
    let mut found = quiet(OLD, 1);
    found.cases[0].rollback_until = Some(until);
    found
}

fn tried(version: KeyVersion, trial: Trial) -> Found {
    Found {
        trials: BTreeMap::from([(version, trial)]),
        ..quiet(version, 1)
    }
}

fn in_state(new_state: KeyState) -> Found {
    Found {
        new_state: Some(new_state),
        users: 2,
        ..Found::default()
    }
}

fn event(state: State, course: Course, found: &Found) -> Option<Event> {
    match step(&campaign(state, course), found) {
        Step::Go(event, why) => {
            assert!(!why.is_empty());
            Some(event)
        }
        Step::Try(_) | Step::Wait(_) => None,
    }
}

fn newest(version: u64) -> Found {
    Found {
        newest: Some(KeyVersion(version)),
        ..Found::default()
    }
}

fn unknown() -> Trial {
    Trial::Unknown("no way out".to_owned())
}

fn unfit() -> Trial {
    Trial::Unfit("no such model".to_owned())
}

/// What comes of it, and nothing while the fleet is stopped.
fn check(state: State, course: Course, found: Found, expected: Option<Event>) {
    let went = event(state, course, &found);
    assert_eq!(went, expected, "{state} {course:?} {found:?}");
    if let Some(event) = went {
        assert!(state.next(course, None, event).is_ok(), "{state} {event}");
    }
    let stopped = Found {
        is_andon: true,
        ..found
    };
    assert_eq!(event(state, course, &stopped), None, "andon");
}

#[test]
fn a_version_is_tried_before_anybody_gets_it() {
    let go = |state, found, event| check(state, Course::Forward, found, event);
    let planned = Some(Event::VersionFound);
    go(State::Planned, Found::default(), planned);
    let leak = Some(Event::LeakRevokeBegan);
    check(State::Planned, Course::RevokeFirst, Found::default(), leak);
    go(State::Minting, newest(2), None);
    go(State::Minting, newest(3), Some(Event::Minted));
    go(State::Validating, Found::default(), None);
    for (trial, event) in [
        (Trial::Works, Event::Validated),
        (unknown(), Event::Validated),
        (unfit(), Event::Failed),
        (Trial::Refused(1), Event::GivenUp),
    ] {
        go(State::Validating, tried(NEW, trial), Some(event));
    }
}

#[test]
fn a_rollout_says_how_it_went() {
    let go = |state, found, event| check(state, Course::Forward, found, event);
    go(State::Rolling, in_state(KeyState::Pending), None);
    let current = in_state(KeyState::Current);
    go(State::Rolling, current, Some(Event::Converged));
    let abandoned = in_state(KeyState::Abandoned);
    go(State::Rolling, abandoned, Some(Event::RolloutWentBack));
    let back = Some(Event::BackEverywhere);
    check(State::RollingBack, Course::Back, quiet(NEW, 0), back);
    let drain = Some(Event::DrainBegan);
    go(State::Converged, Found::default(), drain);
    // Nobody uses the Key: there is nothing to wait for.
    let unused = Found {
        new_state: Some(KeyState::Pending),
        ..Found::default()
    };
    go(State::Rolling, unused, Some(Event::Converged));
    go(State::Rolling, Found::default(), Some(Event::Failed));
}

#[test]
fn an_old_version_dies_when_nothing_needs_it() {
    let go = |state, found, event| check(state, Course::Forward, found, event);
    go(State::Draining, promised(), None);
    go(State::Draining, quiet(OLD, 0), Some(Event::Drained));
    let nothing = Some(Event::NothingToRevoke);
    check(State::Draining, Course::Cancel, quiet(NEW, 0), nothing);
    go(State::RevokeReady, promised(), Some(Event::DrainLost));
    go(State::RevokeReady, quiet(OLD, 0), None);
    go(State::RevokeReady, quiet(OLD, 1), Some(Event::RevokeBegan));
    go(State::Revoking, quiet(OLD, 1), None);
    for (trial, event) in [
        (Trial::Refused(2), None),
        (Trial::Refused(3), Some(Event::Dead)),
        (Trial::Works, None),
        (unfit(), None),
        (unknown(), Some(Event::Dead)),
    ] {
        go(State::VerifyingDead, tried(OLD, trial), event);
    }
    go(State::Halted, quiet(OLD, 1), None);
    go(State::Closed, quiet(OLD, 1), None);
}

#[test]
fn nothing_waits_without_a_sentence() {
    for state in State::ALL {
        for course in Course::ALL {
            for found in [
                Found::default(),
                promised(),
                quiet(OLD, 0),
                in_state(KeyState::Pending),
            ] {
                let campaign = campaign(state, course);
                if matches!(step(&campaign, &found), Step::Go(..)) || state.is_terminal() {
                    continue;
                }
                let waits = trial_waits(&campaign, &found);
                assert!(!waits.is_empty(), "{state} {course:?}");
                for wait in waits {
                    assert!(wait.sentence(|_| None).len() > 10, "{wait:?}");
                }
            }
        }
    }
}

#[test]
fn a_death_that_nobody_can_check_is_called_so() {
    let found = tried(OLD, Trial::Unknown("no way out".to_owned()));
    let Step::Go(Event::Dead, why) = step(&campaign(State::VerifyingDead, Course::Forward), &found)
    else {
        panic!("it ends");
    };
    assert!(
        why.contains("not verified") && why.contains("v1: no way out"),
        "{why}"
    );
}

#[test]
fn before_the_key_is_revoked_by_hand_the_fence_must_hold() {
    let mut found = quiet(OLD, 1);
    found.cases[0].holders = vec![crate::binding::BindingId {
        deployment: crate::id::DeploymentId::new(uuid::Uuid::nil()),
        space: "default".parse().unwrap(),
        connector: "assistant".parse().unwrap(),
    }];
    let waits = |course| trial_waits(&campaign(State::Revoking, course), &found);
    assert!(matches!(
        waits(Course::Forward)[..],
        [Wait::Blocked(OLD, Blocker::Held(_))]
    ));
    // In leak mode nobody is waited for.
    assert!(matches!(
        waits(Course::RevokeFirst)[..],
        [Wait::RevokeByHand(_)]
    ));
    assert!(
        State::Revoking
            .next(Course::Forward, None, Event::Verb(Verb::Confirm))
            .is_ok()
    );
}

#[test]
fn what_is_overtaken_dies_with_the_rest() {
    let mut it = campaign(State::Rolling, Course::Forward);
    it.overtake(KeyVersion(3), false);
    assert_eq!((it.old, it.new), (Some(OLD), Some(KeyVersion(3))));
    assert_eq!(list(&it.dying()), "v1 and v2");
    it.overtake(KeyVersion(4), true);
    assert_eq!((it.old, it.new), (Some(KeyVersion(3)), Some(KeyVersion(4))));
    assert_eq!(list(&it.dying()), "v1 and v2 and v3");
    it.course = Course::Back;
    assert_eq!(list(&it.dying()), "v1 and v2 and v4");
    assert_eq!(it.lives(), Some(KeyVersion(3)));
    let mut empty = Campaign {
        new: None,
        ..campaign(State::Planned, Course::Forward)
    };
    empty.overtake(NEW, false);
    assert_eq!(list(&empty.dying()), "v1");
}
