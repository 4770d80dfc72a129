//! A new key in Vault goes out by itself; changes that meet converge; renaming and removing touch what they must.

use crate::ask::THREE;
use crate::kit::{FIVE, Fleet, Member};

const SECOND: &str = "sk-proj-e2e-1111111111111111111111111111111111zR7k";
const SECOND_TAIL: &str = "zR7k";

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
    let fleet = Fleet::start("rotation", &FIVE).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
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
        fleet.all_have("gpt-4.1", SECOND_TAIL).unwrap(),
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
    let fleet = Fleet::start("meeting", &THREE).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();

    // The rollout of the model stays at its canary: a running rollout keeps the strategy it started with.
    fleet
        .manifests
        .edit("strategy.yaml", "soak: 2s", "soak: 10m")
        .unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-4.1", "gpt-5.2")
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
    let fleet = Fleet::start("moment", &THREE).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    fleet.accept_key(SECOND).unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-4.1", "gpt-5.2")
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
    let fleet = Fleet::start("rename", &SPACES).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let ids = || -> Vec<String> {
        let all = fleet.all_connectors().unwrap();
        all.iter()
            .map(|(_, connector)| connector["id"].to_string())
            .collect()
    };
    let before = ids();
    fleet
        .manifests
        .edit("connector.yaml", "OpenAI gpt-4.1", "Assistant of all")
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
    let fleet = Fleet::start("removal", &SPACES).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    assert_eq!(fleet.key_version(1).unwrap().1, 5);
    let before = fleet.rollout_id().unwrap();

    fleet
        .manifests
        .edit("placement.yaml", "spaces: [soc, hunting]", "spaces: [soc]")
        .unwrap();
    let refused = fleet.apply_with(&["--wait"]).unwrap();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.err.contains("removes 1 binding") && refused.err.contains("--yes"),
        "{refused:?}"
    );
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

    // The same with a selector: only the canary keeps its connector.
    let (all, canary) = (
        "spec:\n  connectors: [assistant]\n  spaces: [default]",
        "spec:\n  selector:\n    matchLabels: {tier: canary}\n  connectors: [assistant]\n  spaces: [default]",
    );
    fleet.manifests.edit("placement.yaml", all, canary).unwrap();
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
    assert_eq!(fleet.n_connectors("soc").unwrap(), 1);
    assert_eq!(fleet.n_connectors("web").unwrap(), 0);
    assert_eq!(
        fleet.writes_of("web").unwrap(),
        [1, 0, 1],
        "POST, PUT, DELETE"
    );
    assert_eq!(fleet.bindings().unwrap().len(), 2);

    // And back: what was removed is made again.
    fleet.manifests.edit("placement.yaml", canary, all).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    assert_eq!(fleet.n_connectors("web").unwrap(), 1);
    assert_eq!(
        fleet.writes_of("lab").unwrap(),
        [1, 0, 0],
        "the canary was never concerned"
    );
    assert!(fleet.is_proven("1").unwrap());
}
