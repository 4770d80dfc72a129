//! `cargo xtask bench`: what the product weighs, beside its bars.
//!
//! So far the three weights of the agent: the binary of its own build profile, the memory of an agent that has proven
//! a connector and is idle in its session, and the crates that it links; and how long one decision of the engine takes.

mod plan;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::fleet::AgentOptions;
use crate::manifests::Manifests;
use crate::process::Process;
use crate::stack::{READY, Stack};
use crate::{bao, binaries, say, wait};

/// An agent of the same crates that does nothing: its stripped binary and its memory.
const FLOOR_BINARY_MB: f64 = 3.8;
const FLOOR_MEMORY_MB: f64 = 7.0;

/// How long the memory of the idle agent is watched: five heartbeats. The largest figure counts.
const WATCH: Duration = Duration::from_secs(10);

/// Looks like a key and opens nothing.
const KEY: &str = "sk-proj-keyfleet-bench-000000000000000000000000000aQ3d";

const API_KEY: &str = "kibana-key-of-bench";

/// One figure of ours beside what it is compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    name: &'static str,
    unit: &'static str,
    ours: f64,
    /// What the same thing weighs at least; `None` = nothing to compare with, or it is shown only.
    floor: Option<f64>,
    /// The most it may be; `None` = it is shown only.
    bar: Option<f64>,
}

/// Resident memory of a process in bytes, as the kernel counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    resident: u64,
    anonymous: u64,
}

/// Measures and prints the table, and writes it to `json` where asked.
///
/// # Errors
/// Something cannot be built, started or read, or a bar is broken.
pub fn run(json: Option<&Path>) -> Result<()> {
    say::line("building the agent with its own profile: some minutes the first time ...");
    binaries::run(
        "cargo",
        &["build", "-p", "keyfleet-agent", "--profile", "agent"],
    )?;
    let binary = binaries::target_dir()?.join("agent").join("keyfleet-agent");
    let size = std::fs::metadata(&binary)
        .context("the agent's binary is not there")?
        .len();
    let n_crates = crates_of("keyfleet-agent")?;
    bao::fetch()?;
    say::line("building what the agent needs around it ...");
    binaries::build()?;
    say::line("starting OpenBao, control, a simulated Kibana and one agent ...");
    let memory = idle_memory(&binary)?;
    say::line("measuring one decision over 100,000 bindings ...");
    let mut bars = bars(size, memory, n_crates);
    bars.extend(plan::bars()?);
    report(&bars, json)
}

/// The command line's arguments: nothing, or `--json FILE`.
///
/// # Errors
/// Anything else.
pub fn arguments(arguments: &[String]) -> Result<Option<PathBuf>> {
    match arguments {
        [] => Ok(None),
        [flag, file] if flag == "--json" => Ok(Some(PathBuf::from(file))),
        _ => bail!("`bench` takes nothing or `--json FILE`"),
    }
}

impl Bar {
    fn ratio(&self) -> Option<f64> {
        self.floor.map(|floor| self.ours / floor)
    }

    fn pass(&self) -> bool {
        self.bar.is_none_or(|bar| self.ours <= bar)
    }
}

fn bars(size: u64, memory: Memory, n_crates: usize) -> Vec<Bar> {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    vec![
        Bar {
            name: "agent: stripped binary",
            unit: "MB",
            ours: mb(size),
            floor: Some(FLOOR_BINARY_MB),
            bar: Some(5.0),
        },
        Bar {
            name: "agent: idle resident memory",
            unit: "MB",
            ours: mb(memory.resident),
            floor: Some(FLOOR_MEMORY_MB),
            bar: Some(10.0),
        },
        Bar {
            name: "agent: of that its own (RssAnon)",
            unit: "MB",
            ours: mb(memory.anonymous),
            floor: None,
            bar: None,
        },
        Bar {
            name: "agent: crates it links",
            unit: "crates",
            ours: n_crates as f64,
            floor: None,
            bar: Some(200.0),
        },
    ]
}

fn report(bars: &[Bar], json: Option<&Path>) -> Result<()> {
    // A closed pipe is no reason to fail.
    let _ = std::io::stdout().write_all(table(bars).as_bytes());
    if let Some(file) = json {
        let text = format!("{:#}\n", as_json(bars));
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let broken: Vec<&str> = bars
        .iter()
        .filter(|bar| !bar.pass())
        .map(|bar| bar.name)
        .collect();
    ensure!(broken.is_empty(), "broken bars: {}", broken.join(", "));
    Ok(())
}

fn table(bars: &[Bar]) -> String {
    let figure =
        |figure: Option<f64>| figure.map_or("-".to_owned(), |figure| format!("{figure:.2}"));
    let mut text = format!(
        "{:<34}{:>8}{:>8}{:>8}{:>8}  {:<8}{}\n",
        "name", "ours", "floor", "ratio", "bar", "unit", "pass"
    );
    for bar in bars {
        let pass = match (bar.bar, bar.pass()) {
            (None, _) => "-",
            (Some(_), true) => "yes",
            (Some(_), false) => "NO",
        };
        let (ours, floor) = (figure(Some(bar.ours)), figure(bar.floor));
        let (ratio, limit) = (figure(bar.ratio()), figure(bar.bar));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<34}{ours:>8}{floor:>8}{ratio:>8}{limit:>8}  {:<8}{pass}",
            bar.name, bar.unit
        );
    }
    text
}

fn as_json(bars: &[Bar]) -> serde_json::Value {
    let row = |bar: &Bar| {
        json!({
            "name": bar.name, "unit": bar.unit, "ours": bar.ours, "floor": bar.floor,
            "ratio": bar.ratio(), "bar": bar.bar, "pass": bar.pass(),
        })
    };
    json!({ "bars": bars.iter().map(row).collect::<Vec<_>>() })
}

/// How many crates a package links on this machine, itself included; what only its build needs is not counted.
fn crates_of(package: &str) -> Result<usize> {
    let output = Command::new("cargo")
        .args([
            "tree",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--package",
            package,
        ])
        .current_dir(binaries::workspace())
        .output()
        .context("cargo tree does not start")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo tree failed: {text}");
    Ok(distinct_crates(&String::from_utf8_lossy(&output.stdout)))
}

/// Counts name and version; a crate that is listed again carries a `(*)`.
fn distinct_crates(tree: &str) -> usize {
    let named = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    };
    tree.lines()
        .filter_map(named)
        .collect::<BTreeSet<_>>()
        .len()
}

/// Memory of a real agent that has a session, has written and proven one connector, and has nothing more to do.
fn idle_memory(binary: &Path) -> Result<Memory> {
    let stack = Stack::start("bench-")?;
    stack.bao.kv_put("keyfleet/openai", "api_key", KEY)?;
    let openai = stack.openai("openai", &[KEY])?;
    let kibana = stack.kibana("kibana", "9.4.0", &["default"], API_KEY)?;
    let control = stack.control(&[])?;
    let options = AgentOptions {
        name: "bench",
        labels: &[("env", "prod")],
        api_key: API_KEY,
        join_token: &stack.join_token(1)?,
        drift_interval_secs: 300,
    };
    let mut command = Command::new(binary);
    command
        .args(["run", "--config"])
        .arg(stack.agent_config(&control, &kibana, &options)?);
    let is_ready = |line: &str| line.contains("session established");
    let mut agent = Process::spawn("agent", command, stack.dir(), is_ready, READY)?;
    let manifests = Manifests::copy(&stack.dir().join("manifests"), &openai.url)?;
    let dir = manifests.dir().to_string_lossy().into_owned();
    stack
        .keyfleet(&["apply", "-f", &dir, "--wait", "--timeout", "3m"])?
        .must_succeed()?;
    say::line("the agent has proven its connector; watching it idle ...");
    let pid = agent.pid().context("the agent ended")?;
    let mut largest = Memory::of(pid)?;
    wait::until(WATCH, || {
        let now = Memory::of(pid).ok()?;
        largest = if now.resident > largest.resident {
            now
        } else {
            largest
        };
        None::<()>
    });
    ensure!(
        agent.is_running(),
        "the agent ended while it was watched; its log is lost with it"
    );
    Ok(largest)
}

impl Memory {
    fn of(pid: u32) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
            .context("the agent's memory cannot be read: this needs Linux's /proc")?;
        Self::read(&status).context("/proc shows no VmRSS and RssAnon")
    }

    /// Reads `/proc/<pid>/status`, which counts in KiB and writes `kB`.
    fn read(status: &str) -> Option<Self> {
        let bytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
            Some(kib * 1024)
        };
        Some(Self {
            resident: bytes("VmRSS:")?,
            anonymous: bytes("RssAnon:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_figures_and_the_tree() {
        let status = "Name:\tagent\nVmRSS:\t    7012 kB\nRssAnon:\t    1500 kB\n";
        let expected = Memory {
            resident: 7012 * 1024,
            anonymous: 1500 * 1024,
        };
        assert_eq!(Memory::read(status), Some(expected));
        assert_eq!(Memory::read("VmRSS:\tmuch\n"), None);
        let tree = "a v1.0.0 (/somewhere)\nb v2.0.0\nb v2.0.0 (*)\nb v3.0.0\n\n";
        assert_eq!(distinct_crates(tree), 3);
    }

    #[test]
    fn a_broken_bar_is_named_in_table_json_and_exit_code() {
        let memory = Memory {
            resident: 10_000_001,
            anonymous: 20_000_000,
        };
        let bars = bars(4_000_000, memory, 200);
        let error = report(&bars, None).unwrap_err().to_string();
        assert_eq!(error, "broken bars: agent: idle resident memory");
        assert!(
            table(&bars)
                .lines()
                .nth(2)
                .is_some_and(|line| line.ends_with("NO"))
        );
        let json = as_json(&bars);
        assert_eq!(json["bars"][1]["pass"], false);
        assert_eq!(json["bars"][0]["ratio"], 4.0 / 3.8);
        let light = self::bars(
            5_000_000,
            Memory {
                resident: 10_000_000,
                anonymous: 1,
            },
            200,
        );
        assert!(
            report(&light, None).is_ok(),
            "a bar is the most that is allowed"
        );
    }

    #[test]
    fn the_command_line_names_at_most_a_file() {
        let read = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            arguments(&words).ok()
        };
        assert_eq!(read(""), Some(None));
        assert_eq!(read("--json out.json"), Some(Some("out.json".into())));
        assert_eq!(read("--json"), None);
        assert_eq!(read("fast"), None);
    }
}
