//! Names for a secret that do not tell it: a keyed hash for machines, prefix and last four for people.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::error::Error;

/// Separates fingerprints from any other use of the same key (BLAKE3's context string).
const CONTEXT: &str = "keyfleet 2026-11 v1 fingerprint of a provider key";

/// 64 bits: enough to tell a fleet's keys apart, and too few to be of use to anybody without the key.
const HEX_CHARS: usize = 16;

/// The shortest key of which a part may be shown; four characters of a shorter one would tell too much.
const SHOWN_CHARS_MIN: usize = 20;

/// Classes of OpenAI's keys, the more special first (prefixes seen up to 2026).
const PREFIXES: [&str; 6] = [
    "sk-proj-",
    "sk-svcacct-",
    "sk-service-",
    "sk-admin-",
    "sk-None-",
    "sk-",
];

/// The key of the keyed hash. Only control has it, so nobody else can confirm a guess at a secret.
pub struct FingerprintKey(Zeroizing<[u8; 32]>);

impl FingerprintKey {
    /// A new one from the system's randomness.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(Error::Random)?;
        Ok(Self(bytes))
    }

    /// The one that [`Self::to_bytes`] gave.
    ///
    /// # Errors
    /// [`Error::FingerprintKey`] where it is not 32 bytes long.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        <[u8; 32]>::try_from(bytes)
            .map(|bytes| Self(Zeroizing::new(bytes)))
            .map_err(|_| Error::FingerprintKey)
    }

    /// The key itself, to be stored in a file that only control can read.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }

    /// The fingerprint of a secret: 16 lowercase hexadecimal characters, the same for the same value.
    pub fn fingerprint(&self, secret: &SecretString) -> String {
        let key = Zeroizing::new(blake3::derive_key(CONTEXT, self.0.as_slice()));
        let hash = blake3::keyed_hash(&key, secret.expose_secret().as_bytes());
        hash.to_hex().chars().take(HEX_CHARS).collect()
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

/// A secret as people may see it: `sk-proj-…MxYA`, the form the provider's console shows too.
///
/// Of a key without a known prefix nothing is shown (`…`), of one under 20 characters only `(short)`.
pub fn shown(secret: &SecretString) -> String {
    let text = secret.expose_secret();
    let count = text.chars().count();
    if count < SHOWN_CHARS_MIN {
        return "(short)".to_owned();
    }
    match PREFIXES.iter().find(|prefix| text.starts_with(**prefix)) {
        Some(prefix) => format!(
            "{prefix}…{}",
            text.chars().skip(count - 4).collect::<String>()
        ),
        None => "…".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_depend_on_value_and_key_only() {
        let key = FingerprintKey::from_bytes(&[7; 32]).unwrap();
        let other = FingerprintKey::generate().unwrap();
        let (a, b) = (
            SecretString::from("sk-proj-a"),
            SecretString::from("sk-proj-b"),
        );
        let fingerprint = key.fingerprint(&a);
        assert_eq!(fingerprint.len(), HEX_CHARS);
        assert!(
            fingerprint
                .chars()
                .all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase())
        );
        let same = FingerprintKey::from_bytes(key.to_bytes().as_slice()).unwrap();
        assert_eq!(fingerprint, same.fingerprint(&a));
        assert_ne!(fingerprint, key.fingerprint(&b));
        assert_ne!(fingerprint, other.fingerprint(&a));
        assert!(matches!(
            FingerprintKey::from_bytes(&[1]),
            Err(Error::FingerprintKey)
        ));
    }

    #[test]
    fn people_see_prefix_and_last_four() {
        let check =
            |text: &str, expected: &str| assert_eq!(shown(&SecretString::from(text)), expected);
        check("sk-proj-abcdefghijklmnopMxYA", "sk-proj-…MxYA");
        check("sk-svcacct-abcdefghijklmnopMxYA", "sk-svcacct-…MxYA");
        check("sk-abcdefghijklmnopqrstMxYA", "sk-…MxYA");
        check("0123456789abcdef0123456789abcdef", "…");
        check("sk-proj-short", "(short)");
        check("sk-äöüäöüäöüäöüäöüäöüßßßß", "sk-…ßßßß");
        check("", "(short)");
    }
}
