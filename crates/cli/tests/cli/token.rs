//! `keyfleet token`: a value is shown once, or goes into a private file.

use std::os::unix::fs::PermissionsExt as _;

use crate::fake::{ADMIN, VIEWER};
use crate::harness::{Home, check, two_deployments};

#[test]
fn tokens_are_created_listed_and_revoked() {
    let home = Home::new(two_deployments());
    let id = "0192f3a4-0000-7000-8000-000000000001";
    let text = [
        home.run(&[
            "token",
            "create",
            "join",
            "--uses",
            "5",
            "--ttl",
            "2h",
            "--label",
            "env=prod",
            "--label",
            "region=eu",
        ]),
        home.run(&[
            "token",
            "create",
            "operator",
            "--principal",
            "ci",
            "--role",
            "operator",
            "--scope",
            "team=soc",
            "--reason",
            "new pipeline",
        ]),
        home.run(&["token", "list"]),
        home.run(&["token", "revoke", id, "--reason", "ci moved"]),
        home.run(&["token", "list"]),
        home.run(&["token", "revoke", "ffff"]),
        home.run(&[
            "token",
            "create",
            "operator",
            "--principal",
            "ci",
            "--role",
            "root",
        ]),
        home.run(&["token", "create", "join", "--ttl", "soon", "--label", "env"]),
    ];
    check("tokens", &text.join("\n"));
    let created = &home.fake.state().created;
    assert_eq!(
        (
            created[0].uses,
            created[0].ttl_secs,
            created[0].labels.len()
        ),
        (5, 7_200, 2)
    );
    assert_eq!(
        (created[1].principal.as_str(), created[1].ttl_secs),
        ("ci", 90 * 86_400)
    );
    assert_eq!(
        (created[1].scope.as_str(), created[1].reason.as_str()),
        ("team=soc", "new pipeline")
    );
}

#[test]
fn a_value_can_go_into_a_private_file() {
    let home = Home::new(two_deployments());
    let args = ["token", "create", "join", "--output-file", "join-token"];
    let text = home.run(&args);
    assert!(
        text.starts_with("exit 0") && !text.contains("kfj_"),
        "{text}"
    );
    assert_eq!(
        std::fs::read_to_string(home.path("join-token")).unwrap(),
        "kfj_shown-this-once\n"
    );
    assert_eq!(
        std::fs::metadata(home.path("join-token"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    let again = home.run(&args);
    assert!(
        again.starts_with("exit 1") && again.contains("is there already"),
        "{again}"
    );
    assert_eq!(
        home.fake.state().created.len(),
        1,
        "no token is made whose value has no place"
    );
    let json = home.run(&[
        "token",
        "create",
        "join",
        "-o",
        "json",
        "--output-file",
        "other",
    ]);
    assert!(!json.contains("kfj_"), "{json}");
}

#[test]
fn a_token_that_was_not_made_leaves_no_file() {
    let home = Home::without_context(two_deployments());
    home.add_context("view", VIEWER);
    let text = home.run(&["token", "create", "join", "--output-file", "join-token"]);
    assert!(
        text.starts_with("exit 3") && !home.path("join-token").exists(),
        "{text}"
    );
}

#[test]
fn no_command_shows_the_token_of_its_context() {
    let home = Home::new(two_deployments());
    for args in [
        &["status"][..],
        &["context", "list"],
        &["context", "show"],
        &["token", "list"],
        &["get", "keys"],
    ] {
        for format in ["table", "wide", "json", "yaml"] {
            let text = home.run(&[args, &["-o", format]].concat());
            assert!(!text.contains(ADMIN), "{text}");
        }
    }
}
