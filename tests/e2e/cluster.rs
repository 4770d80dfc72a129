//! A cluster of three OpenBao nodes whose leader is killed during a rollout.

use std::collections::BTreeMap;

use xtask::stack::Stack;

use crate::kit::{FIVE, Fleet, Setup};

const SECOND: &str = "sk-proj-e2e-5555555555555555555555555555555555cLu2";
const THIRD: &str = "sk-proj-e2e-6666666666666666666666666666666666cLu3";

#[test]
fn a_rollout_goes_on_while_the_leader_of_vaults_cluster_is_killed() {
    let stack = Stack::start_cluster("e2e-cluster-").unwrap();
    let more: Vec<String> = stack.more_bao.iter().map(|node| node.address()).collect();
    let more = more.join(",");
    let control = [("KEYFLEET_CONTROL__VAULT__MORE_ADDRESSES", more.as_str())];
    let setup = Setup {
        control: &control,
        ..Setup::USUAL
    };
    let mut fleet = Fleet::start_on(stack, &FIVE, &setup).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let mut highest = BTreeMap::new();

    // Control is pointed at the node that dies, and has to find the new version on the others.
    for key in [SECOND, THIRD] {
        fleet.accept_key(key).unwrap();
    }
    assert!(fleet.stack.bao.is_leader());
    assert_eq!(fleet.write_key(SECOND).unwrap(), 2);
    fleet.stack.bao.process().kill_hard().unwrap();
    wait_until_proven(&fleet, 2, &mut highest);
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();

    let survivors = &fleet.stack.more_bao;
    let leader = fleet.wait_until("another node leads", || {
        survivors.iter().find(|node| node.is_leader())
    });
    let leader = leader.unwrap();
    assert_eq!(
        leader.kv_put("keyfleet/openai", "api_key", THIRD).unwrap(),
        3
    );
    wait_until_proven(&fleet, 3, &mut highest);
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();
    let keys = fleet.stack.json(&["key", "list"]).unwrap();
    assert_eq!(keys["keys"][0]["vaultStatus"], "ok");
    assert_eq!(
        fleet.writes_of("web").unwrap(),
        [1, 2, 0],
        "POST, PUT, DELETE"
    );
}

/// Waits, and looks all the time that no binding goes back to an older version.
fn wait_until_proven(fleet: &Fleet, version: u64, highest: &mut BTreeMap<String, u64>) {
    let look = || {
        for binding in fleet.bindings().ok()? {
            let id = binding["connectorId"].as_str()?.to_owned();
            let running = binding["running"]["keyVersion"].as_str();
            let running = running.map_or(Some(0), |text| text.parse().ok())?;
            let before = highest.entry(id).or_insert(0);
            assert!(running >= *before, "{binding:#} went back from {before}");
            *before = running;
        }
        fleet.is_proven(&version.to_string()).ok()?.then_some(())
    };
    fleet
        .wait_until(&format!("version {version} is proven everywhere"), look)
        .unwrap();
}
