//! The command as a person runs it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const BINARY: &str = env!("CARGO_BIN_EXE_keyfleet-sim");

/// A running simulator; it ends with the test, however the test ends.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    url: String,
}

impl Running {
    fn start(arguments: &[&str], ready: &str) -> Self {
        let mut child = Command::new(BINARY)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the simulator runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("the simulator runs"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("the simulator runs");
        let url = line
            .trim_end()
            .strip_prefix(ready)
            .unwrap_or_else(|| panic!("{line}"))
            .to_owned();
        Self { child, stdout, url }
    }

    /// Sends the signal, and checks that nothing else was printed and that the end is a clean one.
    fn end(mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the simulator runs");
        let mut rest = String::new();
        self.stdout
            .read_to_string(&mut rest)
            .expect("the simulator runs");
        assert!(self.child.wait().expect("the simulator runs").success());
        assert_eq!(rest, "");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(arguments: &[&str]) -> Output {
    Command::new(BINARY)
        .args(arguments)
        .output()
        .expect("the simulator runs")
}

fn stdout(arguments: &[&str]) -> String {
    let output = command(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("the simulator runs")
}

#[test]
fn kibana_prints_one_line_and_obeys_its_switches() {
    let arguments = [
        "kibana",
        "--version",
        "9.4.0",
        "--listen",
        "127.0.0.1:0",
        "--spaces",
        "default,soc",
        "--api-key",
        "k",
    ];
    let kibana = Running::start(&arguments, "keyfleet-sim: kibana 9.4.0 ready at ");
    let url = kibana.url.clone();
    let set = stdout(&["fault", "--url", &url, "{\"licence\": \"basic\"}"]);
    assert!(set.contains("\"licence\": \"basic\""), "{set}");
    assert_eq!(stdout(&["fault", "--url", &url]), set);
    assert!(stdout(&["fault", "--url", &url, "--clear"]).contains("\"licence\": null"));
    assert_eq!(stdout(&["log", "--url", &url]), "[]\n");
    let refused = command(&["fault", "--url", &url, "{\"licens\": 1}"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("unknown field `licens`"));
    kibana.end(Signal::TERM);
    assert!(!command(&["log", "--url", &url]).status.success());
}

#[test]
fn openai_prints_one_line_and_changes_its_keys() {
    let arguments = [
        "openai",
        "--listen",
        "127.0.0.1:0",
        "--key",
        "sk-one-1111",
        "--model",
        "gpt-4.1",
    ];
    let openai = Running::start(&arguments, "keyfleet-sim: openai ready at ");
    let added = stdout(&["keys", "--url", &openai.url, "add", "sk-two-2222"]);
    assert!(added.contains("\"tail\": \"2222\""), "{added}");
    assert!(
        stdout(&["keys", "--url", &openai.url, "revoke", "sk-one-1111"])
            .contains("\"active\": false")
    );
    assert!(stdout(&["keys", "--url", &openai.url]).contains("1111"));
    openai.end(Signal::INT);
}

#[test]
fn a_start_that_cannot_work_says_why() {
    let cases: [(&[&str], &str); 3] = [
        (
            &["kibana", "--version", "7.17.0", "--api-key", "k"],
            "is not a Kibana version that can be simulated",
        ),
        (&["kibana"], "--api-key"),
        (
            &["openai", "--listen", "192.0.2.1:80"],
            "cannot listen on 192.0.2.1:80",
        ),
    ];
    for (arguments, text) in cases {
        let output = command(arguments);
        assert!(!output.status.success());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(text), "{arguments:?}: {stderr}");
    }
}

#[test]
fn elasticsearch_has_a_port_of_its_own() {
    let listen = "127.0.0.1:0";
    let arguments = [
        "kibana",
        "--listen",
        listen,
        "--api-key",
        "a",
        "--elasticsearch-listen",
        listen,
    ];
    let kibana = Running::start(&arguments, "keyfleet-sim: kibana 9.4.0 ready at ");
    let (_, elastic) = kibana
        .url
        .split_once(" and elasticsearch at ")
        .expect("both addresses");
    let set = ["fault", "--url", elastic, "{\"privilege\": \"monitor\"}"];
    assert!(stdout(&set).contains("\"privilege\": \"monitor\""));
    kibana.end(Signal::TERM);
}
