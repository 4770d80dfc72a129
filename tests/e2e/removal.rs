//! What operators take away goes as a rollout: by name, by labels, by a set's files. Nothing is forgotten before the
//! agent has confirmed it.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::ask::THREE;
use crate::kit::{Fleet, PATIENCE};

impl Fleet {
    /// Connectors that operators see, with the revision of each.
    fn listed(&self) -> Result<Vec<(String, String)>> {
        let answer = self.stack.json(&["get", "connectors"])?;
        let all = answer["connectors"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(all
            .iter()
            .map(|c| (text(&c["name"]), text(&c["revision"])))
            .collect())
    }

    /// Waits until a Kibana holds so many connectors.
    fn wait_for_connectors(&self, name: &str, n: u64) -> Result<()> {
        let reached = || (self.n_connectors(name).ok()? == n).then_some(());
        self.wait_until(&format!("{name} has {n} connectors"), reached)
    }

    /// Bindings that may still hold the first version of the key.
    fn held(&self) -> Result<u64> {
        Ok(self.key_version(1)?.1)
    }
}

const DELETE: [&str; 5] = [
    "delete",
    "placement",
    "everywhere",
    "--reason",
    "nobody needs it",
];

#[test]
fn a_deleted_placement_goes_from_everybody_who_is_there_and_from_who_returns() {
    let mut fleet = Fleet::start("delete", &THREE).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let used = fleet
        .keyfleet(&["delete", "connector", "assistant", "--reason", "x", "--yes"])
        .unwrap();
    assert!(
        used.code == 1 && used.err.contains("used by placement"),
        "{used:?}"
    );
    let refused = fleet.keyfleet(&DELETE).unwrap();
    assert!(
        refused.code != 0 && refused.err.contains("--yes"),
        "{refused:?}"
    );

    fleet.agent_mut("web").unwrap().terminate(PATIENCE).unwrap();
    fleet
        .keyfleet(&[&DELETE[..], &["--yes"]].concat())
        .unwrap()
        .must_succeed()
        .unwrap();
    // The other placement of the connector places nothing here; then the connector itself.
    for (kind, name) in [("placement", "security-spaces"), ("connector", "assistant")] {
        let delete = ["delete", kind, name, "--reason", "nobody needs it", "--yes"];
        fleet.keyfleet(&delete).unwrap().must_succeed().unwrap();
    }
    fleet.wait_for_connectors("lab", 0).unwrap();
    fleet.wait_for_connectors("shop", 0).unwrap();
    assert_eq!(fleet.n_connectors("web").unwrap(), 1);
    fleet
        .wait_until("only web holds the key", || {
            (fleet.held().ok()? == 1).then_some(())
        })
        .unwrap();
    assert_eq!(fleet.silent_bindings().unwrap(), Vec::<Value>::new());
    assert_eq!(
        fleet.listed().unwrap().len(),
        1,
        "a tombstone until web confirms"
    );
    let key = fleet
        .keyfleet(&["delete", "key", "openai", "--reason", "x", "--yes"])
        .unwrap();
    assert!(
        key.err
            .contains("may still be held by 1 bindings (web/default/assistant"),
        "{key:?}"
    );

    fleet.agent_mut("web").unwrap().restart().unwrap();
    fleet.wait_for_connectors("web", 0).unwrap();
    fleet
        .wait_until("nobody holds the key", || {
            (fleet.held().ok()? == 0).then_some(())
        })
        .unwrap();
    fleet
        .wait_until("the connector is gone from the lists", || {
            fleet.listed().ok()?.is_empty().then_some(())
        })
        .unwrap();
    for (name, _, _, _) in THREE {
        assert_eq!(
            fleet.writes_of(name).unwrap(),
            [1, 0, 1],
            "{name}: POST, PUT, DELETE"
        );
    }

    everything_comes_again_under_its_name(&fleet);
}

/// Once nobody holds the Key any more it can go too.
fn everything_comes_again_under_its_name(fleet: &Fleet) {
    fleet
        .keyfleet(&["delete", "key", "openai", "--reason", "x", "--yes"])
        .unwrap()
        .must_succeed()
        .unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    assert!(fleet.is_proven("1").unwrap());
    assert_eq!(
        fleet.listed().unwrap(),
        [("assistant".to_owned(), "2".to_owned())]
    );
}

#[test]
fn labels_and_files_take_away_only_with_a_word_of_agreement() {
    let fleet = Fleet::start("prune", &THREE).unwrap();
    let wide = "spec:\n  connectors: [assistant]\n  spaces: [default]";
    let zoned = "spec:\n  selector:\n    matchExpressions: [{key: zone, operator: DoesNotExist}]\n  connectors: [assistant]\n  spaces: [default]";
    fleet.manifests.edit("placement.yaml", wide, zoned).unwrap();
    fleet
        .apply_with(&["--set", "all", "--wait"])
        .unwrap()
        .must_succeed()
        .unwrap();

    // A label edit that moves a deployment out of a placement.
    let label = [
        "deployment",
        "label",
        "shop",
        "zone=lab",
        "--reason",
        "it moved",
    ];
    let refused = fleet.keyfleet(&label).unwrap();
    assert!(refused.code != 0, "{refused:?}");
    assert_eq!(fleet.n_connectors("shop").unwrap(), 1);
    fleet
        .keyfleet(&[&label[..], &["--yes"]].concat())
        .unwrap()
        .must_succeed()
        .unwrap();
    fleet.wait_for_connectors("shop", 0).unwrap();
    fleet
        .wait_until("the removal is confirmed", || {
            (fleet.held().ok()? == 2).then_some(())
        })
        .unwrap();
    let back = [
        "deployment",
        "label",
        "shop",
        "zone-",
        "--reason",
        "it came back",
    ];
    fleet.keyfleet(&back).unwrap().must_succeed().unwrap();
    fleet.wait_for_connectors("shop", 1).unwrap();
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();

    a_new_name_is_another_connector(&fleet);
    files_without_an_object_take_it_away(&fleet);
}

const PRUNE: [&str; 3] = ["--set", "all", "--prune"];

/// The plan says so.
fn a_new_name_is_another_connector(fleet: &Fleet) {
    fleet
        .manifests
        .edit("connector.yaml", "name: assistant", "name: helper")
        .unwrap();
    fleet
        .manifests
        .edit("placement.yaml", "[assistant]", "[helper]")
        .unwrap();
    let dir = fleet.manifests.dir().to_string_lossy().into_owned();
    let plan = fleet
        .keyfleet(&[&["plan", "-f", &dir], &PRUNE[..]].concat())
        .unwrap();
    assert!(
        plan.out.contains("connector assistant becomes helper"),
        "{plan:?}"
    );
    let refused = fleet.apply_with(&PRUNE).unwrap();
    assert!(
        refused.code == 1 && refused.err.contains("removes 3 bindings"),
        "{refused:?}"
    );
    fleet
        .apply_with(&[&PRUNE[..], &["--yes", "--wait"]].concat())
        .unwrap()
        .must_succeed()
        .unwrap();
    assert_eq!(
        fleet.listed().unwrap(),
        [("helper".to_owned(), "1".to_owned())]
    );
    for (name, _, _, _) in THREE {
        assert_eq!(fleet.n_connectors(name).unwrap(), 1, "{name}");
    }
}

/// They go, and the Key when nobody holds it any more.
fn files_without_an_object_take_it_away(fleet: &Fleet) {
    for file in ["connector.yaml", "placement.yaml", "key.yaml"] {
        fs::remove_file(fleet.manifests.dir().join(file)).unwrap();
    }
    let pruned = fleet
        .apply_with(&[&PRUNE[..], &["--yes"]].concat())
        .unwrap()
        .must_succeed()
        .unwrap();
    assert!(
        format!("{}{}", pruned.out, pruned.err).contains("prune again"),
        "{pruned:?}"
    );
    fleet
        .wait_until("nobody holds the key", || {
            (fleet.held().ok()? == 0).then_some(())
        })
        .unwrap();
    fleet.apply_with(&PRUNE).unwrap().must_succeed().unwrap();
    let keys = fleet.stack.json(&["get", "keys"]).context("keys").unwrap();
    assert!(keys["keys"].as_array().is_none_or(Vec::is_empty), "{keys}");
    assert_eq!(fleet.bindings().unwrap(), Vec::<Value>::new());
}
