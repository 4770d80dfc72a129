//! What is stored is read back as it was, and each table keeps its rules.

use keyfleet_core::adoption::{Adopt, AdoptBy};
use keyfleet_core::binding::Failure;
use keyfleet_core::connector::{ConnectorRevision, ConnectorSpec, Probe};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{DeploymentId, Generation, KeyVersion, Revision, TokenId};
use keyfleet_core::key::{Key, KeyLocation, KeyState};
use keyfleet_core::models::Task;
use keyfleet_core::placement::{DriftPolicy, Placement};
use keyfleet_core::rollout::{Approved, GateState, Phase, Run, Verdict, default_strategy};
use keyfleet_core::token::Role;
use keyfleet_store::{
    Check, Deployment, Error, Event, EventScope, Facts, KeyVersionRow, Retention, Rollout,
    RolloutBinding, RolloutTarget, Space, Token, TokenUse, Tx,
};
use uuid::Uuid;

use crate::common::{assignment, at, binding_id, check, key_name, rollout_id, selector};

fn facts() -> Facts {
    Facts {
        reachable: true,
        version: "9.4.0".into(),
        uuid: "u".into(),
        flavor: "traditional".into(),
        licence: "basic".into(),
        spaces: vec![Space {
            id: "soc".into(),
            actions_enabled: false,
        }],
        problems: vec!["a 'sentence'".into()],
        checks: vec![Check {
            name: "tls".into(),
            outcome: "warning".into(),
            sentence: "plain".into(),
            detail: String::new(),
        }],
        observed_at: 12,
    }
}

#[tokio::test]
async fn deployments() {
    let deployment = Deployment {
        sealing_key: vec![0, 255, 7],
        ..crate::common::deployment(1)
    };
    let facts = facts();
    let (new, seen) = (deployment.clone(), facts.clone());
    let work = move |tx: &Tx<'_>| {
        tx.insert_deployment(&new)?;
        assert_eq!(tx.deployment(new.id)?, Some(new.clone()));
        assert_eq!(
            tx.next_generation(new.id, 3)?,
            Generation {
                epoch: 3,
                counter: 1
            }
        );
        assert_eq!(
            tx.next_generation(new.id, 4)?,
            Generation {
                epoch: 4,
                counter: 2
            }
        );
        tx.set_facts(new.id, "0.2.0", &seen)?;
        tx.set_last_seen(new.id, at(5))?;
        let taken = Deployment {
            id: DeploymentId::new(Uuid::from_u128(9)),
            ..new
        };
        assert!(matches!(
            tx.insert_deployment(&taken),
            Err(Error::Sqlite(_))
        ));
        assert!(tx.next_generation(taken.id, 4).is_err());
        Ok(())
    };
    let named = deployment.name.clone();
    let found = check(work, move |tx| {
        assert_eq!(
            tx.deployment_named(&named)?.as_ref(),
            tx.deployments()?.first()
        );
        tx.deployments()
    })
    .await;
    let expected = Deployment {
        agent_version: "0.2.0".into(),
        facts: Some(facts),
        last_seen: Some(at(5)),
        generation: Generation {
            epoch: 4,
            counter: 2,
        },
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
            if_supported: vec!["contextWindowLength".into(), "temperature".into()],
            probe: Probe {
                body: None,
                max_tokens: Some(5),
                model: Some("m".into()),
                interval: Some(std::time::Duration::from_secs(60)),
            },
            replaces: Some("older".parse().unwrap()),
        },
    };
    let placement = |drift_policy| Placement {
        name: "everywhere".parse().unwrap(),
        selector: selector(),
        connectors: vec!["assistant".parse().unwrap()],
        spaces: vec!["default".parse().unwrap(), "soc-*".parse().unwrap()],
        except_spaces: vec!["soc-old".parse().unwrap()],
        adopt: vec![Adopt {
            connector: "assistant".parse().unwrap(),
            by: AdoptBy::Name("OpenAI".into()),
        }],
        drift_policy,
        strategy: "default".parse().unwrap(),
        task: (drift_policy == DriftPolicy::Report).then_some(Task::AttackDiscovery),
    };
    let work = move |tx: &Tx<'_>| {
        tx.insert_connector(&revision(1), at(1))?;
        tx.insert_connector(&revision(2), at(2))?;
        assert!(
            tx.insert_connector(&revision(2), at(3)).is_err(),
            "a revision is immutable"
        );
        tx.withdraw_connector(&revision(2).connector, Revision(2), Some(rollout_id(5)))?;
        for policy in DriftPolicy::ALL {
            tx.put_placement(&placement(policy))?;
            assert_eq!(tx.placements()?, [placement(policy)]);
        }
        Ok(())
    };
    let look = |tx: &Tx<'_>| {
        let name = "assistant".parse().unwrap();
        assert_eq!(
            tx.connector(&name, Revision(2))?.as_ref(),
            tx.connectors()?.first()
        );
        assert_eq!(tx.connector(&name, Revision(3))?, None);
        tx.connectors()
    };
    let found = check(work, look).await;
    let rows: Vec<_> = found
        .iter()
        .map(|c| (c.revision.clone(), c.created_at, c.withdrawn_by))
        .collect();
    let expected = [
        (revision(2), at(2), Some(rollout_id(5))),
        (revision(1), at(1), None),
    ];
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn keys_and_their_versions() {
    let key = |path: &str| Key {
        name: key_name(),
        location: KeyLocation {
            mount: "kv".into(),
            path: path.into(),
            field: "api_key".into(),
        },
        allowed_hosts: vec!["api.openai.com".into()],
        scope: selector(),
        rotation: keyfleet_core::key::Rotation::default(),
    };
    let version = |(number, state): (u64, KeyState)| KeyVersionRow {
        version: KeyVersion(number),
        state,
        fingerprint: format!("f{number}"),
        shown: "sk-proj-…abcd".into(),
        first_seen: at(1),
        readable: true,
        released: true,
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
    let (keys, versions) = check(work, |tx| Ok((tx.keys()?, tx.key_versions(&key_name())?))).await;
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].key, key("new"));
    let said = (keys[0].vault_status.as_str(), keys[0].checked_at);
    assert_eq!(
        said,
        ("ok", Some(at(3))),
        "a changed definition keeps what Vault said"
    );
    let mut expected: Vec<_> = all().map(version).collect();
    expected.reverse();
    assert_eq!(versions, expected, "the newest first");
}

fn approved(wave: usize, principal: &str) -> Approved {
    Approved {
        wave,
        principal: principal.into(),
    }
}

fn gate(name: &str, verdict: Verdict) -> GateState {
    GateState {
        name: name.into(),
        verdict,
        streak: 3,
        at: at(8),
        text: "0.03 is > 0.02".into(),
    }
}

fn rollout(id: u128, phase: Phase) -> Rollout {
    Rollout {
        id: rollout_id(id),
        strategy: default_strategy("default".parse().unwrap()),
        cause: "connector assistant r2".into(),
        actor: "anna".into(),
        run: Run {
            phase,
            wave: Some(1),
            hold_reason: "budget".into(),
            paused_at: Some(at(7)),
            rollback_reason: "wrong model".into(),
            approvals: vec![approved(0, "anna"), approved(0, "ben"), approved(2, "anna")],
            fast_forward: Some(1),
            gates: vec![gate("errors", Verdict::Fail), gate("load", Verdict::Pass)],
            ..Run::new("anna", at(3))
        },
        started_at: at(i64::try_from(id).unwrap()),
        ended_at: phase.is_terminal().then(|| at(9)),
    }
}

#[tokio::test]
async fn rollouts_targets_and_bindings() {
    let target = |deployment, failure| RolloutTarget {
        deployment: DeploymentId::new(Uuid::from_u128(deployment)),
        wave: 2,
        offered_at: Some(at(4)),
        rollback_at: None,
        forgiven: true,
        left: deployment == 2,
        failure,
    };
    let failed = Failure {
        class: FailureClass::Auth,
        text: "401".into(),
    };
    let targets = vec![target(1, Some(failed)), target(2, None)];
    let change = |deployment, from, to| RolloutBinding {
        id: binding_id(deployment, "default", "assistant"),
        from,
        to,
        failure: None,
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
        assert_eq!(
            tx.rollouts_with_prefix(&rollout_id(50).to_string())?.len(),
            1
        );
        assert_eq!(
            tx.rollouts_with_prefix("0000")?.len(),
            2,
            "two are enough to be ambiguous"
        );
        assert_eq!(tx.rollouts(3)?.len(), 3);
        Ok((tx.rollouts(100)?, tx.active_rollouts()?))
    };
    let (all, active) = check(work, look).await;
    let mut expected: Vec<Rollout> = (1..)
        .zip(Phase::ALL)
        .map(|(id, phase)| rollout(id, phase))
        .collect();
    expected.push(rollout(50, Phase::Aborted));
    assert_eq!(
        active,
        expected
            .iter()
            .filter(|r| r.ended_at.is_none())
            .cloned()
            .collect::<Vec<_>>()
    );
    expected.reverse();
    assert_eq!(all, expected);
}

#[tokio::test]
async fn what_people_and_gates_say_of_a_rollout() {
    let id = rollout_id(1);
    let new = Rollout {
        run: Run::new("anna", at(0)),
        ..rollout(1, Phase::Pending)
    };
    let work = move |tx: &Tx<'_>| {
        tx.insert_rollout(&new, &[], &[])?;
        tx.insert_rollout(&rollout(2, Phase::Pending), &[], &[])?;
        assert_eq!(tx.active_rollouts()?.first(), Some(&new));
        for (wave, principal, second) in [(1, "zoe", 1), (1, "anna", 2), (0, "anna", 3)] {
            tx.approve_rollout(id, &approved(wave, principal), at(second))?;
        }
        // Said again, it neither stands twice nor is it newer.
        tx.approve_rollout(id, &approved(1, "zoe"), at(9))?;
        tx.put_gates(id, &[gate("errors", Verdict::Inconclusive)])?;
        tx.put_gates(id, &[gate("load", Verdict::Pass)])
    };
    let look = move |tx: &Tx<'_>| tx.rollouts(9);
    let found = check(work, look).await;
    let run = &found[1].run;
    let said = [approved(0, "anna"), approved(1, "zoe"), approved(1, "anna")];
    assert_eq!(run.approvals, said);
    assert_eq!(run.gates, [gate("load", Verdict::Pass)]);
    assert_eq!((run.wave, run.fast_forward), (None, None));
    assert_eq!(
        found[0],
        rollout(2, Phase::Pending),
        "the other one keeps its own"
    );
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
    let join = token(
        1,
        TokenUse::Join {
            labels,
            uses_left: 2,
            deployment: Some(DeploymentId::new(Uuid::from_u128(7))),
        },
    );
    let scopes = ["", "team=soc", "env in (prod,test),!x"];
    let operators = (2..)
        .zip(Role::ALL.into_iter().zip(scopes))
        .map(|(id, (role, scope))| {
            let scope = scope.parse().unwrap();
            token(id, TokenUse::Operator { role, scope })
        });
    let mut all: Vec<Token> = std::iter::once(join).chain(operators).collect();
    let insert = all.clone();
    let work = move |tx: &Tx<'_>| {
        for (number, token) in (0..).zip(&insert) {
            tx.insert_token(token, &[number; 32])?;
        }
        assert!(
            tx.insert_token(&token(9, insert[1].usage.clone()), &[0; 32])
                .is_err()
        );
        assert!(
            !tx.use_token(insert[1].id)?,
            "an operator token lets nobody join"
        );
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
    let look = move |tx: &Tx<'_>| {
        scopes
            .map(|scope| tx.events(scope, 2))
            .into_iter()
            .collect()
    };
    let found: Vec<Vec<Event>> = check(work, look).await;
    for (number, events) in found.into_iter().enumerate() {
        assert_eq!(events, [event(number, 3), event(number, 4)]);
    }
}

#[tokio::test]
async fn old_events_go_but_the_newest_of_each_history_stay() {
    let scopes = [
        EventScope::Service,
        EventScope::Deployment(DeploymentId::new(Uuid::from_u128(1))),
        EventScope::Rollout(rollout_id(1)),
    ];
    let work = move |tx: &Tx<'_>| {
        for scope in scopes {
            for (second, text) in (0..20).map(|second| (second, second.to_string())) {
                let actor = "test".into();
                tx.add_event(
                    scope,
                    &Event {
                        at: at(second),
                        actor,
                        text,
                    },
                )?;
            }
        }
        let kept = |since, always, at_most| Retention {
            since: at(since),
            always,
            at_most,
        };
        // Nothing is older, and nothing is too much.
        assert!(tx.old_events(kept(0, 3, 20), 100)?.is_empty());
        // The last twelve are new enough.
        assert_eq!(tx.old_events(kept(8, 3, 20), 100)?.len(), 3 * 8);
        assert_eq!(tx.old_events(kept(8, 3, 20), 5)?.len(), 5, "in bites");
        // All are old, three stay; all are new, seven stay.
        assert_eq!(tx.old_events(kept(99, 3, 20), 100)?.len(), 3 * 17);
        let found = tx.old_events(kept(0, 3, 7), 100)?;
        tx.delete_events(&found)
    };
    let look = move |tx: &Tx<'_>| {
        let texts = |scope| -> Result<Vec<String>, Error> {
            let events = tx.events(scope, 100)?;
            Ok(events.into_iter().map(|event| event.text).collect())
        };
        scopes.into_iter().map(texts).collect::<Result<Vec<_>, _>>()
    };
    for texts in check(work, look).await {
        assert_eq!(texts, ["13", "14", "15", "16", "17", "18", "19"]);
    }
}
