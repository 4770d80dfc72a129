//! Drivers against the simulator, for each Kibana version, type, provider and field: what the one renders the other
//! takes, and what the one calls too new the other refuses. Their tables are written apart from each other.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up fails at once"
)]

mod kinds;

use std::net::SocketAddr;
use std::time::Duration;

use keyfleet_core::binding::Rung;
use keyfleet_core::connector::Probe;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::SpaceId;
use keyfleet_kibana::{
    Client, Credentials, Elasticsearch, Error, Execution, KeyValue, Observed, ProbeResult,
    Settings, Surface, Version, Write,
};
use keyfleet_sim::server::Server;
use keyfleet_sim::{kibana, openai};
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use self::kinds::{
    KEY, KINDS, Kind, OTHER, WRONG, certificate, endpoint_body, known_keys, private_key,
};

const API_KEY: &str = "aWQ6a2V5";
const ID: &str = "0d1f7a52-3f9e-5c52-9d4e-0e6a7d1c9b11";
/// Everything here answers at once; this much means that it never will.
const PATIENCE: Duration = Duration::from_secs(20);
const VERSIONS: [&str; 13] = [
    "8.9.0", "8.11.0", "8.14.0", "8.15.0", "8.16.0", "8.17.0", "8.18.0", "9.0.0", "9.1.0", "9.2.0",
    "9.3.0", "9.4.0", "9.6.0",
];

struct Kibana {
    client: Client,
    http: reqwest::Client,
    server: Server,
    version: Version,
    space: SpaceId,
}

async fn provider() -> Server {
    let options = openai::Options::new(known_keys());
    openai::start(options).await.unwrap()
}

fn credentials() -> Credentials {
    Credentials::ApiKey(SecretString::from(API_KEY))
}

impl Kibana {
    /// A Kibana with an Elasticsearch whose endpoints call this provider.
    async fn start(version: &str, provider: &Server) -> Self {
        let http = kibana::provider_client().unwrap();
        let mut options = kibana::Options::new(version.parse().unwrap(), API_KEY);
        options.elasticsearch = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        options.provider_url = Some(provider.url());
        let server = kibana::start(options).await.unwrap();
        let elasticsearch = Elasticsearch {
            url: server.elasticsearch_url().unwrap().parse().unwrap(),
            credentials: credentials(),
            ca_pem: None,
        };
        let settings = Settings {
            url: server.url().parse().unwrap(),
            credentials: credentials(),
            ca_pem: None,
            proxy: None,
            elasticsearch: Some(elasticsearch),
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

    /// Whether this Kibana, or its Elasticsearch, takes a config that no driver has seen.
    async fn takes(&self, kind: Kind, config: &Value) -> bool {
        let taken = self.takes_with(kind, config, &kind.secrets()).await;
        assert_eq!(self.delete(kind, config).await, taken, "{kind:?} {config}");
        taken
    }

    async fn takes_with(&self, kind: Kind, config: &Value, secrets: &Value) -> bool {
        let task = config["taskType"].as_str().unwrap_or_default();
        let request = if kind.is_endpoint() {
            let url = self.server.elasticsearch_url().unwrap();
            let request = self.http.put(format!("{url}/_inference/{task}/{ID}"));
            request.json(&endpoint_body(config))
        } else {
            let body = json!({"name": "x", "connector_type_id": kind.connector_type, "config": config,
                "secrets": secrets});
            let url = format!("{}/api/actions/connector/{ID}", self.server.url());
            self.http.post(url).json(&body)
        };
        let request = request
            .header("authorization", format!("ApiKey {API_KEY}"))
            .header("kbn-xsrf", "true");
        let status = request.send().await.unwrap().status().as_u16();
        // Older releases hide why the endpoint of `.inference` could not be made.
        let is_hidden = status == 500 && kind.connector_type == ".inference";
        assert!(
            matches!(status, 200 | 400) || is_hidden,
            "{status} for {kind:?} {config}"
        );
        status == 200
    }

    async fn create(&self, kind: Kind, config: &str, write: &Write) -> Result<Observed, Error> {
        match kind.driver().surface(config) {
            Surface::Kibana => self.client.create(&self.space, ID, write).await,
            Surface::Elasticsearch { task } => self.client.create_endpoint(&task, ID, write).await,
        }
    }

    async fn update(&self, kind: Kind, config: &str, write: &Write) -> Result<Observed, Error> {
        match kind.driver().surface(config) {
            Surface::Kibana => self.client.update(&self.space, ID, write).await,
            Surface::Elasticsearch { task } => self.client.update_endpoint(&task, ID, write).await,
        }
    }

    async fn get(&self, kind: Kind, config: &str) -> Observed {
        let found = match kind.driver().surface(config) {
            Surface::Kibana => self.client.get(&self.space, ID).await,
            Surface::Elasticsearch { task } => self.client.get_endpoint(&task, ID).await,
        };
        found.unwrap().unwrap()
    }

    async fn execute(&self, kind: Kind, config: &str, params: &Value) -> Execution {
        let ran = match kind.driver().surface(config) {
            Surface::Kibana => self.client.execute(&self.space, ID, params).await,
            Surface::Elasticsearch { task } => self.client.try_endpoint(&task, ID, params).await,
        };
        ran.unwrap_or_else(|error| panic!("{kind:?} {params} on {}: {error}", self.version))
    }

    async fn delete(&self, kind: Kind, config: &Value) -> bool {
        let deleted = match kind.driver().surface(&config.to_string()) {
            Surface::Kibana => self.client.delete(&self.space, ID).await,
            Surface::Elasticsearch { task } => self.client.delete_endpoint(&task, ID).await,
        };
        deleted.unwrap_or(false)
    }

    /// Writes what the driver renders and looks that just that is stored.
    async fn holds(&self, kind: Kind, config: &str) {
        let write = kind.render(config, KEY, &self.version);
        let created = self.create(kind, config, &write).await;
        created.unwrap_or_else(|error| panic!("{} refuses {config}: {error}", self.version));
        let observed = self.get(kind, config).await;
        let differences = kind.driver().differences(config, "OpenAI", &observed);
        assert_eq!(differences, [], "{config} on {}", self.version);
        assert_eq!(kind.driver().check_update(config, &observed), Ok(()));
        // A PUT is checked by the same schema.
        self.update(kind, config, &write).await.unwrap();
        assert!(
            self.delete(kind, &serde_json::from_str(config).unwrap())
                .await
        );
    }

    /// The driver and this Kibana agree on a config that some Kibana takes.
    async fn agrees(&self, kind: Kind, config: &Value) {
        let text = config.to_string();
        match kind.driver().check_version(&text, &self.version) {
            Ok(()) => self.holds(kind, &text).await,
            Err(problems) => assert!(
                !self.takes(kind, config).await,
                "{} takes {config}, and the driver says {problems:?}",
                self.version
            ),
        }
    }

    /// An endpoint needs `_update` too, which is younger than endpoints themselves.
    fn is_asked(&self, kind: Kind) -> bool {
        !kind.is_endpoint() || self.version >= Version::new(8, 17, 0)
    }

    /// The live call, with the second one where the first only used a limit that the server does not know.
    async fn probe(&self, kind: Kind, config: &str) -> ProbeResult {
        let (driver, usual) = (kind.driver(), Probe::default());
        let first = self
            .execute(kind, config, &driver.probe(config, &usual))
            .await;
        match driver.probe_again(config, &usual, &first) {
            None => driver.read_probe(&first),
            Some(again) => driver.read_probe(&self.execute(kind, config, &again).await),
        }
    }
}

#[tokio::test]
async fn each_field_of_each_type_on_each_kibana() {
    let provider = provider().await;
    for version in VERSIONS {
        let kibana = Kibana::start(version, &provider).await;
        for kind in KINDS.into_iter().filter(|kind| kibana.is_asked(*kind)) {
            let least = kind.least(&provider.url());
            kibana.agrees(kind, &least).await;
            for (field, value) in kind.extras() {
                let mut config = least.clone();
                config[field] = value;
                if kind.driver().check(&config.to_string()).is_ok() {
                    kibana.agrees(kind, &config).await;
                } else {
                    let taken = kibana.takes(kind, &config).await;
                    assert!(!taken, "{version} takes {kind:?} {config}");
                }
            }
        }
    }
    provider.shutdown().await;
}

#[tokio::test]
async fn what_is_left_out_is_just_what_that_kibana_refuses() {
    let provider = provider().await;
    for version in VERSIONS {
        let kibana = Kibana::start(version, &provider).await;
        for kind in KINDS.into_iter().filter(|kind| kibana.is_asked(*kind)) {
            let (most, names) = kind.most(&provider.url());
            if !kibana.takes(kind, &kind.least(&provider.url())).await {
                continue;
            }
            let text = kind
                .driver()
                .for_version(&most.to_string(), &names, &kibana.version);
            kibana.holds(kind, &text).await;
            let kept: Map<String, Value> = serde_json::from_str(&text).unwrap();
            for (field, value) in most.as_object().unwrap() {
                let mut with = kept.clone();
                let is_left_out = with.insert(field.clone(), value.clone()).is_none();
                let taken = kibana.takes(kind, &Value::Object(with)).await;
                assert_eq!(taken, !is_left_out, "{kind:?} {field} on {version}");
            }
        }
    }
    provider.shutdown().await;
}

#[tokio::test]
async fn each_type_is_proven_on_each_kibana() {
    let provider = provider().await;
    for version in VERSIONS {
        let kibana = Kibana::start(version, &provider).await;
        for kind in KINDS.into_iter().filter(|kind| kibana.is_asked(*kind)) {
            if !kibana.takes(kind, &kind.least(&provider.url())).await {
                continue;
            }
            let (most, names) = kind.most(&provider.url());
            for task in ["completion", "chat_completion"] {
                let mut config = most.clone();
                if config.get("taskType").is_some() {
                    config["taskType"] = json!(task);
                }
                let text = kind
                    .driver()
                    .for_version(&config.to_string(), &names, &kibana.version);
                if kind.driver().check_version(&text, &kibana.version).is_err() {
                    continue;
                }
                proven_with_the_right_key(&kibana, kind, &text, &config.to_string()).await;
                not_proven_with_a_wrong_key(&kibana, kind, &text, &config.to_string()).await;
            }
        }
    }
    provider.shutdown().await;
}

/// `whole` is the whole config: what was left out for this Kibana still names the model.
async fn proven_with_the_right_key(kibana: &Kibana, kind: Kind, config: &str, whole: &str) {
    let write = kind.render(config, KEY, &kibana.version);
    kibana.create(kind, config, &write).await.unwrap();
    let result = kibana.probe(kind, whole).await;
    let answered = ProbeResult::Proven {
        note: None,
        rung: Rung::Answered,
    };
    assert!(
        result == answered,
        "{kind:?} on {}: {result:?}",
        kibana.version
    );
    assert!(
        kibana
            .delete(kind, &serde_json::from_str(config).unwrap())
            .await
    );
}

/// Elasticsearch tries a key before it takes an endpoint; Kibana's own connectors show it only when they are called.
async fn not_proven_with_a_wrong_key(kibana: &Kibana, kind: Kind, config: &str, whole: &str) {
    let write = kind.render(config, WRONG, &kibana.version);
    let created = kibana.create(kind, config, &write).await;
    let is_tried = kind.is_endpoint() || kind.connector_type == ".inference";
    assert_eq!(created.is_err(), is_tried, "{kind:?} on {}", kibana.version);
    if is_tried {
        return;
    }
    match kibana.probe(kind, whole).await {
        ProbeResult::Failed { class, rung, .. } => {
            assert_eq!(
                (class, rung),
                (FailureClass::Auth, Some(Rung::Reached)),
                "{kind:?}"
            );
        }
        ProbeResult::Proven { .. } => panic!("{kind:?} on {} takes a wrong key", kibana.version),
    }
    assert!(
        kibana
            .delete(kind, &serde_json::from_str(config).unwrap())
            .await
    );
}

#[tokio::test]
async fn a_client_certificate_on_each_kibana() {
    let provider = provider().await;
    let parts = ["certificateData".to_owned(), "privateKeyData".to_owned()];
    let secrets = json!({"certificateData": certificate(), "privateKeyData": private_key()});
    let text = SecretString::from(secrets.to_string());
    let value = KeyValue {
        text: &text,
        parts: &parts,
    };
    let config = OTHER.least(&provider.url());
    let json = config.to_string();
    for version in VERSIONS {
        let kibana = Kibana::start(version, &provider).await;
        if OTHER
            .driver()
            .check_version(&json, &kibana.version)
            .is_err()
        {
            continue;
        }
        let fits = OTHER
            .driver()
            .check_secret_parts(&json, &parts, Some(&kibana.version));
        let taken = kibana.takes_with(OTHER, &config, &secrets).await;
        assert_eq!(fits.is_ok(), taken, "{version}: {fits:?}");
        assert_eq!(kibana.delete(OTHER, &config).await, taken);
        let rendered = OTHER
            .driver()
            .render(&json, "OpenAI", &value, &kibana.version);
        assert_eq!(rendered.is_ok(), taken, "{version}");
        let Ok(write) = rendered else { continue };
        kibana.create(OTHER, &json, &write).await.unwrap();
        let result = kibana.probe(OTHER, &json).await;
        assert!(
            matches!(result, ProbeResult::Proven { .. }),
            "{version}: {result:?}"
        );
    }
    provider.shutdown().await;
}
