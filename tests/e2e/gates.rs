//! Background gates with a real control service: what passes goes on, what fails halts, what says nothing pauses.

use anyhow::Result;
use keyfleet_sim::gate::{self, GateServer, Says};
use tokio::runtime::Runtime;

use crate::ask::THREE;
use crate::kit::{Fleet, Setup};

/// A fleet whose strategy has two gates, and the server that answers both.
struct Gated {
    fleet: Fleet,
    server: GateServer,
    /// Where the server runs; it ends with it.
    _runtime: Runtime,
}

impl Gated {
    fn start(name: &str) -> Result<Self> {
        let runtime = Runtime::new()?;
        let server = runtime.block_on(gate::start())?;
        let url = server.url();
        let host = url.replace("http://", "");
        let setup = Setup {
            control: &[("KEYFLEET_CONTROL__GATES__ALLOWED_HOSTS", &host)],
            ..Setup::USUAL
        };
        let fleet = Fleet::start_as(name, &THREE, &setup)?;
        let gates = format!(
            "  gates:\n    - {{name: freeze, http: {{url: \"{url}/ok\"}}, interval: 10s, action: halt}}\n    - {{name: errors, prometheus: {{url: \"{url}\", query: \"sum(rate(errors[5m]))\", failIf: \"> 0.02\"}}, interval: 10s, action: halt, inconclusiveAfter: 1}}\n"
        );
        fleet.add_to_strategy(&gates)?;
        Ok(Self {
            fleet,
            server,
            _runtime: runtime,
        })
    }
}

#[test]
fn gates_that_pass_let_a_change_through_and_are_asked() {
    let gated = Gated::start("gates-pass").unwrap();
    gated.server.measure(&["0.01"]);
    gated.fleet.apply().unwrap().must_succeed().unwrap();
    gated.fleet.wait_until_proven("1").unwrap();
    assert!(gated.server.asked() >= 2, "{}", gated.server.asked());
    let query = gated.server.query();
    assert_eq!(query.as_deref(), Some("sum(rate(errors[5m]))"));
}

#[test]
fn a_gate_that_fails_halts_before_anybody_is_changed_and_says_what_it_measured() {
    let gated = Gated::start("gates-fail").unwrap();
    gated.server.measure(&["0.01", "0.4"]);
    gated.fleet.begin_apply().unwrap();
    gated.fleet.wait_for_phase("ROLLOUT_PHASE_HALTED").unwrap();
    assert_eq!(gated.fleet.writes().unwrap(), 0);
    let rollout = gated.fleet.rollout().unwrap();
    let reason = rollout["reason"].as_str().unwrap();
    assert!(
        reason.contains("errors") && reason.contains("0.4"),
        "{reason}"
    );

    // The trouble is over: somebody says resume, and the gates are asked anew.
    gated.server.measure(&["0.01"]);
    let id = gated.fleet.rollout_id().unwrap();
    gated.fleet.say("resume", &id).unwrap();
    gated.fleet.wait_until_proven("1").unwrap();
}

#[test]
fn a_gate_that_says_nothing_pauses() {
    let gated = Gated::start("gates-silent").unwrap();
    gated.server.say(Says::Inconclusive);
    gated.fleet.begin_apply().unwrap();
    gated.fleet.wait_for_phase("ROLLOUT_PHASE_PAUSED").unwrap();
    assert_eq!(gated.fleet.writes().unwrap(), 0);
    gated.server.say(Says::Pass);
    let id = gated.fleet.rollout_id().unwrap();
    gated.fleet.say("resume", &id).unwrap();
    gated.fleet.wait_until_proven("1").unwrap();
}

#[test]
fn a_gate_on_a_host_that_is_not_allowed_is_refused_with_its_line() {
    let fleet = Fleet::start("gates-deputy", &THREE).unwrap();
    let gate = "  gates: [{name: inner, http: {url: \"http://127.0.0.1:1/x\"}, interval: 10s, action: halt}]\n";
    fleet.add_to_strategy(gate).unwrap();
    let refused = fleet.apply().unwrap();
    assert_ne!(refused.code, 0);
    let said = &refused.err;
    assert!(
        said.contains("strategy.yaml:") && said.contains("gates.allowed_hosts"),
        "{refused:?}"
    );
    assert!(fleet.bindings().unwrap().is_empty(), "nothing was stored");
}
