//! A new key in Vault goes out by itself; changes that meet converge; renaming and removing touch what they must.

use crate::ask::THREE;
use crate::kit::{FIVE, Fleet, Member};

const SECOND: &str = "sk-proj-e2e-1111111111111111111111111111111111zR7k";
const SECOND_TAIL: &str = "zR7k";
const THIRD: &str = "sk-proj-e2e-33333333333333333333333333333333333rdK";

/// The canary, a Kibana with three spaces, and one more.
const SPACES: [Member; 3] = [
    ("lab", "8.18.0", &["default"], &[("tier", "canary")]),
    (
        "soc",
        "9.4.0",
        &["default", "soc", "hunting"],
        &[("team", "security")],
    ),
    ("web", "9.6.0", &["default"], &[]),
];

#[test]
fn a_new_version_in_vault_is_proven_everywhere_with_one_update_each() {
    let fleet = Fleet::start_applied("rotation", &FIVE).unwrap();
    assert_eq!(
        fleet.metric("keyfleet_vault_reads").unwrap(),
        1,
        "one read for the whole fleet"
    );

    fleet.accept_key(SECOND).unwrap();
    assert_eq!(fleet.write_key(SECOND).unwrap(), 2);
    fleet.wait_until_proven("2").unwrap();
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();

    assert!(
        fleet.all_have("gpt-5.4-mini", SECOND_TAIL).unwrap(),
        "{:?}",
        fleet.all_connectors()
    );
    for (name, _, spaces, _) in FIVE {
        let n = u64::try_from(spaces.len()).unwrap();
        assert_eq!(
            fleet.writes_of(name).unwrap(),
            [n, n, 0],
            "{name}: POST, PUT, DELETE"
        );
    }
    assert_eq!(
        fleet.key_version(1).unwrap(),
        ("KEY_STATE_PREVIOUS".to_owned(), 0)
    );
    assert_eq!(
        fleet.key_version(2).unwrap(),
        ("KEY_STATE_CURRENT".to_owned(), 7)
    );
    assert_eq!(fleet.revocation(1).unwrap(), (true, Vec::new()));
    assert_eq!(
        fleet.metric("keyfleet_vault_reads").unwrap(),
        2,
        "one read a version"
    );
    let cause = fleet.rollout().unwrap()["cause"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        cause.contains("key openai") && cause.contains('2'),
        "{cause}"
    );
}

#[test]
fn a_rotation_takes_over_a_rollout_that_runs_and_each_kibana_gets_both_at_once() {
    let fleet = Fleet::start_applied("meeting", &THREE).unwrap();

    // The rollout of the model stays at its canary: a running rollout keeps the strategy it started with.
    fleet
        .manifests
        .edit("strategy.yaml", "soak: 2s", "soak: 10m")
        .unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    fleet.begin_apply().unwrap();
    let model = fleet.rollout_id().unwrap();
    fleet.wait_for_state("lab", "PROVEN").unwrap();
    fleet
        .manifests
        .edit("strategy.yaml", "soak: 10m", "soak: 2s")
        .unwrap();
    fleet.begin_apply().unwrap();
    assert_eq!(
        fleet.rollout_id().unwrap(),
        model,
        "a strategy alone starts nothing"
    );

    fleet.accept_key(SECOND).unwrap();
    fleet.write_key(SECOND).unwrap();
    fleet.wait_until_proven("2").unwrap();
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();
    assert!(
        fleet.all_have("gpt-5.2", SECOND_TAIL).unwrap(),
        "{:?}",
        fleet.all_connectors()
    );
    assert_eq!(fleet.phase_of(&model).unwrap(), "ROLLOUT_PHASE_SUPERSEDED");
    assert_eq!(
        fleet.writes_of("lab").unwrap(),
        [1, 2, 0],
        "the canary got one after the other"
    );
    for name in ["shop", "web"] {
        assert_eq!(
            fleet.writes_of(name).unwrap(),
            [1, 1, 0],
            "{name} got both in one update"
        );
    }
    assert_eq!(
        fleet.silent_bindings().unwrap(),
        Vec::<serde_json::Value>::new()
    );
}

#[test]
fn a_change_and_a_new_key_at_the_same_moment_converge_to_both() {
    let fleet = Fleet::start_applied("moment", &THREE).unwrap();
    fleet.accept_key(SECOND).unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    fleet.write_key(SECOND).unwrap();
    fleet.begin_apply().unwrap();
    fleet.wait_until_proven("2").unwrap();
    fleet
        .wait_until("every connector has model and key", || {
            fleet.all_have("gpt-5.2", SECOND_TAIL).ok()?.then_some(())
        })
        .unwrap();
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();
    assert_eq!(
        fleet.key_version(1).unwrap(),
        ("KEY_STATE_PREVIOUS".to_owned(), 0)
    );
    assert_eq!(
        fleet.key_version(2).unwrap(),
        ("KEY_STATE_CURRENT".to_owned(), 3)
    );
    for (name, ..) in THREE {
        let [created, updated, removed] = fleet.writes_of(name).unwrap();
        assert_eq!((created, removed), (1, 0), "{name}");
        assert!(updated <= 2, "{name}: {updated} updates for two changes");
    }
}

#[test]
fn a_new_name_is_one_update_of_the_same_connector() {
    let fleet = Fleet::start_applied("rename", &SPACES).unwrap();
    let ids = || -> Vec<String> {
        let all = fleet.all_connectors().unwrap();
        all.iter()
            .map(|(_, connector)| connector["id"].to_string())
            .collect()
    };
    let before = ids();
    fleet
        .manifests
        .edit("connector.yaml", "OpenAI gpt-5.4-mini", "Assistant of all")
        .unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    assert_eq!(ids(), before);
    for (name, connector) in fleet.all_connectors().unwrap() {
        assert_eq!(connector["name"], "Assistant of all", "{name}");
    }
    for (name, _, spaces, _) in SPACES {
        let n = u64::try_from(spaces.len()).unwrap();
        assert_eq!(
            fleet.writes_of(name).unwrap(),
            [n, n, 0],
            "{name}: POST, PUT, DELETE"
        );
    }
}

#[test]
fn removal_needs_a_word_and_takes_exactly_what_it_names() {
    let fleet = Fleet::start_applied("removal", &SPACES).unwrap();
    assert_eq!(fleet.key_version(1).unwrap().1, 5);
    let before = fleet.rollout_id().unwrap();

    fleet
        .manifests
        .edit("placement.yaml", "spaces: [soc, hunting]", "spaces: [soc]")
        .unwrap();
    let refused = fleet.apply_with(&["--wait"]).unwrap();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.err.contains("this removes 1 binding "),
        "{refused:?}"
    );
    assert!(refused.err.contains("`--yes` agrees to it"), "{refused:?}");
    assert_eq!(
        fleet.rollout_id().unwrap(),
        before,
        "a refused apply starts nothing"
    );
    assert_eq!(fleet.n_connectors("soc").unwrap(), 3);

    fleet
        .apply_with(&["--wait", "--yes"])
        .unwrap()
        .must_succeed()
        .unwrap();
    assert_eq!(fleet.n_connectors("soc").unwrap(), 2);
    assert_eq!(
        fleet.writes_of("soc").unwrap(),
        [3, 0, 1],
        "POST, PUT, DELETE"
    );
    for name in ["lab", "web"] {
        assert_eq!(
            fleet.writes_of(name).unwrap(),
            [1, 0, 0],
            "{name}: POST, PUT, DELETE"
        );
    }
    assert_eq!(
        fleet.bindings().unwrap().len(),
        4,
        "what was removed is not listed"
    );
    assert_eq!(
        fleet.key_version(1).unwrap().1,
        4,
        "a confirmed removal closes its holding"
    );
}

#[test]
fn a_narrower_selector_removes_and_a_wider_one_makes_again() {
    let fleet = Fleet::start_applied("selector", &SPACES).unwrap();
    let everywhere = "spec:\n  connectors: [assistant]\n  spaces: [default]";
    let canary = "spec:\n  selector:\n    matchLabels: {tier: canary}\n  connectors: [assistant]\n  spaces: [default]";
    fleet
        .manifests
        .edit("placement.yaml", everywhere, canary)
        .unwrap();
    let refused = fleet.apply().unwrap();
    assert!(
        refused.code == 1 && refused.err.contains("removes 2 bindings"),
        "{refused:?}"
    );
    fleet
        .apply_with(&["--wait", "--yes"])
        .unwrap()
        .must_succeed()
        .unwrap();
    assert_eq!(fleet.n_connectors("lab").unwrap(), 1);
    assert_eq!(fleet.n_connectors("soc").unwrap(), 2);
    assert_eq!(fleet.n_connectors("web").unwrap(), 0);
    assert_eq!(
        fleet.writes_of("web").unwrap(),
        [1, 0, 1],
        "POST, PUT, DELETE"
    );
    assert_eq!(fleet.bindings().unwrap().len(), 3);

    // And back: what was removed is made again.
    fleet
        .manifests
        .edit("placement.yaml", canary, everywhere)
        .unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    assert_eq!(fleet.n_connectors("web").unwrap(), 1);
    assert_eq!(
        fleet.writes_of("lab").unwrap(),
        [1, 0, 0],
        "the canary was never concerned"
    );
    assert!(fleet.is_proven("1").unwrap());
}

#[test]
fn a_drift_policy_reaches_the_agents_without_a_rollout_and_without_a_write() {
    let fleet = Fleet::start_applied("drift-policy", &THREE).unwrap();
    let rollout = fleet.rollout_id().unwrap();
    let received = |fleet: &Fleet| -> usize {
        let logs = fleet.agents.iter().map(|(_, agent)| agent.log().unwrap());
        logs.map(|log| log.matches("received a desired state").count())
            .sum()
    };
    let before = received(&fleet);
    fleet
        .manifests
        .edit("placement.yaml", "drift: correct", "drift: report")
        .unwrap();
    fleet.begin_apply().unwrap();
    fleet
        .wait_until("every agent received it", || {
            (received(&fleet) >= before + 3).then_some(())
        })
        .unwrap();
    fleet.wait_until_proven("1").unwrap();
    assert_eq!(fleet.rollout_id().unwrap(), rollout, "no rollout");
    assert_eq!(fleet.writes().unwrap(), 3, "no write but the creations");
    for (name, agent) in &fleet.agents {
        assert!(
            !agent.log().unwrap().contains("rejected a desired state"),
            "{name}"
        );
    }
}

#[test]
fn a_version_that_is_overtaken_is_held_by_nobody_in_the_end() {
    let fleet = Fleet::start_applied("overtaken", &THREE).unwrap();
    fleet
        .manifests
        .edit("strategy.yaml", "soak: 2s", "soak: 10m")
        .unwrap();
    fleet.begin_apply().unwrap();
    fleet.accept_key(SECOND).unwrap();
    fleet.write_key(SECOND).unwrap();
    fleet
        .wait_until("the canary has the second version", || {
            let lab = fleet.binding("lab", "default").ok()?;
            (lab["lastProven"]["keyVersion"] == "2").then_some(())
        })
        .unwrap();
    assert_eq!(
        fleet.key_version(1).unwrap().1,
        2,
        "the canary holds the first no more"
    );
    assert_eq!(
        fleet.key_version(2).unwrap(),
        ("KEY_STATE_PENDING".to_owned(), 1)
    );
    fleet
        .manifests
        .edit("strategy.yaml", "soak: 10m", "soak: 2s")
        .unwrap();
    fleet.begin_apply().unwrap();
    fleet.accept_key(THIRD).unwrap();
    fleet.write_key(THIRD).unwrap();
    fleet.wait_until_proven("3").unwrap();
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();
    assert!(
        fleet.all_have("gpt-5.4-mini", "3rdK").unwrap(),
        "{:?}",
        fleet.all_connectors()
    );
    for version in [1, 2] {
        assert_eq!(
            fleet.key_version(version).unwrap(),
            ("KEY_STATE_PREVIOUS".to_owned(), 0),
            "{version}"
        );
    }
    assert_eq!(
        fleet.key_version(3).unwrap(),
        ("KEY_STATE_CURRENT".to_owned(), 3)
    );
    assert_eq!(fleet.writes_of("lab").unwrap(), [1, 2, 0]);
    assert_eq!(fleet.writes_of("web").unwrap(), [1, 1, 0]);
    assert_eq!(
        fleet.metric("keyfleet_vault_reads").unwrap(),
        3,
        "one read a version"
    );
}
