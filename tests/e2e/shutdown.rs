//! Ending in good order, and starting where it cannot work: a clear sentence and an exit code.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use keyfleet_proto::v1;
use keyfleet_proto::v1::operator_service_client::OperatorServiceClient;
use serde_json::Value;
use tonic::Request;
use tonic::transport::Channel;
use xtask::binaries;
use xtask::fleet::Done;
use xtask::process::Process;

use crate::kit::{FIVE, Fleet, Member};
use crate::operators::dial;

const LAB: [Member; 1] = [("lab", "8.18.0", &["default"], &[("tier", "canary")])];
const TWO: [Member; 2] = [LAB[0], ("web", "9.6.0", &["default"], &[])];

/// The deadline of control in these tests is 5 s, that of an agent's calls in flight 10 s.
const END: Duration = Duration::from_secs(15);

#[test]
fn control_ends_on_sigterm_and_its_agents_come_back() {
    let mut fleet = Fleet::start_applied("sigterm-control", &TWO).unwrap();
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

/// People and pipelines at the operators' port, for as long as control serves them.
#[derive(Default)]
struct Crowd {
    /// Streams that have said something.
    begun: AtomicUsize,
    /// Tokens whose making was acknowledged.
    made: Mutex<Vec<String>>,
}

impl Crowd {
    const WATCHERS: usize = 40;
    const READERS: usize = 10;

    /// Watches, follows the audit log and makes tokens, until control ends all of it.
    async fn work(&self, client: OperatorServiceClient<Channel>, bearer: &str, rollout: &str) {
        let (mut idle, mut busy) = (Vec::new(), tokio::task::JoinSet::new());
        for index in 0..Self::WATCHERS {
            let call = v1::WatchRolloutRequest {
                id: rollout.to_owned(),
            };
            let answer = client
                .clone()
                .watch_rollout(with_bearer(call, bearer))
                .await
                .unwrap();
            let mut stream = answer.into_inner();
            stream.message().await.unwrap().unwrap();
            self.begun.fetch_add(1, Ordering::Relaxed);
            // Some read on, some never do: neither may hold the end up.
            if index % 2 == 0 {
                busy.spawn(async move { while matches!(stream.message().await, Ok(Some(_))) {} });
            } else {
                idle.push(stream);
            }
        }
        for _ in 0..Self::READERS {
            let call = v1::ReadAuditRequest {
                follow: true,
                ..v1::ReadAuditRequest::default()
            };
            let answer = client.clone().read_audit(with_bearer(call, bearer)).await;
            let mut stream = answer.unwrap().into_inner();
            self.begun.fetch_add(1, Ordering::Relaxed);
            busy.spawn(async move { while matches!(stream.message().await, Ok(Some(_))) {} });
        }
        let call = v1::CreateTokenRequest {
            kind: v1::TokenKind::Join.into(),
            ..v1::CreateTokenRequest::default()
        };
        while let Ok(made) = client
            .clone()
            .create_token(with_bearer(call.clone(), bearer))
            .await
        {
            let id = made.into_inner().token.map(|token| token.id);
            self.made.lock().unwrap().extend(id);
        }
        busy.join_all().await;
        drop(idle);
    }
}

fn with_bearer<T>(call: T, bearer: &str) -> Request<T> {
    let mut request = Request::new(call);
    let bearer = format!("Bearer {bearer}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

#[test]
fn control_ends_under_load_and_loses_nothing_that_it_acknowledged() {
    const SLOW: &str = r#"{"api": {"mode": "slow", "delay_ms": 500, "methods": ["PUT"]}}"#;
    let mut fleet = Fleet::start_applied("sigterm-load", &FIVE).unwrap();
    for (name, ..) in &FIVE {
        fleet.break_kibana(name, SLOW).unwrap();
    }
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    fleet.begin_apply().unwrap();
    let rollout = fleet.rollout_id().unwrap();
    let (url, data_dir) = (fleet.control.operators_url.clone(), &fleet.control.data_dir);
    let bearer = fs::read_to_string(data_dir.join("admin.token")).unwrap();
    let (ca, crowd) = (data_dir.join("ca.pem"), Crowd::default());
    let status = std::thread::scope(|scope| {
        scope.spawn(|| {
            dial(&url, &ca, async |channel| {
                let client = OperatorServiceClient::new(channel);
                crowd.work(client, bearer.trim(), &rollout).await;
            })
            .unwrap();
        });
        let begun = || {
            let made = crowd.made.lock().unwrap().len();
            let begun = crowd.begun.load(Ordering::Relaxed);
            (begun == Crowd::WATCHERS + Crowd::READERS && made > 20).then_some(())
        };
        fleet.wait_until("everybody is at work", begun).unwrap();
        fleet.control.process.terminate(END).unwrap().unwrap()
    });
    let log = fleet.control.process.log().unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("control service ended"), "{log}");
    assert!(
        !log.contains("cut off"),
        "every stream ended by itself: {log}"
    );
    for (name, agent) in &fleet.agents {
        let said = agent.log().unwrap();
        let asked = said
            .lines()
            .find(|line| line.contains("asks to come back later"));
        assert!(
            asked.is_some_and(|line| line.contains("secs=5")),
            "{name}: {said}"
        );
    }

    fleet.control.process.restart().unwrap();
    fleet.wait_until_connected().unwrap();
    what_was_acknowledged_is_there(&fleet, &crowd);
    fleet
        .keyfleet(&["audit", "verify"])
        .unwrap()
        .must_succeed()
        .unwrap();
    let watched = fleet
        .keyfleet(&["rollout", "watch", &rollout, "--timeout", "60s"])
        .unwrap();
    assert_eq!(watched.code, 0, "{watched:?}");
    assert!(fleet.all_have("gpt-5.2", "aQ3d").unwrap());
}

fn what_was_acknowledged_is_there(fleet: &Fleet, crowd: &Crowd) {
    let tokens = fleet.stack.json(&["token", "list"]).unwrap();
    let known: Vec<&Value> = tokens["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| &t["id"])
        .collect();
    let entries = crate::audit::entries(fleet).unwrap();
    for id in crowd.made.lock().unwrap().iter() {
        assert!(
            known.iter().any(|known| *known == id),
            "token {id} was acknowledged"
        );
        let target = format!("token {id}");
        assert!(
            entries.iter().any(|entry| entry["target"] == *target),
            "{target}"
        );
    }
}

#[test]
fn an_agent_ends_on_sigterm_and_control_sees_it_go() {
    let mut fleet = Fleet::start_applied("sigterm-agent", &LAB).unwrap();
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
