//! What preflight finds.

use jiff::{Timestamp, ToSpan};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::SpaceId;
use keyfleet_kibana::{
    Check, CheckName, CheckOutcome, Client, Credentials, Elasticsearch, Preflight, Scope, Settings,
    Wanted, preflight,
};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::support::*;

/// What every round asks.
async fn look(client: &Client, types: &[&str], spaces: &[SpaceId]) -> Preflight {
    preflight(client, &wanted(types, spaces, false)).await
}

/// Everything.
async fn look_closely(client: &Client, types: &[&str], spaces: &[SpaceId]) -> Preflight {
    preflight(client, &wanted(types, spaces, true)).await
}

fn wanted<'a>(types: &'a [&'a str], spaces: &'a [SpaceId], privileges: bool) -> Wanted<'a> {
    Wanted {
        types,
        spaces,
        privileges,
        now: Timestamp::now(),
    }
}

fn of(found: &Preflight, name: CheckName) -> &Check {
    let names: Vec<CheckName> = found.checks.iter().map(|check| check.name).collect();
    assert_eq!(names, CheckName::ALL, "always all, always in this order");
    found
        .checks
        .iter()
        .find(|check| check.name == name)
        .unwrap()
}

fn outcome(found: &Preflight, name: CheckName) -> CheckOutcome {
    of(found, name).outcome
}

/// The JSON documents in the detail of the privileges.
fn grants(found: &Preflight) -> (Value, Value) {
    let detail = of(found, CheckName::Privileges).detail.clone();
    let (key, role) = detail.split_once("\nor ").unwrap();
    let json = |text: &str| serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    (json(key), json(role))
}

#[tokio::test]
async fn a_good_kibana_has_no_problem() {
    for version in ["8.9.0", "8.18.0", "9.6.0"] {
        let kibana = Kibana::start(version).await;
        let found = look_closely(&kibana.client, &[".gen-ai"], &[space("default")]).await;
        assert_eq!(found.problems, [], "{version}");
        for check in &found.checks {
            let expected = if check.name == CheckName::Elasticsearch {
                CheckOutcome::Skipped
            } else if check.name == CheckName::ConnectorTypes && version == "9.6.0" {
                // Deprecated since 9.5, which is no problem.
                CheckOutcome::Warning
            } else {
                CheckOutcome::Ok
            };
            assert_eq!(check.outcome, expected, "{version}: {check:?}");
        }
        assert_eq!(found.status.unwrap().version.to_string(), version);
        assert_eq!(found.licence.as_deref(), Some("enterprise"));
        assert_eq!((found.spaces.len(), found.encryption_key), (1, Some(true)));
    }
}

#[tokio::test]
async fn a_round_costs_four_requests_and_a_close_look_one_more_per_space() {
    let mut options = options("9.4.0");
    options.spaces = (0..20).map(|n| format!("space-{n}")).collect();
    let spaces: Vec<SpaceId> = options.spaces.iter().map(|id| space(id)).collect();
    let kibana = Kibana::with(options).await;
    let first = look_closely(&kibana.client, &[".gen-ai"], &spaces).await;
    assert_eq!(kibana.client.requests(), 24);
    assert_eq!(outcome(&first, CheckName::Privileges), CheckOutcome::Ok);

    let mut idle = look(&kibana.client, &[".gen-ai"], &spaces).await;
    assert_eq!(kibana.client.requests(), 28);
    assert_eq!(outcome(&idle, CheckName::Privileges), CheckOutcome::Skipped);
    idle.complete_from(&first);
    assert_eq!(
        idle, first,
        "what a round does not ask is known from the close look"
    );
}

#[tokio::test]
async fn a_lacking_privilege_is_named_with_the_role_to_create() {
    let mut options = options("9.4.0");
    options.spaces = vec!["soc".to_owned()];
    let kibana = Kibana::with(options).await;
    kibana.fault(json!({"privilege": "read"})).await;
    let spaces = [space("default"), space("soc")];
    let found = look_closely(&kibana.client, &[".gen-ai"], &spaces).await;
    let check = of(&found, CheckName::Privileges);
    assert_eq!(check.outcome, CheckOutcome::Failed, "{check:?}");
    assert!(check.sentence.contains("soc"), "{check:?}");
    assert_eq!(
        found.problems,
        [],
        "a write would say the same of its own space"
    );
    let (key, role) = grants(&found);
    let descriptor = &key["role_descriptors"]["keyfleet-agent"];
    assert_eq!(descriptor["cluster"], json!([]));
    let granted = json!([{"application": "kibana-.kibana", "privileges": ["feature_actions.all"],
        "resources": ["space:default", "space:soc"]}]);
    assert_eq!(descriptor["applications"], granted);
    let granted =
        json!([{"base": [], "feature": {"actions": ["all"]}, "spaces": ["default", "soc"]}]);
    assert_eq!(role["kibana"], granted);

    let found = look(&kibana.client, &[".gen-ai", "inference-endpoint"], &spaces).await;
    let (key, role) = grants(&found);
    let cluster = json!(["manage_inference"]);
    assert_eq!(
        key["role_descriptors"]["keyfleet-agent"]["cluster"],
        cluster
    );
    assert_eq!(role["elasticsearch"]["cluster"], cluster);
}

#[tokio::test]
async fn only_the_spaces_without_the_privilege_are_named() {
    let mut options = options("9.4.0");
    options.spaces = (0..9).map(|n| format!("space-{n}")).collect();
    let spaces: Vec<SpaceId> = options.spaces.iter().map(|id| space(id)).collect();
    let kibana = Kibana::with(options).await;
    for (lacking, says) in [
        (1, "in the space space-0;"),
        (2, "in the spaces space-0, space-1;"),
        (7, "space-4 and 2 more;"),
    ] {
        let rights: Value = (0..lacking)
            .map(|n| (format!("space-{n}"), json!("none")))
            .collect();
        kibana.fault(json!({"privilege_in": rights})).await;
        let found = look_closely(&kibana.client, &[".gen-ai"], &spaces).await;
        let check = of(&found, CheckName::Privileges);
        assert_eq!(check.outcome, CheckOutcome::Failed, "{check:?}");
        assert!(check.sentence.contains(says), "{check:?}");
    }
}

#[tokio::test]
async fn a_space_that_fails_is_no_lacking_privilege_and_the_rest_is_left_alone() {
    let mut options = options("9.4.0");
    options.spaces = (0..20).map(|n| format!("space-{n}")).collect();
    let spaces: Vec<SpaceId> = options.spaces.iter().map(|id| space(id)).collect();
    let kibana = Kibana::with(options).await;
    let fault = json!({"mode": "status", "status": 429, "retry_after_secs": 7, "path_contains": "/s/space-"});
    kibana.fault(json!({"api": fault})).await;
    let found = look_closely(&kibana.client, &[".gen-ai"], &spaces).await;
    let check = of(&found, CheckName::Privileges);
    assert_eq!(check.outcome, CheckOutcome::Warning, "{check:?}");
    assert!(check.sentence.contains("overloaded"), "{check:?}");
    let n_spaces = kibana.client.requests() - 4;
    assert!(
        n_spaces <= 8,
        "{n_spaces} spaces were asked after the first trouble"
    );
    assert_eq!(found.retry_after, Some(std::time::Duration::from_secs(7)));
}

#[tokio::test]
async fn a_clock_that_differs_is_a_warning() {
    let kibana = Kibana::start("9.4.0").await;
    for (offset, expected, says) in [
        (0.seconds(), CheckOutcome::Ok, "same time"),
        (2.minutes(), CheckOutcome::Warning, "behind the agent's"),
        (-2.minutes(), CheckOutcome::Warning, "ahead of the agent's"),
    ] {
        let (types, spaces) = ([".gen-ai"], [space("default")]);
        let now = Timestamp::now() + offset;
        let wanted = Wanted {
            now,
            ..wanted(&types, &spaces, false)
        };
        let found = preflight(&kibana.client, &wanted).await;
        let check = of(&found, CheckName::Clock);
        assert_eq!(check.outcome, expected, "{check:?}");
        assert!(check.sentence.contains(says), "{check:?}");
        assert_eq!(found.problems, []);
    }
}

/// The check of Elasticsearch where it answers with this.
async fn elastic_check(answer: Option<Vec<u8>>) -> Preflight {
    let kibana = Kibana::start("9.4.0").await;
    let raw = Raw::listen().await;
    let client = Client::new(Settings {
        elasticsearch: answer.as_ref().map(|_| Elasticsearch {
            url: raw.url().parse().unwrap(),
            credentials: Credentials::ApiKey(SecretString::from(API_KEY)),
            ca_pem: None,
        }),
        ..settings(&kibana.url())
    })
    .unwrap();
    let (types, spaces) = (["inference-endpoint"], [space("default")]);
    let Some(answer) = answer else {
        return look_closely(&client, &types, &spaces).await;
    };
    let idle = look(&client, &types, &spaces).await;
    assert_eq!(
        outcome(&idle, CheckName::Elasticsearch),
        CheckOutcome::Skipped
    );
    assert_eq!(client.requests(), 4);
    let (request, found) =
        tokio::join!(raw.answer(&answer), look_closely(&client, &types, &spaces));
    assert!(
        request.starts_with("post /_security/user/_has_privileges "),
        "{request}"
    );
    assert_eq!(
        client.requests(),
        9,
        "no connector of Kibana is wanted, so no space is asked"
    );
    found
}

#[tokio::test]
async fn elasticsearch_is_asked_where_endpoints_are_wanted() {
    let name = CheckName::Elasticsearch;
    let may = |yes: bool| {
        let body = json!({"username": "u", "has_all_requested": yes, "cluster": {"manage_inference": yes}});
        Some(http("200 OK", "", &body.to_string()))
    };
    let found = elastic_check(may(true)).await;
    assert_eq!(outcome(&found, name), CheckOutcome::Ok);
    assert_eq!(outcome(&found, CheckName::ConnectorTypes), CheckOutcome::Ok);
    let found = elastic_check(may(false)).await;
    assert_eq!(outcome(&found, name), CheckOutcome::Failed);
    assert!(of(&found, name).detail.contains("manage_inference"));
    assert_eq!(found.problems, []);
    let found = elastic_check(Some(http("503 Down", "retry-after: 5\r\n", ""))).await;
    assert_eq!(outcome(&found, name), CheckOutcome::Failed);
    assert_eq!(found.retry_after, Some(std::time::Duration::from_secs(5)));
    let found = elastic_check(None).await;
    assert_eq!(outcome(&found, name), CheckOutcome::Failed);
    let [problem] = found.problems.as_slice() else {
        panic!("{:?}", found.problems)
    };
    assert_eq!(problem.scope, Scope::Type("inference-endpoint".to_owned()));
}

/// One fault, one problem, with its class, its scope and the next step.
async fn check(faults: Value, class: FailureClass, (scope, name): (Scope, CheckName), says: &str) {
    let kibana = Kibana::start("9.1.0").await;
    kibana.fault(faults.clone()).await;
    let found = look_closely(&kibana.client, &[".gen-ai"], &[space("default")]).await;
    let [problem] = found.problems.as_slice() else {
        panic!("{faults}: {:?}", found.problems)
    };
    assert_eq!(
        (problem.class, &problem.scope),
        (class, &scope),
        "{faults}: {problem}"
    );
    assert!(problem.sentence.contains(says), "{faults}: {problem}");
    let failed: Vec<CheckName> = found
        .checks
        .iter()
        .filter(|check| check.outcome == CheckOutcome::Failed)
        .map(|check| check.name)
        .collect();
    assert_eq!(failed, [name], "{faults}: {:?}", found.checks);
    assert_eq!(of(&found, name).sentence, problem.sentence);
    assert!(!of(&found, CheckName::Privileges).detail.is_empty());
}

#[tokio::test]
async fn each_obstacle_is_named_with_the_next_step() {
    let of_type = || Scope::Type(".gen-ai".to_owned());
    check(
        json!({"licence": "basic"}),
        FailureClass::Licence,
        (of_type(), CheckName::Licence),
        "needs enterprise",
    )
    .await;
    check(
        json!({"type_disabled": true}),
        FailureClass::Rejected,
        (of_type(), CheckName::ConnectorTypes),
        "enabledActionTypes",
    )
    .await;
    check(
        json!({"status_level": "unavailable"}),
        FailureClass::KibanaDown,
        (Scope::Kibana, CheckName::Reachability),
        "not ready",
    )
    .await;
    check(
        json!({"encryption_key_missing": true}),
        FailureClass::Encryption,
        (Scope::Kibana, CheckName::EncryptionKey),
        "encryptionKey",
    )
    .await;
    check(
        json!({"upgrade_to": "8.8.2"}),
        FailureClass::Rejected,
        (Scope::Kibana, CheckName::Version),
        "too old",
    )
    .await;
    check(
        json!({"api": {"mode": "html"}}),
        FailureClass::KibanaDown,
        (Scope::Kibana, CheckName::Reachability),
        "not ready",
    )
    .await;
}

#[tokio::test]
async fn only_the_bindings_in_scope_are_held_back() {
    let kibana = Kibana::start("9.1.0").await;
    let found = look(
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
    let found = look_closely(&client, &[".gen-ai"], &[space("default")]).await;
    assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
    assert_eq!(found.problems[0].class, FailureClass::KibanaAuth);
    assert_eq!(outcome(&found, CheckName::Reachability), CheckOutcome::Ok);
    assert_eq!(
        outcome(&found, CheckName::Credentials),
        CheckOutcome::Failed
    );
    assert_eq!(client.requests(), 1);
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
