//! What fails stops at the canary, says why, and goes back.

use serde_json::Value;

use crate::ask::THREE;
use crate::kit::{FIVE, Fleet, KEY};

const BAD: &str = "sk-proj-e2e-9999999999999999999999999999999999bAd0";
const GOOD: &str = "sk-proj-e2e-2222222222222222222222222222222222gO0d";

const NONE: Vec<Value> = Vec::new();

fn reason(fleet: &Fleet) -> String {
    fleet.rollout().unwrap()["reason"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn a_bad_key_halts_at_the_canary_and_goes_back_and_a_good_one_goes_out() {
    let fleet = Fleet::start_applied_blind("bad-key", &FIVE).unwrap();
    let first = fleet.rollout_id().unwrap();

    assert_eq!(fleet.write_key(BAD).unwrap(), 2);
    let rotation = fleet.wait_for_rollout_after(&first).unwrap();
    let watched = fleet
        .keyfleet(&["rollout", "watch", &rotation, "--timeout", "60s"])
        .unwrap();
    assert_eq!(watched.code, 6, "{watched:?}");
    let reason = reason(&fleet);
    assert!(
        reason.contains("wave canary") && reason.contains("AUTH"),
        "{reason}"
    );
    assert!(
        !reason.contains("EGRESS"),
        "control's own call failed too: {reason}"
    );
    assert!(fleet.is_proven("1").unwrap(), "{:?}", fleet.bindings());
    assert_eq!(
        fleet.key_version(1).unwrap(),
        ("KEY_STATE_CURRENT".to_owned(), 7)
    );
    assert_eq!(
        fleet.key_version(2).unwrap(),
        ("KEY_STATE_ABANDONED".to_owned(), 0)
    );
    for name in ["archive", "shop", "soc", "web"] {
        assert_eq!(fleet.count(name, "PUT").unwrap(), 0, "{name} was touched");
    }
    assert_eq!(fleet.writes_of("lab").unwrap(), [1, 2, 0], "there and back");

    fleet.accept_key(GOOD).unwrap();
    assert_eq!(fleet.write_key(GOOD).unwrap(), 3);
    fleet.wait_until_proven("3").unwrap();
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();
    assert!(fleet.all_have("gpt-5.4-mini", "gO0d").unwrap());
    assert_eq!(fleet.writes_of("lab").unwrap(), [1, 3, 0]);
    assert_eq!(fleet.writes_of("soc").unwrap(), [3, 3, 0]);
    assert_eq!(
        fleet.key_version(1).unwrap(),
        ("KEY_STATE_PREVIOUS".to_owned(), 0)
    );
    assert_eq!(
        fleet.key_version(2).unwrap(),
        ("KEY_STATE_ABANDONED".to_owned(), 0)
    );
    assert_eq!(
        fleet.key_version(3).unwrap(),
        ("KEY_STATE_CURRENT".to_owned(), 7)
    );
}

#[test]
fn one_refused_way_out_is_egress_and_the_revision_waits_for_a_retry() {
    let fleet = Fleet::start_applied("egress", &THREE).unwrap();
    fleet
        .break_kibana(
            "lab",
            r#"{"provider": {"status": 401, "model": "gpt-5.2"}}"#,
        )
        .unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    let halted = fleet.apply().unwrap();
    assert_eq!(halted.code, 6, "{halted:?}");
    let why = reason(&fleet);
    assert!(why.contains("EGRESS") && !why.contains("AUTH"), "{why}");
    let rollout = fleet.rollout_id().unwrap();
    let shown = fleet
        .keyfleet(&["rollout", "show", &rollout])
        .unwrap()
        .must_succeed()
        .unwrap();
    assert!(
        shown
            .out
            .contains("the same key works from the control service"),
        "{}",
        shown.out
    );
    assert!(
        fleet.all_have("gpt-5.4-mini", "aQ3d").unwrap(),
        "{:?}",
        fleet.all_connectors()
    );
    assert!(fleet.is_proven("1").unwrap());
    assert_eq!(
        fleet.key_version(1).unwrap().0,
        "KEY_STATE_CURRENT",
        "the key is not to blame"
    );

    // The same again is not tried again by itself.
    let again = fleet.apply().unwrap().must_succeed().unwrap();
    let said = format!("{}{}", again.out, again.err);
    assert!(said.contains("rolled this content back"), "{said}");
    assert!(said.contains("keyfleet rollout retry"), "{said}");
    assert_eq!(fleet.rollout_id().unwrap(), rollout, "nothing is started");
    for name in ["shop", "web"] {
        assert_eq!(fleet.writes_of(name).unwrap(), [1, 0, 0], "{name}");
    }

    fleet.break_kibana("lab", "").unwrap();
    fleet.say("retry", &rollout).unwrap();
    let retried = fleet.wait_for_rollout_after(&rollout).unwrap();
    let watched = fleet
        .keyfleet(&["rollout", "watch", &retried, "--timeout", "60s"])
        .unwrap();
    assert_eq!(watched.code, 0, "{watched:?}");
    assert!(fleet.all_have("gpt-5.2", "aQ3d").unwrap());
    assert!(fleet.is_proven("1").unwrap());
    assert_eq!(fleet.apply().unwrap().code, 0);
    assert_eq!(
        fleet.rollout_id().unwrap(),
        retried,
        "it is what the manifests say"
    );
}

#[test]
fn an_unknown_model_stops_at_the_canary() {
    let fleet = Fleet::start_applied("model", &THREE).unwrap();
    fleet
        .manifests
        .edit(
            "connector.yaml",
            "defaultModel: gpt-5.4-mini",
            "defaultModel: gpt-9",
        )
        .unwrap();
    let halted = fleet.apply().unwrap();
    assert_eq!(halted.code, 6, "{halted:?}");
    assert!(reason(&fleet).contains("MODEL"), "{}", reason(&fleet));
    assert!(fleet.is_proven("1").unwrap());
    assert!(fleet.all_have("gpt-5.4-mini", "aQ3d").unwrap());
    for name in ["shop", "web"] {
        assert_eq!(fleet.writes_of(name).unwrap(), [1, 0, 0], "{name}");
    }
    assert_eq!(fleet.key_version(1).unwrap().0, "KEY_STATE_CURRENT");

    // Another model is another revision: it goes out without a word about the one that failed.
    fleet
        .manifests
        .edit(
            "connector.yaml",
            "defaultModel: gpt-9",
            "defaultModel: gpt-5.2",
        )
        .unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    assert!(fleet.all_have("gpt-5.2", "aQ3d").unwrap());
}

#[test]
fn a_first_install_with_a_bad_key_leaves_nothing_and_a_good_key_installs_by_itself() {
    let fleet = Fleet::start("first-bad", &THREE).unwrap();
    fleet
        .sim(&["keys", "--url", &fleet.openai.url, "revoke", KEY])
        .unwrap();
    let halted = fleet.apply().unwrap();
    assert_eq!(halted.code, 6, "{halted:?}");
    assert!(reason(&fleet).contains("AUTH"), "{}", reason(&fleet));
    assert_eq!(
        fleet.all_connectors().unwrap(),
        Vec::new(),
        "the connector was taken away again"
    );
    assert_eq!(fleet.writes_of("lab").unwrap(), [1, 0, 1]);
    assert_eq!(
        fleet.key_version(1).unwrap(),
        ("KEY_STATE_ABANDONED".to_owned(), 0)
    );
    let bindings = fleet.bindings().unwrap();
    assert_eq!(bindings.len(), 3);
    for binding in &bindings {
        let waiting = binding["waiting"].as_str().unwrap();
        assert!(waiting.contains("key openai"), "{binding}");
        assert_eq!(binding["state"], "BINDING_STATE_WAITING", "{binding}");
    }

    fleet.accept_key(GOOD).unwrap();
    fleet.write_key(GOOD).unwrap();
    fleet.wait_until_proven("2").unwrap();
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();
    assert!(fleet.all_have("gpt-5.4-mini", "gO0d").unwrap());
    assert_eq!(
        fleet.key_version(2).unwrap(),
        ("KEY_STATE_CURRENT".to_owned(), 3)
    );
}

#[test]
fn a_canary_that_was_broken_before_holds_the_rollout_until_a_person_resumes() {
    let fleet = Fleet::start_applied("broken-before", &THREE).unwrap();
    fleet
        .break_kibana("lab", r#"{"provider": {"status": 401}}"#)
        .unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    fleet.begin_apply().unwrap();
    let rollout = fleet.rollout_id().unwrap();
    fleet
        .wait_until("the rollout says that the canary was broken before", || {
            let rollout = fleet.rollout().ok()?;
            let waiting = rollout["waiting"].as_array()?;
            let says = |w: &Value| {
                w["sentence"]
                    .as_str()
                    .is_some_and(|s| s.contains("as before"))
            };
            waiting.iter().any(says).then_some(())
        })
        .unwrap();
    assert_eq!(
        fleet.phase_of(&rollout).unwrap(),
        "ROLLOUT_PHASE_PROGRESSING"
    );
    assert_eq!(fleet.silent_bindings().unwrap(), NONE);
    for name in ["shop", "web"] {
        assert_eq!(fleet.writes_of(name).unwrap(), [1, 0, 0], "{name}");
    }
    fleet.say("resume", &rollout).unwrap();
    let watched = fleet
        .keyfleet(&["rollout", "watch", &rollout, "--timeout", "60s"])
        .unwrap();
    assert_eq!(watched.code, 0, "{watched:?}");
    for name in ["shop", "web"] {
        assert_eq!(fleet.writes_of(name).unwrap(), [1, 1, 0], "{name}");
    }
}

#[test]
fn a_failure_in_the_second_wave_brings_the_canary_back_too() {
    let fleet = Fleet::start_applied("second-wave", &FIVE).unwrap();
    fleet
        .break_kibana(
            "archive",
            r#"{"provider": {"status": 401, "model": "gpt-5.2"}}"#,
        )
        .unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    let halted = fleet.apply().unwrap();
    assert_eq!(halted.code, 6, "{halted:?}");
    let why = reason(&fleet);
    assert!(
        why.contains("wave fleet") && why.contains("EGRESS"),
        "{why}"
    );
    assert!(
        fleet.all_have("gpt-5.4-mini", "aQ3d").unwrap(),
        "{:?}",
        fleet.all_connectors()
    );
    assert!(fleet.is_proven("1").unwrap());
    assert_eq!(fleet.writes_of("lab").unwrap(), [1, 2, 0], "there and back");
    assert_eq!(
        fleet.writes_of("archive").unwrap(),
        [1, 2, 0],
        "there and back"
    );
    assert_eq!(fleet.silent_bindings().unwrap(), NONE);
}

/// A change of the model and a new key meet in one rollout; what is not to blame for its end goes out by itself.
fn meet(name: &str, model: &str, key: &str) -> Fleet {
    let fleet = Fleet::start_applied_blind(name, &THREE).unwrap();
    fleet.accept_key(GOOD).unwrap();
    // The canary's Kibana is slow: the first rollout is still there when the second change comes.
    let slow = r#"{"api": {"mode": "slow", "delay_ms": 3000, "methods": ["PUT"], "remaining": 1}}"#;
    fleet.break_kibana("lab", slow).unwrap();
    let model = format!("defaultModel: {model}");
    fleet
        .manifests
        .edit("connector.yaml", "defaultModel: gpt-5.4-mini", &model)
        .unwrap();
    fleet.begin_apply().unwrap();
    let first = fleet.rollout_id().unwrap();
    fleet.write_key(key).unwrap();
    fleet.wait_for_rollout_after(&first).unwrap();
    assert_eq!(fleet.phase_of(&first).unwrap(), "ROLLOUT_PHASE_SUPERSEDED");
    fleet
}

#[test]
fn a_bad_model_does_not_hold_a_good_key_up() {
    let fleet = meet("bad-model", "gpt-9", GOOD);
    fleet.wait_until_proven("2").unwrap();
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();
    assert!(
        fleet.all_have("gpt-5.4-mini", "gO0d").unwrap(),
        "{:?}",
        fleet.all_connectors()
    );
    assert_eq!(
        fleet.key_version(2).unwrap(),
        ("KEY_STATE_CURRENT".to_owned(), 3)
    );
    for name in ["shop", "web"] {
        assert_eq!(
            fleet.writes_of(name).unwrap(),
            [1, 1, 0],
            "{name} got the key only"
        );
    }
}

#[test]
fn a_bad_key_does_not_hold_a_good_model_up() {
    let fleet = meet("bad-key-beside", "gpt-5.2", BAD);
    fleet
        .wait_until("every connector has the new model", || {
            fleet.all_have("gpt-5.2", "aQ3d").ok()?.then_some(())
        })
        .unwrap();
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();
    assert!(fleet.is_proven("1").unwrap());
    assert_eq!(
        fleet.key_version(1).unwrap(),
        ("KEY_STATE_CURRENT".to_owned(), 3)
    );
    assert_eq!(
        fleet.key_version(2).unwrap(),
        ("KEY_STATE_ABANDONED".to_owned(), 0)
    );
    for name in ["shop", "web"] {
        assert_eq!(
            fleet.writes_of(name).unwrap(),
            [1, 1, 0],
            "{name} got the model only"
        );
    }
}
