//! The fault switch of the simulated OpenAI, as it is written over HTTP.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::dialect::Dialect;
use super::errors::Refusal;
use super::tail;
use crate::fault::{Counted, in_scope};
use crate::reply::{Call, Effect, Reply, reason};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    /// The connection closes without an answer.
    Down,
    /// No answer ever comes.
    Hang,
    /// The answer comes `delay_ms` later.
    Slow,
    /// `status` (default 500) with `message`.
    Status,
    /// A page instead of JSON, as a proxy sends, with `status` (default 403).
    Html,
    /// The connection breaks in the middle of the answer.
    HalfClosed,
    /// 429: the account has no money left.
    Quota,
    /// 429: too many requests.
    RateLimit,
    /// `status` (default 503): the server is overloaded.
    ServerError,
    /// 401: the key is wrong.
    Revoked,
    /// 401: the key lacks a scope.
    MissingScope,
    /// 401: the caller's address is not on the allow-list.
    IpNotAuthorized,
    /// 403: the caller's country is not served.
    Region,
    /// 403: the project may not use the model.
    ModelDenied,
    /// 404: there is no such model.
    WrongModel,
}

/// One fault; everything but `mode` may be left out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    pub(super) mode: Mode,
    pub(super) status: Option<u16>,
    pub(super) message: Option<String>,
    #[serde(default)]
    pub(super) delay_ms: u64,
    pub(super) retry_after_secs: Option<u64>,
    /// Only requests for this model.
    pub(super) model: Option<String>,
    /// Only requests with a key that ends in these characters.
    pub(super) key_tail: Option<String>,
    /// Only these methods; all when empty.
    #[serde(default)]
    pub(super) methods: Vec<String>,
    /// Only paths that contain this.
    pub(super) path_contains: Option<String>,
    /// Only the next so many matching requests.
    pub(super) remaining: Option<NonZeroU32>,
}

impl Counted for Fault {
    fn remaining(&mut self) -> &mut Option<NonZeroU32> {
        &mut self.remaining
    }
}

impl Fault {
    pub(super) fn applies(&self, call: &Call, key: Option<&str>, model: Option<&str>) -> bool {
        in_scope(call, &self.methods, self.path_contains.as_deref())
            && (self.model.is_none() || self.model.as_deref() == model)
            && (self.key_tail.is_none() || self.key_tail == key.map(tail))
    }

    pub(super) fn effect(
        &self,
        dialect: Dialect,
        key: Option<&str>,
        model: Option<&str>,
    ) -> Effect {
        match self.mode {
            Mode::Down => Effect::Close,
            Mode::Hang => Effect::Hang,
            Mode::Slow => Effect::Delay(Duration::from_millis(self.delay_ms)),
            Mode::HalfClosed => Effect::Half,
            Mode::Html => Effect::Reply(Reply::html(
                self.status.unwrap_or(403),
                "Access denied by the proxy",
            )),
            Mode::Status
            | Mode::Quota
            | Mode::RateLimit
            | Mode::ServerError
            | Mode::Revoked
            | Mode::MissingScope
            | Mode::IpNotAuthorized
            | Mode::Region
            | Mode::ModelDenied
            | Mode::WrongModel => {
                let (key, model) = (key.unwrap_or_default(), model.unwrap_or_default());
                Effect::Reply(dialect.reply(&self.refusal(dialect, key, model)))
            }
        }
    }

    fn refusal(&self, dialect: Dialect, key: &str, model: &str) -> Refusal {
        let mut refusal = self.usual_refusal(dialect, key, model);
        if let Some(status) = self.status {
            refusal.status = status;
        }
        if let Some(message) = &self.message {
            refusal.message.clone_from(message);
        }
        refusal.retry_after_secs = self.retry_after_secs.or(refusal.retry_after_secs);
        refusal
    }

    fn usual_refusal(&self, dialect: Dialect, key: &str, model: &str) -> Refusal {
        const INVALID: &str = "invalid_request_error";
        match self.mode {
            Mode::Quota => Refusal::new(
                429,
                "insufficient_quota",
                Some("insufficient_quota"),
                "You exceeded your current quota, please check your plan and billing details.",
            ),
            Mode::RateLimit => Refusal {
                retry_after_secs: Some(1),
                ..Refusal::new(
                    429,
                    "requests",
                    Some("rate_limit_exceeded"),
                    format!(
                        "Rate limit reached for {model} on requests per min (RPM): Limit 3, Used 3, Requested 1."
                    ),
                )
            },
            Mode::ServerError => Refusal::new(
                503,
                "server_error",
                Some("server_is_overloaded"),
                "The server is currently overloaded with other requests.",
            ),
            Mode::Revoked => dialect.bad_key(key),
            Mode::MissingScope => Refusal::new(
                401,
                INVALID,
                None,
                "You have insufficient permissions for this operation. Missing scopes: model.request.",
            ),
            Mode::IpNotAuthorized => {
                Refusal::new(401, INVALID, Some("ip_not_authorized"), "IP not authorized")
            }
            Mode::Region => Refusal::new(
                403,
                "request_forbidden",
                Some("unsupported_country_region_territory"),
                "Country, region, or territory not supported",
            ),
            Mode::ModelDenied => Refusal::new(
                403,
                INVALID,
                Some("model_not_found"),
                format!("Project `proj_simulated` does not have access to model `{model}`"),
            ),
            Mode::WrongModel => Refusal::model_not_found(model),
            Mode::Status | Mode::Down | Mode::Hang | Mode::Slow | Mode::Html | Mode::HalfClosed => {
                let status = self.status.unwrap_or(500);
                Refusal::new(status, "server_error", None, reason(status))
            }
        }
    }
}
