//! A disk that takes nothing more: said clearly, reads go on, and nothing needs a restart when it takes again.

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::kit::{Fleet, Member};

const ONE: [Member; 1] = [("lab", "8.18.0", &["default"], &[("tier", "canary")])];

/// No file of control may grow beyond this many bytes: its log has more already.
const TINY: u64 = 4096;

#[test]
fn a_disk_that_takes_nothing_is_said_and_ends_by_itself() {
    let mut fleet = Fleet::start("disk", &ONE).unwrap();
    fleet.limit_files(Some(TINY)).unwrap();
    let refused = fleet.keyfleet(&["token", "create", "join"]).unwrap();
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("the disk refuses"), "{refused:?}");
    let bindings = fleet.bindings().unwrap();
    assert!(bindings.is_empty(), "reads go on: {bindings:?}");
    let status = fleet.stack.json(&["status"]).unwrap();
    assert!(
        status["problems"].to_string().contains("the disk refuses"),
        "{status}"
    );
    assert!(!fleet.is_ready());
    let applied = fleet.apply().unwrap();
    assert_ne!(applied.code, 0);
    assert_eq!(fleet.writes().unwrap(), 0, "what is not stored is not done");

    fleet.limit_files(None).unwrap();
    let ready = || fleet.is_ready().then_some(());
    fleet.wait_until("the disk takes again", ready).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    assert!(fleet.is_proven("1").unwrap());
    assert!(
        fleet.control.process.is_running(),
        "all of this in one process"
    );
}

impl Fleet {
    /// Whether `/readyz` answers 200.
    pub(crate) fn is_ready(&self) -> bool {
        self.page("/readyz").is_ok()
    }

    fn limit_files(&mut self, bytes: Option<u64>) -> Result<()> {
        let pid = self.control.process.pid().context("it runs")?;
        let pid = Pid::from_raw(i32::try_from(pid)?);
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(pid, Resource::Fsize, limit)?;
        Ok(())
    }
}
