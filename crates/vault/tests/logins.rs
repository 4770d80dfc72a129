//! Against a real server: every way of logging in, namespaces, and KV version 1.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up fails at once"
)]

mod common;
#[path = "logins/kubernetes.rs"]
mod kubernetes;
#[path = "logins/proxy.rs"]
mod proxy;

use std::path::PathBuf;

use keyfleet_core::key::KeyLocation;
use keyfleet_vault::{Auth, Error, Newest, Settings, Vault, Wrapped};
use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;

use common::{Fixture, eventually, key, read};

/// A wrapping token for a new secret id of the role `control` that logs in once.
fn wrap(fixture: &Fixture, namespace: &str) -> String {
    let namespace = format!("-namespace={namespace}");
    let arguments = [
        "write",
        &namespace,
        "-wrap-ttl=60s",
        "-force",
        "-field=wrapping_token",
        "auth/approle/role/control/secret-id",
    ];
    fixture.bao.cli(&arguments).unwrap().trim().to_owned()
}

fn wrapped_auth(role_id: &str, secret_id_file: PathBuf, used_file: PathBuf) -> Auth {
    Auth::AppRole {
        mount: "approle".to_owned(),
        role_id: role_id.to_owned(),
        secret_id_file,
        wrapped: Some(Wrapped {
            role: "control".to_owned(),
            used_file: Some(used_file),
        }),
    }
}

async fn refused(settings: &Settings) -> Error {
    Vault::connect(settings.clone()).await.unwrap_err()
}

#[tokio::test]
async fn a_wrapped_secret_id_logs_in_once_and_a_thief_is_noticed() {
    let fixture = Fixture::start();
    let bao = &fixture.bao;
    bao.kv_put("openai/a", "api_key", "sk-first").unwrap();
    let role_id = bao
        .approle("control", "reader", "1h", "2h")
        .unwrap()
        .role_id;
    bao.cli(&["write", "auth/approle/role/control", "secret_id_num_uses=1"])
        .unwrap();
    let file = fixture.file("wrapped", &wrap(&fixture, ""));
    let used = fixture.dir.path().join("used");
    let settings = fixture.settings(wrapped_auth(&role_id, file, used));
    let vault = Vault::connect(settings.clone()).await.unwrap();
    assert_eq!(read(&vault, "openai/a", None).await.unwrap().1, "sk-first");

    bao.cli(&["lease", "revoke", "-prefix", "auth/approle/login"])
        .unwrap();
    let error = read(&vault, "openai/a", None).await.unwrap_err();
    assert!(matches!(error, Error::SecretIdSpent { .. }), "{error:?}");
    let error = refused(&settings).await;
    assert!(
        matches!(error, Error::SecretIdSpent { .. }),
        "our own use before a restart is no theft: {error:?}"
    );
    fixture.file("wrapped", &wrap(&fixture, ""));
    assert_eq!(read(&vault, "openai/a", None).await.unwrap().1, "sk-first");

    let stolen = wrap(&fixture, "");
    bao.cli(&["unwrap", &stolen]).unwrap();
    fixture.file("wrapped", &stolen);
    let error = refused(&settings).await;
    assert!(matches!(error, Error::Tampered { .. }), "{error:?}");
    assert!(!format!("{error:?} {error}").contains(&stolen));

    // The thief wraps again what was unwrapped.
    let again = bao
        .cli(&[
            "write",
            "-wrap-ttl=60s",
            "-field=wrapping_token",
            "sys/wrapping/wrap",
            "secret_id=x",
        ])
        .unwrap();
    fixture.file("wrapped", &again);
    let error = refused(&settings).await;
    assert!(
        matches!(&error, Error::Tampered { what, .. } if what.contains("sys/wrapping/wrap")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_wrapped_secret_id_good_for_many_logins_is_used_again() {
    let fixture = Fixture::start();
    let bao = &fixture.bao;
    bao.kv_put("openai/a", "api_key", "sk-first").unwrap();
    let role_id = bao
        .approle("control", "reader", "1h", "2h")
        .unwrap()
        .role_id;
    let file = fixture.file("wrapped", &wrap(&fixture, ""));
    let used = fixture.dir.path().join("used");
    let vault = Vault::connect(fixture.settings(wrapped_auth(&role_id, file, used)))
        .await
        .unwrap();
    bao.cli(&["lease", "revoke", "-prefix", "auth/approle/login"])
        .unwrap();
    assert_eq!(read(&vault, "openai/a", None).await.unwrap().1, "sk-first");
    assert_eq!(vault.logins(), 2);
}

#[tokio::test]
async fn a_login_that_cannot_be_renewed_is_told_while_it_still_lives() {
    let fixture = Fixture::start();
    let bao = &fixture.bao;
    bao.kv_put("openai/a", "api_key", "sk-first").unwrap();
    let role_id = bao
        .approle("control", "reader", "6s", "12s")
        .unwrap()
        .role_id;
    let once = "secret_id_num_uses=1";
    bao.cli(&["write", "auth/approle/role/control", once])
        .unwrap();
    let file = fixture.file("wrapped", &wrap(&fixture, ""));
    let used = fixture.dir.path().join("used");
    let vault = Vault::connect(fixture.settings(wrapped_auth(&role_id, file, used)))
        .await
        .unwrap();
    let shutdown = CancellationToken::new();
    let watch = async {
        eventually("the trouble", async || vault.login_trouble().is_some()).await;
        let trouble = vault.login_trouble().unwrap();
        assert!(
            trouble.contains("auth/approle/role/control/secret-id"),
            "{trouble}"
        );
        assert_eq!(read(&vault, "openai/a", None).await.unwrap().1, "sk-first");
        assert_eq!(vault.logins(), 1);
        fixture.file("wrapped", &wrap(&fixture, ""));
        eventually("a new login", async || vault.login_trouble().is_none()).await;
        shutdown.cancel();
    };
    tokio::join!(vault.keep_logged_in(shutdown.clone()), watch);
}

#[tokio::test]
async fn login_and_reads_may_lie_in_different_namespaces() {
    let fixture = Fixture::start();
    let bao = &fixture.bao;
    for arguments in [
        &["namespace", "create", "team"][..],
        &[
            "secrets",
            "enable",
            "-namespace=team",
            "-path=kv",
            "-version=2",
            "kv",
        ],
        &[
            "kv",
            "put",
            "-namespace=team",
            "-mount=kv",
            "openai/a",
            "api_key=sk-team",
        ],
        &["auth", "enable", "-namespace=team", "approle"],
    ] {
        bao.cli(arguments).unwrap();
    }
    let rules = r#"path "team/kv/*" { capabilities = ["read"] }"#;
    bao.policy("team-reader", rules).unwrap();
    let token = bao.token("team-reader", "1h").unwrap();
    let mut settings = fixture.settings(Auth::TokenFile(fixture.file("token", &token)));
    settings.namespace = Some("team".to_owned());
    settings.login_namespace = Some("/".to_owned());
    let location = KeyLocation {
        mount: "kv".to_owned(),
        ..key("openai/a")
    };
    let vault = Vault::connect(settings.clone()).await.unwrap();
    let found = vault.read(&location, None).await.unwrap();
    assert_eq!(found.value.expose_secret(), "sk-team");

    // All in the namespace, with a wrapped secret id.
    let rules = r#"path "kv/*" { capabilities = ["read"] }"#;
    bao.cli_with_input(
        &["policy", "write", "-namespace=team", "reader", "-"],
        rules,
    )
    .unwrap();
    for field in ["token_policies=reader", "secret_id_num_uses=1"] {
        bao.cli(&[
            "write",
            "-namespace=team",
            "auth/approle/role/control",
            field,
        ])
        .unwrap();
    }
    let role_id = bao
        .cli(&[
            "read",
            "-namespace=team",
            "-field=role_id",
            "auth/approle/role/control/role-id",
        ])
        .unwrap();
    let file = fixture.file("wrapped", &wrap(&fixture, "team"));
    settings.auth = wrapped_auth(role_id.trim(), file, fixture.dir.path().join("used"));
    settings.login_namespace = None;
    let vault = Vault::connect(settings).await.unwrap();
    let found = vault.read(&location, None).await.unwrap();
    assert_eq!(found.value.expose_secret(), "sk-team");
}

#[tokio::test]
async fn a_certificate_logs_in_and_is_read_again_at_each_login() {
    let fixture = Fixture::start();
    let bao = &fixture.bao;
    bao.kv_put("openai/a", "api_key", "sk-first").unwrap();
    bao.cli(&["auth", "enable", "cert"]).unwrap();
    let made = || rcgen::generate_simple_self_signed(vec!["control".to_owned()]).unwrap();
    let (known, stranger) = (made(), made());
    let cert_file = fixture.file("cert.pem", &known.cert.pem());
    let key_file = fixture.file("key.pem", &known.signing_key.serialize_pem());
    let certificate = format!("certificate=@{}", cert_file.display());
    bao.cli(&[
        "write",
        "auth/cert/certs/control",
        &certificate,
        "policies=reader",
    ])
    .unwrap();
    let settings = fixture.settings(Auth::Cert {
        mount: "cert".to_owned(),
        role: Some("control".to_owned()),
        cert_file,
        key_file,
    });
    let vault = Vault::connect(settings).await.unwrap();
    assert_eq!(read(&vault, "openai/a", None).await.unwrap().1, "sk-first");

    let revoke = ["lease", "revoke", "-prefix", "auth/cert/login"];
    fixture.file("cert.pem", &stranger.cert.pem());
    fixture.file("key.pem", &stranger.signing_key.serialize_pem());
    bao.cli(&revoke).unwrap();
    let error = read(&vault, "openai/a", None).await.unwrap_err();
    assert!(matches!(error, Error::LoginRefused { .. }), "{error:?}");
    fixture.file("key.pem", "no key");
    let error = read(&vault, "openai/a", None).await.unwrap_err();
    assert!(matches!(error, Error::Settings { .. }), "{error:?}");
    fixture.file("cert.pem", &known.cert.pem());
    fixture.file("key.pem", &known.signing_key.serialize_pem());
    assert_eq!(read(&vault, "openai/a", None).await.unwrap().1, "sk-first");
}

#[tokio::test]
async fn an_engine_without_versions_gives_what_it_holds_now() {
    let fixture = Fixture::start();
    let bao = &fixture.bao;
    bao.cli(&["secrets", "enable", "-path=v1", "-version=1", "kv"])
        .unwrap();
    let location = KeyLocation {
        mount: "v1".to_owned(),
        ..key("openai/a")
    };
    let vault = Vault::connect(fixture.with_token()).await.unwrap();
    let error = vault.newest(&location).await.unwrap_err();
    assert!(matches!(error, Error::MissingPath { .. }), "{error:?}");
    for value in ["sk-first", "sk-second"] {
        let arguments = ["write", "v1/openai/a", "api_key=-"];
        bao.cli_with_input(&arguments, value).unwrap();
        let newest = vault.newest(&location).await.unwrap();
        assert!(
            matches!(&newest, Newest::Unversioned(found) if found.expose_secret() == value),
            "{newest:?}"
        );
        let found = vault.read(&location, None).await.unwrap();
        assert_eq!((found.version, found.value.expose_secret()), (None, value));
    }
    let field = KeyLocation {
        field: "other".into(),
        ..location.clone()
    };
    let error = vault.newest(&field).await.unwrap_err();
    assert!(matches!(error, Error::MissingField { .. }), "{error:?}");

    // An upgrade in place: the same handle reads on, now with versions.
    bao.cli(&["kv", "enable-versioning", "v1"]).unwrap();
    let rules = r#"path "v1/*" { capabilities = ["read"] }"#;
    bao.policy("reader", rules).unwrap();
    eventually("a version", async || {
        let found = vault.read(&location, None).await;
        found.is_ok_and(|found| found.version.is_some())
    })
    .await;
}
