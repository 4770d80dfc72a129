//! Whatever is killed, at whatever moment: everything converges, nothing is made twice, nothing is written in vain.

use anyhow::Result;
use serde_json::Value;

use crate::kit::{FIVE, Fleet, Member, Setup};

/// One Kibana with three spaces, and so three bindings that are worked on at once.
pub(crate) const SOC: [Member; 1] = [(
    "soc",
    "9.4.0",
    &["default", "soc", "hunting"],
    &[("team", "security")],
)];
pub(crate) const SOC_BINDINGS: u64 = 3;

/// Agents look at their Kibana every second, so that a test sees that they have looked and done nothing.
pub(crate) const WATCHFUL: Setup<'_> = Setup {
    agents: &[("KEYFLEET_AGENT__DRIFT__INTERVAL_SECS", "1")],
    ..Setup::USUAL
};

/// A round of looks at rest: one list for each space.
pub(crate) const LISTS: &str = "method=GET&class=connectors";
pub(crate) const LOOKS: &str = "method=GET&class=connector";
pub(crate) const CREATES: &str = "method=POST&class=connector";
pub(crate) const UPDATES: &str = "method=PUT&class=connector";
const PROBES: &str = "method=POST&class=execute";

/// Faults of the simulated Kibana. A hanging request is not carried out; a slow one is, and never answered in time.
const READS_HANG: &str =
    r#"{"api": {"mode": "hang", "methods": ["GET"], "path_contains": "/actions/connector/"}}"#;
const CREATES_HANG: &str = r#"{"api": {"mode": "hang", "methods": ["POST"]}}"#;
const CREATES_UNANSWERED: &str =
    r#"{"api": {"mode": "slow", "methods": ["POST"], "delay_ms": 60000}}"#;
const CREATES_SLOW: &str = r#"{"api": {"mode": "slow", "methods": ["POST"], "delay_ms": 1500}}"#;
const UPDATES_UNANSWERED: &str =
    r#"{"api": {"mode": "slow", "methods": ["PUT"], "delay_ms": 60000}}"#;
const PROBES_HANG: &str = r#"{"api": {"mode": "hang", "path_contains": "/_execute"}}"#;

/// The moment at which an agent is killed.
struct Moment {
    name: &'static str,
    /// One after the other: a fault, and how many requests of a kind Kibana has then got.
    steps: &'static [(&'static str, &'static str, u64)],
    /// How many requests to create Kibana gets in the end.
    creates: u64,
    /// At most so many requests to update: only a write with unknown outcome is repeated.
    updates_max: u64,
}

#[test]
fn an_agent_killed_before_it_writes_writes_once() {
    kill_the_agent(&Moment {
        name: "before-write",
        steps: &[(READS_HANG, LOOKS, SOC_BINDINGS)],
        creates: SOC_BINDINGS,
        updates_max: 0,
    });
}

#[test]
fn an_agent_killed_while_a_creation_hangs_creates_once() {
    kill_the_agent(&Moment {
        name: "creation-hangs",
        steps: &[(CREATES_HANG, CREATES, SOC_BINDINGS)],
        // The first three came to nothing.
        creates: 2 * SOC_BINDINGS,
        updates_max: 0,
    });
}

#[test]
fn an_agent_killed_before_a_creation_is_answered_creates_nothing_twice() {
    kill_the_agent(&Moment {
        name: "creation-unanswered",
        steps: &[(CREATES_UNANSWERED, CREATES, SOC_BINDINGS)],
        creates: SOC_BINDINGS,
        updates_max: SOC_BINDINGS,
    });
}

#[test]
fn an_agent_killed_before_it_reads_back_writes_no_more() {
    kill_the_agent(&Moment {
        name: "before-reading-back",
        steps: &[
            (CREATES_SLOW, CREATES, SOC_BINDINGS),
            (READS_HANG, LOOKS, 2 * SOC_BINDINGS),
        ],
        creates: SOC_BINDINGS,
        updates_max: 0,
    });
}

#[test]
fn an_agent_killed_while_it_proves_writes_no_more() {
    kill_the_agent(&Moment {
        name: "during-probe",
        steps: &[(PROBES_HANG, PROBES, SOC_BINDINGS)],
        creates: SOC_BINDINGS,
        updates_max: 0,
    });
}

/// Kills the agent at a moment of the first install and starts it again.
fn kill_the_agent(moment: &Moment) {
    let mut fleet = Fleet::start(moment.name, &SOC).unwrap();
    for (index, (faults, query, count)) in moment.steps.iter().enumerate() {
        fleet.break_kibana("soc", faults).unwrap();
        if index == 0 {
            fleet.begin_apply().unwrap();
        }
        fleet.wait_for_requests("soc", query, *count).unwrap();
    }
    fleet.agent_mut("soc").unwrap().kill_hard().unwrap();
    fleet.break_kibana("soc", "").unwrap();
    fleet.agent_mut("soc").unwrap().restart().unwrap();
    fleet.wait_until_proven("1").unwrap();
    assert_eq!(
        fleet.n_connectors("soc").unwrap(),
        SOC_BINDINGS,
        "one connector a binding"
    );
    assert_eq!(
        fleet.requests("soc", CREATES).unwrap(),
        moment.creates,
        "creations"
    );
    let updates = fleet.requests("soc", UPDATES).unwrap();
    assert!(updates <= moment.updates_max, "{updates} updates");
    assert_eq!(fleet.count("soc", "DELETE").unwrap(), 0, "deletions");
}

#[test]
fn an_agent_killed_during_an_update_updates_at_most_once_more() {
    let mut fleet = Fleet::start_applied("during-update", &SOC).unwrap();
    fleet.break_kibana("soc", UPDATES_UNANSWERED).unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    fleet.begin_apply().unwrap();
    fleet
        .wait_for_requests("soc", UPDATES, SOC_BINDINGS)
        .unwrap();
    fleet.agent_mut("soc").unwrap().kill_hard().unwrap();
    fleet.break_kibana("soc", "").unwrap();
    fleet.agent_mut("soc").unwrap().restart().unwrap();
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();
    assert!(fleet.is_proven("1").unwrap());
    assert_eq!(
        fleet.requests("soc", CREATES).unwrap(),
        SOC_BINDINGS,
        "creations"
    );
    let updates = fleet.requests("soc", UPDATES).unwrap();
    assert!(updates <= 2 * SOC_BINDINGS, "{updates} updates");
}

#[test]
fn a_control_killed_again_and_again_during_a_rollout_brings_it_to_its_end() {
    let mut fleet = Fleet::start("control-killed", &FIVE).unwrap();
    fleet.break_kibana("lab", CREATES_SLOW).unwrap();
    fleet.begin_apply().unwrap();
    fleet.wait_for_requests("lab", CREATES, 1).unwrap();
    fleet.control.process.restart().unwrap();
    let is_proven = |b: &Value| b["deployment"] == "lab" && b["state"] == "BINDING_STATE_PROVEN";
    let canary = || fleet.bindings().ok()?.iter().any(is_proven).then_some(());
    fleet.wait_until("the canary is proven", canary).unwrap();
    fleet.control.process.restart().unwrap();
    fleet.wait_for_requests("archive", CREATES, 1).unwrap();
    fleet.control.process.restart().unwrap();
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();
    assert!(fleet.is_proven("1").unwrap());
    for (name, _, spaces, _) in FIVE {
        let bindings = u64::try_from(spaces.len()).unwrap();
        assert_eq!(
            fleet.requests(name, CREATES).unwrap(),
            bindings,
            "creations on {name}"
        );
        assert_eq!(
            fleet.requests(name, PROBES).unwrap(),
            bindings,
            "proofs on {name}"
        );
    }
    assert_eq!(fleet.writes().unwrap(), 7, "nothing but the creations");
    let rollouts = fleet.stack.json(&["rollout", "list"]).unwrap();
    assert_eq!(
        rollouts["rollouts"].as_array().map(Vec::len),
        Some(1),
        "{rollouts}"
    );
}

#[test]
fn control_and_an_agent_killed_together_during_a_rotation_bring_it_to_its_end() {
    let mut fleet = Fleet::start_applied("both-killed", &FIVE).unwrap();
    fleet.break_kibana("soc", UPDATES_UNANSWERED).unwrap();
    fleet.accept_key(SECOND).unwrap();
    fleet.write_key(SECOND).unwrap();
    fleet
        .wait_for_requests("soc", UPDATES, SOC_BINDINGS)
        .unwrap();
    fleet.control.process.kill_hard().unwrap();
    fleet.agent_mut("soc").unwrap().kill_hard().unwrap();
    fleet.break_kibana("soc", "").unwrap();
    fleet.control.process.restart().unwrap();
    fleet.agent_mut("soc").unwrap().restart().unwrap();
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();
    fleet.wait_until_proven("2").unwrap();
    for (name, _, spaces, _) in FIVE {
        let bindings = u64::try_from(spaces.len()).unwrap();
        assert_eq!(
            fleet.requests(name, CREATES).unwrap(),
            bindings,
            "creations on {name}"
        );
        let updates = fleet.requests(name, UPDATES).unwrap();
        let updates_max = if name == "soc" {
            2 * bindings
        } else {
            bindings
        };
        assert!(updates <= updates_max, "{updates} updates on {name}");
    }
    assert!(fleet.all_have("gpt-5.4-mini", "zR7k").unwrap());
}

/// The key of a rotation.
const SECOND: &str = "sk-proj-e2e-2222222222222222222222222222222222zR7k";

#[test]
fn a_kibana_killed_during_a_rollout_ends_with_one_connector_a_binding() {
    let mut fleet = Fleet::start("kibana-killed", &SOC).unwrap();
    fleet.break_kibana("soc", CREATES_UNANSWERED).unwrap();
    fleet.begin_apply().unwrap();
    fleet
        .wait_for_requests("soc", CREATES, SOC_BINDINGS)
        .unwrap();
    // The restarted one has its connectors, no fault, and a request log that is empty.
    fleet.kibana_mut("soc").unwrap().process.restart().unwrap();
    fleet.wait_until_proven("1").unwrap();
    assert_eq!(fleet.n_connectors("soc").unwrap(), SOC_BINDINGS);
    assert_eq!(
        fleet.requests("soc", CREATES).unwrap(),
        0,
        "they are there already"
    );
    let updates = fleet.requests("soc", UPDATES).unwrap();
    assert!(updates <= SOC_BINDINGS, "{updates} updates");
}

#[test]
fn a_kibana_restarted_at_rest_is_looked_at_and_left_alone() {
    let mut fleet = Fleet::start_as("kibana-at-rest", &SOC, &WATCHFUL).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let before = fleet.bindings().unwrap();
    fleet.kibana_mut("soc").unwrap().process.restart().unwrap();
    fleet
        .wait_for_requests("soc", LISTS, 2 * SOC_BINDINGS)
        .unwrap();
    assert_eq!(fleet.writes().unwrap(), 0);
    assert_eq!(fleet.requests("soc", PROBES).unwrap(), 0, "the proof holds");
    assert_eq!(fleet.bindings().unwrap(), before, "no status changed");
}

#[test]
fn a_write_that_is_done_and_not_answered_is_not_done_twice() {
    let faults = r#"{"api": {"mode": "write_then_fail", "methods": ["POST"], "remaining": 3}}"#;
    let fleet = Fleet::start("half-written", &SOC).unwrap();
    fleet.break_kibana("soc", faults).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    assert!(fleet.is_proven("1").unwrap());
    assert_eq!(
        fleet.requests("soc", CREATES).unwrap(),
        SOC_BINDINGS,
        "creations"
    );
    let updates = fleet.requests("soc", UPDATES).unwrap();
    assert!(updates <= SOC_BINDINGS, "{updates} updates");
    assert_eq!(fleet.n_connectors("soc").unwrap(), SOC_BINDINGS);
}

/// What must be the same after a restart of everything.
#[derive(Debug, PartialEq)]
struct AtRest {
    bindings: Vec<Value>,
    generations: Vec<Value>,
    events: Vec<Value>,
    writes: u64,
    probes: u64,
    /// How often an agent was sent a desired state.
    told: usize,
}

impl AtRest {
    fn of(fleet: &Fleet) -> Result<Self> {
        let deployments = fleet.stack.json(&["get", "deployments"])?;
        let generation = |d: &Value| serde_json::json!([d["name"], d["generation"]]);
        let (mut events, mut probes) = (Vec::new(), 0);
        for (name, _) in &fleet.agents {
            events.push(fleet.stack.json(&["describe", "deployment", name])?["events"].clone());
            probes += fleet.requests(name, PROBES)?;
        }
        Ok(Self {
            bindings: fleet.bindings()?,
            generations: deployments["deployments"]
                .as_array()
                .into_iter()
                .flatten()
                .map(generation)
                .collect(),
            events,
            writes: fleet.writes()?,
            probes,
            told: fleet.n_told()?,
        })
    }
}

#[test]
fn everything_restarted_at_rest_changes_nothing_anywhere() {
    let mut fleet = Fleet::start_as("at-rest", &FIVE, &WATCHFUL).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let before = AtRest::of(&fleet).unwrap();
    assert_eq!((before.writes, before.told), (7, 5), "{before:?}");
    for (_, agent) in &mut fleet.agents {
        agent.kill_hard().unwrap();
    }
    fleet.control.process.restart().unwrap();
    for (_, agent) in &mut fleet.agents {
        agent.restart().unwrap();
    }
    fleet.wait_until_connected().unwrap();
    for (name, _, spaces, _) in FIVE {
        // Looked at twice: what there was to say after the first look is said by then.
        let looks = fleet.requests(name, LISTS).unwrap() + 2 * u64::try_from(spaces.len()).unwrap();
        fleet.wait_for_requests(name, LISTS, looks).unwrap();
    }
    assert_eq!(AtRest::of(&fleet).unwrap(), before);
    assert_eq!(
        fleet.metric("keyfleet_vault_reads").unwrap(),
        0,
        "no key was needed"
    );
}

impl Fleet {
    /// How often an agent was sent a desired state.
    pub(crate) fn n_told(&self) -> Result<usize> {
        let told = |log: String| log.matches("received a desired state").count();
        self.agents
            .iter()
            .map(|(_, agent)| agent.log().map(told))
            .sum()
    }
}
