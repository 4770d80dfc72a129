//! The providers of `.gen-ai`, as data: their fields and keys, and the first Kibana that has each.

use keyfleet_core::connector::Provider as Api;

use super::super::fields::{Field, Kind};
use super::super::schema::Variant;
use super::super::secrets::{KeyForm, Part, PartKind, one};
use super::{MODEL, PROVIDER, URL};
use crate::version::Version;

pub(super) const V8_9: Version = Version::OLDEST;
const V8_11: Version = Version::new(8, 11, 0);
const V8_14: Version = Version::new(8, 14, 0);
const V8_17: Version = Version::new(8, 17, 0);
const V8_18: Version = Version::new(8, 18, 0);
const V9_1: Version = Version::new(9, 1, 0);
const V9_2: Version = Version::new(9, 2, 0);
const V9_3: Version = Version::new(9, 3, 0);

/// Each value of `apiProvider` has its own strict schema. Adding a provider: a row here and a table of fields.
pub(super) static PROVIDERS: [Variant; 3] = [
    Variant {
        name: "OpenAI",
        since: V8_9,
        fields: &OPENAI,
        keys: &[API_KEY],
        api: Some(Api::OpenAi),
    },
    Variant {
        name: "Azure OpenAI",
        since: V8_9,
        fields: &AZURE,
        keys: &[API_KEY],
        api: Some(Api::AzureOpenAi),
    },
    Variant {
        name: "Other",
        since: V8_17,
        fields: &OTHER,
        keys: &[API_KEY, PKI],
        api: Some(Api::Other),
    },
];

const API_KEY: KeyForm = KeyForm {
    since: V8_9,
    parts: &[one("apiKey")],
};
/// A client certificate, for servers that ask for one in TLS.
const PKI: KeyForm = KeyForm {
    since: V9_1,
    parts: &[
        Part {
            name: "certificateData",
            is_required: true,
            kind: PartKind::Certificates,
        },
        Part {
            name: "privateKeyData",
            is_required: true,
            kind: PartKind::PrivateKey,
        },
        Part {
            name: "caData",
            is_required: false,
            kind: PartKind::Certificates,
        },
        Part {
            name: "apiKey",
            is_required: false,
            kind: PartKind::Bare,
        },
    ],
};

// First releases: kibana#157228 (the type), #179026 (headers), #213117 (organization and project), #228371 (context
// window), #232097 (function calling), #239806 (temperature). The release of `defaultModel` is not confirmed: 8.11 is
// the oldest whose sources have it.
static OPENAI: [Field; 8] = [
    Field::required(PROVIDER, V8_9, Kind::Text),
    Field::required(URL, V8_9, Kind::Url),
    Field::defaulted(MODEL, V8_11, Kind::Text),
    Field::optional("headers", V8_14, Kind::Headers),
    Field::optional("organizationId", V8_18, Kind::Text),
    Field::optional("projectId", V8_18, Kind::Text),
    Field::optional("contextWindowLength", V9_2, Kind::Count),
    Field::optional("temperature", V9_3, Kind::Temperature),
];
static AZURE: [Field; 6] = [
    Field::required(PROVIDER, V8_9, Kind::Text),
    Field::required(URL, V8_9, Kind::Url),
    Field::optional("headers", V8_14, Kind::Headers),
    Field::optional(MODEL, V9_2, Kind::Text),
    Field::optional("contextWindowLength", V9_2, Kind::Count),
    Field::optional("temperature", V9_3, Kind::Temperature),
];
static OTHER: [Field; 8] = [
    Field::required(PROVIDER, V8_17, Kind::Text),
    Field::required(URL, V8_17, Kind::Url),
    Field::required(MODEL, V8_17, Kind::Text),
    Field::optional("headers", V8_17, Kind::Headers),
    Field::defaulted(
        "verificationMode",
        V9_1,
        Kind::OneOf(&[("full", V9_1), ("certificate", V9_1), ("none", V9_1)]),
    ),
    Field::optional("contextWindowLength", V9_2, Kind::Count),
    Field::optional("enableNativeFunctionCalling", V9_2, Kind::Flag),
    Field::optional("temperature", V9_3, Kind::Temperature),
];
