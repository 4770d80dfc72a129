//! `plan` and `apply`: files in, changes out, exit codes for pipelines.

use crate::fake::{ROLLOUT_IDS, State};
use crate::harness::{Home, check, rollout, script, two_deployments};
use keyfleet_proto::v1;
use v1::BindingState::{Applied, Failed, Proven, Waiting};

const MANIFESTS: &str = "Key openai-prod kv/ai/openai\nConnector assistant gpt-5.2\n";

fn home() -> Home {
    let mut state = two_deployments();
    state
        .objects
        .insert(("Key".into(), "openai-prod".into()), "kv/ai/openai".into());
    state
        .objects
        .insert(("Connector".into(), "assistant".into()), "gpt-4.1".into());
    let home = Home::new(state);
    home.write("fleet/a.yaml", MANIFESTS);
    home.write("fleet/more/b.yml", "Placement everywhere all\n");
    home.write("fleet/notes.txt", "broken\n");
    home
}

#[test]
fn a_plan_says_what_and_why() {
    let home = home();
    check("plan", &home.run(&["plan", "-f", "fleet"]));
    assert!(
        home.run(&["plan", "-f", "fleet", "--exit-code"])
            .starts_with("exit 10")
    );
    assert_eq!(
        home.run(&["apply", "-f", "fleet", "--dry-run"]),
        home.run(&["plan", "-f", "fleet"])
    );
    let json = home.run(&["plan", "-f", "fleet", "-o", "json"]);
    assert!(json.contains(r#""kind": "Connector""#), "{json}");
    // Nothing was stored.
    assert_eq!(home.fake.state().objects.len(), 2);
}

#[test]
fn standard_input_and_files_work_too() {
    let home = home();
    let text = home.run_with(&["plan", "-f", "-", "-f", "fleet/more/b.yml"], MANIFESTS);
    assert!(text.contains("1 to create, 1 to update"), "{text}");
}

#[test]
fn the_same_again_changes_nothing() {
    let home = home();
    let first = home.run(&["apply", "-f", "fleet"]);
    let text = [
        first,
        home.run(&["apply", "-f", "fleet"]),
        home.run(&["plan", "-f", "fleet", "--exit-code"]),
    ];
    check("apply", &text.join("\n"));
}

#[test]
fn a_removal_must_be_agreed_to() {
    let home = home();
    home.write("gone.yaml", "Connector assistant gone\n");
    let refused = home.run(&["apply", "-f", "gone.yaml"]);
    let agreed = home.run(&["apply", "-f", "gone.yaml", "--yes", "-o", "json"]);
    assert!(
        agreed.starts_with("exit 0") && agreed.contains("CHANGE_KIND_REMOVE"),
        "{agreed}"
    );
    check("apply_removal", &refused);
}

#[test]
fn a_named_set_and_a_reason_travel_with_the_files() {
    let home = home();
    let args = ["apply", "-f", "fleet", "--set", "prod", "--prune"];
    let text = home.run(&[&args[..], &["--reason", "team moved"]].concat());
    assert!(text.starts_with("exit 0"), "{text}");
    let state = home.fake.state();
    let applied = &state.applied[0];
    assert_eq!(
        (applied.set.as_str(), applied.prune, applied.reason.as_str()),
        ("prod", true, "team moved")
    );
    drop(state);
    let text = home.run(&["plan", "-f", "fleet", "--prune"]);
    assert!(
        text.starts_with("exit 2") && text.contains("--set <NAME>"),
        "{text}"
    );
}

#[test]
fn bad_manifests_are_named() {
    let home = home();
    home.write(
        "bad/a.yaml",
        "Key openai-prod kv/ai/openai\nConnector assistant broken\n",
    );
    std::fs::create_dir(home.path("nothing")).unwrap();
    let text = [
        home.run(&["plan", "-f", "bad"]),
        home.run(&["apply", "-f", "bad", "--wait"]),
        home.run(&["plan", "-f", "nothing"]),
        home.run(&["plan", "-f", "none.yaml"]),
        home.run(&["plan", "-f", "-", "-f", "-"]),
        home.run(&["plan"]),
    ];
    check("manifests_refused", &text.join("\n"));
}

fn waiting_home(ends: Vec<v1::Rollout>, targets_proven: bool) -> Home {
    let home = home();
    let mut state: std::sync::MutexGuard<'_, State> = home.fake.state();
    state.script = script(ends);
    if targets_proven {
        state.targets.truncate(1);
    }
    drop(state);
    home
}

#[test]
fn apply_waits_until_every_rollout_completed() {
    let home = waiting_home(
        vec![
            rollout(v1::RolloutPhase::Pending, "", [Waiting, Waiting]),
            rollout(v1::RolloutPhase::Progressing, "", [Applied, Waiting]),
            rollout(v1::RolloutPhase::Progressing, "", [Proven, Waiting]),
            rollout(v1::RolloutPhase::Progressing, "", [Proven, Applied]),
            rollout(v1::RolloutPhase::Completed, "", [Proven, Proven]),
        ],
        true,
    );
    check("apply_wait", &home.run(&["apply", "-f", "fleet", "--wait"]));
    // Nothing new: nothing to wait for.
    check(
        "apply_wait_again",
        &home.run(&["apply", "-f", "fleet", "--wait"]),
    );
    assert_eq!(home.fake.state().n_watches, 1);
}

#[test]
fn apply_wait_ends_where_a_person_must_decide() {
    let home = waiting_home(
        vec![
            rollout(v1::RolloutPhase::Progressing, "", [Proven, Applied]),
            rollout(
                v1::RolloutPhase::Halted,
                "1 AUTH failure of 0 allowed in wave rest",
                [Proven, Failed],
            ),
        ],
        false,
    );
    check(
        "apply_wait_halted",
        &home.run(&["apply", "-f", "fleet", "--wait"]),
    );
}

#[test]
fn apply_wait_is_one_document_for_a_machine() {
    let home = waiting_home(
        vec![rollout(
            v1::RolloutPhase::RolledBack,
            "ada said so",
            [Proven, Proven],
        )],
        true,
    );
    let text = home.run(&["apply", "-f", "fleet", "--wait", "-o", "json"]);
    let json = text.strip_prefix("exit 6\n--- stdout\n").unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(json["applied"]["rolloutIds"][0], ROLLOUT_IDS[0]);
    assert_eq!(
        json["rollouts"][0]["rollout"]["phase"],
        "ROLLOUT_PHASE_ROLLED_BACK"
    );
}
