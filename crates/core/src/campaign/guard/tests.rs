//! The guard in tables, and properties that no case may break.

use uuid::Uuid;

use super::*;
use crate::id::{DeploymentId, Revision};

const OLD: KeyVersion = KeyVersion(1);
const NEW: KeyVersion = KeyVersion(2);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn binding(number: u128) -> BindingId {
    BindingId {
        deployment: DeploymentId::new(Uuid::from_u128(number)),
        space: "default".parse().unwrap(),
        connector: "assistant".parse().unwrap(),
    }
}

fn enrolment(number: u128) -> EnrolmentId {
    EnrolmentId::new(Uuid::from_u128(number))
}

fn assignment(revision: u64, key_version: KeyVersion) -> Assignment {
    Assignment {
        revision: Revision(revision),
        key_version,
    }
}

/// A connected binding that proved the new version at 900.
fn user(number: u128) -> User {
    let runs = assignment(1, NEW);
    User {
        id: binding(number),
        is_online: true,
        is_unheard: false,
        told: Some(NEW),
        running: Some(runs),
        enrolment: enrolment(1),
        evidence: Some(Proof {
            assignment: runs,
            enrolment: enrolment(1),
            at: at(900),
        }),
        confirmed_fence: true,
    }
}

/// Nothing is in the way.
fn case() -> Case {
    Case {
        now: at(1_000),
        version: OLD,
        holders: Vec::new(),
        users: vec![user(1), user(2)],
        evidence_secs: Some(100),
        seen: Some(Seen {
            since: at(500),
            last_use: Some(at(499)),
            covered_until: at(800),
            quiet_secs: 300,
        }),
        rollback_until: Some(at(1_000)),
        approvals: 2,
        approvals_needed: 2,
        is_fenced: true,
    }
}

#[test]
fn nothing_in_the_way_lets_it_go() {
    assert_eq!(blockers(&case()), []);
}

#[test]
fn each_condition_alone_holds_it() {
    let check = |change: fn(&mut Case), expected: Blocker| {
        let mut case = case();
        change(&mut case);
        assert_eq!(blockers(&case), [expected]);
    };
    let second = || vec![binding(2)];
    check(
        |c| c.holders.push(binding(9)),
        Blocker::Held(vec![binding(9)]),
    );
    check(|c| c.users[1].told = Some(OLD), Blocker::Named(second()));
    check(|c| c.users[1].is_unheard = true, Blocker::Unheard(second()));
    check(|c| c.users[1].evidence = None, Blocker::Unproven(second()));
    check(|c| c.users[1].running = None, Blocker::Unproven(second()));
    // Evidence of another revision, of an agent before it was enrolled anew, with the version that is to die.
    check(
        |c| c.users[1].running = Some(assignment(2, NEW)),
        Blocker::Unproven(second()),
    );
    check(
        |c| c.users[1].enrolment = enrolment(2),
        Blocker::Unproven(second()),
    );
    check(
        |c| {
            let old = assignment(1, OLD);
            c.users[1].running = Some(old);
            c.users[1].evidence.as_mut().unwrap().assignment = old;
        },
        Blocker::Unproven(second()),
    );
    check(
        |c| c.users[1].evidence.as_mut().unwrap().at = at(899),
        Blocker::Stale(second(), 100),
    );
    check(
        |c| c.users[1].confirmed_fence = false,
        Blocker::FenceUnconfirmed(second()),
    );
    check(
        |c| c.seen.as_mut().unwrap().last_use = Some(at(600)),
        Blocker::InUse(at(600)),
    );
    check(
        |c| c.seen.as_mut().unwrap().covered_until = at(799),
        Blocker::NotQuietYet(at(800)),
    );
    check(
        |c| c.rollback_until = Some(at(1_001)),
        Blocker::RollbackPossible(at(1_001)),
    );
    check(
        |c| c.approvals = 1,
        Blocker::Approvals { have: 1, needed: 2 },
    );
}

#[test]
fn who_is_away_counts_by_its_holding_alone() {
    let mut case = case();
    let away = User {
        is_online: false,
        evidence: None,
        confirmed_fence: false,
        ..user(2)
    };
    case.users[1] = away;
    assert_eq!(blockers(&case), []);
    case.holders.push(binding(2));
    assert_eq!(blockers(&case), [Blocker::Held(vec![binding(2)])]);
}

#[test]
fn before_anything_is_to_be_revoked_age_and_fence_say_nothing() {
    let mut case = case();
    case.evidence_secs = None;
    case.is_fenced = false;
    case.users[0].confirmed_fence = false;
    case.users[0].evidence.as_mut().unwrap().at = at(0);
    assert_eq!(blockers(&case), []);
}

#[test]
fn a_use_long_ago_that_was_followed_by_quiet_is_forgiven() {
    let mut case = case();
    let seen = case.seen.as_mut().unwrap();
    seen.last_use = Some(at(600));
    seen.covered_until = at(900);
    assert_eq!(blockers(&case), []);
}

#[test]
fn a_provider_that_tells_nothing_is_no_condition() {
    let mut case = case();
    case.seen = None;
    assert_eq!(blockers(&case), []);
}

#[test]
fn sentences_name_a_few_and_count_the_rest() {
    let name = |id: &BindingId| {
        let number = id.deployment.uuid().as_u128();
        (number != 9).then(|| format!("k{number}/default/assistant"))
    };
    let check = |numbers: &[u128], expected: &str| {
        let held = Blocker::Held(numbers.iter().copied().map(binding).collect());
        assert_eq!(held.sentence(name), expected);
    };
    check(&[1], "k1/default/assistant may still have it");
    check(&[9, 1], "k1/default/assistant and 1 more may still have it");
    check(&[9], "1 binding may still have it");
    check(&[9, 9], "2 bindings may still have it");
    check(
        &[1, 2, 3, 4, 5],
        "k1/default/assistant, k2/default/assistant, k3/default/assistant and 2 more may still have it",
    );
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn any_user() -> impl Strategy<Value = User> {
        let version = || prop::sample::select(vec![OLD, NEW]);
        let proof = (1_u64..3, version(), 1_u128..3, 0_i64..1_000);
        (
            any::<(bool, bool)>(),
            prop::option::of(version()),
            prop::option::of((1_u64..3, version())),
            1_u128..3,
            prop::option::of(proof),
        )
            .prop_map(
                |((is_online, confirmed_fence), told, running, by, proof)| User {
                    id: binding(by),
                    is_online,
                    is_unheard: false,
                    told,
                    running: running.map(|(revision, version)| assignment(revision, version)),
                    enrolment: enrolment(by),
                    evidence: proof.map(|(revision, version, by, second)| Proof {
                        assignment: assignment(revision, version),
                        enrolment: enrolment(by),
                        at: at(second),
                    }),
                    confirmed_fence,
                },
            )
    }

    proptest! {
        /// Whoever is connected when it goes has proven another version, now, as what it is.
        #[test]
        fn nothing_goes_while_a_connected_binding_has_not_proven_another(
            users in prop::collection::vec(any_user(), 0..5),
            is_held in any::<bool>(),
        ) {
            let mut case = case();
            case.users = users;
            case.holders = if is_held { vec![binding(7)] } else { Vec::new() };
            if blockers(&case).is_empty() {
                prop_assert!(!is_held);
                for user in &case.users {
                    prop_assert_ne!(user.told, Some(OLD));
                    if user.is_online {
                        let proof = user.evidence.clone().unwrap();
                        prop_assert_eq!(Some(proof.assignment), user.running);
                        prop_assert_eq!(proof.assignment.key_version, NEW);
                        prop_assert_eq!(proof.enrolment, user.enrolment);
                        prop_assert!(proof.at >= at(900) && user.confirmed_fence);
                    }
                }
            }
        }

        /// More knowledge never frees: another open Holding can only add to what is in the way.
        #[test]
        fn another_holding_never_lets_it_go(users in prop::collection::vec(any_user(), 0..5)) {
            let mut case = case();
            case.users = users;
            let before = blockers(&case);
            case.holders.push(binding(7));
            let after = blockers(&case);
            prop_assert!(before.iter().all(|blocker| after.contains(blocker)));
            prop_assert!(!after.is_empty());
        }
    }
}
