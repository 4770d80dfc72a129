//! `keyfleet rollout simulate`: what it asks, draws, and ends with.

use keyfleet_proto::v1;
use v1::RolloutPhase as Phase;
use v1::simulate_rollout_response::Part;

use crate::harness::{Home, check, two_deployments};
use crate::terminal::at_width;

const MINUTE: u64 = 60;

fn wave(name: &str, deployments: u32, minutes: [u64; 3]) -> v1::SimulatedWave {
    let [begins, proven, ends] = minutes.map(|minutes| Some(minutes * MINUTE));
    v1::SimulatedWave {
        name: name.into(),
        deployments,
        begins_secs: begins,
        proven_secs: proven,
        ends_secs: ends,
        proven: deployments,
        failed: 0,
        offline: 0,
        in_flight_max: deployments.div_ceil(4),
    }
}

fn completes() -> v1::SimulatedRollout {
    v1::SimulatedRollout {
        cause: "ada simulates fleet.yaml".into(),
        strategy: "careful".into(),
        waves: vec![
            wave("canary", 1, [0, 3, 13]),
            wave("early", 9, [13, 25, 55]),
            wave("fleet", 42, [75, 110, 110]),
        ],
        phase: Phase::Completed.into(),
        reason: String::new(),
        ends_secs: 110 * MINUTE,
        events: vec![v1::SimulatedEvent {
            at_secs: 55 * MINUTE,
            text: "wave \"early\" is done, \"fleet\" waits for a window".into(),
        }],
    }
}

fn halts() -> v1::SimulatedRollout {
    let mut halted = completes();
    let early = v1::SimulatedWave {
        proven_secs: None,
        ends_secs: None,
        proven: 6,
        failed: 2,
        offline: 1,
        ..halted.waves[1].clone()
    };
    let fleet = v1::SimulatedWave {
        begins_secs: None,
        proven_secs: None,
        ends_secs: None,
        proven: 0,
        in_flight_max: 0,
        ..halted.waves[2].clone()
    };
    halted.waves.truncate(1);
    halted.waves.extend([early, fleet]);
    halted.phase = Phase::Halted.into();
    halted.reason = "2 of 9 deployments failed with MODEL, 1 allowed".into();
    halted.ends_secs = 22 * MINUTE;
    halted
}

fn simulation(rollouts: Vec<v1::SimulatedRollout>) -> Vec<v1::SimulateRolloutResponse> {
    let progress = v1::SimulationProgress {
        settled: 26,
        deployments: 52,
        virtual_secs: 3_900,
        now: "wave fleet".into(),
    };
    let worst =
        |class: v1::FailureClass, broken_max, phase: Phase, back, sentence: &str| v1::WorstCase {
            failure_class: class.into(),
            broken_max,
            phase: phase.into(),
            held_secs: 150,
            back_secs: back,
            sentence: sentence.into(),
        };
    let result = v1::SimulationResult {
        rollouts,
        worst_cases: vec![
            worst(
                v1::FailureClass::Auth,
                1,
                Phase::RolledBack,
                Some(270),
                "1 deployment fails, the budget is 0: it goes back to what it had",
            ),
            worst(
                v1::FailureClass::Model,
                3,
                Phase::Halted,
                None,
                "3 deployments fail before it halts, and wait for a person",
            ),
        ],
        warnings: vec!["7 deployments have no label timezone: UTC is taken".into()],
        deployments: 52,
        seed: 7,
        notes: vec![
            "wave fleet asks for 2 approvals: given at once here".into(),
            "gate errors passes here".into(),
        ],
        plan: Some(v1::PlanResult {
            conflicts: vec![conflict()],
            ..v1::PlanResult::default()
        }),
    };
    [Part::Progress(progress), Part::Result(result)]
        .map(|part| v1::SimulateRolloutResponse { part: Some(part) })
        .into()
}

fn conflict() -> v1::Conflict {
    v1::Conflict {
        rollout_id: crate::fake::ROLLOUT_IDS[0].into(),
        connectors: vec!["assistant".into()],
        sentence: "PROGRESSING in wave canary, would be superseded: 1 deployment has it and keeps it until the new rollout reaches it".into(),
    }
}

fn home(simulation: Vec<v1::SimulateRolloutResponse>) -> Home {
    let mut state = two_deployments();
    state.simulation = simulation;
    let home = Home::new(state);
    home.write("fleet.yaml", "Connector assistant gpt-5.2\n");
    home.write("broken.yaml", "Connector assistant broken\n");
    home
}

const SIMULATE: [&str; 4] = ["rollout", "simulate", "-f", "fleet.yaml"];

#[test]
fn waves_are_drawn_and_a_rollout_that_would_halt_has_its_code() {
    let good = home(simulation(vec![completes()]));
    let bad = home(simulation(vec![completes(), halts()]));
    let nothing = home(simulation(vec![]));
    let text = [
        good.run(&SIMULATE),
        bad.run(&SIMULATE),
        nothing.run(&SIMULATE),
        at_width(80, &bad, &SIMULATE, ""),
        at_width(120, &good, &SIMULATE, ""),
    ];
    for (text, exit) in text.iter().zip([0, 11, 0, 11, 0]) {
        assert!(text.starts_with(&format!("exit {exit}\n")), "{text}");
    }
    check("simulate", &text.join("\n"));
    let json = bad.run(&[&SIMULATE[..], &["-o", "json"]].concat());
    let json = json.strip_prefix("exit 11\n--- stdout\n").unwrap();
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(value["rollouts"][1]["phase"], "ROLLOUT_PHASE_HALTED");
}

#[test]
fn what_is_asked_reaches_control() {
    let home = home(simulation(vec![completes()]));
    let asked = [
        "--fleet",
        "1000",
        "--label",
        "region=eu|us",
        "--label",
        "env=prod",
        "--faults",
        "offline=10%,auth=2%",
        "--seed",
        "7",
        "--set",
        "prod",
    ];
    let text = home.run(&[&SIMULATE[..], &asked].concat());
    assert!(text.starts_with("exit 0"), "{text}");
    let state = home.fake.state();
    let request = &state.simulated[0];
    assert_eq!(request.deployments, 1_000);
    assert_eq!(request.faults, "offline=10%,auth=2%");
    assert_eq!((request.seed, request.set.as_str()), (7, "prod"));
    let labels: Vec<_> = request.labels.iter().collect();
    let expect = [("env", "prod"), ("region", "eu|us")];
    assert_eq!(labels.len(), 2);
    for (key, values) in expect {
        assert_eq!(request.labels[key], values);
    }
}

#[test]
fn what_cannot_be_simulated_is_said() {
    let home = home(vec![]);
    let text = [
        home.run(&["rollout", "simulate", "-f", "broken.yaml"]),
        home.run(&[&SIMULATE[..], &["--label", "region=eu"]].concat()),
        home.run(&[&SIMULATE[..], &["--fleet", "0"]].concat()),
        home.run(
            &[
                &SIMULATE[..],
                &["--fleet", "9", "--label", "a=1", "--label", "a=2"],
            ]
            .concat(),
        ),
        home.run(&SIMULATE),
    ];
    check("simulate_refused", &text.join("\n"));
}

#[test]
fn a_plan_says_what_it_meets_and_how_it_rounds() {
    let mut state = two_deployments();
    state.has_news = true;
    state.conflicts = vec![conflict()];
    let home = Home::new(state);
    home.write("fleet.yaml", "Connector assistant gpt-5.2\n");
    let plan = ["plan", "-f", "fleet.yaml"];
    let text = [
        home.run(&plan),
        at_width(80, &home, &plan, ""),
        at_width(120, &home, &plan, ""),
        home.run(&["get", "strategies", "-o", "wide"]),
        home.run(&["get", "strategies"]),
    ];
    check("plan_rules", &text.join("\n"));
}
