//! Ending in good order, and starting where it cannot work: a clear sentence and an exit code.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::binaries;
use xtask::fleet::Done;
use xtask::process::Process;

use crate::kit::{Fleet, Member};

const LAB: [Member; 1] = [("lab", "8.18.0", &["default"], &[("tier", "canary")])];
const TWO: [Member; 2] = [LAB[0], ("web", "9.6.0", &["default"], &[])];

/// The deadline of control in these tests is 5 s, that of an agent's calls in flight 10 s.
const END: Duration = Duration::from_secs(15);

#[test]
fn control_ends_on_sigterm_and_its_agents_come_back() {
    let mut fleet = Fleet::start("sigterm-control", &TWO).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let status = fleet.control.process.terminate(END).unwrap().unwrap();
    assert_eq!(
        status.code(),
        Some(0),
        "{}",
        fleet.control.process.log().unwrap()
    );
    let log = fleet.control.process.log().unwrap();
    assert!(log.contains("control service ended"), "{log}");
    assert!(
        !log.contains("cut off"),
        "every stream ended by itself: {log}"
    );
    for (name, agent) in &mut fleet.agents {
        assert!(agent.is_running(), "{name} lives without control");
    }
    fleet.control.process.restart().unwrap();
    fleet.wait_until_connected().unwrap();
    assert!(fleet.is_proven("1").unwrap());
    assert_eq!(fleet.writes().unwrap(), 2, "the creations");
}

#[test]
fn an_agent_ends_on_sigterm_and_control_sees_it_go() {
    let mut fleet = Fleet::start("sigterm-agent", &LAB).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let status = fleet
        .agent_mut("lab")
        .unwrap()
        .terminate(END)
        .unwrap()
        .unwrap();
    assert_eq!(
        status.code(),
        Some(0),
        "{}",
        fleet.agent_mut("lab").unwrap().log().unwrap()
    );
    let gone = || {
        let answer = fleet.stack.json(&["get", "deployments"]).ok()?;
        (answer["deployments"][0]["connected"] == false).then_some(())
    };
    fleet
        .wait_until("the deployment is not connected", gone)
        .unwrap();
}

#[test]
fn an_agent_that_is_told_to_end_during_a_write_finishes_it() {
    let mut fleet = Fleet::start("sigterm-write", &LAB).unwrap();
    let slow = r#"{"api": {"mode": "slow", "methods": ["POST"], "delay_ms": 1000}}"#;
    fleet.break_kibana("lab", slow).unwrap();
    fleet.begin_apply().unwrap();
    fleet
        .wait_for_requests("lab", "method=POST&class=connector", 1)
        .unwrap();
    let status = fleet
        .agent_mut("lab")
        .unwrap()
        .terminate(END)
        .unwrap()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    fleet.agent_mut("lab").unwrap().restart().unwrap();
    fleet.wait_until_proven("1").unwrap();
    assert_eq!(
        fleet.writes().unwrap(),
        1,
        "the outcome of the creation was noted"
    );
}

#[test]
fn a_second_control_on_the_same_database_is_refused() {
    let fleet = Fleet::start("second-control", &LAB).unwrap();
    let other_ports = [
        ("KEYFLEET_CONTROL__AGENTS__LISTEN", "127.0.0.1:0"),
        ("KEYFLEET_CONTROL__OPERATORS__LISTEN", "127.0.0.1:0"),
    ];
    let said = refused(&fleet, "second", &other_ports, None).unwrap();
    let database = fleet.control.data_dir.join("keyfleet.db");
    let expected = format!(
        "database {} is in use by another control service",
        database.display()
    );
    assert!(said.contains(&expected), "{said}");
    fleet.apply().unwrap().must_succeed().unwrap();
}

#[test]
fn a_used_port_is_named() {
    let fleet = Fleet::start("used-port", &LAB).unwrap();
    let other = fleet.stack.dir().join("other");
    let made = control(&fleet, &["init"], Some(&other))
        .unwrap()
        .output()
        .map(Done::from)
        .unwrap();
    made.must_succeed().unwrap();
    let said = refused(&fleet, "same-port", &[], Some(&other)).unwrap();
    assert!(said.contains("cannot listen on 127.0.0.1:"), "{said}");
    assert!(said.contains("is another service there?"), "{said}");
}

#[test]
fn without_init_the_command_to_run_is_named() {
    let fleet = Fleet::start("no-init", &LAB).unwrap();
    let nothing = fleet.stack.dir().join("nothing");
    let said = refused(&fleet, "no-init", &[], Some(&nothing)).unwrap();
    assert!(said.contains("run `keyfleet-control init` first"), "{said}");
    assert!(!nothing.exists(), "a refused start makes nothing");
}

#[test]
fn a_second_agent_with_the_same_state_is_refused() {
    let fleet = Fleet::start("second-agent", &LAB).unwrap();
    let mut command = Command::new(binaries::path("keyfleet-agent").unwrap());
    command
        .args(["run", "--config"])
        .arg(fleet.stack.dir().join("lab.toml"));
    let said = ends(&fleet, "second-agent", command).unwrap();
    assert!(
        said.contains("another agent runs with the state directory"),
        "{said}"
    );
}

/// The control service's command with the settings of the fleet's.
fn control(fleet: &Fleet, arguments: &[&str], data_dir: Option<&Path>) -> Result<Command> {
    let mut command = Command::new(binaries::path("keyfleet-control")?);
    command
        .arg("--config")
        .arg(fleet.stack.dir().join("control.toml"))
        .args(arguments);
    if let Some(data_dir) = data_dir {
        command.arg("--data-dir").arg(data_dir);
    }
    Ok(command)
}

/// Starts a control service that must not come up; returns what it says.
fn refused(
    fleet: &Fleet,
    name: &str,
    settings: &[(&str, &str)],
    data_dir: Option<&Path>,
) -> Result<String> {
    let mut command = control(fleet, &["serve"], data_dir)?;
    command.envs(settings.iter().copied());
    ends(fleet, name, command)
}

/// Runs a command that must end by itself with exit code 1 and one line of explanation.
fn ends(fleet: &Fleet, name: &str, command: Command) -> Result<String> {
    let ready_at_once = |_: &str| true;
    let mut process = Process::spawn(name, command, fleet.stack.dir(), ready_at_once, END)?;
    let status = process.wait(END)?.context("it was not started")?;
    let said = process.log()?;
    anyhow::ensure!(
        status.code() == Some(1),
        "{name} ended with {status}: {said}"
    );
    anyhow::ensure!(!said.contains("panicked"), "{said}");
    Ok(said)
}
