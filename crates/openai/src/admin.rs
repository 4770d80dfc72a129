//! The Admin API of `OpenAI`: makes, lists and deletes the service accounts of a project.
//!
//! A key generation is one service account: the provider deletes no key of an account alone.
//!
//! **Invariant:** every call is one attempt, page by page. The provider knows no idempotency key, so a creation sent
//! twice makes two accounts; [`Error::outcome`] says when one may exist that nobody knows.

mod account;
mod error;

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use http::header::AUTHORIZATION;
use keyfleet_core::Timestamp;
use reqwest::RequestBuilder;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use url::Url;
use zeroize::Zeroizing;

use crate::transport::{self, Answer, Lost};
use crate::{Proxy, refusal};

pub use account::{Account, Deleted, Minted};
pub use error::{Error, Outcome};

/// Every success of the Admin API has this status (OpenAI's API description, 2.3.0).
const SUCCESS: u16 = 200;
/// Longest id that is sent; real ones have about 30 characters.
const ID_LIMIT: usize = 128;

/// How to reach the Admin API. Nothing is ever taken from the environment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What comes before `/organization`, for example `https://api.openai.com/v1`.
    pub base: Url,
    /// PEM file with authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Proxy to go through.
    pub proxy: Option<Proxy>,
    /// Time limit of one request, from connecting to the last byte.
    pub timeout: Duration,
}

/// A client of the Admin API; cheap to clone. It holds no key.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    timeout: Duration,
}

impl Client {
    /// Builds the client. Nothing is sent.
    ///
    /// # Errors
    /// A setting that cannot work, or an unreadable CA file.
    pub fn new(settings: &Settings) -> Result<Self, crate::Error> {
        let base = &settings.base;
        let is_plain = base.query().is_none() && base.fragment().is_none();
        if !matches!(base.scheme(), "https" | "http") || !is_plain {
            return Err(crate::Error::Settings {
                what: "the Admin API's URL must be like https://api.openai.com/v1".to_owned(),
            });
        }
        let http = transport::build(
            settings.ca_file.as_deref(),
            settings.proxy.as_ref(),
            settings.timeout,
        )?;
        Ok(Self {
            http,
            base: base.clone(),
            timeout: settings.timeout,
        })
    }

    /// The address below the base. An id goes into it only if it cannot change the path: `..` would name another
    /// object, and an empty one the whole list.
    fn url(&self, parts: &[&str]) -> Result<Url, Error> {
        if !parts.iter().all(|part| is_id(part)) {
            return Err(Error::Id);
        }
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Error::Id)?
            .pop_if_empty()
            .extend(parts);
        Ok(url)
    }

    /// Sends once. Every answer but a success is an error.
    async fn call(&self, request: RequestBuilder, key: &SecretString) -> Result<Answer, Error> {
        let text = Zeroizing::new(format!("Bearer {}", key.expose_secret()));
        let mut value = HeaderValue::from_str(&text).map_err(|_| Error::Key)?;
        value.set_sensitive(true);
        let answer = transport::send(request.header(AUTHORIZATION, value))
            .await
            .map_err(|lost| self.lost(lost))?;
        if answer.status == SUCCESS {
            return Ok(answer);
        }
        let read = refusal::read(answer.status, &answer.headers, &answer.body);
        Err(Error::Refused(read.refusal))
    }

    fn lost(&self, lost: Lost) -> Error {
        match lost {
            Lost::TooLong { status } => Error::BadAnswer { status },
            Lost::Broken(source) if source.is_connect() => Error::Unreachable { source },
            Lost::Broken(source) if source.is_timeout() => Error::Timeout {
                limit: self.timeout,
            },
            Lost::Broken(source) => Error::Broken { source },
        }
    }
}

/// Reads a success. The reader's own error is dropped: it may quote a value.
fn parse<T: DeserializeOwned>(answer: &Answer) -> Result<T, Error> {
    serde_json::from_slice(&answer.body).map_err(|_| bad(answer))
}

fn bad(answer: &Answer) -> Error {
    Error::BadAnswer {
        status: answer.status,
    }
}

/// The provider counts seconds since 1970.
fn time(seconds: i64) -> Option<Timestamp> {
    Timestamp::from_second(seconds).ok()
}

fn is_id(text: &str) -> bool {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !text.is_empty() && text.len() <= ID_LIMIT && text.chars().all(is_safe)
}
