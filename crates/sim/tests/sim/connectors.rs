//! Create, read, change, delete, list; what Kibana tells about itself.

use serde_json::{Value, json};

use crate::support::{GOOD_KEY, ID, Sim, VERSIONS, connector, options};

const URL: &str = "https://api.openai.com/v1/chat/completions";

#[tokio::test]
async fn a_connector_lives_in_one_space_and_its_id_in_all() {
    for version in VERSIONS {
        let kibana = Sim::kibana(version).await;
        let here = format!("/s/soc/api/actions/connector/{ID}");
        let elsewhere = format!("/api/actions/connector/{ID}");
        let model = if version == "8.9.0" {
            None
        } else {
            Some("gpt-4.1")
        };
        let mut body = connector(URL, "gpt-4.1", GOOD_KEY);
        if model.is_none() {
            body["config"] = json!({ "apiProvider": "OpenAI", "apiUrl": URL });
        }
        assert_eq!(kibana.send("GET", &here, Value::Null).await.status, 404);
        let created = kibana.send("POST", &here, body.clone()).await;
        assert_eq!(created.status, 200, "{version}: {}", created.body);
        assert_eq!(created.body["config"], body["config"]);
        assert_eq!(
            kibana.send("GET", &here, Value::Null).await.body,
            created.body
        );

        let not_here = kibana.send("GET", &elsewhere, Value::Null).await;
        assert_eq!(
            (not_here.status, not_here.message()),
            (404, &*format!("Saved object [action/{ID}] not found"))
        );
        let taken = kibana.send("POST", &elsewhere, body).await;
        assert_eq!(
            (taken.status, taken.body["error"].as_str()),
            (409, Some("Conflict")),
            "{version}"
        );

        let list = kibana
            .send("GET", "/s/soc/api/actions/connectors", Value::Null)
            .await
            .body;
        assert_eq!(
            (
                list[0]["id"].as_str(),
                list[0]["referenced_by_count"].as_u64()
            ),
            (Some(ID), Some(0))
        );
        assert_eq!(
            kibana
                .send("GET", "/api/actions/connectors", Value::Null)
                .await
                .body,
            json!([])
        );

        assert_eq!(
            kibana.send("DELETE", &elsewhere, Value::Null).await.status,
            404
        );
        let deleted = kibana.send("DELETE", &here, Value::Null).await;
        assert_eq!((deleted.status, deleted.body), (204, json!("")));
        assert_eq!(kibana.send("GET", &here, Value::Null).await.status, 404);
    }
}

#[tokio::test]
async fn put_replaces_everything_and_needs_the_secret() {
    let kibana = Sim::kibana("9.4.0").await;
    let path = format!("/api/actions/connector/{ID}");
    kibana.connector(ID, URL, "gpt-4.1").await;
    let config = json!({ "apiProvider": "OpenAI", "apiUrl": URL });
    let new_key = "sk-proj-another000000000000000000Zz99";
    let body = json!({ "name": "Renamed", "config": config, "secrets": { "apiKey": new_key } });
    let changed = kibana.send("PUT", &path, body.clone()).await;
    assert_eq!(
        (changed.status, changed.body["name"].as_str()),
        (200, Some("Renamed"))
    );
    assert_eq!(
        changed.body["config"]["defaultModel"], "gpt-4.1",
        "the default, not the old value"
    );
    assert_eq!(
        kibana.sim("/_sim/connectors").await[0]["secret_tail"],
        "Zz99"
    );

    let mut without = body.clone();
    without["secrets"] = json!({});
    assert_eq!(kibana.send("PUT", &path, without).await.status, 400);
    let mut typed = body;
    typed["connector_type_id"] = json!(".gen-ai");
    let answer = kibana.send("PUT", &path, typed).await;
    assert_eq!(
        answer.message(),
        "[request body.connector_type_id]: definition for this key is missing"
    );
    assert_eq!(
        kibana.sim("/_sim/connectors").await[0]["secret_tail"],
        "Zz99"
    );
}

#[tokio::test]
async fn no_answer_and_no_log_holds_a_secret() {
    let kibana = Sim::kibana("9.4.0").await;
    kibana.connector(ID, URL, "gpt-4.1").await;
    let mut misplaced = connector(URL, "gpt-4.1", GOOD_KEY);
    misplaced["name"] = json!(format!("my key is {GOOD_KEY}"));
    kibana
        .send("POST", "/api/actions/connector", misplaced)
        .await;
    kibana
        .send(
            "DELETE",
            &format!("/api/actions/connector/{ID}"),
            Value::Null,
        )
        .await;
    kibana.connector(ID, URL, "gpt-4.1").await;
    let mut seen = vec![kibana.sim("/_sim/requests").await];
    for path in [
        format!("/api/actions/connector/{ID}"),
        "/api/actions/connector_types".to_owned(),
    ] {
        seen.push(kibana.send("GET", &path, Value::Null).await.body);
    }
    let text = json!(seen).to_string();
    assert!(!text.contains(GOOD_KEY), "{text}");
    assert!(
        text.contains("\"secrets\":{\"apiKey\":\"[removed]\"}"),
        "{text}"
    );
}

#[tokio::test]
async fn flags_come_with_their_version() {
    let cases = [
        ("8.9.0", json!({})),
        ("8.11.0", json!({ "is_system_action": false })),
        (
            "9.1.0",
            json!({ "is_system_action": false, "is_connector_type_deprecated": false }),
        ),
        (
            "9.4.0",
            json!({ "is_system_action": false, "is_connector_type_deprecated": false, "auth_mode": "shared" }),
        ),
        (
            "9.5.0",
            json!({ "is_system_action": false, "is_connector_type_deprecated": true, "auth_mode": "shared" }),
        ),
    ];
    for (version, flags) in cases {
        let kibana = Sim::kibana(version).await;
        let body = json!({
            "name": "OpenAI",
            "connector_type_id": ".gen-ai",
            "config": { "apiProvider": "OpenAI", "apiUrl": URL },
            "secrets": { "apiKey": GOOD_KEY },
        });
        let answer = kibana.send("POST", "/api/actions/connector", body).await;
        for flag in [
            "is_system_action",
            "is_connector_type_deprecated",
            "auth_mode",
        ] {
            assert_eq!(answer.body.get(flag), flags.get(flag), "{version} {flag}");
        }
        assert_eq!(
            answer.headers.contains_key("elastic-api-version"),
            version.starts_with('9')
        );
    }
}

#[tokio::test]
async fn preconfigured_connectors_are_seen_everywhere_and_changed_nowhere() {
    let preconfigured = vec![("house-openai".to_owned(), "House".to_owned())];
    let kibana = Sim::kibana_with(keyfleet_sim::kibana::Options {
        preconfigured,
        ..options("9.4.0")
    })
    .await;
    let path = "/s/soc/api/actions/connector/house-openai";
    let read = kibana.send("GET", path, Value::Null).await.body;
    assert_eq!(
        (read["is_preconfigured"].as_bool(), read.get("config")),
        (Some(true), None)
    );
    let list = kibana
        .send("GET", "/api/actions/connectors", Value::Null)
        .await
        .body;
    assert_eq!(list[0]["id"], "house-openai");
    let good = connector(URL, "gpt-4.1", GOOD_KEY);
    let change = json!({ "name": "n", "config": good["config"], "secrets": good["secrets"] });
    let cases = [
        (
            "POST",
            good,
            "This house-openai already exists in a preconfigured action.",
        ),
        (
            "PUT",
            change,
            "Preconfigured action house-openai can not be updated.",
        ),
        (
            "DELETE",
            Value::Null,
            "Preconfigured action house-openai is not allowed to delete.",
        ),
    ];
    for (method, body, message) in cases {
        let answer = kibana.send(method, path, body).await;
        assert_eq!((answer.status, answer.message()), (400, message));
    }
}

#[tokio::test]
async fn kibana_tells_about_itself() {
    let kibana = Sim::kibana("9.4.2-SNAPSHOT").await;
    let status = kibana.send("GET", "/api/status", Value::Null).await;
    assert_eq!(status.body["version"]["number"], "9.4.2");
    assert_eq!(status.body["version"]["build_snapshot"], true);
    assert_eq!(status.body["status"]["overall"]["level"], "available");
    let redacted = kibana.raw("GET", "/api/status", &[], None).await.unwrap();
    assert_eq!(
        redacted.body,
        json!({ "status": { "overall": { "level": "available" } } })
    );
    let wrong = kibana
        .raw(
            "GET",
            "/api/status",
            &[("authorization", "ApiKey wrong")],
            None,
        )
        .await
        .unwrap();
    assert_eq!(wrong.status, 401);
    kibana.fault(json!({ "status_level": "critical" })).await;
    assert_eq!(
        kibana.send("GET", "/api/status", Value::Null).await.status,
        503
    );
    kibana.clear().await;

    let spaces = kibana
        .send("GET", "/api/spaces/space", Value::Null)
        .await
        .body;
    assert_eq!(
        (spaces[0]["id"].as_str(), spaces[1]["id"].as_str()),
        (Some("default"), Some("soc"))
    );
    assert_eq!(
        kibana
            .send("GET", "/api/spaces/space/nowhere", Value::Null)
            .await
            .status,
        404
    );
    let types = kibana
        .send("GET", "/api/actions/connector_types", Value::Null)
        .await
        .body;
    assert_eq!(
        (types[0]["id"].as_str(), types[0]["enabled"].as_bool()),
        (Some(".gen-ai"), Some(true))
    );
    kibana.fault(json!({ "licence": "gold" })).await;
    let types = kibana
        .send("GET", "/api/actions/connector_types", Value::Null)
        .await
        .body;
    assert_eq!(types[0]["enabled_in_license"], false);
    assert_eq!(types[0]["minimum_license_required"], "enterprise");
}

#[tokio::test]
async fn connectors_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let state_file = Some(folder.path().join("state.json"));
    let with_state = || keyfleet_sim::kibana::Options {
        state_file: state_file.clone(),
        ..options("9.4.0")
    };
    let kibana = Sim::kibana_with(with_state()).await;
    kibana.connector(ID, URL, "gpt-4.1").await;
    let uuid = kibana.send("GET", "/api/status", Value::Null).await.body["uuid"].clone();
    let before = kibana.sim("/_sim/connectors").await;
    let address = kibana.server.address();
    kibana.server.shutdown().await;

    let kibana = Sim::kibana_with(keyfleet_sim::kibana::Options {
        listen: address,
        ..with_state()
    })
    .await;
    assert_eq!(kibana.sim("/_sim/connectors").await, before);
    assert_eq!(
        kibana.send("GET", "/api/status", Value::Null).await.body["uuid"],
        uuid
    );

    std::fs::write(folder.path().join("state.json"), "{").unwrap();
    let error = keyfleet_sim::kibana::start(with_state())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("state.json"), "{error}");
}
