//! The address behind a name changes: an agent looks the name up anew at each connect.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use xtask::fleet::AgentOptions;
use xtask::process::Process;
use xtask::stack::{READY, Stack};
use xtask::{binaries, wait};

use crate::kit::PATIENCE;

/// Control's name in a hosts file that only the agent sees.
const NAME: &str = "control.test";

/// Another address of control, as a load balancer has it: what comes here goes there.
struct Address {
    has_left: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Address {
    fn open(at: (&str, u16), control: u16) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        let (has_left, streams) = (
            Arc::<AtomicBool>::default(),
            Arc::<Mutex<Vec<_>>>::default(),
        );
        let (is_closed, kept) = (has_left.clone(), streams.clone());
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if is_closed.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(("127.0.0.1", control)) else {
                    continue;
                };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                kept.lock().unwrap().extend([near, far]);
            }
        });
        Self { has_left, streams }
    }

    fn n_connections(&self) -> usize {
        self.streams.lock().unwrap().len() / 2
    }

    /// Nobody is there any more: what is open breaks, and what comes is turned away.
    fn leave(&self) {
        self.has_left.store(true, Ordering::SeqCst);
        for stream in self.streams.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// True where this user may give a process a file system view of its own.
fn may_unshare() -> bool {
    let tried = Command::new("unshare")
        .args(["--map-root-user", "--mount", "true"])
        .output();
    tried.is_ok_and(|tried| tried.status.success())
}

#[test]
fn an_agent_follows_the_name_of_control_to_another_address() {
    if !may_unshare() {
        xtask::say::line(
            "skipped: this machine lets nobody have a hosts file of his own (unshare)",
        );
        return;
    }
    let stack = Stack::start_quick("e2e-names-").unwrap();
    let control = stack
        .control(&[("KEYFLEET_CONTROL__AGENTS__NAMES", NAME)])
        .unwrap();
    let kibana = stack
        .kibana("kibana-lab", "9.4.0", &["default"], "kibana-key")
        .unwrap();
    let options = AgentOptions {
        name: "lab",
        labels: &[],
        api_key: "kibana-key",
        join_token: &stack.join_token(1).unwrap(),
        drift_interval_secs: 300,
    };
    let port = xtask::net::free_port().unwrap();
    let first = Address::open(("127.0.0.2", port), control.agents_port);
    let second = Address::open(("127.0.0.3", port), control.agents_port);
    let hosts = stack.dir().join("hosts");
    std::fs::write(&hosts, format!("127.0.0.2 {NAME}\n")).unwrap();

    let config = stack.agent_config(&control, &kibana, &options).unwrap();
    let mut agent = Command::new("unshare");
    agent
        .args(["--map-root-user", "--mount", "sh", "-c"])
        .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
        .args([&hosts, &binaries::path("keyfleet-agent").unwrap()])
        .args(["run", "--config"])
        .arg(&config)
        .env(
            "KEYFLEET_AGENT__CONTROL__ADDRESS",
            format!("https://{NAME}:{port}"),
        );
    let is_ready = |line: &str| line.contains("session established");
    let _agent = Process::spawn("agent-lab", agent, stack.dir(), is_ready, READY).unwrap();
    assert!(first.n_connections() > 0);
    assert_eq!(second.n_connections(), 0);

    std::fs::write(&hosts, format!("127.0.0.3 {NAME}\n")).unwrap();
    first.leave();
    let is_back = || {
        let answer = stack.json(&["get", "deployments"]).ok()?;
        let is_connected = answer["deployments"][0]["connected"] == true;
        (is_connected && second.n_connections() > 0).then_some(())
    };
    wait::until(PATIENCE, is_back).expect("the agent comes back over the other address");
}
