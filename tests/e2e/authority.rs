//! Replacing the CA under a running fleet.

use std::fs;

use anyhow::Result;
use serde_json::Value;

use crate::ask::THREE;
use crate::kit::{Fleet, Setup};

/// A rotation ends by itself without leaving operators a day.
const AT_ONCE: Setup<'_> = Setup {
    control: &[("KEYFLEET_CONTROL__AGENTS__CA_OVERLAP_SECS", "0")],
    ..Setup::USUAL
};

impl Fleet {
    fn ca(&self) -> Result<Value> {
        self.stack.json(&["ca", "show"])
    }

    fn certificates_in_ca_pem(&self) -> Result<usize> {
        let text = fs::read_to_string(self.control.data_dir.join("ca.pem"))?;
        Ok(text.matches("BEGIN CERTIFICATE").count())
    }

    fn wait_for_end_of_rotation(&self) -> Result<Value> {
        self.wait_until("the rotation has ended", || {
            let ca = self.ca().ok()?;
            ca["next"].is_null().then_some(ca)
        })
    }
}

#[test]
fn the_ca_is_replaced_while_the_fleet_runs_and_one_agent_is_away() {
    let mut fleet = Fleet::start_as("authority", &THREE, &AT_ONCE).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let writes = fleet.writes().unwrap();
    let old = fleet.ca().unwrap()["current"]["pin"].clone();
    assert_eq!(fleet.certificates_in_ca_pem().unwrap(), 1);
    fleet.agent_mut("web").unwrap().kill_hard().unwrap();

    fleet
        .keyfleet(&["ca", "rotate", "--reason", "a new year"])
        .unwrap()
        .must_succeed()
        .unwrap();
    assert_eq!(fleet.certificates_in_ca_pem().unwrap(), 2);
    fleet
        .wait_until("only the agent that is away is waited for", || {
            let ca = fleet.ca().ok()?;
            let waiting = ca["waiting"].as_array()?;
            let is_web = |text: &Value| text.as_str().is_some_and(|text| text.starts_with("web: "));
            (waiting.len() == 1 && waiting.iter().all(is_web)).then_some(())
        })
        .unwrap();
    let early = fleet
        .keyfleet(&["ca", "finish", "--reason", "in a hurry"])
        .unwrap();
    assert_ne!(early.code, 0, "{early:?}");
    assert_eq!(
        fleet.ca().unwrap()["current"]["pin"],
        old,
        "servers present the older one"
    );

    // A crash of control in the middle changes nothing.
    fleet.control.process.kill_hard().unwrap();
    fleet.control.process.restart().unwrap();
    assert!(!fleet.ca().unwrap()["next"].is_null());

    fleet.agent_mut("web").unwrap().restart().unwrap();
    let ended = fleet.wait_for_end_of_rotation().unwrap();
    assert_ne!(ended["current"]["pin"], old);
    assert_eq!(ended["current"]["deployments"], 3, "{ended}");
    assert_eq!(fleet.certificates_in_ca_pem().unwrap(), 1);
    fleet.wait_until_connected().unwrap();
    fleet.agent_mut("lab").unwrap().kill_hard().unwrap();
    fleet.agent_mut("lab").unwrap().restart().unwrap();
    fleet.wait_until_connected().unwrap();
    assert!(fleet.is_proven("1").unwrap());
    assert_eq!(
        fleet.writes().unwrap(),
        writes,
        "nothing was written to any Kibana"
    );

    // Once more, and this time nobody waits for the agent that is away.
    fleet.agent_mut("web").unwrap().kill_hard().unwrap();
    fleet
        .keyfleet(&["ca", "rotate", "--reason", "the key was stolen"])
        .unwrap()
        .must_succeed()
        .unwrap();
    fleet
        .keyfleet(&["ca", "finish", "--reason", "the key was stolen", "--yes"])
        .unwrap()
        .must_succeed()
        .unwrap();
    fleet.wait_for_end_of_rotation().unwrap();
    assert!(
        fleet.agent_mut("web").unwrap().restart().is_err(),
        "it was left behind"
    );
    let web = fleet.deployment("web").unwrap();
    assert_ne!(web["connected"], true, "{web}");
    assert_eq!(fleet.audited("ca.rotate").unwrap(), 2);
    assert_eq!(fleet.audited("ca.finish").unwrap(), 2);
}
