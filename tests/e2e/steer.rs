//! What operators say to a rollout, and what becomes of an agent that is away.

use serde_json::Value;

use crate::ask::THREE;
use crate::kit::Fleet;

const NONE: Vec<Value> = Vec::new();

/// Starts a change of the model that stays at the canary until somebody says a verb; returns the rollout.
fn change_that_soaks(fleet: &Fleet, from: &str, to: &str) -> String {
    fleet
        .manifests
        .edit("strategy.yaml", "soak: 2s", "soak: 10m")
        .unwrap();
    fleet.manifests.edit("connector.yaml", from, to).unwrap();
    fleet.begin_apply().unwrap();
    fleet
        .manifests
        .edit("strategy.yaml", "soak: 10m", "soak: 2s")
        .unwrap();
    fleet.rollout_id().unwrap()
}

#[test]
fn pause_holds_further_offers_and_resume_goes_on() {
    let fleet = Fleet::start_applied("pause", &THREE).unwrap();
    // The canary takes its time, so that the pause comes while it is in flight.
    fleet
        .break_kibana(
            "lab",
            r#"{"api": {"mode": "slow", "delay_ms": 2000, "methods": ["PUT"]}}"#,
        )
        .unwrap();
    fleet
        .manifests
        .edit("strategy.yaml", "soak: 2s", "soak: 0s")
        .unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    fleet.begin_apply().unwrap();
    let rollout = fleet.rollout_id().unwrap();
    fleet
        .wait_for_requests("lab", "method=PUT&class=connector", 1)
        .unwrap();
    let paused = fleet.say("pause", &rollout).unwrap();
    assert!(paused.out.contains("PAUSED"), "{paused:?}");
    assert_eq!(fleet.silent_bindings().unwrap(), NONE);
    for name in ["shop", "web"] {
        let waiting = fleet.binding(name, "default").unwrap()["waiting"].to_string();
        assert!(
            waiting.contains("paused") && waiting.contains("the test wants it"),
            "{waiting}"
        );
    }

    // What is in flight ends; nothing follows it.
    fleet.wait_for_state("lab", "PROVEN").unwrap();
    assert_eq!(fleet.phase_of(&rollout).unwrap(), "ROLLOUT_PHASE_PAUSED");
    let held = fleet
        .keyfleet(&["rollout", "watch", &rollout, "--exit-on-halt"])
        .unwrap();
    assert_eq!(held.code, 5, "{held:?}");
    for name in ["shop", "web"] {
        assert_eq!(fleet.writes_of(name).unwrap(), [1, 0, 0], "{name}");
    }

    fleet.say("resume", &rollout).unwrap();
    let watched = fleet
        .keyfleet(&["rollout", "watch", &rollout, "--timeout", "60s"])
        .unwrap();
    assert_eq!(watched.code, 0, "{watched:?}");
    assert!(fleet.all_have("gpt-5.2", "aQ3d").unwrap());
}

#[test]
fn abort_leaves_the_rest_as_it_is_and_says_why_until_a_retry() {
    let fleet = Fleet::start_applied("abort", &THREE).unwrap();
    let rollout = change_that_soaks(&fleet, "gpt-5.4-mini", "gpt-5.2");
    fleet.wait_for_state("lab", "PROVEN").unwrap();
    assert_eq!(fleet.silent_bindings().unwrap(), NONE);
    fleet.say("abort", &rollout).unwrap();
    let watched = fleet.keyfleet(&["rollout", "watch", &rollout]).unwrap();
    assert_eq!(watched.code, 7, "{watched:?}");
    for name in ["shop", "web"] {
        let waiting = fleet.binding(name, "default").unwrap()["waiting"].to_string();
        assert!(
            waiting.contains("aborted") && waiting.contains("rollout retry"),
            "{waiting}"
        );
        assert_eq!(fleet.writes_of(name).unwrap(), [1, 0, 0], "{name}");
    }
    assert_eq!(
        fleet.connectors("lab").unwrap()[0]["config"]["defaultModel"],
        "gpt-5.2"
    );
    assert_eq!(
        fleet.connectors("web").unwrap()[0]["config"]["defaultModel"],
        "gpt-5.4-mini"
    );

    // The strategy has its short soak again; the same connector starts nothing by itself.
    fleet.begin_apply().unwrap();
    assert_eq!(fleet.rollout_id().unwrap(), rollout);
    fleet.say("retry", &rollout).unwrap();
    let retried = fleet.wait_for_rollout_after(&rollout).unwrap();
    let watched = fleet
        .keyfleet(&["rollout", "watch", &retried, "--timeout", "60s"])
        .unwrap();
    assert_eq!(watched.code, 0, "{watched:?}");
    assert!(fleet.all_have("gpt-5.2", "aQ3d").unwrap());
    assert_eq!(
        fleet.writes_of("lab").unwrap(),
        [1, 1, 0],
        "the canary was done already"
    );
}

#[test]
fn rollback_returns_what_was_touched_and_nothing_else() {
    let fleet = Fleet::start_applied("rollback", &THREE).unwrap();
    let rollout = change_that_soaks(&fleet, "gpt-5.4-mini", "gpt-5.2");
    fleet.wait_for_state("lab", "PROVEN").unwrap();
    fleet.say("rollback", &rollout).unwrap();
    let watched = fleet
        .keyfleet(&["rollout", "watch", &rollout, "--timeout", "60s"])
        .unwrap();
    assert_eq!(watched.code, 6, "{watched:?}");
    assert!(
        fleet.all_have("gpt-5.4-mini", "aQ3d").unwrap(),
        "{:?}",
        fleet.all_connectors()
    );
    assert!(fleet.is_proven("1").unwrap());
    assert_eq!(fleet.writes_of("lab").unwrap(), [1, 2, 0], "there and back");
    for name in ["shop", "web"] {
        assert_eq!(fleet.writes_of(name).unwrap(), [1, 0, 0], "{name}");
    }
    // A verb after the end is refused with the reason.
    let late = fleet.keyfleet(&["rollout", "pause", &rollout]).unwrap();
    assert_eq!(late.code, 1, "{late:?}");
    assert!(late.err.contains("ROLLED_BACK"), "{late:?}");
    let again = fleet.apply().unwrap().must_succeed().unwrap();
    assert!(
        format!("{}{}", again.out, again.err).contains("rolled this content back"),
        "{again:?}"
    );
    assert_eq!(fleet.rollout_id().unwrap(), rollout);
}

#[test]
fn an_agent_that_is_away_is_named_and_gets_the_change_when_it_returns() {
    let mut fleet = Fleet::start_applied("away", &THREE).unwrap();
    fleet.agent_mut("web").unwrap().kill_hard().unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    fleet.begin_apply().unwrap();
    let rollout = fleet.rollout_id().unwrap();
    fleet.wait_for_state("shop", "PROVEN").unwrap();
    fleet
        .wait_until("the rollout says who is away", || {
            let waiting = fleet.binding("web", "default").ok()?["waiting"]
                .as_str()?
                .to_owned();
            waiting.contains("not connected").then_some(())
        })
        .unwrap();
    assert_eq!(fleet.silent_bindings().unwrap(), NONE);
    fleet.agent_mut("web").unwrap().restart().unwrap();
    let watched = fleet
        .keyfleet(&["rollout", "watch", &rollout, "--timeout", "60s"])
        .unwrap();
    assert_eq!(watched.code, 0, "{watched:?}");
    assert!(fleet.all_have("gpt-5.2", "aQ3d").unwrap());
    for name in ["lab", "shop", "web"] {
        assert_eq!(fleet.writes_of(name).unwrap(), [1, 1, 0], "{name}");
    }
}

#[test]
fn what_a_person_can_repair_halts_and_a_retry_goes_on() {
    let fleet = Fleet::start_applied("retry", &THREE).unwrap();
    let refuse = r#"{"api": {"mode": "status", "status": 403, "methods": ["PUT"]}}"#;
    fleet.break_kibana("lab", refuse).unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    let halted = fleet.apply().unwrap();
    assert_eq!(halted.code, 5, "{halted:?}");
    let why = fleet.rollout().unwrap()["reason"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(why.contains("KIBANA_AUTH") && why.contains("halt"), "{why}");
    assert_eq!(fleet.silent_bindings().unwrap(), NONE);
    for name in ["shop", "web"] {
        assert_eq!(fleet.writes_of(name).unwrap(), [1, 0, 0], "{name}");
    }
    fleet.break_kibana("lab", "").unwrap();
    let rollout = fleet.rollout_id().unwrap();
    fleet.say("retry", &rollout).unwrap();
    let watched = fleet
        .keyfleet(&["rollout", "watch", &rollout, "--timeout", "60s"])
        .unwrap();
    assert_eq!(watched.code, 0, "{watched:?}");
    assert!(fleet.all_have("gpt-5.2", "aQ3d").unwrap());
}

#[test]
fn an_agent_that_is_away_during_a_rollback_goes_back_when_it_returns() {
    let mut fleet = Fleet::start_applied("away-back", &THREE).unwrap();
    let rollout = change_that_soaks(&fleet, "gpt-5.4-mini", "gpt-5.2");
    fleet.wait_for_state("lab", "PROVEN").unwrap();
    fleet.agent_mut("lab").unwrap().kill_hard().unwrap();
    fleet.say("rollback", &rollout).unwrap();
    fleet
        .wait_until("the binding says that its agent is away", || {
            let waiting = fleet.binding("lab", "default").ok()?["waiting"]
                .as_str()?
                .to_owned();
            (waiting.contains("not connected") || waiting.contains("offline")).then_some(())
        })
        .unwrap();
    assert_eq!(fleet.silent_bindings().unwrap(), NONE);
    fleet.agent_mut("lab").unwrap().restart().unwrap();
    fleet.wait_until_proven("1").unwrap();
    fleet
        .wait_until("every connector has the old model", || {
            fleet.all_have("gpt-5.4-mini", "aQ3d").ok()?.then_some(())
        })
        .unwrap();
    fleet.wait_for_phase("ROLLOUT_PHASE_ROLLED_BACK").unwrap();
    assert_eq!(fleet.writes_of("lab").unwrap(), [1, 2, 0], "there and back");
}

#[test]
fn a_first_install_that_is_aborted_or_rolled_back_says_where_it_stands() {
    let fleet = Fleet::start("first-abort", &THREE).unwrap();
    fleet
        .manifests
        .edit("strategy.yaml", "soak: 2s", "soak: 10m")
        .unwrap();
    fleet.begin_apply().unwrap();
    fleet.wait_for_state("lab", "PROVEN").unwrap();
    let first = fleet.rollout_id().unwrap();
    fleet.say("abort", &first).unwrap();
    assert_eq!(fleet.silent_bindings().unwrap(), NONE);
    assert_eq!(fleet.all_connectors().unwrap().len(), 1);

    // Another name is a new change: it takes up what was left, and is rolled back to what was there before.
    fleet
        .manifests
        .edit("connector.yaml", "OpenAI gpt-5.4-mini", "Assistant of all")
        .unwrap();
    fleet.begin_apply().unwrap();
    fleet
        .wait_until("the canary has the new name", || {
            let name = fleet.connectors("lab").ok()?[0]["name"].clone();
            let is_proven =
                fleet.binding("lab", "default").ok()?["state"] == "BINDING_STATE_PROVEN";
            (name == "Assistant of all" && is_proven).then_some(())
        })
        .unwrap();
    let second = fleet.rollout_id().unwrap();
    assert_ne!(first, second);
    fleet.say("rollback", &second).unwrap();
    fleet
        .wait_until("the rollback is done", || {
            (fleet.phase_of(&second).ok()? == "ROLLOUT_PHASE_ROLLED_BACK").then_some(())
        })
        .unwrap();
    assert_eq!(
        fleet.connectors("lab").unwrap()[0]["name"],
        "OpenAI gpt-5.4-mini"
    );
    assert_eq!(fleet.silent_bindings().unwrap(), NONE);
}
