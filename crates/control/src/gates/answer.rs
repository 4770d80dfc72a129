//! What an answer says: pass, fail, or nothing, and a text for people.

use keyfleet_core::rollout::{Threshold, Verdict};
use keyfleet_kibana::is_plain_text;
use keyfleet_seal::scrub;
use serde::Deserialize;
use serde_json::Value;

/// The longest text that is kept of an answer, in characters.
const TEXT_CHARS_MAX: usize = 300;

/// How much of a foreign text is looked at.
const LOOKED_AT_CHARS_MAX: usize = 8_192;

/// How many samples a text shows.
const SAMPLES_SHOWN: usize = 3;

/// What older servers send as a warning although the answer is whole (Prometheus before 2.54).
const INFO: &str = "PromQL info:";

/// One answer of a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What it says.
    pub(crate) verdict: Verdict,
    /// For people: without secrets and control characters, not longer than [`TEXT_CHARS_MAX`].
    pub(crate) text: String,
}

/// What came back over HTTP.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// The body, or its beginning.
    pub(super) body: Vec<u8>,
    /// Why the body is not whole.
    pub(super) cut: Option<String>,
}

impl Answer {
    pub(super) fn pass(text: &str) -> Self {
        Self::new(Verdict::Pass, text)
    }

    pub(super) fn fail(text: &str) -> Self {
        Self::new(Verdict::Fail, text)
    }

    pub(super) fn nothing(text: &str) -> Self {
        Self::new(Verdict::Inconclusive, text)
    }

    fn new(verdict: Verdict, text: &str) -> Self {
        Self {
            verdict,
            text: readable(text),
        }
    }
}

/// What the answer to a plain GET says: any 2xx passes, 409 fails, everything else says nothing.
pub(super) fn http(reply: &Reply) -> Answer {
    let status = status(reply.status);
    let text = match first_line(&reply.body) {
        Some(line) => format!("{status}: {line}"),
        None => status.clone(),
    };
    match reply.status {
        200..=299 => Answer::pass(&status),
        409 => Answer::fail(&text),
        300..=399 => Answer::nothing(&redirected(&status)),
        _ => Answer::nothing(&format!("it answered {text}; 2xx passes, 409 fails")),
    }
}

/// What the answer to an instant query says (Prometheus' HTTP API, `/api/v1/query`).
pub(super) fn prometheus(reply: &Reply, fail_if: &Threshold) -> Answer {
    let status = status(reply.status);
    if (300..=399).contains(&reply.status) {
        return Answer::nothing(&redirected(&status));
    }
    if let Some(cut) = &reply.cut {
        return Answer::nothing(cut);
    }
    let Ok(said) = serde_json::from_slice::<Said>(&reply.body) else {
        return Answer::nothing(&format!(
            "the answer is not one of Prometheus ({status}): is there a login page or a proxy on the way?"
        ));
    };
    let is_success = said.status == "success" && (200..=299).contains(&reply.status);
    let Some(data) = said.data.as_ref().filter(|_| is_success) else {
        return Answer::nothing(&format!("it answered {status}: {}", said.error()));
    };
    match samples(data) {
        Ok(samples) => judge(&samples, fail_if, said.warning()),
        Err(problem) => Answer::nothing(problem),
    }
}

/// An answer of Prometheus' HTTP API. Fields that are not here are not needed.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    status: String,
    data: Option<Data>,
    #[serde(default)]
    error: Value,
    #[serde(default)]
    warnings: Value,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    #[serde(default)]
    result: Value,
}

impl Said {
    fn error(&self) -> &str {
        let words = self.error.as_str().filter(|error| !error.is_empty());
        words.unwrap_or("it does not say why")
    }

    /// What may be missing in the answer.
    fn warning(&self) -> Option<&str> {
        let mut warnings = self.warnings.as_array()?.iter().filter_map(Value::as_str);
        warnings.find(|warning| !warning.starts_with(INFO))
    }
}

/// The values of a scalar or an instant vector.
fn samples(data: &Data) -> Result<Vec<f64>, &'static str> {
    let samples = match data.kind.as_str() {
        "scalar" => value(&data.result).map(|value| vec![value]),
        "vector" => {
            let all = data.result.as_array();
            all.and_then(|all| {
                all.iter()
                    .map(|sample| value(sample.get("value")?))
                    .collect()
            })
        }
        "matrix" => {
            return Err(
                "the query answers with a range: write one that answers with one value each",
            );
        }
        "string" => {
            return Err("the query answers with a text: write one that answers with numbers");
        }
        _ => None,
    };
    samples.ok_or(
        "the answer has samples that are no numbers: write a query that answers with plain values",
    )
}

/// The number of a `[time, "number"]`.
fn value(sample: &Value) -> Option<f64> {
    let [_, value] = sample.as_array()?.as_slice() else {
        return None;
    };
    value.as_str()?.parse().ok()
}

fn judge(samples: &[f64], fail_if: &Threshold, warning: Option<&str>) -> Answer {
    let too_much: Vec<f64> = samples
        .iter()
        .copied()
        .filter(|value| fail_if.is_broken_by(*value))
        .collect();
    if !too_much.is_empty() {
        return Answer::fail(&format!("{} (fails if {fail_if})", shown(&too_much)));
    }
    if let Some(warning) = warning {
        return Answer::nothing(&format!(
            "something may be missing in the answer: {warning}"
        ));
    }
    if samples.is_empty() {
        return Answer::nothing("the answer has no samples: does the query still match a series?");
    }
    if samples.iter().any(|value| value.is_nan()) {
        return Answer::nothing("the answer is NaN: is there any traffic to measure?");
    }
    Answer::pass(&format!("{} (fails if {fail_if})", shown(samples)))
}

/// The first values, and how many more there are.
fn shown(samples: &[f64]) -> String {
    let first: Vec<String> = samples
        .iter()
        .take(SAMPLES_SHOWN)
        .map(ToString::to_string)
        .collect();
    let first = first.join(", ");
    match samples.len().saturating_sub(SAMPLES_SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn redirected(status: &str) -> String {
    format!(
        "it answered {status}, and redirects are not followed: write the address that it leads to"
    )
}

/// `409 Conflict`.
fn status(code: u16) -> String {
    let known = http::StatusCode::from_u16(code).ok();
    let words = known.and_then(|status| status.canonical_reason());
    words.map_or_else(|| code.to_string(), |words| format!("{code} {words}"))
}

/// The first line with something in it, where the body is text for people.
fn first_line(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    // A page for browsers says nothing in its first line.
    (!line.starts_with('<')).then(|| line.chars().take(LOOKED_AT_CHARS_MAX).collect())
}

/// The text on one line, without what looks like a key, and short.
fn readable(text: &str) -> String {
    let text: String = text.chars().take(LOOKED_AT_CHARS_MAX).collect();
    // Nothing that a terminal obeys, that nobody sees, or that turns the text around.
    let is_shown = |c: char| is_plain_text(c.encode_utf8(&mut [0; 4]));
    let words = text.split(|c: char| c.is_whitespace() || !is_shown(c));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    let clean = scrub(&line);
    if clean.chars().count() <= TEXT_CHARS_MAX {
        return clean.into_owned();
    }
    let mut short: String = clean.chars().take(TEXT_CHARS_MAX - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status,
            body: body.as_bytes().to_vec(),
            cut: None,
        }
    }

    #[track_caller]
    fn check(answer: &Answer, verdict: Verdict, text: &str) {
        assert_eq!(answer.verdict, verdict, "{}", answer.text);
        assert!(answer.text.contains(text), "{}", answer.text);
    }

    #[test]
    fn a_get_passes_fails_or_says_nothing_by_its_status() {
        use Verdict::*;
        for (status, body, verdict, text) in [
            (200, "ok", Pass, "200 OK"),
            (204, "", Pass, "204 No Content"),
            (
                409,
                "error budget spent\nmore",
                Fail,
                "409 Conflict: error budget spent",
            ),
            (409, "", Fail, "409 Conflict"),
            (302, "", Inconclusive, "redirects are not followed"),
            (
                401,
                "who are you",
                Inconclusive,
                "401 Unauthorized: who are you; 2xx passes",
            ),
            (
                404,
                "<html><body>no",
                Inconclusive,
                "it answered 404 Not Found; 2xx",
            ),
            (500, "", Inconclusive, "500 Internal Server Error"),
            (999, "", Inconclusive, "it answered 999;"),
        ] {
            check(&http(&reply(status, body)), verdict, text);
        }
    }

    fn vector(values: &[&str]) -> String {
        let samples: Vec<Value> = values
            .iter()
            .map(|value| serde_json::json!({"metric": {"job": "x"}, "value": [1.5, value]}))
            .collect();
        let data = serde_json::json!({"resultType": "vector", "result": samples});
        serde_json::json!({"status": "success", "data": data}).to_string()
    }

    #[track_caller]
    fn ask(status: u16, body: &str, verdict: Verdict, text: &str) {
        let answer = prometheus(&reply(status, body), &"> 0.02".parse().unwrap());
        check(&answer, verdict, text);
    }

    #[test]
    fn prometheus_fails_where_any_sample_is_beyond_the_threshold() {
        use Verdict::*;
        for (values, verdict, text) in [
            (&["0.02"][..], Pass, "0.02 (fails if > 0.02)"),
            (
                &["0.01", "0", "0.002", "0"][..],
                Pass,
                "0.01, 0, 0.002 and 1 more",
            ),
            (&["0.01", "0.03"][..], Fail, "0.03 (fails if > 0.02)"),
            (&["NaN", "+Inf"][..], Fail, "inf"),
            (&["-Inf"][..], Pass, "-inf"),
            (&["0", "NaN"][..], Inconclusive, "NaN"),
            (&[][..], Inconclusive, "no samples"),
            (&["a lot"][..], Inconclusive, "no numbers"),
        ] {
            ask(200, &vector(values), verdict, text);
        }
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"0.5"]}}"#;
        ask(200, scalar, Fail, "0.5");
    }

    #[test]
    fn prometheus_says_nothing_where_the_answer_is_none() {
        let cases = [
            (
                200,
                r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#,
                "a range",
            ),
            (
                200,
                r#"{"status":"success","data":{"resultType":"string","result":[1,"1"]}}"#,
                "a text",
            ),
            (
                200,
                r#"{"status":"success","data":{"resultType":"novel","result":[]}}"#,
                "no numbers",
            ),
            (
                200,
                r#"{"status":"success","data":{"resultType":"vector"}}"#,
                "no numbers",
            ),
            (
                200,
                r#"{"status":"success","data":{"resultType":"vector","result":[{"histogram":[1,{}]}]}}"#,
                "no numbers",
            ),
            (
                200,
                r#"{"status":"success","data":{"resultType":"scalar","result":[1,0.5]}}"#,
                "no numbers",
            ),
            (200, r#"{"status":"success"}"#, "does not say why"),
            (200, "{}", "does not say why"),
            (
                200,
                r#"{"status":"error","error":"query timed out"}"#,
                "query timed out",
            ),
            (
                400,
                r#"{"status":"error","error":"1:7: parse error"}"#,
                "400 Bad Request: 1:7: parse error",
            ),
            (
                503,
                r#"{"status":"success","data":{"resultType":"scalar","result":[1,"0"]}}"#,
                "503",
            ),
            (
                200,
                "<!doctype html><title>Log in</title>",
                "not one of Prometheus (200 OK)",
            ),
            (200, "", "not one of Prometheus"),
            (200, "[[[[", "not one of Prometheus"),
            (302, "", "redirects are not followed"),
        ];
        for (status, body, text) in cases {
            ask(status, body, Verdict::Inconclusive, text);
        }
        let deep = "[".repeat(100_000);
        ask(200, &deep, Verdict::Inconclusive, "not one of Prometheus");
        let mut cut = reply(200, &vector(&["9"]));
        cut.cut = Some("too long".to_owned());
        let answer = prometheus(&cut, &"> 0.02".parse().unwrap());
        check(&answer, Verdict::Inconclusive, "too long");
    }

    #[test]
    fn an_answer_with_a_warning_does_not_pass() {
        let with = |values: &[&str], warning: &str| {
            let mut body: Value = serde_json::from_str(&vector(values)).unwrap();
            body["warnings"] = serde_json::json!([warning]);
            body.to_string()
        };
        let partial = "no response from a store";
        ask(200, &with(&["0"], partial), Verdict::Inconclusive, partial);
        ask(200, &with(&["1"], partial), Verdict::Fail, "1 (fails");
        ask(
            200,
            &with(&["0"], "PromQL info: a counter?"),
            Verdict::Pass,
            "0 (fails",
        );
    }

    #[test]
    fn a_text_is_short_on_one_line_and_without_keys() {
        let key = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGH";
        let answer = http(&reply(409, &format!("key {key} \u{1b}[31m\u{7}is refused")));
        assert!(!answer.text.contains("abcdefghij"), "{}", answer.text);
        assert!(!answer.text.contains(char::is_control), "{}", answer.text);
        // Nor what turns the text around, or hides.
        let turned = http(&reply(409, "all\u{202e}well\u{200b}done \u{feff}now"));
        assert_eq!(turned.text, "409 Conflict: all well done now");
        let long = http(&reply(409, &"word ".repeat(10_000)));
        assert_eq!(long.text.chars().count(), TEXT_CHARS_MAX);
        assert!(long.text.ends_with('…'));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn no_answer_panics(status in 0_u16..=1_000, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let reply = Reply { status, body, cut: None };
            for answer in [http(&reply), prometheus(&reply, &"> 0.02".parse().unwrap())] {
                prop_assert!(answer.text.chars().count() <= TEXT_CHARS_MAX);
                prop_assert!(!answer.text.is_empty());
            }
        }

        #[test]
        fn no_answer_that_looks_like_one_panics(
            kind in "scalar|vector|matrix|string|x",
            result in json(),
            warnings in json(),
            error in json(),
            words in "success|error|",
        ) {
            let data = serde_json::json!({"resultType": kind, "result": result});
            let body = serde_json::json!({"status": words, "data": data, "error": error, "warnings": warnings});
            let answer = prometheus(&reply(200, &body.to_string()), &"<= 1".parse().unwrap());
            // Only numbers can pass or fail.
            prop_assert!(answer.verdict == Verdict::Inconclusive || words == "success");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<f64>().prop_map(Value::from),
            "[0-9.NaInf+-]{0,5}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                inner.prop_map(|inner| serde_json::json!({"metric": {}, "value": inner})),
            ]
        })
    }
}
