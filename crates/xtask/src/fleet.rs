//! Our own processes on top of a [`Stack`]: the control service, agents, and the operator's command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::binaries;
use crate::process::Process;
use crate::stack::{READY, Sim, Stack};

/// What the control service may do in Vault: read what lies under `secret/keyfleet/`, and nothing else.
const POLICY: &str = r#"
path "secret/data/keyfleet/*" { capabilities = ["read"] }
path "secret/metadata/keyfleet/*" { capabilities = ["read", "list"] }
"#;

/// The control service: its process and where it listens.
#[derive(Debug)]
pub struct Control {
    /// To be killed and restarted.
    pub process: Process,
    /// Its data directory: database, CA, first token.
    pub data_dir: PathBuf,
    /// `https://127.0.0.1:<operators' port>`, where `/metrics` is too.
    pub operators_url: String,
    /// The port that agents dial.
    pub agents_port: u16,
}

/// What an agent is told beside its Kibana.
#[derive(Debug, Clone, Copy)]
pub struct AgentOptions<'a> {
    /// Name of the deployment, of the files and of the log.
    pub name: &'a str,
    /// Claimed labels.
    pub labels: &'a [(&'a str, &'a str)],
    /// The API key for its Kibana.
    pub api_key: &'a str,
    /// File with the join token.
    pub join_token: &'a Path,
    /// How often it looks for drift.
    pub drift_interval_secs: u32,
}

/// What the operator's command did.
#[derive(Debug)]
pub struct Done {
    /// Its exit code.
    pub code: i32,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

impl Stack {
    /// Sets up and starts the control service on free ports, with short intervals; `settings` are
    /// environment variables that override more of them. A context for the operator's command is made too.
    ///
    /// # Errors
    /// A binary is not built, or a step of the set-up fails; the text says which.
    pub fn control(&self, settings: &[(&str, &str)]) -> Result<Control> {
        let (agents_port, operators_port) = (crate::net::free_port()?, crate::net::free_port()?);
        let data_dir = self.dir().join("control");
        let config = self.dir().join("control.toml");
        let token_file = self.dir().join("vault-token");
        self.bao.policy("keyfleet", POLICY)?;
        fs::write(&token_file, self.bao.token("keyfleet", "24h")?)?;
        fs::write(
            &config,
            self.control_toml(&data_dir, &token_file, agents_port, operators_port),
        )?;
        let control = || -> Result<Command> {
            let mut command = Command::new(binaries::path("keyfleet-control")?);
            command
                .arg("--config")
                .arg(&config)
                .envs(settings.iter().copied());
            Ok(command)
        };
        let made = control()?
            .arg("init")
            .output()
            .context("keyfleet-control does not start")?;
        if !made.status.success() {
            bail!(
                "keyfleet-control init failed: {}",
                String::from_utf8_lossy(&made.stderr)
            );
        }
        let mut serve = control()?;
        serve.arg("serve");
        let is_ready = |line: &str| line.contains("control service ready");
        let process = Process::spawn("control", serve, self.dir(), is_ready, READY)?;
        self.add_context(&data_dir, operators_port)?;
        let operators_url = format!("https://127.0.0.1:{operators_port}");
        Ok(Control {
            process,
            data_dir,
            operators_url,
            agents_port,
        })
    }

    fn control_toml(
        &self,
        data_dir: &Path,
        token_file: &Path,
        agents_port: u16,
        operators_port: u16,
    ) -> String {
        format!(
            r#"data_dir = {data_dir:?}
[agents]
listen = "127.0.0.1:{agents_port}"
heartbeat_secs = 2
probes_per_minute = 0
fleet_probes_per_minute = 0
[outbound]
allowed_hosts = ["127.0.0.1", "localhost"]
[operators]
listen = "127.0.0.1:{operators_port}"
[vault]
address = "{}"
ca_file = {:?}
token_file = {token_file:?}
poll_interval_secs = 1
[shutdown]
deadline_secs = 5
"#,
            self.bao.address(),
            self.bao.ca_file(),
        )
    }

    fn add_context(&self, data_dir: &Path, port: u16) -> Result<()> {
        let endpoint = format!("https://127.0.0.1:{port}");
        let (ca, token) = (data_dir.join("ca.pem"), data_dir.join("admin.token"));
        let ca = ca.to_string_lossy();
        let token = token.to_string_lossy();
        let arguments = [
            "context",
            "add",
            "demo",
            "--endpoint",
            &endpoint,
            "--ca",
            &ca,
            "--token-file",
            &token,
            "--use",
        ];
        self.keyfleet(&arguments)?.must_succeed().map(drop)
    }

    /// The file of contexts of this stack's operator.
    pub fn operator_config(&self) -> PathBuf {
        self.dir().join("operator").join("config.toml")
    }

    /// The operator's command, ready to run.
    ///
    /// # Errors
    /// It is not built.
    pub fn keyfleet_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binaries::path("keyfleet")?);
        command
            .args(arguments)
            .env("KEYFLEET_CONFIG", self.operator_config());
        Ok(command)
    }

    /// Runs the operator's command and takes what it prints.
    ///
    /// # Errors
    /// It is not built or does not start; how it ends is in [`Done`].
    pub fn keyfleet(&self, arguments: &[&str]) -> Result<Done> {
        let output = self
            .keyfleet_command(arguments)?
            .output()
            .context("keyfleet does not start")?;
        Ok(Done::from(output))
    }

    /// Runs the operator's command with `-o json` and reads what it prints.
    ///
    /// # Errors
    /// It fails, or prints no JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
        let done = self.keyfleet(&arguments)?.must_succeed()?;
        serde_json::from_str(&done.out).with_context(|| format!("not JSON: {}", done.out))
    }

    /// Makes a join token and returns the file it lies in.
    ///
    /// # Errors
    /// Control refuses.
    pub fn join_token(&self, uses: u32) -> Result<PathBuf> {
        let file = self.dir().join("join.token");
        if file.exists() {
            fs::remove_file(&file)?;
        }
        let (path, uses) = (file.to_string_lossy(), uses.to_string());
        let arguments = [
            "token",
            "create",
            "join",
            "--uses",
            &uses,
            "--output-file",
            &path,
        ];
        self.keyfleet(&arguments)?.must_succeed()?;
        Ok(file)
    }

    /// Starts an agent beside a simulated Kibana and waits for its first session.
    ///
    /// # Errors
    /// It is not built, or does not get a session.
    pub fn agent(
        &self,
        control: &Control,
        kibana: &Sim,
        options: &AgentOptions<'_>,
    ) -> Result<Process> {
        self.agent_with(control, kibana, options, &[])
    }

    /// As [`Stack::agent`], with settings as environment variables.
    ///
    /// # Errors
    /// As [`Stack::agent`].
    pub fn agent_with(
        &self,
        control: &Control,
        kibana: &Sim,
        options: &AgentOptions<'_>,
        settings: &[(&str, &str)],
    ) -> Result<Process> {
        let config = self.agent_config(control, kibana, options)?;
        let mut command = Command::new(binaries::path("keyfleet-agent")?);
        command
            .args(["run", "--config"])
            .arg(&config)
            .envs(settings.iter().copied());
        let is_ready = |line: &str| line.contains("session established");
        Process::spawn(
            &format!("agent-{}", options.name),
            command,
            self.dir(),
            is_ready,
            READY,
        )
    }

    /// Writes the settings of an agent and returns their file.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn agent_config(
        &self,
        control: &Control,
        kibana: &Sim,
        options: &AgentOptions<'_>,
    ) -> Result<PathBuf> {
        let name = options.name;
        let key_file = self.dir().join(format!("{name}.kibana-api-key"));
        write_private(&key_file, options.api_key)?;
        let labels: String = options
            .labels
            .iter()
            .map(|(key, value)| format!("{key} = {value:?}\n"))
            .collect();
        let text = format!(
            r#"state_dir = {:?}
[deployment]
name = "{name}"
[deployment.labels]
{labels}
[control]
address = "https://127.0.0.1:{}"
join_token_file = {:?}
[kibana]
url = "{}"
credentials_file = {key_file:?}
[accept]
hosts = ["127.0.0.1"]
[drift]
interval_secs = {}
"#,
            self.dir().join(format!("{name}.state")),
            control.agents_port,
            options.join_token,
            kibana.url,
            options.drift_interval_secs,
        );
        let config = self.dir().join(format!("{name}.toml"));
        fs::write(&config, text)?;
        Ok(config)
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Done {
    /// Itself, if the exit code is 0.
    ///
    /// # Errors
    /// Any other exit code; the text carries what was printed.
    pub fn must_succeed(self) -> Result<Self> {
        if self.code == 0 {
            return Ok(self);
        }
        bail!(
            "keyfleet ended with {}: {}{}",
            self.code,
            self.out,
            self.err
        )
    }
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
