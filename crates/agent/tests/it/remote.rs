//! One process for many Kibanas: each is a deployment of its own, and none of them stops another.

use std::path::{Path, PathBuf};

use keyfleet_agent::remote;
use keyfleet_proto::v1::{self, BindingState, FailureClass};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::harness::{Harness, KEY_1, PLACE};

/// Deployments with a control, a Kibana and a provider each, and the one process that serves them.
struct Fleet {
    harnesses: Vec<Harness>,
    directory: TempDir,
    process: JoinSet<Result<(), remote::Error>>,
    stop: CancellationToken,
}

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

impl Fleet {
    async fn start() -> Self {
        let mut harnesses = Vec::new();
        for name in NAMES {
            // Each Kibana takes only its own key.
            let key = format!("key{name}");
            harnesses.push(Harness::start_with(|options| options.api_key = key).await);
        }
        let fleet = Self {
            harnesses,
            directory: tempfile::tempdir().unwrap(),
            process: JoinSet::new(),
            stop: CancellationToken::new(),
        };
        std::fs::create_dir(fleet.deployments()).unwrap();
        let common = "[accept]\nhosts = [\"127.0.0.1\"]\n[deployment.labels]\nenv = \"prod\"\n";
        let state = fleet.directory.path().join("state");
        std::fs::write(fleet.common(), format!("state_dir = {state:?}\n{common}")).unwrap();
        for (name, harness) in NAMES.into_iter().zip(&fleet.harnesses) {
            fleet.write(name, &settings(name, harness));
        }
        fleet
    }

    fn common(&self) -> PathBuf {
        self.directory.path().join("common.toml")
    }

    fn deployments(&self) -> PathBuf {
        self.directory.path().join("deployments")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.deployments().join(format!("{name}.toml")), text).unwrap();
    }

    fn run(&mut self) {
        let (common, directory, stop) = (self.common(), self.deployments(), self.stop.clone());
        self.process
            .spawn(async move { remote::run(&common, &directory, stop).await });
    }

    fn check(&self) -> Vec<(String, String)> {
        remote::check(&self.common(), &self.deployments())
            .unwrap()
            .into_iter()
            .filter_map(|(name, problem)| Some((name, problem?)))
            .collect()
    }

    /// These are brought to a proven connector.
    async fn prove(&mut self, names: &[&str]) {
        for (name, harness) in NAMES.into_iter().zip(&mut self.harnesses) {
            if names.contains(&name) {
                let binding = harness.binding(PLACE, 1, 1);
                harness.prove(binding).await;
                assert_eq!(harness.connectors().await.len(), 1, "{name}");
            }
        }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        self.process.join_next().await.unwrap().unwrap().unwrap();
    }
}

fn settings(name: &str, harness: &Harness) -> String {
    let directory = harness.directory.path();
    format!(
        "[deployment]\nname = {name:?}\n[control]\naddress = \"https://{control}\"\njoin_token_file = {token:?}\n\
         [kibana]\nurl = {kibana:?}\ncredentials_file = {key:?}\n",
        control = harness.control.address,
        token = directory.join("token"),
        kibana = harness.kibana.url(),
        key = directory.join("kibana-key"),
    )
}

fn has_identity(state: &Path, name: &str) -> bool {
    state.join(name).join("identity.pem").exists()
}

#[tokio::test]
async fn each_deployment_has_its_own_identity_state_and_credentials() {
    let mut fleet = Fleet::start().await;
    assert_eq!(fleet.check(), []);
    fleet.run();
    fleet.prove(&NAMES).await;
    let state = fleet.directory.path().join("state");
    for (name, harness) in NAMES.into_iter().zip(&fleet.harnesses) {
        assert!(has_identity(&state, name));
        let enrolled = harness.control.state().enrolled.clone();
        let [enrolled] = enrolled.as_slice() else {
            panic!("{name} enrols once")
        };
        assert_eq!(enrolled.deployment_name, name);
        assert_eq!(enrolled.labels["env"], "prod");
    }
    fleet.stop().await;
}

#[tokio::test]
async fn a_broken_deployment_never_stops_the_others() {
    type Break = fn(&Fleet);
    let beta = |fleet: &Fleet| settings("beta", &fleet.harnesses[1]);
    let not_toml: Break = |fleet| fleet.write("beta", "[kibana");
    let unknown: Break = |fleet| {
        let text = format!("kibanna = 1\n{}", settings("beta", &fleet.harnesses[1]));
        fleet.write("beta", &text);
    };
    let no_key: Break = |fleet| {
        let key = fleet.harnesses[1].directory.path().join("kibana-key");
        std::fs::remove_file(key).unwrap();
    };
    let used_up: Break = |fleet| {
        fleet.harnesses[1]
            .control
            .change(|state| state.token_uses = 0);
    };
    let no_state: Break = |fleet| {
        std::fs::create_dir(fleet.directory.path().join("state")).unwrap();
        std::fs::write(fleet.directory.path().join("state/beta"), "a file").unwrap();
    };
    for (n, break_it) in [not_toml, unknown, no_key, used_up, no_state]
        .into_iter()
        .enumerate()
    {
        let mut fleet = Fleet::start().await;
        break_it(&fleet);
        fleet.run();
        fleet.prove(&["alpha", "gamma"]).await;
        assert!(fleet.harnesses[1].control.state().hellos.is_empty(), "{n}");
        if n < 2 {
            let checked = fleet.check();
            assert!(
                matches!(checked.as_slice(), [(name, _)] if name == "beta.toml"),
                "{checked:?}"
            );
            // A file that was no good is taken up when it changes.
            fleet.write("beta", &beta(&fleet));
            fleet.prove(&["beta"]).await;
        }
        fleet.stop().await;
    }
}

#[tokio::test]
async fn a_kibana_that_is_down_and_a_void_identity_are_one_deployments_own() {
    let mut fleet = Fleet::start().await;
    fleet.harnesses[0]
        .kibana_faults(json!({"api": {"mode": "down"}}))
        .await;
    fleet.run();
    let binding = fleet.harnesses[0].binding(PLACE, 1, 1);
    fleet.harnesses[0].push(vec![binding]);
    fleet.prove(&["beta", "gamma"]).await;
    let status = fleet.harnesses[0]
        .control
        .until_state(PLACE, BindingState::Failed)
        .await;
    assert_eq!(status.failure_class(), FailureClass::KibanaDown);
    // Beta's identity ends for good; the others go on.
    let void = &fleet.harnesses[1].control;
    let refusal = "deployment is not enrolled with this certificate";
    void.change(|state| {
        state.session_refusal = Some((&[1, 2, 3], Code::PermissionDenied, refusal));
        state.renewal_refusal = Some((Code::PermissionDenied, refusal));
    });
    void.drop_sessions(Code::PermissionDenied, refusal);
    void.until("it asked for a last time", |state| {
        !state.renewals.is_empty()
    })
    .await;
    fleet.harnesses[0].kibana_faults(json!({})).await;
    for n in [0, 2] {
        let binding = fleet.harnesses[n].binding(PLACE, 2, 1);
        fleet.harnesses[n].prove(binding).await;
    }
    fleet.stop().await;
}

#[tokio::test]
async fn two_files_with_the_same_name_or_state_are_both_refused() {
    for same in ["name", "state directory"] {
        let mut fleet = Fleet::start().await;
        let gamma = match same {
            "name" => settings("beta", &fleet.harnesses[2]),
            _ => {
                let state = fleet.directory.path().join("state/./beta/");
                format!(
                    "state_dir = {state:?}\n{}",
                    settings("gamma", &fleet.harnesses[2])
                )
            }
        };
        fleet.write("gamma", &gamma);
        let checked = fleet.check();
        let names: Vec<_> = checked.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["beta.toml", "gamma.toml"]);
        for (_, problem) in &checked {
            let said = format!("beta.toml and gamma.toml have the same {same}");
            assert!(problem.contains(&said), "{problem}");
        }
        fleet.run();
        fleet.prove(&["alpha"]).await;
        for n in [1, 2] {
            assert!(fleet.harnesses[n].control.state().enrolled.is_empty());
        }
        fleet.stop().await;
    }
}

#[tokio::test]
async fn it_ends_with_an_error_only_where_none_can_run() {
    let mut fleet = Fleet::start().await;
    for name in NAMES {
        fleet.write(name, "[kibana");
    }
    fleet.run();
    let error = fleet
        .process
        .join_next()
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(&error, remote::Error::NoneRuns { n: 3, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("alpha.toml"), "{error}");
    for name in NAMES {
        std::fs::remove_file(fleet.deployments().join(format!("{name}.toml"))).unwrap();
    }
    fleet.run();
    let error = fleet
        .process
        .join_next()
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, remote::Error::Empty { .. }), "{error}");
}

#[tokio::test]
async fn secrets_of_one_deployment_are_not_in_the_state_of_another() {
    let mut fleet = Fleet::start().await;
    fleet.run();
    fleet.prove(&["alpha"]).await;
    let status = fleet.harnesses[0].control.state().statuses[PLACE].clone();
    assert_eq!(status.state(), v1::BindingState::Proven);
    let state = fleet.directory.path().join("state");
    fleet.harnesses[1]
        .control
        .until("beta is there", |state| !state.hellos.is_empty())
        .await;
    assert!(
        !state.join("beta").join("ledger.json").exists() || {
            let ledger = std::fs::read_to_string(state.join("beta/ledger.json")).unwrap();
            !ledger.contains("assistant")
        }
    );
    assert!(
        !std::fs::read_to_string(state.join("alpha/ledger.json"))
            .unwrap()
            .contains(KEY_1)
    );
    fleet.stop().await;
}
