//! One agent process for many Kibanas: each is a deployment of its own, and one that is broken stops no other.

use std::fs;
use std::process::Command;

use anyhow::Result;
use serde_json::Value;
use xtask::binaries;
use xtask::fleet::AgentOptions;
use xtask::process::Process;
use xtask::stack::READY;

use crate::kit::{Fleet, Member, PATIENCE};

const BESIDE: [Member; 1] = [("base", "9.1.0", &["default"], &[])];

const REMOTE: [(&str, &str); 3] = [
    ("cloud-a", "9.6.0"),
    ("cloud-b", "9.4.0"),
    ("cloud-c", "8.18.0"),
];

/// A process that serves three Kibanas, and a fourth file that nobody can read.
fn start(fleet: &mut Fleet) -> Result<Process> {
    let dir = fleet.stack.dir().join("deployments");
    fs::create_dir(&dir)?;
    let join_token = fleet.stack.join_token(3)?;
    for (name, version) in REMOTE {
        let api_key = format!("kibana-key-of-{name}");
        let kibana =
            fleet
                .stack
                .kibana(&format!("kibana-{name}"), version, &["default"], &api_key)?;
        let options = AgentOptions {
            name,
            labels: &[],
            api_key: &api_key,
            join_token: &join_token,
            drift_interval_secs: 1,
        };
        let config = fleet
            .stack
            .agent_config(&fleet.control, &kibana, &options)?;
        fs::rename(config, dir.join(format!("{name}.toml")))?;
        fleet.kibanas.push((name, kibana));
    }
    fs::write(dir.join("broken.toml"), "[kibana]\nurll = 1\n")?;
    let common = fleet.stack.dir().join("common.toml");
    fs::write(&common, "[log]\nformat = \"text\"\n")?;
    let mut command = Command::new(binaries::path("keyfleet-agent")?);
    command
        .args(["run", "--config"])
        .arg(&common)
        .arg("--deployments")
        .arg(&dir);
    let is_ready = |line: &str| line.contains("session established");
    Process::spawn("agent-remote", command, fleet.stack.dir(), is_ready, READY)
}

#[test]
fn one_process_serves_many_kibanas_and_a_broken_one_stops_no_other() {
    let mut fleet = Fleet::start("remote", &BESIDE).unwrap();
    let mut agent = start(&mut fleet).unwrap();
    let connected = || {
        let answer = fleet.stack.json(&["get", "deployments"]).ok()?;
        let all = answer["deployments"].as_array()?;
        (all.iter().filter(|d| d["connected"] == true).count() == 4).then_some(())
    };
    fleet.wait_until("four sessions", connected).unwrap();
    let log = agent.log().unwrap();
    assert!(log.contains("broken.toml") && log.contains("urll"), "{log}");

    fleet
        .break_kibana("cloud-b", r#"{"api": {"mode": "hang"}}"#)
        .unwrap();
    fleet.begin_apply().unwrap();
    fleet.wait_for_state("cloud-a", "PROVEN").unwrap();
    fleet.wait_for_state("cloud-c", "PROVEN").unwrap();
    fleet.break_kibana("cloud-b", "").unwrap();
    fleet.wait_until_proven("1").unwrap();
    for (name, _) in REMOTE {
        assert_eq!(fleet.writes_of(name).unwrap(), [1, 0, 0], "{name}");
    }
    // One identity is void: its deployment ends and the others go on.
    let revoke = [
        "deployment",
        "revoke",
        "cloud-a",
        "--reason",
        "test",
        "--yes",
    ];
    fleet.keyfleet(&revoke).unwrap().must_succeed().unwrap();
    let id = fleet.connectors("cloud-c").unwrap()[0]["id"].clone();
    fleet.meddle("cloud-c", "DELETE", &id, "").unwrap();
    fleet
        .wait_until("drift is corrected at another one", || {
            (fleet.count("cloud-c", "POST").ok()? == 2).then_some(())
        })
        .unwrap();
    // A restart touches nothing.
    let before = fleet.writes().unwrap();
    agent.restart().unwrap();
    fleet
        .wait_until("three sessions", || {
            let answer = fleet.stack.json(&["get", "deployments"]).ok()?;
            let all = answer["deployments"].as_array()?;
            let n = all
                .iter()
                .filter(|d: &&Value| d["connected"] == true)
                .count();
            (n == 3).then_some(())
        })
        .unwrap();
    assert_eq!(fleet.writes().unwrap(), before);
    agent.terminate(PATIENCE).unwrap();
}
