//! One agent with its Kibana, its provider and its control.

use std::path::PathBuf;
use std::time::Duration;

use keyfleet_agent::config::{self, Config};
use keyfleet_core::binding::BindingId;
use keyfleet_proto::v1;
use keyfleet_sim::{kibana, openai, server::Server};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::control::Control;

pub(crate) const KEY_1: &str = "sk-proj-Canary1aaaaaaaaaaaaaaaaaaaaaaaaQx1Z";
pub(crate) const KEY_2: &str = "sk-proj-Canary2bbbbbbbbbbbbbbbbbbbbbbbbWy2Z";
pub(crate) const PLACE: &str = "default/assistant";

pub(crate) struct Harness {
    pub(crate) control: Control,
    pub(crate) kibana: Server,
    pub(crate) openai: Server,
    pub(crate) directory: TempDir,
    pub(crate) http: reqwest::Client,
    agents: JoinSet<Result<(), keyfleet_agent::Error>>,
    agent: Option<(CancellationToken, tokio::task::AbortHandle)>,
    generation: u64,
    _tasks: JoinSet<()>,
}

impl Harness {
    /// Everything but the agent is running; both keys work.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same with another Kibana.
    pub(crate) async fn start_with(change: impl FnOnce(&mut kibana::Options)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut tasks = JoinSet::new();
        let control = Control::start(&mut tasks).await;
        control.change(|state| {
            state
                .keys
                .insert(("openai".to_owned(), 1), KEY_1.to_owned());
            state
                .keys
                .insert(("openai".to_owned(), 2), KEY_2.to_owned());
        });
        let openai = openai::start(openai::Options::new(vec![
            KEY_1.to_owned(),
            KEY_2.to_owned(),
        ]))
        .await
        .unwrap();
        let mut options = kibana::Options::new("9.4.0".parse().unwrap(), "a2liYW5h");
        options.spaces = vec!["default".to_owned(), "soc".to_owned()];
        change(&mut options);
        let api_key = format!("{}\n", options.api_key);
        let kibana = kibana::start(options).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("kibana-key"), api_key).unwrap();
        std::fs::write(directory.path().join("token"), &control.token).unwrap();
        let http = reqwest::Client::new();
        Self {
            control,
            kibana,
            openai,
            directory,
            http,
            agents: JoinSet::new(),
            agent: None,
            generation: 0,
            _tasks: tasks,
        }
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            deployment: config::Deployment {
                name: "prod".parse().unwrap(),
                labels: [("env".into(), "prod".into())].into(),
            },
            control: config::Control {
                host: "127.0.0.1".to_owned(),
                port: self.control.address.port(),
                join_token_file: Some(self.directory.path().join("token")),
                proxy: None,
                timeout: Duration::from_secs(20),
            },
            state_dir: self.state_dir(),
            kibana: config::Kibana {
                url: self.kibana.url().parse().unwrap(),
                credentials_file: self.directory.path().join("kibana-key"),
                ca_file: None,
                proxy: None,
                timeout: Duration::from_secs(5),
                probe_timeout: Duration::from_secs(5),
            },
            elasticsearch: None,
            accept: config::Accept {
                connector_types: vec![".gen-ai".to_owned()],
                hosts: vec!["127.0.0.1".to_owned()],
                spaces: vec!["*".to_owned()],
                adoption: true,
            },
            drift_interval: Duration::from_secs(300),
            log: config::Log {
                format: keyfleet_telemetry::Format::Text,
                filter: String::new(),
            },
        }
    }

    /// Starts the agent with the usual settings.
    pub(crate) fn run(&mut self) {
        let config = self.config();
        self.run_with(config);
    }

    pub(crate) fn run_with(&mut self, config: Config) {
        let stop = CancellationToken::new();
        let handle = self.agents.spawn(keyfleet_agent::run(config, stop.clone()));
        self.agent = Some((stop, handle));
    }

    /// As SIGTERM does; waits until the agent has ended.
    pub(crate) async fn stop(&mut self) {
        let (stop, _) = self.agent.take().expect("an agent runs");
        stop.cancel();
        self.agents.join_next().await.unwrap().unwrap().unwrap();
    }

    /// As `kill -9` does: nothing of the agent runs any more, wherever it was.
    pub(crate) async fn kill(&mut self) {
        let (_, handle) = self.agent.take().expect("an agent runs");
        handle.abort();
        assert!(
            self.agents
                .join_next()
                .await
                .unwrap()
                .unwrap_err()
                .is_cancelled()
        );
    }

    /// How the agent ended by itself.
    pub(crate) async fn ended(&mut self) -> Result<(), keyfleet_agent::Error> {
        self.agent = None;
        self.agents.join_next().await.unwrap().unwrap()
    }

    /// A binding of the default model with the newest attempt.
    pub(crate) fn binding(
        &self,
        place: &str,
        revision: u64,
        key_version: u64,
    ) -> v1::DesiredBinding {
        let (space, connector) = place.split_once('/').unwrap();
        let id = BindingId {
            deployment: self.control.deployment,
            space: space.parse().unwrap(),
            connector: connector.parse().unwrap(),
        };
        let config = json!({
            "apiProvider": "OpenAI",
            "apiUrl": format!("{}/v1/chat/completions", self.openai.url()),
            "defaultModel": "gpt-4o",
        });
        v1::DesiredBinding {
            binding: Some(v1::BindingRef {
                space: space.to_owned(),
                connector: connector.to_owned(),
            }),
            connector_id: id.connector_id().to_string(),
            connector_type: ".gen-ai".to_owned(),
            display_name: format!("OpenAI r{revision}"),
            config_json: config.to_string(),
            key: "openai".to_owned(),
            assignment: Some(v1::Assignment {
                revision,
                key_version,
            }),
            attempt: 1,
            remove: false,
            drift_policy: v1::DriftPolicy::Correct.into(),
            allowed_hosts: vec!["127.0.0.1".to_owned()],
            probe_interval_secs: 0,
            if_supported: Vec::new(),
            ..v1::DesiredBinding::default()
        }
    }

    /// Pushes these bindings as the next generation.
    pub(crate) fn push(&mut self, bindings: Vec<v1::DesiredBinding>) -> v1::Desired {
        self.generation += 1;
        let desired = desired(1, self.generation, bindings);
        self.control.push(&desired);
        desired
    }

    /// Pushes one binding and waits until it is proven.
    pub(crate) async fn prove(&mut self, binding: v1::DesiredBinding) -> v1::BindingStatus {
        let reference = binding.binding.clone().unwrap();
        let place = format!("{}/{}", reference.space, reference.connector);
        let wanted = binding.assignment;
        let attempt = binding.attempt;
        self.push(vec![binding]);
        self.control
            .until(&format!("{place} is proven with {wanted:?}"), |state| {
                state.statuses.get(&place).is_some_and(|status| {
                    status.state() == v1::BindingState::Proven
                        && status.running == wanted
                        && status.attempt == attempt
                })
            })
            .await;
        self.control.state().statuses[&place].clone()
    }

    /// How many requests of this kind Kibana got. What asks for privileges is a kind of its own.
    pub(crate) async fn count(&self, method: &str, class: &str) -> u64 {
        if class == "connector" {
            let url = format!(
                "{}/_sim/requests?method={method}&class={class}",
                self.kibana.url()
            );
            let requests = self.get(&url).await;
            let about_one = |request: &&Value| request["connector_id"].is_string();
            let requests = requests.as_array().unwrap();
            return requests
                .iter()
                .filter(about_one)
                .count()
                .try_into()
                .unwrap();
        }
        let url = format!(
            "{}/_sim/requests/count?method={method}&class={class}",
            self.kibana.url()
        );
        let answer: Value = self.get(&url).await;
        answer["count"].as_u64().unwrap()
    }

    /// Waits until Kibana has got this many requests of a kind; the agent may be in the middle of one.
    pub(crate) async fn until_count(&self, method: &str, class: &str, count: u64) {
        let wait = async {
            while self.count(method, class).await < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .expect("the request comes");
    }

    /// Creations, replacements, removals and live calls.
    pub(crate) async fn writes(&self) -> (u64, u64, u64, u64) {
        (
            self.count("POST", "connector").await,
            self.count("PUT", "connector").await,
            self.count("DELETE", "connector").await,
            self.count("POST", "execute").await,
        )
    }

    pub(crate) async fn connectors(&self) -> Vec<Value> {
        let answer = self
            .get(&format!("{}/_sim/connectors", self.kibana.url()))
            .await;
        answer.as_array().unwrap().clone()
    }

    pub(crate) async fn kibana_faults(&self, faults: Value) {
        self.put(&format!("{}/_sim/faults", self.kibana.url()), &faults)
            .await;
    }

    /// Somebody else changes a connector through Kibana's own API.
    pub(crate) async fn meddle(&self, binding: &v1::DesiredBinding, name: &str) {
        let url = format!(
            "{}/api/actions/connector/{}",
            self.kibana.url(),
            binding.connector_id
        );
        let config: Value = serde_json::from_str(&binding.config_json).unwrap();
        let body = json!({"name": name, "config": config, "secrets": {"apiKey": KEY_1}});
        let request = self
            .http
            .put(url)
            .header("authorization", "ApiKey a2liYW5h")
            .header("kbn-xsrf", "x")
            .json(&body);
        assert!(request.send().await.unwrap().status().is_success());
    }

    /// Every request that Kibana got since the log was cleared.
    pub(crate) async fn requests(&self) -> Vec<Value> {
        let answer = self
            .get(&format!("{}/_sim/requests", self.kibana.url()))
            .await;
        answer.as_array().unwrap().clone()
    }

    /// Forgets every request that Kibana got.
    pub(crate) async fn forget_requests(&self) {
        let url = format!("{}/_sim/requests", self.kibana.url());
        let answer = self.http.delete(url).send().await.unwrap();
        assert!(answer.status().is_success());
    }

    /// Somebody else makes a connector.
    pub(crate) async fn add_foreign(&self, space: &str, name: &str) -> String {
        let url = format!("{}/s/{space}/api/actions/connector", self.kibana.url());
        let config = json!({
            "apiProvider": "OpenAI",
            "apiUrl": format!("{}/v1/chat/completions", self.openai.url()),
            "headers": {"x-team": "soc"},
        });
        let body = json!({
            "name": name, "connector_type_id": ".gen-ai", "config": config, "secrets": {"apiKey": KEY_1},
        });
        let request = self
            .http
            .post(url)
            .header("authorization", "ApiKey a2liYW5h")
            .header("kbn-xsrf", "x")
            .json(&body);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Somebody else deletes a connector of the default space.
    pub(crate) async fn delete(&self, binding: &v1::DesiredBinding) {
        let url = format!(
            "{}/_sim/connectors/{}",
            self.kibana.url(),
            binding.connector_id
        );
        let answer = self.http.delete(url).send().await.unwrap();
        assert!(answer.status().is_success());
    }

    /// So many rules and others refer to a connector now.
    pub(crate) async fn refer_to(&self, id: &str, count: u32) {
        let url = format!("{}/_sim/references", self.kibana.url());
        self.put(&url, &json!({ id: count })).await;
    }

    /// What Kibana counted of requests under way.
    pub(crate) async fn request_counts(&self) -> Value {
        let url = format!("{}/_sim/requests/counts", self.kibana.url());
        self.get(&url).await
    }

    async fn get(&self, url: &str) -> Value {
        self.http
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    async fn put(&self, url: &str, body: &Value) {
        let answer = self.http.put(url).json(body).send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{}",
            answer.text().await.unwrap()
        );
    }

    /// Changes a file of the agent's state.
    pub(crate) fn rewrite(&self, file: &str, change: impl FnOnce(String) -> String) {
        let path = self.state_dir().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, change(text)).unwrap();
    }

    /// Puts another join token into its file.
    pub(crate) fn give_token(&self, token: &str) {
        std::fs::write(self.directory.path().join("token"), token).unwrap();
    }

    /// Waits until the certificates with these numbers opened sessions, one after the other.
    pub(crate) async fn until_sessions(&self, numbers: &[u64]) {
        self.control
            .until(&format!("sessions of {numbers:?}"), |state| {
                state.sessions == numbers
            })
            .await;
    }

    /// Everything the agent keeps on disk, as one text.
    pub(crate) fn on_disk(&self) -> String {
        fn read(directory: &std::path::Path, into: &mut Vec<u8>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    read(&path, into);
                } else {
                    into.extend(std::fs::read(path).unwrap());
                }
            }
        }
        let mut bytes = Vec::new();
        read(&self.state_dir(), &mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

pub(crate) fn desired(epoch: u64, counter: u64, bindings: Vec<v1::DesiredBinding>) -> v1::Desired {
    let generation = Some(v1::Generation { epoch, counter });
    v1::Desired {
        generation,
        digest: format!("digest {epoch}.{counter}").into(),
        bindings,
    }
}
