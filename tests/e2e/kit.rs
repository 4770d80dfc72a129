//! A small fleet to test on: OpenBao, control, agents, simulators, and what tests ask of them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::fleet::{AgentOptions, Control, Done};
use xtask::manifests::Manifests;
use xtask::process::Process;
use xtask::stack::{Sim, Stack, sim_command};
use xtask::{http, wait};

/// Looks like a key and opens nothing but the simulated OpenAI.
pub(crate) const KEY: &str = "sk-proj-e2e-0000000000000000000000000000000000aQ3d";

/// Control cannot ask the provider itself: the first wave tries a new key.
pub(crate) const NO_WAY_OUT: (&str, &str) = ("KEYFLEET_CONTROL__PROVIDER__VERIFY", "false");

/// Everything here happens within seconds; this much means that it never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Name, Kibana version, spaces, labels.
pub(crate) type Member = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
);

/// Five versions, one with three spaces, one canary.
pub(crate) const FIVE: [Member; 5] = [
    ("archive", "8.11.4", &["default"], &[]),
    ("lab", "8.18.0", &["default"], &[("tier", "canary")]),
    ("shop", "9.1.0", &["default"], &[]),
    (
        "soc",
        "9.4.0",
        &["default", "soc", "hunting"],
        &[("team", "security")],
    ),
    ("web", "9.6.0", &["default"], &[]),
];

/// How a fleet is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// The first key: in OpenBao, and known to the simulated OpenAI.
    pub(crate) key: &'a str,
    /// Settings of control, as environment variables.
    pub(crate) control: &'a [(&'a str, &'a str)],
    /// Settings of every agent, as environment variables.
    pub(crate) agents: &'a [(&'a str, &'a str)],
    /// More flags of every simulated Kibana.
    pub(crate) kibanas: &'a [&'a str],
}

impl Setup<'_> {
    pub(crate) const USUAL: Self = Self {
        key: KEY,
        control: &[],
        agents: &[],
        kibanas: &[],
    };
}

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
        Self::start_as(
            name,
            members,
            &Setup {
                control: settings,
                ..Setup::USUAL
            },
        )
    }

    /// As [`Fleet::start`], with another set-up.
    pub(crate) fn start_as(name: &str, members: &[Member], setup: &Setup<'_>) -> Result<Self> {
        Self::start_on(Stack::start_quick(&format!("e2e-{name}-"))?, members, setup)
    }

    /// As [`Fleet::start_as`], on a stack that is there.
    pub(crate) fn start_on(stack: Stack, members: &[Member], setup: &Setup<'_>) -> Result<Self> {
        stack.bao.kv_put("keyfleet/openai", "api_key", setup.key)?;
        let openai = stack.openai("openai", &[setup.key])?;
        let control = stack.control(setup.control)?;
        let join_token = stack.join_token(u32::try_from(members.len())?)?;
        let (mut kibanas, mut agents) = (Vec::new(), Vec::new());
        for (name, version, spaces, labels) in members {
            let api_key = format!("kibana-key-of-{name}");
            let kibana = stack.kibana_with(
                &format!("kibana-{name}"),
                version,
                spaces,
                &api_key,
                setup.kibanas,
            )?;
            let options = AgentOptions {
                name,
                labels,
                api_key: &api_key,
                join_token: &join_token,
                drift_interval_secs: 300,
            };
            agents.push((
                *name,
                stack.agent_with(&control, &kibana, &options, setup.agents)?,
            ));
            kibanas.push((*name, kibana));
        }
        let manifests = Manifests::copy(&stack.dir().join("manifests"), &openai.url)?;
        let fleet = Self {
            agents,
            control,
            kibanas,
            openai,
            manifests,
            stack,
        };
        fleet.wait_until_connected()?;
        Ok(fleet)
    }

    /// Waits until every agent has a session and sees its Kibana.
    pub(crate) fn wait_until_connected(&self) -> Result<()> {
        self.wait_until("every agent sees its Kibana", || {
            let answer = self.stack.json(&["get", "deployments"]).ok()?;
            let is_ready = |d: &&Value| d["connected"] == true && d["facts"]["reachable"] == true;
            let ready = answer["deployments"]
                .as_array()?
                .iter()
                .filter(is_ready)
                .count();
            (ready == self.agents.len()).then_some(())
        })
    }

    /// As [`Fleet::start`], with everything applied and proven.
    pub(crate) fn start_applied(name: &str, members: &[Member]) -> Result<Self> {
        let fleet = Self::start(name, members)?;
        fleet.apply()?.must_succeed()?;
        Ok(fleet)
    }

    /// As [`Fleet::start_applied`], where control cannot ask the provider.
    pub(crate) fn start_applied_blind(name: &str, members: &[Member]) -> Result<Self> {
        let fleet = Self::start_with(name, members, &[NO_WAY_OUT])?;
        fleet.apply()?.must_succeed()?;
        Ok(fleet)
    }

    /// `keyfleet apply -f manifests/` without waiting for what comes of it.
    pub(crate) fn begin_apply(&self) -> Result<()> {
        let dir = self.manifests.dir().to_string_lossy().into_owned();
        self.stack
            .keyfleet(&["apply", "-f", &dir])?
            .must_succeed()
            .map(drop)
    }

    /// The agent of a deployment.
    pub(crate) fn agent_mut(&mut self, name: &str) -> Result<&mut Process> {
        let found = self.agents.iter_mut().find(|(known, _)| *known == name);
        found
            .map(|(_, agent)| agent)
            .with_context(|| format!("no agent {name}"))
    }

    /// The simulated Kibana of a deployment, to be killed and restarted.
    pub(crate) fn kibana_mut(&mut self, name: &str) -> Result<&mut Sim> {
        let found = self.kibanas.iter_mut().find(|(known, _)| *known == name);
        found
            .map(|(_, kibana)| kibana)
            .with_context(|| format!("no Kibana {name}"))
    }

    /// Sets the fault switches of a Kibana; an empty text clears them.
    pub(crate) fn break_kibana(&self, name: &str, faults: &str) -> Result<()> {
        let faults = if faults.is_empty() { "--clear" } else { faults };
        self.sim(&["fault", "--url", &self.kibana(name)?.url, faults])
            .map(drop)
    }

    /// Waits until a Kibana got so many requests that fit a query.
    pub(crate) fn wait_for_requests(&self, name: &str, query: &str, count: u64) -> Result<()> {
        self.wait_until(&format!("{count} requests with {query} on {name}"), || {
            (self.requests(name, query).ok()? >= count).then_some(())
        })
    }

    /// Waits until every binding is PROVEN with this key version.
    pub(crate) fn wait_until_proven(&self, key_version: &str) -> Result<()> {
        let proven = || self.is_proven(key_version).ok()?.then_some(());
        self.wait_until("every binding is proven", proven)
    }

    /// Waits until the newest rollout is in this phase.
    pub(crate) fn wait_for_phase(&self, phase: &str) -> Result<()> {
        let reached = || (self.rollout().ok()?["phase"] == phase).then_some(());
        self.wait_until(&format!("the newest rollout is in {phase}"), reached)
    }

    /// How many connectors a Kibana holds.
    pub(crate) fn n_connectors(&self, name: &str) -> Result<u64> {
        let connectors = self.connectors(name)?;
        Ok(u64::try_from(
            connectors
                .as_array()
                .context("no list of connectors")?
                .len(),
        )?)
    }

    /// Does something to a connector as a person with Kibana's API key would.
    pub(crate) fn meddle(&self, name: &str, method: &str, id: &Value, body: &str) -> Result<()> {
        let id = id.as_str().context("no id")?;
        let url = format!("{}/api/actions/connector/{id}", self.kibana(name)?.url);
        let authorization = format!("ApiKey kibana-key-of-{name}");
        let request = |client: reqwest::Client| {
            client
                .request(method.parse().unwrap_or_default(), url)
                .header("authorization", authorization)
                .header("kbn-xsrf", "test")
                .header("content-type", "application/json")
                .body(body.to_owned())
        };
        let (status, answer) = send(b"", request)?;
        ensure!(
            (200..300).contains(&status),
            "{method} {id}: {status} {answer}"
        );
        Ok(())
    }

    /// Says something to a page of the simulated Kibana's own, such as `/_sim/spaces`.
    pub(crate) fn say_to_kibana(&self, name: &str, page: &str, body: &Value) -> Result<Value> {
        self.say_to_sim(name, "POST", page, body)
    }

    /// As [`Fleet::say_to_kibana`], with another method.
    pub(crate) fn say_to_sim(
        &self,
        name: &str,
        method: &str,
        page: &str,
        body: &Value,
    ) -> Result<Value> {
        let url = format!("{}{page}", self.kibana(name)?.url);
        let request = |client: reqwest::Client| {
            client
                .request(method.parse().unwrap_or_default(), url)
                .header("content-type", "application/json")
                .body(body.to_string())
        };
        let (status, answer) = send(b"", request)?;
        ensure!(
            (200..300).contains(&status),
            "{method} {page}: {status} {answer}"
        );
        Ok(serde_json::from_str(&answer).unwrap_or_default())
    }

    /// A page of the operators' port, such as `/metrics`.
    pub(crate) fn page(&self, path: &str) -> Result<String> {
        let ca = std::fs::read(self.control.data_dir.join("ca.pem"))?;
        let url = format!("{}{path}", self.control.operators_url);
        let (status, body) = send(&ca, |client| client.get(&url))?;
        ensure!(status == 200, "{url} answered {status}: {body}");
        Ok(body)
    }

    /// A metric without labels.
    pub(crate) fn metric(&self, name: &str) -> Result<u64> {
        let page = self.page("/metrics")?;
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value
            .with_context(|| format!("no metric {name} in {page}"))?
            .trim()
            .parse()?)
    }

    /// How many requests a Kibana got that fit a query such as `method=PUT&class=connector&status=200`.
    pub(crate) fn requests(&self, name: &str, query: &str) -> Result<u64> {
        let path = format!("/_sim/requests/count?{query}");
        let answer: Value = serde_json::from_str(&http::get(&self.kibana(name)?.url, &path)?)?;
        answer["count"]
            .as_u64()
            .with_context(|| format!("no count in {answer}"))
    }

    /// `keyfleet apply -f manifests/ --wait`, whatever comes of it.
    pub(crate) fn apply(&self) -> Result<Done> {
        let dir = self.manifests.dir().to_string_lossy().into_owned();
        self.stack
            .keyfleet(&["apply", "-f", &dir, "--wait", "--timeout", "60s"])
    }

    /// Waits for a condition; the error says which.
    pub(crate) fn wait_until<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> Result<T> {
        let logs = self.stack.dir().display();
        wait::until(PATIENCE, look)
            .with_context(|| format!("never came true: {what} (logs: {logs})"))
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
        found
            .map(|(_, kibana)| kibana)
            .with_context(|| format!("no Kibana {name}"))
    }

    /// How many requests of a method a Kibana got for connectors; executions are not among them.
    pub(crate) fn count(&self, name: &str, method: &str) -> Result<u64> {
        self.requests(name, &format!("method={method}&class=connector"))
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
        Ok(serde_json::from_str(&http::get(
            &self.kibana(name)?.url,
            "/_sim/connectors",
        )?)?)
    }

    /// Runs the simulator's own command, such as `fault` or `keys`.
    pub(crate) fn sim(&self, arguments: &[&str]) -> Result<String> {
        sim_command(arguments)
    }
}

/// One request, trusting no authority but those of `ca_pem` where it goes over TLS: the status and the body of its
/// answer.
fn send(
    ca_pem: &[u8],
    request: impl FnOnce(reqwest::Client) -> reqwest::RequestBuilder,
) -> Result<(u16, String)> {
    // A second installation is refused and changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let authorities = reqwest::Certificate::from_pem_bundle(ca_pem)?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only(authorities)
        .build()?;
    runtime.block_on(async {
        let answer = request(client).timeout(PATIENCE).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    })
}
