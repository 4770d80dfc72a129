//! Spaces by pattern: a new one converges by itself; one that goes, hides or loses the feature is a reason and no crash.

use anyhow::Result;
use serde_json::{Value, json};

use crate::crash::WATCHFUL;
use crate::kit::{Fleet, Member};

const SOC: [Member; 1] = [("soc", "9.4.0", &["default", "soc-eu"], &[])];

/// The placement of the examples, in every space but some.
const EVERYWHERE: &str = "spaces: [\"*\"]\n  exceptSpaces: [sandbox-*]";

fn start(name: &str) -> Result<Fleet> {
    let fleet = Fleet::start_as(name, &SOC, &WATCHFUL)?;
    fleet
        .manifests
        .edit("placement.yaml", "spaces: [default]", EVERYWHERE)?;
    fleet.apply()?.must_succeed()?;
    Ok(fleet)
}

impl Fleet {
    /// Waits until these spaces, and no others, have a proven binding.
    fn wait_for_proven_in(&self, spaces: &[&str]) -> Result<()> {
        let reached = || {
            let bindings = self.bindings().ok()?;
            let is_proven = |b: &Value| b["state"] == "BINDING_STATE_PROVEN";
            let proven: Vec<&Value> = bindings.iter().filter(|b| is_proven(b)).collect();
            let is_in = |space: &&str| proven.iter().any(|b| b["binding"]["space"] == **space);
            (proven.len() == spaces.len() && spaces.iter().all(is_in)).then_some(())
        };
        self.wait_until(&format!("proven in {spaces:?}"), reached)
    }

    /// Waits until the binding of a space says why it waits.
    fn wait_for_reason(&self, space: &str, words: &str) -> Result<Value> {
        let said = || {
            let binding = self.binding("soc", space).ok()?;
            let is_said = |field: &str| binding[field].as_str().is_some_and(|t| t.contains(words));
            (is_said("waiting") || is_said("text")).then_some(binding)
        };
        self.wait_until(&format!("{space} says {words:?}"), said)
    }

    /// Changes spaces and has the agent look, which it does every few minutes by itself.
    fn change_spaces(&self, change: &Value) -> Result<()> {
        self.say_to_kibana("soc", "/_sim/spaces", change)?;
        self.keyfleet(&["deployment", "preflight", "soc", "--fresh"])
            .map(drop)
    }
}

#[test]
fn a_new_space_converges_by_itself_and_nothing_else_is_written() {
    let fleet = start("new-space").unwrap();
    fleet.wait_for_proven_in(&["default", "soc-eu"]).unwrap();
    let before = fleet.writes().unwrap();
    fleet
        .change_spaces(&json!({"add": ["soc-us", "sandbox-1"]}))
        .unwrap();
    fleet
        .wait_for_proven_in(&["default", "soc-eu", "soc-us"])
        .unwrap();
    assert_eq!(fleet.writes().unwrap(), before + 1, "one creation");
    let rollout = fleet.rollout().unwrap();
    let cause = rollout["cause"].as_str().unwrap();
    assert!(cause.contains("soc-us"), "{cause}");
}

#[test]
fn a_space_that_hides_or_loses_the_feature_says_so_and_comes_back() {
    let fleet = start("hidden-space").unwrap();
    fleet.wait_for_proven_in(&["default", "soc-eu"]).unwrap();
    let before = fleet.writes().unwrap();
    for (away, back) in [
        (json!({"hide": ["soc-eu"]}), json!({"show": ["soc-eu"]})),
        (
            json!({"disable_actions": ["soc-eu"]}),
            json!({"enable_actions": ["soc-eu"]}),
        ),
    ] {
        fleet.change_spaces(&away).unwrap();
        fleet.wait_for_reason("soc-eu", "soc-eu").unwrap();
        assert_eq!(fleet.bindings().unwrap().len(), 2, "nothing is forgotten");
        fleet.change_spaces(&back).unwrap();
        fleet.wait_for_proven_in(&["default", "soc-eu"]).unwrap();
    }
    assert_eq!(fleet.writes().unwrap(), before, "nothing was written");
}

#[test]
fn a_space_that_is_gone_for_good_is_excepted_and_then_forgotten() {
    let fleet = start("gone-space").unwrap();
    fleet.wait_for_proven_in(&["default", "soc-eu"]).unwrap();
    fleet.change_spaces(&json!({"remove": ["soc-eu"]})).unwrap();
    fleet.wait_for_reason("soc-eu", "exceptSpaces").unwrap();
    assert_eq!(fleet.silent_bindings().unwrap(), Vec::<Value>::new());
    fleet
        .manifests
        .edit("placement.yaml", "[sandbox-*]", "[sandbox-*, soc-eu]")
        .unwrap();
    fleet
        .apply_with(&["--yes", "--wait", "--timeout", "60s"])
        .unwrap()
        .must_succeed()
        .unwrap();
    assert_eq!(fleet.bindings().unwrap().len(), 1);
    // Nothing of it holds the key any more.
    assert_eq!(fleet.key_version(1).unwrap().1, 1);
}

#[test]
fn two_hundred_spaces_converge_a_few_calls_at_a_time() {
    let fleet = Fleet::start("many-spaces", &SOC).unwrap();
    let names: Vec<String> = (0..198).map(|n| format!("team-{n:03}")).collect();
    fleet.change_spaces(&json!({ "add": names })).unwrap();
    fleet
        .manifests
        .edit("placement.yaml", "spaces: [default]", EVERYWHERE)
        .unwrap();
    fleet
        .say_to_sim("soc", "DELETE", "/_sim/requests", &Value::Null)
        .unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    assert_eq!(fleet.bindings().unwrap().len(), 200);
    fleet.wait_until_proven("1").unwrap();
    assert_eq!(fleet.count("soc", "POST").unwrap(), 200);
    let page =
        xtask::http::get(&fleet.kibana("soc").unwrap().url, "/_sim/requests/counts").unwrap();
    let counts: Value = serde_json::from_str(&page).unwrap();
    let at_once = counts["in_flight_max"].as_u64().unwrap();
    assert!((2..=10).contains(&at_once), "{at_once} calls at a time");
}
