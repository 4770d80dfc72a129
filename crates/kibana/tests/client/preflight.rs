//! What preflight finds.

use keyfleet_core::failure::FailureClass;
use keyfleet_kibana::{Credentials, Scope, preflight};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::support::*;

#[tokio::test]
async fn a_good_kibana_has_no_problem() {
    for version in ["8.9.0", "8.18.0", "9.6.0"] {
        let kibana = Kibana::start(version).await;
        let found = preflight(&kibana.client, &[".gen-ai"], &[space("default")]).await;
        assert_eq!(found.problems, [], "{version}");
        assert_eq!(found.status.unwrap().version.to_string(), version);
        assert_eq!(found.licence.as_deref(), Some("enterprise"));
        assert_eq!((found.spaces.len(), found.encryption_key), (1, Some(true)));
    }
}

/// One fault, one problem, with its class, its scope and the next step.
async fn check(faults: Value, class: FailureClass, scope: Scope, says: &str) {
    let kibana = Kibana::start("9.1.0").await;
    kibana.fault(faults.clone()).await;
    let found = preflight(&kibana.client, &[".gen-ai"], &[space("default")]).await;
    let [problem] = found.problems.as_slice() else {
        panic!("{faults}: {:?}", found.problems)
    };
    assert_eq!(
        (problem.class, &problem.scope),
        (class, &scope),
        "{faults}: {problem}"
    );
    assert!(problem.sentence.contains(says), "{faults}: {problem}");
}

#[tokio::test]
async fn each_obstacle_is_named_with_the_next_step() {
    let of_type = || Scope::Type(".gen-ai".to_owned());
    check(
        json!({"licence": "basic"}),
        FailureClass::Licence,
        of_type(),
        "needs enterprise",
    )
    .await;
    check(
        json!({"type_disabled": true}),
        FailureClass::Rejected,
        of_type(),
        "enabledActionTypes",
    )
    .await;
    check(
        json!({"status_level": "unavailable"}),
        FailureClass::KibanaDown,
        Scope::Kibana,
        "not ready",
    )
    .await;
    check(
        json!({"encryption_key_missing": true}),
        FailureClass::Encryption,
        Scope::Kibana,
        "encryptionKey",
    )
    .await;
    check(
        json!({"upgrade_to": "8.8.2"}),
        FailureClass::Rejected,
        Scope::Kibana,
        "too old",
    )
    .await;
    check(
        json!({"api": {"mode": "html"}}),
        FailureClass::KibanaDown,
        Scope::Kibana,
        "not ready",
    )
    .await;
}

#[tokio::test]
async fn only_the_bindings_in_scope_are_held_back() {
    let kibana = Kibana::start("9.1.0").await;
    let found = preflight(
        &kibana.client,
        &[".gen-ai", ".nothing"],
        &[space("default"), space("soc")],
    )
    .await;
    let scopes: Vec<_> = found
        .problems
        .iter()
        .map(|problem| problem.scope.clone())
        .collect();
    assert_eq!(
        scopes,
        [
            Scope::Space(space("soc")),
            Scope::Type(".nothing".to_owned())
        ]
    );
    let covers = |connector_type: &str, id: &str| {
        scopes
            .iter()
            .any(|scope| scope.covers(connector_type, &space(id)))
    };
    assert!(!covers(".gen-ai", "default"));
    assert!(covers(".gen-ai", "soc") && covers(".nothing", "default"));
}

#[tokio::test]
async fn wrong_credentials_are_one_problem() {
    let kibana = Kibana::start("9.1.0").await;
    let client = kibana.client_with(Credentials::ApiKey(SecretString::from("wrong")));
    let found = preflight(&client, &[".gen-ai"], &[space("default")]).await;
    assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
    assert_eq!(found.problems[0].class, FailureClass::KibanaAuth);
    assert_eq!(
        kibana.requests("connector_types").await,
        0,
        "nothing else is asked"
    );
}

#[tokio::test]
async fn a_space_without_actions_is_found() {
    let raw = Raw::listen().await;
    let client = client(&raw.url());
    let spaces = r#"[{"id":"soc","disabledFeatures":["actions"]},{"id":"_odd space"}]"#;
    let answer = http("200 OK", "", spaces);
    let (_, found) = tokio::join!(raw.answer(&answer), client.spaces());
    let found = found.unwrap();
    assert_eq!(
        found.len(),
        1,
        "a space that no manifest can name is left out"
    );
    assert!(!found[0].actions_enabled);
}
