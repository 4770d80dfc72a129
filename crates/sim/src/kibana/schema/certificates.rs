//! The secrets of `.gen-ai`: a key, or since 9.1 certificates in its place.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

/// As lenient as Node.js: padding may be there or not, bits may be left over.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const CERTIFICATE: &[&str] = &["-----BEGIN CERTIFICATE-----"];
const KEY: &[&str] = &[
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----",
];

/// What is wrong with secrets whose fields have the right types, in Kibana's words.
pub(super) fn check(given: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| given.get(name).and_then(Value::as_str);
    let certificates = ["certificateData", "privateKeyData", "caData"];
    if certificates.iter().all(|name| text(name).is_none()) {
        // The check is one of Kibana's own since there are certificates: the older words outlived the older library.
        let missing = "[apiKey]: expected value of type [string] but got [undefined]";
        return text("apiKey").is_none().then(|| missing.to_owned());
    }
    let Some(certificate) = text("certificateData") else {
        return Some("Certificate data must be provided for PKI".to_owned());
    };
    let Some(key) = text("privateKeyData") else {
        return Some("Private key data must be provided for PKI".to_owned());
    };
    pem(certificate, CERTIFICATE, "Certificate data", "certificate")
        .or_else(|| pem(key, KEY, "Private key data", "private key"))
        .or_else(|| {
            let authority = text("caData")?;
            pem(authority, CERTIFICATE, "CA certificate data", "certificate")
        })
}

/// Each value is the base64 of a PEM file.
fn pem(data: &str, beginnings: &[&str], name: &str, noun: &str) -> Option<String> {
    let bare: String = data.chars().filter(|c| !c.is_whitespace()).collect();
    let file = LENIENT.decode(bare).unwrap_or_default();
    let file = String::from_utf8_lossy(&file);
    if beginnings
        .iter()
        .any(|begin| file.trim_start().starts_with(begin))
    {
        return None;
    }
    let quoted: Vec<String> = beginnings
        .iter()
        .map(|begin| format!("\"{begin}\""))
        .collect();
    Some(format!(
        "Invalid {name} file format: The file must be a PEM-encoded {noun} beginning with {}.",
        quoted.join(" or ")
    ))
}
