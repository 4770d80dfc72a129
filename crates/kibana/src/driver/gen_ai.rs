//! `.gen-ai`, Kibana's connector for OpenAI and for services that speak like it.
//!
//! Deprecated since Kibana 9.5 and gone from its pages in 9.6, where the API still creates and edits it.

mod providers;

use keyfleet_core::connector::{Probe, Provider as Api};
use serde_json::{Map, Value, json};

use self::providers::{PROVIDERS, V8_9};
use super::probe::{self, chat};
use super::schema::{MODEL, Schema, URL, Variant, text};
use super::{InvalidConfig, ProbeResult, endpoint};
use crate::api::Execution;
use crate::version::Version;

const PROVIDER: &str = "apiProvider";

/// The driver of `.gen-ai`.
#[derive(Debug)]
pub(super) struct GenAi;

impl Schema for GenAi {
    fn connector_type(&self) -> &'static str {
        ".gen-ai"
    }

    fn since(&self) -> Version {
        V8_9
    }

    fn selector(&self) -> Option<&'static str> {
        Some(PROVIDER)
    }

    fn variants(&self) -> &'static [Variant] {
        &PROVIDERS
    }

    fn check_more(&self, variant: &Variant, fields: &Map<String, Value>) -> Vec<InvalidConfig> {
        let check = match variant.api {
            Some(Api::AzureOpenAi) => endpoint::check_azure,
            _ => endpoint::check_completions,
        };
        endpoint::check_field("config", fields, URL, check)
    }

    fn call(&self, fields: &Map<String, Value>, probe: &Probe) -> Value {
        params(fields, probe, chat::LIMIT)
    }

    fn call_again(
        &self,
        fields: &Map<String, Value>,
        probe: &Probe,
        execution: &Execution,
    ) -> Option<Value> {
        let is_any_server = api(fields) == Some(Api::Other);
        let is_asked = probe.body.is_none() && chat::refuses_limit(execution, is_any_server);
        is_asked.then(|| params(fields, probe, chat::OLD_LIMIT))
    }

    fn check_call(&self, fields: &Map<String, Value>, probe: &Probe) -> Vec<InvalidConfig> {
        let mut invalid = chat::check_body(probe);
        if probe.model.is_some() && api(fields) == Some(Api::AzureOpenAi) {
            let problem = "is of no use: the URL of Azure names the model; remove it";
            invalid.push(InvalidConfig::new("probe.model", problem));
        }
        invalid
    }

    fn read(&self, execution: &Execution) -> ProbeResult {
        probe::read(execution, &probe::KIBANA)
    }
}

fn api(fields: &Map<String, Value>) -> Option<Api> {
    let provider = text(fields, PROVIDER)?;
    let named = PROVIDERS.iter().find(|variant| variant.name == provider)?;
    named.api
}

/// The body is a text of JSON. Without a model in it Kibana fills in the connector's own, but not for `Other`, and a
/// connector whose Kibana is too old for `defaultModel` has none.
fn params(fields: &Map<String, Value>, probe: &Probe, limit: &str) -> Value {
    let model = match api(fields) {
        Some(Api::AzureOpenAi) => None,
        _ => text(fields, MODEL),
    };
    let body = chat::body(probe, limit, model).to_string();
    json!({"subAction": "test", "subActionParams": {"body": body}})
}
