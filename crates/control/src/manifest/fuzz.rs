//! What an operator's file may hold by mistake or malice.

use std::time::{Duration, Instant};

use super::yaml::{AmountForm, Span};
use super::{Manifest, read};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");

/// What the reader looks for: kinds, fields, and YAML's own signs.
const WORDS: [&str; 66] = [
    "apiVersion: keyfleet/v1\n",
    "kind: Key\n",
    "kind: Connector\n",
    "kind: Placement\n",
    "kind: Strategy\n",
    "metadata:\n",
    "spec:\n",
    "name: ",
    "\n---\n",
    "\n...\n",
    "&a ",
    "*a",
    "<<: ",
    "!!binary ",
    "!!str ",
    "? ",
    ": ",
    "- ",
    "|\n",
    ">-\n",
    "{",
    "}",
    "[",
    "]",
    "\t",
    "# ",
    "'",
    "\"",
    "provider: ",
    "vault: ",
    "matchLabels: ",
    "matchExpressions: ",
    "waves: ",
    "sample: ",
    "soak: ",
    "concurrency: ",
    "99999999999999h",
    "4294967296%",
    "config: ",
    "apiUrl: ",
    "fields: ",
    "probe: ",
    "interval: ",
    "exceptSpaces: ",
    "adopt: ",
    "replaces: ",
    "spread: ",
    "approval: {required: ",
    "ramp: {factor: ",
    "1.5",
    "maxPerMinute: ",
    "windows: ",
    "cron: \"* * * * *\"",
    "duration: ",
    "timeZone: deployment",
    "blackouts: ",
    "from: 2026-12-24",
    "until: ",
    "gates: ",
    "http: {url: ",
    "prometheus: ",
    "failIf: \"> 1e400\"",
    "https://a",
    "catchUp: inWindow",
    "per: run",
    "minMatching: ",
];

/// The longest text of an error. It may repeat what was written, and nobody reads more.
const PROBLEM_CHARS_MAX: usize = 1_000;

#[test]
fn any_file_is_read_or_refused_with_its_line() {
    xtask::fuzz::run(format!("{CORPUS}/manifest"), &WORDS, |input| {
        let text = String::from_utf8_lossy(input);
        let lines = u64::try_from(text.split('\n').count()).unwrap();
        let is_in_file = |line: u64| (1..=lines + 1).contains(&line);
        match read("f.yaml", &text) {
            Ok(manifests) => {
                let place = |manifest: &Manifest| is_in_file(manifest.place.line);
                assert!(manifests.iter().all(place), "{manifests:?}");
            }
            Err(err) => {
                let (said, problem) = (err.to_string(), err.problem.as_str());
                assert!(is_in_file(err.place.line), "{said}");
                assert!(!problem.is_empty() && !said.contains('\n'), "{said}");
                assert!(said.chars().count() <= PROBLEM_CHARS_MAX, "{said}");
            }
        }
    });
}

#[test]
fn aliases_cannot_make_a_small_file_large() {
    let examples = std::fs::read_dir(format!("{CORPUS}/manifest")).unwrap();
    let bombs = examples.map(|file| file.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("laughs") || name.starts_with("deep") || name == "itself.yaml"
    });
    let mut refused = 0;
    for path in bombs {
        let text = std::fs::read_to_string(&path).unwrap();
        let begin = Instant::now();
        assert!(read("f.yaml", &text).is_err(), "{}", path.display());
        assert!(
            begin.elapsed() < Duration::from_secs(1),
            "{}",
            path.display()
        );
        refused += 1;
    }
    assert_eq!(refused, 7);
}

#[test]
fn a_selector_that_cannot_mean_what_it_says_is_refused() {
    let text = "apiVersion: keyfleet/v1
kind: Placement
metadata: {name: a}
spec:
  connectors: [a]
  selector: SELECTOR
";
    let cases = [
        ("{matchLabels: {env: prod}}", true),
        (
            "{matchExpressions: [{key: env, operator: In, values: [a, b]}]}",
            true,
        ),
        ("{matchExpressions: [{key: env, operator: Exists}]}", true),
        ("{matchLabels: {env: \"\"}}", false),
        ("{matchLabels: {env: pröd}}", false),
        ("{matchLabels: {\"a b\": c}}", false),
        ("{matchExpressions: [{key: env, operator: NotIn}]}", false),
        (
            "{matchExpressions: [{key: env, operator: In, values: []}]}",
            false,
        ),
        (
            "{matchExpressions: [{key: env, operator: Exists, values: [a]}]}",
            false,
        ),
    ];
    for (selector, is_good) in cases {
        let read = read("f.yaml", &text.replace("SELECTOR", selector));
        assert_eq!(read.is_ok(), is_good, "{selector}: {read:?}");
        let said = read.err().map(|err| err.to_string()).unwrap_or_default();
        assert!(
            is_good || said.starts_with("f.yaml:6: spec.selector"),
            "{said}"
        );
    }
}

#[test]
fn any_length_of_time_and_amount_is_read_or_refused() {
    xtask::fuzz::run(
        format!("{CORPUS}/words"),
        &["h", "m", "s", "d", "w", "%", ".", "-", " ", "P"],
        |input| {
            let text = String::from_utf8_lossy(input);
            if let Ok(Span(span)) = text.parse() {
                // What is accepted can be added to any moment that there is.
                let at = keyfleet_core::Timestamp::UNIX_EPOCH;
                assert!(at.saturating_add(span).is_ok(), "{text}: {span:?}");
            }
            if let Ok(AmountForm(amount)) = serde_json::from_value(text.into()) {
                // Any size of fleet has an amount of it.
                let _ = (amount.of(u32::MAX), amount.of_at_least_one(0));
            }
        },
    );
}
