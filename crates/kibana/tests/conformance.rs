//! Driver against simulator, for each Kibana version, provider and field: what the one renders the other takes, and what
//! the one calls too new the other refuses. Their tables are written apart from each other.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up fails at once"
)]

use std::time::Duration;

use keyfleet_core::id::SpaceId;
use keyfleet_kibana::{Client, Credentials, Driver, Settings, Version, driver};
use keyfleet_sim::server::Server;
use keyfleet_sim::{kibana, openai};
use secrecy::SecretString;
use serde_json::{Map, Value, json};

const API_KEY: &str = "aWQ6a2V5";
const KEY: &str = "sk-proj-simulated0000000000000000MxYA";
const ID: &str = "0d1f7a52-3f9e-5c52-9d4e-0e6a7d1c9b11";
/// Everything here answers at once; this much means that it never will.
const PATIENCE: Duration = Duration::from_secs(20);
const PROVIDERS: [&str; 3] = ["OpenAI", "Azure OpenAI", "Other"];
const VERSIONS: [&str; 11] = [
    "8.9.0", "8.11.0", "8.14.0", "8.17.0", "8.18.0", "9.0.0", "9.1.0", "9.2.0", "9.3.0", "9.4.0",
    "9.6.0",
];

/// Every field of any provider beside the two that all need, with a good value.
fn extras() -> Vec<(&'static str, Value)> {
    vec![
        ("defaultModel", json!("gpt-4.1")),
        ("headers", json!({"X-Team": "soc"})),
        ("organizationId", json!("org-1")),
        ("projectId", json!("proj_1")),
        ("contextWindowLength", json!(128_000)),
        ("temperature", json!(0.2)),
        ("verificationMode", json!("certificate")),
        ("enableNativeFunctionCalling", json!(true)),
    ]
}

/// The least config of a provider, for a simulated provider at `url`.
fn least(provider: &str, url: &str) -> Value {
    let path = match provider {
        "OpenAI" => "/v1/chat/completions",
        "Azure OpenAI" => "/openai/deployments/gpt-4.1/chat/completions?api-version=2024-10-21",
        _ => "/compatible/v1/chat/completions",
    };
    let mut config = json!({"apiProvider": provider, "apiUrl": format!("{url}{path}")});
    if provider == "Other" {
        config["defaultModel"] = json!("gpt-4.1");
    }
    config
}

fn gen_ai() -> &'static dyn Driver {
    driver(".gen-ai").unwrap()
}

struct Kibana {
    client: Client,
    http: reqwest::Client,
    server: Server,
    version: Version,
    space: SpaceId,
}

impl Kibana {
    async fn start(version: &str) -> Self {
        let http = kibana::provider_client().unwrap();
        let options = kibana::Options::new(version.parse().unwrap(), API_KEY);
        let server = kibana::start(options).await.unwrap();
        let credentials = Credentials::ApiKey(SecretString::from(API_KEY));
        let settings = Settings {
            url: server.url().parse().unwrap(),
            credentials,
            ca_pem: None,
            proxy: None,
            timeout: PATIENCE,
            probe_timeout: PATIENCE,
        };
        Self {
            client: Client::new(settings).unwrap(),
            http,
            server,
            version: version.parse().unwrap(),
            space: "default".parse().unwrap(),
        }
    }

    /// Whether this Kibana takes a config that no driver has seen.
    async fn takes(&self, config: &Value) -> bool {
        let body = json!({"name": "x", "connector_type_id": ".gen-ai", "config": config, "secrets": {"apiKey": KEY}});
        let url = format!("{}/api/actions/connector/{ID}", self.server.url());
        let answer = self
            .http
            .post(url)
            .header("authorization", format!("ApiKey {API_KEY}"))
            .header("kbn-xsrf", "true")
            .json(&body)
            .send();
        let status = answer.await.unwrap().status().as_u16();
        assert!(matches!(status, 200 | 400), "{status} for {config}");
        let taken = status == 200;
        assert_eq!(self.client.delete(&self.space, ID).await.unwrap(), taken);
        taken
    }

    /// Writes what the driver renders and looks that Kibana stored just that.
    async fn holds(&self, config: &str) {
        let key = SecretString::from(KEY);
        let write = gen_ai().render(config, "OpenAI", &key, &self.version);
        let write = write.unwrap_or_else(|problems| panic!("{config}: {problems:?}"));
        let created = self.client.create(&self.space, ID, &write).await;
        created.unwrap_or_else(|error| panic!("{} refuses {config}: {error}", self.version));
        let observed = self.client.get(&self.space, ID).await.unwrap().unwrap();
        let differences = gen_ai().differences(config, "OpenAI", &observed);
        assert_eq!(differences, [], "{config} on {}", self.version);
        // A PUT is checked by the same schema.
        self.client.update(&self.space, ID, &write).await.unwrap();
        self.client.delete(&self.space, ID).await.unwrap();
    }

    /// The driver and this Kibana agree on a config that some Kibana takes.
    async fn agrees(&self, config: &Value) {
        let text = config.to_string();
        match gen_ai().check_version(&text, &self.version) {
            Ok(()) => self.holds(&text).await,
            Err(problems) => assert!(
                !self.takes(config).await,
                "{} takes {config}, and the driver says {problems:?}",
                self.version
            ),
        }
    }
}

#[tokio::test]
async fn each_field_of_each_provider_on_each_kibana() {
    for version in VERSIONS {
        let kibana = Kibana::start(version).await;
        for provider in PROVIDERS {
            let least = least(provider, "http://127.0.0.1:1");
            kibana.agrees(&least).await;
            for (field, value) in extras() {
                let mut config = least.clone();
                config[field] = value;
                if gen_ai().check(&config.to_string()).is_ok() {
                    kibana.agrees(&config).await;
                } else {
                    assert!(!kibana.takes(&config).await, "{version} takes {config}");
                }
            }
        }
    }
}

/// Everything a provider may have at once, and the names of what may be left out.
fn most(provider: &str, url: &str) -> (Value, Vec<String>) {
    let (mut config, mut names) = (least(provider, url), Vec::new());
    for (field, value) in extras() {
        let mut with = config.clone();
        with[field] = value;
        let name = vec![field.to_owned()];
        if gen_ai().check(&with.to_string()).is_ok() {
            config = with;
            let may_go = gen_ai().check_if_supported(&config.to_string(), &name);
            names.extend(may_go.is_ok().then_some(field.to_owned()));
        }
    }
    (config, names)
}

#[tokio::test]
async fn what_is_left_out_is_just_what_that_kibana_refuses() {
    for version in VERSIONS {
        let kibana = Kibana::start(version).await;
        for provider in PROVIDERS {
            let (most, names) = most(provider, "http://127.0.0.1:1");
            if !kibana.takes(&least(provider, "http://127.0.0.1:1")).await {
                continue;
            }
            let text = gen_ai().for_version(&most.to_string(), &names, &kibana.version);
            kibana.holds(&text).await;
            let kept: Map<String, Value> = serde_json::from_str(&text).unwrap();
            for (field, value) in most.as_object().unwrap() {
                let mut with = kept.clone();
                let is_left_out = with.insert(field.clone(), value.clone()).is_none();
                let taken = kibana.takes(&Value::Object(with)).await;
                assert_eq!(taken, !is_left_out, "{provider} {field} on {version}");
            }
        }
    }
}

#[tokio::test]
async fn each_provider_is_proven_on_each_kibana() {
    let options = openai::Options::new(vec![KEY.to_owned()]);
    let openai = openai::start(options).await.unwrap();
    for version in VERSIONS {
        let kibana = Kibana::start(version).await;
        for provider in PROVIDERS {
            if !kibana.takes(&least(provider, &openai.url())).await {
                continue;
            }
            let (most, names) = most(provider, &openai.url());
            for (key, is_good) in [(KEY, true), ("sk-proj-nobody-knows-this", false)] {
                let text = gen_ai().for_version(&most.to_string(), &names, &kibana.version);
                let key = SecretString::from(key);
                let write = gen_ai().render(&text, "x", &key, &kibana.version).unwrap();
                let (client, space) = (&kibana.client, &kibana.space);
                client.create(space, ID, &write).await.unwrap();
                // The whole config: what was left out still names the model.
                let config = most.to_string();
                let mut ran = client.execute(space, ID, &gen_ai().probe(&config)).await;
                if let Some(again) = gen_ai().probe_again(&config, ran.as_ref().unwrap()) {
                    ran = client.execute(space, ID, &again).await;
                }
                let result = gen_ai().read_probe(&ran.unwrap());
                let proven = matches!(result, keyfleet_kibana::ProbeResult::Proven { .. });
                assert_eq!(proven, is_good, "{provider} on {version}: {result:?}");
                client.delete(space, ID).await.unwrap();
            }
        }
    }
    openai.shutdown().await;
}
