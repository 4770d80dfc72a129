//! Checks a value before it becomes a key.

use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::ValueFault;

/// Prefix of OpenAI's organisation admin keys.
const ADMIN_PREFIX: &str = "sk-admin-";

/// Drops one newline at the end (`vault kv put … @file` keeps the file's) and refuses what cannot be a key. Other
/// formats pass: servers that are only compatible with OpenAI take anything.
pub(crate) fn check(text: &Zeroizing<String>) -> Result<SecretString, ValueFault> {
    let trimmed = text.strip_suffix('\n').map_or(text.as_str(), |rest| {
        rest.strip_suffix('\r').unwrap_or(rest)
    });
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
}
