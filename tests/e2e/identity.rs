//! Who an agent is: certificates that are renewed in time and after their end, two agents with one identity, and an
//! agent that is no longer trusted, replaced, or forgotten.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::process::Process;

use crate::ask::THREE;
use crate::kit::{Fleet, PATIENCE, Setup};

const SECOND: &str = "sk-proj-e2e-2222222222222222222222222222222222bT5m";

/// What an agent logs when it has another certificate.
const RENEWED: &str = "the certificate is renewed";

const SESSION: &str = "session established";

/// Certificates that live for seconds; an ended one needs a word.
const SHORT: Setup<'_> = Setup {
    control: &[
        ("KEYFLEET_CONTROL__AGENTS__CERTIFICATE_SECS", "6"),
        (
            "KEYFLEET_CONTROL__AGENTS__RENEW_ENDED_NEEDS_APPROVAL",
            "true",
        ),
    ],
    ..Setup::USUAL
};

impl Fleet {
    /// A deployment as `keyfleet deployment show -o json` prints it.
    pub(crate) fn deployment(&self, name: &str) -> Result<Value> {
        let answer = self.stack.json(&["deployment", "show", name])?;
        Ok(answer["deployment"].clone())
    }

    /// `keyfleet deployment <verb> <name>` with a reason, and its answer.
    fn deployment_verb(&self, verb: &str, name: &str, more: &[&str]) -> Result<Value> {
        let all = [
            &["deployment", verb, name, "--reason", "the test wants it"],
            more,
        ]
        .concat();
        self.stack.json(&all)
    }

    fn wait_for_standing(&self, name: &str, standing: &str) -> Result<()> {
        let reached = || (self.deployment(name).ok()?["standing"] == standing).then_some(());
        self.wait_until(&format!("{name} is {standing}"), reached)
    }

    fn wait_for_connection(&self, name: &str, is_connected: bool) -> Result<()> {
        // What is false is left out of the JSON.
        let connected = || Some(self.deployment(name).ok()?["connected"] == true);
        self.wait_until(&format!("{name} connected: {is_connected}"), || {
            (connected()? == is_connected).then_some(())
        })
    }

    /// How often an action stands in the audit log.
    pub(crate) fn audited(&self, action: &str) -> Result<usize> {
        let done = self.keyfleet(&["audit", "export"])?.must_succeed()?;
        Ok(done
            .out
            .lines()
            .filter(|line| line.contains(action))
            .count())
    }

    /// A file of this stack.
    fn file(&self, name: &str) -> PathBuf {
        self.stack.dir().join(name)
    }

    /// Starts an agent with the settings of another, changed in one place.
    fn agent_like(&self, name: &str, new: &str, from: &str, to: &str) -> Result<Process> {
        let text = fs::read_to_string(self.file(&format!("{name}.toml")))?;
        ensure!(text.contains(from), "{from} is not in {text}");
        let config = self.file(&format!("{new}.toml"));
        fs::write(&config, text.replace(from, to))?;
        let arguments = ["run", "--config", &config.to_string_lossy()];
        let log = format!("agent-{new}");
        self.stack
            .spawn(&log, "keyfleet-agent", &arguments, |line| {
                line.contains(SESSION)
            })
    }
}

fn times(process: &Process, words: &str) -> Result<usize> {
    Ok(process.log()?.matches(words).count())
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

#[test]
fn certificates_are_renewed_in_time_and_after_their_end_and_nothing_is_written_to_a_kibana() {
    let mut fleet = Fleet::start_as("renewal", &THREE, &SHORT).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    let writes = fleet.writes().unwrap();
    let (_, lab) = &fleet.agents[0];
    let sessions = || times(lab, RENEWED).ok().filter(|renewed| *renewed >= 3);
    fleet.wait_until("three renewals", sessions).unwrap();
    assert!(fleet.is_proven("1").unwrap());
    let shown = fleet.deployment("lab").unwrap();
    assert_eq!(shown["standing"], "STANDING_ACTIVE", "{shown}");

    // Away for longer than the certificate lives, and nobody has allowed anything.
    fleet.agent_mut("lab").unwrap().kill_hard().unwrap();
    let killed = Instant::now();
    let ended = || (killed.elapsed() > Duration::from_secs(8)).then_some(());
    fleet
        .wait_until("the certificate has ended", ended)
        .unwrap();
    let path = fleet.file("lab.toml");
    let arguments = ["run", "--config", &path.to_string_lossy()];
    let is_refused = |line: &str| line.contains("an operator must allow its renewal");
    let refused = fleet
        .stack
        .spawn("agent-lab-ended", "keyfleet-agent", &arguments, is_refused)
        .unwrap();
    drop(refused);
    fleet.deployment_verb("allow-renewal", "lab", &[]).unwrap();
    let back = fleet
        .stack
        .spawn("agent-lab-back", "keyfleet-agent", &arguments, |line| {
            line.contains(SESSION)
        });
    let _back = back.unwrap();
    fleet.wait_for_connection("lab", true).unwrap();
    assert!(fleet.is_proven("1").unwrap());
    assert_eq!(
        fleet.writes().unwrap(),
        writes,
        "nothing was written to any Kibana"
    );
    assert_eq!(fleet.audited("deployment.allow-renewal").unwrap(), 1);
}

#[test]
fn two_agents_with_one_identity_are_found_and_neither_gets_a_key_until_an_operator_decides() {
    let fleet = Fleet::start("clone", &THREE).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    copy_dir(&fleet.file("shop.state"), &fleet.file("copy.state")).unwrap();
    let copy = fleet
        .agent_like("shop", "copy", "shop.state", "copy.state")
        .unwrap();
    fleet.wait_for_standing("shop", "STANDING_CLONED").unwrap();
    assert_eq!(fleet.audited("deployment.clone").unwrap(), 1);

    fleet.accept_key(SECOND).unwrap();
    assert_eq!(fleet.write_key(SECOND).unwrap(), 2);
    fleet
        .wait_until("everybody else has the new key", || {
            let has = |name| {
                Some(fleet.binding(name, "default").ok()?["lastProven"]["keyVersion"] == "2")
            };
            (has("lab")? && has("web")?).then_some(())
        })
        .unwrap();
    let waiting = fleet
        .wait_until("the sentence says what to do", || {
            let binding = fleet.binding("shop", "default").ok()?;
            let waiting = binding["waiting"].as_str()?.to_owned();
            waiting
                .contains("two agents use its identity")
                .then_some(waiting)
        })
        .unwrap();
    for word in [
        "keyfleet deployment resume shop",
        "keyfleet deployment replace shop",
    ] {
        assert!(waiting.contains(word), "{waiting}");
    }
    let tail = |fleet: &Fleet| fleet.connectors("shop").unwrap()[0]["secret_tail"].clone();
    assert_eq!(tail(&fleet), "aQ3d", "no key went to either");

    // A false alarm, as after a host was restored from a snapshot: one of the two is gone, the other goes on.
    drop(copy);
    fleet.deployment_verb("resume", "shop", &[]).unwrap();
    fleet.wait_until_proven("2").unwrap();
    assert_eq!(tail(&fleet), "bT5m");
    assert_eq!(
        fleet.deployment("shop").unwrap()["standing"],
        "STANDING_ACTIVE"
    );
}

#[test]
fn a_suspended_agent_gets_nothing_and_a_revoked_one_is_replaced_or_forgotten() {
    let mut fleet = Fleet::start("trust", &THREE).unwrap();
    fleet.apply().unwrap().must_succeed().unwrap();
    suspend_and_resume(&fleet);
    revoke(&mut fleet);
    replace(&mut fleet);
    forget(&mut fleet);
    for action in ["suspend", "resume", "revoke", "replace", "remove"] {
        let action = format!("deployment.{action}");
        assert_eq!(fleet.audited(&action).unwrap(), 1, "{action}");
    }
}

/// Suspended: still there, and left out of the change.
fn suspend_and_resume(fleet: &Fleet) {
    let suspended = fleet.deployment_verb("suspend", "web", &[]).unwrap();
    assert_eq!(suspended["held"][0]["open"], true, "{suspended}");
    fleet.accept_key(SECOND).unwrap();
    fleet.write_key(SECOND).unwrap();
    fleet
        .wait_until("everybody else has the new key", || {
            let has = |name| {
                Some(fleet.binding(name, "default").ok()?["lastProven"]["keyVersion"] == "2")
            };
            (has("lab")? && has("shop")?).then_some(())
        })
        .unwrap();
    let web = fleet.deployment("web").unwrap();
    assert_eq!(
        (&web["connected"], &web["standing"]),
        (&true.into(), &"STANDING_SUSPENDED".into())
    );
    let waiting = web["waiting"].as_str().unwrap();
    assert!(
        waiting.contains("suspended by admin: the test wants it"),
        "{waiting}"
    );
    assert_eq!(fleet.writes_of("web").unwrap(), [1, 0, 0]);
    fleet.deployment_verb("resume", "web", &[]).unwrap();
    fleet.wait_until_proven("2").unwrap();
}

/// Revoked: out at once, with a list of what it knew.
fn revoke(fleet: &mut Fleet) {
    let began = Instant::now();
    let revoked = fleet.deployment_verb("revoke", "shop", &["--yes"]).unwrap();
    let versions: Vec<&str> = revoked["held"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|held| held["version"].as_str())
        .collect();
    assert_eq!(versions, ["1", "2"], "{revoked}");
    fleet.wait_for_connection("shop", false).unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    let ended = fleet.agent_mut("shop").unwrap().wait(PATIENCE).unwrap();
    assert_eq!(ended.and_then(|status| status.code()), Some(1));
}

/// Replaced: a new agent on a new host, the same deployment, and its connectors as they were.
fn replace(fleet: &mut Fleet) {
    let before = fleet.deployment("shop").unwrap();
    let writes = fleet.writes_of("shop").unwrap();
    let token = fleet.file("replacement.token");
    let arguments = ["--yes", "--output-file", &token.to_string_lossy()];
    fleet
        .deployment_verb("replace", "shop", &arguments)
        .unwrap();
    fs::rename(fleet.file("shop.state"), fleet.file("lost.state")).unwrap();
    let _new = fleet
        .agent_like("shop", "replacement", "join.token", "replacement.token")
        .unwrap();
    fleet.wait_for_connection("shop", true).unwrap();
    let after = fleet.deployment("shop").unwrap();
    assert_eq!(
        (&after["id"], &after["labels"]),
        (&before["id"], &before["labels"])
    );
    fleet.wait_until_proven("2").unwrap();
    let [posts, _, deletes] = fleet.writes_of("shop").unwrap();
    assert_eq!(
        [posts, deletes],
        [writes[0], writes[2]],
        "nothing was made or deleted"
    );
}

/// Forgotten: nothing waits for it any more, and its Kibana keeps what it has.
fn forget(fleet: &mut Fleet) {
    let held = fleet.key_version(2).unwrap().1;
    let done = fleet
        .keyfleet(&[
            "deployment",
            "remove",
            "lab",
            "--reason",
            "scrapped",
            "--yes",
            "-o",
            "json",
        ])
        .unwrap();
    let removed: Value = serde_json::from_str(&done.must_succeed().unwrap().out).unwrap();
    assert_eq!(removed["bindings"], 1, "{removed}");
    let left = fleet.stack.json(&["get", "deployments"]).unwrap();
    assert_eq!(left["deployments"].as_array().unwrap().len(), 2, "{left}");
    assert_eq!(fleet.key_version(2).unwrap().1, held - 1);
    assert_eq!(fleet.n_connectors("lab").unwrap(), 1);
    let ended = fleet.agent_mut("lab").unwrap().wait(PATIENCE).unwrap();
    ended
        .context("the agent of a deployment that is gone goes on")
        .unwrap();
}
