//! A server with one reader's policy, and what tests ask of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keyfleet_core::id::KeyVersion;
use keyfleet_core::key::KeyLocation;
use keyfleet_vault::{Auth, Error, Settings, Vault};
use secrecy::ExposeSecret as _;
use xtask::bao::Bao;
use xtask::binaries;
use xtask::registry::Dir;

pub(crate) const POLICY: &str = r#"
path "secret/data/openai/*" { capabilities = ["read"] }
path "secret/metadata/openai/*" { capabilities = ["read"] }
path "v1/openai/*" { capabilities = ["read"] }
"#;

/// A server with one reader's policy. Fields drop in order: the server before its directory.
pub(crate) struct Fixture {
    pub(crate) bao: Bao,
    pub(crate) dir: Dir,
}

impl Fixture {
    /// In memory, which is ready at once.
    pub(crate) fn start() -> Self {
        Self::start_as(Bao::start_in_memory)
    }

    pub(crate) fn start_as(start: fn(&Path) -> anyhow::Result<Bao>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = Dir::new_in(&binaries::target_dir().unwrap().join("run"), "vault-test-").unwrap();
        let bao = start(dir.path()).unwrap();
        bao.policy("reader", POLICY).unwrap();
        Self { bao, dir }
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn settings(&self, auth: Auth) -> Settings {
        let mut settings = Settings::new(self.bao.address().parse().unwrap(), auth);
        settings.ca_file = Some(self.bao.ca_file());
        settings
    }

    /// Settings with a fresh token in a file.
    pub(crate) fn with_token(&self) -> Settings {
        let token = self.bao.token("reader", "1h").unwrap();
        self.settings(Auth::TokenFile(self.file("token", &format!("{token}\n"))))
    }
}

pub(crate) fn key(path: &str) -> KeyLocation {
    KeyLocation {
        mount: "secret".to_owned(),
        path: path.to_owned(),
        field: "api_key".into(),
    }
}

pub(crate) async fn read(
    vault: &Vault,
    path: &str,
    version: Option<u64>,
) -> Result<(u64, String), Error> {
    let found = vault.read(&key(path), version.map(KeyVersion)).await?;
    let version = found.version.map_or(0, |version| version.0);
    Ok((version, found.value.expose_secret().to_owned()))
}

/// Looks until `reached` or until the deadline.
pub(crate) async fn eventually(what: &str, reached: impl AsyncFn() -> bool) {
    let look = async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(30), look)
            .await
            .is_ok(),
        "{what} was not reached"
    );
}
