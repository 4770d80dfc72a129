//! What the tests of this crate share: a running simulator and a client that speaks to it.

use keyfleet_sim::server::Server;
use keyfleet_sim::{kibana, openai};
use reqwest::Method;
use serde_json::{Value, json};

/// The API key of every Kibana in these tests.
pub(crate) const API_KEY: &str = "aWQ6a2V5";
/// A key that the simulated OpenAI knows.
pub(crate) const GOOD_KEY: &str = "sk-proj-simulated0000000000000000MxYA";
/// A lowercase UUID: an id that every version from 8.8 on takes.
pub(crate) const ID: &str = "0d1f7a52-3f9e-5c52-9d4e-0e6a7d1c9b11";

/// The versions that every conformance test walks through, oldest first.
pub(crate) const VERSIONS: [&str; 11] = [
    "8.9.0", "8.11.0", "8.17.0", "8.18.0", "9.0.0", "9.1.0", "9.2.0", "9.3.0", "9.4.0", "9.5.0",
    "9.6.0",
];

/// A running simulator and a client for it.
pub(crate) struct Sim {
    pub(crate) server: Server,
    http: reqwest::Client,
}

/// An answer: its status and its body as JSON (or as text where it is none).
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) headers: reqwest::header::HeaderMap,
}

impl Answer {
    /// The `message` of a Kibana error.
    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

impl Sim {
    pub(crate) async fn kibana(version: &str) -> Self {
        Self::kibana_with(options(version)).await
    }

    pub(crate) async fn kibana_with(options: kibana::Options) -> Self {
        Self::new(
            kibana::start(options)
                .await
                .expect("loopback has a free port"),
        )
    }

    pub(crate) async fn openai() -> Self {
        let options = openai::Options::new(vec![GOOD_KEY.to_owned()]);
        Self::new(
            openai::start(options)
                .await
                .expect("loopback has a free port"),
        )
    }

    pub(crate) fn new(server: Server) -> Self {
        let http = kibana::provider_client().expect("a client can be made");
        Self { server, http }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// A request with these headers; `Err` when the connection breaks or no answer comes in time.
    pub(crate) async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<Answer, reqwest::Error> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.http.request(method, format!("{}{path}", self.url()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request
            .timeout(std::time::Duration::from_secs(5))
            .send()
            .await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::from(text));
        Ok(Answer {
            status,
            body,
            headers,
        })
    }

    /// A request as a well-behaved client of Kibana sends it.
    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        body: Value,
    ) -> Result<Answer, reqwest::Error> {
        let authorization = format!("ApiKey {API_KEY}");
        let headers = [
            ("authorization", authorization.as_str()),
            ("kbn-xsrf", "true"),
            ("content-type", "application/json"),
        ];
        let body = (!body.is_null()).then(|| body.to_string());
        self.raw(method, path, &headers, body).await
    }

    /// The same where an answer is certain.
    pub(crate) async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        self.try_send(method, path, body).await.expect("an answer")
    }

    /// Sets the fault switches.
    pub(crate) async fn fault(&self, faults: Value) {
        let answer = self
            .raw("PUT", "/_sim/faults", &[], Some(faults.to_string()))
            .await
            .expect("an answer");
        assert_eq!(answer.status, 200, "{faults}: {}", answer.body);
    }

    /// Uses one of the simulator's other switches.
    pub(crate) async fn switch(&self, method: &str, name: &str, body: Value) -> Value {
        let path = format!("/_sim/{name}");
        let text = (!body.is_null()).then(|| body.to_string());
        let answer = self.raw(method, &path, &[], text).await.expect("an answer");
        assert_eq!(answer.status, 200, "{name} {body}: {}", answer.body);
        answer.body
    }

    /// Clears the fault switches.
    pub(crate) async fn clear(&self) {
        let answer = self
            .raw("DELETE", "/_sim/faults", &[], None)
            .await
            .expect("an answer");
        assert_eq!(answer.status, 200);
    }

    /// Reads one of the simulator's own pages.
    pub(crate) async fn sim(&self, path: &str) -> Value {
        self.raw("GET", path, &[], None)
            .await
            .expect("an answer")
            .body
    }

    /// How many requests the log counts for this query.
    pub(crate) async fn count(&self, query: &str) -> u64 {
        self.sim(&format!("/_sim/requests/count?{query}")).await["count"]
            .as_u64()
            .expect("a count")
    }

    /// Creates a connector with the good key that calls `url`.
    pub(crate) async fn connector(&self, id: &str, url: &str, model: &str) {
        let answer = self
            .send(
                "POST",
                &format!("/api/actions/connector/{id}"),
                connector(url, model, GOOD_KEY),
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// Runs the connector's test with one short message.
    pub(crate) async fn execute(&self, id: &str) -> Answer {
        self.send(
            "POST",
            &format!("/api/actions/connector/{id}/_execute"),
            probe(Value::Null),
        )
        .await
    }
}

/// The options of a Kibana with two spaces.
pub(crate) fn options(version: &str) -> kibana::Options {
    let version = version.parse().expect("a version");
    kibana::Options {
        spaces: vec!["default".to_owned(), "soc".to_owned()],
        ..kibana::Options::new(version, API_KEY)
    }
}

/// The body of a create request for a connector.
pub(crate) fn connector(url: &str, model: &str, key: &str) -> Value {
    json!({
        "name": "OpenAI",
        "connector_type_id": ".gen-ai",
        "config": { "apiProvider": "OpenAI", "apiUrl": url, "defaultModel": model },
        "secrets": { "apiKey": key },
    })
}

/// The body of a test run, with a model or without.
pub(crate) fn probe(model: Value) -> Value {
    let mut body = json!({ "messages": [{ "role": "user", "content": "ping" }] });
    if !model.is_null() {
        body["model"] = model;
    }
    json!({ "params": { "subAction": "test", "subActionParams": { "body": body.to_string() } } })
}
