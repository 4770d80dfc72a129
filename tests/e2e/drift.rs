//! What somebody else does to a connector is corrected or told, as the placement says; a changed say reaches the agents.

use serde_json::Value;

use crate::crash::{CREATES, LISTS, SOC, SOC_BINDINGS, UPDATES, WATCHFUL};
use crate::kit::Fleet;

#[test]
fn what_somebody_deletes_or_edits_is_corrected() {
    let fleet = drifting("drift-correct");
    let id = connector_in_default(&fleet);
    fleet.meddle("soc", "DELETE", &id, "").unwrap();
    fleet
        .wait_for_requests("soc", CREATES, SOC_BINDINGS + 1)
        .unwrap();
    fleet.wait_until_proven("1").unwrap();
    assert_eq!(fleet.n_connectors("soc").unwrap(), SOC_BINDINGS);
    fleet.meddle("soc", "PUT", &id, MEDDLING).unwrap();
    fleet.wait_for_requests("soc", UPDATES, 2).unwrap();
    let is_ours = || {
        (!fleet
            .connectors("soc")
            .ok()?
            .to_string()
            .contains("meddled"))
        .then_some(())
    };
    fleet.wait_until("the edit is undone", is_ours).unwrap();
    fleet.wait_until_proven("1").unwrap();
    assert_eq!(fleet.requests("soc", CREATES).unwrap(), SOC_BINDINGS + 1);
    assert_eq!(
        fleet.requests("soc", UPDATES).unwrap(),
        2,
        "the edit and its correction"
    );
}

#[test]
fn with_the_policy_report_an_edit_is_told_and_left() {
    let fleet = Fleet::start_as("drift-report", &SOC, &WATCHFUL).unwrap();
    fleet
        .manifests
        .edit("placement.yaml", "drift: correct", "drift: report")
        .unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    edit_is_reported(&fleet);
}

#[test]
fn a_changed_policy_reaches_the_agent_and_nothing_is_written_for_it() {
    let fleet = drifting("policy-changed");
    fleet
        .manifests
        .edit("placement.yaml", "drift: correct", "drift: report")
        .unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let told = || (fleet.n_told().ok()? == 2).then_some(());
    fleet
        .wait_until("the agent has the new policy", told)
        .unwrap();
    assert_eq!(
        fleet.writes().unwrap(),
        SOC_BINDINGS,
        "a policy is no change of a connector"
    );
    fleet.wait_until_proven("1").unwrap();
    edit_is_reported(&fleet);
}

#[test]
fn a_changed_setting_of_control_reaches_the_agents_after_a_restart() {
    let mut fleet = drifting("setting-changed");
    let config = fleet.stack.dir().join("control.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace("[agents]", "[agents]\nidle_probe_hours = 7"),
    )
    .unwrap();
    fleet.control.process.restart().unwrap();
    let told = || (fleet.n_told().ok()? == 2).then_some(());
    fleet
        .wait_until("the agent has the new interval", told)
        .unwrap();
    fleet.wait_until_proven("1").unwrap();
    assert_eq!(
        fleet.writes().unwrap(),
        SOC_BINDINGS,
        "an interval is no change of a connector"
    );
    assert!(
        !fleet.agents[0]
            .1
            .log()
            .unwrap()
            .contains("rejected a desired state")
    );
}

/// Somebody edits the connector in the default space, where the policy is `report`.
fn edit_is_reported(fleet: &Fleet) {
    let id = connector_in_default(fleet);
    fleet.meddle("soc", "PUT", &id, MEDDLING).unwrap();
    let drifted = || {
        fleet
            .bindings()
            .ok()?
            .into_iter()
            .find(|b| b["state"] == "BINDING_STATE_DRIFTED")
    };
    let drifted = fleet.wait_until("the edit is reported", drifted).unwrap();
    assert!(
        drifted["text"].as_str().unwrap().contains("meddled"),
        "{drifted}"
    );
    let rounds = fleet.requests("soc", LISTS).unwrap() + 3 * SOC_BINDINGS;
    fleet.wait_for_requests("soc", LISTS, rounds).unwrap();
    assert_eq!(
        fleet.requests("soc", UPDATES).unwrap(),
        1,
        "only the edit itself"
    );
    assert!(
        fleet
            .connectors("soc")
            .unwrap()
            .to_string()
            .contains("meddled")
    );
}

/// The id of the connector whose placement is `everywhere`.
fn connector_in_default(fleet: &Fleet) -> Value {
    let connectors = fleet.connectors("soc").unwrap();
    let mut all = connectors.as_array().unwrap().iter();
    all.find(|c| c["space"] == "default").unwrap()["id"].clone()
}

/// What somebody who is not Keyfleet writes to a connector.
const MEDDLING: &str = r#"{"name": "meddled",
    "config": {"apiProvider": "OpenAI", "apiUrl": "http://127.0.0.1:9/v1/chat/completions", "defaultModel": "gpt-4o"},
    "secrets": {"apiKey": "not-a-key"}}"#;

/// A fleet at rest whose agent looks for drift every second.
fn drifting(name: &str) -> Fleet {
    let fleet = Fleet::start_as(name, &SOC, &WATCHFUL).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    fleet
}
