//! Everything the demo and the e2e tests run on: OpenBao, simulated Kibanas and OpenAI, and (started on top of it) the
//! control service and the agents. All files lie in one directory under `target/`, all processes end with it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::bao::Bao;
use crate::binaries;
use crate::process::Process;
use crate::registry::Dir;

/// How long one of our own processes may take to be ready on a busy machine.
pub const READY: Duration = Duration::from_secs(30);

/// A directory with a running OpenBao and whatever is started in it. Fields drop in order: processes before the
/// directory they write to.
#[derive(Debug)]
pub struct Stack {
    /// The secret store.
    pub bao: Bao,
    /// More nodes of its cluster ([`Stack::start_cluster`]).
    pub more_bao: Vec<Bao>,
    dir: Dir,
}

/// A simulated Kibana or OpenAI: its process and the address it listens on.
#[derive(Debug)]
pub struct Sim {
    /// The process, to be killed and restarted.
    pub process: Process,
    /// `http://127.0.0.1:<port>`.
    pub url: String,
}

impl Stack {
    /// Makes the directory `target/<prefix>…` and starts OpenBao in it.
    ///
    /// # Errors
    /// OpenBao cannot be had or does not start.
    pub fn start(prefix: &str) -> Result<Self> {
        Self::start_with(prefix, Bao::start)
    }

    fn start_with(prefix: &str, start: impl FnOnce(&Path) -> Result<Bao>) -> Result<Self> {
        let dir = Dir::new_in(&binaries::target_dir()?.join("run"), prefix)?;
        let bao_dir = dir.path().join("openbao");
        std::fs::create_dir(&bao_dir).context("cannot make OpenBao's directory")?;
        Ok(Self {
            bao: start(&bao_dir)?,
            more_bao: Vec::new(),
            dir,
        })
    }

    /// As [`Stack::start`], with an OpenBao that keeps nothing over a restart and is ready at once: for tests that
    /// leave it alone.
    ///
    /// # Errors
    /// As [`Stack::start`].
    pub fn start_quick(prefix: &str) -> Result<Self> {
        Self::start_with(prefix, Bao::start_in_memory)
    }

    /// As [`Stack::start`], with three nodes of OpenBao, the first of which leads.
    ///
    /// # Errors
    /// As [`Stack::start`].
    pub fn start_cluster(prefix: &str) -> Result<Self> {
        let mut stack = Self::start(prefix)?;
        for name in ["openbao-2", "openbao-3"] {
            let node = stack.bao.join(&stack.dir().join(name))?;
            stack.more_bao.push(node);
        }
        Ok(stack)
    }

    /// Where every file and log of this run lies.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves the directory on disk.
    pub fn keep_files(&mut self) {
        self.dir.keep();
    }

    /// Starts a simulated Kibana on a free port. `spaces` beside it exist from the start; `api_key` is the key that
    /// callers must present. A restart keeps its port and its connectors, which lie in `<name>.state`.
    ///
    /// # Errors
    /// `keyfleet-sim` is not built or does not become ready.
    pub fn kibana(&self, name: &str, version: &str, spaces: &[&str], api_key: &str) -> Result<Sim> {
        self.kibana_with(name, version, spaces, api_key, &[])
    }

    /// As [`Stack::kibana`], with more of the simulator's flags.
    ///
    /// # Errors
    /// As [`Stack::kibana`].
    pub fn kibana_with(
        &self,
        name: &str,
        version: &str,
        spaces: &[&str],
        api_key: &str,
        more: &[&str],
    ) -> Result<Sim> {
        let spaces = spaces.join(",");
        let state = self.dir().join(format!("{name}.state"));
        let state = state.to_string_lossy();
        let arguments = [
            "kibana",
            "--version",
            version,
            "--spaces",
            &spaces,
            "--api-key",
            api_key,
            "--state",
            &state,
        ];
        self.sim(name, &[&arguments[..], more].concat())
    }

    /// Starts a simulated OpenAI on a free port that accepts `keys`.
    ///
    /// # Errors
    /// As [`Stack::kibana`].
    pub fn openai(&self, name: &str, keys: &[&str]) -> Result<Sim> {
        let keys = keys.iter().flat_map(|key| ["--key", key]);
        self.sim(
            name,
            &std::iter::once("openai").chain(keys).collect::<Vec<_>>(),
        )
    }

    /// Starts one of our binaries with its log in this stack's directory.
    ///
    /// # Errors
    /// It is not built, or no line of its output makes `is_ready` true in time.
    pub fn spawn(
        &self,
        name: &str,
        binary: &str,
        arguments: &[&str],
        is_ready: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Process> {
        let mut command = Command::new(binaries::path(binary)?);
        command.args(arguments);
        Process::spawn(name, command, self.dir(), is_ready, READY)
    }

    /// The port is fixed after the first start, so that a restarted simulator is found again.
    fn sim(&self, name: &str, arguments: &[&str]) -> Result<Sim> {
        let listen = format!("127.0.0.1:{}", crate::net::free_port()?);
        let arguments: Vec<&str> = arguments
            .iter()
            .copied()
            .chain(["--listen", &listen])
            .collect();
        let process = self.spawn(name, "keyfleet-sim", &arguments, |line| {
            url_in(line).is_some()
        })?;
        let url =
            url_in(process.ready_line()).context("the simulator did not say where it listens")?;
        Ok(Sim { process, url })
    }
}

/// Runs the simulators' own command, such as `fault`, `log` or `keys`, and returns what it prints.
///
/// # Errors
/// It is not built or fails; the text carries what it said.
pub fn sim_command(arguments: &[&str]) -> Result<String> {
    let output = Command::new(binaries::path("keyfleet-sim")?)
        .args(arguments)
        .output()
        .context("keyfleet-sim does not start")?;
    let text = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "keyfleet-sim {} failed: {text}",
        arguments.join(" ")
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads `keyfleet-sim: kibana 9.4.0 ready at http://127.0.0.1:5601 and elasticsearch at http://127.0.0.1:9200`.
fn url_in(line: &str) -> Option<String> {
    let (_, url) = line
        .strip_prefix("keyfleet-sim:")?
        .split_once(" ready at ")?;
    // A Kibana says after it where its Elasticsearch is.
    let url = url.split_whitespace().next()?;
    url.starts_with("http").then(|| url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_ready_line_of_a_simulator() {
        let line = "keyfleet-sim: kibana 9.4.0 ready at http://127.0.0.1:5601\n";
        assert_eq!(url_in(line).as_deref(), Some("http://127.0.0.1:5601"));
        let both = "keyfleet-sim: kibana 9.4.0 ready at http://127.0.0.1:5601 and elasticsearch at http://x";
        assert_eq!(url_in(both).as_deref(), Some("http://127.0.0.1:5601"));
        for other in [
            "",
            "ready at http://x",
            "keyfleet-sim: openai ready at soon",
            "keyfleet-sim: starting",
        ] {
            assert_eq!(url_in(other), None, "{other}");
        }
    }
}
