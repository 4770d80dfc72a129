//! Holds what operators copy: the units, the policy, the role and the settings of the handbook.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use xtask::bao::Bao;
use xtask::binaries::{self, workspace};
use xtask::fleet::AgentOptions;
use xtask::registry::Dir;
use xtask::say;
use xtask::stack::Stack;

const UNITS: [&str; 3] = [
    "keyfleet-agent.service",
    "keyfleet-agents.service",
    "keyfleet-control.service",
];

/// The manifests beside the examples, each of which is applied on top of them.
const MORE_EXAMPLES: [&str; 4] = ["endpoint", "parts", "providers", "spaces"];

/// What they want in Vault, as they say themselves: path, and a field with a value that looks like one.
const SECRETS: [(&str, &[&str]); 6] = [
    ("keyfleet/openai", &["api_key"]),
    ("keyfleet/azure", &["api_key"]),
    ("keyfleet/own-llm", &["api_key"]),
    ("keyfleet/bedrock", &["access_key", "secret_key"]),
    ("keyfleet/own-llm-pki", &["certificate", "private_key"]),
    ("keyfleet/gemini", &["credentials"]),
];

#[test]
fn the_units_are_what_systemd_expects() -> Result<()> {
    for unit in UNITS {
        let text = deployed(&format!("systemd/{unit}"))?;
        for line in [
            "LimitCORE=0",
            "MemorySwapMax=0",
            "NoNewPrivileges=yes",
            "StateDirectoryMode=0700",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{unit} lacks the line {line}"
            );
        }
    }
    if !binaries::has_tool("systemd-analyze", &["--version"]) {
        say::line(
            "SKIPPED: systemd-analyze is not installed, so the units in deploy/systemd are not verified",
        );
        return Ok(());
    }
    let dir = scratch()?;
    for unit in UNITS {
        let path = dir.path().join(unit);
        std::fs::write(&path, startable(&deployed(&format!("systemd/{unit}"))?)?)?;
        let output = Command::new("systemd-analyze")
            .arg("verify")
            .arg(&path)
            .output()?;
        // It ends with 0 even where it found a key that it does not know.
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "systemd-analyze says of {unit}:\n{said}"
        );
    }
    Ok(())
}

/// The unit with a program that is there: systemd looks for it.
fn startable(unit: &str) -> Result<String> {
    let program = std::env::current_exe()?.display().to_string();
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let installed = start
        .and_then(|line| line.split(' ').next())
        .context("the unit starts nothing")?;
    Ok(unit.replace(installed, &program))
}

#[test]
fn the_role_allows_connectors_and_nothing_else() -> Result<()> {
    let role: Value = serde_json::from_str(&deployed("kibana/role.json")?)?;
    let roles = role["role_descriptors"]
        .as_object()
        .context("no role_descriptors")?;
    assert_eq!(roles.len(), 1);
    for descriptor in roles.values() {
        assert_eq!(descriptor["cluster"], json!([]));
        assert_eq!(descriptor["indices"], json!([]));
        let applications = descriptor["applications"]
            .as_array()
            .context("no applications")?;
        for application in applications {
            assert_eq!(application["privileges"], json!(["feature_actions.all"]));
        }
        assert_eq!(applications.len(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn the_policy_lets_control_read_its_keys_and_nothing_else() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = scratch()?;
    let bao = Bao::start_in_memory(dir.path())?;
    bao.policy("keyfleet", &deployed("vault/keyfleet-policy.hcl")?)?;
    bao.kv_put("keyfleet/openai", "api_key", "not-a-key")?;
    bao.kv_put("admin/openai", "api_key", "not-a-key")?;
    let reader = Reader::new(&bao)?;
    for (path, status) in [
        ("secret/data/keyfleet/openai", 200),
        ("secret/metadata/keyfleet/openai", 200),
        ("auth/token/lookup-self", 200),
        ("secret/data/admin/openai", 403),
        ("secret/metadata/admin/openai", 403),
        ("sys/mounts", 403),
    ] {
        assert_eq!(reader.get(path).await?, status, "GET {path}");
    }
    assert_eq!(reader.post("auth/token/renew-self").await?, 200);
    assert_eq!(reader.post("secret/data/keyfleet/openai").await?, 403);
    Ok(())
}

/// Speaks to the server with the policy's token.
struct Reader {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Reader {
    fn new(bao: &Bao) -> Result<Self> {
        let ca = reqwest::Certificate::from_pem(&std::fs::read(bao.ca_file())?)?;
        let client = reqwest::Client::builder()
            .tls_certs_only([ca])
            .timeout(std::time::Duration::from_secs(10))
            .build()?;
        let token = bao.token("keyfleet", "10m")?;
        Ok(Self {
            client,
            base: bao.address(),
            token,
        })
    }

    async fn get(&self, path: &str) -> Result<u16> {
        self.send(self.client.get(format!("{}/v1/{path}", self.base)))
            .await
    }

    async fn post(&self, path: &str) -> Result<u16> {
        self.send(
            self.client
                .post(format!("{}/v1/{path}", self.base))
                .json(&json!({})),
        )
        .await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<u16> {
        Ok(request
            .header("X-Vault-Token", &self.token)
            .send()
            .await?
            .status()
            .as_u16())
    }
}

#[test]
fn the_settings_of_the_handbook_are_accepted() -> Result<()> {
    let dir = scratch()?;
    let here = dir.path().display().to_string();
    let file = |name: &str| dir.path().join(name);
    // The form of a join token: 32 bytes and the SHA-256 of a key.
    std::fs::write(
        file("join-token"),
        format!("kfj_{}.{}", "A".repeat(43), "0f".repeat(32)),
    )?;
    std::fs::write(file("kibana-api-key"), "not-a-key")?;
    for (program, name) in [
        ("keyfleet-control", "control.toml"),
        ("keyfleet-agent", "agent.toml"),
    ] {
        let settings = toml_block(name)?.replace("/etc/keyfleet-agent", &here);
        std::fs::write(file(name), settings)?;
        let output = Command::new(binaries::path(program)?)
            .arg("check-config")
            .arg("--config")
            .arg(file(name))
            .env("CREDENTIALS_DIRECTORY", dir.path())
            .env("KEYFLEET_AGENT__STATE_DIR", dir.path().join("state"))
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{program} refuses the handbook's {name}: {said}"
        );
    }
    Ok(())
}

#[test]
fn every_example_is_taken_by_the_control_service() -> Result<()> {
    let stack = Stack::start_quick("deploy-examples-")?;
    for (path, fields) in SECRETS {
        let fields: Vec<String> = fields
            .iter()
            .map(|field| format!("{field}=not-a-key"))
            .collect();
        let place = format!("secret/{path}");
        let mut arguments = vec!["kv", "put", &place];
        arguments.extend(fields.iter().map(String::as_str));
        stack.bao.cli(&arguments)?;
    }
    // The hosts that the examples name.
    let hosts = "api.openai.com,contoso.openai.azure.com,llm.example.com,\
                 bedrock-runtime.eu-central-1.amazonaws.com,europe-west3-aiplatform.googleapis.com";
    let gates = "gates.example.com,prometheus.example.com";
    let _control = stack.control(&[
        ("KEYFLEET_CONTROL__OUTBOUND__ALLOWED_HOSTS", hosts),
        ("KEYFLEET_CONTROL__GATES__ALLOWED_HOSTS", gates),
    ])?;
    let examples = deploy().join("examples").display().to_string();
    let apply = ["apply", "-f", &examples, "--reason", "the examples"];
    stack.keyfleet(&apply)?.must_succeed()?;
    for name in MORE_EXAMPLES {
        let file = deploy().join(format!("kibana/{name}.yaml"));
        let file = file.display().to_string();
        let planned = stack.keyfleet(&["plan", "-f", &file])?.must_succeed()?;
        assert!(planned.out.contains(": create"), "{name}: {}", planned.out);
    }
    let file = deploy().join("strategies/full.yaml").display().to_string();
    let planned = stack.keyfleet(&["plan", "-f", &file])?.must_succeed()?;
    assert!(planned.out.contains(": create"), "{}", planned.out);
    // None is forgotten here.
    let mut found = Vec::new();
    for entry in std::fs::read_dir(deploy().join("kibana"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            found.extend(path.file_stem().map(|name| name.display().to_string()));
        }
    }
    found.sort();
    assert_eq!(found, MORE_EXAMPLES);
    Ok(())
}

#[test]
fn the_settings_of_remote_mode_are_accepted() -> Result<()> {
    let dir = scratch()?;
    let here = dir.path().display().to_string();
    let file = |name: &str| dir.path().join(name);
    std::fs::create_dir(file("deployments"))?;
    std::fs::write(
        file("join-token"),
        format!("kfj_{}.{}", "A".repeat(43), "0f".repeat(32)),
    )?;
    std::fs::write(file("cloud-eu.kibana-api-key"), "not-a-key")?;
    for name in ["common.toml", "deployments/cloud-eu.toml"] {
        let settings = toml_block(name)?.replace("/etc/keyfleet-agents", &here);
        std::fs::write(file(name), settings)?;
    }
    let output = Command::new(binaries::path("keyfleet-agent")?)
        .arg("check-config")
        .arg("--config")
        .arg(file("common.toml"))
        .arg("--deployments")
        .arg(file("deployments"))
        .env("CREDENTIALS_DIRECTORY", dir.path())
        .env("KEYFLEET_AGENT__STATE_DIR", dir.path().join("state"))
        .output()?;
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "the handbook's remote mode is refused: {said} {complained}"
    );
    assert!(
        said.contains("cloud-eu.toml: the settings are usable"),
        "{said}"
    );
    Ok(())
}

/// A certificate, a private key, and the id of a service account, as the simulated providers take them.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
const ACCOUNT_ID: &str = "0f0e0d0c0b0a09080706";

/// Puts the secrets of `parts.yaml` where it says they are.
fn put_parts(bao: &Bao) -> Result<()> {
    let account = json!({
        "type": "service_account", "client_email": "keyfleet@llm.example.com",
        "private_key": PRIVATE_KEY, "private_key_id": ACCOUNT_ID,
    });
    for (path, fields) in [
        (
            "bedrock",
            vec![
                ("access_key", "AKIASIMULATED0000000"),
                ("secret_key", "not/a+secret"),
            ],
        ),
        (
            "own-llm-pki",
            vec![("certificate", CERTIFICATE), ("private_key", PRIVATE_KEY)],
        ),
        (
            "gemini",
            vec![("credentials", account.to_string().as_str())],
        ),
    ] {
        let place = format!("secret/keyfleet/{path}");
        let fields: Vec<String> = fields
            .iter()
            .map(|(field, text)| format!("{field}={text}"))
            .collect();
        let mut arguments = vec!["kv", "put", &place];
        arguments.extend(fields.iter().map(String::as_str));
        bao.cli(&arguments)?;
    }
    Ok(())
}

#[test]
fn keys_of_several_parts_are_proven_as_the_example_has_them() -> Result<()> {
    let stack = Stack::start_quick("deploy-parts-")?;
    put_parts(&stack.bao)?;
    let pki = STANDARD.encode(CERTIFICATE);
    let keys = [&pki, "AKIASIMULATED0000000:not/a+secret", ACCOUNT_ID];
    let provider = stack.openai("openai", &keys)?;
    let control = stack.control(&[])?;
    let kibana = stack.kibana("kibana-lab", "9.4.0", &["default"], "kibana-key-of-lab")?;
    let join_token = stack.join_token(1)?;
    let options = AgentOptions {
        name: "lab",
        labels: &[("llm", "all")],
        api_key: "kibana-key-of-lab",
        join_token: &join_token,
        drift_interval_secs: 300,
    };
    let types = (
        "KEYFLEET_AGENT__ACCEPT__CONNECTOR_TYPES",
        ".gen-ai,.bedrock,.gemini",
    );
    let _agent = stack.agent_with(&control, &kibana, &options, &[types])?;
    let mut parts = deployed("kibana/parts.yaml")?
        .replace(
            "https://llm.example.com",
            &format!("{}/compatible", provider.url),
        )
        .replace("eu.anthropic", "us.anthropic");
    for host in [
        "bedrock-runtime.eu-central-1.amazonaws.com",
        "europe-west3-aiplatform.googleapis.com",
        "llm.example.com",
    ] {
        parts = parts
            .replace(&format!("https://{host}"), &provider.url)
            .replace(&format!("[{host}]"), "[127.0.0.1]");
    }
    let file = |name: &str| stack.dir().join(name).display().to_string();
    let (parts_file, strategy_file) = (file("parts.yaml"), file("strategy.yaml"));
    std::fs::write(&parts_file, parts)?;
    std::fs::write(&strategy_file, deployed("examples/strategy.yaml")?)?;
    let apply = ["apply", "-f", &strategy_file, "-f", &parts_file];
    let wait = ["--reason", "all of them", "--wait", "--timeout", "60s"];
    let applied = stack.keyfleet(&[&apply[..], &wait[..]].concat())?;
    applied.must_succeed()?;
    let found = stack.json(&["get", "bindings"])?;
    let bindings = found["bindings"].as_array().context("no bindings")?;
    let is_proven = |binding: &&Value| binding["state"] == "BINDING_STATE_PROVEN";
    assert_eq!(bindings.iter().filter(is_proven).count(), 3, "{found}");
    Ok(())
}

/// The block of the handbook that begins with the comment `# /etc/…/<name>`.
fn toml_block(name: &str) -> Result<String> {
    let handbook = deployed("README.md")?;
    let blocks = handbook
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let is_wanted = |block: &&str| {
        block
            .lines()
            .next()
            .is_some_and(|first| first.ends_with(name))
    };
    let mut found = blocks.filter(is_wanted);
    let block = found
        .next()
        .with_context(|| format!("deploy/README.md has no block for {name}"))?;
    ensure!(
        found.next().is_none(),
        "deploy/README.md has two blocks for {name}"
    );
    Ok(block.to_owned())
}

fn deploy() -> PathBuf {
    workspace().join("deploy")
}

fn deployed(name: &str) -> Result<String> {
    let path = deploy().join(name);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn scratch() -> Result<Dir> {
    let parent: &Path = &binaries::target_dir()?.join("run");
    Dir::new_in(parent, "deploy-test-")
}
