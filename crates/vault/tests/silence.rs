//! No log line of any library on the way carries a secret, at the most talkative level.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up fails at once"
)]

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use keyfleet_core::key::{KeyField, KeyLocation};
use keyfleet_vault::{Auth, Settings, Vault, Wrapped};
use secrecy::ExposeSecret as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use xtask::bao::Bao;
use xtask::binaries;
use xtask::registry::Dir;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_line_carries_a_token_a_secret_id_or_a_value() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = Dir::new_in(
        &binaries::target_dir().unwrap().join("run"),
        "vault-silence-",
    )
    .unwrap();
    let bao = Bao::start_in_memory(dir.path()).unwrap();
    bao.policy(
        "reader",
        r#"path "secret/data/*" { capabilities = ["read"] }"#,
    )
    .unwrap();
    bao.kv_put("a", "api_key", "sk-canary-value").unwrap();
    let pem = "-----BEGIN PRIVATE KEY-----\nsk-canary-line\n-----END PRIVATE KEY-----\n";
    let secret =
        format!(r#"{{"id": "sk-canary-id", "pem": {pem:?}, "blank": "\u001fsk-canary-odd"}}"#);
    bao.cli_with_input(&["kv", "put", "-mount=secret", "parts", "-"], &secret)
        .unwrap();
    let parts = |pem: &str| KeyLocation {
        mount: "secret".into(),
        path: "parts".into(),
        field: KeyField::Parts(BTreeMap::from([
            ("accessKey".to_owned(), "id".to_owned()),
            ("privateKey".to_owned(), pem.to_owned()),
        ])),
    };
    let token = bao.token("reader", "1h").unwrap();
    let role = bao.approle("control", "reader", "1h", "2h").unwrap();
    let wrapping = bao
        .cli(&[
            "write",
            "-wrap-ttl=60s",
            "-force",
            "-field=wrapping_token",
            "auth/approle/role/control/secret-id",
        ])
        .unwrap();
    let (wrapped_file, jwt_file) = (dir.path().join("wrapped"), dir.path().join("jwt"));
    std::fs::write(&wrapped_file, &wrapping).unwrap();
    std::fs::write(&jwt_file, "canary-jwt").unwrap();
    let (token_file, secret_id_file) = (dir.path().join("token"), dir.path().join("secret-id"));
    std::fs::write(&token_file, &token).unwrap();
    std::fs::write(&secret_id_file, &role.secret_id).unwrap();
    let mount = "approle".to_owned();
    let wrapped = Wrapped {
        role: "control".to_owned(),
        used_file: None,
    };
    let auths = [
        Auth::TokenFile(token_file),
        Auth::AppRole {
            mount: mount.clone(),
            role_id: role.role_id.clone(),
            secret_id_file: wrapped_file,
            wrapped: Some(wrapped),
        },
        Auth::AppRole {
            mount,
            role_id: role.role_id,
            secret_id_file,
            wrapped: None,
        },
    ];

    let log = Buffer::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    for auth in auths {
        let mut settings = Settings::new(bao.address().parse().unwrap(), auth);
        settings.ca_file = Some(bao.ca_file());
        let vault = Vault::connect(settings).await.unwrap();
        let location = |path: &str| KeyLocation {
            mount: "secret".into(),
            path: path.into(),
            field: "api_key".into(),
        };
        let found = vault.read(&location("a"), None).await.unwrap();
        assert_eq!(found.value.expose_secret(), "sk-canary-value");
        let several = vault.read(&parts("pem"), None).await.unwrap();
        assert!(several.value.expose_secret().contains("sk-canary-line"));
        let odd = vault.read(&parts("blank"), None).await.unwrap_err();
        let missing = vault.read(&location("b"), None).await.unwrap_err();
        bao.revoke_token(&token).unwrap();
        let refused = vault.current_version(&location("a")).await.unwrap_err();
        tracing::error!(?several, ?odd, %odd, "everything of parts");
        tracing::error!(?vault, ?found, ?missing, ?refused, %missing, %refused, "everything that can be printed");
    }
    let mut settings = Settings::new(
        bao.address().parse().unwrap(),
        Auth::Jwt {
            mount: "jwt".to_owned(),
            role: "control".to_owned(),
            token_file: jwt_file,
        },
    );
    settings.ca_file = Some(bao.ca_file());
    let refused = Vault::connect(settings).await.unwrap_err();
    tracing::error!(?refused, %refused, "a refused login");
    drop(guard);

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        log.contains("rustify") && log.contains("everything that can be printed"),
        "the capture works"
    );
    let secrets = [
        token.as_str(),
        role.secret_id.as_str(),
        wrapping.trim(),
        "canary-jwt",
        "sk-canary-value",
        "sk-canary-id",
        "sk-canary-line",
        "sk-canary-odd",
    ];
    for secret in secrets {
        assert!(!log.contains(secret), "the log carries a secret");
    }
}
