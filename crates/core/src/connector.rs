//! A connector: the fleet-level definition that is spread over many Kibanas.

use std::time::Duration;

use crate::id::{ConnectorName, KeyName, Revision};

/// The content of one revision.
///
/// `config` is opaque here: a JSON object in canonical text (sorted keys, no spaces) that only the drivers
/// of the `kibana` crate understand, so that a new connector type changes nothing in this crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorSpec {
    /// Kibana's id of the type, such as `.gen-ai`.
    pub connector_type: String,
    /// The name that people see in Kibana; not unique there.
    pub display_name: String,
    /// The type's fields, canonical JSON.
    pub config: String,
    /// The Key whose value the connector holds; never a version of it.
    pub key: KeyName,
    /// Fields of the config that are left out where a Kibana is too old for them; sorted, each once.
    pub if_supported: Vec<String>,
    /// How it is proven.
    pub probe: Probe,
    /// The connector whose place it takes: that one is removed from a Kibana only once this one is proven there.
    pub replaces: Option<ConnectorName>,
}

/// What the live call of a connector says; what is left out is up to the connector's type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probe {
    /// The whole body, canonical JSON of one object; then nothing else here is used but the interval.
    pub body: Option<String>,
    /// Most tokens of the answer.
    pub max_tokens: Option<u32>,
    /// The model that the call asks for.
    pub model: Option<String>,
    /// How long a proof is good for; zero: for ever. Left out: the setting of the control service.
    pub interval: Option<Duration>,
}

/// Whose API a connector speaks: decides how a key is presented and proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// `OpenAI` itself: the key is a bearer token, and a model can be looked up.
    OpenAi,
    /// Azure `OpenAI`: the key has a header of its own, the URL names the model.
    AzureOpenAi,
    /// A server that is compatible with `OpenAI`'s chat completions: only a completion proves the key.
    Other,
}

/// One immutable revision of a connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorRevision {
    /// Which connector.
    pub connector: ConnectorName,
    /// Which revision of it, from 1.
    pub revision: Revision,
    /// Its content.
    pub spec: ConnectorSpec,
}
