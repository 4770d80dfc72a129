//! Invariant 10: canary secrets are planted, everything happens at TRACE level, and every output is searched for them.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use xtask::process::Process;

use crate::kit::{Fleet, Member, PATIENCE, Setup};
use crate::leak::{KEY_PREFIX, Secret, masked, random_key, search, shortened, tail};

const MEMBERS: [Member; 3] = [
    ("lab", "8.18.0", &["default"], &[("tier", "canary")]),
    (
        "soc",
        "9.4.0",
        &["default", "soc", "hunting"],
        &[("team", "security")],
    ),
    ("web", "9.6.0", &["default"], &[]),
];

#[test]
fn no_secret_is_in_any_output_with_text_logs() {
    nothing_leaks("text");
}

#[test]
fn no_secret_is_in_any_output_with_json_logs() {
    nothing_leaks("json");
}

fn nothing_leaks(format: &str) {
    let keys = [random_key(), random_key(), random_key()];
    let control = [
        ("KEYFLEET_CONTROL__LOG__FILTER", "trace"),
        ("KEYFLEET_CONTROL__LOG__FORMAT", format),
        ("KEYFLEET_CONTROL__VAULT__TIMEOUT_SECS", "2"),
        // Once the fleet finds out that a key is bad, once control does.
        (
            "KEYFLEET_CONTROL__PROVIDER__VERIFY",
            if format == "text" { "false" } else { "true" },
        ),
    ];
    let agents = [
        ("KEYFLEET_AGENT__LOG__FILTER", "trace"),
        ("KEYFLEET_AGENT__LOG__FORMAT", format),
        ("KEYFLEET_AGENT__DRIFT__INTERVAL_SECS", "1"),
    ];
    let setup = Setup {
        key: &keys[0],
        control: &control,
        agents: &agents,
        ..Setup::USUAL
    };
    let mut fleet = Fleet::start_as(&format!("secrets-{format}"), &MEMBERS, &setup).unwrap();
    let secrets = secrets(&fleet, &keys).unwrap();
    live(&mut fleet, &keys, format == "text").unwrap();
    assert_no_core_dumps(&mut fleet).unwrap();
    let mut outputs = BTreeMap::new();
    if format == "text" {
        // The format of the logs is nothing to the operator's command: once is enough.
        outputs = operator_outputs(&fleet).unwrap();
    }
    // What a thief may get hold of beside the database itself: a backup, and what went to an archive of logs.
    let backup = fleet.stack.dir().join("stolen.db");
    let backup = backup.to_string_lossy().into_owned();
    let made = fleet.control_command(&["backup", &backup]).unwrap();
    outputs.insert("backup".to_owned(), made.must_succeed().unwrap().out);
    outputs.insert("metrics".to_owned(), fleet.page("/metrics").unwrap());
    // Processes that have ended have written everything that they had to say.
    for (_, agent) in &mut fleet.agents {
        agent.terminate(PATIENCE).unwrap();
    }
    assert_killed_without_a_dump(&mut fleet).unwrap();
    let mut found = Vec::new();
    for (path, content) in &files(fleet.stack.dir()).unwrap() {
        found.extend(search(path, &String::from_utf8_lossy(content), &secrets));
    }
    for (name, output) in &outputs {
        found.extend(search(Path::new(name), output, &secrets));
    }
    assert!(
        found.is_empty(),
        "{} leaks:\n{}",
        found.len(),
        found.join("\n")
    );
    assert_nothing_was_scrubbed(&fleet, &outputs["metrics"]).unwrap();
    assert_private(&fleet).unwrap();
}

/// A whole life: install, rotation, a bad key that the fleet or control finds out, a broken Kibana, no Vault.
fn live(fleet: &mut Fleet, keys: &[String; 3], is_blind: bool) -> Result<()> {
    fleet.apply()?.must_succeed()?;
    fleet.accept_key(&keys[1])?;
    fleet.write_key(&keys[1])?;
    fleet.wait_until_proven("2")?;
    fleet.wait_for_phase("ROLLOUT_PHASE_COMPLETED")?;

    // The provider refuses the third and repeats it in every form there is.
    let bad = &keys[2];
    let message = format!(
        "Incorrect API key provided: {bad}. Masked {}, short {}, start {}, bare {}.",
        masked(bad),
        shortened(bad),
        &bad[..16],
        &bad[KEY_PREFIX.len()..]
    );
    let fault = serde_json::json!({ "mode": "revoked", "key_tail": tail(bad), "message": message });
    fleet.sim(&["fault", "--url", &fleet.openai.url, &fault.to_string()])?;
    fleet.write_key(bad)?;
    if is_blind {
        fleet.wait_for_phase("ROLLOUT_PHASE_ROLLED_BACK")?;
    } else {
        fleet.wait_for_campaign("CANCELLED")?;
    }
    fleet.wait_until_proven("2")?;

    fleet.break_kibana("web", r#"{"api": {"mode": "html", "status": 502}}"#)?;
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")?;
    fleet.begin_apply()?;
    fleet.wait_until("the broken Kibana is reported", || {
        let bindings = fleet.bindings().ok()?;
        bindings
            .iter()
            .any(|b| b["failureClass"] == "FAILURE_CLASS_KIBANA_DOWN")
            .then_some(())
    })?;
    fleet.break_kibana("web", "")?;
    fleet.wait_until_proven("2")?;

    fleet.stack.bao.seal()?;
    fleet.wait_until("the sealed Vault is noticed", || {
        let answer = fleet
            .stack
            .json(&["key", "show", "openai"])
            .ok()?
            .to_string();
        answer.to_lowercase().contains("sealed").then_some(())
    })?;
    fleet.stack.bao.stop()?;
    fleet.wait_until("the missing Vault is noticed", || {
        let answer = fleet
            .stack
            .json(&["key", "show", "openai"])
            .ok()?
            .to_string();
        (!answer.to_lowercase().contains("sealed")).then_some(())
    })
}

/// Everything that must not get out, and where it has to be.
fn secrets(fleet: &Fleet, keys: &[String; 3]) -> Result<Vec<Secret>> {
    let dir = fleet.stack.dir();
    let read =
        |path: &str| std::fs::read_to_string(dir.join(path)).with_context(|| path.to_owned());
    let operator = read("control/admin.token")?;
    let join = read("join.token")?;
    // What follows the dot is the hash of the CA's public key, which is public.
    let (join, _) = join.split_once('.').context("the form of a join token")?;
    let [first, second, bad] = keys;
    Ok(vec![
        Secret::key("the first key", first),
        Secret::key("the second key", second),
        Secret::key("the bad key", bad),
        Secret::random("Vault's token", &read("vault-token")?, &["vault-token"]),
        Secret::random(
            "the operator's token",
            &operator,
            &["control/admin.token", "operator/config.toml"],
        ),
        Secret::random("the join token", join, &["join.token"]),
        Secret::whole(
            "lab's API key",
            &read("lab.kibana-api-key")?,
            &["lab.kibana-api-key"],
        ),
        Secret::whole(
            "soc's API key",
            &read("soc.kibana-api-key")?,
            &["soc.kibana-api-key"],
        ),
        Secret::whole(
            "web's API key",
            &read("web.kibana-api-key")?,
            &["web.kibana-api-key"],
        ),
    ])
}

/// What simulators keep and say, and OpenBao's own files, are outside of what Keyfleet answers for.
fn is_ours(path: &str) -> bool {
    !["openbao/", "kibana-", "openai."]
        .iter()
        .any(|theirs| path.starts_with(theirs))
}

/// Every file of the fleet, by its path below the fleet's directory.
fn files(dir: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut to_visit = vec![dir.to_owned()];
    while let Some(visited) = to_visit.pop() {
        for entry in std::fs::read_dir(&visited)? {
            let path = entry?.path();
            let name = path.strip_prefix(dir)?.to_string_lossy().into_owned();
            if path.is_dir() {
                to_visit.push(path);
            } else if is_ours(&name) {
                files.insert(PathBuf::from(name), std::fs::read(&path)?);
            }
        }
    }
    for searched in [
        "control/keyfleet.db",
        "control/keyfleet.db-wal",
        "stolen.db",
    ] {
        anyhow::ensure!(
            files.contains_key(Path::new(searched)),
            "{searched} is searched"
        );
    }
    Ok(files)
}

/// What the operator's command says, in every format.
fn operator_outputs(fleet: &Fleet) -> Result<BTreeMap<String, String>> {
    let dir = fleet.manifests.dir().to_string_lossy().into_owned();
    let mut commands: Vec<Vec<&str>> = vec![
        vec!["status"],
        vec!["rollout", "list"],
        vec!["key", "list"],
        vec!["key", "show", "openai"],
        vec!["token", "list"],
        vec!["plan", "-f", &dir],
        vec!["apply", "-f", &dir, "--dry-run"],
        vec!["context", "list"],
        vec!["describe", "connector", "assistant"],
        vec!["describe", "key", "openai"],
        vec!["audit", "tail"],
        vec!["andon", "status"],
        vec!["ca", "show"],
    ];
    let objects = [
        "deployments",
        "connectors",
        "placements",
        "strategies",
        "keys",
        "bindings",
        "rollouts",
        "tokens",
    ];
    commands.extend(objects.map(|object| vec!["get", object]));
    commands.extend(MEMBERS.map(|(name, ..)| vec!["describe", "deployment", name]));
    let rollouts = fleet.stack.json(&["rollout", "list"])?;
    let ids: Vec<&str> = rollouts["rollouts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|r| r["id"].as_str())
        .collect();
    anyhow::ensure!(
        ids.len() >= 4,
        "install, rotation, bad key, model: {rollouts}"
    );
    commands.extend(ids.iter().map(|id| vec!["rollout", "show", id]));
    let mut outputs = BTreeMap::new();
    let export = fleet.keyfleet(&["audit", "export"])?.must_succeed()?;
    anyhow::ensure!(!export.out.is_empty(), "the export is not empty");
    outputs.insert("audit export".to_owned(), export.out);
    for command in commands {
        for format in ["table", "wide", "json", "yaml"] {
            let arguments: Vec<&str> = command.iter().copied().chain(["-o", format]).collect();
            let done = fleet.keyfleet(&arguments)?.must_succeed()?;
            outputs.insert(arguments.join(" "), format!("{}{}", done.out, done.err));
        }
    }
    Ok(outputs)
}

/// The logs are at TRACE level, and the net below them caught nothing: no secret was on its way into them.
fn assert_nothing_was_scrubbed(fleet: &Fleet, metrics: &str) -> Result<()> {
    let none = "keyfleet_log_lines_scrubbed_total 0\n";
    assert!(
        metrics.contains(none),
        "{}\n{metrics}",
        masked_lines(&fleet.control.process)?
    );
    assert!(fleet.control.process.log()?.contains("TRACE"));
    for (name, agent) in &fleet.agents {
        let log = agent.log()?;
        let none = ["log_lines_scrubbed=0", r#""log_lines_scrubbed":0"#];
        let is_clean = none.iter().any(|none| log.contains(none));
        assert!(is_clean, "{name}: {}", masked_lines(agent)?);
        assert!(log.contains("TRACE"), "{name}");
    }
    Ok(())
}

/// Lines of a log in which something was masked, to see where it came from.
fn masked_lines(process: &Process) -> Result<String> {
    let log = process.log()?;
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("[scrubbed]"))
        .take(20)
        .collect();
    Ok(lines.join("\n"))
}

/// A file that holds a secret is nobody else's.
fn assert_private(fleet: &Fleet) -> Result<()> {
    for path in [
        "stolen.db",
        "control/admin.token",
        "control/keyfleet.db",
        "operator/config.toml",
        "join.token",
    ] {
        let mode = std::fs::metadata(fleet.stack.dir().join(path))?
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(mode, 0o600, "{path}");
    }
    Ok(())
}

fn assert_no_core_dumps(fleet: &mut Fleet) -> Result<()> {
    let agents = fleet.agents.iter_mut().map(|(_, agent)| agent);
    for process in agents.chain([&mut fleet.control.process]) {
        let pid = process.pid().context("it runs")?;
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let words: Vec<&str> = core.context("no limit")?.split_whitespace().collect();
        assert_eq!(
            words.get(4..6),
            Some(["0", "0"].as_slice()),
            "{} dumps no core",
            process.name()
        );
    }
    Ok(())
}

/// Even a process that is made to crash leaves nothing of its memory behind, and nobody of its own user may look in.
fn assert_killed_without_a_dump(fleet: &mut Fleet) -> Result<()> {
    let process = &mut fleet.control.process;
    let pid = process.pid().context("it runs")?;
    // The files of a process that may not be looked into belong to root, whoever runs it.
    let owner = std::fs::metadata(format!("/proc/{pid}/environ"))?.uid();
    assert_eq!(owner, 0, "{pid} may be looked into");
    process.signal(Signal::ABORT);
    let status = process.wait(PATIENCE)?.context("it ran")?;
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
    assert!(!status.core_dumped(), "{status}");
    Ok(())
}
