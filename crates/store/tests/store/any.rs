//! Properties: whatever a binding or a strategy holds, it is read back exactly.

use std::time::Duration;

use jiff::civil::date;
use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingState, Failure};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::Generation;
use keyfleet_core::rollout::{
    Action, Amount, Approval, Blackout, Budget, CatchUp, Comparison, Deadlines, Gate, GateCheck,
    Offline, Per, Ramp, Rollback, Sample, Spread, Strategy, Threshold, Wave, Window, Zone,
};
use keyfleet_store::{Binding, Desired, Progress, Tx};
use proptest::prelude::{Just, ProptestConfig, any, prop, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;
use url::Url;

use crate::common::{assignment, binding_id, check, rollout_id, selector, waiting};

fn any_time() -> impl prop::strategy::Strategy<Value = Timestamp> {
    // The years 1700 to 2250, to the nanosecond.
    (-8_520_336_000_i64..8_835_955_200, 0..1_000_000_000)
        .prop_map(|(s, n)| Timestamp::new(s, n).unwrap())
}

fn any_assignment() -> impl prop::strategy::Strategy<Value = Assignment> {
    (0..i64::MAX as u64, 0..i64::MAX as u64).prop_map(|(r, v)| assignment(r, v))
}

fn any_failure() -> impl prop::strategy::Strategy<Value = Failure> {
    (
        proptest::sample::select(FailureClass::ALL.to_vec()),
        any::<String>(),
    )
        .prop_map(|(class, text)| Failure { class, text })
}

fn any_desired() -> impl prop::strategy::Strategy<Value = Desired> {
    let generation = (0..i64::MAX as u64, 0..i64::MAX as u64)
        .prop_map(|(epoch, counter)| Generation { epoch, counter });
    (
        proptest::option::of(any_assignment()),
        any::<u32>(),
        generation,
    )
        .prop_map(|(assignment, attempt, generation)| Desired {
            assignment,
            attempt,
            generation,
        })
}

fn any_progress() -> impl prop::strategy::Strategy<Value = Progress> {
    let state = proptest::sample::select(BindingState::ALL.to_vec());
    (
        state,
        any_time(),
        proptest::option::of(any_failure()),
        any::<Option<bool>>(),
    )
        .prop_map(|(state, at, failure, baseline_ok)| Progress {
            state,
            at,
            failure,
            baseline_ok,
        })
}

fn any_binding() -> impl prop::strategy::Strategy<Value = Binding> {
    let id = (any::<u128>(), "[a-z0-9]{1,9}", "[a-z0-9]{1,9}");
    let id =
        id.prop_map(|(deployment, space, connector)| binding_id(deployment, &space, &connector));
    let maybe = || proptest::option::of(any_assignment());
    (
        (
            id,
            maybe(),
            proptest::option::of(any::<u128>().prop_map(rollout_id)),
        ),
        (proptest::option::of(any_desired()), any_progress()),
        (maybe(), maybe(), proptest::option::of(any_time())),
    )
        .prop_map(
            |((id, goal, held_by), (desired, progress), (running, last_proven, proven_at))| {
                Binding {
                    goal,
                    held_by,
                    desired,
                    progress,
                    running,
                    last_proven,
                    proven_at,
                    ..waiting(id)
                }
            },
        )
}

fn any_amount() -> impl prop::strategy::Strategy<Value = Amount> {
    prop_oneof![
        any::<u32>().prop_map(Amount::Count),
        (0..=100_u8).prop_map(Amount::Percent)
    ]
}

fn any_millis() -> impl prop::strategy::Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_millis)
}

fn any_secs() -> impl prop::strategy::Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_secs)
}

fn any_sample() -> impl prop::strategy::Strategy<Value = Sample> {
    (any_amount(), any::<Option<String>>(), any::<u32>()).prop_map(
        |(amount, spread, min_matching)| Sample {
            amount,
            spread,
            min_matching,
        },
    )
}

fn any_wave() -> impl prop::strategy::Strategy<Value = Wave> {
    let spread = (any::<String>(), any::<u32>()).prop_map(|(label, max)| Spread { label, max });
    let approval = (any::<u32>(), any::<bool>()).prop_map(|(required, not_author)| Approval {
        required,
        not_author,
    });
    (
        (any::<String>(), any_amount(), any_millis()),
        proptest::option::of(any_sample()),
        proptest::option::of(spread),
        (any::<bool>(), any::<bool>()),
        proptest::option::of(approval),
    )
        .prop_map(
            |((name, concurrency, soak), sample, spread, (strict, mandatory), approval)| Wave {
                name,
                selector: selector(),
                sample,
                concurrency,
                spread,
                strict,
                mandatory,
                soak,
                approval,
            },
        )
}

fn any_budget() -> impl prop::strategy::Strategy<Value = Budget> {
    let class = proptest::option::of(proptest::sample::select(FailureClass::ALL.to_vec()));
    (
        class,
        proptest::sample::select(vec![Per::Wave, Per::Run]),
        any_amount(),
        any::<u32>(),
        proptest::sample::select(Action::ALL.to_vec()),
    )
        .prop_map(|(class, per, max, min_sample, action)| Budget {
            class,
            per,
            max,
            min_sample,
            action,
        })
}

fn any_window() -> impl prop::strategy::Strategy<Value = Window> {
    let zone = prop_oneof![
        any::<String>().prop_map(Zone::Named),
        Just(Zone::OfDeployment)
    ];
    (any::<String>(), any_secs(), zone).prop_map(|(cron, duration, zone)| Window {
        cron,
        duration,
        zone,
    })
}

fn any_blackout() -> impl prop::strategy::Strategy<Value = Blackout> {
    let day = || (-9999..=9999_i16, 1..=12_i8, 1..=28_i8).prop_map(|(y, m, d)| date(y, m, d));
    (day(), day(), any::<String>()).prop_map(|(from, until, reason)| Blackout {
        from,
        until,
        reason,
    })
}

fn any_check() -> impl prop::strategy::Strategy<Value = GateCheck> {
    let url = "https://[a-z]{1,9}\\.test/[a-z?=]{0,9}";
    let url = move || url.prop_map(|url| url.parse::<Url>().unwrap());
    let operators = [
        Comparison::Above,
        Comparison::AtLeast,
        Comparison::Below,
        Comparison::AtMost,
    ];
    let fail_if = (
        proptest::sample::select(operators.to_vec()),
        proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
    );
    prop_oneof![
        url().prop_map(|url| GateCheck::Http { url }),
        (url(), any::<String>(), fail_if).prop_map(|(url, query, (operator, value))| {
            let fail_if = Threshold { operator, value };
            GateCheck::Prometheus {
                url,
                query,
                fail_if,
            }
        })
    ]
}

fn any_gate() -> impl prop::strategy::Strategy<Value = Gate> {
    (
        (any::<String>(), any_check(), any_secs()),
        proptest::sample::select(Action::ALL.to_vec()),
        (any::<u32>(), any::<u32>()),
    )
        .prop_map(
            |((name, check, interval), action, (fail_after, inconclusive_after))| Gate {
                name,
                check,
                interval,
                action,
                fail_after,
                inconclusive_after,
            },
        )
}

fn any_rollback() -> impl prop::strategy::Strategy<Value = Rollback> {
    let deadline = proptest::option::of(any_millis());
    (any_amount(), any::<Option<u32>>(), deadline).prop_map(
        |(concurrency, max_per_minute, deadline)| Rollback {
            concurrency,
            max_per_minute,
            deadline,
        },
    )
}

fn any_strategy() -> impl prop::strategy::Strategy<Value = Strategy> {
    let deadlines = (any_millis(), any_millis(), any_millis(), any_millis()).prop_map(
        |(ack, apply, prove, wave)| Deadlines {
            ack,
            apply,
            prove,
            wave,
        },
    );
    let catch_up = proptest::sample::select(vec![CatchUp::Immediate, CatchUp::InWindow]);
    let offline = (any::<u8>(), catch_up).prop_map(|(max_percent, catch_up)| Offline {
        max_percent,
        catch_up,
    });
    let ramp = (any::<u32>(), any::<u32>()).prop_map(|(start, factor_percent)| Ramp {
        start,
        factor_percent,
    });
    (
        proptest::collection::vec(any_wave(), 0..4),
        (proptest::option::of(ramp), any::<Option<u32>>()),
        (deadlines, offline, any_rollback()),
        proptest::collection::vec(any_budget(), 0..4),
        (
            proptest::collection::vec(any_window(), 0..3),
            proptest::collection::vec(any_blackout(), 0..3),
            proptest::collection::vec(any_gate(), 0..3),
        ),
    )
        .prop_map(
            |(waves, (ramp, max_per_minute), times, budgets, (windows, blackouts, gates))| {
                let (deadlines, offline, rollback) = times;
                Strategy {
                    name: "default".parse().unwrap(),
                    waves,
                    ramp,
                    max_per_minute,
                    deadlines,
                    budgets,
                    offline,
                    windows,
                    blackouts,
                    gates,
                    rollback,
                }
            },
        )
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bindings_come_back_as_they_were(bindings in proptest::collection::vec(any_binding(), 1..20)) {
        let stored = bindings.clone();
        let work = move |tx: &Tx<'_>| stored.iter().try_for_each(|binding| {
            tx.put_binding(&waiting(binding.id.clone()))?;
            tx.put_binding(binding)
        });
        let look = move |tx: &Tx<'_>| {
            bindings.iter().map(|binding| Ok((binding.clone(), tx.binding(&binding.id)?))).collect()
        };
        let found: Vec<(Binding, Option<Binding>)> = block_on(check(work, look));
        for (stored, found) in found {
            prop_assert_eq!(Some(stored), found);
        }
    }

    #[test]
    fn any_strategy_comes_back_as_it_was(strategy in any_strategy()) {
        let stored = strategy.clone();
        let found = block_on(check(move |tx| tx.put_strategy(&stored), |tx| tx.strategies()));
        prop_assert_eq!(found, vec![strategy]);
    }
}
