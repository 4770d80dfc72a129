//! The fault switches of a simulated Kibana, as they are written over HTTP.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::licence::Licence;
use super::version::Version;
use crate::fault::{Counted, Only, http_date, in_scope};
use crate::reply::{Call, Effect, Reply};

/// All switches; a document replaces the one before. Everything is off by default.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Faults {
    /// Breaks Kibana's own HTTP interface.
    pub(super) api: Option<ApiFault>,
    /// Makes runs answer as if the provider had failed; the provider is not called.
    pub(super) provider: Option<ProviderFault>,
    /// The types that are not in `xpack.actions.enabledActionTypes`; `true` is `.gen-ai` alone.
    pub(super) type_disabled: Only,
    /// The licence has expired for these types; `true` is every type that needs more than a basic one.
    pub(super) licence_expired: Only,
    /// Another licence than the one it was started with.
    pub(super) licence: Option<Licence>,
    /// What the API key may do with connectors.
    pub(super) privilege: Privilege,
    /// The same for single spaces, by id; it counts more than `privilege`.
    pub(super) privilege_in: BTreeMap<String, Privilege>,
    /// `xpack.encryptedSavedObjects.encryptionKey` is not set.
    pub(super) encryption_key_missing: bool,
    /// The secrets of the connectors stored now cannot be decrypted (`true`: of all); a PUT repairs one.
    pub(super) undecryptable: Only,
    /// The connectors stored now have lost their secrets, as after an import (`true`: all); a PUT repairs one.
    pub(super) secrets_missing: Only,
    /// How far Kibana's clock goes before the right one, in seconds; negative when it goes behind.
    pub(super) clock_skew_secs: i64,
    /// What `/api/status` says of the whole: `available`, `degraded`, `unavailable` or `critical`.
    pub(super) status_level: Option<Level>,
    /// Upgrades Kibana at once. It stays upgraded when the faults are cleared.
    pub(super) upgrade_to: Option<Version>,
}

/// The level of a service in `/api/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Available,
    Degraded,
    Unavailable,
    Critical,
}

/// The API key's right on the feature "Actions and Connectors".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Privilege {
    None,
    Read,
    #[default]
    All,
}

/// How the HTTP interface fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ApiMode {
    /// The connection closes without an answer.
    Down,
    /// No answer ever comes.
    Hang,
    /// The answer comes `delay_ms` later.
    Slow,
    /// `status` (default 503) with Kibana's error body; nothing is done.
    Status,
    /// A page instead of JSON, with `status` (default 503); nothing is done.
    Html,
    /// The request is carried out; the connection breaks in the middle of the answer.
    HalfClosed,
    /// The request is carried out; the connection closes without an answer.
    WriteThenFail,
}

/// A fault of Kibana's HTTP interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiFault {
    pub(super) mode: ApiMode,
    pub(super) status: Option<u16>,
    #[serde(default)]
    pub(super) delay_ms: u64,
    pub(super) retry_after_secs: Option<u64>,
    /// `Retry-After` is an HTTP date instead of a number.
    #[serde(default)]
    pub(super) retry_after_date: bool,
    /// Only these methods; all when empty.
    #[serde(default)]
    pub(super) methods: Vec<String>,
    /// Only paths that contain this.
    pub(super) path_contains: Option<String>,
    /// Only the next so many matching requests.
    pub(super) remaining: Option<NonZeroU32>,
}

/// How a provider fails, as seen from Kibana.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ProviderMode {
    /// It answers with `status`.
    Status,
    /// It cannot be reached.
    Network,
    /// It does not answer; the run ends after `delay_ms`, or after Kibana's own deadline.
    Timeout,
}

/// A failing provider.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderFault {
    #[serde(default = "ProviderFault::default_mode")]
    pub(super) mode: ProviderMode,
    /// The provider's status (default 401).
    pub(super) status: Option<u16>,
    /// The provider's own words; a fitting text by default.
    pub(super) message: Option<String>,
    /// Only runs that ask for this model.
    pub(super) model: Option<String>,
    pub(super) delay_ms: Option<u64>,
    pub(super) remaining: Option<NonZeroU32>,
}

impl ProviderFault {
    fn default_mode() -> ProviderMode {
        ProviderMode::Status
    }
}

impl Counted for ApiFault {
    fn remaining(&mut self) -> &mut Option<NonZeroU32> {
        &mut self.remaining
    }
}

impl Counted for ProviderFault {
    fn remaining(&mut self) -> &mut Option<NonZeroU32> {
        &mut self.remaining
    }
}

impl ApiFault {
    pub(super) fn applies(&self, call: &Call) -> bool {
        in_scope(call, &self.methods, self.path_contains.as_deref())
    }

    /// Whether Kibana sheds load, which never hits `/api/status`.
    pub(super) fn is_load(&self) -> bool {
        self.mode == ApiMode::Status && self.status == Some(429)
    }

    /// What a hit does; `refusal` is the server's own error body for a status.
    pub(super) fn effect_of(
        hit: Option<Self>,
        clock_skew_secs: i64,
        refusal: impl Fn(u16) -> Reply,
    ) -> Effect {
        hit.map_or(Effect::None, |fault| fault.effect(clock_skew_secs, refusal))
    }

    fn effect(&self, clock_skew_secs: i64, refusal: impl Fn(u16) -> Reply) -> Effect {
        match self.mode {
            ApiMode::Down => Effect::Close,
            ApiMode::Hang => Effect::Hang,
            ApiMode::Slow => Effect::Delay(Duration::from_millis(self.delay_ms)),
            ApiMode::HalfClosed => Effect::Half,
            ApiMode::WriteThenFail => Effect::AnswerThenClose,
            ApiMode::Html => {
                let page =
                    Reply::html(self.status.unwrap_or(503), "Kibana server is not ready yet");
                Effect::Reply(self.with_retry_after(page, clock_skew_secs))
            }
            ApiMode::Status => {
                let status = self.status.unwrap_or(503);
                Effect::Reply(self.with_retry_after(refusal(status), clock_skew_secs))
            }
        }
    }

    fn with_retry_after(&self, reply: Reply, clock_skew_secs: i64) -> Reply {
        let Some(secs) = self.retry_after_secs else {
            return reply;
        };
        let text = match self.retry_after_date {
            true => {
                let secs = i64::try_from(secs).unwrap_or(i64::MAX);
                http_date(secs.saturating_add(clock_skew_secs))
            }
            false => secs.to_string(),
        };
        reply.with_header("retry-after", text)
    }
}
