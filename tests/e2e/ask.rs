//! What the tests of rotation, halt and refusal ask of a fleet beside [`crate::kit`].

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::fleet::Done;

use crate::kit::Fleet;

/// A canary and two more: enough where the number does not matter.
pub(crate) const THREE: [crate::kit::Member; 3] = [
    ("lab", "8.18.0", &["default"], &[("tier", "canary")]),
    ("shop", "9.1.0", &["default"], &[]),
    ("web", "9.6.0", &["default"], &[]),
];

impl Fleet {
    /// Makes the simulated OpenAI know a key.
    pub(crate) fn accept_key(&self, key: &str) -> Result<()> {
        self.sim(&["keys", "--url", &self.openai.url, "add", key])
            .map(drop)
    }

    /// Writes a key to Vault as a person would; returns the number of its version.
    pub(crate) fn write_key(&self, key: &str) -> Result<u64> {
        self.stack.bao.kv_put("keyfleet/openai", "api_key", key)
    }

    /// The operator's command, whatever comes of it.
    pub(crate) fn keyfleet(&self, arguments: &[&str]) -> Result<Done> {
        self.stack.keyfleet(arguments)
    }

    /// `keyfleet apply -f manifests/` with more arguments, whatever comes of it.
    pub(crate) fn apply_with(&self, arguments: &[&str]) -> Result<Done> {
        let dir = self.manifests.dir().to_string_lossy().into_owned();
        let all: Vec<&str> = ["apply", "-f", &dir]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        self.keyfleet(&all)
    }

    /// Every connector of every Kibana, with the name of its deployment.
    pub(crate) fn all_connectors(&self) -> Result<Vec<(&'static str, Value)>> {
        let mut all = Vec::new();
        for (name, _) in &self.kibanas {
            let connectors = self.connectors(name)?;
            let connectors = connectors.as_array().context("no list of connectors")?;
            all.extend(
                connectors
                    .iter()
                    .map(|connector| (*name, connector.clone())),
            );
        }
        Ok(all)
    }

    /// True where every connector has this model and a key that ends so; at least one must be there.
    pub(crate) fn all_have(&self, model: &str, tail: &str) -> Result<bool> {
        let all = self.all_connectors()?;
        let fits = |c: &Value| c["config"]["defaultModel"] == model && c["secret_tail"] == tail;
        Ok(!all.is_empty() && all.iter().all(|(_, connector)| fits(connector)))
    }

    /// Creations, updates and deletions on one Kibana.
    pub(crate) fn writes_of(&self, name: &str) -> Result<[u64; 3]> {
        Ok([
            self.count(name, "POST")?,
            self.count(name, "PUT")?,
            self.count(name, "DELETE")?,
        ])
    }

    /// Whether a version may be revoked, and what stands in the way, as `keyfleet key show` tells them.
    pub(crate) fn revocation(&self, version: u64) -> Result<(bool, Vec<String>)> {
        let row = self.version_row(version)?;
        let may_be = row["mayBeRevoked"].as_bool().context("not said")?;
        let waits = row["revokeWaits"].as_array().context("no sentences")?;
        let waits = waits
            .iter()
            .filter_map(|text| text.as_str().map(str::to_owned));
        Ok((may_be, waits.collect()))
    }

    fn version_row(&self, version: u64) -> Result<Value> {
        let answer = self.stack.json(&["key", "show", "openai"])?;
        let versions = answer["versions"].as_array().context("no versions")?;
        let text = version.to_string();
        let row = versions.iter().find(|row| row["version"] == text.as_str());
        row.cloned()
            .with_context(|| format!("no version {version} in {answer}"))
    }

    /// State and number of open holdings of a version, as `keyfleet key show` tells them.
    pub(crate) fn key_version(&self, version: u64) -> Result<(String, u64)> {
        let row = self.version_row(version)?;
        let state = row["state"].as_str().context("no state")?.to_owned();
        Ok((
            state,
            row["holdingsOpen"]
                .as_u64()
                .context("no number of holdings")?,
        ))
    }

    /// The binding of a deployment's space.
    pub(crate) fn binding(&self, deployment: &str, space: &str) -> Result<Value> {
        let mut all = self.bindings()?.into_iter();
        let found = all.find(|b| b["deployment"] == deployment && b["binding"]["space"] == space);
        found.with_context(|| format!("no binding {deployment}/{space}"))
    }

    /// Waits until the first binding of a deployment is in this state, such as `PROVEN`.
    pub(crate) fn wait_for_state(&self, deployment: &str, state: &str) -> Result<()> {
        let state = format!("BINDING_STATE_{state}");
        let reached =
            || (self.binding(deployment, "default").ok()?["state"] == state).then_some(());
        self.wait_until(&format!("{deployment} is {state}"), reached)
    }

    /// The id of the newest rollout.
    pub(crate) fn rollout_id(&self) -> Result<String> {
        Ok(self.rollout()?["id"].as_str().context("no id")?.to_owned())
    }

    /// The phase of a rollout.
    pub(crate) fn phase_of(&self, id: &str) -> Result<String> {
        let answer = self.stack.json(&["rollout", "show", id])?;
        Ok(answer["rollout"]["phase"]
            .as_str()
            .context("no phase")?
            .to_owned())
    }

    /// Waits for a rollout that is not this one, and returns its id.
    pub(crate) fn wait_for_rollout_after(&self, id: &str) -> Result<String> {
        let newer = || self.rollout_id().ok().filter(|newest| newest != id);
        self.wait_until(&format!("a rollout after {id}"), newer)
    }

    /// Says a verb to a rollout.
    pub(crate) fn say(&self, verb: &str, id: &str) -> Result<Done> {
        self.keyfleet(&["rollout", verb, id, "--reason", "the test wants it"])?
            .must_succeed()
    }

    /// Bindings that are not where they shall be and do not say why. None must be.
    pub(crate) fn silent_bindings(&self) -> Result<Vec<Value>> {
        let is_silent = |b: &Value| {
            let is_converged = b["state"] == "BINDING_STATE_PROVEN" && b["lastProven"] == b["goal"];
            !is_converged && b["waiting"].as_str().is_none_or(str::is_empty)
        };
        Ok(self.bindings()?.into_iter().filter(is_silent).collect())
    }

    /// Makes a token and writes its value to a new file.
    pub(crate) fn token(&self, file: &Path, arguments: &[&str]) -> Result<()> {
        let file = file.to_string_lossy();
        let create = ["token", "create"].iter().chain(arguments).copied();
        let all: Vec<&str> = create.chain(["--output-file", &file]).collect();
        self.keyfleet(&all)?.must_succeed().map(drop)
    }
}
