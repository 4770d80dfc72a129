//! Names, ids, selectors and what providers say: any text is taken or refused, and nothing in between.

use std::fmt::Display;
use std::str::FromStr;

use keyfleet_core::failure::{FailureClass, classify_provider, is_tiny_limit_refusal};
use keyfleet_core::fleet::Selector;
use keyfleet_core::id::{
    ConnectorName, DeploymentId, DeploymentName, EnrolmentId, KeyName, SpaceId, TokenId,
};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");

/// The signs of selectors, and texts that are nearly right.
const WORDS: [&str; 20] = [
    "=",
    "==",
    "!=",
    "!",
    ",",
    "(",
    ")",
    " in (",
    " notin (",
    " in ",
    " ",
    "(all)",
    "env",
    "prod",
    "-",
    ".",
    "ü",
    "{",
    "urn:uuid:",
    "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
];

/// The longest text of an error: what was written is repeated up to a length.
const ERROR_CHARS_MAX: usize = 2_000;

/// What is taken means what it says; what is refused is refused in a short line.
fn check<T>(text: &str)
where
    T: FromStr<Err: Display> + Display + PartialEq,
{
    match text.parse::<T>() {
        Ok(taken) => {
            let shown = taken.to_string();
            assert!(
                shown.parse::<T>().is_ok_and(|again| again == taken),
                "{text:?} -> {shown:?}"
            );
        }
        Err(err) => {
            let said = err.to_string();
            assert!(
                !said.contains('\n') && said.chars().count() < ERROR_CHARS_MAX,
                "{said}"
            );
        }
    }
}

#[test]
fn names_ids_and_selectors_are_read_as_they_are_shown() {
    xtask::fuzz::run(format!("{CORPUS}/words"), &WORDS, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        check::<DeploymentName>(&text);
        check::<ConnectorName>(&text);
        check::<KeyName>(&text);
        check::<SpaceId>(&text);
        check::<DeploymentId>(&text);
        check::<EnrolmentId>(&text);
        check::<TokenId>(&text);
        check::<Selector>(&text);
    });
}

#[test]
fn whatever_a_provider_says_has_one_class() {
    xtask::fuzz::run(
        format!("{CORPUS}/answers"),
        &["model", "not found", "api key"],
        |bytes| {
            let text = String::from_utf8_lossy(bytes);
            for status in [
                None,
                Some(0),
                Some(400),
                Some(401),
                Some(403),
                Some(404),
                Some(429),
                Some(500),
                Some(u16::MAX),
            ] {
                let class = classify_provider(status, Some(&text), Some(&text), &text);
                assert!(FailureClass::ALL.contains(&class));
                // No text blames the key where the provider did not even look at it.
                let may_blame = matches!(status, Some(401 | 403));
                assert!(
                    class != FailureClass::Auth || may_blame,
                    "{status:?} {text}"
                );
                assert!(!is_tiny_limit_refusal(status, &text) || status == Some(400));
            }
        },
    );
}
