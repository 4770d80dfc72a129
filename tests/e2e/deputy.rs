//! Nobody makes a key travel where its Key, the settings or the agent's own file do not allow. A second OpenAI stands by,
//! where no request ever arrives.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::http;
use xtask::stack::Sim;

use crate::kit::{Fleet, KEY, PATIENCE};
use crate::refuse::{LAB, new_token};

const SECOND: &str = "sk-proj-e2e-1111111111111111111111111111111111zR7k";

/// Replaces a text in a file.
fn edit(file: &Path, from: &str, to: &str) -> Result<()> {
    let text = fs::read_to_string(file)?;
    anyhow::ensure!(text.contains(from), "{from:?} is not in {}", file.display());
    Ok(fs::write(file, text.replace(from, to))?)
}

/// Requests of any kind that an OpenAI got.
fn requests(openai: &Sim) -> Result<u64> {
    let answer: Value = serde_json::from_str(&http::get(&openai.url, "/_sim/requests/count")?)?;
    answer["count"].as_u64().context("no count")
}

/// An operator who is no admin, as a context of that name.
fn add_operator(fleet: &Fleet) -> Result<()> {
    let file = new_token(
        fleet,
        "operator",
        &["operator", "--principal", "pat", "--role", "operator"],
    )?;
    let ca = fleet.control.data_dir.join("ca.pem");
    let (ca, file) = (ca.to_string_lossy(), file.to_string_lossy());
    let url = fleet.control.operators_url.as_str();
    let add = [
        "context",
        "add",
        "operator",
        "--endpoint",
        url,
        "--ca",
        &ca,
        "--token-file",
        &file,
    ];
    fleet.keyfleet(&add)?.must_succeed().map(drop)
}

/// An operator applies the manifests, and is told so.
fn must_refuse(fleet: &Fleet, words: &[&str]) {
    let dir = fleet.manifests.dir().to_string_lossy().into_owned();
    let apply = ["--context", "operator", "apply", "-f", &dir, "--yes"];
    let done = fleet.keyfleet(&apply).unwrap();
    assert_ne!(done.code, 0, "{words:?}: {done:?}");
    for word in words {
        assert!(done.err.contains(word), "{word:?} is not in {done:?}");
    }
}

/// The same machine under another name is another host, however it is written.
fn another_host_is_refused(fleet: &Fleet, port: &str) {
    let own = fleet.openai.url.clone();
    for (url, words) in [
        (
            format!("http://localhost:{port}"),
            ["connector.yaml:12: spec.config.apiUrl", "not to localhost"],
        ),
        (
            format!("http://127.0.0.1@localhost:{port}"),
            ["spec.config.apiUrl", "user or password"],
        ),
        (
            format!("http://127.1:{port}"),
            ["spec.config.apiUrl", "not every reader"],
        ),
        (
            format!("http:\\\\localhost:{port}"),
            ["spec.config.apiUrl", "not every reader"],
        ),
        (
            format!("http://[::ffff:127.0.0.1]:{port}"),
            ["spec.config.apiUrl", "not every reader"],
        ),
    ] {
        fleet.manifests.edit("connector.yaml", &own, &url).unwrap();
        must_refuse(fleet, &words);
        fleet.manifests.edit("connector.yaml", &url, &own).unwrap();
    }
}

/// An operator cannot widen the Key, nor can an admin beyond the settings and the paths.
fn a_wider_key_is_refused(fleet: &Fleet) {
    fleet
        .manifests
        .edit("key.yaml", "[127.0.0.1]", "[127.0.0.1, localhost]")
        .unwrap();
    must_refuse(fleet, &["this needs admin"]);
    for (from, to, words) in [
        (
            "[127.0.0.1, localhost]",
            "[127.0.0.1, api.openai.com]",
            "setting outbound.allowed_hosts",
        ),
        (
            "path: keyfleet/openai",
            "path: keyfleet/../admin",
            "may not serve as a Key",
        ),
        (
            "path: keyfleet/openai",
            "path: keyfleet-admin/openai",
            "setting vault.key_paths",
        ),
    ] {
        fleet.manifests.edit("key.yaml", from, to).unwrap();
        let refused = fleet.apply().unwrap();
        assert!(
            refused.code != 0 && refused.err.contains(words),
            "{to}: {refused:?}"
        );
        fleet.manifests.edit("key.yaml", to, from).unwrap();
    }
}

#[test]
fn no_word_of_an_operator_brings_a_key_to_another_host() {
    let fleet = Fleet::start("deputy", &LAB).unwrap();
    let other = fleet.stack.openai("other", &[KEY, SECOND]).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    add_operator(&fleet).unwrap();
    let own = fleet.openai.url.clone();
    let port = other.url.rsplit(':').next().unwrap().to_owned();
    another_host_is_refused(&fleet, &port);
    a_wider_key_is_refused(&fleet);

    // An admin may; but the agent's own file does not know that host, and control cannot override it.
    fleet
        .manifests
        .edit("connector.yaml", &own, &format!("http://localhost:{port}"))
        .unwrap();
    let held = fleet.apply().unwrap();
    assert_ne!(held.code, 0, "{held:?}");
    let binding = fleet.binding("lab", "default").unwrap();
    let told = fleet.stack.json(&["rollout", "list"]).unwrap().to_string();
    assert!(
        format!("{binding}{told}").contains("REJECTED"),
        "{binding} {told}"
    );
    assert_eq!(
        requests(&other).unwrap(),
        0,
        "the other OpenAI heard nothing"
    );
    assert_eq!(
        fleet.writes_of("lab").unwrap(),
        [1, 0, 0],
        "nor was anything written"
    );
}

#[test]
fn a_setting_that_is_narrowed_later_stops_keys_that_were_allowed() {
    let mut fleet = Fleet::start("narrowed", &LAB).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let config = fleet.stack.dir().join("control.toml");
    let restart = |fleet: &mut Fleet| {
        fleet.control.process.terminate(PATIENCE).unwrap();
        fleet.control.process.restart().unwrap();
        fleet.wait_until_connected().unwrap();
    };
    let wide = "allowed_hosts = [\"127.0.0.1\", \"localhost\"]";
    edit(&config, wide, "allowed_hosts = [\"localhost\"]").unwrap();
    restart(&mut fleet);
    fleet.accept_key(SECOND).unwrap();
    fleet.write_key(SECOND).unwrap();
    fleet
        .wait_until("the new version is known", || fleet.key_version(2).ok())
        .unwrap();
    let before = requests(&fleet.openai).unwrap();
    // Somebody deletes the connector: to make it again its agent would need the key.
    let id = fleet.connectors("lab").unwrap()[0]["id"].clone();
    fleet.meddle("lab", "DELETE", &id, "").unwrap();
    let waiting = fleet.binding("lab", "default").unwrap()["waiting"].to_string();
    assert!(
        waiting.contains("setting outbound.allowed_hosts"),
        "{waiting}"
    );
    assert!(
        fleet
            .keyfleet(&["describe", "deployment", "lab"])
            .unwrap()
            .out
            .contains("outbound.allowed_hosts")
    );
    let agent = fleet.agent_mut("lab").unwrap();
    agent.terminate(PATIENCE).unwrap();
    agent.restart().unwrap();
    fleet.wait_until_connected().unwrap();
    assert_eq!(fleet.n_connectors("lab").unwrap(), 0);
    assert_eq!(requests(&fleet.openai).unwrap(), before, "no key went out");
    assert_eq!(
        fleet.key_version(2).unwrap().1,
        0,
        "nobody was to get the new version"
    );

    // With the setting wide again it goes on by itself, to the new version.
    edit(&config, "allowed_hosts = [\"localhost\"]", wide).unwrap();
    restart(&mut fleet);
    fleet.wait_until_proven("2").unwrap();
    assert_eq!(fleet.n_connectors("lab").unwrap(), 1);

    // A path that may serve no more is not read any more.
    edit(
        &config,
        "[vault]",
        "[vault]\nkey_paths = [\"secret/other/\"]",
    )
    .unwrap();
    restart(&mut fleet);
    let answer = fleet
        .wait_until("the Key says why", || {
            let text = fleet.stack.json(&["get", "keys"]).ok()?.to_string();
            text.contains("may not serve as a Key").then_some(text)
        })
        .unwrap();
    assert!(answer.contains("vault.key_paths"), "{answer}");
}
