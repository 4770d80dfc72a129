//! `keyfleet audit`: the log is shown, exported, and checked against whoever could change it.

use crate::harness::{Home, State, check, two_deployments};

fn state() -> State {
    let mut state = two_deployments();
    state.act("apply.store", "3 objects", "team moved");
    state.refuse("deployment.revoke", "deployment kibana-a");
    let rollout = format!("rollout {}", crate::fake::ROLLOUT_IDS[0]);
    state.act("rollout.pause", &rollout, "look first\u{1b}[2J");
    state.act("deployment.revoke", "deployment kibana-a", "laptop stolen");
    state
}

#[test]
fn the_newest_entries_are_shown() {
    let home = Home::new(state());
    let text = [
        home.run(&["audit", "tail"]),
        home.run(&["audit", "tail", "-n", "1", "-o", "wide"]),
        home.run(&["audit", "tail", "-n", "1", "-o", "json"]),
        Home::new(two_deployments()).run(&["audit", "tail"]),
    ];
    // Hashes cover the time, which differs between runs.
    let hash = regex_lite::Regex::new("[0-9a-f]{64}|[0-9A-Za-z+/]{43}=").unwrap();
    check("audit_tail", &hash.replace_all(&text.join("\n"), "HASH"));
}

#[test]
fn a_log_is_followed_over_a_dropped_stream() {
    let mut state = state();
    state.audit_later = vec![
        ("andon.off", "andon", "over"),
        ("andon.on", "andon", "stop"),
        ("", "", ""),
    ];
    let home = Home::new(state);
    let text = home.run(&["audit", "tail", "-n", "2", "-f", "--timeout", "2s"]);
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(" ada ")).collect();
    let actions: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    assert_eq!(
        actions,
        [
            "rollout.pause",
            "deployment.revoke",
            "andon.on",
            "andon.off"
        ],
        "{text}"
    );
    assert!(
        text.starts_with("exit 8") && text.contains("followed for 2s"),
        "{text}"
    );
}

#[test]
fn an_export_is_verified_without_the_control_service() {
    let home = Home::new(state());
    let export = home.run(&["audit", "export", "audit.ndjson"]);
    let head = home.run(&["audit", "verify", "-q"]);
    let head = head.strip_prefix("exit 0\n--- stdout\n").unwrap().trim();
    let offline = home.path("nowhere");
    let run = |args: &[&str]| {
        let output = home
            .command(args)
            .env("KEYFLEET_CONFIG", &offline)
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        format!("exit {}\n{out}{err}", output.status.code().unwrap())
    };
    let right = run(&["audit", "verify", "audit.ndjson", "--anchor", head]);
    assert!(right.starts_with(&format!("exit 0\n{head}\n")), "{right}");
    let whole = std::fs::read_to_string(home.path("audit.ndjson")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let broken = |text: String, rest: &[&str]| {
        home.write("broken.ndjson", &text);
        run(&[&["audit", "verify", "broken.ndjson"][..], rest].concat())
    };
    let text = [
        export,
        right.replace(head, "HEAD"),
        broken(whole.replace("laptop stolen", "laptop sold"), &[]),
        broken(whole.replace(".123456789Z", ".123456Z"), &[]),
        broken(whole.replace("\"failure\"", "\"success\""), &[]),
        broken([lines[0], lines[2], lines[3]].join("\n"), &[]),
        broken(lines[1..].join("\n"), &[]),
        broken(lines[..3].join("\n"), &["--anchor", head]),
        broken(whole.clone(), &["--anchor", &format!("2{}", &head[1..])]),
        broken("{}\n".into(), &[]),
        run(&["audit", "verify", "none.ndjson"]),
        run(&["audit", "verify", "audit.ndjson", "--anchor", "4"]),
        home.run(&["audit", "export", "audit.ndjson"]),
    ];
    check("audit_verify", &text.join("\n"));
}

#[test]
fn a_log_that_control_changed_is_found_and_still_exported() {
    let mut state = state();
    state.audit[2].principal = "nobody".into();
    let home = Home::new(state);
    for args in [
        &["audit", "verify"][..],
        &["audit", "export", "evidence.ndjson"],
    ] {
        let text = home.run(args);
        assert!(
            text.starts_with("exit 1") && text.contains("entry 3 is broken: it was changed"),
            "{text}"
        );
    }
    let evidence = std::fs::read_to_string(home.path("evidence.ndjson")).unwrap();
    assert_eq!(evidence.lines().count(), 4);
    // A part is exported from any number; to be believed it needs the hash before it.
    let part = home.run(&["audit", "export", "--from", "4"]);
    assert!(
        part.starts_with("exit 0") && part.contains("\"sequence\":4"),
        "{part}"
    );
}
