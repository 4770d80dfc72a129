//! Keys: which parts a connector type takes, and the last look at them before they go out.
//!
//! No error here repeats any of a key.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::fields::needs;
use super::{InvalidConfig, KeyValue, SecretPart};
use crate::text::one_line;
use crate::version::Version;

/// From this length a secret cannot be an ordinary word of a URL or a name.
const SECRET_CHARS_SEARCHED: usize = 8;
/// The most of the name of a part that is shown.
const SHOWN_CHARS_MAX: usize = 60;
/// Where Google exchanges a signed request for a token. Another place would get signed requests.
const GOOGLE_TOKENS: &str = "https://oauth2.googleapis.com/token";

/// A set of parts that together are a key.
#[derive(Debug)]
pub(super) struct KeyForm {
    /// The first Kibana that takes it.
    pub(super) since: Version,
    pub(super) parts: &'static [Part],
}

/// A part of a key.
#[derive(Debug)]
pub(super) struct Part {
    /// Kibana's name of it.
    pub(super) name: &'static str,
    pub(super) is_required: bool,
    pub(super) kind: PartKind,
}

/// What a part must be.
#[derive(Debug, Clone, Copy)]
pub(super) enum PartKind {
    /// A text without spaces.
    Bare,
    /// The id of a long-lived access key of AWS.
    AwsAccessKey,
    /// A PEM file of certificates, as text or base64 of it; rendered as base64.
    Certificates,
    /// A PEM file of a private key, as text or base64 of it; rendered as base64.
    PrivateKey,
    /// The JSON file of a service account of Google.
    GoogleAccount,
}

/// One text: an API key.
pub(super) const fn one(name: &'static str) -> Part {
    Part {
        name,
        is_required: true,
        kind: PartKind::Bare,
    }
}

/// All parts that some form has; required are those of the first form that has them as required.
pub(super) fn parts(forms: &[KeyForm]) -> Vec<SecretPart> {
    parts_since(forms)
        .into_iter()
        .map(|(part, _)| part)
        .collect()
}

/// The same with the first Kibana that takes each.
pub(super) fn parts_since(forms: &[KeyForm]) -> Vec<(SecretPart, Version)> {
    let mut all: Vec<(SecretPart, Version)> = Vec::new();
    for (index, form) in forms.iter().enumerate() {
        for part in form.parts {
            if all.iter().all(|(known, _)| known.name != part.name) {
                let part = SecretPart {
                    name: part.name,
                    is_required: part.is_required && index == 0,
                };
                all.push((part, form.since));
            }
        }
    }
    all
}

/// The form that a Key with these parts has; no parts: a Key of one text.
pub(super) fn form_of<'f>(
    forms: &'f [KeyForm],
    parts: &[String],
    version: Option<&Version>,
) -> Result<&'f KeyForm, InvalidConfig> {
    let form = forms.iter().find(|form| form.fits(parts)).ok_or_else(|| {
        let all: Vec<_> = forms.iter().map(KeyForm::words).collect();
        let wants = all.join(", or ");
        let problem = if parts.is_empty() {
            format!("is one text, and this connector wants {wants}; name the field of each part under vault.fields")
        } else {
            let given = one_line(&parts.join(", "), SHOWN_CHARS_MAX);
            format!("has the parts {given}, and this connector wants {wants}")
        };
        InvalidConfig::new("key", problem)
    })?;
    match version {
        Some(version) if form.since > *version => {
            let problem = format!("with {} {}", form.words(), needs(form.since, version));
            Err(InvalidConfig::new("key", problem))
        }
        _ => Ok(form),
    }
}

/// Takes a value apart, each part as Kibana wants it.
pub(super) fn take(
    forms: &[KeyForm],
    value: &KeyValue<'_>,
    version: &Version,
) -> Result<Vec<(&'static str, SecretString)>, Vec<InvalidConfig>> {
    let form = form_of(forms, value.parts, Some(version)).map_err(|problem| vec![problem])?;
    let mut texts = split(form, value).map_err(|problem| vec![problem])?;
    let (mut parts, mut invalid) = (Vec::new(), Vec::new());
    for part in form.parts {
        let Some(text) = texts.remove(part.name) else {
            continue;
        };
        match part.read(&text) {
            Ok(secret) => parts.push((part.name, secret)),
            Err(problem) => {
                let field = format!("secrets.{}", part.name);
                invalid.push(InvalidConfig::new(field, problem));
            }
        }
    }
    if invalid.is_empty() {
        Ok(parts)
    } else {
        Err(invalid)
    }
}

/// Refuses a key that also stands where everyone who may read connectors sees it.
pub(super) fn check_places(
    parts: &[(&'static str, SecretString)],
    name: &str,
    config: &Map<String, Value>,
) -> Result<(), Vec<InvalidConfig>> {
    let stands = |secret: &SecretString| {
        let key = secret.expose_secret();
        key.len() >= SECRET_CHARS_SEARCHED && (name.contains(key) || holds(config, key))
    };
    let problem = "stands in the name or config too, where everyone who may read connectors sees it; remove it there";
    let open: Vec<_> = parts
        .iter()
        .filter(|(_, secret)| stands(secret))
        .map(|(part, _)| InvalidConfig::new(format!("secrets.{part}"), problem))
        .collect();
    if open.is_empty() { Ok(()) } else { Err(open) }
}

impl KeyForm {
    /// A Key of one text fits where one part alone is required.
    fn fits(&self, names: &[String]) -> bool {
        if names.is_empty() {
            return self.only_required().is_some();
        }
        let is_known = |name: &String| self.parts.iter().any(|part| part.name == name);
        let is_given =
            |part: &Part| !part.is_required || names.iter().any(|name| part.name == name);
        names.iter().all(is_known) && self.parts.iter().all(is_given)
    }

    fn only_required(&self) -> Option<&'static Part> {
        let mut required = self.parts.iter().filter(|part| part.is_required);
        required.next().filter(|_| required.next().is_none())
    }

    /// For messages.
    fn words(&self) -> String {
        let of = |is_required: bool| {
            let parts = self
                .parts
                .iter()
                .filter(|part| part.is_required == is_required);
            parts.map(|part| part.name).collect::<Vec<_>>().join(", ")
        };
        match (of(true), of(false)) {
            (required, optional) if optional.is_empty() => required,
            (required, optional) => format!("{required} (and perhaps {optional})"),
        }
    }
}

impl Part {
    fn read(&self, text: &SecretString) -> Result<SecretString, &'static str> {
        let key = text.expose_secret();
        if key.trim().is_empty() {
            return Err("is empty; write the key into Vault");
        }
        match self.kind {
            PartKind::Bare => check_bare(key)?,
            PartKind::AwsAccessKey => check_access_key(key)?,
            PartKind::GoogleAccount => check_google_account(key)?,
            PartKind::Certificates => return pem(key, &CERTIFICATES),
            PartKind::PrivateKey => return pem(key, &PRIVATE_KEY),
        }
        Ok(text.clone())
    }
}

/// The texts of a value by the names of the parts.
fn split(
    form: &KeyForm,
    value: &KeyValue<'_>,
) -> Result<BTreeMap<String, SecretString>, InvalidConfig> {
    if value.parts.is_empty() {
        let name = form.only_required().map_or("", |part| part.name);
        return Ok(BTreeMap::from([(name.to_owned(), value.text.clone())]));
    }
    let not_parts = || {
        let problem =
            "is not a JSON object of just the texts that the Key names; let the Key be read again";
        InvalidConfig::new("key", problem)
    };
    let texts: BTreeMap<String, String> =
        serde_json::from_str(value.text.expose_secret()).map_err(|_| not_parts())?;
    let texts: BTreeMap<String, SecretString> = texts
        .into_iter()
        .map(|(name, text)| (name, SecretString::from(text)))
        .collect();
    let is_same =
        texts.len() == value.parts.len() && value.parts.iter().all(|name| texts.contains_key(name));
    if is_same { Ok(texts) } else { Err(not_parts()) }
}

fn check_bare(key: &str) -> Result<(), &'static str> {
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "holds a space, a line break or another character that no API key has; write the bare key into Vault",
        );
    }
    if key.starts_with("sk-admin-") {
        return Err(
            "is an admin key of the organization, which must never reach a Kibana; use a project's key",
        );
    }
    Ok(())
}

/// IAM reference, "Unique identifiers": `AKIA` begins a long-lived key, `ASIA` one that works only with a session
/// token, which no connector can hold.
fn check_access_key(key: &str) -> Result<(), &'static str> {
    if key.starts_with("ASIA") {
        return Err(
            "is a temporary access key, which works only with a session token; use the key of an IAM user",
        );
    }
    let is_id = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    if !(16..=128).contains(&key.len()) || !key.bytes().all(is_id) {
        return Err(
            "is not the id of an access key; write the 20 capital letters and digits that AWS shows",
        );
    }
    Ok(())
}

/// Kibana takes service accounts only: the file of an `external_account` makes it fetch tokens from anywhere.
fn check_google_account(key: &str) -> Result<(), &'static str> {
    let account: Map<String, Value> = serde_json::from_str(key).map_err(
        |_| "is not the JSON file of a service account; write the whole file into Vault",
    )?;
    let text = |name: &str| account.get(name).and_then(Value::as_str);
    match text("type") {
        Some("service_account") => {}
        Some("external_account") => {
            return Err(
                "is of the type external_account, which Kibana refuses; use the file of a service account",
            );
        }
        _ => {
            return Err(
                "is not of the type service_account; use the JSON file of a service account",
            );
        }
    }
    if text("token_uri").is_some_and(|uri| uri != GOOGLE_TOKENS) {
        return Err(
            "names a token_uri that is not Google's; download the file of the service account again",
        );
    }
    let has_key = text("private_key").is_some_and(|key| key.contains("-----BEGIN "));
    if !has_key || text("client_email").is_none_or(str::is_empty) {
        return Err("lacks private_key or client_email; write the whole file into Vault");
    }
    Ok(())
}

/// What a PEM file must begin with, and what is wrong otherwise.
struct Pem {
    labels: &'static [&'static str],
    problem: &'static str,
}

const CERTIFICATES: Pem = Pem {
    labels: &["CERTIFICATE"],
    problem: "is not a PEM file that begins with -----BEGIN CERTIFICATE-----, nor base64 of one",
};
/// Kibana takes no other kinds: no encrypted ones, no `EC PRIVATE KEY`.
const PRIVATE_KEY: Pem = Pem {
    labels: &["PRIVATE KEY", "RSA PRIVATE KEY"],
    problem: "is not a PEM file that begins with -----BEGIN PRIVATE KEY----- or -----BEGIN RSA PRIVATE KEY-----, nor \
              base64 of one",
};

/// Base64 of the PEM file, whether Vault holds the file or base64 of it.
fn pem(key: &str, wanted: &Pem) -> Result<SecretString, &'static str> {
    if key.trim_start().starts_with("-----BEGIN ") {
        return encode(key, wanted);
    }
    let packed: Zeroizing<Vec<u8>> = Zeroizing::new(
        key.bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect(),
    );
    let bytes = STANDARD.decode(packed.as_slice()).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| wanted.problem)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wanted.problem)?;
    encode(text, wanted)
}

fn encode(text: &str, wanted: &Pem) -> Result<SecretString, &'static str> {
    let text = text.trim();
    let is_whole = |label: &&str| {
        let body = text.strip_prefix(&format!("-----BEGIN {label}-----"));
        body.is_some_and(|body| body.contains(&format!("-----END {label}-----")))
    };
    let is_plain = |byte: u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    if !wanted.labels.iter().any(is_whole) || !text.bytes().all(is_plain) {
        return Err(wanted.problem);
    }
    let file = Zeroizing::new(format!("{text}\n"));
    Ok(SecretString::from(STANDARD.encode(file.as_bytes())))
}

/// Whether any text in a map, names included, has `part` in it.
fn holds(map: &Map<String, Value>, part: &str) -> bool {
    map.iter().any(|(name, value)| {
        name.contains(part)
            || match value {
                Value::String(text) => text.contains(part),
                Value::Object(inner) => holds(inner, part),
                Value::Number(number) => number.to_string().contains(part),
                Value::Null | Value::Bool(_) | Value::Array(_) => false,
            }
    })
}
