//! A real OpenBao server (or HashiCorp's Vault, where that is on the PATH) with TLS on loopback, for tests and the demo.
//!
//! OpenBao from 2.4 runs as in production: raft storage, a static seal, initialised by its own configuration. It is
//! ready after about 3 seconds and keeps its data over a restart (about 0.4 s). HashiCorp's Vault and older OpenBao run in dev mode with TLS, which
//! is ready at once, but forgets everything at a restart ([`Bao::is_lasting`]). Both have a KV v2 mount `secret/` and
//! AppRole at `auth/approle/`.
//!
//! Lasting servers form a cluster ([`Bao::join`]).
//!
//! Everything an operator would do goes through the program's own command line, so that no second client can hide a
//! fault of the one under test.

mod cluster;
mod config;
mod fetch;
mod kv;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::Process;
use crate::{net, wait};

/// How long a server may take to listen. It needs 3 seconds on a quiet machine and was seen to need 12 on a busy one.
const START: Duration = Duration::from_secs(60);
/// How long it may take, once it listens, to answer as the active node.
const ACTIVE: Duration = Duration::from_secs(30);
/// How long it may take to end in good order.
const STOP: Duration = Duration::from_secs(10);
/// How long one request of the command line may take, as the program reads it; its own default is a minute.
const CLI_TIMEOUT: &str = "10s";
/// Another process may take the port between the look and the bind.
const START_TRIES: usize = 3;
/// The token tests and the demo act with as Vault's administrator. It guards nothing but a server on loopback.
const ADMIN_TOKEN: &str = "keyfleet-test-admin";

/// What a server program can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Initialises itself, keeps its data over a restart.
    Lasting,
    /// Dev mode: ready at once, empty after a restart.
    InMemory,
}

/// A running server. It is killed on drop and with this process.
#[derive(Debug)]
pub struct Bao {
    found: fetch::Found,
    dir: PathBuf,
    port: u16,
    process: Process,
}

/// The credentials of an AppRole.
#[derive(Debug, Clone)]
pub struct AppRole {
    /// Names the role; not a secret.
    pub role_id: String,
    /// The password that goes with it.
    pub secret_id: String,
}

/// Makes sure that a server program is there, and fetches it where it is not.
///
/// # Errors
/// The text names what is missing.
pub fn fetch() -> Result<()> {
    fetch::find_or_fetch().map(drop)
}

impl Bao {
    /// Starts a server that keeps everything in `dir` (its log is `dir/openbao.log`) and waits until it answers.
    ///
    /// # Errors
    /// No server program can be had, or it does not start; the text carries the end of its log.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::start_as(&fetch::find_or_fetch()?, dir)
    }

    /// Starts a server in dev mode, in 0.4 s instead of 3: for tests that need no restart, or need it sealed (a
    /// lasting server unseals itself again).
    ///
    /// # Errors
    /// As [`Bao::start`].
    pub fn start_in_memory(dir: &Path) -> Result<Self> {
        let found = fetch::Found {
            kind: Kind::InMemory,
            ..fetch::find_or_fetch()?
        };
        Self::start_as(&found, dir)
    }

    fn start_as(found: &fetch::Found, dir: &Path) -> Result<Self> {
        retrying_port(|| Self::start_once(found.clone(), dir))
    }

    fn start_once(found: fetch::Found, dir: &Path) -> Result<Self> {
        let port = net::free_port_pair()?;
        if found.kind == Kind::Lasting {
            config::write(dir, port, ADMIN_TOKEN)?;
        }
        let bao = Self::start_server(found, dir, port)?;
        bao.set_up()?;
        Ok(bao)
    }

    /// Starts the program on files that are there and waits until it answers.
    fn start_server(found: fetch::Found, dir: &Path, port: u16) -> Result<Self> {
        let mut command = command(&found, dir);
        match found.kind {
            Kind::Lasting => {
                command
                    .arg("server")
                    .arg(format!("-config={}", dir.join("server.hcl").display()));
            }
            Kind::InMemory => {
                command.args(["server", "-dev", "-dev-tls", "-dev-no-store-token"]);
                command.arg(format!("-dev-tls-cert-dir={}", dir.display()));
                command.arg(format!("-dev-root-token-id={ADMIN_TOKEN}"));
                command.arg(format!("-dev-listen-address=127.0.0.1:{port}"));
            }
        }
        let is_up = |line: &str| line.contains("server started!");
        let process = Process::spawn("openbao", command, dir, is_up, START)?;
        let bao = Self {
            found,
            dir: dir.to_path_buf(),
            port,
            process,
        };
        bao.wait_until_active()?;
        Ok(bao)
    }

    /// `https://127.0.0.1:<port>`; the same after a restart.
    pub fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The PEM file that holds the certificate to trust.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join(match self.found.kind {
            Kind::Lasting => "ca.pem",
            Kind::InMemory => "vault-ca.pem",
        })
    }

    /// A token that may do everything.
    pub fn admin_token(&self) -> &'static str {
        ADMIN_TOKEN
    }

    /// Whether a restart keeps the data.
    pub fn is_lasting(&self) -> bool {
        self.found.kind == Kind::Lasting
    }

    /// The server's process: its log, and the means to pause it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends the server in good order; [`Bao::restart`] starts it again.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.process.terminate(STOP).map(drop)
    }

    /// Ends the server in good order, starts it again on the same port and waits until it answers.
    ///
    /// # Errors
    /// It does not end or does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.process.restart()?;
        self.wait_until_active()?;
        if self.is_lasting() {
            Ok(())
        } else {
            self.set_up()
        }
    }

    /// Seals a server in memory: it answers 503 to everything until a restart.
    ///
    /// # Errors
    /// The server refuses.
    pub fn seal(&self) -> Result<()> {
        self.cli(&["operator", "seal"]).map(drop)
    }

    /// Writes a policy in the server's own language.
    ///
    /// # Errors
    /// The server refuses.
    pub fn policy(&self, name: &str, rules: &str) -> Result<()> {
        self.cli_with_input(&["policy", "write", name, "-"], rules)
            .map(drop)
    }

    /// Makes a renewable token with one policy; `ttl` as in `30s` or `1h`.
    ///
    /// # Errors
    /// The server refuses.
    pub fn token(&self, policy: &str, ttl: &str) -> Result<String> {
        let (policy, ttl) = (format!("-policy={policy}"), format!("-ttl={ttl}"));
        let answer = self.cli(&["token", "create", "-format=json", "-orphan", &policy, &ttl])?;
        text(&answer, "/auth/client_token")
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// The server refuses.
    pub fn revoke_token(&self, token: &str) -> Result<()> {
        self.cli(&["token", "revoke", token]).map(drop)
    }

    /// Makes or changes an AppRole whose tokens have one policy, live `ttl` and at most `max_ttl`, and gives it a new
    /// secret id that may be used any number of times.
    ///
    /// # Errors
    /// The server refuses.
    pub fn approle(&self, role: &str, policy: &str, ttl: &str, max_ttl: &str) -> Result<AppRole> {
        let path = format!("auth/approle/role/{role}");
        let policy = format!("token_policies={policy}");
        let (ttl, max_ttl) = (
            format!("token_ttl={ttl}"),
            format!("token_max_ttl={max_ttl}"),
        );
        self.cli(&["write", &path, &policy, &ttl, &max_ttl])?;
        let role_id = self.cli(&["read", "-format=json", &format!("{path}/role-id")])?;
        let secret_id = self.cli(&[
            "write",
            "-format=json",
            "-force",
            &format!("{path}/secret-id"),
        ])?;
        Ok(AppRole {
            role_id: text(&role_id, "/data/role_id")?,
            secret_id: text(&secret_id, "/data/secret_id")?,
        })
    }

    /// Runs any other command of the program as administrator and returns what it printed.
    ///
    /// # Errors
    /// It fails; the text carries what it said.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        self.cli_with_input(arguments, "")
    }

    /// As [`Bao::cli`], with `input` on stdin, so that a secret does not appear among the arguments.
    ///
    /// # Errors
    /// As [`Bao::cli`].
    pub fn cli_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.run(arguments, input)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "the server's command `{}` failed: {}",
                arguments.join(" "),
                said.trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut command = command(&self.found, &self.dir);
        for prefix in ["BAO", "VAULT"] {
            command.env(format!("{prefix}_ADDR"), self.address());
            command.env(format!("{prefix}_CACERT"), self.ca_file());
            command.env(format!("{prefix}_TOKEN"), ADMIN_TOKEN);
            command.env(format!("{prefix}_CLIENT_TIMEOUT"), CLI_TIMEOUT);
        }
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .context("cannot run the server's own command line")?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that reads no input has closed it already.
            let _ = stdin.write_all(input.as_bytes());
        }
        child
            .wait_with_output()
            .context("cannot run the server's own command line")
    }

    fn wait_until_active(&self) -> Result<()> {
        let is_active = || self.cli(&["token", "lookup"]).is_ok().then_some(());
        wait::until(ACTIVE, is_active)
            .with_context(|| format!("OpenBao at {} does not become active", self.address()))
    }

    /// Dev mode brings `secret/` along.
    fn set_up(&self) -> Result<()> {
        if self.is_lasting() {
            self.cli(&["secrets", "enable", "-path=secret", "kv-v2"])?;
        }
        self.cli(&["auth", "enable", "approle"])?;
        // A new KV v2 mount refuses reads and writes while it sets itself up.
        let is_usable = || {
            self.cli(&["kv", "list", "-mount=secret", ""]).map_or_else(
                |error| error.to_string().contains("No value found").then_some(()),
                |_| Some(()),
            )
        };
        wait::until(ACTIVE, is_usable).context("the mount secret/ does not become usable")
    }
}

fn retrying_port(mut start: impl FnMut() -> Result<Bao>) -> Result<Bao> {
    let mut tries = 1;
    loop {
        match start() {
            Err(error) if tries < START_TRIES && is_port_taken(&error) => tries += 1,
            other => return other,
        }
    }
}

fn is_port_taken(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("address already in use")
}

/// The program with a clean environment: settings and tokens of the person who runs this stay out, and nothing is
/// written into the home directory.
fn command(found: &fetch::Found, dir: &Path) -> Command {
    let mut command = Command::new(&found.binary);
    command.env_clear().env("HOME", dir);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

fn text(answer: &str, pointer: &str) -> Result<String> {
    at(answer, pointer)?
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("{pointer} is no text"))
}

fn number(answer: &str, pointer: &str) -> Result<u64> {
    at(answer, pointer)?
        .as_u64()
        .with_context(|| format!("{pointer} is no number"))
}

fn at(answer: &str, pointer: &str) -> Result<Value> {
    let answer: Value =
        serde_json::from_str(answer).context("the server's command line printed no JSON")?;
    answer
        .pointer(pointer)
        .cloned()
        .with_context(|| format!("the server's answer has no {pointer}"))
}
