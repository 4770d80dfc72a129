//! Labels, scopes and settings: what else decides who has what, and who may change it.

use std::collections::BTreeMap;

use keyfleet_core::token::Role;
use keyfleet_store::Binding;

use super::operator::{
    CONNECTOR, NO, PLACEMENT, YES, actor, apply, batch, deletion, label, label_as, said, shown,
};
use super::world::{World, spread, works};
use crate::app::apply::Intent;

#[tokio::test]
async fn labels_move_a_deployment_and_who_has_a_binding_keeps_it() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    let others = PLACEMENT.replace(
        "[assistant]",
        "[assistant], selector: {matchLabels: {tier: other}}",
    );
    let canary = PLACEMENT.replace("everywhere", "canary").replace(
        "[assistant]",
        "[assistant], selector: {matchLabels: {zone: new}}",
    );
    let no = said(apply(&world, &others, "", NO).await);
    assert!(no.contains("removes 1 binding "), "{no}");
    apply(&world, &format!("{others}{canary}"), "", YES)
        .await
        .unwrap();
    world.settle(works).await;
    assert_eq!(shown(&world).await.len(), 1);

    // Now both placements ask for it.
    let both = label(&world, ("zone", "new"), NO).await.unwrap();
    let warned = both
        .warnings
        .iter()
        .find(|w| w.contains("canary and everywhere both place"));
    assert!(
        warned.unwrap().contains("belongs to everywhere"),
        "{both:?}"
    );
    assert_eq!(both.objects[0].details, ["labels.zone: (none) -> new"]);
    assert_eq!(world.bindings().await["b"].placement.as_str(), "everywhere");
    // Nobody is kept from applying something else, nor the same again.
    let again = apply(&world, &format!("{CONNECTOR}{others}{canary}"), "", NO)
        .await
        .unwrap();
    assert!(
        again
            .result
            .warnings
            .iter()
            .any(|w| w.contains("belongs to everywhere"))
    );

    // The owner does not ask for it any more: the other takes over, and nothing is written anywhere.
    world.settle(works).await;
    let told = world.bindings().await["b"].desired;
    label(&world, ("tier", "none"), NO).await.unwrap();
    let binding = world.bindings().await["b"].clone();
    assert_eq!(
        (binding.placement.as_str(), binding.desired),
        ("canary", told)
    );
    let no = said(label(&world, ("zone", "old"), NO).await);
    assert!(no.contains("say --yes"), "{no}");
    assert_eq!(
        label(&world, ("zone", "old"), Intent::Plan)
            .await
            .unwrap()
            .deployments
            .len(),
        1
    );
    label(&world, ("zone", "old"), YES).await.unwrap();
    assert_eq!(
        world.holdings().await,
        BTreeMap::from([(1, 1)]),
        "not yet confirmed"
    );
    world.settle(works).await;
    assert_eq!(
        (shown(&world).await, world.holdings().await),
        (Vec::new(), BTreeMap::new())
    );
}

#[tokio::test]
async fn a_label_that_decides_who_may_have_a_key_needs_an_admin() {
    let world = World::new(&["canary", "b"]).await;
    world
        .write(|tx| {
            let mut key = tx.keys()?.remove(0).key;
            key.scope = "env=prod".parse().unwrap();
            Ok(tx.put_key(&key)?)
        })
        .await;
    let no = said(label(&world, ("env", "prod"), YES).await);
    assert!(
        no.contains("label env decides who may have key openai"),
        "{no}"
    );
    label(&world, ("zone", "eu"), YES).await.unwrap();
    let admin = actor(Role::Admin, "");
    label_as(&world, &admin, "b", ("env", "prod"), YES)
        .await
        .unwrap();
    world.settle(works).await;
    assert!(world.bindings().await["b"].is_converged());
    let out = label_as(&world, &admin, "b", ("env", "test"), YES)
        .await
        .unwrap();
    assert!(
        out.warnings.iter().any(|w| w.contains("not in the scope")),
        "{out:?}"
    );
    let bindings = world.bindings().await;
    assert_eq!(
        bindings["b"].running, bindings["b"].goal,
        "what works stays"
    );
    let waiting = shown(&world).await;
    let of_b = waiting.iter().find(|b| b.deployment == "b").unwrap();
    assert!(
        of_b.waiting.contains("only be used where env=prod"),
        "{of_b:?}"
    );
    let id = world.names.iter().find(|(_, name)| *name == "b").unwrap().0;
    assert_eq!(world.app.desired(*id).await.unwrap().document.bindings, []);
}

#[tokio::test]
async fn a_token_with_a_scope_changes_what_touches_its_deployments_alone() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    let scoped = actor(Role::Admin, "tier=canary");
    let own = "tier: canary";
    let placed = |name: &str, label: &str| {
        format!(
            "apiVersion: keyfleet/v1\nkind: Placement\nmetadata: {{name: {name}}}\nspec: {{connectors: [helper], spaces: [soc], selector: {{matchLabels: {{{label}}}}}}}\n"
        )
    };
    let helper = CONNECTOR.replace("assistant", "helper");
    for (text, words) in [
        (format!("{helper}---\n{}", placed("own", own)), ""),
        (placed("theirs", "tier: other"), "may reach others"),
        (placed("all", ""), "may reach others"),
        (placed("everywhere", own), "may reach others"),
        (CONNECTOR.replace("Assistant", "Other"), "placement everywhere may reach others"),
        (helper.replace("Assistant", "Other"), ""),
        ("apiVersion: keyfleet/v1\nkind: Strategy\nmetadata: {name: slow}\nspec: {waves: [{name: all, concurrency: 1}]}\n".to_owned(), "whole fleet"),
    ] {
        let found = said(world.app.apply(&scoped, batch(&text, "", false), YES).await);
        assert!(found.contains(words) && found.is_empty() == words.is_empty(), "{text}: {found:?}");
    }
    for (kind, name, words) in [
        ("Placement", "everywhere", "may reach others"),
        ("Connector", "assistant", "may reach others"),
        ("Key", "openai", "whole fleet"),
        ("Placement", "own", ""),
    ] {
        let found = said(
            world
                .app
                .delete_object(&scoped, deletion(kind, name, YES))
                .await,
        );
        assert!(
            found.contains(words) && found.is_empty() == words.is_empty(),
            "{kind} {name}: {found:?}"
        );
    }
    // What is wrong elsewhere is nobody's business.
    let named = |warnings: &[String]| warnings.iter().any(|w| w.contains("deployment b "));
    world
        .write(|tx| {
            let mut key = tx.keys()?.remove(0).key;
            key.scope = "tier=canary".parse().unwrap();
            Ok(tx.put_key(&key)?)
        })
        .await;
    let unchanged = helper.replace("Assistant", "Other");
    for (who, sees) in [(&actor(Role::Admin, ""), true), (&scoped, false)] {
        let same = world
            .app
            .apply(who, batch(&unchanged, "", false), Intent::Plan);
        let result = same.await.unwrap().result;
        assert_eq!(named(&result.warnings), sees, "{result:?}");
    }
    for (name, set, words) in [
        ("b", ("zone", "eu"), "b is none of them"),
        ("b", ("tier", "canary"), "b is none of them"),
        ("canary", ("tier", "other"), "canary is none of them"),
        ("canary", ("zone", "eu"), ""),
    ] {
        let found = said(label_as(&world, &scoped, name, set, YES).await);
        assert!(
            found.contains(words) && found.is_empty() == words.is_empty(),
            "{name} {set:?}: {found:?}"
        );
    }
}

#[tokio::test]
async fn one_deployment_is_not_flooded() {
    let world = World::new(&["canary"]).await;
    let spaces = |n: usize| {
        (0..n)
            .map(|i| format!("s{i}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let placed = |name: usize, n: usize| {
        format!(
            "---\napiVersion: keyfleet/v1\nkind: Placement\nmetadata: {{name: p{name}}}\nspec: {{connectors: [a{name}, b{name}, c{name}, d{name}, e{name}], spaces: [{}]}}\n",
            spaces(n)
        )
    };
    let connectors: String = (0..4)
        .flat_map(|n| {
            ["a", "b", "c", "d", "e"].map(|c| {
                format!(
                    "---\n{}",
                    CONNECTOR.replace("assistant", &format!("{c}{n}"))
                )
            })
        })
        .collect();
    let placed_on: String = (0..3).map(|name| placed(name, 100)).collect();
    apply(&world, &format!("{connectors}{placed_on}"), "", NO)
        .await
        .unwrap();
    let found = said(apply(&world, &placed(3, 100), "", NO).await);
    assert!(
        found.contains("deployment canary would have 2001 bindings"),
        "{found}"
    );
    let found = said(apply(&world, &placed(3, 101), "", NO).await);
    assert!(found.contains("spec.spaces: has 101 entries"), "{found}");
}

#[tokio::test]
async fn a_setting_that_is_narrowed_stops_keys_and_breaks_nothing_else() {
    let world = World::new(&["canary", "b"]).await;
    world.settle(works).await;
    let hosts = |text: &str| vec![text.parse().unwrap()];
    let (wide, narrow) = (hosts("api.openai.com"), hosts("gateway.example"));
    world.write(move |tx| Ok(tx.set_outbound(&narrow)?)).await;
    world.new_key_version(2).await;
    world.settle(works).await;
    let bindings = world.bindings().await;
    assert!(
        bindings.values().all(Binding::is_converged),
        "nothing was begun: {bindings:?}"
    );
    for binding in shown(&world).await {
        assert!(
            binding.waiting.contains("setting outbound.allowed_hosts"),
            "{binding:?}"
        );
    }
    for id in world.names.keys() {
        assert_eq!(world.app.desired(*id).await.unwrap().document.bindings, []);
    }
    // Something else can still be applied, with a warning; the connector itself cannot.
    let other = apply(&world, PLACEMENT, "", NO).await.unwrap().result;
    assert!(
        other.warnings[0].contains("connector assistant"),
        "{other:?}"
    );
    let same = said(apply(&world, CONNECTOR, "", NO).await);
    assert!(same.starts_with("f.yaml:8: spec.config.apiUrl"), "{same}");
    // It may be removed all the same, and comes back with the setting.
    world.write(move |tx| Ok(tx.set_outbound(&wide)?)).await;
    world
        .write(|tx| spread(tx, "the setting is wide again"))
        .await;
    world.settle(works).await;
    assert_eq!(world.holdings().await, BTreeMap::from([(2, 2)]));
}

#[tokio::test]
async fn a_setting_that_allowed_nothing_and_is_widened_goes_on_by_itself() {
    let world = World::new(&["canary"]).await;
    world.settle(works).await;
    world.write(|tx| Ok(tx.set_outbound(&[])?)).await;
    world.new_key_version(2).await;
    world.settle(works).await;
    assert_eq!(world.holdings().await, BTreeMap::from([(1, 1)]));
    // Control starts with its usual setting.
    world.app.settle_outbound().await.unwrap();
    world.settle(works).await;
    assert_eq!(world.holdings().await, BTreeMap::from([(2, 1)]));
}
