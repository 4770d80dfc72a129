//! What an operator reads when control is away, is somebody else, or says no.

use crate::fake::{VIEWER, certificates};
use crate::harness::{Home, check, two_deployments};

#[test]
fn every_refusal_has_a_hint_and_a_code() {
    let home = Home::new(two_deployments());
    home.add_context("view", VIEWER);
    home.add_context("wrong", "kfo_wrong");
    home.write("a.yaml", "Connector assistant gpt-5.2\n");
    let text = [
        home.run(&["status", "--context", "wrong"]),
        home.run(&["apply", "-f", "a.yaml", "--context", "view"]),
        home.run(&["status", "--context", "nowhere"]),
        home.run(&["get", "deployments", "-l", "(("]),
        home.run(&["rollout", "watch", "0192f3a4-5b6c-7d8e-9f00-00000000ffff"]),
    ];
    check("errors", &text.join("\n"));
}

#[test]
fn a_control_service_that_is_away_or_not_trusted_is_told_apart() {
    let home = Home::new(two_deployments());
    let free_port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let away = format!("https://localhost:{free_port}");
    home.write("other.pem", &certificates().0);
    let endpoint = home.endpoint();
    for (name, endpoint, ca) in [("away", &away, "ca.pem"), ("other", &endpoint, "other.pem")] {
        home.run_with(
            &[
                "context",
                "add",
                name,
                "--endpoint",
                endpoint,
                "--ca",
                ca,
                "--token-stdin",
            ],
            "kfo_admin",
        );
    }
    let text = [
        home.run(&["status", "--context", "away"]),
        home.run(&["status", "--context", "other"]),
    ];
    check(
        "errors_connection",
        &text.join("\n").replace(&away, "https://localhost:AWAY"),
    );
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let home = Home::new(two_deployments());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://localhost:{}", silent.local_addr().unwrap().port());
    home.run_with(
        &[
            "context",
            "add",
            "silent",
            "--endpoint",
            &endpoint,
            "--ca",
            "ca.pem",
            "--token-stdin",
        ],
        "kfo_x",
    );
    let text = home.run(&["status", "--context", "silent", "--timeout", "1s"]);
    assert!(
        text.starts_with("exit 3") || text.starts_with("exit 8"),
        "{text}"
    );
}
