//! Campaigns for Keys that people write to Vault: from the new version to the end of the old one.

use std::collections::BTreeMap;

use keyfleet_core::Timestamp;
use keyfleet_core::campaign::{Course, State, Trial, Verb};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{KeyName, KeyVersion};
use keyfleet_core::key::{KeyState, Rotation};
use keyfleet_core::token::Role;
use keyfleet_proto::v1;
use keyfleet_store::{CampaignRow, KeyVersionRow};

use super::world::{World, ops, works};
use crate::app::andon::set;
use crate::app::campaign::found::Around;
use crate::app::campaign::step::step_all;
use crate::app::campaign::verbs::Wanted;
use crate::app::campaign::version_found;
use crate::app::{Actor, view};
use crate::clock;
use crate::error::Error;

const FLEET: [&str; 4] = ["canary", "b", "c", "d"];

fn admin(who: &str) -> Actor {
    Actor {
        role: Role::Admin,
        principal: who.to_owned(),
        ..ops()
    }
}

fn openai() -> KeyName {
    "openai".parse().unwrap()
}

/// A world whose old keys need not be kept, and where `approvals` people have to agree.
async fn world(approvals: u32) -> World {
    let world = World::new(&FLEET).await;
    world.settle(works).await;
    let rotation = Rotation {
        overlap_secs: 0,
        approvals,
    };
    world
        .write(move |tx| {
            let mut key = tx.keys()?.remove(0).key;
            key.rotation = rotation;
            Ok(tx.put_key(&key)?)
        })
        .await;
    world
}

/// A person writes a version to Vault.
async fn found(world: &World, version: u64) {
    let row = KeyVersionRow {
        version: KeyVersion(version),
        state: KeyState::Pending,
        fingerprint: format!("f{version}"),
        shown: "sk-proj-…".to_owned(),
        first_seen: clock::now(),
        readable: true,
        released: true,
    };
    world
        .write(move |tx| version_found(tx, &openai(), &row, clock::now()))
        .await;
}

async fn newest(world: &World) -> CampaignRow {
    world.write(|tx| Ok(tx.campaigns(1)?.remove(0))).await
}

/// The campaigns go as far as they can, where the provider says this of every version.
async fn step_at(world: &World, said: &Trial, now: Timestamp) -> State {
    let mut around = Around {
        now,
        online: world.names.keys().copied().collect(),
        trials: BTreeMap::new(),
        probes_per_minute: 0,
    };
    for _ in 0..8 {
        let asked = around.clone();
        let outcome = world.write(move |tx| step_all(tx, &asked)).await;
        for (id, state, versions) in outcome.asks {
            let answers = versions
                .into_iter()
                .map(|it| ((id, state, it), said.clone()));
            around.trials.extend(answers);
        }
    }
    newest(world).await.campaign.state
}

async fn step(world: &World, said: &Trial) -> State {
    step_at(world, said, clock::now()).await
}

async fn waits(world: &World) -> Vec<String> {
    let seen = world
        .app
        .view_as(&admin("ops"), |sight| view::only_campaign(sight, ""))
        .await;
    seen.unwrap().waits
}

async fn say(world: &World, who: &str, verb: Verb) -> Result<(), Error> {
    let id = newest(world).await.id.to_string();
    let app = &world.app;
    app.change_campaign(&admin(who), &id, verb, "").await?;
    Ok(())
}

async fn states(world: &World) -> Vec<(u64, KeyState)> {
    world.key_states().await
}

fn refuses(_: &str, _: &v1::DesiredBinding) -> Option<FailureClass> {
    Some(FailureClass::Auth)
}

/// As far as the revocation, with everybody's proof.
async fn ready(world: &World) {
    found(world, 2).await;
    assert_eq!(step(world, &Trial::Works).await, State::Rolling);
    world.settle(works).await;
    assert_eq!(step(world, &Trial::Works).await, State::RevokeReady);
}

#[tokio::test]
async fn a_version_in_vault_is_tried_rolled_out_proven_and_the_old_one_dies() {
    let world = world(1).await;
    found(&world, 2).await;
    // Nobody gets what nobody has tried.
    world.settle(works).await;
    assert_eq!(newest(&world).await.campaign.state, State::Planned);
    assert!(!world.holdings().await.contains_key(&2));
    assert_eq!(step(&world, &Trial::Works).await, State::Rolling);
    assert_eq!(
        waits(&world).await,
        ["0 of 4 bindings have proven what they are to have"]
    );
    world.settle(works).await;
    assert_eq!(step(&world, &Trial::Works).await, State::RevokeReady);
    assert_eq!(
        waits(&world).await,
        ["v1: 0 of 1 people have agreed that it is revoked"]
    );
    say(&world, "ana", Verb::Approve).await.unwrap();
    assert_eq!(step(&world, &Trial::Works).await, State::Revoking);
    assert_eq!(
        states(&world).await,
        [(2, KeyState::Current), (1, KeyState::Retiring)]
    );
    assert_eq!(
        waits(&world).await,
        ["revoke v1 at the provider, then say `keyfleet campaign confirm`"]
    );
    say(&world, "ana", Verb::Confirm).await.unwrap();
    assert_eq!(step(&world, &Trial::Works).await, State::VerifyingDead);
    assert_eq!(step(&world, &Trial::Refused(2)).await, State::VerifyingDead);
    assert_eq!(step(&world, &Trial::Refused(3)).await, State::Closed);
    assert_eq!(
        states(&world).await,
        [(2, KeyState::Current), (1, KeyState::Revoked)]
    );
    let row = newest(&world).await;
    assert!(row.ended_at.is_some());
    let id = row.id.to_string();
    let viewer = admin("ops");
    let seen = world
        .app
        .view_as(&viewer, move |sight| view::campaign(sight, &id));
    let path: Vec<String> = seen
        .await
        .unwrap()
        .steps
        .iter()
        .map(|step| format!("{:?} {}: {}", step.state(), step.actor, step.text))
        .collect();
    insta::assert_snapshot!(path.join("\n"));
}

#[tokio::test]
async fn a_version_that_the_provider_refuses_reaches_nobody() {
    let world = world(1).await;
    found(&world, 2).await;
    assert_eq!(step(&world, &Trial::Refused(1)).await, State::Cancelled);
    world.settle(works).await;
    assert_eq!(
        states(&world).await,
        [(2, KeyState::Abandoned), (1, KeyState::Current)]
    );
    assert!(!world.holdings().await.contains_key(&2));
    // One that does not do waits for a person, or for a better one.
    found(&world, 3).await;
    let unfit = Trial::Unfit("no quota".to_owned());
    assert_eq!(step(&world, &unfit).await, State::Halted);
    assert_eq!(
        waits(&world).await,
        ["it is held: v3 does not do: no quota"]
    );
    found(&world, 4).await;
    assert_eq!(step(&world, &Trial::Works).await, State::Rolling);
    let row = newest(&world).await;
    assert_eq!(row.campaign.new, Some(KeyVersion(4)));
    assert!(row.campaign.overtaken.contains(&KeyVersion(3)));
}

#[tokio::test]
async fn a_version_that_fails_in_the_fleet_goes_back_and_is_nobodys() {
    let world = world(1).await;
    found(&world, 2).await;
    let unknown = Trial::Unknown("no way out".to_owned());
    assert_eq!(step(&world, &unknown).await, State::Rolling);
    for _ in 0..6 {
        world
            .turn(|name, told| match told.assignment.as_ref()?.key_version {
                2 => refuses(name, told),
                _ => None,
            })
            .await;
    }
    world.settle(works).await;
    assert_eq!(step(&world, &unknown).await, State::RolledBack);
    assert_eq!(
        states(&world).await,
        [(2, KeyState::Abandoned), (1, KeyState::Current)]
    );
    assert!(world.bindings().await.values().all(|b| b.is_converged()));
}

#[tokio::test]
async fn until_it_is_retiring_a_rollback_brings_the_old_version_back() {
    for late in [false, true] {
        let world = world(1).await;
        found(&world, 2).await;
        assert_eq!(step(&world, &Trial::Works).await, State::Rolling);
        if late {
            world.settle(works).await;
            assert_eq!(step(&world, &Trial::Works).await, State::RevokeReady);
        } else {
            world.turn(works).await;
        }
        say(&world, "ana", Verb::Rollback).await.unwrap();
        assert_eq!(newest(&world).await.campaign.course, Course::Back);
        world.settle(works).await;
        assert_eq!(step(&world, &Trial::Works).await, State::RolledBack);
        assert_eq!(
            states(&world).await,
            [(2, KeyState::Abandoned), (1, KeyState::Current)]
        );
        let bindings = world.bindings().await;
        let runs = bindings.values().map(|b| b.running.unwrap().key_version.0);
        assert_eq!(runs.collect::<Vec<_>>(), [1; 4]);
    }
    let world = world(1).await;
    ready(&world).await;
    say(&world, "ana", Verb::Approve).await.unwrap();
    assert_eq!(step(&world, &Trial::Works).await, State::Revoking);
    let refused = say(&world, "ana", Verb::Rollback).await.unwrap_err();
    assert!(refused.to_string().contains("REVOKING"), "{refused}");
}

#[tokio::test]
async fn a_version_that_nobody_was_told_yet_is_not_everywhere() {
    let world = World::new(&FLEET).await;
    found(&world, 2).await;
    assert_eq!(step(&world, &Trial::Works).await, State::Rolling);
    assert_eq!(
        waits(&world).await,
        ["0 of 4 bindings have proven what they are to have"]
    );
}

#[tokio::test]
async fn who_was_away_holds_the_old_version_until_it_is_back() {
    let world = world(1).await;
    found(&world, 2).await;
    assert_eq!(step(&world, &Trial::Works).await, State::Rolling);
    for _ in 0..20 {
        world.turn_without("d", works).await;
    }
    step(&world, &Trial::Works).await;
    let state = newest(&world).await.campaign.state;
    assert!(matches!(state, State::Draining | State::Rolling), "{state}");
    let week_later = clock::now().checked_add(jiff::SignedDuration::from_hours(24 * 7));
    let later = step_at(&world, &Trial::Works, week_later.unwrap()).await;
    assert_eq!(later, state, "time alone closes nothing");
    world.settle(works).await;
    assert_eq!(step(&world, &Trial::Works).await, State::RevokeReady);
}

#[tokio::test]
async fn each_person_agrees_once_and_a_newer_version_asks_anew() {
    let world = world(2).await;
    ready(&world).await;
    say(&world, "ana", Verb::Approve).await.unwrap();
    say(&world, "ana", Verb::Approve).await.unwrap();
    assert_eq!(step(&world, &Trial::Works).await, State::RevokeReady);
    found(&world, 3).await;
    assert_eq!(step(&world, &Trial::Works).await, State::Rolling);
    world.settle(works).await;
    assert_eq!(step(&world, &Trial::Works).await, State::RevokeReady);
    let row = newest(&world).await;
    assert_eq!(row.campaign.old, Some(KeyVersion(2)), "it was proven");
    assert_eq!(row.campaign.dying().len(), 2);
    let waits = waits(&world).await;
    assert!(waits[0].contains("0 of 2 people"), "{waits:?}");
}

#[tokio::test]
async fn a_leaked_version_dies_first_and_only_who_agreed_with_that() {
    let world = world(1).await;
    let mut wanted = Wanted {
        key: "openai".to_owned(),
        reason: "it was in a repository".to_owned(),
        revoke_first: true,
        yes: false,
    };
    let admin = admin("ana");
    let refused = world.app.start_campaign(&admin, wanted.clone()).await;
    let text = refused.unwrap_err().to_string();
    assert!(
        text.contains("4 bindings on 4 deployments use key openai v1"),
        "{text}"
    );
    wanted.yes = true;
    world
        .app
        .start_campaign(&admin, wanted.clone())
        .await
        .unwrap();
    let again = world.app.start_campaign(&admin, wanted).await.unwrap_err();
    assert!(again.to_string().contains("one at a time"), "{again}");
    assert_eq!(step(&world, &Trial::Works).await, State::Revoking);
    assert_eq!(states(&world).await, [(1, KeyState::Retiring)]);
    say(&world, "ana", Verb::Confirm).await.unwrap();
    assert_eq!(step(&world, &Trial::Refused(3)).await, State::Minting);
    assert_eq!(
        waits(&world).await,
        ["write the new version to Vault at secret/keyfleet/openai#api_key"]
    );
    found(&world, 2).await;
    assert_eq!(step(&world, &Trial::Works).await, State::Rolling);
    world.settle(works).await;
    assert_eq!(step(&world, &Trial::Works).await, State::Closed);
    assert_eq!(
        states(&world).await,
        [(2, KeyState::Current), (1, KeyState::Revoked)]
    );
}

#[tokio::test]
async fn andon_and_pause_hold_it_where_it_is() {
    let world = world(1).await;
    ready(&world).await;
    say(&world, "ana", Verb::Pause).await.unwrap();
    say(&world, "ana", Verb::Approve).await.unwrap();
    assert_eq!(step(&world, &Trial::Works).await, State::Halted);
    say(&world, "ana", Verb::Resume).await.unwrap();
    let pull = async |on| {
        let reason = "look".to_owned();
        let set = move |tx: &keyfleet_store::Tx<'_>| set(tx, &ops(), on, reason, clock::now());
        world.write(set).await;
    };
    pull(true).await;
    assert_eq!(step(&world, &Trial::Works).await, State::RevokeReady);
    assert_eq!(waits(&world).await, ["the fleet is stopped by andon"]);
    pull(false).await;
    assert_eq!(step(&world, &Trial::Works).await, State::Revoking);
}
