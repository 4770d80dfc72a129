//! Tables and properties of the next step.

use super::*;
use crate::ledger::{Drift, GivenUp, Intent};
use keyfleet_core::binding::Assignment;
use keyfleet_core::connector::ConnectorSpec;
use keyfleet_core::id::{KeyVersion, Revision};
use proptest::prelude::*;

fn goal(revision: u64, key_version: u64, attempt: u32) -> Goal {
    let assignment = Assignment {
        revision: Revision(revision),
        key_version: KeyVersion(key_version),
    };
    Goal {
        assignment,
        attempt,
    }
}

fn wish(goal: Option<Goal>, drift_policy: DriftPolicy) -> Wish {
    Wish {
        connector_id: uuid::Uuid::nil(),
        spec: Some(ConnectorSpec {
            connector_type: ".gen-ai".to_owned(),
            display_name: "OpenAI".to_owned(),
            config: "{}".to_owned(),
            key: "openai".parse().unwrap(),
            if_supported: Vec::new(),
        }),
        goal,
        drift_policy,
        allowed_hosts: Vec::new(),
        probe_interval: None,
    }
}

fn applied(goal: Goal, agreed: bool, proven: bool) -> Entry {
    let proven_at = proven.then_some(jiff::Timestamp::UNIX_EPOCH);
    let applied = Applied {
        goal,
        fingerprint: String::new(),
        baseline_ok: None,
        n_writes: 1,
        agreed,
        proven_at,
        ever_proven: proven,
    };
    Entry {
        applied: Some(applied),
        ..Entry::default()
    }
}

fn agrees() -> Seen {
    Seen::Ours {
        differences: Vec::new(),
    }
}

fn differs() -> Seen {
    Seen::Ours {
        differences: vec!["name".to_owned()],
    }
}

/// Everything at hand, nothing due.
fn step(wish: &Wish, entry: &Entry, seen: &Seen) -> Step {
    next(&Situation {
        wish,
        entry,
        seen,
        key_here: true,
        andon: false,
        baseline_taken: false,
        probe_due: false,
    })
}

#[test]
fn a_first_install_goes_step_by_step() {
    let g = goal(1, 1, 1);
    let wish = wish(Some(g), DriftPolicy::Correct);
    let begun = Entry {
        intent: Some(Intent {
            goal: g,
            baseline_ok: None,
            n_writes: 1,
        }),
        ..Entry::default()
    };
    let check =
        |entry: &Entry, seen: &Seen, expected: Step| assert_eq!(step(&wish, entry, seen), expected);
    check(&Entry::default(), &Seen::Unknown, Step::Look);
    check(&Entry::default(), &Seen::Absent, Step::Create);
    check(&begun, &Seen::Unknown, Step::Look);
    check(&begun, &Seen::Absent, Step::Create);
    check(&begun, &agrees(), Step::Update);
    check(&applied(g, false, false), &Seen::Unknown, Step::Look);
    check(&applied(g, false, false), &agrees(), Step::Agree);
    check(&applied(g, true, false), &agrees(), Step::Prove);
    check(&applied(g, true, true), &agrees(), Step::Rest);
}

#[test]
fn a_change_is_preceded_by_a_baseline_once() {
    let wish = wish(Some(goal(2, 1, 1)), DriftPolicy::Correct);
    let entry = applied(goal(1, 1, 1), true, true);
    assert_eq!(step(&wish, &entry, &differs()), Step::Baseline);
    let seen = differs();
    let taken = Situation {
        wish: &wish,
        entry: &entry,
        seen: &seen,
        key_here: true,
        andon: false,
        baseline_taken: true,
        probe_due: false,
    };
    assert_eq!(next(&taken), Step::Update);
    assert_eq!(
        next(&Situation {
            key_here: false,
            ..taken
        }),
        Step::AskKey
    );
    assert_eq!(
        next(&Situation {
            andon: true,
            ..taken
        }),
        Step::Hold
    );
    assert_eq!(step(&wish, &entry, &Seen::Absent), Step::Create);
    let broken_by_us = applied(goal(1, 1, 1), true, false);
    assert_eq!(step(&wish, &broken_by_us, &differs()), Step::Update);
    assert_eq!(step(&wish, &Entry::default(), &differs()), Step::Baseline);
}

#[test]
fn drift_follows_the_policy() {
    let g = goal(1, 1, 2);
    let proven = applied(g, true, true);
    let noted = Entry {
        drift: Some(Drift {
            attempt: 2,
            text: "name".to_owned(),
        }),
        ..proven.clone()
    };
    let text = || "name".to_owned();
    for policy in DriftPolicy::ALL {
        assert_eq!(
            step(&wish(Some(g), policy), &proven, &differs()),
            Step::NoteDrift(text())
        );
        let deleted = Step::NoteDrift("the connector was deleted".to_owned());
        assert_eq!(
            step(&wish(Some(g), policy), &proven, &Seen::Absent),
            deleted
        );
    }
    let check = |goal: Goal, policy: DriftPolicy, seen: &Seen, expected: Step| {
        assert_eq!(
            step(&wish(Some(goal), policy), &noted, seen),
            expected,
            "{goal:?} {policy:?}"
        );
    };
    check(g, DriftPolicy::Correct, &differs(), Step::Update);
    check(g, DriftPolicy::Correct, &Seen::Absent, Step::Create);
    check(g, DriftPolicy::Report, &differs(), Step::LeaveDrift(text()));
    check(g, DriftPolicy::Pause, &differs(), Step::LeaveDrift(text()));
    // The definition agrees again, yet nobody knows which key the other writer left there.
    check(g, DriftPolicy::Report, &agrees(), Step::LeaveDrift(text()));
    // Tries are counted per binding: a higher number is an operator's or a rollout's word. Without one, writing
    // stays paused, whatever else is asked for.
    check(goal(1, 1, 3), DriftPolicy::Pause, &differs(), Step::Update);
    check(
        goal(2, 1, 3),
        DriftPolicy::Pause,
        &differs(),
        Step::Baseline,
    );
    check(
        goal(2, 1, 2),
        DriftPolicy::Report,
        &differs(),
        Step::Baseline,
    );
    check(
        goal(2, 1, 2),
        DriftPolicy::Pause,
        &differs(),
        Step::LeaveDrift(text()),
    );
}

#[test]
fn what_failed_waits_for_a_new_try() {
    let failed = |entry: Entry, goal| {
        let given_up = GivenUp {
            goal,
            class: FailureClass::Auth,
            text: "401".to_owned(),
        };
        Entry {
            failure: Some(given_up),
            ..entry
        }
    };
    let entry = failed(applied(goal(1, 1, 1), true, false), goal(1, 1, 1));
    let failure = Failure {
        class: FailureClass::Auth,
        text: "401".to_owned(),
    };
    let same = wish(Some(goal(1, 1, 1)), DriftPolicy::Correct);
    assert_eq!(step(&same, &entry, &agrees()), Step::GiveUp(failure));
    let again = wish(Some(goal(1, 1, 2)), DriftPolicy::Correct);
    assert_eq!(step(&again, &entry, &agrees()), Step::Update);
}

#[test]
fn a_new_try_of_what_is_proven_proves_again_without_a_write() {
    let entry = applied(goal(1, 1, 1), true, true);
    assert_eq!(
        step(
            &wish(Some(goal(1, 1, 2)), DriftPolicy::Correct),
            &entry,
            &agrees()
        ),
        Step::Prove
    );
}

#[test]
fn a_new_try_after_another_assignment_was_or_may_have_been_written_writes_again() {
    let wish = wish(Some(goal(1, 1, 3)), DriftPolicy::Correct);
    let other = goal(2, 1, 2);
    let done = applied(other, true, true);
    assert_eq!(step(&wish, &done, &differs()), Step::Baseline);
    let begun = Entry {
        intent: Some(Intent {
            goal: other,
            baseline_ok: None,
            n_writes: 1,
        }),
        ..applied(goal(1, 1, 1), true, true)
    };
    assert_eq!(step(&wish, &begun, &agrees()), Step::Update);
}

#[test]
fn writes_that_do_not_stay_are_given_up() {
    let g = goal(1, 1, 1);
    let mut entry = applied(g, false, false);
    let wish = wish(Some(g), DriftPolicy::Correct);
    assert_eq!(step(&wish, &entry, &differs()), Step::Update);
    entry.applied.as_mut().unwrap().n_writes = WRITES_MAX;
    assert!(matches!(step(&wish, &entry, &differs()), Step::GiveUp(_)));
}

#[test]
fn removal_ends_with_absence() {
    let wish = wish(None, DriftPolicy::Correct);
    let entry = applied(goal(1, 1, 1), true, true);
    assert_eq!(step(&wish, &entry, &Seen::Unknown), Step::Look);
    assert_eq!(step(&wish, &entry, &differs()), Step::Delete);
    assert_eq!(step(&wish, &entry, &Seen::Absent), Step::Removed);
    assert!(matches!(
        step(&wish, &entry, &Seen::Foreign("x".to_owned())),
        Step::GiveUp(_)
    ));
}

fn any_goal() -> impl Strategy<Value = Goal> {
    (1..3_u64, 1..3_u64, 1..3_u32).prop_map(|(revision, key, attempt)| goal(revision, key, attempt))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let intent = proptest::option::of(any_goal().prop_map(|goal| Intent {
        goal,
        baseline_ok: None,
        n_writes: 1,
    }));
    let written = proptest::option::of((any_goal(), any::<bool>(), any::<bool>()));
    let drift = proptest::option::of((1..3_u32).prop_map(|attempt| Drift {
        attempt,
        text: "d".to_owned(),
    }));
    (intent, written, drift).prop_map(|(intent, written, drift)| {
        let entry = written.map_or_else(Entry::default, |(goal, agreed, proven)| {
            applied(goal, agreed, proven)
        });
        Entry {
            intent,
            drift,
            ..entry
        }
    })
}

fn any_seen() -> impl Strategy<Value = Seen> {
    prop_oneof![
        Just(Seen::Unknown),
        Just(Seen::Absent),
        Just(agrees()),
        Just(differs()),
        Just(Seen::Foreign("f".to_owned()))
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_written_blindly_unasked_or_against_the_stop(
        goal in proptest::option::of(any_goal()),
        entry in any_entry(),
        seen in any_seen(),
        flags in any::<[bool; 4]>(),
    ) {
        let [key_here, andon, baseline_taken, probe_due] = flags;
        let wish = wish(goal, DriftPolicy::Correct);
        let step = next(&Situation { wish: &wish, entry: &entry, seen: &seen, key_here, andon, baseline_taken, probe_due });
        let writes = matches!(step, Step::Create | Step::Update | Step::Delete);
        prop_assert!(!writes || !andon);
        prop_assert!(!matches!(step, Step::Create | Step::Update) || key_here);
        prop_assert!(step != Step::Create || seen == Seen::Absent);
        let ours = matches!(seen, Seen::Ours { .. });
        prop_assert!(step != Step::Update || ours);
        prop_assert!(step != Step::Delete || goal.is_none());
        // What is proven and unchanged is left alone.
        let proven = goal.is_some_and(|goal| entry.is_proven(goal));
        prop_assert!(!(proven && seen == agrees()) || matches!(step, Step::Rest | Step::Prove));
        prop_assert!(!(proven && seen == agrees() && !probe_due) || step == Step::Rest);
    }
}
