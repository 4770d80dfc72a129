//! The fleet-wide stop: within a second nothing new leaves control, agents stop writing, and it survives a restart.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::kit::{FIVE, Fleet, KEY, Setup};

/// What may take so long at the most.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Agents that look for drift all the time.
const WATCHFUL: [(&str, &str); 1] = [("KEYFLEET_AGENT__DRIFT__INTERVAL_SECS", "1")];

/// Each write takes a while, so that the stop comes in the middle of some.
const SLOW: &str = r#"{"api": {"mode": "slow", "delay_ms": 700, "methods": ["PUT"]}}"#;

/// Waits as long as the stop may take.
fn let_it_take_hold(fleet: &Fleet) -> Result<()> {
    let since = Instant::now();
    fleet.wait_until("a second is over", || {
        (since.elapsed() > AT_ONCE).then_some(())
    })
}

#[test]
fn andon_stops_the_fleet_within_a_second_and_survives_a_restart() {
    let setup = Setup {
        key: KEY,
        control: &[],
        agents: &WATCHFUL,
        ..Setup::USUAL
    };
    let mut fleet = Fleet::start_as("andon", &FIVE, &setup).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    for (name, ..) in &FIVE {
        fleet.break_kibana(name, SLOW).unwrap();
    }
    fleet
        .manifests
        .edit("strategy.yaml", "soak: 2s", "soak: 0s")
        .unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    fleet.begin_apply().unwrap();
    // The canary is done and the wave behind it is at work: two of four.
    let some = || (fleet.count("archive", "PUT").ok()? > 0).then_some(());
    fleet.wait_until("the second wave writes", some).unwrap();
    let on = ["andon", "on", "--reason", "wrong model"];
    fleet.keyfleet(&on).unwrap().must_succeed().unwrap();
    let_it_take_hold(&fleet).unwrap();
    for (name, ..) in &FIVE {
        fleet.break_kibana(name, "").unwrap();
    }
    let writes = fleet.writes().unwrap();
    assert!(
        !fleet.all_have("gpt-5.2", "aQ3d").unwrap(),
        "it came in the middle"
    );
    assert_eq!(fleet.metric("keyfleet_andon").unwrap(), 1);

    // Drift is seen and left alone.
    let connector = fleet.connectors("lab").unwrap()[0].clone();
    let body = r#"{"name": "meddled", "config": {"apiProvider": "OpenAI", "apiUrl": "URL", "defaultModel": "other"}, "secrets": {"apiKey": "x"}}"#;
    let url = connector["config"]["apiUrl"].as_str().unwrap();
    fleet
        .meddle("lab", "PUT", &connector["id"], &body.replace("URL", url))
        .unwrap();
    fleet.wait_for_state("lab", "DRIFTED").unwrap();

    fleet.control.process.kill_hard().unwrap();
    fleet.control.process.restart().unwrap();
    fleet.wait_until_connected().unwrap();
    let_it_take_hold(&fleet).unwrap();
    assert_eq!(fleet.writes().unwrap(), writes + 1, "the person's own");
    let status = fleet.stack.json(&["status"]).unwrap();
    assert_eq!(status["andonState"]["reason"], "wrong model");
    let mut said = 0;
    for binding in fleet.bindings().unwrap() {
        let waiting = binding["waiting"].as_str().unwrap_or_default();
        if binding["lastProven"] != binding["goal"] || binding["state"] != "BINDING_STATE_PROVEN" {
            let words = ["andon is on", "admin since", "wrong model"];
            assert!(words.iter().all(|word| waiting.contains(word)), "{binding}");
            said += 1;
        }
    }
    assert!(said > 0, "somebody waits");

    // It goes on where it was; nobody is late, and the drift is corrected.
    let rollout = fleet.rollout_id().unwrap();
    let off = ["andon", "off", "--reason", "model is right"];
    fleet.keyfleet(&off).unwrap().must_succeed().unwrap();
    let watched = fleet
        .keyfleet(&["rollout", "watch", &rollout, "--timeout", "60s"])
        .unwrap();
    assert_eq!(watched.code, 0, "{watched:?}");
    let corrected = || fleet.all_have("gpt-5.2", "aQ3d").ok()?.then_some(());
    fleet
        .wait_until("the drift is corrected", corrected)
        .unwrap();
    assert!(fleet.is_proven("1").unwrap());
}
