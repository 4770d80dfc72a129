//! What must not happen is refused, with a sentence that says why and what to do, and nothing is touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::fleet::{AgentOptions, Done};
use xtask::process::Process;

use crate::kit::{Fleet, Member, PATIENCE};

pub(crate) const LAB: [Member; 1] = [("lab", "8.18.0", &["default"], &[("tier", "canary")])];

/// A control service that must never hear from an agent with a wrong pin.
const ENROLLED: &str = "agent enrolled";

/// An agent that shall not get in.
struct Stranger<'a> {
    /// Its files are named so.
    file_name: &'a str,
    /// The deployment it says it is.
    name: &'a str,
    labels: &'a [(&'a str, &'a str)],
    join_token: PathBuf,
}

impl Stranger<'_> {
    /// Runs the agent until it ends by itself; its exit code and everything it said.
    fn run(&self, fleet: &Fleet) -> Result<(Option<i32>, String)> {
        let (_, kibana) = fleet.kibanas.first().context("no Kibana")?;
        let options = AgentOptions {
            name: self.file_name,
            labels: self.labels,
            api_key: "kibana-key-of-lab",
            join_token: &self.join_token,
            drift_interval_secs: 300,
        };
        let config = fleet.stack.agent_config(&fleet.control, kibana, &options)?;
        let text = fs::read_to_string(&config)?;
        let as_file = format!("name = \"{}\"", self.file_name);
        fs::write(
            &config,
            text.replace(&as_file, &format!("name = \"{}\"", self.name)),
        )?;
        let mut command = Command::new(xtask::binaries::path("keyfleet-agent")?);
        command.args(["run", "--config"]).arg(&config);
        let log_name = format!("agent-{}", self.file_name);
        let says_anything = |_: &str| true;
        let mut agent = Process::spawn(
            &log_name,
            command,
            fleet.stack.dir(),
            says_anything,
            PATIENCE,
        )?;
        let code = agent.wait(PATIENCE)?.and_then(|status| status.code());
        Ok((code, agent.log()?))
    }

    /// The agent must end with 1 and a text that holds all of these.
    fn must_fail(&self, fleet: &Fleet, words: &[&str]) {
        let (code, said) = self.run(fleet).unwrap();
        assert_eq!(code, Some(1), "{}: {said}", self.file_name);
        for word in words {
            assert!(
                said.contains(word),
                "{}: {word:?} is not in {said}",
                self.file_name
            );
        }
    }
}

/// A token of the fleet's admin, as `token list` shows it: the newest.
pub(crate) fn newest_token(fleet: &Fleet) -> Result<Value> {
    let answer = fleet.stack.json(&["token", "list"])?;
    let tokens = answer["tokens"].as_array().context("no tokens")?;
    let newest = tokens
        .iter()
        .max_by_key(|token| token["createdAt"].to_string());
    Ok(newest.context("no token")?.clone())
}

/// Makes a token whose value lies in a new file of this name.
pub(crate) fn new_token(fleet: &Fleet, name: &str, arguments: &[&str]) -> Result<PathBuf> {
    let file = fleet.stack.dir().join(format!("{name}.token"));
    fleet.token(&file, arguments)?;
    Ok(file)
}

#[test]
fn strangers_do_not_get_in() {
    let fleet = Fleet::start("strangers", &LAB).unwrap();
    let stranger = |file_name, join_token| Stranger {
        file_name,
        name: file_name,
        labels: &[],
        join_token,
    };
    let token = |name: &str, arguments: &[&str]| new_token(&fleet, name, arguments).unwrap();

    // Its one use was taken by the agent of the fleet.
    stranger("late", fleet.stack.dir().join("join.token"))
        .must_fail(&fleet, &["the join token is used up"]);

    let made = Instant::now();
    let expired = token("expired", &["join", "--ttl", "1s"]);
    fleet
        .wait_until("the token's second is over", || {
            (made.elapsed() > Duration::from_secs(2)).then_some(())
        })
        .unwrap();
    stranger("old", expired).must_fail(&fleet, &["the join token is out of date"]);

    let revoked = token("revoked", &["join"]);
    let id = newest_token(&fleet).unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    fleet
        .keyfleet(&["token", "revoke", &id])
        .unwrap()
        .must_succeed()
        .unwrap();
    stranger("revoked", revoked).must_fail(&fleet, &["the join token is revoked"]);

    let labelled = token("labelled", &["join", "--label", "env=prod"]);
    let wrong = Stranger {
        labels: &[("env", "test")],
        ..stranger("labels", labelled)
    };
    wrong.must_fail(&fleet, &["label env=prod", "claims env=test"]);
    assert_eq!(
        newest_token(&fleet).unwrap()["usesLeft"],
        1,
        "a refused enrolment takes no use"
    );

    let twin = Stranger {
        name: "lab",
        ..stranger("twin", token("twin", &["join"]))
    };
    twin.must_fail(
        &fleet,
        &["a deployment named lab is enrolled already", "another name"],
    );
    assert_eq!(
        newest_token(&fleet).unwrap()["usesLeft"],
        1,
        "a refused enrolment takes no use"
    );

    let listed = fleet.stack.json(&["get", "deployments"]).unwrap();
    assert_eq!(
        listed["deployments"].as_array().unwrap().len(),
        1,
        "{listed}"
    );
}

#[test]
fn an_agent_tells_nothing_to_a_control_that_its_pin_does_not_fit() {
    let fleet = Fleet::start("pin", &LAB).unwrap();
    let file = new_token(&fleet, "pinned", &["join"]).unwrap();
    let value = fs::read_to_string(&file).unwrap();
    let (secret, pin) = value.trim().split_once('.').unwrap();
    let other_pin: String = pin.chars().rev().collect();
    assert_ne!(pin, other_pin);
    fs::write(&file, format!("{secret}.{other_pin}\n")).unwrap();
    let log_before = fleet
        .control
        .process
        .log()
        .unwrap()
        .matches(ENROLLED)
        .count();
    let stranger = Stranger {
        file_name: "misled",
        name: "misled",
        labels: &[],
        join_token: file,
    };
    stranger.must_fail(&fleet, &["no trusted connection to the control service"]);
    assert_eq!(
        newest_token(&fleet).unwrap()["usesLeft"],
        1,
        "the token was not used"
    );
    let log = fleet.control.process.log().unwrap();
    assert_eq!(log.matches(ENROLLED).count(), log_before, "nobody enrolled");
    assert!(!log.contains("misled"), "control never heard of it");
}

/// The database of control and what lies beside it while it is open.
fn copy_database(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let is_database = |path: &Path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().contains(".db"))
    };
    for directory in [to] {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if is_database(&path) {
                fs::remove_file(path)?;
            }
        }
    }
    let mut copied = 0;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        if let (true, Some(name)) = (is_database(&path), path.file_name()) {
            fs::copy(&path, to.join(name))?;
            copied += 1;
        }
    }
    ensure!(copied > 0, "no database in {}", from.display());
    Ok(())
}

#[test]
fn an_agent_refuses_what_an_old_database_says() {
    let mut fleet = Fleet::start_applied("old-database", &LAB).unwrap();
    let (data, copy) = (
        fleet.control.data_dir.clone(),
        fleet.stack.dir().join("copy"),
    );
    fleet.control.process.terminate(PATIENCE).unwrap();
    copy_database(&data, &copy).unwrap();

    // Each start is an epoch. The last of them writes.
    for _ in 0..3 {
        fleet.control.process.restart().unwrap();
    }
    fleet.wait_until_connected().unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let writes = fleet.writes().unwrap();
    fleet.control.process.terminate(PATIENCE).unwrap();
    copy_database(&copy, &data).unwrap();
    fleet.control.process.restart().unwrap();

    // It knows the first model only. The agent knows more, and has no session with it.
    let is_told = || {
        let status = fleet.stack.json(&["status"]).ok()?;
        let problems = status["problems"].to_string();
        problems.contains("newer history").then_some(())
    };
    fleet.wait_until("the status says why", is_told).unwrap();
    assert_eq!(fleet.writes().unwrap(), writes, "the agent touched nothing");
    assert_eq!(
        fleet.connectors("lab").unwrap()[0]["config"]["defaultModel"],
        "gpt-5.2"
    );

    // Nor does it hear what is new there.
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.2", "gpt-5.4")
        .unwrap();
    fleet.begin_apply().unwrap();
    fleet
        .wait_until("what is new waits for the agent", || {
            let binding = fleet.binding("lab", "default").ok()?;
            let waiting = binding["waiting"].as_str()?.to_owned();
            waiting.contains("not connected").then_some(())
        })
        .unwrap();
    assert_eq!(fleet.writes().unwrap(), writes, "the agent touched nothing");
    assert_eq!(fleet.silent_bindings().unwrap(), Vec::<Value>::new());
}

#[test]
fn settings_that_do_not_exist_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let check = |text: &str, words: &[&str]| {
        let file = dir.path().join("control.toml");
        fs::write(&file, text).unwrap();
        let program = xtask::binaries::path("keyfleet-control").unwrap();
        let mut command = Command::new(program);
        let done = Done::from(
            command
                .arg("check-config")
                .arg("--config")
                .arg(&file)
                .output()
                .unwrap(),
        );
        let expected = i32::from(!words.is_empty());
        assert_eq!(done.code, expected, "{text:?}: {done:?}");
        for word in words {
            assert!(
                done.err.contains(word),
                "{text:?}: {word:?} is not in {}",
                done.err
            );
        }
    };
    check("", &[]);
    check("[agents]\nheartbeat_secs = 20\n", &[]);
    check(
        "[agents]\nheartbeat_sec = 20\n",
        &["agents.heartbeat_sec", "check-config --defaults"],
    );
    check("colour = true\n", &["colour"]);
    check(
        "[agents]\nheartbeat_secs = \"often\"\n",
        &["heartbeat_secs"],
    );
}
