//! A small client for the switches of a running simulator, so that a person needs no other tool.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::kibana::provider_client;

/// A simulator answers its switches at once.
const DEADLINE: Duration = Duration::from_secs(10);

/// Talks to the simulator at one address.
pub(crate) struct Client {
    url: String,
    http: reqwest::Client,
}

impl Client {
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            http: provider_client()?,
        })
    }

    /// Clears, replaces or shows the fault switches.
    pub(crate) async fn faults(
        &self,
        clear: bool,
        faults: Option<String>,
    ) -> anyhow::Result<String> {
        let request = match (clear, faults) {
            (true, _) => self.request(Method::DELETE, "faults"),
            (false, Some(faults)) => self.request(Method::PUT, "faults").body(faults),
            (false, None) => self.request(Method::GET, "faults"),
        };
        self.send(request).await
    }

    /// Shows or empties the request log.
    pub(crate) async fn log(&self, clear: bool) -> anyhow::Result<String> {
        let method = if clear { Method::DELETE } else { Method::GET };
        self.send(self.request(method, "requests")).await
    }

    /// Shows or changes the keys.
    pub(crate) async fn keys(&self, change: Option<(&str, String)>) -> anyhow::Result<String> {
        let request = match change {
            Some((verb, key)) => self
                .request(Method::POST, "keys")
                .json(&json!({ verb: key })),
            None => self.request(Method::GET, "keys"),
        };
        self.send(request).await
    }

    fn request(&self, method: Method, name: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}/_sim/{name}", self.url))
            .timeout(DEADLINE)
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<String> {
        let unreachable = || format!("no simulator answers at {}", self.url);
        let response = request
            .send()
            .await
            .map_err(reqwest::Error::without_url)
            .with_context(unreachable)?;
        let status = response.status();
        let text = response
            .text()
            .await
            .map_err(reqwest::Error::without_url)
            .with_context(unreachable)?;
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if !status.is_success() {
            let reason = value["error"].as_str().unwrap_or("this is not a simulator");
            bail!("{} answered {status}: {reason}", self.url);
        }
        serde_json::to_string_pretty(&value).context("cannot print the answer")
    }
}
