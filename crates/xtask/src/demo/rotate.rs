//! The fourth act, `--rotate`: a key from its first day in Vault to the death of the one before.

use anyhow::{Context as _, Result, ensure};

use super::{BINDINGS, COMPLETED, CONNECTED, Demo, KEY, title};
use crate::stack::sim_command;
use crate::{say, wait};

/// The key that takes the place of the first one; it opens nothing either.
const NEXT_KEY: &str = "sk-proj-keyfleet-demo-1111111111111111111111111111bR7k";

/// What `keyfleet campaign watch --exit-on-halt` ends with where a person has to speak.
const WAITS_FOR_PERSON: i32 = 5;

impl Demo {
    /// Act 4: a campaign, with the two words that only a person may say.
    pub(super) fn rotate(&self) -> Result<()> {
        title("4. A rotation: a new key in OpenBao, until the provider refuses the old one");
        self.manifests.edit(
            "key.yaml",
            "  allowedHosts:",
            "  rotation: {overlap: 0s}\n  allowedHosts:",
        )?;
        say::line("nobody needs the old key for longer here: spec.rotation.overlap is 0s");
        self.apply(COMPLETED)?;
        self.provider_keys("add", NEXT_KEY)?;
        let version = self
            .stack
            .bao
            .kv_put("keyfleet/openai", "api_key", NEXT_KEY)?;
        say::line(&format!(
            "\na new key lies in OpenBao at secret/keyfleet/openai, version {version}"
        ));
        let id = wait::until(CONNECTED, || self.active_campaign())
            .context("control did not notice the new version")?;
        self.watch(WAITS_FOR_PERSON)?;
        self.show(&["campaign", "approve", &id, "--reason", "all proven"])?;
        self.watch(WAITS_FOR_PERSON)?;
        self.provider_keys("revoke", KEY)?;
        say::line("\nthe old key is revoked at the simulated OpenAI");
        self.show(&["campaign", "confirm", &id, "--reason", "deleted by hand"])?;
        self.watch(COMPLETED)?;
        say::line("");
        self.show(&["campaign", "show", &id])?;
        self.check_rotated(version)
    }

    /// Every binding has the new key and no other, and the old one is dead.
    fn check_rotated(&self, version: u64) -> Result<()> {
        let answer = self.stack.json(&["key", "show", "openai"])?;
        let versions = answer["versions"].as_array().context("no versions")?;
        let is_so = |number: u64, state: &str| {
            let number = number.to_string();
            versions
                .iter()
                .any(|row| row["version"] == number.as_str() && row["state"] == state)
        };
        ensure!(
            is_so(version, "KEY_STATE_CURRENT") && is_so(version - 1, "KEY_STATE_REVOKED"),
            "the versions are not as they shall be: {answer:#}"
        );
        let mut found = 0;
        for (_, kibana) in &self.kibanas {
            let tail = &NEXT_KEY[NEXT_KEY.len() - 4..];
            found += self.sim_page(kibana, "connectors")?.matches(tail).count();
        }
        ensure!(
            found == BINDINGS,
            "{found} connectors have the new key, not {BINDINGS}"
        );
        say::line("every connector has proven the new key, and the provider refuses the old one");
        Ok(())
    }

    fn active_campaign(&self) -> Option<String> {
        let answer = self.stack.json(&["campaign", "list", "--active"]).ok()?;
        Some(answer["campaigns"].get(0)?["id"].as_str()?.to_owned())
    }

    fn provider_keys(&self, verb: &str, key: &str) -> Result<()> {
        sim_command(&["keys", "--url", &self.openai.url, verb, key]).map(drop)
    }

    /// Watches the campaign before the eyes of the person; the exit code must be the expected one.
    fn watch(&self, expected: i32) -> Result<()> {
        say::line("\n$ keyfleet campaign watch --exit-on-halt");
        let arguments = ["campaign", "watch", "--exit-on-halt", "--timeout", "3m"];
        let status = self.stack.keyfleet_command(&arguments)?.status()?;
        let code = status.code().unwrap_or(-1);
        ensure!(
            code == expected,
            "keyfleet campaign watch ended with {code}, not with {expected}"
        );
        Ok(())
    }
}
