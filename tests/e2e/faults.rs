//! Every fault switch of the simulated Kibana: each is reported with its class, nothing crashes, and it heals by itself.

use serde_json::Value;

use crate::kit::{Fleet, Member, Setup};

const LAB: [Member; 1] = [("lab", "9.4.0", &["default"], &[])];

/// A fault, and the class under which a first install is reported.
type Fault = (&'static str, &'static str);

/// Kibana's HTTP interface.
const INTERFACE: [Fault; 6] = [
    (r#"{"api": {"mode": "down"}}"#, "KIBANA_DOWN"),
    (r#"{"api": {"mode": "html"}}"#, "KIBANA_DOWN"),
    (
        r#"{"api": {"mode": "status", "status": 500}}"#,
        "KIBANA_DOWN",
    ),
    (
        r#"{"api": {"mode": "status", "status": 429, "retry_after_secs": 1}}"#,
        "KIBANA_DOWN",
    ),
    (
        r#"{"api": {"mode": "status", "status": 503, "retry_after_secs": 1}}"#,
        "KIBANA_DOWN",
    ),
    (r#"{"api": {"mode": "half_closed"}}"#, "KIBANA_DOWN"),
];

/// What Kibana allows.
const RIGHTS: [Fault; 5] = [
    (r#"{"privilege": "none"}"#, "KIBANA_AUTH"),
    (r#"{"privilege": "read"}"#, "KIBANA_AUTH"),
    (r#"{"licence": "basic"}"#, "LICENCE"),
    (r#"{"type_disabled": true}"#, "REJECTED"),
    (r#"{"encryption_key_missing": true}"#, "ENCRYPTION"),
];

/// What the provider says.
const PROVIDER: [Fault; 4] = [
    (
        r#"{"provider": {"status": 429, "message": "You exceeded your current quota, please check your plan and billing details."}}"#,
        "QUOTA",
    ),
    (
        r#"{"provider": {"status": 404, "message": "The model `x` does not exist"}}"#,
        "MODEL",
    ),
    (r#"{"provider": {"mode": "network"}}"#, "NETWORK"),
    (r#"{"provider": {"status": 500}}"#, "PROVIDER"),
];

/// The simulated Kibana's deadlines are short here.
const PATIENT: [(&str, &str); 2] = [
    ("KEYFLEET_AGENT__KIBANA__TIMEOUT_SECS", "2"),
    ("KEYFLEET_AGENT__DRIFT__INTERVAL_SECS", "1"),
];

#[test]
fn every_fault_of_the_interface_has_its_class_and_heals() {
    each_has_its_class_and_heals("faults-interface", &INTERFACE);
}

#[test]
fn everything_that_kibana_refuses_has_its_class_and_heals() {
    each_has_its_class_and_heals("faults-rights", &RIGHTS);
}

#[test]
fn everything_that_the_provider_refuses_has_its_class_and_heals() {
    each_has_its_class_and_heals("faults-provider", &PROVIDER);
}

fn each_has_its_class_and_heals(name: &str, faults: &[Fault]) {
    let setup = Setup {
        agents: &PATIENT,
        ..Setup::USUAL
    };
    let fleet = Fleet::start_as(name, &LAB, &setup).unwrap();
    for (fault, class) in faults {
        fleet.break_kibana("lab", fault).unwrap();
        fleet.begin_apply().unwrap();
        let class = format!("FAILURE_CLASS_{class}");
        // What is rolled back stands in the rollout, no more at the binding.
        let said = || {
            let binding = fleet.binding("lab", "default").ok()?;
            let rollout = fleet
                .stack
                .json(&["rollout", "show", &fleet.rollout_id().ok()?])
                .ok()?;
            let mut told = [binding, rollout["targets"][0].clone()].into_iter();
            told.find(|told| told["failureClass"] == class.as_str())
        };
        look(&fleet);
        let told = fleet
            .wait_until(&format!("{fault} is {class}"), said)
            .unwrap();
        let text = told["text"].as_str().unwrap();
        assert!(text.len() > 20 && !text.contains("sk-"), "{fault}: {text}");
        fleet.break_kibana("lab", "").unwrap();
        look(&fleet);
        let phase = || {
            let rollout = fleet.rollout().ok()?;
            let phase = rollout["phase"].as_str()?.to_owned();
            let is_over = ["HALTED", "ROLLED_BACK", "COMPLETED", "PAUSED"]
                .iter()
                .any(|end| phase.ends_with(end));
            is_over.then_some(phase)
        };
        let ended = fleet
            .wait_until("the rollout is held or over", phase)
            .unwrap();
        if !ended.ends_with("COMPLETED") {
            fleet.say("retry", &fleet.rollout_id().unwrap()).unwrap();
        }
        fleet.wait_until_proven("1").unwrap();
        // Everything away again, for the next fault.
        let delete = [
            "delete",
            "placement",
            "everywhere",
            "--reason",
            "next",
            "--yes",
        ];
        fleet.keyfleet(&delete).unwrap().must_succeed().unwrap();
        fleet
            .wait_until("the connector is gone", || {
                (fleet.n_connectors("lab").ok()? == 0 && fleet.bindings().ok()?.is_empty())
                    .then_some(())
            })
            .unwrap();
    }
    assert_eq!(fleet.silent_bindings().unwrap(), Vec::<Value>::new());
}

/// What breaks a connector that works: the class that is told meanwhile, and whether Keyfleet repairs it by a write.
const LATER: [(&str, &str, bool); 5] = [
    (r#"{"undecryptable": true}"#, "ENCRYPTION", true),
    (r#"{"secrets_missing": true}"#, "CONFLICT", true),
    (r#"{"type_disabled": true}"#, "REJECTED", false),
    (r#"{"licence_expired": true}"#, "LICENCE", false),
    (r#"{"provider": {"status": 500}}"#, "PROVIDER", false),
];

#[test]
fn what_breaks_a_proven_connector_is_told_or_repaired_and_heals() {
    let setup = Setup {
        agents: &PATIENT,
        ..Setup::USUAL
    };
    let fleet = Fleet::start_as("faults-later", &LAB, &setup).unwrap();
    fleet
        .manifests
        .edit(
            "connector.yaml",
            "  config:",
            "  probe: {interval: 10s}\n  config:",
        )
        .unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    for (fault, class, is_repaired) in LATER {
        let before = fleet.writes_of("lab").unwrap();
        fleet.break_kibana("lab", fault).unwrap();
        look(&fleet);
        if is_repaired {
            let written = || (fleet.writes_of("lab").ok()?[1] == before[1] + 1).then_some(());
            fleet
                .wait_until(&format!("{fault} is repaired"), written)
                .unwrap();
        } else {
            let class = format!("FAILURE_CLASS_{class}");
            let told = || {
                let binding = fleet.binding("lab", "default").ok()?;
                (binding["failureClass"] == class.as_str()).then_some(())
            };
            fleet
                .wait_until(&format!("{fault} is {class}"), told)
                .unwrap();
        }
        fleet.break_kibana("lab", "").unwrap();
        look(&fleet);
        fleet.wait_until_proven("1").unwrap();
        let [created, updated, deleted] = before;
        let updated = updated + u64::from(is_repaired);
        assert_eq!(
            fleet.writes_of("lab").unwrap(),
            [created, updated, deleted],
            "{fault}"
        );
    }
    // An upgrade under us: everything is proven again, and nothing is written.
    let before = fleet.writes_of("lab").unwrap();
    let probes = fleet.requests("lab", "class=execute").unwrap();
    fleet
        .break_kibana("lab", r#"{"upgrade_to": "9.6.0"}"#)
        .unwrap();
    look(&fleet);
    let proven = || (fleet.requests("lab", "class=execute").ok()? > probes).then_some(());
    fleet
        .wait_until("proven by the new version", proven)
        .unwrap();
    fleet.wait_until_proven("1").unwrap();
    assert_eq!(fleet.writes_of("lab").unwrap(), before);
}

/// Has the agent look at its Kibana now, and not only within the minute.
fn look(fleet: &Fleet) {
    // It ends with an error where a check fails, which is what these tests are about.
    let _ = fleet
        .keyfleet(&["deployment", "preflight", "lab", "--fresh"])
        .unwrap();
}
