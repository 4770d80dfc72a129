//! The HTTP side: one client, its limits, one question.

use std::path::PathBuf;
use std::time::Duration;

use http::header::ACCEPT;
use keyfleet_core::rollout::{Gate, GateCheck};
use keyfleet_core::travel::AskedHost;
use keyfleet_telemetry::error_chain;
use reqwest::Response;
use url::Url;

use super::answer::{self, Answer, Reply};
use super::may_ask;
use crate::config::Gates;

/// Time limit of one question, from connecting to the last byte. A gate is asked every 10 s at the most.
const DEADLINE: Duration = Duration::from_secs(10);

/// Never asked through a proxy: there they would be the proxy's own machine, and plain HTTP to them is allowed because it
/// does not leave this one.
const THIS_MACHINE: &str = "localhost,127.0.0.0/8,::1";

/// Far above any answer that one value each fits in.
const BODY_BYTES_MAX: usize = 1_048_576;

/// Why gates cannot be asked at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The CA file cannot be read.
    #[error("cannot read {} (setting gates.ca_file)", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The CA file holds nothing to trust.
    #[error("{} holds no PEM certificate (setting gates.ca_file)", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The client cannot be made.
    #[error("the client cannot be built; check gates.ca_file and gates.proxy")]
    Client,
}

/// Asks gates; cheap to clone. Nothing is ever taken from the environment, and no credentials are sent.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    http: reqwest::Client,
    allowed: Vec<AskedHost>,
    deadline: Duration,
}

impl Asker {
    /// Builds the client. Nothing is sent. The process-wide provider of rustls must have been installed.
    ///
    /// # Errors
    /// A CA file that cannot be used.
    pub(crate) fn new(settings: &Gates) -> Result<Self, Error> {
        Self::with_deadline(settings, DEADLINE)
    }

    fn with_deadline(settings: &Gates, deadline: Duration) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("keyfleet-control/", env!("CARGO_PKG_VERSION")))
            .timeout(deadline)
            .connect_timeout(deadline);
        if let Some(path) = &settings.ca_file {
            let path = || path.clone();
            let read = std::fs::read(path());
            let pem = read.map_err(|source| Error::File {
                path: path(),
                source,
            })?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if authorities.is_empty() {
                return Err(Error::NoCertificate { path: path() });
            }
            builder = builder.tls_certs_merge(authorities);
        }
        if let Some(proxy) = &settings.proxy {
            let through = reqwest::Proxy::all(proxy.url.clone()).map_err(|_| Error::Client)?;
            let named = proxy.no_proxy.as_deref().unwrap_or_default();
            let direct = reqwest::NoProxy::from_string(&format!("{THIS_MACHINE},{named}"));
            builder = builder.proxy(through.no_proxy(direct));
        }
        Ok(Self {
            http: builder.build().map_err(|_| Error::Client)?,
            allowed: settings.allowed_hosts.clone(),
            deadline,
        })
    }

    /// Asks once. Takes no longer than the deadline; whatever goes wrong is an answer that says nothing.
    pub(crate) async fn ask(&self, gate: &Gate) -> Answer {
        // What was allowed when the strategy was applied may be forbidden now.
        if let Err(why) = may_ask(gate, &self.allowed) {
            return Answer::nothing(&why);
        }
        let url = match &gate.check {
            GateCheck::Http { url } => Some(url.clone()),
            GateCheck::Prometheus { url, query, .. } => self.instant_query(url, query),
        };
        let Some(url) = url else {
            return Answer::nothing("the URL takes no path; write https://HOST/");
        };
        match self.get(url).await {
            Ok(reply) => match &gate.check {
                GateCheck::Http { .. } => answer::http(&reply),
                GateCheck::Prometheus { fail_if, .. } => answer::prometheus(&reply, fail_if),
            },
            Err(why) => Answer::nothing(&why),
        }
    }

    /// Where an instant query goes. What stands in the URL already stays: a server may tell tenants by it.
    fn instant_query(&self, url: &Url, query: &str) -> Option<Url> {
        let mut url = url.clone();
        url.path_segments_mut()
            .ok()?
            .pop_if_empty()
            .extend(["api", "v1", "query"]);
        let timeout = format!("{}ms", self.deadline.as_millis());
        url.query_pairs_mut()
            .append_pair("query", query)
            .append_pair("timeout", &timeout);
        Some(url)
    }

    async fn get(&self, url: Url) -> Result<Reply, String> {
        let request = self
            .http
            .get(url)
            .header(ACCEPT, "application/json, text/plain, */*");
        let sent = request.send().await;
        let response = sent.map_err(|error| self.failed(error))?;
        Ok(self.read(response).await)
    }

    async fn read(&self, mut response: Response) -> Reply {
        let mut reply = Reply {
            status: response.status().as_u16(),
            body: Vec::new(),
            cut: None,
        };
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => {
                    reply.cut = Some(self.failed(error));
                    break;
                }
            };
            if reply.body.len() + chunk.len() > BODY_BYTES_MAX {
                let most = "the answer is longer than 1 MiB: aggregate it, for example with max()";
                reply.cut = Some(most.to_owned());
                break;
            }
            reply.body.extend_from_slice(&chunk);
        }
        reply
    }

    /// The words for a question that got no answer. The URL is in the strategy; here its query could show a secret.
    fn failed(&self, error: reqwest::Error) -> String {
        if error.is_timeout() {
            return format!("no answer within {:?}", self.deadline);
        }
        format!(
            "it cannot be reached: {}",
            error_chain(&error.without_url())
        )
    }
}

#[cfg(test)]
mod tests;
