//! Takes out of a text whatever looks like a key.
//!
//! The rules would rather mask a harmless token than let a key through, but leave words, versions, UUIDs
//! and URLs as they are, because the text is what tells an operator what happened.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex_lite::{Captures, Regex};

/// What stands where something was taken out. No rule changes it, so scrubbing twice is scrubbing once.
const MASK: &str = "[scrubbed]";

/// From this length on a token of mixed letters and digits is taken for a secret.
const MIXED_CHARS_MIN: usize = 24;

/// From this length on a token without any separator is taken for one, such as a key in hexadecimal.
const SOLID_CHARS_MIN: usize = 32;

/// A word of letters after `Bearer` is a word up to this length ("Bearer authentication is required").
const WORD_CHARS_MAX: usize = 20;

/// The text to put in place of a match.
type Replace = fn(&Captures<'_>) -> String;

struct Rule {
    pattern: Regex,
    replace: Replace,
}

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rules: [(&str, Replace); 6] = [
        // An `Authorization` header's value.
        (
            r#"\b([Bb]earer|BEARER|ApiKey|Basic)([ \t]+)([^\s"',;]+)"#,
            credentials,
        ),
        // OpenAI's 401 echoes what it got, short ones whole: "Incorrect API key provided: abc."
        (r"(?i)(api key provided: ?)(\S+)", |found| {
            format!("{}{MASK}", part(found, 1))
        }),
        // `https://user:password@host`
        (r"(://)([^/\s@]+)@", |found| {
            format!("{}{MASK}@", part(found, 1))
        }),
        // Masked echoes: `sk-proj-****MxYA`, `sk-abc...def`.
        (
            r"[A-Za-z0-9_-]*(\*{3,})[A-Za-z0-9_*-]*|\bsk-[A-Za-z0-9_-]*(\.\.\.|…)[A-Za-z0-9_-]+",
            mask,
        ),
        // Keys of OpenAI and tokens of Keyfleet, by their prefix; where the prefix says it all, also the first part of one.
        (
            r"(^|[^A-Za-z0-9])(sk-(proj|svcacct|admin|None)-[A-Za-z0-9_-]+|(sk-|kf[a-z]_)[A-Za-z0-9_-]{16,})",
            |found| format!("{}{MASK}", part(found, 1)),
        ),
        // Anything long and random: base64, base64url, hexadecimal.
        (r"[A-Za-z0-9_+-]{24,}={0,2}", random),
    ];
    rules
        .into_iter()
        .map(|(pattern, replace)| Rule {
            pattern: Regex::new(pattern).expect("the rules are tested"),
            replace,
        })
        .collect()
});

/// The text without what looks like a key; untouched where there was nothing.
///
/// `Owned` means that something was taken out. Scrubbing again changes nothing. It is the last line of defence, not the first: secrets are never put
/// into a text in the first place, but providers echo parts of them.
pub fn scrub(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    // Taking one thing out can uncover the next (`Bearer Bearer x`). Each round that changes the text leaves
    // fewer characters outside of masks, so there is a last one.
    while let Some(changed) = round(&text) {
        text = Cow::Owned(changed);
    }
    text
}

/// Every rule once; `None` where none of them changed anything.
fn round(text: &str) -> Option<String> {
    let changed = RULES.iter().fold(Cow::Borrowed(text), |text, rule| {
        Cow::Owned(rule.pattern.replace_all(&text, rule.replace).into_owned())
    });
    (changed != text).then(|| changed.into_owned())
}

fn part<'t>(found: &Captures<'t>, index: usize) -> &'t str {
    found.get(index).map_or("", |part| part.as_str())
}

fn mask(_: &Captures<'_>) -> String {
    MASK.to_owned()
}

fn credentials(found: &Captures<'_>) -> String {
    let value = part(found, 3);
    let word =
        value.len() < WORD_CHARS_MAX && value.chars().all(|c| c.is_ascii_alphabetic() || c == '.');
    if word {
        return part(found, 0).to_owned();
    }
    format!("{}{}{MASK}", part(found, 1), part(found, 2))
}

fn random(found: &Captures<'_>) -> String {
    let token = part(found, 0);
    if looks_random(token) {
        MASK.to_owned()
    } else {
        token.to_owned()
    }
}

fn looks_random(token: &str) -> bool {
    let has = |test: fn(&char) -> bool| token.chars().any(|c| test(&c));
    let digit = has(char::is_ascii_digit);
    let mixed = digit && has(char::is_ascii_uppercase) && has(char::is_ascii_lowercase);
    let solid = digit && has(char::is_ascii_alphabetic) && !token.contains(['-', '_']);
    (mixed && token.len() >= MIXED_CHARS_MIN) || (solid && token.len() >= SOLID_CHARS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(scrub(text), expected);
        assert_eq!(scrub(expected), expected, "twice");
    }

    #[test]
    fn what_looks_like_a_key_is_taken_out() {
        check("key sk-proj-abcdefghijklmnop, ok", "key [scrubbed], ok");
        check("\"sk-svcacct-AAAABBBBCCCCDDDD\"", "\"[scrubbed]\"");
        check("x_sk-aaaaaaaaaaaaaaaaaaaa", "x_[scrubbed]");
        check(
            "it begins with sk-proj-AbCd, as",
            "it begins with [scrubbed], as",
        );
        check(
            "Status code: 401. Message: Unauthorized API Error - Incorrect API key provided: sk-proj-****MxYA. You can find",
            "Status code: 401. Message: Unauthorized API Error - Incorrect API key provided: [scrubbed] You can find",
        );
        check(
            "Incorrect API key provided: abc. See",
            "Incorrect API key provided: [scrubbed] See",
        );
        check("it was ****************MxYA!", "it was [scrubbed]!");
        check("value sk-abc...def", "value [scrubbed]");
        check("shown as sk-proj-…MxYA", "shown as [scrubbed]");
        check(
            "authorization: Bearer abc123",
            "authorization: Bearer [scrubbed]",
        );
        check(
            "ApiKey VnVhQ2ZHY0JDZGJrUW0tZTVhT3g6dWkybHAyYXhUTm1zeWFrdzl0dk5udw==",
            "ApiKey [scrubbed]",
        );
        check(
            "http://user:pass@proxy:3128/x",
            "http://[scrubbed]@proxy:3128/x",
        );
        check("hvs.CAESIJlU8Pp5R0bOZ7xWq2nTn1", "hvs.[scrubbed]");
        check("0123456789abcdef0123456789abcdef", "[scrubbed]");
        check("kfj_aaaaaaaaaaaaaaaaaaaaaaaa", "[scrubbed]");
    }

    #[test]
    fn what_people_read_stays() {
        for text in [
            "",
            "Action type .gen-ai is disabled because your basic license does not support it. Please upgrade your license.",
            "https://api.openai.com/v1/chat/completions answered 502",
            "connector 3f2504e0-4f89-41d3-9a0c-0305e82c3301 in space default",
            "error validating action type secrets: [apiKey]: expected value of type [string] but got [undefined]",
            "organization_spend_limit_exceeded",
            "risk-based-authentication and task-force-management",
            "The model `gpt-4o-mini-2024-07-18` does not exist",
            "Basic authentication, Bearer authentication is required. Bearer tokens.",
            "target url \"http://genAi.mynonexistent.com\" is not added to the Kibana config xpack.actions.allowedHosts",
            "2026-11-23T12:00:00.123456Z INFO keyfleet_agent: session established deployment.id=3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        ] {
            check(text, text);
            assert!(matches!(scrub(text), Cow::Borrowed(_)), "{text}");
        }
    }

    /// Text made of the pieces that the rules look at, which is where they could get in each other's way.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[ -~]{0,12}",
            "\\PC{0,6}",
            "[A-Za-z0-9_+/=-]{0,40}",
            Just("sk-".to_owned()),
            Just("sk-proj-".to_owned()),
            Just("Bearer ".to_owned()),
            Just("ApiKey ".to_owned()),
            Just("Incorrect API key provided: ".to_owned()),
            Just("://".to_owned()),
            Just("@".to_owned()),
            Just("****".to_owned()),
            Just("...".to_owned()),
            Just("…".to_owned()),
            Just(MASK.to_owned()),
            Just("\n".to_owned()),
        ];
        proptest::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn scrubbing_twice_is_scrubbing_once(text in pieces()) {
            let once = scrub(&text).into_owned();
            prop_assert_eq!(scrub(&once), once.as_str());
        }

        #[test]
        fn no_planted_key_survives_whole(
            before in pieces(),
            after in pieces(),
            key in "sk-(proj-|svcacct-|admin-|None-)?[A-Z][a-z][0-9][A-Za-z0-9_-]{20,80}",
        ) {
            let text = format!("{before}{key}{after}");
            prop_assert!(!scrub(&text).contains(&key));
        }
    }
}
