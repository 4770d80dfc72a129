//! Sealed keys, secrets in files and texts to scrub, as a hostile peer or a broken disk would have them.

use std::time::{Duration, Instant};

use keyfleet_core::id::{DeploymentId, EnrolmentId, KeyName, KeyVersion};
use keyfleet_seal::{FingerprintKey, Opener, Sealer, SealingSecret, SessionInfo, scrub, shown};
use secrecy::{ExposeSecret as _, SecretString};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");

const WORDS: [&str; 16] = [
    "Bearer ",
    "bearer ",
    "ApiKey ",
    "Basic ",
    "sk-",
    "sk-proj-",
    "kfo_",
    "://",
    "@",
    "****",
    "...",
    "…",
    "api key provided: ",
    "AAAA1aaa",
    "=",
    "[scrubbed]",
];

/// A long line of a log. It takes some tenths of a second; were its time to grow with the square of its length, it
/// would take minutes.
const TEXT_BYTES: usize = 1 << 16;
const TEXT_TIME_MAX: Duration = Duration::from_secs(10);

#[test]
fn nothing_but_what_was_sealed_for_us_opens() {
    let id = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
    let (deployment, enrolment): (DeploymentId, EnrolmentId) =
        (id.parse().unwrap(), id.parse().unwrap());
    let info = SessionInfo {
        deployment,
        enrolment,
        nonce: [7; 32],
    };
    let name: KeyName = "openai".parse().unwrap();
    let secret = SealingSecret::generate().unwrap();
    xtask::fuzz::run(format!("{CORPUS}/sealed"), &[], |bytes| {
        // Each file and each field of the wire may hold these bytes.
        let _ = (
            SealingSecret::from_bytes(bytes),
            FingerprintKey::from_bytes(bytes),
        );
        let _ = Sealer::new(bytes, &info);
        if let Ok(mut opener) = Opener::new(&secret, bytes, &info) {
            assert!(opener.open(&name, KeyVersion(1), bytes).is_err());
        }
        let (mut sealer, encapsulated) = Sealer::new(&secret.public(), &info).unwrap();
        let mut opener = Opener::new(&secret, &encapsulated, &info).unwrap();
        assert!(opener.open(&name, KeyVersion(1), bytes).is_err());
        let value = SecretString::from(String::from_utf8_lossy(bytes).into_owned());
        let sealed = sealer.seal(&name, KeyVersion(1), &value).unwrap();
        let mut opener = Opener::new(&secret, &encapsulated, &info).unwrap();
        let opened = opener.open(&name, KeyVersion(1), &sealed).unwrap();
        assert_eq!(opened.expose_secret(), value.expose_secret());
    });
}

#[test]
fn any_text_is_scrubbed_once_and_for_all() {
    xtask::fuzz::run(format!("{CORPUS}/texts"), &WORDS, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let once = scrub(&text).into_owned();
        assert_eq!(scrub(&once), once);
        let hint = shown(&SecretString::from(text.into_owned()));
        assert!(hint.chars().count() <= 20, "{hint}");
    });
}

#[test]
fn a_long_text_takes_no_longer_than_its_length_allows() {
    let pieces = [
        "Bearer ",
        "Bearer x ",
        "://",
        "://a",
        "sk-",
        "sk-a",
        "*",
        "...",
        "A1a",
        "api key provided: ",
        "=",
        "a-",
        "A1a/",
        "a\n",
        "-----BEGIN ",
        "-----BEGIN X-----",
        "-----END X-----",
        "-----BEGIN X-----END ",
        "\"private_key\":\"",
        "aws_session_token=",
        "AKIA",
    ];
    for piece in pieces {
        let text = piece.repeat(TEXT_BYTES / piece.len());
        let begin = Instant::now();
        let _ = scrub(&text);
        let took = begin.elapsed();
        assert!(took < TEXT_TIME_MAX, "{piece:?} took {took:?}");
    }
}
