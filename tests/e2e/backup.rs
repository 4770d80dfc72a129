//! Backup and restore of a fleet that goes on: nothing is written on the word of an old database, and nothing is lost.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::binaries;
use xtask::fleet::Done;

use crate::ask::THREE;
use crate::kit::{Fleet, Member, PATIENCE};

const SECOND: &str = "sk-proj-e2e-4444444444444444444444444444444444bUp7";

const ONE: [Member; 1] = [("lab", "8.18.0", &["default"], &[("tier", "canary")])];

#[test]
fn a_restored_fleet_is_left_alone_until_andon_off_and_then_follows_vault() {
    let mut fleet = Fleet::start("restore", &THREE).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let file = fleet.stack.dir().join("backup.db");
    let file = file.to_string_lossy().into_owned();
    back_up(&fleet, &file);

    // What the backup does not know: the second key, and another revision of the connector.
    fleet.accept_key(SECOND).unwrap();
    fleet.write_key(SECOND).unwrap();
    fleet.wait_until_proven("2").unwrap();
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let writes = fleet.writes().unwrap();

    fleet.refuses_to_restore_while_it_runs(&file).unwrap();
    fleet.control.process.terminate(PATIENCE).unwrap();
    lose_the_disk_and_restore(&fleet, &file);
    fleet.control.process.restart().unwrap();

    fleet.wait_until_connected().unwrap();
    learns_and_writes_nothing(&fleet, writes);
    fleet.let_it_go_on().unwrap();
    follows_vault(&fleet);

    // The manifests as they are now bring back what the backup did not know, under a number of its own.
    fleet.apply().unwrap().must_succeed().unwrap();
    assert!(
        fleet.all_have("gpt-5.2", "bUp7").unwrap(),
        "{:?}",
        fleet.all_connectors()
    );
    for binding in fleet.bindings().unwrap() {
        assert_eq!(binding["running"]["revision"], "2001", "{binding}");
    }
}

/// Makes a backup, which is not overwritten unasked.
fn back_up(fleet: &Fleet, file: &str) {
    let made = fleet.control_command(&["backup", file]).unwrap();
    let made = made.must_succeed().unwrap().out;
    for part in [
        "schema:   2",
        "3 deployments, 1 connectors, 1 keys",
        "fingerprint.key",
    ] {
        assert!(made.contains(part), "{made}");
    }
    let again = fleet.control_command(&["backup", file]).unwrap();
    assert!(
        again.code == 1 && again.err.contains("--force"),
        "{again:?}"
    );
}

/// The disk died: what the fleet has done since is learned from the agents alone.
fn lose_the_disk_and_restore(fleet: &Fleet, file: &str) {
    let asked = fleet.control_command(&["restore", file]).unwrap();
    assert!(asked.code == 1 && asked.err.contains("--yes"), "{asked:?}");
    assert!(asked.out.contains("entries of the audit log"), "{asked:?}");
    let database = fleet.control.data_dir.join("keyfleet.db");
    std::fs::write(&database, "no database any more").unwrap();
    let log = fleet.control.data_dir.join("keyfleet.db-wal");
    let left = std::fs::metadata(log).map_or(0, |file| file.len());
    assert_eq!(
        left, 0,
        "a service that ended leaves everything in one file"
    );
    let done = fleet.control_command(&["restore", file, "--yes", "--reason", "the disk died"]);
    let done = done.unwrap().must_succeed().unwrap().out;
    assert!(
        done.contains("cannot be read")
            && done.contains(".before-restore-")
            && done.contains("revoke them once more"),
        "{done}"
    );
}

/// Under the andon of the restore: Vault tells of the second key, the agents that they hold it.
fn learns_and_writes_nothing(fleet: &Fleet, writes: u64) {
    let status = fleet.stack.json(&["status"]).unwrap();
    assert_eq!(status["andon"], true, "{status}");
    let held = || (fleet.key_version(2).ok()?.1 == 3).then_some(());
    fleet
        .wait_until("the second key is held by all", held)
        .unwrap();
    assert_eq!(
        fleet.key_version(1).unwrap().1,
        3,
        "no word of a proof since"
    );
    let history = fleet
        .stack
        .json(&["describe", "deployment", "lab"])
        .unwrap();
    let history = history["events"].to_string();
    assert!(history.contains("this database does not know"), "{history}");
    let log = fleet
        .keyfleet(&["audit", "tail", "-o", "json"])
        .unwrap()
        .out;
    assert!(
        log.contains("store.restore") && log.contains("the disk died"),
        "{log}"
    );
    assert_eq!(
        fleet.writes().unwrap(),
        writes,
        "nothing is written while the andon is on"
    );
}

/// Once it may, it brings everybody to the second key, in tries that no agent knows.
fn follows_vault(fleet: &Fleet) {
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();
    fleet.wait_until_proven("2").unwrap();
    assert_eq!(
        fleet.key_version(1).unwrap().1,
        0,
        "proof of the second closes the first"
    );
    assert!(
        fleet.all_have("gpt-5.4-mini", "bUp7").unwrap(),
        "{:?}",
        fleet.all_connectors()
    );
    let tries = fleet.tries().unwrap();
    assert!(tries.iter().all(|tries| *tries > 2_000_000), "{tries:?}");
}

#[test]
fn a_hand_copied_database_is_refused_loudly_and_a_restore_of_it_is_not() {
    let mut fleet = Fleet::start("hand-copied", &ONE).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let database = fleet.control.data_dir.join("keyfleet.db");
    let copy = fleet.stack.dir().join("copy.db");
    fleet.control.process.terminate(PATIENCE).unwrap();
    std::fs::copy(&database, &copy).unwrap();
    fleet.control.process.restart().unwrap();
    fleet.accept_key(SECOND).unwrap();
    fleet.write_key(SECOND).unwrap();
    fleet.wait_until_proven("2").unwrap();
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED").unwrap();
    let writes = fleet.writes().unwrap();

    fleet.control.process.terminate(PATIENCE).unwrap();
    std::fs::copy(&copy, &database).unwrap();
    fleet.control.process.restart().unwrap();
    let problem = || {
        let status = fleet.stack.json(&["status"]).ok()?;
        let problems = status["problems"].to_string();
        (problems.contains("newer history") && problems.contains("keyfleet-control restore"))
            .then_some(())
    };
    fleet
        .wait_until("the old copy is noticed", problem)
        .unwrap();
    assert!(!fleet.is_ready());
    let log = fleet.control.process.log().unwrap();
    assert!(log.contains("an agent knows a newer history"), "{log}");
    assert_eq!(fleet.writes().unwrap(), writes, "nothing is written");

    fleet.control.process.terminate(PATIENCE).unwrap();
    let copy = copy.to_string_lossy().into_owned();
    let done = fleet.control_command(&["restore", &copy, "--yes"]).unwrap();
    done.must_succeed().unwrap();
    fleet.control.process.restart().unwrap();
    fleet.wait_until_connected().unwrap();
    fleet.let_it_go_on().unwrap();
    fleet.wait_until_proven("2").unwrap();
    let status = fleet.stack.json(&["status"]).unwrap();
    assert!(
        !status["problems"].to_string().contains("newer history"),
        "{status}"
    );
}

impl Fleet {
    /// `keyfleet-control` with this fleet's settings, whatever comes of it.
    pub(crate) fn control_command(&self, arguments: &[&str]) -> Result<Done> {
        let mut command = Command::new(binaries::path("keyfleet-control")?);
        command
            .arg("--config")
            .arg(self.stack.dir().join("control.toml"));
        let output = command.args(arguments).output();
        Ok(Done::from(
            output.context("keyfleet-control does not start")?,
        ))
    }

    fn let_it_go_on(&self) -> Result<()> {
        let arguments = ["andon", "off", "--reason", "looked at it"];
        self.keyfleet(&arguments)?.must_succeed().map(drop)
    }

    fn refuses_to_restore_while_it_runs(&self, file: &str) -> Result<()> {
        let refused = self.control_command(&["restore", file, "--yes"])?;
        assert!(
            refused.code == 1 && refused.err.contains("in use"),
            "{refused:?}"
        );
        Ok(())
    }

    /// The number of the try behind what each agent applied last.
    fn tries(&self) -> Result<Vec<u64>> {
        let mut tries = Vec::new();
        for (name, _) in &self.agents {
            let path = self.stack.dir().join(format!("{name}.state/ledger.json"));
            let ledger: Value = serde_json::from_slice(&std::fs::read(path)?)?;
            let entries = ledger["bindings"].as_object().context("no bindings")?;
            for entry in entries.values() {
                tries.push(
                    entry["applied"]["goal"]["attempt"]
                        .as_u64()
                        .context("no try")?,
                );
            }
        }
        Ok(tries)
    }
}
