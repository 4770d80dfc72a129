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

/// Of so many characters at least one is of another kind than the one before, where there are no words: of a random text
/// it is more than every second, of a path one of ten.
const JUMPS_ONE_IN: usize = 4;

/// A word of letters after `Bearer` is a word up to this length ("Bearer authentication is required").
const WORD_CHARS_MAX: usize = 20;

/// The text to put in place of a match.
type Replace = fn(&Captures<'_>) -> String;

struct Rule {
    pattern: Regex,
    replace: Replace,
}

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rules: [(&str, Replace); 12] = [
        // What is left of a block of PEM that was cut off, also with line breaks as `\n` within JSON.
        (
            r"-----BEGIN [A-Z0-9 ]+-----([A-Za-z0-9+/=\s]|\\[nr])*",
            mask,
        ),
        (
            r"([A-Za-z0-9+/=]+(\s|\\[nr])*)?-----END [A-Z0-9 ]+-----",
            mask,
        ),
        // A field of JSON whose name says that it is secret, such as a service account's `private_key`.
        (
            r#"(?i)("(private_?key(_?id|_?data)?|certificate_?data|(client_?)?secret(_?key)?|secret_?access_?key|access_?key|api_?key|session_?token|credentials_?json)"\s*:\s*)"([^"\\]|\\.)*""#,
            |found| format!("{}\"{MASK}\"", part(found, 1)),
        ),
        // The same in an environment or a profile of AWS.
        (
            r#"(?i)\b(aws_(secret_access_key|session_token)\s*[=:]\s*)([^\s"',;]+)"#,
            |found| format!("{}{MASK}", part(found, 1)),
        ),
        // Ids of AWS keys (IAM reference, unique identifiers).
        (r"\b(AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b", mask),
        // Base64 with slashes, such as the secrets of AWS. A path has them too.
        (r"[A-Za-z0-9/+]{32,}={0,2}", |found| {
            let token = part(found, 0);
            if is_jumpy(token) { MASK } else { token }.to_owned()
        }),
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
    let changed = RULES.iter().fold(without_blocks(text), |text, rule| {
        Cow::Owned(rule.pattern.replace_all(&text, rule.replace).into_owned())
    });
    (changed != text).then(|| changed.into_owned())
}

/// The text without whole blocks of PEM, whatever is in them. By hand, because a pattern would look for the end of each
/// beginning anew, and many beginnings would take it the square of their number.
fn without_blocks(text: &str) -> Cow<'_, str> {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, after)) = around_block(rest) {
        kept.push_str(before);
        kept.push_str(MASK);
        rest = after;
    }
    match kept.is_empty() {
        true => Cow::Borrowed(text),
        false => Cow::Owned(kept + rest),
    }
}

/// What stands before and after the first block.
fn around_block(text: &str) -> Option<(&str, &str)> {
    let (before, block) = text.split_once("-----BEGIN ")?;
    let (_, end) = block.split_once("-----END ")?;
    let (_, after) = end.split_once("-----")?;
    Some((before, after))
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

/// True where the kind of character changes so often that no words can be in it.
fn is_jumpy(token: &str) -> bool {
    let kind = |byte: u8| match byte {
        b'0'..=b'9' => Some(0),
        b'A'..=b'Z' => Some(1),
        b'a'..=b'z' => Some(2),
        _ => None,
    };
    let has = |wanted: u8| token.bytes().any(|byte| kind(byte) == Some(wanted));
    let pairs = token.bytes().zip(token.bytes().skip(1));
    let kinds = pairs.filter_map(|(a, b)| Some((kind(a)?, kind(b)?)));
    let changes = kinds.filter(|(a, b)| a != b).count();
    has(0) && has(1) && has(2) && changes * JUMPS_ONE_IN >= token.len()
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
    fn no_part_of_a_key_stays() {
        let pem = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIEvAIBADANBgkqhkiG9w0BAQEFAASC\nab/cd+Ef==\n-----END RSA PRIVATE KEY-----";
        check(&format!("key {pem}, ok"), "key [scrubbed], ok");
        let within = pem.replace('\n', "\\n");
        check(
            &format!("{{\"key\":\"{within}\\n\"}} is bad"),
            "{\"key\":\"[scrubbed]\\n\"} is bad",
        );
        check(
            &format!("{pem}\n{pem}\nboth"),
            "[scrubbed]\n[scrubbed]\nboth",
        );
        check(
            "got -----BEGIN PRIVATE KEY-----\nMIIEvA/BADAN\nab",
            "got [scrubbed]",
        );
        check("...kqh/iG9w0B\n-----END PRIVATE KEY-----", "...[scrubbed]");
        check(
            r#"{"type":"service_account","private_key_id":"0a1b","private_key":"a\"b\nc","client_email":"x@y.z"}"#,
            r#"{"type":"service_account","private_key_id":"[scrubbed]","private_key":"[scrubbed]","client_email":"x@y.z"}"#,
        );
        check(
            "\"clientSecret\": \"short\", \"a\": 1",
            "\"clientSecret\": \"[scrubbed]\", \"a\": 1",
        );
        check(
            r#"secrets {"accessKey":"id","secret":"s"} of {"secretNames":"x","apiKey": 1}"#,
            r#"secrets {"accessKey":"[scrubbed]","secret":"[scrubbed]"} of {"secretNames":"x","apiKey": 1}"#,
        );
        check(
            "the key AKIAIOSFODNN7EXAMPLE is not valid",
            "the key [scrubbed] is not valid",
        );
        check(
            "secret wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY does not match",
            "secret [scrubbed] does not match",
        );
        check(
            "AWS_SECRET_ACCESS_KEY=short aws_session_token = x/y",
            "AWS_SECRET_ACCESS_KEY=[scrubbed] aws_session_token = [scrubbed]",
        );
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
            "GET /s/soc/api/actions/connector/types answered 404, /api/detection/engine2/Rules/Find too",
            "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-20250514-v1:0",
            "projects/Soc7/locations/europeWest4/publishers/google/models/gemini-2",
            "error validating action type secrets: [secretKey]: expected value of type [string]",
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
            Just("-----BEGIN PRIVATE KEY-----".to_owned()),
            Just("-----END PRIVATE KEY-----".to_owned()),
            Just("\"private_key\":\"".to_owned()),
            Just("aws_session_token=".to_owned()),
            Just("AKIAIOSFODNN7EXAMPLE".to_owned()),
            Just("\\n".to_owned()),
            Just("\"".to_owned()),
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

        #[test]
        fn no_planted_part_survives_whole(
            before in pieces(),
            after in pieces(),
            secret in "([A-Z][a-z][0-9/+][A-Za-z]){10}7",
            body in "[A-Za-z0-9+/\n]{20,200}",
        ) {
            let text = format!("{before} {secret} {after}");
            prop_assert!(!scrub(&text).contains(&secret));
            let text = format!("{before}-----BEGIN PRIVATE KEY-----\nx{body}x\n-----END PRIVATE KEY-----{after}");
            let clean = scrub(&text).into_owned();
            prop_assert!(!clean.contains(&format!("x{body}x")), "{}", clean);
        }
    }
}
