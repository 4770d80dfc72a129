//! The real process: its arguments, exit codes, log and end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use keyfleet_proto::v1::BindingState;
use serde_json::json;

use crate::harness::{Harness, KEY_1, PLACE};

fn agent() -> Command {
    Command::new(env!("CARGO_BIN_EXE_keyfleet-agent"))
}

fn output(args: &[&str]) -> Output {
    agent().args(args).output().unwrap()
}

/// Writes a config file for the harness, with the noisiest log there is.
fn config_file(harness: &Harness, addition: &str) -> PathBuf {
    let directory = harness.directory.path();
    let text = format!(
        "state_dir = {state:?}\n{addition}\n[deployment]\nname = \"prod\"\nlabels = {{ env = \"prod\" }}\n\
         [control]\naddress = \"https://{control}\"\njoin_token_file = {token:?}\n\
         [kibana]\nurl = \"{kibana}\"\ncredentials_file = {key:?}\n\
         [accept]\nhosts = [\"127.0.0.1\"]\n[log]\nformat = \"json\"\nfilter = \"trace\"\n",
        state = harness.state_dir(),
        control = harness.control.address,
        token = directory.join("token"),
        kibana = harness.kibana.url(),
        key = directory.join("kibana-key"),
    );
    let path = directory.join("agent.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn start(config: &Path, log: &Path) -> Child {
    let log = File::create(log).unwrap();
    agent()
        .arg("run")
        .arg("--config")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

async fn wait(mut child: Child) -> ExitStatus {
    tokio::task::spawn_blocking(move || child.wait().unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_whole_run_at_trace_level_ends_well_and_shows_no_secret() {
    let mut harness = Harness::start().await;
    // The provider's refusal echoes the masked key.
    harness.kibana_faults(json!({"provider": {"status": 401, "remaining": 1, "message": format!("Incorrect API key provided: {KEY_1}.")}})).await;
    let config = config_file(&harness, "");
    let log = harness.directory.path().join("log");
    let child = start(&config, &log);
    harness.push(vec![harness.binding(PLACE, 1, 1)]);
    let failed = harness
        .control
        .until_state(PLACE, BindingState::Failed)
        .await;
    assert!(!failed.text.contains("Canary"), "{}", failed.text);
    let mut again = harness.binding(PLACE, 1, 1);
    again.attempt = 2;
    harness.prove(again).await;
    assert!(
        Command::new("kill")
            .arg(child.id().to_string())
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(wait(child).await.code(), Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(
        log.contains("session established") && log.contains("agent ready") && log.contains("TRACE")
    );
    let (secret, _) = harness.control.token.split_once('.').unwrap();
    for canary in [KEY_1, "Canary1", "Qx1Z", secret, "a2liYW5h", "PRIVATE KEY"] {
        let at = log
            .find(canary)
            .map(|at| log.get(at.saturating_sub(300)..(at + 20).min(log.len())));
        assert!(at.is_none(), "{canary} is in the log: {at:?}");
    }
    assert!(!harness.on_disk().contains("Canary1"));
}

#[tokio::test]
async fn a_used_up_token_ends_the_process_with_1_and_one_sentence() {
    let harness = Harness::start().await;
    harness.control.change(|state| state.token_uses = 0);
    let log = harness.directory.path().join("log");
    let status = wait(start(&config_file(&harness, ""), &log)).await;
    assert_eq!(status.code(), Some(1));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.lines().last().unwrap().contains("used up"), "{log}");
}

#[tokio::test]
async fn settings_are_checked_without_a_connection() {
    let harness = Harness::start().await;
    let check = |addition: &str, code: i32, expected: &str| {
        let config = config_file(&harness, addition);
        let output = output(&["check-config", "--config", config.to_str().unwrap()]);
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(expected), "{text}");
    };
    check("", 0, "usable");
    check("wrong = 1", 1, "`wrong`");
    check("[drift]\ninterval_secs = -1", 1, "drift.interval_secs");
    std::fs::remove_file(harness.directory.path().join("kibana-key")).unwrap();
    check("", 1, "kibana-key");
    assert!(harness.control.state().enrolled.is_empty());
}

#[tokio::test]
async fn a_directory_of_deployments_is_checked_file_by_file() {
    let harness = Harness::start().await;
    let config = config_file(&harness, "");
    let directory = harness.directory.path().join("deployments");
    let check = |code: i32, expected: &[&str]| {
        let arguments = ["check-config", "--config", config.to_str().unwrap()];
        let directory = ["--deployments", directory.to_str().unwrap()];
        let output = output(&[&arguments[..], &directory].concat());
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
    };
    check(1, &["cannot read the directory"]);
    std::fs::create_dir(&directory).unwrap();
    check(1, &["no file that ends with .toml"]);
    std::fs::write(directory.join("eu.toml"), "[deployment]\nname = \"eu\"\n").unwrap();
    std::fs::write(directory.join("notes.txt"), "not a deployment").unwrap();
    check(0, &["eu.toml: the settings are usable"]);
    std::fs::write(directory.join("us.toml"), "kibanna = 1").unwrap();
    check(
        1,
        &[
            "eu.toml: the settings are usable",
            "us.toml: unknown setting `kibanna`",
            "1 of 2",
        ],
    );
}

#[test]
fn the_command_line_explains_itself() {
    let help = output(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("check-config"));
    let wrong = output(&["run"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("--config FILE"));
    assert!(output(&["run", "--config", "/nowhere.toml"]).status.code() == Some(1));
}
