//! A home, a fake control service, and the real command between them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use keyfleet_proto::v1;

pub(crate) use crate::fake::State;
use crate::fake::{ADMIN, Fake, Step, before};

/// A fresh home beside a control service.
pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) fake: Fake,
}

impl Home {
    /// A home whose current context is the fake, as an admin.
    pub(crate) fn new(state: State) -> Self {
        let home = Self::without_context(state);
        home.add_context("prod", ADMIN);
        home
    }

    /// A home where nothing is set up.
    pub(crate) fn without_context(state: State) -> Self {
        let home = Self {
            dir: tempfile::tempdir().unwrap(),
            fake: Fake::start(state),
        };
        home.write("ca.pem", &home.fake.ca_pem);
        home
    }

    /// Adds a context with this token through the command itself.
    pub(crate) fn add_context(&self, name: &str, token: &str) {
        let endpoint = self.endpoint();
        let args = [
            "context",
            "add",
            name,
            "--endpoint",
            &endpoint,
            "--ca",
            "ca.pem",
            "--token-stdin",
        ];
        let output = self.output(&args, token);
        assert!(output.status.success(), "{output:?}");
    }

    /// Where the fake listens.
    pub(crate) fn endpoint(&self) -> String {
        format!("https://localhost:{}", self.fake.address.port())
    }

    /// A path in the home.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of mode 0600 into the home.
    pub(crate) fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// The command, in the home, with nothing else in its environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyfleet"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path());
        command
    }

    fn output(&self, args: &[&str], stdin: &str) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that needs no input may be gone already.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Runs the command and gives all that it said and its exit code, with what differs between runs replaced.
    pub(crate) fn run(&self, args: &[&str]) -> String {
        self.run_with(args, "")
    }

    /// The same with this text on standard input.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &str) -> String {
        let output = self.output(args, stdin);
        let mut text = format!("exit {}\n", output.status.code().unwrap());
        for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
            if !bytes.is_empty() {
                write!(text, "--- {name}\n{}", String::from_utf8(bytes).unwrap()).unwrap();
            }
        }
        text.replace(&self.endpoint(), "https://localhost:PORT")
            .replace(&self.dir.path().display().to_string(), "HOME")
    }
}

/// Compares with a snapshot file; times of day and full times are replaced.
pub(crate) fn check(name: &str, text: &str) {
    let text = regex_lite::Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
        .unwrap()
        .replace_all(text, "YYYY-MM-DDTHH:MM:SSZ");
    let text = regex_lite::Regex::new(r"\d\d:\d\d:\d\dZ")
        .unwrap()
        .replace_all(&text, "HH:MM:SSZ");
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => "../snapshots", omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

/// A fleet in which everything is wrong that can be: stopped, suspended, cloned, a connector on its way out.
pub(crate) fn troubled() -> State {
    let mut state = two_deployments();
    let [suspended, cloned] = &mut state.deployments[..] else {
        panic!("two deployments");
    };
    suspended.standing = v1::Standing::Suspended.into();
    suspended.standing_at = before(190);
    suspended.standing_reason = "odd logins on its host (ada)".into();
    cloned.standing = v1::Standing::Cloned.into();
    cloned.standing_at = before(65);
    cloned.standing_reason = "two agents use its identity (keyfleet)".into();
    cloned.certificate_not_after = before(65);
    state.andon = Some(v1::AndonState {
        by: "ada".into(),
        reason: "wrong model in every canary".into(),
        at: before(190),
    });
    state.problems = vec!["Vault does not answer since 12:00: connection refused".into()];
    state.set = "prod".into();
    state.deleting = true;
    state
}

/// What the agents of the fake were sent.
pub(crate) fn held() -> Vec<v1::HeldKey> {
    let version = |key: &str, version, state: v1::KeyState, open| v1::HeldKey {
        key: key.into(),
        version,
        state: state.into(),
        fingerprint: "4f1c9a77e0d2b85a".repeat(4),
        shown: format!("sk-proj-…a{version}Zq"),
        open,
    };
    vec![
        version("openai-prod", 6, v1::KeyState::Previous, false),
        version("openai-prod", 7, v1::KeyState::Current, true),
        version("openai-lab", 2, v1::KeyState::Revoked, false),
        version("openai-old", 4, v1::KeyState::Abandoned, false),
    ]
}

/// Two deployments: one proven, one failed and away.
pub(crate) fn two_deployments() -> State {
    let mut proven = deployment("kibana-a", true, "prod");
    proven.bindings = vec![state_count(v1::BindingState::Proven, 1)];
    let mut failed = deployment("kibana-b", false, "test");
    failed.bindings = vec![state_count(v1::BindingState::Failed, 1)];
    failed.waiting =
        "the provider refused the key (AUTH): 1 failure of 0 allowed in wave canary".into();
    State {
        deployments: vec![proven, failed],
        bindings: vec![
            binding(
                "kibana-a",
                v1::BindingState::Proven,
                v1::FailureClass::Unspecified,
                "",
            ),
            binding(
                "kibana-b",
                v1::BindingState::Failed,
                v1::FailureClass::Auth,
                "401: Incorrect API key provided",
            ),
        ],
        targets: vec![
            target(
                "kibana-a",
                0,
                v1::BindingState::Proven,
                v1::FailureClass::Unspecified,
                "",
            ),
            target(
                "kibana-b",
                1,
                v1::BindingState::Failed,
                v1::FailureClass::Auth,
                "401: Incorrect API key provided",
            ),
        ],
        ..State::default()
    }
}

fn deployment(name: &str, connected: bool, env: &str) -> v1::Deployment {
    v1::Deployment {
        id: format!("6f9619ff-8b86-4011-b42d-{name:0>12}"),
        name: name.into(),
        labels: [("env".into(), env.into()), ("region".into(), "eu".into())].into(),
        connected,
        last_seen: before(190),
        facts: Some(v1::KibanaFacts {
            reachable: connected,
            version: "9.4.0".into(),
            uuid: "5b2de169-2785-441b-ae8c-186a1936b17d".into(),
            flavor: "traditional".into(),
            licence: "enterprise, includes .gen-ai".into(),
            spaces: vec![
                v1::Space {
                    id: "default".into(),
                    actions_enabled: true,
                },
                v1::Space {
                    id: "soc".into(),
                    actions_enabled: false,
                },
            ],
            problems: vec![],
            observed_at: before(190),
            ..v1::KibanaFacts::default()
        }),
        agent_version: "0.1.0".into(),
        bindings: vec![],
        certificate_not_after: before(-86_400 * 9 - 60),
        generation: Some(v1::Generation {
            epoch: 3,
            counter: 12,
        }),
        waiting: String::new(),
        standing: v1::Standing::Active.into(),
        standing_reason: String::new(),
        standing_at: None,
        certificate_ca: "3f9a0c1d22e4".into(),
    }
}

fn binding(
    deployment: &str,
    state: v1::BindingState,
    class: v1::FailureClass,
    text: &str,
) -> v1::Binding {
    let proven = state == v1::BindingState::Proven;
    let assignment = |revision| {
        Some(v1::Assignment {
            revision,
            key_version: 7,
        })
    };
    v1::Binding {
        deployment: deployment.into(),
        binding: Some(v1::BindingRef {
            space: "default".into(),
            connector: "assistant".into(),
        }),
        placement: "everywhere".into(),
        connector_id: "2c5ea4c0-4067-11e9-8bad-9b1deb4d3b7d".into(),
        state: state.into(),
        desired: assignment(2),
        goal: assignment(2),
        running: if proven { assignment(2) } else { assignment(1) },
        last_proven: if proven { assignment(2) } else { None },
        proven_at: if proven { before(190) } else { None },
        failure_class: class.into(),
        text: text.into(),
        changed_at: before(190),
        waiting: String::new(),
        ..v1::Binding::default()
    }
}

fn target(
    deployment: &str,
    wave: u32,
    state: v1::BindingState,
    class: v1::FailureClass,
    text: &str,
) -> v1::RolloutTarget {
    v1::RolloutTarget {
        deployment: deployment.into(),
        wave,
        state: state.into(),
        failure_class: class.into(),
        text: text.into(),
        ..v1::RolloutTarget::default()
    }
}

/// A count of one state.
pub(crate) fn state_count(state: v1::BindingState, count: u32) -> v1::StateCount {
    v1::StateCount {
        state: state.into(),
        count,
    }
}

/// A rollout of two waves of one deployment each, in this phase, with the deployments in these states.
pub(crate) fn rollout(
    phase: v1::RolloutPhase,
    reason: &str,
    states: [v1::BindingState; 2],
) -> v1::Rollout {
    let wave = |name: &str, strict, state| v1::Wave {
        name: name.into(),
        strict,
        concurrency: 1,
        deployments: 1,
        states: vec![state_count(state, 1)],
        done: state == v1::BindingState::Proven,
        begun: state != v1::BindingState::Waiting,
        ..v1::Wave::default()
    };
    let ended = matches!(
        phase,
        v1::RolloutPhase::Completed
            | v1::RolloutPhase::RolledBack
            | v1::RolloutPhase::Aborted
            | v1::RolloutPhase::Superseded
    );
    let [canary, rest] = states;
    v1::Rollout {
        id: crate::fake::ROLLOUT_IDS[0].into(),
        strategy: "careful".into(),
        phase: phase.into(),
        cause: "ada applied assistant.yaml".into(),
        reason: reason.into(),
        waves: vec![wave("canary", true, canary), wave("rest", false, rest)],
        wave: u32::from(canary == v1::BindingState::Proven),
        started_at: before(250),
        ended_at: if ended { before(60) } else { None },
        connectors: vec!["assistant".into()],
        author: "ada".into(),
        ..v1::Rollout::default()
    }
}

/// A watch that says one thing after another.
pub(crate) fn script(rollouts: Vec<v1::Rollout>) -> Vec<Step> {
    rollouts
        .into_iter()
        .map(|rollout| Step::Now(Box::new(rollout)))
        .collect()
}
