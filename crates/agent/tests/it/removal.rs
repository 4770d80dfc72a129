//! What goes, and what must hold before it goes.

use keyfleet_proto::v1::{self, BindingState, FailureClass};

use crate::harness::{Harness, PLACE};

const NEWER: &str = "default/newer";

/// All that control says of a removal.
fn removal(known: &v1::DesiredBinding) -> v1::DesiredBinding {
    v1::DesiredBinding {
        binding: known.binding.clone(),
        connector_id: known.connector_id.clone(),
        adopted: known.adopted,
        attempt: 1,
        remove: true,
        ..v1::DesiredBinding::default()
    }
}

async fn until_removed(harness: &Harness, place: &str) {
    harness
        .control
        .until(&format!("{place} is removed"), |state| {
            state
                .statuses
                .get(place)
                .is_some_and(|status| status.removed)
        })
        .await;
}

#[tokio::test]
async fn what_rules_refer_to_stays_until_that_is_agreed() {
    let mut harness = Harness::start().await;
    harness.run();
    let binding = harness.binding(PLACE, 1, 1);
    harness.prove(binding.clone()).await;
    harness.refer_to(&binding.connector_id, 3).await;
    let agreed = |n| v1::DesiredBinding {
        references_agreed: n,
        ..removal(&binding)
    };
    harness.push(vec![agreed(2)]);
    let status = harness
        .control
        .until_state(PLACE, BindingState::Failed)
        .await;
    assert_eq!(status.failure_class(), FailureClass::Conflict);
    assert_eq!(status.references, 3);
    for part in ["3 rules or others refer", "agreed were 2", "rollout retry"] {
        assert!(status.text.contains(part), "{}", status.text);
    }
    assert_eq!(harness.writes().await.2, 0);
    // What was seen is agreed to.
    harness.push(vec![agreed(3)]);
    until_removed(&harness, PLACE).await;
    assert!(harness.connectors().await.is_empty());
    harness.stop().await;
}

#[tokio::test]
async fn what_nobody_refers_to_any_more_goes_by_itself() {
    let mut harness = Harness::start().await;
    harness.run();
    let binding = harness.binding(PLACE, 1, 1);
    harness.prove(binding.clone()).await;
    harness.refer_to(&binding.connector_id, 1).await;
    harness.push(vec![removal(&binding)]);
    let status = harness
        .control
        .until_state(PLACE, BindingState::Failed)
        .await;
    assert!(
        status.text.contains("1 rule or other refers"),
        "{}",
        status.text
    );
    harness.refer_to(&binding.connector_id, 0).await;
    until_removed(&harness, PLACE).await;
    harness.stop().await;
}

/// The older one with what it waits for, and the newer one.
fn migration(harness: &Harness) -> Vec<v1::DesiredBinding> {
    let older = v1::DesiredBinding {
        after_connector: "newer".to_owned(),
        ..removal(&harness.binding(PLACE, 1, 1))
    };
    vec![older, harness.binding(NEWER, 1, 1)]
}

#[tokio::test]
async fn the_older_one_stays_until_the_newer_one_is_proven() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    let in_soc = harness.binding("soc/newer", 1, 1);
    harness
        .kibana_faults(serde_json::json!({"api": {"mode": "status", "status": 503, "path_contains": "/s/soc/", "methods": ["POST"]}}))
        .await;
    let mut bindings = migration(&harness);
    bindings.push(in_soc);
    harness.push(bindings);
    // It is proven in one space of two.
    harness
        .control
        .until_state(NEWER, BindingState::Proven)
        .await;
    let status = harness
        .control
        .until_state(PLACE, BindingState::Received)
        .await;
    assert_eq!(status.text, "stays until newer is proven here");
    assert_eq!(harness.writes().await.2, 0);
    harness.kibana_faults(serde_json::json!({})).await;
    until_removed(&harness, PLACE).await;
    assert_eq!(
        harness.control.state().state_of("soc/newer"),
        BindingState::Proven
    );
    harness.stop().await;
}

#[tokio::test]
async fn the_order_holds_across_a_restart_and_the_fleets_stop() {
    let mut harness = Harness::start().await;
    harness.run();
    harness.prove(harness.binding(PLACE, 1, 1)).await;
    harness
        .kibana_faults(serde_json::json!({"provider": {"status": 401}}))
        .await;
    let bindings = migration(&harness);
    harness.push(bindings);
    harness
        .control
        .until_state(NEWER, BindingState::Failed)
        .await;
    harness.stop().await;
    harness.control.change(|state| {
        state.statuses.clear();
        state.andon = true;
    });
    harness.run();
    harness
        .control
        .until_state(NEWER, BindingState::Failed)
        .await;
    harness
        .control
        .until_state(PLACE, BindingState::Received)
        .await;
    // The newer one went away by itself: nothing takes the older one's place.
    harness.kibana_faults(serde_json::json!({})).await;
    let alone = migration(&harness).remove(0);
    harness.push(vec![alone]);
    harness
        .control
        .until("the lone removal waits", |state| {
            let generation = state
                .desired
                .as_ref()
                .and_then(|desired| desired.generation);
            let status = &state.statuses[PLACE];
            status.generation == generation && status.state() == BindingState::Received
        })
        .await;
    assert_eq!(harness.writes().await.2, 0);
    harness.stop().await;
}

#[tokio::test]
async fn what_was_there_before_is_taken_over_and_removed_like_any_other() {
    let mut harness = Harness::start().await;
    let id = harness.add_foreign("default", "Somebody's own").await;
    harness.run();
    let binding = v1::DesiredBinding {
        connector_id: id.clone(),
        adopted: true,
        ..harness.binding(PLACE, 1, 2)
    };
    let status = harness.prove(binding.clone()).await;
    assert_eq!(status.baseline_ok, Some(true));
    let connectors = harness.connectors().await;
    assert_eq!(
        (&connectors[0]["id"], &connectors[0]["name"]),
        (&serde_json::json!(id), &serde_json::json!("OpenAI r1"))
    );
    assert_eq!(connectors[0]["secret_tail"], "Wy2Z");
    assert_eq!(connectors.len(), 1);
    harness.push(vec![removal(&binding)]);
    until_removed(&harness, PLACE).await;
    assert!(harness.connectors().await.is_empty());
    harness.stop().await;
}

#[tokio::test]
async fn what_was_there_before_and_may_not_be_taken_over_stays_as_it_is() {
    let mut harness = Harness::start_with(|options| {
        options.preconfigured = vec![("kept".to_owned(), "Kept in kibana.yml".to_owned())];
    })
    .await;
    let id = harness.add_foreign("default", "Somebody's own").await;
    harness.run();
    let adopt = |connector: &str, id: &str| v1::DesiredBinding {
        connector_id: id.to_owned(),
        adopted: true,
        ..harness.binding(&format!("default/{connector}"), 1, 1)
    };
    let bindings = vec![
        adopt("read-only", "kept"),
        adopt("gone", "nobody"),
        adopt("up", ".."),
        adopt("path", "a/../b"),
        adopt("blank", ""),
        removal(&adopt("never-ours", &id)),
    ];
    harness.push(bindings);
    for (place, part) in [
        ("default/read-only", "kibana.yml"),
        ("default/gone", "is gone"),
        ("default/up", "no id"),
        ("default/path", "no id"),
        ("default/blank", "no id"),
        ("default/never-ours", "never wrote"),
    ] {
        let status = harness
            .control
            .until_state(place, BindingState::Failed)
            .await;
        assert!(status.text.contains(part), "{place}: {}", status.text);
    }
    let (_, replaced, removed, _) = harness.writes().await;
    assert_eq!((replaced, removed), (0, 0));
    assert_eq!(harness.connectors().await.len(), 1);
    harness.stop().await;
}

#[tokio::test]
async fn nothing_is_adopted_where_the_agents_own_rules_forbid_it() {
    let mut harness = Harness::start().await;
    let id = harness.add_foreign("default", "Somebody's own").await;
    let mut config = harness.config();
    config.accept.adoption = false;
    harness.run_with(config);
    harness.push(vec![v1::DesiredBinding {
        connector_id: id,
        adopted: true,
        ..harness.binding(PLACE, 1, 1)
    }]);
    let status = harness
        .control
        .until_state(PLACE, BindingState::Failed)
        .await;
    assert_eq!(status.failure_class(), FailureClass::Rejected);
    assert!(status.text.contains("accept.adoption"), "{}", status.text);
    harness.stop().await;
}
