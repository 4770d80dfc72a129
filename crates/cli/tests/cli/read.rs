//! Everything that only reads: `get`, `describe`, `status`, in every format.

use crate::fake::VIEWER;
use crate::harness::{Home, State, check, rollout, troubled, two_deployments};
use keyfleet_proto::v1;

fn home() -> Home {
    use v1::BindingState::{Failed, Proven};
    let mut state = two_deployments();
    let halted = rollout(
        v1::RolloutPhase::Halted,
        "1 AUTH failure of 0 allowed in wave rest",
        [Proven, Failed],
    );
    let mut done = rollout(v1::RolloutPhase::Completed, "", [Proven, Proven]);
    done.id = crate::fake::ROLLOUT_IDS[1].into();
    let waiting = v1::Waiting {
        deployment: String::new(),
        sentence: "wave rest soaks for 4m more".into(),
    };
    state.rollouts = vec![
        v1::Rollout {
            waiting: vec![waiting],
            ..halted
        },
        done,
    ];
    state.problems = vec!["Vault does not answer since 12:00: connection refused".into()];
    Home::new(state)
}

#[test]
fn lists_are_tables() {
    let home = home();
    let mut text = String::new();
    for kind in [
        "deployments",
        "connectors",
        "placements",
        "strategies",
        "keys",
        "bindings",
        "rollouts",
    ] {
        text += &format!("# get {kind}\n{}\n", home.run(&["get", kind]));
    }
    text += &format!(
        "# get deployments -l\n{}\n",
        home.run(&["get", "deployments", "-l", "env=prod"])
    );
    text += &format!(
        "# get deployments -l\n{}\n",
        home.run(&["get", "deployments", "-l", "env=lab"])
    );
    text += &format!(
        "# get bindings\n{}\n",
        home.run(&["get", "bindings", "--deployment", "kibana-b"])
    );
    text += &format!(
        "# get rollouts\n{}\n",
        home.run(&["get", "rollouts", "--active"])
    );
    text += &format!("# key list\n{}\n", home.run(&["key", "list"]));
    check("get_table", &text);
}

#[test]
fn wide_lists_hold_everything() {
    let home = home();
    let mut text = String::new();
    for kind in ["deployments", "connectors", "keys", "bindings", "rollouts"] {
        text += &format!(
            "# get {kind} -o wide\n{}\n",
            home.run(&["get", kind, "-o", "wide"])
        );
    }
    check("get_wide", &text);
}

#[test]
fn machines_get_canonical_json_and_the_same_as_yaml() {
    let home = home();
    let json = home.run(&["get", "bindings", "--deployment", "kibana-b", "-o", "json"]);
    let yaml = home.run(&["get", "bindings", "--deployment", "kibana-b", "-o", "yaml"]);
    check(
        "get_machine",
        &[json, yaml, home.run(&["get", "tokens", "-o", "json"])].join("\n"),
    );
}

#[test]
fn an_object_is_described() {
    let home = home();
    let text = [
        home.run(&["describe", "deployment", "kibana-a"]),
        home.run(&["describe", "deployment", "kibana-b"]),
        home.run(&["describe", "connector", "assistant"]),
        home.run(&["describe", "key", "openai-prod"]),
        home.run(&["describe", "rollout"]),
        home.run(&["describe", "deployment", "kibana-x"]),
        home.run(&["describe", "deployment", "kibana-b", "-o", "yaml"]),
    ];
    check("describe", &text.join("\n"));
}

#[test]
fn status_says_what_is_wrong() {
    let home = home();
    check("status", &home.run(&["status"]));
    let versions = home.run(&["version", "--control"]);
    assert!(versions.contains("\ncontrol 0.1.0\n"), "{versions}");
}

#[test]
fn what_is_wrong_stands_in_every_view() {
    let home = Home::new(troubled());
    let text = [
        home.run(&["status"]),
        home.run(&["andon", "status"]),
        home.run(&["get", "deployments"]),
        home.run(&["deployment", "list", "-o", "wide"]),
        home.run(&["describe", "deployment", "kibana-a"]),
        home.run(&["deployment", "show", "kibana-b"]),
        home.run(&["get", "connectors"]),
        home.run(&["describe", "connector", "assistant"]),
        home.run(&["get", "placements"]),
        home.run(&["get", "strategies"]),
    ];
    check("trouble", &text.join("\n"));
}

#[test]
fn an_empty_fleet_keeps_a_pipe_empty() {
    let home = Home::new(State::default());
    let text =
        ["deployments", "bindings", "rollouts", "tokens"].map(|kind| home.run(&["get", kind]));
    check("get_empty", &text.join("\n"));
    assert_eq!(home.run(&["get", "tokens", "--quiet"]), "exit 0\n");
}

#[test]
fn a_viewer_may_read() {
    let home = Home::without_context(two_deployments());
    home.add_context("view", VIEWER);
    assert!(home.run(&["get", "deployments"]).starts_with("exit 0"));
}

#[test]
fn a_closed_pipe_is_no_error() {
    use std::process::Stdio;
    let home = home();
    let mut child = home
        .command(&["get", "bindings"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
