//! Operators whose tokens are for some deployments only: they see and change those, and who is refused is written down.

use std::fs;

use serde_json::Value;

use crate::audit::{entries, said};
use crate::kit::{FIVE, Fleet};
use crate::operators::{add_context, must_refuse, run_as};
use crate::refuse::new_token;

/// A connector of the security team's own.
const OWN: &str = "\
apiVersion: keyfleet/v1
kind: Connector
metadata:
  name: helper
spec:
  type: .gen-ai
  displayName: Helper of the security team
  key: openai
  config:
    apiProvider: OpenAI
    apiUrl: URL/v1/chat/completions
    defaultModel: gpt-5.4-mini
---
apiVersion: keyfleet/v1
kind: Placement
metadata:
  name: helpers
spec:
  selector:
    matchLabels: {team: security}
  connectors: [helper]
  spaces: [soc]
  strategyRef: canary-first
";

/// A context of a principal whose token is for the security team's deployments.
fn add_scoped(fleet: &Fleet, name: &str, role: &str) {
    let arguments = [
        "operator",
        "--principal",
        name,
        "--role",
        role,
        "--scope",
        "team=security",
    ];
    let file = new_token(fleet, name, &arguments).unwrap();
    add_context(fleet, name, &file).unwrap();
}

fn json(fleet: &Fleet, context: &str, arguments: &[&str]) -> Value {
    let all = [arguments, &["-o", "json"]].concat();
    let done = run_as(fleet, context, &all).must_succeed().unwrap();
    serde_json::from_str(&done.out).unwrap()
}

#[test]
fn a_token_with_a_scope_sees_and_changes_its_deployments_only() {
    let fleet = Fleet::start("scopes", &FIVE).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    add_scoped(&fleet, "vera", "viewer");
    add_scoped(&fleet, "otto", "operator");
    add_scoped(&fleet, "anna", "admin");
    they_see_their_own(&fleet);
    what_reaches_further_is_refused(&fleet);
    what_is_theirs_alone_is_theirs_to_do(&fleet);
    all_of_it_is_written_down(&fleet);
}

fn they_see_their_own(fleet: &Fleet) {
    for who in ["vera", "otto", "anna"] {
        let fleet_seen = json(fleet, who, &["get", "deployments"]);
        let names: Vec<&Value> = fleet_seen["deployments"]
            .as_array()
            .unwrap()
            .iter()
            .map(|deployment| &deployment["name"])
            .collect();
        assert_eq!(names, ["soc"], "{who}");
    }
    let bindings = json(fleet, "vera", &["get", "bindings"]);
    let bindings = bindings["bindings"].as_array().unwrap();
    assert_eq!(bindings.len(), 3);
    assert!(
        bindings
            .iter()
            .all(|binding| binding["deployment"] == "soc")
    );
    let status = json(fleet, "vera", &["status"]);
    assert_eq!(
        (&status["deployments"], &status["deploymentsConnected"]),
        (&1.into(), &1.into())
    );
    let rollouts = json(fleet, "vera", &["rollout", "list"]);
    let waves = rollouts["rollouts"][0]["waves"].as_array().unwrap();
    let counted: u64 = waves
        .iter()
        .filter_map(|wave| wave["deployments"].as_u64())
        .sum();
    assert_eq!(counted, 1, "{rollouts}");
    let keys = json(fleet, "vera", &["get", "keys"]);
    assert_eq!(
        (&keys["keys"][0]["name"], &keys["keys"][0]["path"]),
        (&"openai".into(), &"".into())
    );
    let unseen = run_as(fleet, "otto", &["describe", "deployment", "web"]);
    assert!(
        unseen.code != 0 && unseen.err.contains("there is no deployment"),
        "{unseen:?}"
    );
}

/// Nothing of it is done either.
fn what_reaches_further_is_refused(fleet: &Fleet) {
    fleet
        .manifests
        .edit("strategy.yaml", "soak: 2s", "soak: 10m")
        .unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    let dir = fleet.manifests.dir().to_string_lossy().into_owned();
    must_refuse(fleet, "otto", &["apply", "-f", &dir], "team=security");
    fleet.begin_apply().unwrap();
    let rollout = fleet.rollout_id().unwrap();
    must_refuse(
        fleet,
        "vera",
        &["rollout", "pause", &rollout],
        "this needs operator",
    );
    must_refuse(
        fleet,
        "otto",
        &["rollout", "pause", &rollout],
        "team=security",
    );
    must_refuse(
        fleet,
        "otto",
        &["rollout", "rollback", &rollout],
        "team=security",
    );
    acts_of_the_whole_fleet_are_refused(fleet);
    assert_eq!(
        fleet.phase_of(&rollout).unwrap(),
        "ROLLOUT_PHASE_PROGRESSING"
    );
    fleet.say("abort", &rollout).unwrap();
}

fn acts_of_the_whole_fleet_are_refused(fleet: &Fleet) {
    let stop = ["andon", "on", "--reason", "mine"];
    must_refuse(fleet, "vera", &stop, "this needs operator");
    must_refuse(fleet, "otto", &stop, "the whole fleet");
    must_refuse(fleet, "anna", &["audit", "tail"], "the whole fleet");
    let suspend = ["deployment", "suspend", "web", "--reason", "mine"];
    must_refuse(fleet, "otto", &suspend, "this needs admin");
    must_refuse(fleet, "anna", &suspend, "team=security");
    must_refuse(fleet, "anna", &["token", "create", "join"], "team=security");
}

fn what_is_theirs_alone_is_theirs_to_do(fleet: &Fleet) {
    let own = fleet.stack.dir().join("own.yaml");
    fs::write(&own, OWN.replace("URL", &fleet.openai.url)).unwrap();
    let own = own.to_string_lossy();
    run_as(
        fleet,
        "otto",
        &["apply", "-f", &own, "--wait", "--timeout", "60s"],
    )
    .must_succeed()
    .unwrap();
    assert_eq!(fleet.n_connectors("soc").unwrap(), 4);
    assert_eq!(fleet.n_connectors("web").unwrap(), 1);
}

fn all_of_it_is_written_down(fleet: &Fleet) {
    let log = entries(fleet).unwrap();
    let said = said(&log);
    for (who, action, reason) in [
        ("otto", "manifests.apply", ""),
        ("vera", "rollout.pause", ""),
        ("otto", "rollout.pause", ""),
        ("otto", "rollout.rollback", ""),
        ("vera", "andon.on", "mine"),
        ("otto", "andon.on", "mine"),
        ("anna", "audit.read", ""),
        ("otto", "deployment.suspend", "mine"),
        ("anna", "deployment.suspend", "mine"),
        ("anna", "token.create", ""),
    ] {
        let refused = [who, action, "refused", reason];
        assert!(said.contains(&refused), "{refused:?} is not in {said:#?}");
    }
    assert!(
        said.contains(&["otto", "manifests.apply", "done", ""]),
        "{said:#?}"
    );
}
