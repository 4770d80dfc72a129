//! `.gemini`, Kibana's connector for Google's models in Vertex AI.
//!
//! Kibana exchanges the service account for a token at Google and sends that to
//! `{apiUrl}/v1/projects/{gcpProjectID}/locations/{gcpRegion}/publishers/google/models/{model}:generateContent`.
//! Deprecated since Kibana 9.5.

use keyfleet_core::connector::Probe;
use keyfleet_core::failure::FailureClass::{Model, RateLimit};
use serde_json::{Map, Value, json};
use url::Url;

use super::fields::{Field, Kind};
use super::probe::{self, Dialect, Word};
use super::schema::{MODEL, Schema, URL, Variant, text};
use super::secrets::{KeyForm, Part, PartKind};
use super::{InvalidConfig, ProbeResult, endpoint};
use crate::api::Execution;
use crate::version::Version;

const REGION: &str = "gcpRegion";

const V8_15: Version = Version::new(8, 15, 0);
const V9_2: Version = Version::new(9, 2, 0);
const V9_3: Version = Version::new(9, 3, 0);

/// Enough for the thoughts that a model of Google thinks before it says anything: Kibana fails on an answer without a
/// word.
const TOKENS: u32 = 512;

/// First releases: kibana#183668 (the type), #228371 (context window), #239806 (temperature).
static FIELDS: [Field; 6] = [
    Field::required(URL, V8_15, Kind::Url),
    Field::required(REGION, V8_15, Kind::Word),
    Field::required("gcpProjectID", V8_15, Kind::Word),
    Field::defaulted(MODEL, V8_15, Kind::Text),
    Field::optional("contextWindowLength", V9_2, Kind::Count),
    Field::optional("temperature", V9_3, Kind::Temperature),
];

static VARIANTS: [Variant; 1] = [Variant {
    name: "",
    since: V8_15,
    fields: &FIELDS,
    keys: &[KeyForm {
        since: V8_15,
        parts: &[Part {
            name: "credentialsJson",
            is_required: true,
            kind: PartKind::GoogleAccount,
        }],
    }],
    api: None,
}];

/// What Google says, in lower case: the `status` of its error model, then its message. An account that may not use a
/// model is refused with 403.
static GOOGLE: Dialect = Dialect {
    words: &[
        Word::at(403, "permission_denied", Model),
        Word::at(404, "not_found", Model),
        Word::at(429, "", RateLimit),
    ],
    // The counts of the answer are checked in order: that of the prompt was there.
    tiny: &[(None, "candidatestokencount")],
    ..probe::KIBANA
};

/// The driver of `.gemini`.
#[derive(Debug)]
pub(super) struct Gemini;

impl Schema for Gemini {
    fn connector_type(&self) -> &'static str {
        ".gemini"
    }

    fn since(&self) -> Version {
        V8_15
    }

    fn variants(&self) -> &'static [Variant] {
        &VARIANTS
    }

    fn check_more(&self, _variant: &Variant, fields: &Map<String, Value>) -> Vec<InvalidConfig> {
        let region = text(fields, REGION);
        endpoint::check_field("config", fields, URL, |url| check_url(url, region))
    }

    fn call(&self, _fields: &Map<String, Value>, probe: &Probe) -> Value {
        let body = probe::own_body(probe).unwrap_or_else(|| {
            json!({
                "contents": [{"role": "user", "parts": [{"text": "ping"}]}],
                "generation_config": {"maxOutputTokens": probe.max_tokens.unwrap_or(TOKENS)},
            })
        });
        probe::test(&body, probe)
    }

    fn check_call(&self, _fields: &Map<String, Value>, probe: &Probe) -> Vec<InvalidConfig> {
        probe::needs_list(probe, "contents")
    }

    fn read(&self, execution: &Execution) -> ProbeResult {
        probe::read(execution, &GOOGLE)
    }
}

/// A regional host of Google serves its region alone.
fn check_url(url: &Url, region: Option<&str>) -> Result<(), String> {
    endpoint::check_bare(url)?;
    let host = url.host_str().unwrap_or_default();
    let of_host = host.strip_suffix("-aiplatform.googleapis.com");
    match (of_host, region) {
        (Some(of_host), Some(region)) if of_host != region => Err(format!(
            "names the region {of_host}, and gcpRegion is {region}; write the same in both"
        )),
        _ => Ok(()),
    }
}
