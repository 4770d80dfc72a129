//! The audit log: a day of an operator, read by whoever asks later, and what becomes of it when somebody edits the file.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::kit::{Fleet, Member};

const LAB: [Member; 1] = [("lab", "8.18.0", &["default"], &[("tier", "canary")])];

/// Every entry, the oldest first.
pub(crate) fn entries(fleet: &Fleet) -> Result<Vec<Value>> {
    let done = fleet.keyfleet(&["audit", "tail", "-n", "100000", "-o", "json"])?;
    let out = done.must_succeed()?.out;
    let read = |line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"));
    out.lines().map(read).collect()
}

/// Who did what and why, as the log has it; the reason of what Keyfleet did itself is in the detail.
pub(crate) fn said(entries: &[Value]) -> Vec<[&str; 4]> {
    entries
        .iter()
        .map(|entry| {
            ["principal", "action", "outcome", "reason"]
                .map(|name| entry[name].as_str().unwrap_or_default())
        })
        .collect()
}

fn must_have(entries: &[Value], expected: [&str; 4]) {
    let said = said(entries);
    assert!(said.contains(&expected), "{expected:?} is not in {said:#?}");
}

/// `number:hash`, as the log of control has it last.
fn noted_head(fleet: &Fleet) -> Result<String> {
    let log = fleet.control.process.log()?;
    let line = log.lines().rev().find(|line| line.contains("audit.head"));
    let line = line.context("control never logged the head")?;
    let (_, head) = line.split_once("audit.head").context("no head")?;
    let is_part = |c: &char| c.is_ascii_hexdigit() || *c == ':';
    let head = head.trim_start_matches(|c| "\"=: ".contains(c));
    Ok(head.chars().take_while(is_part).collect())
}

/// Replaces every copy of a text in a file by another of the same length.
fn overwrite(file: &Path, from: &str, to: &str) -> Result<usize> {
    ensure!(from.len() == to.len(), "the length must stay");
    let mut bytes = fs::read(file)?;
    let found: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter_map(|(at, window)| (window == from.as_bytes()).then_some(at))
        .collect();
    for at in &found {
        let place = bytes.get_mut(*at..at + to.len()).context("no place")?;
        place.copy_from_slice(to.as_bytes());
    }
    fs::write(file, bytes)?;
    Ok(found.len())
}

#[test]
fn a_day_is_written_down_and_an_edit_of_the_file_is_found() {
    let mut fleet = Fleet::start("audit", &LAB).unwrap();
    let run = |arguments: &[&str]| fleet.keyfleet(arguments).unwrap().must_succeed().unwrap();
    fleet
        .apply_with(&["--reason", "ticket 17", "--wait"])
        .unwrap()
        .must_succeed()
        .unwrap();
    fleet
        .manifests
        .edit("connector.yaml", "gpt-5.4-mini", "gpt-5.2")
        .unwrap();
    fleet.begin_apply().unwrap();
    let rollout = fleet.rollout_id().unwrap();
    fleet.say("pause", &rollout).unwrap();
    fleet.say("resume", &rollout).unwrap();
    run(&["deployment", "suspend", "lab", "--reason", "odd logins"]);
    run(&[
        "deployment",
        "resume",
        "lab",
        "--reason",
        "host was checked",
    ]);
    run(&["andon", "on", "--reason", "lunch for everybody"]);
    run(&["andon", "off", "--reason", "back again"]);
    run(&["rollout", "watch", &rollout, "--timeout", "60s"]);

    let day = entries(&fleet).unwrap();
    must_have(&day, ["keyfleet", "token.create", "done", ""]);
    for (action, reason) in [
        ("token.create", ""),
        ("manifests.apply", "ticket 17"),
        ("rollout.pause", "the test wants it"),
        ("rollout.resume", "the test wants it"),
        ("deployment.suspend", "odd logins"),
        ("deployment.resume", "host was checked"),
        ("andon.on", "lunch for everybody"),
        ("andon.off", "back again"),
    ] {
        must_have(&day, ["admin", action, "done", reason]);
    }
    let numbers: Vec<&str> = day.iter().filter_map(|e| e["number"].as_str()).collect();
    let expected: Vec<String> = (1..=day.len()).map(|n| n.to_string()).collect();
    assert_eq!(numbers, expected, "from 1, without gaps");
    let total = u64::try_from(day.len()).unwrap();
    assert_eq!(fleet.metric("keyfleet_audit_entries").unwrap(), total);
    run(&["audit", "verify"]);

    the_end_of_the_chain_is_in_the_log(&mut fleet, total);
    an_edit_is_found(&mut fleet, &day);
}

/// There whoever keeps logs has it too.
fn the_end_of_the_chain_is_in_the_log(fleet: &mut Fleet, total: u64) {
    fleet
        .control
        .process
        .terminate(crate::kit::PATIENCE)
        .unwrap();
    let head = noted_head(fleet).unwrap();
    assert!(head.starts_with(&format!("{total}:")), "{head}");
    fleet.control.process.restart().unwrap();
    let verify = ["audit", "verify", "--anchor", &head];
    fleet.keyfleet(&verify).unwrap().must_succeed().unwrap();
}

/// Somebody with access to the file edits what was said.
fn an_edit_is_found(fleet: &mut Fleet, day: &[Value]) {
    let number = day
        .iter()
        .find(|entry| entry["reason"] == "odd logins")
        .and_then(|entry| entry["number"].as_str())
        .unwrap();
    fleet
        .control
        .process
        .terminate(crate::kit::PATIENCE)
        .unwrap();
    let database = fleet.control.data_dir.join("keyfleet.db");
    let edited = overwrite(&database, "odd logins", "no problem").unwrap();
    assert!(edited > 0, "the database has the text");
    fleet.control.process.restart().unwrap();
    let found = fleet.keyfleet(&["audit", "verify"]).unwrap();
    assert_ne!(found.code, 0, "{found:?}");
    assert!(found.err.contains(&format!("entry {number} ")), "{found:?}");
}
