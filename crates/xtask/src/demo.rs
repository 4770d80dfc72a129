//! `cargo xtask demo`: the main job on this machine, with everything that is outside of it simulated or real and local.

mod rotate;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::fleet::{AgentOptions, Control};
use crate::manifests::Manifests;
use crate::process::Process;
use crate::stack::{Sim, Stack, sim_command};
use crate::{bao, binaries, say, wait};

/// Name, Kibana version, spaces, labels.
type Member = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
);

/// The fleet: five versions, one with three spaces, one canary.
const FLEET: [Member; 5] = [
    ("archive", "8.11.4", &["default"], &[("env", "prod")]),
    (
        "lab",
        "8.18.0",
        &["default"],
        &[("env", "test"), ("tier", "canary")],
    ),
    ("shop", "9.1.0", &["default"], &[("env", "prod")]),
    (
        "soc",
        "9.4.0",
        &["default", "soc", "hunting"],
        &[("env", "prod"), ("team", "security")],
    ),
    ("web", "9.6.0", &["default"], &[("env", "prod")]),
];

/// One connector in each default space, and two more spaces of `soc`.
const BINDINGS: usize = 7;

/// The deployment that goes first and that is broken in the last act.
const CANARY: &str = "lab";

/// Looks like a key and opens nothing.
const KEY: &str = "sk-proj-keyfleet-demo-0000000000000000000000000000aQ3d";

const MODELS: [&str; 3] = ["gpt-5.4-mini", "gpt-5.2", "gpt-5.4"];

/// A real Kibana takes its time for each answer; at loopback speed nobody would see the waves.
const SLOW: &str = r#""api": {"mode": "slow", "delay_ms": 250}"#;

const CONNECTED: Duration = Duration::from_secs(30);

/// Exit codes of the operator's command (see `keyfleet --help`).
const COMPLETED: i32 = 0;
const ROLLED_BACK: i32 = 6;

/// Everything that runs. Fields drop in order: agents before what they talk to.
struct Demo {
    agents: Vec<Process>,
    control: Control,
    kibanas: Vec<(&'static str, Sim)>,
    openai: Sim,
    manifests: Manifests,
    stack: Stack,
}

/// What the demo shows beside its three acts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Everything stays up until Ctrl-C.
    pub keep: bool,
    /// A fourth act: a key is rotated.
    pub rotate: bool,
}

/// Reads the flags.
///
/// # Errors
/// One that is not known.
pub fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options::default();
    for argument in arguments {
        match argument.as_str() {
            "--keep" => options.keep = true,
            "--rotate" => options.rotate = true,
            other => bail!("`demo` knows `--keep` and `--rotate`, not `{other}`"),
        }
    }
    Ok(options)
}

/// Runs the demo.
///
/// # Errors
/// Any act did not go as told: the exit code is 0 only if all of it really happened.
pub fn run(options: Options) -> Result<()> {
    title("Setting up");
    bao::fetch()?;
    binaries::build()?;
    let demo = Demo::start()?;
    demo.first_install()?;
    demo.new_model()?;
    demo.broken_canary()?;
    if options.rotate {
        demo.rotate()?;
    }
    demo.close(options.keep)
}

impl Demo {
    fn start() -> Result<Self> {
        say::line("starting OpenBao (TLS, its own storage) ...");
        let stack = Stack::start("demo-")?;
        let version = stack.bao.kv_put("keyfleet/openai", "api_key", KEY)?;
        say::line(&format!(
            "a key lies in OpenBao at secret/keyfleet/openai, version {version}"
        ));
        let openai = stack.openai("openai", &[KEY])?;
        let mut kibanas = Vec::new();
        for (name, version, spaces, _) in FLEET {
            let kibana =
                stack.kibana(&format!("kibana-{name}"), version, spaces, &api_key(name))?;
            say::line(&format!(
                "simulated Kibana {version} of {name} at {}",
                kibana.url
            ));
            sim_command(&["fault", "--url", &kibana.url, &format!("{{{SLOW}}}")])?;
            kibanas.push((name, kibana));
        }
        say::line("starting the control service on SQLite ...");
        let control = stack.control(&[])?;
        let join_token = stack.join_token(u32::try_from(FLEET.len())?)?;
        let mut agents = Vec::new();
        for ((name, _, _, labels), (_, kibana)) in FLEET.iter().zip(&kibanas) {
            let options = AgentOptions {
                name,
                labels,
                api_key: &api_key(name),
                join_token: &join_token,
                drift_interval_secs: 300,
            };
            agents.push(stack.agent(&control, kibana, &options)?);
        }
        say::line(&format!(
            "{} agents enrolled with one join token, one beside each Kibana",
            agents.len()
        ));
        let manifests = Manifests::copy(&stack.dir().join("manifests"), &openai.url)?;
        let demo = Self {
            agents,
            control,
            kibanas,
            openai,
            manifests,
            stack,
        };
        demo.wait_until_connected()?;
        Ok(demo)
    }

    fn wait_until_connected(&self) -> Result<()> {
        let all_connected = || {
            let answer = self.stack.json(&["get", "deployments"]).ok()?;
            let deployments = answer["deployments"].as_array()?;
            let is_ready = |deployment: &Value| {
                deployment["connected"] == true && deployment["facts"]["reachable"] == true
            };
            (deployments.iter().filter(|d| is_ready(d)).count() == FLEET.len()).then_some(())
        };
        wait::until(CONNECTED, all_connected).context("not every agent came up and saw its Kibana")
    }

    /// Act 1: nothing to proven, everywhere.
    fn first_install(&self) -> Result<()> {
        title("1. First install: deploy/examples, with the simulated OpenAI and a soak of 2 s");
        self.apply(COMPLETED)?;
        self.check_proven(MODELS[0])?;
        say::line(&format!(
            "\nall {BINDINGS} bindings are PROVEN by a live call"
        ));
        Ok(())
    }

    /// Act 2: a change in two waves.
    fn new_model(&self) -> Result<()> {
        title(&format!("2. A new model: {} -> {}", MODELS[0], MODELS[1]));
        self.manifests
            .edit("connector.yaml", MODELS[0], MODELS[1])?;
        self.apply(COMPLETED)?;
        self.check_proven(MODELS[1])?;
        let rollout = self.newest_rollout()?;
        let waves = rollout["waves"].as_array().map_or(0, |waves| {
            waves
                .iter()
                .filter(|wave| wave["deployments"].as_u64() > Some(0))
                .count()
        });
        ensure!(
            waves == 2,
            "the change went out in {waves} waves, not in two"
        );
        say::line("\nfirst the canary, then everybody else");
        Ok(())
    }

    /// Act 3: the canary breaks; nobody else is touched.
    fn broken_canary(&self) -> Result<()> {
        title(&format!(
            "3. A change that breaks: {} -> {}",
            MODELS[1], MODELS[2]
        ));
        let fault = format!(
            r#"{{{SLOW}, "provider": {{"status": 401, "model": "{}"}}}}"#,
            MODELS[2]
        );
        let canary = self.kibana(CANARY)?;
        sim_command(&["fault", "--url", &canary.url, &fault])?;
        say::line(&format!(
            "the calls of {CANARY} with {} are answered with 401 from now on",
            MODELS[2]
        ));
        let writes = |name| self.kibana(name).and_then(|kibana| self.n_writes(kibana));
        let others = || {
            FLEET
                .iter()
                .map(|(name, ..)| *name)
                .filter(|name| *name != CANARY)
        };
        let before: Vec<u64> = others().map(writes).collect::<Result<_>>()?;
        self.manifests
            .edit("connector.yaml", MODELS[1], MODELS[2])?;
        self.apply(ROLLED_BACK)?;
        let after: Vec<u64> = others().map(writes).collect::<Result<_>>()?;
        ensure!(before == after, "a Kibana beyond the canary was written to");
        self.check_proven(MODELS[1])?;
        let rollout = self.newest_rollout()?;
        ensure!(
            rollout["phase"] == "ROLLOUT_PHASE_ROLLED_BACK",
            "the rollout is {}",
            rollout["phase"]
        );
        ensure!(
            rollout["wave"].as_u64().unwrap_or(0) == 0,
            "the rollout went beyond its first wave"
        );
        let reason = rollout["reason"].as_str().unwrap_or_default();
        ensure!(
            reason.contains("canary"),
            "the rollout gives no reason: {reason:?}"
        );
        say::line(&format!("\nhalted at the first wave: {reason}"));
        say::line("the canary is back on what it last proved; no other Kibana was written to");
        Ok(())
    }

    fn close(self, keep: bool) -> Result<()> {
        title("The fleet");
        for arguments in [
            ["get", "deployments"],
            ["get", "bindings"],
            ["rollout", "list"],
        ] {
            self.show(&arguments)?;
            say::line("");
        }
        let hint = if keep {
            "in another terminal:"
        } else {
            "with `cargo xtask demo --keep`, in another terminal:"
        };
        say::line(&format!("Try next, {hint}"));
        let keyfleet = binaries::path("keyfleet")?;
        if keep {
            say::line(&format!(
                "  export KEYFLEET_CONFIG={}",
                self.stack.operator_config().display()
            ));
            say::line(&format!("  alias keyfleet={}", keyfleet.display()));
        }
        for next in NEXT {
            say::line(&format!("  {next}"));
        }
        if keep {
            say::line(&format!(
                "  keyfleet plan -f {}",
                self.manifests.dir().display()
            ));
            self.wait_for_ctrl_c();
        }
        Ok(())
    }

    /// Ctrl-C ends the whole program, and with it everything that it started.
    fn wait_for_ctrl_c(&self) {
        let logs = self.stack.dir().display();
        say::line(&format!(
            "\nEverything stays up; logs are in {logs}. Ctrl-C ends and removes it."
        ));
        let n_agents = self.agents.len();
        let data = self.control.data_dir.display();
        say::line(&format!(
            "{n_agents} agents run; control's data is in {data}; OpenAI at {}",
            self.openai.url
        ));
        loop {
            std::thread::park();
        }
    }

    /// Applies the manifests before the eyes of the person; the exit code must be the expected one.
    fn apply(&self, expected: i32) -> Result<()> {
        let dir = self.manifests.dir().to_string_lossy().into_owned();
        say::line("$ keyfleet apply -f manifests/ --wait");
        let arguments = ["apply", "-f", &dir, "--wait", "--timeout", "3m"];
        let status = self.stack.keyfleet_command(&arguments)?.status()?;
        let code = status.code().unwrap_or(-1);
        ensure!(
            code == expected,
            "keyfleet apply ended with {code}, not with {expected}"
        );
        Ok(())
    }

    fn show(&self, arguments: &[&str]) -> Result<()> {
        say::line(&format!("$ keyfleet {}", arguments.join(" ")));
        let status = self.stack.keyfleet_command(arguments)?.status()?;
        ensure!(status.success(), "keyfleet {} failed", arguments.join(" "));
        Ok(())
    }

    /// Every binding is proven, and every Kibana really holds a connector with this model and this key.
    fn check_proven(&self, model: &str) -> Result<()> {
        let answer = self.stack.json(&["get", "bindings"])?;
        let bindings = answer["bindings"].as_array().context("no bindings")?;
        let is_proven = |binding: &&Value| binding["state"] == "BINDING_STATE_PROVEN";
        let proven = bindings.iter().filter(is_proven).count();
        ensure!(
            proven == BINDINGS,
            "{proven} of {BINDINGS} bindings are PROVEN: {answer:#}"
        );
        let mut found = 0;
        for (_, kibana) in &self.kibanas {
            let connectors = self.sim_page(kibana, "connectors")?;
            found += connectors.matches(&format!("\"{model}\"")).count();
        }
        ensure!(
            found == BINDINGS,
            "{found} connectors have the model {model}, not {BINDINGS}"
        );
        Ok(())
    }

    fn newest_rollout(&self) -> Result<Value> {
        let answer = self.stack.json(&["rollout", "list"])?;
        Ok(answer["rollouts"].get(0).context("no rollout")?.clone())
    }

    fn kibana(&self, name: &str) -> Result<&Sim> {
        let found = self.kibanas.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, kibana)| kibana)
            .with_context(|| format!("no Kibana {name}"))
    }

    fn n_writes(&self, kibana: &Sim) -> Result<u64> {
        let log: Value = serde_json::from_str(&sim_command(&["log", "--url", &kibana.url])?)?;
        let requests = log["requests"]
            .as_array()
            .or(log.as_array())
            .context("no request log")?;
        let is_write = |request: &&Value| {
            matches!(request["method"].as_str(), Some("PUT" | "DELETE"))
                || (request["method"] == "POST"
                    && !request["path"]
                        .as_str()
                        .is_some_and(|p| p.ends_with("_execute")))
        };
        Ok(u64::try_from(requests.iter().filter(is_write).count())?)
    }

    fn sim_page(&self, kibana: &Sim, page: &str) -> Result<String> {
        crate::http::get(&kibana.url, &format!("/_sim/{page}"))
    }
}

/// What a person may want to do next.
const NEXT: [&str; 5] = [
    "keyfleet status",
    "keyfleet describe deployment soc",
    "keyfleet rollout show <id>          # why it went back, and what each deployment said",
    "keyfleet key show openai            # versions, who holds which, who proved which",
    "keyfleet token create operator --principal you --role viewer",
];

fn api_key(name: &str) -> String {
    format!("kibana-key-of-{name}")
}

fn title(text: &str) {
    say::line(&format!("\n== {text}"));
}
