//! What a strategy may ask for beside waves: approvals, windows, ramps, mandatory waves; and how a person goes past a soak.

use anyhow::Result;
use serde_json::Value;

use crate::ask::THREE;
use crate::kit::Fleet;
use crate::operators::{add_context, run_as};
use crate::refuse::new_token;

/// The second wave of the examples.
const FLEET_WAVE: &str = "    - name: fleet\n      concurrency: 2";

/// A window that opens in half a year, whenever the test runs.
fn in_half_a_year() -> String {
    let month = (jiff::tz::Offset::UTC
        .to_datetime(jiff::Timestamp::now())
        .month()
        + 5)
        % 12
        + 1;
    format!("  windows: [{{cron: \"0 3 15 {month} *\", duration: 2h, timeZone: UTC}}]\n")
}

impl Fleet {
    /// Adds lines to the second wave of the examples' strategy.
    fn add_to_fleet_wave(&self, lines: &str) -> Result<()> {
        let more = format!("{FLEET_WAVE}\n{lines}");
        self.manifests.edit("strategy.yaml", FLEET_WAVE, &more)
    }

    /// Adds lines to the examples' strategy.
    pub(crate) fn add_to_strategy(&self, lines: &str) -> Result<()> {
        let more = format!("{lines}  offline: {{maxPercent: 20}}\n");
        self.manifests
            .edit("strategy.yaml", "  offline: {maxPercent: 20}\n", &more)
    }

    /// What the newest rollout waits for, as `keyfleet rollout explain -o json` says it.
    fn explained(&self) -> Result<Value> {
        let id = self.rollout_id()?;
        self.stack.json(&["rollout", "explain", &id])
    }

    /// Waits until the explanation of the newest rollout holds some words.
    pub(crate) fn wait_for_explanation(&self, words: &str) -> Result<Value> {
        let said = || {
            let explained = self.explained().ok()?;
            explained.to_string().contains(words).then_some(explained)
        };
        self.wait_until(&format!("the rollout says {words:?}"), said)
    }
}

/// Adds an operator of this name.
fn add_principal(fleet: &Fleet, name: &str) -> Result<()> {
    let arguments = ["operator", "--principal", name, "--role", "operator"];
    let file = new_token(fleet, name, &arguments)?;
    add_context(fleet, name, &file)
}

#[test]
fn a_wave_waits_for_two_others_than_who_started_it() {
    let fleet = Fleet::start("approval", &THREE).unwrap();
    fleet
        .add_to_fleet_wave("      approval: {required: 2, notAuthor: true}")
        .unwrap();
    for name in ["ann", "bob"] {
        add_principal(&fleet, name).unwrap();
    }
    fleet.begin_apply().unwrap();
    let id = fleet.rollout_id().unwrap();
    fleet.wait_for_state("lab", "PROVEN").unwrap();
    fleet.wait_for_explanation("0 of 2").unwrap();

    // The author's own word does not count, and said twice a word counts once.
    let own = fleet.keyfleet(&["rollout", "approve", &id]).unwrap();
    assert_ne!(own.code, 0);
    assert!(own.err.contains("others than admin"), "{own:?}");
    for _ in 0..2 {
        run_as(
            &fleet,
            "ann",
            &["rollout", "approve", &id, "--reason", "looks good"],
        )
        .must_succeed()
        .unwrap();
    }
    let explained = fleet.wait_for_explanation("1 of 2").unwrap();
    assert_eq!(fleet.count("web", "POST").unwrap(), 0, "{explained}");
    let show = fleet.keyfleet(&["rollout", "show", &id]).unwrap();
    assert!(
        show.out.contains("looks good") && show.out.contains("ann"),
        "{show:?}"
    );

    run_as(
        &fleet,
        "bob",
        &["rollout", "approve", &id, "--wave", "fleet"],
    )
    .must_succeed()
    .unwrap();
    let watched = fleet
        .keyfleet(&["rollout", "watch", &id, "--timeout", "60s"])
        .unwrap();
    assert_eq!(watched.code, 0, "{watched:?}");
    let refused = run_as(&fleet, "bob", &["rollout", "approve", &id]);
    assert_ne!(refused.code, 0, "an ended rollout takes no approval");
}

#[test]
fn nobody_is_changed_outside_of_a_window_and_the_reason_says_when_it_opens() {
    let fleet = Fleet::start("window", &THREE).unwrap();
    let hardly_ever = in_half_a_year();
    fleet.add_to_strategy(&hardly_ever).unwrap();
    fleet.begin_apply().unwrap();
    fleet.wait_for_explanation("opens in").unwrap();
    assert_eq!(fleet.silent_bindings().unwrap(), Vec::<Value>::new());
    assert_eq!(fleet.writes().unwrap(), 0);
    // A restart of control finds the window as closed as before.
    fleet.wait_until_connected().unwrap();
    let binding = fleet.binding("lab", "default").unwrap();
    assert!(
        binding["waiting"].to_string().contains("window"),
        "{binding}"
    );

    // Without the window the same change goes out, as a new rollout by a retry of the aborted one.
    let id = fleet.rollout_id().unwrap();
    fleet.say("abort", &id).unwrap();
    fleet
        .manifests
        .edit("strategy.yaml", &hardly_ever, "")
        .unwrap();
    fleet.begin_apply().unwrap();
    fleet.say("retry", &id).unwrap();
    fleet.wait_until_proven("1").unwrap();
}

#[test]
fn a_person_may_go_past_the_soak_and_only_past_that() {
    let fleet = Fleet::start("fast-forward", &THREE).unwrap();
    fleet
        .manifests
        .edit("strategy.yaml", "soak: 2s", "soak: 1h")
        .unwrap();
    fleet.begin_apply().unwrap();
    let id = fleet.rollout_id().unwrap();
    fleet.wait_for_explanation("soaking").unwrap();
    assert_eq!(fleet.count("web", "POST").unwrap(), 0);
    fleet.say("fast-forward", &id).unwrap();
    let watched = fleet
        .keyfleet(&["rollout", "watch", &id, "--timeout", "60s"])
        .unwrap();
    assert_eq!(watched.code, 0, "{watched:?}");
    let audit = fleet.keyfleet(&["audit", "tail"]).unwrap();
    assert!(audit.out.contains("rollout.fast-forward"), "{audit:?}");
}

#[test]
fn a_mandatory_wave_waits_for_everybody_in_it() {
    let mut fleet = Fleet::start("mandatory", &THREE).unwrap();
    fleet
        .manifests
        .edit(
            "strategy.yaml",
            "      strict: true",
            "      strict: true\n      mandatory: true",
        )
        .unwrap();
    fleet.agent_mut("lab").unwrap().kill_hard().unwrap();
    fleet
        .wait_until("lab is away", || {
            let lab = fleet.stack.json(&["describe", "deployment", "lab"]).ok()?;
            (lab["deployment"]["connected"] != true).then_some(())
        })
        .unwrap();
    fleet.begin_apply().unwrap();
    fleet.wait_for_explanation("mandatory").unwrap();
    assert_eq!(fleet.writes().unwrap(), 0);
    fleet.agent_mut("lab").unwrap().restart().unwrap();
    fleet.wait_until_proven("1").unwrap();
}

#[test]
fn a_label_change_moves_nobody_and_ends_nothing() {
    let fleet = Fleet::start_applied("membership", &THREE).unwrap();
    fleet
        .manifests
        .edit("strategy.yaml", "soak: 2s", "soak: 1h")
        .unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    fleet.begin_apply().unwrap();
    let id = fleet.rollout_id().unwrap();
    fleet.wait_for_explanation("soaking").unwrap();
    fleet
        .keyfleet(&[
            "deployment",
            "label",
            "web",
            "tier=canary",
            "--yes",
            "--reason",
            "a new tier",
        ])
        .unwrap()
        .must_succeed()
        .unwrap();
    assert_eq!(fleet.rollout_id().unwrap(), id, "the same run goes on");
    let show = fleet.stack.json(&["rollout", "show", &id]).unwrap();
    let web = show["targets"].as_array().unwrap().iter();
    let web = web.filter(|target| target["deployment"] == "web");
    let waves: Vec<&Value> = web.map(|target| &target["wave"]).collect();
    assert_eq!(waves, [1], "{show}");
    fleet.say("fast-forward", &id).unwrap();
    let watched = fleet
        .keyfleet(&["rollout", "watch", &id, "--timeout", "60s"])
        .unwrap();
    assert_eq!(watched.code, 0, "{watched:?}");
}
