//! What stands in the way of connectors, asked before anything is written: `keyfleet deployment preflight`.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::kit::{Fleet, Member};
use crate::refuse::LAB;

impl Fleet {
    /// The outcome and the sentence of each check, looked at now.
    fn preflight(&self) -> Result<Vec<(String, String, String)>> {
        let answer =
            self.stack
                .keyfleet(&["deployment", "preflight", "lab", "--fresh", "-o", "json"])?;
        let answer: Value = serde_json::from_str(&answer.out)?;
        let checks = answer["deployment"]["facts"]["checks"].as_array();
        let text =
            |check: &Value, field: &str| check[field].as_str().unwrap_or_default().to_owned();
        let read = |check: &Value| {
            let outcome = text(check, "outcome").replace("CHECK_OUTCOME_", "");
            (text(check, "name"), outcome, text(check, "sentence"))
        };
        Ok(checks.context("no checks")?.iter().map(read).collect())
    }

    fn check(&self, name: &str) -> Result<(String, String)> {
        let mut checks = self.preflight()?.into_iter();
        let found = checks.find(|check| check.0 == name);
        let (_, outcome, sentence) = found.with_context(|| format!("no check {name}"))?;
        Ok((outcome, sentence))
    }
}

#[test]
fn every_check_is_there_and_a_good_kibana_passes() {
    let fleet = Fleet::start("preflight", &LAB).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let checks = fleet.preflight().unwrap();
    let names: Vec<&str> = checks.iter().map(|check| check.0.as_str()).collect();
    let expected = [
        "reachability",
        "tls",
        "credentials",
        "version",
        "flavour",
        "clock",
        "encryption-key",
        "licence",
        "connector-types",
        "spaces",
        "privileges",
        "elasticsearch",
    ];
    assert_eq!(names, expected);
    assert!(
        checks
            .iter()
            .all(|check| check.1 != "FAILED" && !check.2.is_empty()),
        "{checks:?}"
    );
    let done = fleet
        .keyfleet(&["deployment", "preflight", "lab"])
        .unwrap()
        .must_succeed()
        .unwrap();
    assert!(
        done.out.contains("feature_actions.all"),
        "the role to create: {}",
        done.out
    );
    assert!(
        done.out.lines().all(|line| line.chars().count() <= 120),
        "{}",
        done.out
    );
}

#[test]
fn each_thing_that_stands_in_the_way_is_named_and_fails_the_command() {
    let fleet = Fleet::start("preflight-bad", &LAB).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    for (faults, name, outcome, words) in [
        (
            r#"{"privilege": "read"}"#,
            "privileges",
            "FAILED",
            "default",
        ),
        (
            r#"{"encryption_key_missing": true}"#,
            "encryption-key",
            "FAILED",
            "xpack.encryptedSavedObjects",
        ),
        (r#"{"licence": "basic"}"#, "licence", "FAILED", "enterprise"),
        (
            r#"{"type_disabled": true}"#,
            "connector-types",
            "FAILED",
            "enabledActionTypes",
        ),
        (
            r#"{"clock_skew_secs": -900}"#,
            "clock",
            "WARNING",
            "900 s behind",
        ),
        (
            r#"{"api": {"mode": "down"}}"#,
            "reachability",
            "FAILED",
            "Kibana",
        ),
    ] {
        fleet.break_kibana("lab", faults).unwrap();
        let (found, sentence) = fleet.check(name).unwrap();
        assert_eq!(found, outcome, "{faults}: {sentence}");
        assert!(sentence.contains(words), "{faults}: {sentence}");
        let done = fleet.keyfleet(&["deployment", "preflight", "lab"]).unwrap();
        assert_eq!(done.code == 0, outcome == "WARNING", "{faults}: {done:?}");
        fleet.break_kibana("lab", "").unwrap();
    }
    let (found, sentence) = fleet.check("reachability").unwrap();
    assert_eq!(found, "OK", "{sentence}");
}

const BOTH: [Member; 1] = [("one", "9.4.0", &["default"], &[])];

#[test]
fn two_agents_on_one_kibana_are_both_told() {
    let mut fleet = Fleet::start("rivals", &BOTH).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let join_token = fleet.stack.join_token(1).unwrap();
    let options = xtask::fleet::AgentOptions {
        name: "two",
        labels: &[],
        api_key: "kibana-key-of-one",
        join_token: &join_token,
        drift_interval_secs: 300,
    };
    let kibana = fleet.kibana("one").unwrap();
    let agent = fleet.stack.agent(&fleet.control, kibana, &options).unwrap();
    fleet.agents.push(("two", agent));
    let said = |name: &str| {
        let binding = fleet.binding(name, "default").ok()?;
        let waiting = binding["waiting"].as_str()?;
        (waiting.contains("one") && waiting.contains("two")).then_some(())
    };
    fleet
        .wait_until("the newer one waits", || said("two"))
        .unwrap();
    // It may have been quicker than what it tells of its Kibana; from here on neither gets anything.
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();
    let before = fleet.writes().unwrap();
    // A change reaches neither, and both say why.
    fleet
        .manifests
        .edit(
            "connector.yaml",
            "displayName: OpenAI",
            "displayName: Our OpenAI",
        )
        .unwrap();
    fleet.begin_apply().unwrap();
    fleet
        .wait_until("the older one waits too", || said("one"))
        .unwrap();
    assert_eq!(fleet.writes().unwrap(), before);
    let remove = [
        "deployment",
        "remove",
        "two",
        "--reason",
        "one agent is enough",
        "--yes",
    ];
    fleet.keyfleet(&remove).unwrap().must_succeed().unwrap();
    let written = || (fleet.writes().ok()? == before + 1).then_some(());
    fleet.wait_until("the change goes on", written).unwrap();
    fleet.wait_until_proven("1").unwrap();
    assert_eq!(fleet.writes().unwrap(), before + 1, "the change, once");
}
