//! `.bedrock`, Kibana's connector for Anthropic's models in Amazon Bedrock.
//!
//! Kibana signs each call with the key and sends it to `{apiUrl}/model/{model}/invoke`; the secret itself never
//! travels. Deprecated since Kibana 9.5.

use keyfleet_core::connector::Probe;
use keyfleet_core::failure::FailureClass::{Auth, Egress, Model, RateLimit, Rejected};
use serde_json::{Map, Value, json};
use url::Url;

use super::fields::{Field, Kind};
use super::probe::{self, Dialect, Word};
use super::schema::{MODEL, Schema, URL, Variant, text};
use super::secrets::{KeyForm, Part, PartKind, one};
use super::{InvalidConfig, ProbeResult, endpoint};
use crate::api::Execution;
use crate::version::Version;

const REGION: &str = "region";

const V8_11: Version = Version::new(8, 11, 0);
const V9_2: Version = Version::new(9, 2, 0);
const V9_3: Version = Version::new(9, 3, 0);
const V9_4: Version = Version::new(9, 4, 0);

/// First releases: kibana#166662 (the type), #228371 (context window), #239806 (temperature), #252956 (region).
static FIELDS: [Field; 5] = [
    Field::required(URL, V8_11, Kind::Url),
    Field::defaulted(MODEL, V8_11, Kind::Text),
    Field::optional("contextWindowLength", V9_2, Kind::Count),
    Field::optional("temperature", V9_3, Kind::Temperature),
    Field::optional(REGION, V9_4, Kind::Word),
];

static VARIANTS: [Variant; 1] = [Variant {
    name: "",
    since: V8_11,
    fields: &FIELDS,
    keys: &[KeyForm {
        since: V8_11,
        parts: &[
            Part {
                name: "accessKey",
                is_required: true,
                kind: PartKind::AwsAccessKey,
            },
            one("secret"),
        ],
    }],
    api: None,
}];

/// What AWS says, in lower case. It refuses an unknown or wrong key with 403 and not with 401 (Bedrock API reference,
/// "InvokeModel", errors; IAM, "Troubleshoot Signature Version 4").
static AWS: Dialect = Dialect {
    words: &[
        Word::at(
            403,
            "security token included in the request is invalid",
            Auth,
        ),
        Word::at(403, "request signature we calculated does not match", Auth),
        Word::at(403, "scoped to a valid region", Rejected),
        Word::at(403, "signature expired", Egress),
        Word::at(403, "signature not yet current", Egress),
        Word::at(403, "access to the model", Model),
        Word::at(403, "is not authorized to perform", Model),
        Word::at(400, "model identifier is invalid", Model),
        Word::at(400, "on-demand throughput", Model),
        Word::at(400, "operation is not recognized by the service", Rejected),
        Word::at(429, "too many", RateLimit),
    ],
    ..probe::KIBANA
};

/// The driver of `.bedrock`.
#[derive(Debug)]
pub(super) struct Bedrock;

impl Schema for Bedrock {
    fn connector_type(&self) -> &'static str {
        ".bedrock"
    }

    fn since(&self) -> Version {
        V8_11
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
                "anthropic_version": "bedrock-2023-05-31",
                "max_tokens": probe.max_tokens.unwrap_or(probe::TOKENS),
                "messages": [{"role": "user", "content": "ping"}],
            })
        });
        probe::test(&body, probe)
    }

    fn check_call(&self, _fields: &Map<String, Value>, probe: &Probe) -> Vec<InvalidConfig> {
        probe::needs_list(probe, "messages")
    }

    fn read(&self, execution: &Execution) -> ProbeResult {
        probe::read(execution, &AWS)
    }
}

/// The control plane of Bedrock takes no calls to models, and a signature counts for one region.
fn check_url(url: &Url, region: Option<&str>) -> Result<(), String> {
    endpoint::check_bare(url)?;
    let host = url.host_str().unwrap_or_default();
    let example = region.unwrap_or("us-east-1");
    if host.starts_with("bedrock.") && is_aws(host) {
        return Err(format!(
            "names the control plane of Bedrock; write https://bedrock-runtime.{example}.amazonaws.com"
        ));
    }
    let hosted = host
        .strip_prefix("bedrock-runtime.")
        .or_else(|| host.strip_prefix("bedrock-runtime-fips."));
    let hosted = hosted.and_then(|rest| rest.split_once('.'));
    match (region, hosted) {
        (Some(region), Some((of_host, _))) if is_aws(host) && of_host != region => Err(format!(
            "names the region {of_host}, and region is {region}; write the same in both"
        )),
        _ => Ok(()),
    }
}

fn is_aws(host: &str) -> bool {
    [".amazonaws.com", ".amazonaws.com.cn"]
        .iter()
        .any(|domain| host.ends_with(domain))
}
