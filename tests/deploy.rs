//! Holds what operators copy: the units, the policy, the role and the settings of the handbook.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use xtask::bao::Bao;
use xtask::binaries::{self, workspace};
use xtask::registry::Dir;
use xtask::say;

const UNITS: [&str; 2] = ["keyfleet-agent.service", "keyfleet-control.service"];

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

fn deployed(name: &str) -> Result<String> {
    let path: PathBuf = workspace().join("deploy").join(name);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn scratch() -> Result<Dir> {
    let parent: &Path = &binaries::target_dir()?.join("run");
    Dir::new_in(parent, "deploy-test-")
}
