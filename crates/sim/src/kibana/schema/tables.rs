//! The tables: one row a field, with the first release that has it.
//!
//! Sources: the connectors' schemas in Kibana and the pull requests that added each field (`.gen-ai`: 179026, 213117,
//! 228371, 232097, 239806; `.bedrock`: 166662, 228371, 239806, 252956; `.gemini`: 183668; `.inference`: 189027,
//! 235687). Patch releases of older minors may know a field earlier than the minor given here.

use super::super::licence::{BEDROCK, GEMINI, GEN_AI, INFERENCE};
use super::super::version::{PKI_SECRETS, Since};

const OPENAI: &str = "OpenAI";
const AZURE: &str = "Azure OpenAI";
const OTHER: &str = "Other";

/// The providers in the order of the union, and the first version that knows each.
pub(in crate::kibana) const PROVIDERS: [(&str, Since); 3] = [
    (AZURE, Since(8, 9)),
    (OPENAI, Since(8, 9)),
    (OTHER, Since(8, 17)),
];

/// What a value must be.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Number,
    Flag,
    /// A map of anything.
    Map,
    /// A map from text to text.
    TextMap,
    OneOf(&'static [&'static str]),
}

/// What the server stores when the field is left out.
#[derive(Clone, Copy)]
pub(super) enum Absent {
    Missing,
    Nothing,
    Text(&'static str),
    /// An empty map.
    Map,
    /// The model of that release, newest first.
    Model(&'static [(Since, &'static str)]),
}

/// One row: `name` is known to `providers` since `since`; a type without a union has no providers.
pub(super) struct Field {
    pub(super) name: &'static str,
    providers: &'static [&'static str],
    pub(super) since: Since,
    pub(super) kind: Kind,
    pub(super) absent: Absent,
}

impl Field {
    /// Whether that branch of a union has it; every branch where there is no union.
    pub(super) fn is_for(&self, provider: Option<&str>) -> bool {
        provider.is_none_or(|provider| self.providers.contains(&provider))
    }
}

const fn field(
    name: &'static str,
    providers: &'static [&'static str],
    since: Since,
    kind: Kind,
    absent: Absent,
) -> Field {
    Field {
        name,
        providers,
        since,
        kind,
        absent,
    }
}

const ALL: &[&str] = &[OPENAI, AZURE, OTHER];
const VERIFICATION: Kind = Kind::OneOf(&["full", "certificate", "none"]);

const GEN_AI_CONFIG: [Field; 12] = [
    field("apiProvider", ALL, Since(8, 9), Kind::Text, Absent::Missing),
    field("apiUrl", ALL, Since(8, 9), Kind::Text, Absent::Missing),
    field(
        "defaultModel",
        &[OPENAI],
        Since(8, 11),
        Kind::Text,
        Absent::Model(&OPENAI_MODELS),
    ),
    field(
        "defaultModel",
        &[AZURE],
        Since(9, 2),
        Kind::Text,
        Absent::Nothing,
    ),
    field(
        "defaultModel",
        &[OTHER],
        Since(8, 17),
        Kind::Text,
        Absent::Missing,
    ),
    field("headers", ALL, Since(8, 14), Kind::TextMap, Absent::Nothing),
    field(
        "organizationId",
        &[OPENAI],
        Since(8, 18),
        Kind::Text,
        Absent::Nothing,
    ),
    field(
        "projectId",
        &[OPENAI],
        Since(8, 18),
        Kind::Text,
        Absent::Nothing,
    ),
    field(
        "contextWindowLength",
        ALL,
        Since(9, 2),
        Kind::Number,
        Absent::Nothing,
    ),
    field(
        "temperature",
        ALL,
        Since(9, 3),
        Kind::Number,
        Absent::Nothing,
    ),
    field(
        "verificationMode",
        &[OTHER],
        Since(9, 1),
        VERIFICATION,
        Absent::Text("full"),
    ),
    field(
        "enableNativeFunctionCalling",
        &[OTHER],
        Since(9, 2),
        Kind::Flag,
        Absent::Nothing,
    ),
];

/// Without a union: the same for every config of the type.
const fn plain(name: &'static str, since: Since, kind: Kind, absent: Absent) -> Field {
    field(name, &[], since, kind, absent)
}

const CONTEXT: Field = plain(
    "contextWindowLength",
    Since(9, 2),
    Kind::Number,
    Absent::Nothing,
);
const TEMPERATURE: Field = plain("temperature", Since(9, 3), Kind::Number, Absent::Nothing);

const BEDROCK_CONFIG: [Field; 5] = [
    plain("apiUrl", Since(8, 11), Kind::Text, Absent::Missing),
    plain(
        "defaultModel",
        Since(8, 11),
        Kind::Text,
        Absent::Model(&BEDROCK_MODELS),
    ),
    plain("region", Since(9, 4), Kind::Text, Absent::Nothing),
    CONTEXT,
    TEMPERATURE,
];

const GEMINI_CONFIG: [Field; 6] = [
    plain("apiUrl", Since(8, 15), Kind::Text, Absent::Missing),
    plain(
        "defaultModel",
        Since(8, 15),
        Kind::Text,
        Absent::Model(&GEMINI_MODELS),
    ),
    plain("gcpRegion", Since(8, 15), Kind::Text, Absent::Missing),
    plain("gcpProjectID", Since(8, 15), Kind::Text, Absent::Missing),
    CONTEXT,
    TEMPERATURE,
];

const INFERENCE_CONFIG: [Field; 8] = [
    plain("provider", Since(8, 16), Kind::Text, Absent::Missing),
    plain("taskType", Since(8, 16), Kind::Text, Absent::Missing),
    plain("inferenceId", Since(8, 16), Kind::Text, Absent::Missing),
    plain("providerConfig", Since(8, 16), Kind::Map, Absent::Map),
    plain("taskTypeConfig", Since(8, 16), Kind::Map, Absent::Nothing),
    CONTEXT,
    plain("headers", Since(9, 3), Kind::TextMap, Absent::Nothing),
    TEMPERATURE,
];

const GEN_AI_SECRETS: [Field; 4] = [
    // Whether it is required is a question of the certificates.
    plain("apiKey", Since(8, 9), Kind::Text, Absent::Nothing),
    plain("certificateData", PKI_SECRETS, Kind::Text, Absent::Nothing),
    plain("privateKeyData", PKI_SECRETS, Kind::Text, Absent::Nothing),
    plain("caData", PKI_SECRETS, Kind::Text, Absent::Nothing),
];

const BEDROCK_SECRETS: [Field; 2] = [
    plain("accessKey", Since(8, 11), Kind::Text, Absent::Missing),
    plain("secret", Since(8, 11), Kind::Text, Absent::Missing),
];

const GEMINI_SECRETS: [Field; 1] = [plain(
    "credentialsJson",
    Since(8, 15),
    Kind::Text,
    Absent::Missing,
)];

const INFERENCE_SECRETS: [Field; 1] = [plain(
    "providerSecrets",
    Since(8, 16),
    Kind::Map,
    Absent::Map,
)];

/// The models that the server fills in, newest first. The exact releases are not confirmed.
const OPENAI_MODELS: [(Since, &str); 3] = [
    (Since(9, 1), "gpt-4.1"),
    (Since(8, 15), "gpt-4o"),
    (Since(8, 11), "gpt-4"),
];
const BEDROCK_MODELS: [(Since, &str); 5] = [
    (Since(9, 3), "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    (Since(9, 1), "us.anthropic.claude-3-7-sonnet-20250219-v1:0"),
    (Since(8, 15), "anthropic.claude-3-5-sonnet-20240620-v1:0"),
    (Since(8, 14), "anthropic.claude-3-sonnet-20240229-v1:0"),
    (Since(8, 11), "anthropic.claude-v2"),
];
const GEMINI_MODELS: [(Since, &str); 2] = [
    (Since(9, 1), "gemini-2.5-pro"),
    (Since(8, 15), "gemini-1.5-pro-002"),
];

/// The services of Elasticsearch that are simulated; the real list is longer.
pub(super) const INFERENCE_PROVIDERS: [&str; 2] = ["openai", "azureopenai"];

/// What a connector of that type can do.
pub(super) const INFERENCE_TASKS: [&str; 5] = [
    "chat_completion",
    "completion",
    "rerank",
    "sparse_embedding",
    "text_embedding",
];

/// The config of a type; none where it takes anything.
pub(super) fn config(connector_type_id: &str) -> Option<&'static [Field]> {
    match connector_type_id {
        GEN_AI => Some(&GEN_AI_CONFIG),
        BEDROCK => Some(&BEDROCK_CONFIG),
        GEMINI => Some(&GEMINI_CONFIG),
        INFERENCE => Some(&INFERENCE_CONFIG),
        _ => None,
    }
}

/// The secrets of a type; none where it takes anything.
pub(super) fn secrets(connector_type_id: &str) -> Option<&'static [Field]> {
    match connector_type_id {
        GEN_AI => Some(&GEN_AI_SECRETS),
        BEDROCK => Some(&BEDROCK_SECRETS),
        GEMINI => Some(&GEMINI_SECRETS),
        INFERENCE => Some(&INFERENCE_SECRETS),
        _ => None,
    }
}
