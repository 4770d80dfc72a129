//! What is stored is read back as it was, and each table keeps its rules.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "common/mod.rs"]
mod common;

use std::time::Duration;

use common::{Database, at};
use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingId, BindingState, Failure};
use keyfleet_core::connector::{ConnectorRevision, ConnectorSpec};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::fleet::{Operator, Requirement, Selector};
use keyfleet_core::id::{
    DeploymentId, EnrolmentId, Generation, KeyName, KeyVersion, Revision, RolloutId, TokenId,
};
use keyfleet_core::key::{Key, KeyLocation, KeyState};
use keyfleet_core::placement::{DriftPolicy, Placement};
use keyfleet_core::rollout::{
    Action, Amount, Budget, Deadlines, Phase, Run, Sample, Strategy, Wave, default_strategy,
};
use keyfleet_core::token::Role;
use keyfleet_store::{
    Binding, Deployment, Desired, Error, Event, EventScope, Evidence, Facts, Holding,
    KeyVersionRow, Progress, Rollout, RolloutBinding, RolloutTarget, Space, Token, TokenUse, Tx,
};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;
use uuid::Uuid;

/// Runs `work` in one transaction on a new database, then reopens it and runs `look`.
async fn check<T: Send + 'static>(
    work: impl FnOnce(&Tx<'_>) -> Result<(), Error> + Send + 'static,
    look: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
) -> T {
    let database = Database::new();
    let store = database.open();
    store.write(work).await.unwrap();
    store.close().await;
    database.open().read(look).await.unwrap()
}

fn binding_id(deployment: u128, space: &str, connector: &str) -> BindingId {
    BindingId {
        deployment: DeploymentId::new(Uuid::from_u128(deployment)),
        space: space.parse().unwrap(),
        connector: connector.parse().unwrap(),
    }
}

fn rollout_id(id: u128) -> RolloutId {
    RolloutId::new(Uuid::from_u128(id))
}

fn key_name() -> KeyName {
    "openai".parse().unwrap()
}

fn assignment(revision: u64, version: u64) -> Assignment {
    Assignment { revision: Revision(revision), key_version: KeyVersion(version) }
}

fn selector() -> Selector {
    let requirement = |key: &str, operator| Requirement { key: key.into(), operator };
    Selector {
        requirements: vec![
            requirement("env", Operator::In(vec!["prod".into(), "ü \"quoted\"".into()])),
            requirement("tier", Operator::NotIn(vec!["1".into()])),
            requirement("there", Operator::Exists),
            requirement("gone", Operator::DoesNotExist),
        ],
    }
}

#[tokio::test]
async fn deployments() {
    let deployment = Deployment {
        id: DeploymentId::new(Uuid::from_u128(1)),
        name: "berlin-1".parse().unwrap(),
        labels: [("env".into(), "prod".into())].into(),
        enrolment: EnrolmentId::new(Uuid::from_u128(2)),
        enrolled_at: at(0),
        sealing_key: vec![0, 255, 7],
        certificate_serial: "0a:ff".into(),
        certificate_not_after: at(1000),
        agent_version: "0.1.0".into(),
        facts: None,
        last_seen: None,
        generation: Generation::default(),
    };
    let facts = Facts {
        reachable: true,
        version: "9.4.0".into(),
        uuid: "u".into(),
        flavor: "traditional".into(),
        licence: "basic".into(),
        spaces: vec![Space { id: "soc".into(), actions_enabled: false }],
        problems: vec!["a 'sentence'".into()],
        observed_at: 12,
    };
    let (new, seen) = (deployment.clone(), facts.clone());
    let work = move |tx: &Tx<'_>| {
        tx.insert_deployment(&new)?;
        assert_eq!(tx.deployment(new.id)?, Some(new.clone()));
        assert_eq!(tx.next_generation(new.id, 3)?, Generation { epoch: 3, counter: 1 });
        assert_eq!(tx.next_generation(new.id, 4)?, Generation { epoch: 4, counter: 2 });
        tx.set_facts(new.id, "0.2.0", &seen)?;
        tx.set_last_seen(new.id, at(5))?;
        let taken = Deployment { id: DeploymentId::new(Uuid::from_u128(9)), ..new };
        assert!(matches!(tx.insert_deployment(&taken), Err(Error::Sqlite(_))));
        assert!(tx.next_generation(taken.id, 4).is_err());
        Ok(())
    };
    let named = deployment.name.clone();
    let found = check(work, move |tx| {
        assert_eq!(tx.deployment_named(&named)?.as_ref(), tx.deployments()?.first());
        tx.deployments()
    })
    .await;
    let expected = Deployment {
        agent_version: "0.2.0".into(),
        facts: Some(facts),
        last_seen: Some(at(5)),
        generation: Generation { epoch: 4, counter: 2 },
        ..deployment
    };
    assert_eq!(found, [expected]);
}

#[tokio::test]
async fn connectors_placements_and_strategies() {
    let revision = |revision| ConnectorRevision {
        connector: "assistant".parse().unwrap(),
        revision: Revision(revision),
        spec: ConnectorSpec {
            connector_type: ".gen-ai".into(),
            display_name: "OpenAI gpt-5".into(),
            config: r#"{"apiUrl":"https://api.openai.com/v1/chat/completions"}"#.into(),
            key: key_name(),
        },
    };
    let placement = |drift_policy| Placement {
        name: "everywhere".parse().unwrap(),
        selector: selector(),
        connectors: vec!["assistant".parse().unwrap()],
        spaces: vec!["default".parse().unwrap(), "soc".parse().unwrap()],
        drift_policy,
        strategy: "default".parse().unwrap(),
    };
    let work = move |tx: &Tx<'_>| {
        tx.insert_connector(&revision(1), at(1))?;
        tx.insert_connector(&revision(2), at(2))?;
        assert!(tx.insert_connector(&revision(2), at(3)).is_err(), "a revision is immutable");
        tx.withdraw_connector(&revision(2).connector, Revision(2), Some(rollout_id(5)))?;
        for policy in DriftPolicy::ALL {
            tx.put_placement(&placement(policy))?;
            assert_eq!(tx.placements()?, [placement(policy)]);
        }
        Ok(())
    };
    let look = |tx: &Tx<'_>| {
        let name = "assistant".parse().unwrap();
        assert_eq!(tx.connector(&name, Revision(2))?.as_ref(), tx.connectors()?.first());
        assert_eq!(tx.connector(&name, Revision(3))?, None);
        tx.connectors()
    };
    let found = check(work, look).await;
    let rows: Vec<_> = found.iter().map(|c| (c.revision.clone(), c.created_at, c.withdrawn_by)).collect();
    let expected = [(revision(2), at(2), Some(rollout_id(5))), (revision(1), at(1), None)];
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn keys_and_their_versions() {
    let key = |path: &str| Key {
        name: key_name(),
        location: KeyLocation { mount: "kv".into(), path: path.into(), field: "api_key".into() },
        allowed_hosts: vec!["api.openai.com".into()],
        scope: selector(),
    };
    let version = |(number, state): (u64, KeyState)| KeyVersionRow {
        version: KeyVersion(number),
        state,
        fingerprint: format!("f{number}"),
        shown: "sk-proj-…abcd".into(),
        first_seen: at(1),
    };
    let all = || (1..).zip(KeyState::ALL);
    let work = move |tx: &Tx<'_>| {
        tx.put_key(&key("old"))?;
        tx.set_vault_status(&key_name(), "ok", at(3))?;
        tx.put_key(&key("new"))?;
        for (number, state) in all() {
            tx.insert_key_version(&key_name(), &version((number, KeyState::Pending)))?;
            tx.set_key_state(&key_name(), KeyVersion(number), state)?;
            // Seen again: what is known stays.
            tx.insert_key_version(&key_name(), &version((number, KeyState::Pending)))?;
        }
        Ok(())
    };
    let (keys, versions) =
        check(work, |tx| Ok((tx.keys()?, tx.key_versions(&key_name())?))).await;
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].key, key("new"));
    let said = (keys[0].vault_status.as_str(), keys[0].checked_at);
    assert_eq!(said, ("ok", Some(at(3))), "a changed definition keeps what Vault said");
    let mut expected: Vec<_> = all().map(version).collect();
    expected.reverse();
    assert_eq!(versions, expected, "the newest first");
}

#[tokio::test]
async fn rollouts_targets_and_bindings() {
    let rollout = |id, phase: Phase| Rollout {
        id: rollout_id(id),
        strategy: default_strategy("default".parse().unwrap()),
        cause: "connector assistant r2".into(),
        actor: "anna".into(),
        run: Run { phase, wave: 1, wave_started_at: at(3), hold_reason: "budget".into() },
        started_at: at(i64::try_from(id).unwrap()),
        ended_at: phase.is_terminal().then(|| at(9)),
    };
    let target = |deployment, failure| RolloutTarget {
        deployment: DeploymentId::new(Uuid::from_u128(deployment)),
        wave: 2,
        offered_at: Some(at(4)),
        rollback_at: None,
        forgiven: true,
        failure,
    };
    let failed = Failure { class: FailureClass::Auth, text: "401".into() };
    let targets = vec![target(1, Some(failed)), target(2, None)];
    let change = |deployment, from, to| RolloutBinding {
        id: binding_id(deployment, "default", "assistant"),
        from,
        to,
    };
    let changes = vec![
        change(1, None, Some(assignment(2, 1))),
        change(2, Some(assignment(1, 1)), None),
    ];
    let (in_targets, in_changes) = (targets.clone(), changes.clone());
    let work = move |tx: &Tx<'_>| {
        for (id, phase) in (1..).zip(Phase::ALL) {
            tx.insert_rollout(&rollout(id, Phase::Pending), &in_targets, &in_changes)?;
            let row = rollout(id, phase);
            tx.set_run(row.id, &row.run, row.ended_at)?;
        }
        tx.insert_rollout(&rollout(50, Phase::Aborted), &[], &[])
    };
    let look = move |tx: &Tx<'_>| {
        assert_eq!(tx.rollout_targets(rollout_id(1))?, targets);
        assert_eq!(tx.rollout_bindings(rollout_id(1))?, changes);
        assert_eq!(tx.rollouts_with_prefix(&rollout_id(50).to_string())?.len(), 1);
        assert_eq!(tx.rollouts_with_prefix("0000")?.len(), 2, "two are enough to be ambiguous");
        assert_eq!(tx.rollouts(3)?.len(), 3);
        Ok((tx.rollouts(100)?, tx.active_rollouts()?))
    };
    let (all, active) = check(work, look).await;
    let mut expected: Vec<Rollout> =
        (1..).zip(Phase::ALL).map(|(id, phase)| rollout(id, phase)).collect();
    expected.push(rollout(50, Phase::Aborted));
    assert_eq!(active, expected.iter().filter(|r| r.ended_at.is_none()).cloned().collect::<Vec<_>>());
    expected.reverse();
    assert_eq!(all, expected);
}

#[tokio::test]
async fn tokens() {
    let token = |id: u128, usage| Token {
        id: TokenId::new(Uuid::from_u128(id)),
        usage,
        principal: "anna".into(),
        expires_at: at(60),
        created_at: at(i64::try_from(id).unwrap()),
        created_by: "init".into(),
        revoked: false,
    };
    let labels = [("env".to_owned(), "prod".to_owned())].into();
    let join = token(1, TokenUse::Join { labels, uses_left: 2 });
    let operators = (2..).zip(Role::ALL).map(|(id, role)| token(id, TokenUse::Operator { role }));
    let mut all: Vec<Token> = std::iter::once(join).chain(operators).collect();
    let insert = all.clone();
    let work = move |tx: &Tx<'_>| {
        for (number, token) in (0..).zip(&insert) {
            tx.insert_token(token, &[number; 32])?;
        }
        assert!(tx.insert_token(&token(9, TokenUse::Operator { role: Role::Admin }), &[0; 32]).is_err());
        assert!(!tx.use_token(insert[1].id)?, "an operator token lets nobody join");
        assert!(tx.revoke_token(insert[1].id)?);
        assert!(!tx.revoke_token(TokenId::new(Uuid::from_u128(99)))?);
        Ok(())
    };
    all[1].revoked = true;
    let first = all[0].clone();
    let found = check(work, move |tx| {
        assert_eq!(tx.token_of_hash(&[0; 32])?, Some(first));
        assert_eq!(tx.token_of_hash(&[99; 32])?, None);
        tx.tokens()
    })
    .await;
    all.reverse();
    assert_eq!(found, all);
}

#[tokio::test]
async fn events_of_each_scope_are_the_newest_in_order() {
    let scopes = [
        EventScope::Service,
        EventScope::Deployment(DeploymentId::new(Uuid::from_u128(1))),
        EventScope::Rollout(rollout_id(1)),
    ];
    let event = |scope: usize, count: i64| Event {
        at: at(count),
        actor: "keyfleet".into(),
        text: format!("{scope} {count}"),
    };
    let work = move |tx: &Tx<'_>| {
        for count in 0..5 {
            for (number, scope) in scopes.into_iter().enumerate() {
                tx.add_event(scope, &event(number, count))?;
            }
        }
        Ok(())
    };
    let look = move |tx: &Tx<'_>| scopes.map(|scope| tx.events(scope, 2)).into_iter().collect();
    let found: Vec<Vec<Event>> = check(work, look).await;
    for (number, events) in found.into_iter().enumerate() {
        assert_eq!(events, [event(number, 3), event(number, 4)]);
    }
}

/// Runs steps on one binding's holdings and returns which versions are open, and why the others are not.
async fn holdings_after(
    steps: impl FnOnce(&Tx<'_>, &BindingId) -> Result<(), Error> + Send + 'static,
) -> Vec<Holding> {
    let work = move |tx: &Tx<'_>| steps(tx, &binding_id(1, "default", "assistant"));
    check(work, |tx| tx.holdings(&key_name())).await
}

fn holding(version: u64, opened: i64, closed: Option<(i64, &str)>) -> Holding {
    Holding {
        binding: binding_id(1, "default", "assistant"),
        key: key_name(),
        version: KeyVersion(version),
        opened_at: at(opened),
        closed_at: closed.map(|(seconds, _)| at(seconds)),
        closed_by: closed.map(|(_, by)| by.to_owned()),
    }
}

#[tokio::test]
async fn an_open_holding_keeps_its_beginning_and_a_closed_one_is_opened_again() {
    let key = key_name();
    let found = holdings_after(move |tx, id| {
        tx.open_holding(id, &key, KeyVersion(1), at(1))?;
        tx.open_holding(id, &key, KeyVersion(1), at(2))?;
        tx.open_holding(id, &key, KeyVersion(2), at(2))?;
        tx.close_holdings(id, None, "confirmed removal", at(3))?;
        tx.close_holdings(id, None, "again", at(4))?;
        tx.open_holding(id, &key, KeyVersion(2), at(5))
    })
    .await;
    assert_eq!(found, [holding(1, 1, Some((3, "confirmed removal"))), holding(2, 5, None)]);
}

#[tokio::test]
async fn proof_of_a_version_closes_the_others_of_that_binding_only() {
    let key = key_name();
    let found = holdings_after(move |tx, id| {
        let others =
            [binding_id(1, "soc", "assistant"), binding_id(1, "default", "other"), binding_id(2, "default", "assistant")];
        for binding in others.iter().chain([id]) {
            tx.open_holding(binding, &key, KeyVersion(1), at(1))?;
            tx.open_holding(binding, &key, KeyVersion(2), at(1))?;
        }
        let other_key = "azure".parse().unwrap();
        tx.open_holding(id, &other_key, KeyVersion(2), at(1))?;
        tx.close_holdings(id, Some((&key, KeyVersion(2))), "proof", at(2))?;
        assert_eq!(tx.holdings(&other_key)?[0].closed_by.as_deref(), Some("proof"));
        Ok(())
    })
    .await;
    assert_eq!(found.len(), 8);
    let closed: Vec<_> = found.into_iter().filter(|row| row.closed_at.is_some()).collect();
    assert_eq!(closed, [holding(1, 1, Some((2, "proof")))]);
}

#[tokio::test]
async fn the_newest_evidence_stands_until_it_is_void() {
    let evidence = |space, version, seconds| Evidence {
        binding: binding_id(1, space, "assistant"),
        key: key_name(),
        version: KeyVersion(version),
        revision: Revision(3),
        enrolment: EnrolmentId::new(Uuid::from_u128(8)),
        certificate_serial: "0a".into(),
        at: at(seconds),
    };
    let work = move |tx: &Tx<'_>| {
        for row in [evidence("a", 1, 1), evidence("a", 1, 2), evidence("a", 2, 3), evidence("b", 1, 4)] {
            tx.put_evidence(&row)?;
        }
        let found = tx.evidence(&key_name())?;
        assert_eq!(found, [evidence("a", 1, 2), evidence("b", 1, 4), evidence("a", 2, 3)]);
        tx.void_evidence(&evidence("a", 1, 1).binding)
    };
    assert_eq!(check(work, |tx| tx.evidence(&key_name())).await, [evidence("b", 1, 4)]);
}

#[tokio::test]
async fn bindings_are_found_by_every_way_to_them() {
    let ids = [
        binding_id(1, "default", "assistant"),
        binding_id(1, "default", "other"),
        binding_id(1, "soc", "assistant"),
        binding_id(2, "default", "assistant"),
    ];
    let rollout = Rollout {
        id: rollout_id(1),
        strategy: default_strategy("default".parse().unwrap()),
        cause: String::new(),
        actor: String::new(),
        run: Run { phase: Phase::Pending, wave: 0, wave_started_at: at(0), hold_reason: String::new() },
        started_at: at(0),
        ended_at: None,
    };
    let stored = ids.clone();
    let work = move |tx: &Tx<'_>| {
        for id in stored.iter().rev() {
            tx.put_binding(&waiting(id.clone()))?;
        }
        let of_rollout = |index: usize| RolloutBinding { id: stored[index].clone(), from: None, to: None };
        // One of them is gone since, which is no error.
        let gone = RolloutBinding { id: binding_id(9, "default", "gone"), from: None, to: None };
        tx.insert_rollout(&rollout, &[], &[of_rollout(3), of_rollout(1), gone])?;
        tx.delete_binding(&binding_id(7, "never", "there"))
    };
    let [first, second, third, fourth] = ids.clone();
    let only = |rows: Vec<Binding>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
    let look = move |tx: &Tx<'_>| {
        assert_eq!(only(tx.bindings()?), ids);
        assert_eq!(only(tx.bindings_of(first.deployment)?), [first.clone(), second.clone(), third.clone()]);
        assert_eq!(only(tx.bindings_with(&first.connector)?), [first.clone(), third, fourth.clone()]);
        assert_eq!(only(tx.bindings_in(rollout_id(1))?), [second, fourth]);
        assert_eq!(tx.bindings_in(rollout_id(2))?, []);
        assert_eq!(tx.binding(&first)?.map(|row| row.id), Some(first));
        assert_eq!(tx.binding(&binding_id(9, "default", "gone"))?, None);
        Ok(())
    };
    check(work, look).await;
}

fn waiting(id: BindingId) -> Binding {
    Binding {
        id,
        placement: "everywhere".parse().unwrap(),
        goal: Some(assignment(1, 1)),
        held_by: None,
        desired: None,
        progress: Progress { state: BindingState::Waiting, at: at(0), failure: None, baseline_ok: None },
        running: None,
        last_proven: None,
        proven_at: None,
    }
}

fn any_time() -> impl prop::strategy::Strategy<Value = Timestamp> {
    // The years 1700 to 2250, to the nanosecond.
    (-8_520_336_000_i64..8_835_955_200, 0..1_000_000_000).prop_map(|(s, n)| Timestamp::new(s, n).unwrap())
}

fn any_assignment() -> impl prop::strategy::Strategy<Value = Assignment> {
    (0..i64::MAX as u64, 0..i64::MAX as u64).prop_map(|(r, v)| assignment(r, v))
}

fn any_failure() -> impl prop::strategy::Strategy<Value = Failure> {
    (proptest::sample::select(FailureClass::ALL.to_vec()), any::<String>())
        .prop_map(|(class, text)| Failure { class, text })
}

fn any_desired() -> impl prop::strategy::Strategy<Value = Desired> {
    let generation =
        (0..i64::MAX as u64, 0..i64::MAX as u64).prop_map(|(epoch, counter)| Generation { epoch, counter });
    (proptest::option::of(any_assignment()), any::<u32>(), generation)
        .prop_map(|(assignment, attempt, generation)| Desired { assignment, attempt, generation })
}

fn any_progress() -> impl prop::strategy::Strategy<Value = Progress> {
    let state = proptest::sample::select(BindingState::ALL.to_vec());
    (state, any_time(), proptest::option::of(any_failure()), any::<Option<bool>>())
        .prop_map(|(state, at, failure, baseline_ok)| Progress { state, at, failure, baseline_ok })
}

fn any_binding() -> impl prop::strategy::Strategy<Value = Binding> {
    let id = (any::<u128>(), "[a-z0-9]{1,9}", "[a-z0-9]{1,9}");
    let id = id.prop_map(|(deployment, space, connector)| binding_id(deployment, &space, &connector));
    let maybe = || proptest::option::of(any_assignment());
    (
        (id, maybe(), proptest::option::of(any::<u128>().prop_map(rollout_id))),
        (proptest::option::of(any_desired()), any_progress()),
        (maybe(), maybe(), proptest::option::of(any_time())),
    )
        .prop_map(|((id, goal, held_by), (desired, progress), (running, last_proven, proven_at))| Binding {
            goal,
            held_by,
            desired,
            progress,
            running,
            last_proven,
            proven_at,
            ..waiting(id)
        })
}

fn any_amount() -> impl prop::strategy::Strategy<Value = Amount> {
    prop_oneof![any::<u32>().prop_map(Amount::Count), (0..=100_u8).prop_map(Amount::Percent)]
}

fn any_millis() -> impl prop::strategy::Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_millis)
}

fn any_wave() -> impl prop::strategy::Strategy<Value = Wave> {
    (any::<String>(), proptest::option::of(any_amount()), any_amount(), any::<bool>(), any_millis()).prop_map(
        |(name, sample, concurrency, strict, soak)| Wave {
            name,
            selector: selector(),
            sample: sample.map(Sample),
            concurrency,
            strict,
            soak,
        },
    )
}

fn any_budget() -> impl prop::strategy::Strategy<Value = Budget> {
    let class = proptest::option::of(proptest::sample::select(FailureClass::ALL.to_vec()));
    (class, any_amount(), any::<u32>(), proptest::sample::select(Action::ALL.to_vec()))
        .prop_map(|(class, max, min_sample, action)| Budget { class, max, min_sample, action })
}

fn any_strategy() -> impl prop::strategy::Strategy<Value = Strategy> {
    let deadlines = (any_millis(), any_millis(), any_millis(), any_millis())
        .prop_map(|(ack, apply, prove, wave)| Deadlines { ack, apply, prove, wave });
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
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
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
