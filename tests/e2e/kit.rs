//! A small fleet to test on: OpenBao, control, agents, simulators, and what tests ask of them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::fleet::{AgentOptions, Control, Done};
use xtask::manifests::Manifests;
use xtask::process::Process;
use xtask::stack::{Sim, Stack};
use xtask::{http, wait};

/// Looks like a key and opens nothing but the simulated OpenAI.
pub(crate) const KEY: &str = "sk-proj-e2e-0000000000000000000000000000000000aQ3d";

/// Everything here happens within seconds; this much means that it never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Name, Kibana version, spaces, labels.
pub(crate) type Member =
    (&'static str, &'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

/// Five versions, one with three spaces, one canary.
pub(crate) const FIVE: [Member; 5] = [
    ("archive", "8.11.4", &["default"], &[]),
    ("lab", "8.18.0", &["default"], &[("tier", "canary")]),
    ("shop", "9.1.0", &["default"], &[]),
    ("soc", "9.4.0", &["default", "soc", "hunting"], &[("team", "security")]),
    ("web", "9.6.0", &["default"], &[]),
];

/// A running fleet. Fields drop in order: agents before what they talk to.
pub(crate) struct Fleet {
    pub(crate) agents: Vec<(&'static str, Process)>,
    pub(crate) control: Control,
    pub(crate) kibanas: Vec<(&'static str, Sim)>,
    pub(crate) openai: Sim,
    pub(crate) manifests: Manifests,
    pub(crate) stack: Stack,
}

impl Fleet {
    /// Starts everything and waits until every agent is connected and sees its Kibana. Nothing is applied.
    pub(crate) fn start(name: &str, members: &[Member]) -> Result<Self> {
        Self::start_with(name, members, &[])
    }

    /// As [`Fleet::start`], with settings of control as environment variables.
    pub(crate) fn start_with(
        name: &str,
        members: &[Member],
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let stack = Stack::start_quick(&format!("e2e-{name}-"))?;
        stack.bao.kv_put("keyfleet/openai", "api_key", KEY)?;
        let openai = stack.openai("openai", &[KEY])?;
        let control = stack.control(settings)?;
        let join_token = stack.join_token(u32::try_from(members.len())?)?;
        let (mut kibanas, mut agents) = (Vec::new(), Vec::new());
        for (name, version, spaces, labels) in members {
            let api_key = format!("kibana-key-of-{name}");
            let kibana = stack.kibana(&format!("kibana-{name}"), version, spaces, &api_key)?;
            let options = AgentOptions {
                name,
                labels,
                api_key: &api_key,
                join_token: &join_token,
                drift_interval_secs: 300,
            };
            agents.push((*name, stack.agent(&control, &kibana, &options)?));
            kibanas.push((*name, kibana));
        }
        let manifests = Manifests::copy(&stack.dir().join("manifests"), &openai.url)?;
        let fleet = Self { agents, control, kibanas, openai, manifests, stack };
        fleet.wait_until("every agent sees its Kibana", || {
            let answer = fleet.stack.json(&["get", "deployments"]).ok()?;
            let is_ready = |d: &&Value| d["connected"] == true && d["facts"]["reachable"] == true;
            let ready = answer["deployments"].as_array()?.iter().filter(is_ready).count();
            (ready == members.len()).then_some(())
        })?;
        Ok(fleet)
    }

    /// `keyfleet apply -f manifests/ --wait`, whatever comes of it.
    pub(crate) fn apply(&self) -> Result<Done> {
        let dir = self.manifests.dir().to_string_lossy().into_owned();
        self.stack.keyfleet(&["apply", "-f", &dir, "--wait", "--timeout", "60s"])
    }

    /// Waits for a condition; the error says which.
    pub(crate) fn wait_until<T>(
        &self,
        what: &str,
        look: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let logs = self.stack.dir().display();
        wait::until(PATIENCE, look).with_context(|| format!("never came true: {what} (logs: {logs})"))
    }

    /// Every binding, as `keyfleet get bindings -o json` shows it.
    pub(crate) fn bindings(&self) -> Result<Vec<Value>> {
        let answer = self.stack.json(&["get", "bindings"])?;
        Ok(answer["bindings"].as_array().cloned().unwrap_or_default())
    }

    /// The newest rollout.
    pub(crate) fn rollout(&self) -> Result<Value> {
        let answer = self.stack.json(&["rollout", "list"])?;
        Ok(answer["rollouts"].get(0).context("no rollout")?.clone())
    }

    /// True where every binding is PROVEN with this key version.
    pub(crate) fn is_proven(&self, key_version: &str) -> Result<bool> {
        let bindings = self.bindings()?;
        let is_proven = |b: &Value| {
            b["state"] == "BINDING_STATE_PROVEN" && b["lastProven"]["keyVersion"] == key_version
        };
        Ok(!bindings.is_empty() && bindings.iter().all(is_proven))
    }

    /// The simulated Kibana of a deployment.
    pub(crate) fn kibana(&self, name: &str) -> Result<&Sim> {
        let found = self.kibanas.iter().find(|(known, _)| *known == name);
        found.map(|(_, kibana)| kibana).with_context(|| format!("no Kibana {name}"))
    }

    /// How many requests of a method a Kibana got for connectors; executions are not among them.
    pub(crate) fn count(&self, name: &str, method: &str) -> Result<u64> {
        let path = format!("/_sim/requests/count?method={method}&class=connector");
        let answer: Value = serde_json::from_str(&http::get(&self.kibana(name)?.url, &path)?)?;
        answer["count"].as_u64().with_context(|| format!("no count in {answer}"))
    }

    /// Creations, updates and deletions on every Kibana together.
    pub(crate) fn writes(&self) -> Result<u64> {
        let mut total = 0;
        for (name, _) in &self.kibanas {
            for method in ["POST", "PUT", "DELETE"] {
                total += self.count(name, method)?;
            }
        }
        Ok(total)
    }

    /// What a Kibana holds, secrets as their last four characters.
    pub(crate) fn connectors(&self, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&http::get(&self.kibana(name)?.url, "/_sim/connectors")?)?)
    }

    /// Runs the simulator's own command, such as `fault` or `keys`.
    pub(crate) fn sim(&self, arguments: &[&str]) -> Result<String> {
        let program = xtask::binaries::path("keyfleet-sim")?;
        let output = std::process::Command::new(program).args(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "keyfleet-sim {}: {text}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
