//! What a token with a scope sees and may do, over the same real database.

use keyfleet_core::fleet::Labels;
use keyfleet_core::placement::{DriftPolicy, Placement};
use keyfleet_core::rollout::{Phase, Verb};
use keyfleet_core::token::Role;
use keyfleet_proto::v1;
use keyfleet_store::TokenUse;

use super::world::{World, ops, placement, works};
use crate::app::rollout::find;
use crate::app::tokens::{self, NewToken};
use crate::app::{Actor, view};
use crate::error::Error;

fn scoped(role: Role, scope: &str) -> Actor {
    Actor {
        principal: "sam".to_owned(),
        role,
        scope: scope.parse().unwrap(),
        ..ops()
    }
}

fn names(deployments: &[v1::Deployment]) -> Vec<&str> {
    deployments.iter().map(|d| d.name.as_str()).collect()
}

#[tokio::test]
async fn a_scope_shows_its_deployments_and_what_hangs_on_them_only() {
    let world = World::new(&["canary", "b", "c"]).await;
    world.settle(works).await;
    let viewer = scoped(Role::Viewer, "tier=canary");
    let seen = world.app.view_as(&viewer, |sight| {
        let fleet = view::deployments(sight, &Default::default())?;
        assert_eq!(names(&fleet), ["canary"]);
        for name in ["b", "nobody"] {
            let missing = view::deployment(sight, name).unwrap_err();
            assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
        }
        let bindings = view::binding_views(sight, "", "")?;
        assert!(bindings.iter().all(|b| b.deployment == "canary"));
        assert_eq!(bindings.len(), 1);

        let status = view::status(sight)?;
        assert_eq!(status.deployments, 1);
        assert_eq!(status.bindings.iter().map(|s| s.count).sum::<u32>(), 1);

        let connector = view::connector(sight, "assistant")?;
        assert_eq!(connector.bindings.len(), 1);
        assert_eq!(connector.connector.unwrap().bindings[0].count, 1);
        assert_eq!(view::placements(sight)?[0].deployments, 1);

        let key = view::key(sight, "openai")?;
        let shown = key.key.unwrap();
        assert_eq!(
            (
                shown.mount.as_str(),
                shown.path.as_str(),
                shown.field.as_str()
            ),
            ("", "", "")
        );
        assert_ne!(
            shown.vault_status, "",
            "whether Vault serves it is no secret"
        );
        assert_eq!(
            (
                key.versions[0].holdings_open,
                key.versions[0].bindings_proven
            ),
            (1, 1)
        );
        Ok(view::rollouts(sight, false)?.remove(0))
    });
    let rollout = seen.await.unwrap();
    let id = rollout.id.clone();
    let deployments: Vec<u32> = rollout.waves.iter().map(|wave| wave.deployments).collect();
    assert_eq!(deployments, [1, 0], "{rollout:?}");
    let detail = world.app.view_as(&viewer, move |sight| {
        view::rollout_detail(sight, find(sight, &id)?)
    });
    let targets = detail.await.unwrap().targets;
    assert_eq!(targets.len(), 1);
    assert_eq!(targets[0].deployment, "canary");

    let everybody = ops();
    let all = world
        .app
        .view_as(&everybody, |sight| view::key(sight, "openai"));
    assert_eq!(all.await.unwrap().key.unwrap().path, "keyfleet/openai");
}

#[tokio::test]
async fn a_rollout_out_of_sight_is_not_there_and_one_that_reaches_further_is_not_theirs_to_steer() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world.new_revision(2).await;
    world.offer().await;
    let id = world.newest().await.id.to_string();
    let verbs = [
        Verb::Pause,
        Verb::Resume,
        Verb::Retry,
        Verb::Rollback,
        Verb::Abort,
    ];
    let stranger = scoped(Role::Operator, "tier=gold");
    let seen = world
        .app
        .view_as(&stranger, |sight| view::rollouts(sight, false));
    assert!(seen.await.unwrap().is_empty());
    let canary = scoped(Role::Operator, "tier=canary");
    for verb in verbs {
        let missing = world
            .app
            .change_rollout(&stranger, &id, verb, "", "mine")
            .await;
        assert!(
            matches!(missing, Err(Error::NotFound { .. })),
            "{missing:?}"
        );
        let refused = world
            .app
            .change_rollout(&canary, &id, verb, "", "mine")
            .await;
        let text = refused.unwrap_err().to_string();
        assert!(
            text.contains("tier=canary") && text.contains("1 others"),
            "{text}"
        );
    }
    assert_eq!(world.newest().await.run.phase, Phase::Progressing);
    let everybody = scoped(Role::Operator, "tier in (canary,other)");
    let paused = world
        .app
        .change_rollout(&everybody, &id, Verb::Pause, "", "mine")
        .await;
    paused.unwrap();
    assert_eq!(world.newest().await.run.phase, Phase::Paused);
}

/// A rollout that is all theirs may still take a revision away from others.
#[tokio::test]
async fn what_goes_back_must_not_take_from_others() {
    let mut world = World::new(&["canary"]).await;
    world.settle(works).await;
    world.new_revision(2).await;
    world.offer().await;
    let id = world.newest().await.id.to_string();
    world.enrol("b").await;
    let canary = scoped(Role::Operator, "tier=canary");
    for verb in [Verb::Rollback, Verb::Retry] {
        let refused = world
            .app
            .change_rollout(&canary, &id, verb, "", "mine")
            .await;
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    }
    let paused = world
        .app
        .change_rollout(&canary, &id, Verb::Pause, "", "mine")
        .await;
    paused.unwrap();
}

/// A key version that is abandoned is taken from every connector of that Key.
#[tokio::test]
async fn a_key_version_that_goes_back_must_not_be_taken_from_others() {
    let mut world = World::new(&["canary"]).await;
    world.settle(works).await;
    let other = || {
        let placement = Placement {
            name: "theirs".parse().unwrap(),
            connectors: vec!["helper".parse().unwrap()],
            selector: "tier=other".parse().unwrap(),
            ..placement(DriftPolicy::Report)
        };
        let mine = Placement {
            selector: "tier=canary".parse().unwrap(),
            ..self::placement(DriftPolicy::Report)
        };
        (placement, mine)
    };
    world
        .write(move |tx| {
            let (placement, mine) = other();
            let mut helper = tx.connectors()?.remove(0).revision;
            helper.connector = "helper".parse().unwrap();
            tx.insert_connector(&helper, crate::clock::now())?;
            tx.put_placement(&mine)?;
            Ok(tx.put_placement(&placement)?)
        })
        .await;
    world.enrol("b").await;
    world.settle(works).await;
    world.new_key_version(2).await;
    world.offer().await;
    let rollouts = world.write(|tx| Ok(tx.active_rollouts()?)).await;
    let canary = scoped(Role::Operator, "tier=canary");
    for rollout in rollouts {
        let id = rollout.id.to_string();
        let refused = world
            .app
            .change_rollout(&canary, &id, Verb::Rollback, "", "mine")
            .await;
        assert!(
            matches!(refused, Err(Error::Forbidden(_) | Error::NotFound { .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn who_has_a_scope_cannot_let_agents_claim_the_label_of_a_key() {
    let world = World::new(&["canary"]).await;
    world
        .write(|tx| {
            let mut key = tx.keys()?.remove(0).key;
            key.scope = "env=prod".parse().unwrap();
            Ok(tx.put_key(&key)?)
        })
        .await;
    let pairs = |pairs: &[(&str, &str)]| -> Labels {
        let owned = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        owned.collect()
    };
    for (scope, labels, may) in [
        ("tier=canary", &[("tier", "canary")][..], false),
        ("tier=canary", &[("tier", "canary"), ("env", "prod")], false),
        ("env=prod", &[("env", "prod")], true),
        ("", &[], true),
    ] {
        let admin = scoped(Role::Admin, scope);
        let new = tokens::join(pairs(labels), 1, "sam", None);
        let made = world.app.create_token(&admin, new, "").await;
        assert_eq!(made.is_ok(), may, "{scope} {labels:?}");
    }
    let admin = scoped(Role::Admin, "tier=canary");
    let label = v1::LabelDeploymentRequest {
        name: "canary".to_owned(),
        set: [("env".to_owned(), "prod".to_owned())].into(),
        reason: "because".to_owned(),
        yes: true,
        ..v1::LabelDeploymentRequest::default()
    };
    let refused = world.app.label_deployment(&admin, label).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))));
}

#[tokio::test]
async fn nobody_makes_or_takes_back_a_token_that_reaches_further_than_their_own() {
    let world = World::new(&[]).await;
    let admin = scoped(Role::Admin, "tier=canary");
    let operator = |scope: &str| NewToken {
        usage: TokenUse::Operator {
            role: Role::Admin,
            scope: scope.parse().unwrap(),
        },
        principal: "new".to_owned(),
        ttl: None,
    };
    let join = |labels: &[(&str, &str)]| {
        let labels: Labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        tokens::join(labels, 1, "new", None)
    };
    let cases = [
        (operator("tier=canary"), true),
        (operator("tier=canary,env=test"), true),
        (operator(""), false),
        (operator("tier=other"), false),
        (operator("tier in (canary,other)"), false),
        (join(&[("tier", "canary")]), true),
        (join(&[("tier", "canary"), ("env", "x")]), true),
        (join(&[("tier", "other")]), false),
        (join(&[]), false),
    ];
    let whole = Actor {
        role: Role::Admin,
        ..ops()
    };
    for (new, may) in cases {
        let wide = new.clone();
        let made = world.app.create_token(&admin, new, "").await;
        assert_eq!(made.is_ok(), may, "{wide:?}");
        let (token, _) = match made {
            Ok(made) => made,
            Err(err) => {
                assert!(matches!(err, Error::Forbidden(_)), "{err}");
                world
                    .app
                    .create_token(&whole, wide.clone(), "")
                    .await
                    .unwrap()
            }
        };
        let seen = world.app.tokens(&admin).await.unwrap();
        assert_eq!(
            seen.iter().any(|(seen, _)| seen.id == token.id),
            may,
            "{wide:?}"
        );
        let revoked = world.app.revoke_token(&admin, token.id, "").await;
        assert_eq!(revoked.is_ok(), may, "{wide:?}");
    }
}
