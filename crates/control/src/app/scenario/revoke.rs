//! Whether an old key may be revoked, as operators are told.

use std::collections::BTreeSet;

use keyfleet_core::campaign::guard::blockers;
use keyfleet_core::fleet::Selector;
use keyfleet_core::id::KeyVersion;
use keyfleet_proto::v1;

use super::world::{World, ops, works};
use crate::app::revoke::Uses;
use crate::app::{Actor, view};
use crate::clock;

/// One of them may be away without holding the rollout up.
const FLEET: [&str; 12] = [
    "canary", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l",
];

/// What is said of version 1 to an operator of this scope: whether it may go, and what stands in the way.
async fn told(world: &World, scope: &str) -> (bool, Vec<String>) {
    let actor = Actor {
        scope: scope.parse::<Selector>().unwrap(),
        ..ops()
    };
    let key = world
        .app
        .view_as(&actor, |sight| view::key(sight, "openai"));
    let versions = key.await.unwrap().versions;
    let newest: &v1::KeyVersion = &versions[0];
    assert!(!newest.may_be_revoked && newest.revoke_waits.is_empty());
    let first = versions.into_iter().find(|row| row.version == 1).unwrap();
    (first.may_be_revoked, first.revoke_waits)
}

#[tokio::test]
async fn an_old_key_may_go_when_the_last_one_who_may_have_it_has_proven_another() {
    let world = World::new(&FLEET).await;
    world.settle(works).await;
    assert_eq!(told(&world, "").await, (false, Vec::new()), "it is current");
    world.new_key_version(2).await;
    for _ in 0..20 {
        world.turn_without("l", works).await;
    }
    let waits = vec!["l/default/assistant may still have it".to_owned()];
    assert_eq!(told(&world, "").await, (false, waits));
    // Who may not see it is told of it all the same, without its name.
    let waits = vec!["1 binding may still have it".to_owned()];
    assert_eq!(told(&world, "tier=canary").await, (false, waits));
    world.settle(works).await;
    assert_eq!(told(&world, "").await, (true, Vec::new()));
}

#[tokio::test]
async fn after_a_restore_an_old_key_stays_until_everybody_was_heard() {
    let world = World::new(&FLEET).await;
    world.settle(works).await;
    world.new_key_version(2).await;
    world.settle(works).await;
    assert_eq!(told(&world, "").await, (true, Vec::new()));
    let world = world.restored().await;
    let (may_be, waits) = told(&world, "").await;
    let expected = "nothing was heard of canary/default/assistant, ";
    assert!(!may_be && waits[0].starts_with(expected), "{waits:?}");
    for _ in 0..20 {
        world.turn_without("l", works).await;
    }
    let waits = "nothing was heard of l/default/assistant since a backup was restored";
    assert_eq!(told(&world, "").await, (false, vec![waits.to_owned()]));
    world.settle(works).await;
    assert_eq!(told(&world, "").await, (true, Vec::new()));
}

#[tokio::test]
async fn a_connected_binding_whose_proof_is_void_holds_an_old_key() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    world.new_key_version(2).await;
    world.settle(works).await;
    let bindings = world.bindings().await;
    let voided = bindings["b"].id.clone();
    world.write(move |tx| Ok(tx.void_evidence(&voided)?)).await;
    let online: BTreeSet<_> = world.names.keys().copied().collect();
    let uses =
        world.write(move |tx| Uses::load(tx, &"openai".parse().unwrap(), &online, clock::now()));
    let found = blockers(&uses.await.case(KeyVersion(1)));
    let sentence = "no live call proves what b/default/assistant runs now";
    let name = |id: &keyfleet_core::binding::BindingId| {
        let deployment = world.names.get(&id.deployment)?;
        Some(format!("{deployment}/{}/{}", id.space, id.connector))
    };
    let sentences: Vec<String> = found.iter().map(|blocker| blocker.sentence(name)).collect();
    assert_eq!(sentences, [sentence]);
}
