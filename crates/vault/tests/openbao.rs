//! Against a real server: reads, versions, logins, seals and restarts.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up fails at once"
)]

mod common;

use keyfleet_core::id::KeyVersion;
use keyfleet_core::key::{KeyField, KeyLocation};
use keyfleet_vault::{Auth, Error, Health, Settings, ValueFault, Vault, VersionState};
use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;
use xtask::bao::Bao;

use common::{Fixture, POLICY, eventually, key, read};

#[tokio::test]
async fn reads_values_and_versions_and_names_every_trouble() {
    let fixture = Fixture::start();
    let bao = &fixture.bao;
    for value in ["sk-first", "sk-second\n", "sk-third"] {
        bao.kv_put("openai/team a/ü", "api_key", value).unwrap();
    }
    let vault = Vault::connect(fixture.with_token()).await.unwrap();
    assert_eq!(vault.health().await.unwrap(), Health::Active);
    let path = "openai/team a/ü";
    assert_eq!(
        read(&vault, path, None).await.unwrap(),
        (3, "sk-third".to_owned())
    );
    assert_eq!(
        read(&vault, path, Some(2)).await.unwrap(),
        (2, "sk-second".to_owned())
    );
    assert_eq!(vault.reads(), 2);
    let info = vault.current_version(&key(path)).await.unwrap();
    assert_eq!(
        (info.current, info.state),
        (KeyVersion(3), VersionState::Readable)
    );
    assert_eq!(vault.reads(), 2, "asking for a version reads no value");

    bao.kv_delete(path, 3).unwrap();
    bao.kv_destroy(path, 1).unwrap();
    assert_eq!(
        vault.current_version(&key(path)).await.unwrap().state,
        VersionState::Deleted
    );
    assert!(matches!(
        read(&vault, path, None).await,
        Err(Error::Deleted {
            version: KeyVersion(3),
            ..
        })
    ));
    assert!(matches!(
        read(&vault, path, Some(1)).await,
        Err(Error::Destroyed {
            version: KeyVersion(1),
            ..
        })
    ));
    assert!(matches!(
        read(&vault, path, Some(9)).await,
        Err(Error::MissingVersion {
            version: KeyVersion(9),
            ..
        })
    ));
    assert!(matches!(
        read(&vault, "openai/none", None).await,
        Err(Error::MissingPath { .. })
    ));
    assert!(matches!(
        vault.current_version(&key("openai/none")).await,
        Err(Error::MissingPath { .. })
    ));
    assert!(matches!(
        read(&vault, "other/path", None).await,
        Err(Error::Denied { .. })
    ));
    assert_eq!(
        vault.logins(),
        1,
        "a refusal of the policy is no reason to log in again"
    );

    check_fields_and_values(&fixture, &vault).await;
    check_engines_and_namespaces(&fixture, &vault).await;
}

async fn check_fields_and_values(fixture: &Fixture, vault: &Vault) {
    fixture.bao.kv_put("openai/field", "other", "sk-1").unwrap();
    assert!(matches!(
        read(vault, "openai/field", None).await,
        Err(Error::MissingField { .. })
    ));
    fixture
        .bao
        .cli_with_input(
            &["kv", "put", "-mount=secret", "openai/number", "-"],
            r#"{"api_key": 7}"#,
        )
        .unwrap();
    assert!(matches!(
        read(vault, "openai/number", None).await,
        Err(Error::MissingField { .. })
    ));
    for (value, expected) in [
        ("", ValueFault::Empty),
        ("sk-canary 1", ValueFault::Whitespace),
        ("sk-canary-é", ValueFault::NotAscii),
        ("sk-admin-canary", ValueFault::AdminKey),
    ] {
        fixture.bao.kv_put("openai/bad", "api_key", value).unwrap();
        let error = read(vault, "openai/bad", None).await.unwrap_err();
        assert!(
            matches!(&error, Error::Value { fault, .. } if *fault == expected),
            "{error}"
        );
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn a_key_of_parts_is_one_text_in_either_engine() {
    let fixture = Fixture::start();
    let bao = &fixture.bao;
    bao.cli(&["secrets", "enable", "-path=old", "-version=1", "kv"])
        .unwrap();
    let policy = format!("{POLICY} path \"old/*\" {{ capabilities = [\"read\"] }}");
    bao.policy("reader", &policy).unwrap();
    let vault = Vault::connect(fixture.with_token()).await.unwrap();
    let secret = r#"{"id": "AKIA-canary", "pem": "-----BEGIN X-----\nü\n-----END X-----\n", "n": 7, "no": ""}"#;
    for (mount, version) in [("secret", Some(KeyVersion(1))), ("old", None)] {
        let put = ["kv", "put", &format!("-mount={mount}"), "openai/parts", "-"];
        bao.cli_with_input(&put, secret).unwrap();
        let location = |second: &str| {
            let of = [("secret", second), ("accessKey", "id")];
            let of = of.map(|(part, field)| (part.to_owned(), field.to_owned()));
            KeyLocation {
                mount: mount.to_owned(),
                path: "openai/parts".to_owned(),
                field: KeyField::Parts(of.into()),
            }
        };
        let found = vault.read(&location("pem"), None).await.unwrap();
        assert_eq!(found.version, version);
        assert_eq!(
            found.value.expose_secret(),
            r#"{"accessKey":"AKIA-canary","secret":"-----BEGIN X-----\nü\n-----END X-----"}"#
        );
        for (field, says) in [
            (
                "gone",
                "has no text field `gone`, which shall hold the part `secret`",
            ),
            ("n", "has no text field `n`"),
            (
                "no",
                "/openai/parts#no cannot be the part `secret` of a key: it is empty",
            ),
        ] {
            let error = vault.read(&location(field), None).await.unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(said.contains(says) && !said.contains("canary"), "{said}");
        }
    }
}

async fn check_engines_and_namespaces(fixture: &Fixture, vault: &Vault) {
    let cubbyhole = KeyLocation {
        mount: "cubbyhole".to_owned(),
        ..key("openai/a")
    };
    let error = vault.read(&cubbyhole, None).await.unwrap_err();
    assert!(
        matches!(&error, Error::WrongEngine { found, .. } if found == "cubbyhole"),
        "{error:?}"
    );
    let error = read(vault, "data/openai/a", None).await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");

    fixture
        .bao
        .policy(
            "reader",
            &format!("{POLICY} path \"gone/*\" {{ capabilities = [\"read\"] }}"),
        )
        .unwrap();
    let location = KeyLocation {
        mount: "gone".to_owned(),
        ..key("openai/a")
    };
    let error = vault.read(&location, None).await.unwrap_err();
    assert!(matches!(error, Error::MissingMount { .. }), "{error:?}");

    let mut settings = fixture.with_token();
    settings.namespace = Some("nowhere".to_owned());
    let error = Vault::connect(settings).await.unwrap_err();
    assert!(matches!(error, Error::MissingNamespace), "{error:?}");
}

#[tokio::test]
async fn an_approle_login_is_renewed_and_replaced_when_it_is_capped() {
    let fixture = Fixture::start();
    fixture
        .bao
        .kv_put("openai/a", "api_key", "sk-first")
        .unwrap();
    let vault = Vault::connect(with_approle(&fixture, "3s", "7s"))
        .await
        .unwrap();
    let shutdown = CancellationToken::new();
    let watch = async {
        eventually("a renewal", async || vault.renewals() >= 1).await;
        assert_eq!(vault.logins(), 1);
        eventually("a second login", async || vault.logins() >= 2).await;
        assert_eq!(read(&vault, "openai/a", None).await.unwrap().1, "sk-first");
        shutdown.cancel();
    };
    tokio::join!(vault.keep_logged_in(shutdown.clone()), watch);
}

#[tokio::test]
async fn a_revoked_login_is_replaced_exactly_once() {
    let fixture = Fixture::start();
    fixture
        .bao
        .kv_put("openai/a", "api_key", "sk-first")
        .unwrap();
    let vault = Vault::connect(with_approle(&fixture, "1h", "2h"))
        .await
        .unwrap();
    // Every login of the role ends at once.
    fixture
        .bao
        .cli(&["lease", "revoke", "-prefix", "auth/approle/login"])
        .unwrap();
    let (a, b) = tokio::join!(
        read(&vault, "openai/a", None),
        read(&vault, "openai/a", None)
    );
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(vault.logins(), 2, "two refused callers log in once");

    let file = fixture.file("secret-id", "no-such-secret-id");
    fixture
        .bao
        .cli(&["lease", "revoke", "-prefix", "auth/approle/login"])
        .unwrap();
    assert!(matches!(
        read(&vault, "openai/a", None).await,
        Err(Error::LoginRefused { .. })
    ));
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(
        read(&vault, "openai/a", None).await,
        Err(Error::File { .. })
    ));
}

#[tokio::test]
async fn a_token_file_is_read_again_when_its_token_dies() {
    let fixture = Fixture::start();
    fixture
        .bao
        .kv_put("openai/a", "api_key", "sk-first")
        .unwrap();
    let first = fixture.bao.token("reader", "1h").unwrap();
    let file = fixture.file("token", &first);
    let vault = Vault::connect(fixture.settings(Auth::TokenFile(file)))
        .await
        .unwrap();
    fixture.bao.revoke_token(&first).unwrap();
    assert!(matches!(
        read(&vault, "openai/a", None).await,
        Err(Error::TokenExpired { .. })
    ));
    fixture.file("token", &fixture.bao.token("reader", "1h").unwrap());
    assert_eq!(read(&vault, "openai/a", None).await.unwrap().1, "sk-first");
}

#[tokio::test]
async fn a_sealed_and_an_absent_server_are_told_apart() {
    let mut fixture = Fixture::start();
    let mut settings = fixture.with_token();
    settings.attempts = 2;
    let vault = Vault::connect(settings).await.unwrap();
    fixture.bao.seal().unwrap();
    let error = read(&vault, "openai/a", None).await.unwrap_err();
    assert!(
        matches!(error, Error::Sealed) && error.is_transient(),
        "{error:?}"
    );
    assert_eq!(vault.health().await.unwrap(), Health::Sealed);
    fixture.bao.stop().unwrap();
    let error = read(&vault, "openai/a", None).await.unwrap_err();
    assert!(
        matches!(error, Error::Unreachable { .. }) && error.is_transient(),
        "{error:?}"
    );
}

#[tokio::test]
async fn survives_a_restart_and_trusts_only_its_authority() {
    let mut fixture = Fixture::start_as(Bao::start);
    fixture
        .bao
        .kv_put("openai/a", "api_key", "sk-first")
        .unwrap();
    let settings = fixture.with_token();
    let vault = Vault::connect(settings.clone()).await.unwrap();
    let stranger = Settings {
        ca_file: None,
        ..settings
    };
    let error = Vault::connect(stranger).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    fixture.bao.restart().unwrap();
    if fixture.bao.is_lasting() {
        assert_eq!(read(&vault, "openai/a", None).await.unwrap().1, "sk-first");
        assert_eq!(vault.logins(), 1, "the token outlives the restart");
    }
}

fn with_approle(fixture: &Fixture, ttl: &str, max_ttl: &str) -> Settings {
    let role = fixture
        .bao
        .approle("control", "reader", ttl, max_ttl)
        .unwrap();
    let secret_id_file = fixture.file("secret-id", &role.secret_id);
    fixture.settings(Auth::AppRole {
        mount: "approle".to_owned(),
        role_id: role.role_id,
        secret_id_file,
        wrapped: None,
    })
}
