//! Checks a value before it becomes a key, and puts the parts of a key together.
//!
//! A key of several parts is one JSON object of texts, in order of the parts' names and without spaces: equal parts give
//! equal text, so that it is fingerprinted, sealed and held like any other key.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::ValueFault;
use crate::answer::Leaf;

/// Prefix of OpenAI's organisation admin keys.
const ADMIN_PREFIX: &str = "sk-admin-";

/// Most bytes of a key of several parts, as the one text that it travels as: a certificate with its key and chain is
/// about 10 KiB.
const PARTS_BYTES_MAX: usize = 64 << 10;

/// Most bytes that one byte of a text becomes in JSON (`\u001f`).
const ESCAPED_BYTES_MAX: usize = 6;

/// What stands around a part beside its name and text: quotes, colon, comma, braces.
const AROUND_BYTES: usize = 8;

/// Drops one newline at the end (`vault kv put … @file` keeps the file's) and refuses what cannot be a key. Other
/// formats pass: servers that are only compatible with OpenAI take anything.
pub(crate) fn check(text: &Zeroizing<String>) -> Result<SecretString, ValueFault> {
    let trimmed = without_last_newline(text);
    if trimmed.is_empty() {
        return Err(ValueFault::Empty);
    }
    if trimmed.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(ValueFault::Whitespace);
    }
    if !trimmed.is_ascii() {
        return Err(ValueFault::NotAscii);
    }
    if trimmed.starts_with(ADMIN_PREFIX) {
        return Err(ValueFault::AdminKey);
    }
    Ok(SecretString::from(trimmed))
}

/// Drops one newline at the end of a part and refuses what cannot be one. Certificates and JSON have several lines.
pub(crate) fn check_part(text: &Zeroizing<String>) -> Result<&str, ValueFault> {
    let trimmed = without_last_newline(text);
    if trimmed.trim().is_empty() {
        return Err(ValueFault::Empty);
    }
    if trimmed.len() > PARTS_BYTES_MAX {
        return Err(ValueFault::TooLarge);
    }
    let is_odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    if trimmed.chars().any(is_odd) {
        return Err(ValueFault::Control);
    }
    if trimmed.starts_with(ADMIN_PREFIX) {
        return Err(ValueFault::AdminKey);
    }
    Ok(trimmed)
}

/// The one text of several parts, each of which passed [`check_part`].
pub(crate) fn join(parts: &BTreeMap<&str, &str>) -> Result<SecretString, ValueFault> {
    let bytes =
        |(name, text): (&&str, &&str)| name.len() + text.len() * ESCAPED_BYTES_MAX + AROUND_BYTES;
    let room = parts.iter().map(bytes).sum::<usize>() + AROUND_BYTES;
    // It never grows: growing would leave a copy behind that nobody wipes.
    let mut json = Zeroizing::new(Vec::with_capacity(room));
    let written = serde_json::to_writer(&mut *json, parts);
    if written.is_err() || json.len() > PARTS_BYTES_MAX {
        return Err(ValueFault::TooLarge);
    }
    let text = std::str::from_utf8(&json).map_err(|_| ValueFault::Control)?;
    Ok(SecretString::from(text))
}

/// One part of a key that has several; `None` where there is none of that name.
pub fn part(value: &SecretString, name: &str) -> Option<SecretString> {
    let mut parts: BTreeMap<String, Leaf> = serde_json::from_str(value.expose_secret()).ok()?;
    match parts.remove(name)? {
        Leaf::Text(text) => Some(SecretString::from(text.as_str())),
        Leaf::Other => None,
    }
}

/// `vault kv put … field=@file` keeps the newline at the end of the file.
fn without_last_newline(text: &str) -> &str {
    text.strip_suffix('\n')
        .map_or(text, |rest| rest.strip_suffix('\r').unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn only_what_a_header_can_carry_is_a_key() {
        let cases = [
            ("sk-proj-abc_DEF-123", Ok("sk-proj-abc_DEF-123")),
            ("any-vendor's:key/format==", Ok("any-vendor's:key/format==")),
            ("sk-1\n", Ok("sk-1")),
            ("sk-1\r\n", Ok("sk-1")),
            ("", Err(ValueFault::Empty)),
            ("\n", Err(ValueFault::Empty)),
            ("  ", Err(ValueFault::Whitespace)),
            ("sk-1\n\n", Err(ValueFault::Whitespace)),
            (" sk-1", Err(ValueFault::Whitespace)),
            ("sk-\t1", Err(ValueFault::Whitespace)),
            ("sk-\u{0}1", Err(ValueFault::Whitespace)),
            ("sk-ü", Err(ValueFault::NotAscii)),
            ("sk-admin-abc", Err(ValueFault::AdminKey)),
            ("sk-admin-abc\n", Err(ValueFault::AdminKey)),
        ];
        for (text, expected) in cases {
            let found = check(&Zeroizing::new(text.to_owned()));
            assert_eq!(
                found.as_ref().map(ExposeSecret::expose_secret),
                expected.as_ref().copied(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_part_may_have_lines_and_no_other_control_characters() {
        let pem = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----";
        let long = "x".repeat(PARTS_BYTES_MAX + 1);
        let cases = [
            ("AKIA", Ok("AKIA")),
            ("AKIA\r\n", Ok("AKIA")),
            (pem, Ok(pem)),
            ("{\n\t\"a\": \"ü\"\n}\n", Ok("{\n\t\"a\": \"ü\"\n}")),
            ("", Err(ValueFault::Empty)),
            (" \n ", Err(ValueFault::Empty)),
            ("a\u{0}", Err(ValueFault::Control)),
            ("a\u{1b}[2J", Err(ValueFault::Control)),
            ("sk-admin-abc", Err(ValueFault::AdminKey)),
            (&long, Err(ValueFault::TooLarge)),
        ];
        for (text, expected) in cases {
            let text = Zeroizing::new(text.to_owned());
            assert_eq!(check_part(&text), expected, "{:.40?}", text.as_str());
        }
    }

    #[test]
    fn parts_become_one_text_and_come_out_again() {
        let joined = |parts: &[(&str, &str)]| join(&parts.iter().copied().collect());
        let both = joined(&[("secret", "b\"\n"), ("accessKey", "a")]).unwrap();
        let text = r#"{"accessKey":"a","secret":"b\"\n"}"#;
        assert_eq!(both.expose_secret(), text);
        let found = |name: &str| part(&both, name).map(|it| it.expose_secret().to_owned());
        assert_eq!(found("secret").as_deref(), Some("b\"\n"));
        assert_eq!(found("apiKey"), None);
        assert!(part(&SecretString::from("sk-plain"), "apiKey").is_none());
        assert!(part(&SecretString::from(r#"{"apiKey":1}"#), "apiKey").is_none());
    }

    #[test]
    fn parts_are_bounded_together_and_their_buffer_never_grows() {
        let half = "x".repeat(PARTS_BYTES_MAX / 2);
        let parts = BTreeMap::from([("a", half.as_str()), ("b", half.as_str())]);
        assert_eq!(join(&parts).err(), Some(ValueFault::TooLarge));
        // Every byte of it is escaped.
        let worst = "\u{1}".repeat(PARTS_BYTES_MAX / 12);
        assert!(join(&BTreeMap::from([("a", worst.as_str())])).is_ok());
    }
}
