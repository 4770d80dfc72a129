//! A connector that was there before Keyfleet becomes ours after a shown difference; what is not clear is not touched.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::ask::THREE;
use crate::kit::{Fleet, KEY};

const NAME: &str = "OpenAI by hand";

const ADOPT: &str =
    "spaces: [default]\n  adopt:\n    - {connector: assistant, name: OpenAI by hand}";

impl Fleet {
    /// Makes a connector as a person did long ago.
    fn make_by_hand(&self, name: &str, more: &Value) -> Result<()> {
        let mut connector = json!({
            "name": NAME, "connector_type_id": ".gen-ai",
            "config": {"apiProvider": "OpenAI", "apiUrl": format!("{}/v1/chat/completions", self.openai.url), "defaultModel": "gpt-4o"},
            "secrets": {"apiKey": KEY}});
        let fields = connector.as_object_mut().context("no fields")?;
        fields.extend(more.as_object().context("no fields")?.clone());
        self.say_to_kibana(name, "/_sim/connectors", &connector)
            .map(drop)
    }

    /// Waits until control knows the connectors of others.
    fn wait_for_inventory(&self, name: &str, n: usize) -> Result<()> {
        let known = || {
            self.keyfleet(&["deployment", "preflight", name, "--fresh"])
                .ok()?;
            let answer = self.stack.json(&["deployment", "show", name]).ok()?;
            let facts = &answer["deployment"]["facts"];
            let is_all = facts["connectorsComplete"] == true
                && facts["connectors"].as_array().map_or(0, Vec::len) == n;
            is_all.then_some(())
        };
        self.wait_until(&format!("{n} connectors of others on {name}"), known)
    }
}

#[test]
fn one_of_that_name_is_adopted_several_and_read_only_ones_are_left_alone() {
    let fleet = Fleet::start("adoption", &THREE).unwrap();
    fleet
        .make_by_hand(
            "lab",
            &json!({"id": "0f8fad5b-d9cb-469f-a165-70867728950e"}),
        )
        .unwrap();
    fleet.make_by_hand("shop", &json!({})).unwrap();
    fleet.make_by_hand("shop", &json!({})).unwrap();
    for (name, n) in [("lab", 1), ("shop", 2), ("web", 0)] {
        fleet.wait_for_inventory(name, n).unwrap();
    }
    fleet
        .manifests
        .edit("placement.yaml", "spaces: [default]", ADOPT)
        .unwrap();
    let dir = fleet.manifests.dir().to_string_lossy().into_owned();
    let plan = fleet.keyfleet(&["plan", "-f", &dir]).unwrap();
    let plan = plan.must_succeed().unwrap().out;
    for words in [
        "0f8fad5b-d9cb-469f-a165-70867728950e",
        "defaultModel",
        "2 connectors",
    ] {
        assert!(plan.contains(words), "{words:?} is not in {plan}");
    }
    fleet.begin_apply().unwrap();
    fleet.wait_for_state("lab", "PROVEN").unwrap();
    // The same connector, with what we say and the key that we brought.
    assert_eq!(fleet.n_connectors("lab").unwrap(), 1);
    assert_eq!(fleet.writes_of("lab").unwrap(), [0, 1, 0]);
    let adopted = fleet.connectors("lab").unwrap();
    assert_eq!(adopted[0]["id"], "0f8fad5b-d9cb-469f-a165-70867728950e");
    assert_ne!(adopted[0]["name"], NAME);
    // Where there is none a new one is made; where there are two nothing is touched, and both are named.
    fleet.wait_for_state("web", "PROVEN").unwrap();
    assert_eq!(fleet.n_connectors("web").unwrap(), 1);
    assert_eq!(fleet.writes_of("shop").unwrap(), [0, 0, 0]);
    let waiting = fleet.binding("shop", "default").unwrap()["waiting"].clone();
    assert!(
        waiting.as_str().unwrap().contains("2 connectors"),
        "{waiting}"
    );
    assert_eq!(fleet.silent_bindings().unwrap(), Vec::<Value>::new());
}

#[test]
fn a_connector_that_rules_refer_to_goes_only_with_the_operators_word() {
    let fleet = Fleet::start_applied("references", &THREE).unwrap();
    let id = fleet.connectors("lab").unwrap()[0]["id"].clone();
    let id = id.as_str().unwrap();
    fleet
        .say_to_sim("lab", "PUT", "/_sim/references", &json!({ id: 3 }))
        .unwrap();
    // Nobody has seen them yet: agreeing to the removal is not agreeing to break three rules.
    let delete = [
        "delete",
        "placement",
        "everywhere",
        "--reason",
        "x",
        "--yes",
    ];
    fleet.keyfleet(&delete).unwrap().must_succeed().unwrap();
    let said = || {
        let text = fleet.binding("lab", "default").ok()?["text"].clone();
        text.as_str()?.contains("3 rules").then_some(())
    };
    fleet.wait_until("the references are told", said).unwrap();
    assert_eq!(fleet.n_connectors("lab").unwrap(), 1);
    let rollout = fleet.rollout_id().unwrap();
    fleet.say("retry", &rollout).unwrap();
    fleet
        .wait_until("the connector is gone", || {
            (fleet.n_connectors("lab").ok()? == 0).then_some(())
        })
        .unwrap();
}
