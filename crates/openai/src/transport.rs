//! What every client of a provider shares: how it connects, and an answer read up to a limit.

use std::path::Path;
use std::time::Duration;

use http::HeaderMap;
use reqwest::RequestBuilder;
use zeroize::Zeroizing;

use crate::{Error, Proxy};

/// Far above any answer to our calls.
const BODY_LIMIT: usize = 256 * 1024;

/// One answer. The body is dropped by whoever reads it.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// Why there is no whole answer.
pub(crate) enum Lost {
    /// The connection failed, or the time passed.
    Broken(reqwest::Error),
    /// More came than any answer to our calls holds.
    TooLong { status: u16 },
}

/// Builds the HTTP client. Nothing is taken from the environment, and no redirect is followed.
pub(crate) fn build(
    ca_file: Option<&Path>,
    proxy: Option<&Proxy>,
    timeout: Duration,
) -> Result<reqwest::Client, Error> {
    let wrong = |what: &str| Error::Settings {
        what: what.to_owned(),
    };
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(timeout)
        .connect_timeout(timeout);
    if let Some(path) = ca_file {
        let pem = std::fs::read(path).map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
        if authorities.is_empty() {
            return Err(Error::Settings {
                what: format!("{} holds no PEM certificate", path.display()),
            });
        }
        builder = builder.tls_certs_merge(authorities);
    }
    if let Some(proxy) = proxy {
        let through = reqwest::Proxy::all(proxy.url.clone())
            .map_err(|_| wrong("the proxy's address is none"))?;
        let direct = proxy
            .no_proxy
            .as_deref()
            .and_then(reqwest::NoProxy::from_string);
        builder = builder.proxy(through.no_proxy(direct));
    }
    builder
        .build()
        .map_err(|_| wrong("the TLS client cannot be built; check the CA file"))
}

/// Sends a request once and reads its answer up to the limit.
pub(crate) async fn send(request: RequestBuilder) -> Result<Answer, Lost> {
    let mut response = request.send().await.map_err(broken)?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > BODY_LIMIT {
            return Err(Lost::TooLong { status });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status,
        headers,
        body,
    })
}

fn broken(error: reqwest::Error) -> Lost {
    Lost::Broken(error.without_url())
}
