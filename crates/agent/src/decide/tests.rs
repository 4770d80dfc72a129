//! Tables and properties of the next step.

use super::*;
use crate::ledger::{Drift, GivenUp, Intent};
use keyfleet_core::binding::Assignment;
use keyfleet_core::connector::{ConnectorSpec, Probe};
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
        connector_id: String::new(),
        adopted: false,
        spec: Some(ConnectorSpec {
            connector_type: ".gen-ai".to_owned(),
            display_name: "OpenAI".to_owned(),
            config: "{}".to_owned(),
            key: "openai".parse().unwrap(),
            if_supported: Vec::new(),
            probe: Probe::default(),
            replaces: None,
        }),
        goal,
        drift_policy,
        allowed_hosts: Vec::new(),
        probe_interval: None,
        key_parts: Vec::new(),
        after: None,
        references_agreed: 0,
        task: None,
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
        version: None,
        rung: None,
        note: None,
        repaired: false,
    };
    Entry {
        applied: Some(applied),
        ..Entry::default()
    }
}

fn agrees() -> Seen {
    Seen::Ours {
        differences: Vec::new(),
        news: Vec::new(),
    }
}

fn differs() -> Seen {
    Seen::Ours {
        differences: vec!["name".to_owned()],
        news: Vec::new(),
    }
}

/// Kibana was upgraded and knows a field that was left out.
fn upgraded() -> Seen {
    Seen::Ours {
        differences: Vec::new(),
        news: vec!["config.temperature".to_owned()],
    }
}

fn drift(attempt: u32, is_fight: bool) -> Drift {
    Drift {
        attempt,
        text: "name".to_owned(),
        class: FailureClass::Conflict,
        is_fight,
    }
}

fn left() -> Step {
    Step::LeaveDrift(conflict("name"))
}

/// Everything at hand, nothing due.
fn situation<'a>(wish: &'a Wish, entry: &'a Entry, seen: &'a Seen) -> Situation<'a> {
    Situation {
        wish,
        entry,
        seen,
        key_here: true,
        andon: false,
        baseline_taken: false,
        probe_due: false,
        successor_proven: false,
        now: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn step(wish: &Wish, entry: &Entry, seen: &Seen) -> Step {
    next(&situation(wish, entry, seen))
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
            unsure: false,
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
        baseline_taken: true,
        ..situation(&wish, &entry, &seen)
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
        drift: Some(drift(2, false)),
        ..proven.clone()
    };
    for policy in DriftPolicy::ALL {
        assert_eq!(
            step(&wish(Some(g), policy), &proven, &differs()),
            Step::NoteDrift(drift(2, false))
        );
        let deleted = Step::NoteDrift(Drift {
            text: "the connector was deleted".to_owned(),
            ..drift(2, false)
        });
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
    check(g, DriftPolicy::Report, &differs(), left());
    check(g, DriftPolicy::Pause, &differs(), left());
    // The definition agrees again, yet nobody knows which key the other writer left there.
    check(g, DriftPolicy::Report, &agrees(), left());
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
    check(goal(2, 1, 2), DriftPolicy::Pause, &differs(), left());
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
            unsure: false,
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
        step(&wish, &entry, &Seen::Foreign(conflict("x"))),
        Step::GiveUp(_)
    ));
}

#[test]
fn an_upgrade_is_our_own_change_and_no_drift() {
    let g = goal(1, 1, 1);
    let proven = applied(g, true, true);
    for policy in DriftPolicy::ALL {
        let wish = wish(Some(g), policy);
        assert_eq!(step(&wish, &proven, &upgraded()), Step::Update);
        let both = Seen::Ours {
            differences: vec!["name".to_owned()],
            news: vec!["config.temperature".to_owned()],
        };
        assert_eq!(
            step(&wish, &proven, &both),
            Step::NoteDrift(drift(1, false)),
            "somebody's change comes first"
        );
    }
}

#[test]
fn a_fight_is_left_alone_until_a_new_try() {
    let g = goal(1, 1, 2);
    let mut entry = applied(g, true, true);
    let correct = wish(Some(g), DriftPolicy::Correct);
    let report = wish(Some(g), DriftPolicy::Report);
    entry.corrections = vec![jiff::Timestamp::UNIX_EPOCH; 2];
    assert_eq!(
        step(&correct, &entry, &differs()),
        Step::NoteDrift(drift(2, false))
    );
    entry.corrections = vec![jiff::Timestamp::UNIX_EPOCH; 3];
    let Step::NoteDrift(fight) = step(&correct, &entry, &differs()) else {
        panic!("it is a fight");
    };
    assert!(fight.is_fight && fight.text.contains("name"), "{fight:?}");
    assert_eq!(
        step(&report, &entry, &differs()),
        Step::NoteDrift(drift(2, false)),
        "nobody fights who does not correct"
    );
    entry.drift = Some(drift(2, true));
    assert_eq!(step(&correct, &entry, &differs()), left());
    assert_eq!(step(&correct, &entry, &agrees()), left());
    let again = |goal| wish(Some(goal), DriftPolicy::Correct);
    let retried = again(goal(1, 1, 3));
    assert_eq!(step(&retried, &entry, &differs()), Step::Update);
    let newer = again(goal(2, 1, 3));
    assert_eq!(step(&newer, &entry, &differs()), Step::Baseline);
}

#[test]
fn unreadable_secrets_follow_the_policy() {
    let g = goal(1, 1, 1);
    let unreadable = Drift {
        class: FailureClass::Encryption,
        ..drift(1, false)
    };
    let entry = Entry {
        drift: Some(unreadable.clone()),
        ..applied(g, true, false)
    };
    let check =
        |policy, expected| assert_eq!(step(&wish(Some(g), policy), &entry, &agrees()), expected);
    check(DriftPolicy::Correct, Step::Update);
    check(DriftPolicy::Report, Step::LeaveDrift(unreadable.failure()));
    check(DriftPolicy::Pause, Step::LeaveDrift(unreadable.failure()));
}

#[test]
fn a_removal_waits_for_its_successor() {
    let older = Wish {
        after: Some("newer".parse().unwrap()),
        ..wish(None, DriftPolicy::Correct)
    };
    let entry = applied(goal(1, 1, 1), true, true);
    let seen = agrees();
    let waits = situation(&older, &entry, &seen);
    let stay = Step::Stay("stays until newer is proven here".to_owned());
    assert_eq!(next(&waits), stay);
    let proven = Situation {
        successor_proven: true,
        ..waits
    };
    assert_eq!(next(&proven), Step::Delete);
    let stopped = Situation {
        andon: true,
        ..proven
    };
    assert_eq!(next(&stopped), Step::Hold);
    assert_eq!(step(&older, &entry, &Seen::Absent), Step::Removed);
}

#[test]
fn what_was_there_before_us_is_taken_over_and_only_then_removed() {
    let adopted = |goal| Wish {
        connector_id: "assistant-1".to_owned(),
        adopted: true,
        ..wish(goal, DriftPolicy::Correct)
    };
    let ours = Entry {
        adopted: Some("assistant-1".to_owned()),
        ..applied(goal(1, 1, 1), true, true)
    };
    let another = Entry {
        adopted: Some("assistant-2".to_owned()),
        ..ours.clone()
    };
    let never = Entry::default();
    let new = adopted(Some(goal(1, 1, 1)));
    assert_eq!(step(&new, &never, &differs()), Step::Baseline);
    assert!(matches!(step(&new, &never, &Seen::Absent), Step::GiveUp(_)));
    assert!(matches!(
        step(&new, &ours, &Seen::Absent),
        Step::NoteDrift(_)
    ));
    let gone = adopted(None);
    assert_eq!(step(&gone, &ours, &agrees()), Step::Delete);
    assert!(matches!(step(&gone, &never, &agrees()), Step::GiveUp(_)));
    assert!(matches!(step(&gone, &another, &agrees()), Step::GiveUp(_)));
    assert_eq!(step(&gone, &never, &Seen::Absent), Step::Removed);
}

fn any_goal() -> impl Strategy<Value = Goal> {
    (1..3_u64, 1..3_u64, 1..3_u32).prop_map(|(revision, key, attempt)| goal(revision, key, attempt))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let intent = proptest::option::of(any_goal().prop_map(|goal| Intent {
        goal,
        baseline_ok: None,
        n_writes: 1,
        unsure: false,
    }));
    let written = proptest::option::of((any_goal(), any::<bool>(), any::<bool>()));
    let drift = proptest::option::of(
        (1..3_u32, any::<bool>()).prop_map(|(attempt, is_fight)| drift(attempt, is_fight)),
    );
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
        Just(upgraded()),
        Just(Seen::Foreign(conflict("f")))
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_written_blindly_unasked_or_against_the_stop(
        goal in proptest::option::of(any_goal()),
        entry in any_entry(),
        seen in any_seen(),
        flags in any::<[bool; 7]>(),
    ) {
        let [key_here, andon, baseline_taken, probe_due, successor_proven, adopted, waits] = flags;
        let after = waits.then(|| "newer".parse().unwrap());
        let wish = Wish { adopted, after, ..wish(goal, DriftPolicy::Correct) };
        let step = next(&Situation { key_here, andon, baseline_taken, probe_due, successor_proven, ..situation(&wish, &entry, &seen) });
        let writes = matches!(step, Step::Create | Step::Update | Step::Delete);
        prop_assert!(!writes || !andon);
        prop_assert!(!matches!(step, Step::Create | Step::Update) || key_here);
        prop_assert!(step != Step::Create || seen == Seen::Absent);
        let ours = matches!(seen, Seen::Ours { .. });
        prop_assert!(step != Step::Update || ours);
        prop_assert!(step != Step::Delete || goal.is_none());
        // Nothing goes before its successor is proven, nor what was there before us and was never ours.
        prop_assert!(step != Step::Delete || (!waits || successor_proven) && !adopted);
        // Somebody who fights is left alone until a new try.
        let fought = |drift: &Drift, goal: Goal| drift.is_fight && goal.attempt <= drift.attempt && entry.running() == Some(goal.assignment);
        let same = entry.adopted.as_deref() == wish.adopted_id();
        let fights = same && entry.intent.is_none() && entry.drift.as_ref().zip(goal).is_some_and(|(drift, goal)| fought(drift, goal));
        prop_assert!(!(writes && fights));
        // What is proven and unchanged is left alone.
        let proven = same && goal.is_some_and(|goal| entry.is_proven(goal));
        prop_assert!(!(proven && seen == agrees()) || matches!(step, Step::Rest | Step::Prove));
        prop_assert!(!(proven && seen == agrees() && !probe_due) || step == Step::Rest);
    }
}

#[test]
fn a_proof_of_one_connector_is_none_of_another() {
    let g = goal(1, 1, 1);
    let mut wish = wish(Some(g), DriftPolicy::Correct);
    (wish.adopted, wish.connector_id) = (true, "theirs".to_owned());
    let mut entry = applied(g, true, true);
    entry.adopted = Some("theirs".to_owned());
    assert_eq!(step(&wish, &entry, &agrees()), Step::Rest);
    entry.adopted = Some("another".to_owned());
    assert_eq!(step(&wish, &entry, &agrees()), Step::Update);
    entry.adopted = None;
    assert_eq!(step(&wish, &entry, &agrees()), Step::Update);
}

#[test]
fn what_was_removed_by_the_agent_itself_is_made_again_whatever_the_policy() {
    let g = goal(1, 1, 1);
    for policy in [
        DriftPolicy::Correct,
        DriftPolicy::Report,
        DriftPolicy::Pause,
    ] {
        let wish = wish(Some(g), policy);
        let mut entry = applied(g, true, true);
        entry.removing = true;
        assert_eq!(step(&wish, &entry, &Seen::Absent), Step::Create);
        assert_eq!(step(&wish, &entry, &agrees()), Step::Rest, "it was not");
    }
}

#[test]
fn what_would_move_elsewhere_is_refused_and_stays() {
    let g = goal(1, 1, 1);
    let mut wish = wish(Some(goal(2, 1, 1)), DriftPolicy::Correct);
    wish.task = Some("completion".to_owned());
    let entry = applied(g, true, true);
    for seen in [Seen::Unknown, Seen::Absent, agrees()] {
        let Step::GiveUp(failure) = step(&wish, &entry, &seen) else {
            panic!("{seen:?}");
        };
        assert_eq!(failure.class, FailureClass::Rejected);
    }
    let first = Entry::default();
    assert_eq!(step(&wish, &first, &Seen::Absent), Step::Create);
}
