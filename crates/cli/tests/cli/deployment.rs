//! `keyfleet deployment`: trust is taken and given, and what an agent may know is told.

use crate::harness::{Home, check, held, two_deployments};

fn home() -> Home {
    let mut state = two_deployments();
    state.held = held();
    Home::new(state)
}

#[test]
fn agents_are_suspended_and_resumed() {
    let home = home();
    let suspend = [
        "deployment",
        "suspend",
        "kibana-a",
        "--reason",
        "odd logins",
    ];
    let text = [
        home.run(&suspend),
        home.run(&["get", "deployments"]),
        home.run(&suspend),
        home.run(&[
            "deployment",
            "resume",
            "kibana-a",
            "--reason",
            "host checked",
        ]),
        home.run(&[
            "deployment",
            "allow-renewal",
            "kibana-a",
            "--reason",
            "was off",
        ]),
        home.run(&["deployment", "suspend", "kibana-a"]),
        home.run(&["deployment", "suspend", "kibana-a", "--reason", " "]),
        home.run(&[&suspend[..], &["-o", "json"]].concat()),
    ];
    check("deployment_standing", &text.join("\n"));
}

#[test]
fn a_revoked_agent_leaves_a_list_of_what_it_may_know() {
    let home = home();
    let revoke = [
        "deployment",
        "revoke",
        "kibana-a",
        "--reason",
        "laptop stolen",
    ];
    let refused = home.run(&revoke);
    assert_eq!(home.fake.state().audit.len(), 0, "nothing was revoked");
    let quiet = home.run(&[&revoke[..], &["-o", "json"]].concat());
    assert!(
        quiet.starts_with("exit 1\n--- stderr\nerror: this revokes kibana-a"),
        "{quiet}"
    );
    let text = [refused, home.run(&[&revoke[..], &["--yes"]].concat())];
    check("deployment_revoke", &text.join("\n"));
}

#[test]
fn one_wrong_name_does_not_save_the_others() {
    let home = home();
    let text = home.run(&[
        "deployment",
        "revoke",
        "kibana-x",
        "kibana-b",
        "--reason",
        "theft",
        "--yes",
        "-q",
    ]);
    assert!(text.starts_with("exit 1"), "{text}");
    assert!(text.contains("deployment kibana-b is REVOKED"), "{text}");
    assert!(
        text.contains("there is no deployment \"kibana-x\""),
        "{text}"
    );
}

#[test]
fn an_agent_is_replaced_and_a_deployment_forgotten() {
    let home = home();
    let replace = ["deployment", "replace", "kibana-a", "--reason", "new host"];
    let text = [
        home.run(&replace),
        home.run(&[&replace[..], &["--yes", "--output-file", "join"]].concat()),
        home.run(&["token", "list"]),
        home.run(&["deployment", "remove", "kibana-b", "--reason", "off"]),
        home.run(&["deployment", "rm", "kibana-b", "--reason", "off", "--yes"]),
        home.run(&["deployment", "rm", "kibana-b", "--reason", "off", "--yes"]),
    ];
    check("deployment_replace", &text.join("\n"));
    assert_eq!(
        std::fs::read_to_string(home.path("join")).unwrap(),
        "kfj_for-the-new-agent\n"
    );
    assert_eq!(home.fake.state().deployments.len(), 1);
}

#[test]
fn a_replacement_that_fails_leaves_no_file() {
    let home = home();
    let text = home.run(&[
        "deployment",
        "replace",
        "kibana-x",
        "--reason",
        "new host",
        "--yes",
        "--output-file",
        "join",
    ]);
    assert!(
        text.starts_with("exit 1") && !home.path("join").exists(),
        "{text}"
    );
}

#[test]
fn labels_are_planned_and_changed() {
    let home = home();
    let label =
        |rest: &[&str]| home.run(&[&["deployment", "label", "kibana-a"][..], rest].concat());
    let text = [
        label(&["tier=gold", "region-", "--dry-run"]),
        label(&["tier=gold", "region-", "--reason", "went live"]),
        label(&["env-", "--reason", "leaves"]),
        label(&["env-", "--reason", "leaves", "--yes"]),
        label(&["env", "--reason", "x"]),
        label(&["env=", "--reason", "x"]),
        label(&["env=a", "env-", "--reason", "x"]),
        label(&["env=a"]),
    ];
    check("deployment_label", &text.join("\n"));
}
