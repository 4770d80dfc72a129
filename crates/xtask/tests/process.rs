//! Children are started, waited for, ended and leave nothing behind.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up fails at once"
)]

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, test_kill_process};
use xtask::process::Process;
use xtask::{registry, wait};

const DEADLINE: Duration = Duration::from_secs(10);

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn spawn(dir: &tempfile::TempDir, script: &str) -> Process {
    Process::spawn(
        "child",
        shell(script),
        dir.path(),
        |line| line == "ready",
        DEADLINE,
    )
    .unwrap()
}

fn is_gone(pid: u32) -> bool {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    wait::until(DEADLINE, || test_kill_process(pid).is_err().then_some(())).is_some()
}

#[test]
fn logs_waits_for_lines_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = spawn(
        &dir,
        "echo starting; echo ready; echo later >&2; exec sleep 600",
    );
    assert_eq!(child.ready_line(), "ready");
    assert_eq!(
        child
            .wait_for_line(DEADLINE, |line| line.starts_with("late"))
            .unwrap(),
        "later"
    );
    let first = child.pid().unwrap();
    child.restart().unwrap();
    assert!(is_gone(first));
    assert!(child.is_running());
    child.kill_hard().unwrap();
    assert!(!child.is_running());
    assert_eq!(child.log().unwrap().matches("ready").count(), 2);
}

#[test]
fn terminates_in_good_order_or_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let mut polite = spawn(
        &dir,
        "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done",
    );
    assert_eq!(polite.terminate(DEADLINE).unwrap().unwrap().code(), Some(3));
    // The shell may also say that its `sleep` was terminated, and the two outputs are read side by side.
    let said_bye = || polite.log().ok()?.contains("bye\n").then_some(());
    assert!(xtask::wait::until(DEADLINE, said_bye).is_some());
    assert!(
        polite.terminate(DEADLINE).unwrap().is_none(),
        "a stopped process stays stopped"
    );

    let mut deaf = spawn(
        &dir,
        "trap '' TERM; echo ready; while :; do sleep 0.05; done",
    );
    let status = deaf.terminate(Duration::from_millis(200)).unwrap().unwrap();
    assert_eq!(status.signal(), Some(9));
}

#[test]
fn drop_and_panic_end_the_whole_group() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = spawn(&dir, "sleep 600 & echo grandchild $!; echo ready; wait");
    let line = child
        .wait_for_line(DEADLINE, |line| line.starts_with("grandchild"))
        .unwrap();
    let grandchild: u32 = line.trim_start_matches("grandchild ").parse().unwrap();
    let parent = child.pid().unwrap();
    let thread = std::thread::spawn(move || {
        let _child = child;
        std::panic::resume_unwind(Box::new("a test that fails"));
    });
    assert!(thread.join().is_err());
    assert!(is_gone(parent) && is_gone(grandchild));
}

#[test]
fn a_child_that_is_never_ready_is_an_error_that_shows_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let spawn = |script, deadline| {
        Process::spawn("child", shell(script), dir.path(), |_| false, deadline).unwrap_err()
    };
    let ended = spawn("echo no such file; exit 1", DEADLINE).to_string();
    assert!(
        ended.contains("ended before readiness") && ended.contains("no such file"),
        "{ended}"
    );
    let slow = spawn("exec sleep 600", Duration::from_millis(100)).to_string();
    assert!(slow.contains("did not reach in time"), "{slow}");
    let missing = Process::spawn(
        "child",
        Command::new("/no/such/program"),
        dir.path(),
        |_| true,
        DEADLINE,
    );
    assert!(format!("{:#}", missing.unwrap_err()).contains("/no/such/program"));
}

#[test]
fn directories_are_removed_unless_kept() {
    let parent = tempfile::tempdir().unwrap();
    let gone = registry::Dir::new_in(parent.path(), "gone").unwrap();
    let mut kept = registry::Dir::new_in(parent.path(), "kept").unwrap();
    kept.keep();
    let (gone_path, kept_path) = (gone.path().to_path_buf(), kept.path().to_path_buf());
    drop((gone, kept));
    assert!(!gone_path.exists());
    assert!(kept_path.exists());
}

/// Set for the copy of this test program that plays the interrupted process.
const ROLE: &str = "XTASK_TEST_INTERRUPTED";

#[test]
fn an_interrupted_process_ends_its_children_and_removes_its_directories() {
    if let Some(parent) = std::env::var_os(ROLE) {
        return be_interrupted(std::path::Path::new(&parent));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut copy = Command::new(std::env::current_exe().unwrap());
    copy.args([
        "--exact",
        "an_interrupted_process_ends_its_children_and_removes_its_directories",
        "--nocapture",
    ]);
    copy.env(ROLE, dir.path());
    let is_ready = |line: &str| line.contains("children run");
    let mut copy = Process::spawn("interrupted", copy, dir.path(), is_ready, DEADLINE).unwrap();
    let pids = copy
        .ready_line()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect::<Vec<u32>>();
    assert_eq!(pids.len(), 2, "{}", copy.ready_line());

    assert_eq!(copy.terminate(DEADLINE).unwrap().unwrap().code(), Some(130));
    assert!(pids.into_iter().all(is_gone));
    let left = std::fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir());
    assert_eq!(left.count(), 0);
}

fn be_interrupted(parent: &std::path::Path) {
    let dir = registry::Dir::new_in(parent, "run").unwrap();
    let start = |name: &str, script: &str| {
        Process::spawn(name, shell(script), dir.path(), |_| true, DEADLINE).unwrap()
    };
    let mut polite = start("polite", "echo ready; exec sleep 600");
    let mut deaf = start(
        "deaf",
        "trap '' TERM; echo ready; while :; do sleep 0.05; done",
    );
    let pids = format!(
        "children run {} {}",
        polite.pid().unwrap(),
        deaf.pid().unwrap()
    );
    xtask::say::line(&pids);
    let _ = polite.wait(DEADLINE * 3);
}
