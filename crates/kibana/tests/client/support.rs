//! What these tests share: a running simulator with a client for it, and a server that answers given bytes.

use std::net::SocketAddr;
use std::time::Duration;

use keyfleet_core::connector::Probe;
use keyfleet_core::id::SpaceId;
use keyfleet_kibana::{
    Client, Credentials, Driver, Elasticsearch, KeyValue, Settings, Version, Write, driver,
};
use keyfleet_sim::server::Server;
use keyfleet_sim::{kibana, openai};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The API key of every Kibana in these tests.
pub(crate) const API_KEY: &str = "aWQ6a2V5";
/// A key that the simulated OpenAI knows.
pub(crate) const GOOD_KEY: &str = "sk-proj-simulated0000000000000000MxYA";
/// A lowercase UUID: an id that every version from 8.8 on takes.
pub(crate) const ID: &str = "0d1f7a52-3f9e-5c52-9d4e-0e6a7d1c9b11";

/// A simulated Kibana and a client for it.
pub(crate) struct Kibana {
    pub(crate) client: Client,
    pub(crate) version: Version,
    server: Server,
    http: reqwest::Client,
}

impl Kibana {
    pub(crate) async fn start(version: &str) -> Self {
        Self::with(options(version)).await
    }

    pub(crate) async fn with(options: kibana::Options) -> Self {
        install_tls();
        let version = options.version.to_string().parse().unwrap();
        let server = kibana::start(options)
            .await
            .expect("loopback has a free port");
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let elasticsearch = server.elasticsearch_url().map(|url| Elasticsearch {
            url: url.parse().unwrap(),
            credentials: Credentials::ApiKey(SecretString::from(API_KEY)),
            ca_pem: None,
        });
        let client = Client::new(Settings {
            elasticsearch,
            ..settings(&server.url())
        })
        .unwrap();
        Self {
            client,
            version,
            server,
            http,
        }
    }

    /// A client with other credentials.
    pub(crate) fn client_with(&self, credentials: Credentials) -> Client {
        Client::new(Settings {
            credentials,
            ..settings(&self.server.url())
        })
        .unwrap()
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// With an Elasticsearch whose endpoints call this provider.
    pub(crate) async fn with_elasticsearch(version: &str, provider: &str) -> Self {
        let mut options = options(version);
        options.elasticsearch = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        options.provider_url = Some(provider.to_owned());
        Self::with(options).await
    }

    /// Sets the simulator's fault switches.
    pub(crate) async fn fault(&self, faults: Value) {
        self.set_faults(&self.server.url(), faults).await;
    }

    /// Sets those of its Elasticsearch.
    pub(crate) async fn elastic_fault(&self, faults: Value) {
        let url = self.server.elasticsearch_url().unwrap();
        self.set_faults(&url, faults).await;
    }

    async fn set_faults(&self, base: &str, faults: Value) {
        let url = format!("{base}/_sim/faults");
        let answer = self.http.put(url).json(&faults).send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{}",
            answer.text().await.unwrap()
        );
    }

    /// How many requests of a class came in.
    pub(crate) async fn requests(&self, class: &str) -> u64 {
        let url = format!("{}/_sim/requests/count?class={class}", self.server.url());
        let answer: Value = self
            .http
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        answer["count"].as_u64().unwrap()
    }

    /// A write that this Kibana takes.
    pub(crate) fn write(&self, name: &str, config: &Value, key: &str) -> Write {
        gen_ai()
            .render(
                &config.to_string(),
                name,
                &key_value(&SecretString::from(key)),
                &self.version,
            )
            .unwrap()
    }

    /// Creates the connector [`ID`] in the default space.
    pub(crate) async fn create(&self, config: &Value, key: &str) {
        let write = self.write("OpenAI", config, key);
        self.client
            .create(&space("default"), ID, &write)
            .await
            .unwrap();
    }
}

pub(crate) async fn openai() -> Server {
    install_tls();
    openai::start(openai::Options::new(vec![GOOD_KEY.to_owned()]))
        .await
        .expect("loopback has a free port")
}

pub(crate) fn options(version: &str) -> kibana::Options {
    kibana::Options::new(version.parse().unwrap(), API_KEY)
}

pub(crate) fn gen_ai() -> &'static dyn Driver {
    driver(".gen-ai").unwrap()
}

/// A key of one text.
pub(crate) fn key_value(text: &SecretString) -> KeyValue<'_> {
    KeyValue { text, parts: &[] }
}

/// The live call of a definition that says nothing of it.
pub(crate) fn probe(config: &Value) -> Value {
    gen_ai().probe(&config.to_string(), &Probe::default())
}

pub(crate) fn space(id: &str) -> SpaceId {
    id.parse().unwrap()
}

/// A config that every version takes.
pub(crate) fn config(base: &str) -> Value {
    json!({"apiProvider": "OpenAI", "apiUrl": format!("{base}/v1/chat/completions")})
}

/// A config that names a model (from 8.11).
pub(crate) fn config_with_model(base: &str, model: &str) -> Value {
    let mut config = config(base);
    config["defaultModel"] = json!(model);
    config
}

pub(crate) fn settings(url: &str) -> Settings {
    Settings {
        url: url.parse().unwrap(),
        credentials: Credentials::ApiKey(SecretString::from(API_KEY)),
        ca_pem: None,
        proxy: None,
        elasticsearch: None,
        timeout: Duration::from_secs(10),
        probe_timeout: Duration::from_secs(10),
    }
}

pub(crate) fn client(url: &str) -> Client {
    install_tls();
    Client::new(settings(url)).unwrap()
}

pub(crate) fn install_tls() {
    // The second test of a process finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A server that answers one request with given bytes and closes.
pub(crate) struct Raw {
    listener: TcpListener,
    address: SocketAddr,
}

impl Raw {
    pub(crate) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn accept(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// Answers one request; gives back its head in lower case.
    pub(crate) async fn answer(&self, bytes: impl AsRef<[u8]>) -> String {
        answer_with(self.accept().await, |_| bytes.as_ref()).await
    }
}

/// Answers the one request of a connection with what is chosen by its head; gives back the head in lower case.
pub(crate) async fn answer_with<'a>(
    mut stream: TcpStream,
    choose: impl FnOnce(&str) -> &'a [u8],
) -> String {
    let head = read_head(&mut stream).await;
    // The client may hang up early; that is what some tests want.
    let _ = stream.write_all(choose(&head)).await;
    let _ = stream.shutdown().await;
    head
}

/// Reads until the empty line; requests of these tests fit into one or two segments.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap() == 0 {
            break;
        }
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

/// A complete answer with this status line and body.
pub(crate) fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
