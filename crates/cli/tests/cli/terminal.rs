//! What a person sees at a terminal of 80 columns, and what the command does when it asks.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::harness::{Home, State, check, held, troubled, two_deployments};

/// Runs the command at a terminal of 80 columns with this typed in; gives everything that the screen shows.
pub(crate) fn at_terminal(home: &Home, args: &[&str], typed: &str) -> String {
    at_width(80, home, args, typed)
}

/// The same at a terminal of so many columns.
pub(crate) fn at_width(columns: u16, home: &Home, args: &[&str], typed: &str) -> String {
    let control = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&control).unwrap();
    unlockpt(&control).unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&control, size).unwrap();
    let path = ptsname(&control, Vec::new()).unwrap();
    let terminal = File::options()
        .read(true)
        .write(true)
        .open(path.to_str().unwrap())
        .unwrap();
    let side = || Stdio::from(OwnedFd::from(terminal.try_clone().unwrap()));
    // A session of its own, so that the size of the terminal under the test does not matter.
    let mut command = Command::new("setsid");
    let inner = home.command(args);
    command
        .arg("--wait")
        .arg("--ctty")
        .arg(inner.get_program())
        .args(args);
    command
        .env_clear()
        .env("HOME", home.dir.path())
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("TERM", "xterm")
        .current_dir(home.dir.path())
        .stdin(side())
        .stdout(side())
        .stderr(side());
    let mut child = command.spawn().unwrap();
    drop(command);
    drop(terminal);
    let mut control = File::from(control);
    let screen = talk(&mut control, typed);
    let code = child.wait().unwrap().code().unwrap();
    let text = String::from_utf8(screen).unwrap().replace("\r\n", "\n");
    let text = anstream::adapter::strip_str(&text).to_string();
    // A bar writes its line again and again; what was written last is on the screen.
    let last = |line: &str| line.rsplit('\r').next().unwrap_or_default().to_owned();
    let text: String = text.lines().map(|line| last(line) + "\n").collect();
    for line in text.lines() {
        assert!(
            line.chars().count() <= usize::from(columns),
            "too wide for the terminal: {line:?}"
        );
    }
    format!("exit {code}\n{text}")
}

/// Reads the screen to its end, and answers the question when it comes.
fn talk(control: &mut File, typed: &str) -> Vec<u8> {
    let mut screen = Vec::new();
    let mut answer = Some(typed);
    let mut chunk = [0; 4096];
    // Once the command has ended and closed its side, Linux answers EIO.
    while let Ok(n @ 1..) = control.read(&mut chunk) {
        screen.extend_from_slice(&chunk[..n]);
        let shown = String::from_utf8_lossy(&screen);
        if shown.trim_end().ends_with("[y/N]")
            && let Some(answer) = answer.take()
        {
            control.write_all(answer.as_bytes()).unwrap();
        }
    }
    screen
}

fn full() -> State {
    let mut state = troubled();
    state.held = held();
    state.act("apply.store", "3 objects", "team moved");
    state.refuse("deployment.allow-renewal", "deployment kibana-a");
    let rollout = format!("rollout {}", crate::fake::ROLLOUT_IDS[0]);
    state.act(
        "rollout.pause",
        &rollout,
        "look at the canary first, it is slow today",
    );
    state
}

#[test]
fn everything_fits_80_columns() {
    let home = Home::new(full());
    let mut text = String::new();
    for args in [
        &["status"][..],
        &["get", "deployments"],
        &["get", "connectors"],
        &["describe", "deployment", "kibana-a"],
        &["audit", "tail"],
        &["ca", "rotate", "--reason", "yearly"],
        &["models"],
        &["models", "--task", "automatic-migration"],
        &[
            "deployment",
            "revoke",
            "kibana-a",
            "--reason",
            "theft",
            "--yes",
        ],
        &[
            "token",
            "create",
            "operator",
            "--principal",
            "ci",
            "--role",
            "operator",
            "--scope",
            "team=soc",
            "-q",
        ],
        &["token", "list"],
    ] {
        text += &format!(
            "$ keyfleet {}\n{}\n",
            args.join(" "),
            at_terminal(&home, args, "")
        );
    }
    check("terminal", &text);
}

#[test]
fn a_person_is_asked() {
    let mut state = two_deployments();
    state.held = held();
    let placement = ("Placement".into(), "everywhere".into());
    state.objects.insert(placement, "x".into());
    let home = Home::new(state);
    let delete = ["delete", "placement", "everywhere", "--reason", "old"];
    let revoke = ["deployment", "revoke", "kibana-a", "--reason", "theft"];
    let text = [
        at_terminal(&home, &delete, "n\n"),
        at_terminal(&home, &delete, "\n"),
        at_terminal(&home, &delete, "\u{4}"),
        at_terminal(&home, &delete, "y\n"),
        at_terminal(&home, &revoke, "yes\n"),
    ];
    check("terminal_asks", &text.join("\n"));
}
