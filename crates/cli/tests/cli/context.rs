//! `keyfleet context`, help, versions, completions: everything that needs no control service.

use std::os::unix::fs::PermissionsExt as _;

use crate::harness::{Home, State, check};

#[test]
fn contexts_are_added_chosen_shown_and_removed() {
    let home = Home::without_context(State::default());
    home.write("token", "kfo_admin\n");
    let endpoint = home.endpoint();
    let add = |name: &str, rest: &[&str]| {
        let base = [
            "context",
            "add",
            name,
            "--endpoint",
            &endpoint,
            "--ca",
            "ca.pem",
        ];
        home.run_with(&[&base, rest].concat(), "kfo_viewer\n")
    };
    let text = [
        home.run(&["context", "list"]),
        add("prod", &["--token-file", "token"]),
        add("lab", &["--token-stdin"]),
        home.run(&["context", "list"]),
        add("lab", &["--token-stdin"]),
        add("lab", &["--token-stdin", "--replace", "--use"]),
        home.run(&["context", "list", "-o", "json"]),
        home.run(&["context", "use", "prod"]),
        home.run(&["context", "use", "nowhere"]),
        home.run(&["context", "show", "-o", "yaml"]),
        home.run(&["context", "remove", "prod"]),
        home.run(&["status"]),
    ];
    check("contexts", &text.join("\n"));
    let mode = |name: &str| {
        std::fs::metadata(home.path(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode(".config/keyfleet/config.toml"), 0o600);
    assert_eq!(mode(".config/keyfleet"), 0o700);
}

#[test]
fn a_part_of_a_context_is_changed_and_the_rest_kept() {
    let home = Home::new(State::default());
    let set = |rest: &[&str]| home.run(&[&["context", "set", "prod"][..], rest].concat());
    home.write("other.pem", &crate::fake::certificates().0);
    home.write("proxy", "http://ada:geheim@proxy.test:3128\n");
    assert!(set(&["--ca", "other.pem"]).starts_with("exit 0"));
    assert!(home.run(&["status"]).contains("is not trusted"));
    assert!(set(&["--ca", "ca.pem", "--proxy-file", "proxy"]).starts_with("exit 0"));
    let shown = home.run(&["context", "show"]);
    assert!(
        shown.contains("Proxy:          http://proxy.test:3128\n") && !shown.contains("geheim"),
        "{shown}"
    );
    assert!(set(&["--no-proxy"]).starts_with("exit 0"));
    // Endpoint and token are as they were.
    assert!(home.run(&["status"]).starts_with("exit 0"));
    let text = [
        set(&[]),
        set(&["--no-proxy", "--proxy", "http://p:1"]),
        home.run(&["context", "set", "lab", "--ca", "ca.pem"]),
    ];
    check("contexts_set", &text.join("\n"));
}

#[test]
fn a_shown_context_hides_its_token_and_keeps_its_ca() {
    let home = Home::new(State::default());
    // The CA was copied: the context works without the file.
    std::fs::remove_file(home.path("ca.pem")).unwrap();
    let text = home.run(&["context", "show"]);
    assert!(
        text.contains("-----BEGIN CERTIFICATE-----") && text.contains("Token:          (hidden)"),
        "{text}"
    );
    assert!(!text.contains("kfo_"), "{text}");
    assert!(home.run(&["status"]).starts_with("exit 0"));
}

#[test]
fn what_cannot_be_a_context_is_refused() {
    let home = Home::without_context(State::default());
    home.write("token", "kfo_admin\n");
    home.write("open", "kfo_admin\n");
    std::fs::set_permissions(home.path("open"), std::fs::Permissions::from_mode(0o644)).unwrap();
    home.write("empty", "\n");
    home.write("key.pem", "-----BEGIN PRIVATE KEY-----\n");
    let add = |endpoint: &str, ca: &str, token: &str| {
        home.run(&[
            "context",
            "add",
            "prod",
            "--endpoint",
            endpoint,
            "--ca",
            ca,
            "--token-file",
            token,
        ])
    };
    let text = [
        add("https://localhost", "ca.pem", "open"),
        add("https://localhost", "ca.pem", "none"),
        add("https://localhost", "ca.pem", "empty"),
        add("https://localhost", "token", "token"),
        add("https://localhost", "key.pem", "token"),
        add("http://localhost", "ca.pem", "token"),
        home.run(&[
            "context",
            "add",
            "a b",
            "--endpoint",
            "https://x",
            "--ca",
            "ca.pem",
            "--token-file",
            "token",
        ]),
        home.run(&[
            "context",
            "add",
            "prod",
            "--endpoint",
            "https://x",
            "--ca",
            "ca.pem",
        ]),
        home.run(&["status"]),
    ];
    check("contexts_refused", &text.join("\n"));
}

#[test]
fn a_file_of_contexts_that_others_may_read_is_not_used() {
    let home = Home::new(State::default());
    let file = home.path(".config/keyfleet/config.toml");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let text = home.run(&["status"]);
    home.write(
        ".config/keyfleet/config.toml",
        "current = 'prod'\n[contexts.prod]\ntokem = 'kfo_admin'\n",
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    check("contexts_file", &[text, home.run(&["status"])].join("\n"));
}

#[test]
fn help_and_version_are_there() {
    let home = Home::without_context(State::default());
    check("help", &home.run(&["--help"]));
    let text = [
        home.run(&["rollout", "--help"]),
        home.run(&["apply", "-h"]),
        home.run(&["token", "create", "operator", "--help"]),
        home.run(&["stauts"]),
        home.run(&["get", "deploymets"]),
        home.run(&["version"]),
        home.run(&["version", "-o", "json"]),
    ];
    check("help_more", &text.join("\n"));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(
            home.run(&["completions", shell])
                .starts_with("exit 0\n--- stdout")
        );
    }
}

#[test]
fn models_are_shown_without_a_control_service() {
    let home = Home::without_context(State::default());
    let text = [
        home.run(&["models"]),
        home.run(&["models", "--task", "attack-discovery"]),
        home.run(&["models", "--task", "poetry"]),
    ]
    .join("\n");
    check("models", &text);
    let json = home.run(&["models", "--task", "attack-discovery", "-o", "json"]);
    let json = json.split_once("--- stdout\n").unwrap().1;
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    let models = json["models"].as_array().unwrap();
    let gpt = models.iter().find(|model| model["name"] == "GPT-4.1");
    let gpt = gpt.unwrap();
    assert_eq!(gpt["ratings"], serde_json::json!({"attack-discovery": 3.6}));
    assert_eq!(gpt["ends"], "2027-01-14");
    assert_eq!(json["ratings_from"]["read"], "2026-11");
    let wide = home.run(&["models", "-o", "wide"]);
    assert!(wide.contains("gpt-4, gpt-4-0613"), "{wide}");
}
