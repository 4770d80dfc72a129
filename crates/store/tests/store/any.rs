//! Properties: whatever a binding or a strategy holds, it is read back exactly.

use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingState, Failure};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::Generation;
use keyfleet_core::rollout::{Action, Amount, Budget, Deadlines, Sample, Strategy, Wave};
use keyfleet_store::{Binding, Desired, Progress, Tx};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;

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

fn any_wave() -> impl prop::strategy::Strategy<Value = Wave> {
    (
        any::<String>(),
        proptest::option::of(any_amount()),
        any_amount(),
        any::<bool>(),
        any_millis(),
    )
        .prop_map(|(name, sample, concurrency, strict, soak)| Wave {
            name,
            selector: selector(),
            sample: sample.map(Sample),
            concurrency,
            strict,
            soak,
        })
}

fn any_budget() -> impl prop::strategy::Strategy<Value = Budget> {
    let class = proptest::option::of(proptest::sample::select(FailureClass::ALL.to_vec()));
    (
        class,
        any_amount(),
        any::<u32>(),
        proptest::sample::select(Action::ALL.to_vec()),
    )
        .prop_map(|(class, max, min_sample, action)| Budget {
            class,
            max,
            min_sample,
            action,
        })
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
    let waves = proptest::collection::vec(any_wave(), 0..4);
    let budgets = proptest::collection::vec(any_budget(), 0..4);
    (waves, deadlines, budgets, any::<u8>(), any_amount()).prop_map(
        |(waves, deadlines, budgets, offline_max_percent, rollback_concurrency)| Strategy {
            name: "default".parse().unwrap(),
            waves,
            deadlines,
            budgets,
            offline_max_percent,
            rollback_concurrency,
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
