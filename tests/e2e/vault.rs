//! Control logs in to Vault by itself, again and again, and says what Vault does not give.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use xtask::fleet::AgentOptions;
use xtask::manifests::Manifests;
use xtask::stack::Stack;
use xtask::wait;

use crate::kit::{Fleet, KEY, PATIENCE};

/// Longer than a token may live at all, so that control has to log in anew.
const TOKEN_MAX_TTL: Duration = Duration::from_secs(6);

#[test]
fn with_approle_keys_go_on_beyond_the_life_of_a_token() {
    let stack = Stack::start_quick("e2e-approle-").unwrap();
    stack.bao.kv_put("keyfleet/openai", "api_key", KEY).unwrap();
    let openai = stack.openai("openai", &[KEY]).unwrap();
    // The policy is made by the first set-up of control; AppRole needs only its name.
    let role = stack
        .bao
        .approle("keyfleet", "keyfleet", "3s", "6s")
        .unwrap();
    let secret_id_file = stack.dir().join("secret-id");
    fs::write(&secret_id_file, &role.secret_id).unwrap();
    let secret_id_file = secret_id_file.to_string_lossy();
    let control = stack
        .control(&[
            ("KEYFLEET_CONTROL__VAULT__AUTH", "approle"),
            ("KEYFLEET_CONTROL__VAULT__APPROLE_ROLE_ID", &role.role_id),
            (
                "KEYFLEET_CONTROL__VAULT__APPROLE_SECRET_ID_FILE",
                &secret_id_file,
            ),
        ])
        .unwrap();
    let kibana = stack
        .kibana("kibana", "9.4.0", &["default"], "kibana-key")
        .unwrap();
    let options = AgentOptions {
        name: "web",
        labels: &[],
        api_key: "kibana-key",
        join_token: &stack.join_token(1).unwrap(),
        drift_interval_secs: 300,
    };
    let _agent = stack.agent(&control, &kibana, &options).unwrap();
    let manifests = Manifests::copy(&stack.dir().join("manifests"), &openai.url).unwrap();
    let dir = manifests.dir().to_string_lossy();
    let begin = Instant::now();
    stack
        .keyfleet(&["apply", "-f", &dir, "--wait"])
        .unwrap()
        .must_succeed()
        .unwrap();

    let mut version = 1;
    while begin.elapsed() < TOKEN_MAX_TTL * 2 {
        version = stack.bao.kv_put("keyfleet/openai", "api_key", KEY).unwrap();
        wait_until_proven(&stack, version);
    }
    assert!(version > 1);

    stack.bao.kv_destroy("keyfleet/openai", version).unwrap();
    let newer = stack.bao.kv_put("keyfleet/openai", "api_key", KEY).unwrap();
    stack.bao.kv_delete("keyfleet/openai", newer).unwrap();
    let status = wait::until(PATIENCE, || {
        let keys = stack.json(&["key", "list"]).ok()?;
        let status = keys["keys"][0]["vaultStatus"].as_str()?.to_owned();
        (status != "ok").then_some(status)
    });
    let status = status.expect("a deleted version is told");
    assert!(status.contains("deleted"), "{status}");
    wait_until_proven(&stack, version);
}

fn wait_until_proven(stack: &Stack, version: u64) {
    let version = version.to_string();
    let proven = wait::until(PATIENCE, || {
        let answer = stack.json(&["get", "bindings"]).ok()?;
        let bindings = answer["bindings"].as_array()?;
        let is_proven = |binding: &Value| {
            binding["state"] == "BINDING_STATE_PROVEN"
                && binding["lastProven"]["keyVersion"] == version.as_str()
        };
        (!bindings.is_empty() && bindings.iter().all(is_proven)).then_some(())
    });
    let logs = stack.dir().display();
    proven.unwrap_or_else(|| panic!("version {version} was never proven (logs: {logs})"));
}

#[test]
fn what_vault_has_lost_is_told_beforehand_and_a_rollback_to_it_becomes_a_halt() {
    let members = [("lab", "9.4.0", &["default"][..], &[("tier", "canary")][..])];
    let fleet = Fleet::start_applied_blind("lost", &members).unwrap();
    fleet.stack.bao.kv_destroy("keyfleet/openai", 1).unwrap();
    fleet
        .wait_until("the loss is noticed", || {
            let keys = fleet.stack.json(&["key", "list"]).ok()?;
            (keys["keys"][0]["vaultStatus"] != "ok").then_some(())
        })
        .unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    let dir = fleet.manifests.dir().to_string_lossy().into_owned();
    let plan = fleet.stack.json(&["plan", "-f", &dir]).unwrap();
    let lost = "Vault has the value of key openai v1 no more";
    assert_eq!(
        plan["deployments"][0]["bindings"][0]["cannotRollBack"], lost,
        "{plan:#}"
    );

    // A key that the provider does not know: going back is not possible, so the rollout stands still.
    let bad = KEY.replace("aQ3d", "bad0");
    fleet
        .stack
        .bao
        .kv_put("keyfleet/openai", "api_key", &bad)
        .unwrap();
    let rollout = fleet
        .wait_until("the bad key halts", || {
            let rollout = fleet.rollout().ok()?;
            (rollout["phase"] == "ROLLOUT_PHASE_HALTED").then_some(rollout)
        })
        .unwrap();
    let reason = rollout["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("AUTH") && reason.contains("roll"),
        "{reason}"
    );
}
