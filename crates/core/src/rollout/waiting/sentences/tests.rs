//! The sentences, one line for each reason.

use std::sync::Arc;

use super::*;
use crate::failure::FailureClass;
use crate::rollout::waiting::Deadline;

const LEFT: Duration = Duration::from_secs(100);

/// One line for each reason.
fn sentences(reasons: &[WaitingOn]) -> String {
    reasons.iter().map(|reason| format!("{reason}\n")).collect()
}

fn wave(name: &str, number: usize) -> WaveRef {
    WaveRef {
        name: name.into(),
        number,
        of: 2,
    }
}

#[test]
fn durations_have_at_most_two_units() {
    let cases = [
        (0, "0s"),
        (1, "1s"),
        (1_000, "1s"),
        (1_001, "2s"),
        (100_000, "1m 40s"),
        (600_000, "10m"),
        (7_500_000, "2h 5m"),
        (100_000_000, "1d 3h"),
    ];
    for (millis, text) in cases {
        assert_eq!(Human(Duration::from_millis(millis)).to_string(), text);
    }
}

#[test]
fn a_deployment_waits_for_a_rule_and_a_number() {
    let step = |deadline| WaitingOn::Step {
        deadline,
        left: LEFT,
    };
    let name = || Arc::from("canary");
    let strict = |away| WaitingOn::Strict {
        wave: name(),
        in_flight: 1,
        away,
        budget_left: 0,
    };
    let offline = |holds| WaitingOn::Offline {
        offline: 1,
        deployments: 10,
        limit_percent: 20,
        holds,
    };
    let failed = |broken_before| WaitingOn::Failed {
        class: FailureClass::Model,
        broken_before,
    };
    insta::assert_snapshot!(sentences(&[
        WaitingOn::Andon("ada since noon: the provider is down".into()),
        WaitingOn::NotStarted,
        WaitingOn::Change("2 deployments passed a deadline".into()),
        WaitingOn::Paused("by ada: lunch".into()),
        WaitingOn::Halted("".into()),
        WaitingOn::WaveNotStarted {
            wave: wave("fleet", 2),
            before: wave("canary", 1),
            running: true
        },
        WaitingOn::WaveNotStarted {
            wave: wave("fleet", 2),
            before: wave("canary", 1),
            running: false
        },
        WaitingOn::Concurrency {
            wave: name(),
            limit: 2,
            in_flight: 2
        },
        strict(0),
        strict(1),
        step(Deadline::Ack),
        step(Deadline::Apply),
        step(Deadline::Prove),
        WaitingOn::Soaking {
            left: LEFT,
            soak: Duration::from_secs(600)
        },
        offline(false),
        offline(true),
        failed(false),
        failed(true),
        WaitingOn::Left,
    ]));
}

#[test]
fn a_strategy_holds_with_a_rule_and_a_number() {
    let name = || Arc::from("prod");
    let spread = |value: Option<&str>| WaitingOn::Spread {
        wave: name(),
        label: "region".into(),
        value: value.map(Arc::from),
        max: 1,
        in_flight: 1,
    };
    let approval = |except: Option<&str>| WaitingOn::Approval {
        wave: wave("prod", 2),
        given: 1,
        required: 2,
        except: except.map(Arc::from),
    };
    let window = |opens, blackout: Option<&str>| WaitingOn::Window {
        opens,
        blackout: blackout.map(Arc::from),
    };
    insta::assert_snapshot!(sentences(&[
        WaitingOn::Ramp {
            wave: name(),
            limit: 2,
            concurrency: 8,
            in_flight: 2,
            missing: 3
        },
        WaitingOn::Rate {
            max: 60,
            left: LEFT
        },
        spread(Some("eu")),
        spread(None),
        approval(None),
        approval(Some("ada")),
        WaitingOn::Gate {
            name: "errors".into(),
            text: "0.03 > 0.02".into()
        },
        window(Some(LEFT), None),
        window(None, None),
        window(Some(LEFT), Some("2026-12-24 to 2026-12-26, Christmas")),
    ]));
}

#[test]
fn a_wave_waits_for_a_rule_and_a_number() {
    let (deployments, limit_percent) = (10, 20);
    let holds = [
        WaveHold::Running {
            proven: 3,
            deployments,
            in_flight: 2,
            left: Some(LEFT),
        },
        WaveHold::Running {
            proven: 3,
            deployments,
            in_flight: 2,
            left: None,
        },
        WaveHold::Windows {
            waiting: 1,
            opens: Some(LEFT),
        },
        WaveHold::Windows {
            waiting: 2,
            opens: None,
        },
        WaveHold::Mandatory {
            proven: 3,
            deployments,
            offline: 6,
            broken_before: 1,
        },
        WaveHold::Soaking { left: LEFT },
        WaveHold::Offline {
            offline: 3,
            deployments,
            limit_percent,
        },
        WaveHold::Unproven {
            offline: 1,
            broken_before: 0,
            deployments: 1,
        },
    ];
    let on = |hold| WaitingOn::Wave {
        wave: wave("fleet", 2),
        hold,
    };
    insta::assert_snapshot!(sentences(&holds.map(on)));
}

#[test]
fn a_rollback_waits_for_a_rule_and_a_number() {
    let holds = [
        RollbackHold::Concurrency {
            limit: 2,
            in_progress: 2,
        },
        RollbackHold::Rate {
            max: 10,
            left: LEFT,
        },
        RollbackHold::Step { left: LEFT },
        RollbackHold::Offline,
        RollbackHold::Failed(FailureClass::Timeout),
        RollbackHold::Impossible,
        RollbackHold::Run {
            back: 3,
            touched: 5,
            in_progress: 2,
        },
    ];
    insta::assert_snapshot!(sentences(&holds.map(WaitingOn::Rollback)));
}
