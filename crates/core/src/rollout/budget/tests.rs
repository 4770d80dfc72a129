//! Tables of budgets: when they are spent, and what they say then.

use super::*;
use crate::Timestamp;
use crate::id::DeploymentId;
use crate::rollout::plan::{Opening, Step};
use crate::rollout::strategy::{LOW_COUNT, default_strategy};

/// One letter a deployment: `p` proven, `w` waiting, `o` waiting and offline, `A` failed with AUTH,
/// `M` with MODEL, `N` with NETWORK, `b` failed and broken before, `f` failed and forgiven, `L` failed and left.
fn targets(letters: &str) -> Vec<Target> {
    let at = Timestamp::UNIX_EPOCH;
    letters
        .chars()
        .map(|letter| Target {
            deployment: DeploymentId::new(uuid::Uuid::nil()),
            wave: 0,
            group: None,
            offered_at: None,
            rollback_at: None,
            opening: Opening::Always,
            shut: std::time::Duration::ZERO,
            left: letter == 'L',
            step: match letter {
                'p' => Step::Proven(at),
                'A' | 'b' | 'f' | 'L' => Step::Failed(at, FailureClass::Auth),
                'M' => Step::Failed(at, FailureClass::Model),
                'N' => Step::Failed(at, FailureClass::Network),
                _ => Step::Waiting,
            },
            online: letter != 'o',
            baseline_red: letter == 'b',
            forgiven: letter == 'f',
            can_roll_back: true,
        })
        .collect()
}

fn outcomes(letters: &str) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for target in targets(letters) {
        outcomes.count(&target);
    }
    outcomes
}

/// What the spent budgets of a wave called canary say.
fn breaches(outcomes: &Outcomes, strategy: &Strategy, wave: &Wave) -> Vec<String> {
    let name: Arc<str> = "canary".into();
    budgets_of_wave(strategy, wave)
        .iter()
        .filter_map(|budget| outcomes.breach(strategy, budget, wave.strict, Some(&name)))
        .map(|breach| breach.to_string())
        .collect()
}

fn strategy(budgets: &[(Option<FailureClass>, Amount, u32, Action)]) -> Strategy {
    let mut strategy = default_strategy("test".parse().unwrap());
    strategy.budgets = budgets
        .iter()
        .map(|&(class, max, min_sample, action)| Budget {
            class,
            per: Per::Wave,
            max,
            min_sample,
            action,
        })
        .collect();
    strategy
}

#[test]
fn a_budget_is_spent_by_one_failure_more_than_it_bears() {
    let strategy = strategy(&[
        (
            Some(FailureClass::Auth),
            Amount::Count(0),
            4,
            Action::Rollback,
        ),
        (
            Some(FailureClass::Network),
            Amount::Count(0),
            0,
            Action::Continue,
        ),
        (None, Amount::Percent(25), 0, Action::Halt),
    ]);
    let check = |letters: &str, strict: bool, expected: &[&str]| {
        let wave = Wave {
            strict,
            ..strategy.waves[0].clone()
        };
        let breaches = breaches(&outcomes(letters), &strategy, &wave);
        assert_eq!(breaches, expected, "{letters} strict={strict}");
    };
    let auth = |n: u32, of: u32| {
        format!("wave canary: {n} of {of} deployments failed with AUTH, budget 0: rollback")
    };
    check("", true, &[]);
    check("A", true, &[&auth(1, 1)]);
    check("Apww", true, &[&auth(1, 4)]);
    // Few: the sample is not waited for.
    check("Apww", false, &[&auth(1, 4)]);
    // Forgiven and already broken ones do not count; the latter leave the denominator too.
    check("bf", true, &[]);
    check("bA", true, &[&auth(1, 1)]);
    check("NNNN", true, &[]);
    check("Mppp", true, &[]);
    check(
        "Mppb",
        true,
        &["wave canary: 1 of 3 deployments failed with MODEL, budget 0: halt"],
    );
    check(
        "MMpp",
        true,
        &["wave canary: 2 of 4 deployments failed with MODEL, budget 1: halt"],
    );
}

#[test]
fn the_catch_all_names_every_class_it_counts() {
    let strategy = strategy(&[(None, Amount::Count(0), 0, Action::Pause)]);
    let breaches = breaches(&outcomes("MAp"), &strategy, &strategy.waves[0]);
    let expected = "wave canary: 2 of 3 deployments failed with AUTH, MODEL, budget 0: pause";
    assert_eq!(breaches, [expected]);
}

#[test]
fn what_is_left_is_the_smallest_budget_that_would_hold_the_run() {
    let budgets = [
        (
            Some(FailureClass::Auth),
            Amount::Count(3),
            9,
            Action::Rollback,
        ),
        (
            Some(FailureClass::Network),
            Amount::Count(0),
            9,
            Action::Continue,
        ),
        (None, Amount::Percent(50), 9, Action::Halt),
    ];
    let check = |letters: &str, expected: u32| {
        let strategy = strategy(&budgets);
        let left = outcomes(letters).budget_left(&strategy, &strategy.budgets);
        assert_eq!(left, Some(expected), "{letters}");
    };
    check("wwww", 2);
    check("Mwww", 1);
    check("MMMw", 0);
    check("AAww", 1);
    check("NNww", 2);
    check("fbww", 1);
    assert_eq!(outcomes("AA").budget_left(&strategy(&[]), &[]), None);
}

#[test]
fn a_sample_is_waited_for_where_there_are_enough_to_tell() {
    let strategy = strategy(&[(None, Amount::Count(0), 4, Action::Halt)]);
    let wave = Wave {
        strict: false,
        ..strategy.waves[0].clone()
    };
    let check = |letters: &str, rest: (&str, u32), expected: usize| {
        let letters = format!("{letters}{}", rest.0.repeat(rest.1 as usize));
        let breaches = breaches(&outcomes(&letters), &strategy, &wave);
        assert_eq!(breaches.len(), expected, "{letters}");
    };
    // One fewer than a low count is looked at at once; a low count waits for four results.
    check("App", ("w", LOW_COUNT - 4), 1);
    check("App", ("w", LOW_COUNT - 3), 0);
    check("Appp", ("w", LOW_COUNT - 4), 1);
    // What failed as before the change and who left count neither as results nor among the many.
    check("Appb", ("w", LOW_COUNT - 3), 0);
    check("AppL", ("w", LOW_COUNT - 4), 1);
    // All that are connected have settled.
    check("App", ("o", LOW_COUNT), 1);
}

#[test]
fn in_a_mandatory_wave_no_failure_is_bearable() {
    let rules = [
        (
            Some(FailureClass::Auth),
            Amount::Count(9),
            99,
            Action::Rollback,
        ),
        (
            Some(FailureClass::Network),
            Amount::Count(9),
            99,
            Action::Continue,
        ),
    ];
    let strategy = strategy(&rules);
    let wave = Wave {
        strict: false,
        mandatory: true,
        ..strategy.waves[0].clone()
    };
    let check = |letters: &str, expected: &[&str]| {
        let letters = format!("{letters}{}", "w".repeat(30));
        assert_eq!(
            breaches(&outcomes(&letters), &strategy, &wave),
            expected,
            "{letters}"
        );
    };
    check("ppfbL", &[]);
    check(
        "A",
        &["wave canary: 1 of 31 deployments failed with AUTH, budget 0: rollback"],
    );
    check(
        "N",
        &["wave canary: 1 of 31 deployments failed with NETWORK, budget 0: halt"],
    );
    check(
        "M",
        &["wave canary: 1 of 31 deployments failed with MODEL, budget 0: halt"],
    );
}

#[test]
fn budgets_of_the_run_count_all_waves() {
    let mut strategy = strategy(&[
        (
            Some(FailureClass::Auth),
            Amount::Percent(50),
            0,
            Action::Halt,
        ),
        (None, Amount::Percent(50), 0, Action::Halt),
    ]);
    strategy.budgets[1].per = Per::Run;
    let mut targets = targets("AAMMpppp");
    for target in &mut targets[4..] {
        target.wave = 1;
    }
    let used = |wave| {
        let used = budget_use(&strategy, &targets, wave);
        used.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(used(0), ["AUTH 2/2", "other 2/4 of the run"]);
    assert_eq!(used(1), ["AUTH 0/2", "other 2/4 of the run"]);
    strategy.waves[0].mandatory = true;
    let used = budget_use(&strategy, &targets, 0);
    assert_eq!(used[0].max, 0);
    let breach = outcomes("MMMpp").breach(&strategy, &strategy.budgets[1], false, None);
    let expected = "all waves: 3 of 5 deployments failed with MODEL, budget 2: halt";
    assert_eq!(breach.unwrap().to_string(), expected);
}
