//! `keyfleet rollout`: verbs, ids, and the watch with all that can happen to it.

use crate::fake::{ROLLOUT_IDS, Step, telling};
use crate::harness::{Home, check, rollout, script, two_deployments};
use crate::terminal::at_width;
use keyfleet_proto::v1;
use tonic::Status;
use v1::BindingState::{Applied, Failed, Proven, Waiting};
use v1::RolloutPhase as Phase;

fn home(rollouts: Vec<v1::Rollout>, script: Vec<Step>) -> Home {
    let mut state = two_deployments();
    state.rollouts = rollouts;
    state.script = script;
    Home::new(state)
}

fn running() -> v1::Rollout {
    rollout(Phase::Progressing, "", [Applied, Waiting])
}

fn second(rollout: v1::Rollout) -> v1::Rollout {
    v1::Rollout {
        id: ROLLOUT_IDS[1].into(),
        ..rollout
    }
}

#[test]
fn verbs_change_a_rollout_by_the_beginning_of_its_id() {
    let home = home(
        vec![
            running(),
            second(rollout(Phase::Completed, "", [Proven, Proven])),
        ],
        vec![],
    );
    let text = [
        home.run(&["rollout", "list"]),
        home.run(&["rollout", "pause", "0192f3a4-5b6c", "--reason", "lunch"]),
        home.run(&["rollout", "resume", ROLLOUT_IDS[0]]),
        home.run(&["rollout", "rollback", "0192f3a4-5b6c", "-o", "yaml"]),
        home.run(&["rollout", "pause", "0192f3a4"]),
        home.run(&["rollout", "pause", "ffff"]),
        home.run(&["rollout", "abort", ROLLOUT_IDS[1]]),
    ];
    check("rollout_verbs", &text.join("\n"));
    let verbs: Vec<_> = home
        .fake
        .state()
        .changes
        .iter()
        .map(|change| (change.verb(), change.reason.clone()))
        .collect();
    let expect = [
        (v1::RolloutVerb::Pause, "lunch"),
        (v1::RolloutVerb::Resume, ""),
        (v1::RolloutVerb::Rollback, ""),
    ];
    assert_eq!(
        verbs,
        expect.map(|(verb, reason)| (verb, reason.to_owned()))
    );
}

#[test]
fn the_only_active_rollout_needs_no_id() {
    let ended = second(rollout(Phase::Completed, "", [Proven, Proven]));
    let home = home(
        vec![running(), ended],
        script(vec![rollout(Phase::Completed, "", [Proven, Proven])]),
    );
    let text = home.run(&["rollout", "watch"]);
    assert!(text.starts_with("exit 0"), "{text}");
    let text = home.run(&["rollout", "watch"]);
    home.fake.state().rollouts = vec![running(), second(running())];
    check(
        "rollout_which",
        &[text, home.run(&["rollout", "watch"])].join("\n"),
    );
}

#[test]
fn a_watch_goes_on_through_a_pause_and_a_dropped_stream() {
    let mut steps = script(vec![
        running(),
        rollout(Phase::Paused, "ada: lunch", [Applied, Waiting]),
    ]);
    steps.push(Step::Break(Status::unavailable("control is stopping")));
    steps.push(Step::Break(Status::unavailable("control is starting")));
    let mut soaking = rollout(Phase::Progressing, "", [Proven, Waiting]);
    let sentence = "wave canary soaks until 12:05".to_owned();
    soaking.waiting = vec![v1::Waiting {
        deployment: String::new(),
        sentence,
    }];
    steps.extend(script(vec![soaking]));
    steps.push(Step::End);
    steps.extend(script(vec![rollout(
        Phase::RollingBack,
        "1 AUTH failure of 0 allowed",
        [Proven, Failed],
    )]));
    steps.extend(script(vec![rollout(
        Phase::RolledBack,
        "1 AUTH failure of 0 allowed",
        [Proven, Failed],
    )]));
    let home = home(vec![running()], steps);
    check("rollout_watch", &home.run(&["rollout", "watch"]));
    assert_eq!(home.fake.state().n_watches, 4);
}

#[test]
fn each_end_has_its_exit_code() {
    let check = |phase: Phase, args: &[&str], exit: i32| {
        let home = home(
            vec![running()],
            script(vec![running(), rollout(phase, "", [Proven, Failed])]),
        );
        let text = home.run(&[&["rollout", "watch"], args].concat());
        assert!(
            text.starts_with(&format!("exit {exit}\n")),
            "{phase:?}: {text}"
        );
    };
    check(Phase::Completed, &[], 0);
    check(Phase::RolledBack, &[], 6);
    check(Phase::Aborted, &[], 7);
    check(Phase::Superseded, &[], 7);
    check(Phase::Halted, &["--exit-on-halt"], 5);
    check(Phase::RollbackHalted, &["--exit-on-halt"], 5);
}

#[test]
fn a_watch_has_a_deadline_where_one_is_given() {
    // The stream ends each time, so the command tries again until its deadline.
    let home = home(vec![running()], script(vec![running()]));
    let text = home.run(&["rollout", "watch", "--quiet", "--timeout", "1s"]);
    assert!(
        text.starts_with("exit 8") && text.contains("has not ended after 1s"),
        "{text}"
    );
}

#[test]
fn a_machine_gets_a_line_for_each_change() {
    let home = home(
        vec![running()],
        script(vec![
            running(),
            rollout(Phase::Completed, "", [Proven, Proven]),
        ]),
    );
    let text = home.run(&["rollout", "watch", "-o", "json"]);
    let lines: Vec<serde_json::Value> = text
        .strip_prefix("exit 0\n--- stdout\n")
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let phases: Vec<_> = lines
        .iter()
        .map(|line| line["phase"].as_str().unwrap())
        .collect();
    assert_eq!(
        phases,
        ["ROLLOUT_PHASE_PROGRESSING", "ROLLOUT_PHASE_COMPLETED"]
    );
}

#[test]
fn an_interrupted_watch_says_that_the_rollout_goes_on() {
    use std::io::BufRead as _;
    let home = home(vec![running()], script(vec![running()]));
    let mut child = home
        .command(&["rollout", "watch"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    let first = stderr.next().unwrap().unwrap();
    assert!(first.ends_with("is PROGRESSING"), "{first}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let rest: Vec<String> = stderr.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(
        rest.last().unwrap(),
        "hint: the rollout goes on: `keyfleet rollout watch` shows it again",
        "{rest:?}"
    );
}

#[test]
fn a_rollout_is_explained_in_the_sentences_of_every_view() {
    let home = home(vec![telling(running())], vec![]);
    home.fake.state().has_news = true;
    let explained = home.run(&["rollout", "explain"]);
    let shown = home.run(&["rollout", "show", "0192f3a4"]);
    let one = [
        "rollout",
        "explain",
        "0192f3a4",
        "--deployment",
        "kibana-b",
        "-o",
        "json",
    ];
    let json = home.run(&one);
    for wave in &telling(running()).waves {
        let sentence = &wave.waiting;
        assert!(explained.contains(sentence) && shown.contains(sentence));
    }
    let json_text = json.split_once("--- stdout\n").unwrap().1;
    let value: serde_json::Value = serde_json::from_str(json_text).unwrap();
    assert_eq!(value["deployments"][0]["deployment"], "kibana-b");
    let text = [
        explained,
        shown,
        home.run(&["rollout", "explain", "--deployment", "kibana-x"]),
        home.run(&["rollout", "list"]),
        at_width(80, &home, &["rollout", "explain"], ""),
        at_width(120, &home, &["rollout", "explain"], ""),
        at_width(80, &home, &["rollout", "show"], ""),
    ];
    check("rollout_explain", &text.join("\n"));
}

#[test]
fn a_wave_is_approved_by_its_name_or_as_the_next() {
    let home = home(vec![telling(running())], vec![]);
    let id = ROLLOUT_IDS[0];
    let text = [
        home.run(&["rollout", "approve", id, "--reason", "canary is fine"]),
        home.run(&["rollout", "approve", "0192f3a4", "--wave", "rest"]),
        home.run(&["rollout", "approve", id, "--wave", "canary"]),
        home.run(&["rollout", "fast-forward", id, "--reason", "urgent"]),
    ];
    check("rollout_approve", &text.join("\n"));
    let state = home.fake.state();
    let said = state.changes.iter();
    let said: Vec<_> = said.map(|c| (c.verb(), c.wave.as_str())).collect();
    let approve = v1::RolloutVerb::Approve;
    let forward = v1::RolloutVerb::FastForward;
    assert_eq!(said, [(approve, ""), (approve, "rest"), (forward, "")]);
}

#[test]
fn a_watch_tells_gates_and_how_long_it_takes() {
    let mut later = telling(running());
    later.estimate.as_mut().unwrap().left_secs = Some(1_900);
    let mut passing = later.clone();
    passing.gates.clear();
    let steps = script(vec![
        telling(running()),
        later,
        passing,
        rollout(Phase::Completed, "", [Proven, Proven]),
    ]);
    let lines = home(vec![running()], steps).run(&["rollout", "watch"]);
    check("rollout_watch_telling", &lines);
}
