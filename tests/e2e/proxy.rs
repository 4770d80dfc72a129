//! In a closed network every way out leads through an HTTP proxy: agent to control, agent to Kibana, control to Vault.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::process::Process;
use xtask::stack::READY;
use xtask::{binaries, http, net};

use crate::kit::{FIVE, Fleet, Setup};

/// No log and no status may show it.
const PASSWORD: &str = "proxy-canary-7Qx";

/// A proxy that wants a user and keeps a list.
struct Proxy {
    _process: Process,
    _dir: tempfile::TempDir,
    url: String,
}

impl Proxy {
    fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let listen = format!("127.0.0.1:{}", net::free_port()?);
        let mut command = Command::new(binaries::path("keyfleet-sim")?);
        let user = format!("fleet:{PASSWORD}");
        command.args(["proxy", "--listen", &listen, "--user", &user]);
        let is_ready = |line: &str| line.contains("proxy ready at");
        Ok(Self {
            _process: Process::spawn("proxy", command, dir.path(), is_ready, READY)?,
            _dir: dir,
            url: format!("http://{listen}"),
        })
    }

    /// As settings have it.
    fn with_user(&self) -> String {
        let user = format!("http://fleet:{PASSWORD}@");
        self.url.replace("http://", &user)
    }

    /// How many requests of a method for a destination it let through.
    fn forwarded(&self, method: &str, destination: &str) -> Result<usize> {
        let answer: Value = serde_json::from_str(&http::get(&self.url, "/_sim/requests")?)?;
        let requests = answer["requests"].as_array().context("no list")?;
        let fits = |entry: &&Value| {
            entry["method"] == method && entry["target"] == destination && entry["status"] == 200
        };
        Ok(requests.iter().filter(fits).count())
    }
}

/// An address without its scheme.
fn authority(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest)
}

#[test]
fn a_fleet_is_proven_where_every_way_leads_through_a_proxy() {
    let proxy = Proxy::start().unwrap();
    let url = proxy.with_user();
    let setup = Setup {
        control: &[("KEYFLEET_CONTROL__VAULT__PROXY", url.as_str())],
        agents: &[
            ("KEYFLEET_AGENT__CONTROL__PROXY", url.as_str()),
            ("KEYFLEET_AGENT__KIBANA__PROXY", url.as_str()),
        ],
        ..Setup::USUAL
    };
    let members = FIVE.get(..2).unwrap();
    let fleet = Fleet::start_as("proxy", members, &setup).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    assert!(fleet.is_proven("1").unwrap());

    let control = format!("127.0.0.1:{}", fleet.control.agents_port);
    // Each agent enrols over one connection and has its session over another.
    assert!(proxy.forwarded("CONNECT", &control).unwrap() >= 2 * members.len());
    for (name, kibana) in &fleet.kibanas {
        let kibana = authority(&kibana.url);
        assert!(proxy.forwarded("POST", kibana).unwrap() >= 2, "{name}");
    }
    let vault = fleet.stack.bao.address();
    let vault = authority(&vault);
    let tunnels = proxy.forwarded("CONNECT", vault).unwrap();
    let reads = proxy.forwarded("GET", vault).unwrap();
    assert!(tunnels + reads > 0);
    for entry in std::fs::read_dir(fleet.stack.dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            assert!(!text.contains(PASSWORD), "{}", path.display());
        }
    }
}
