//! Spaces that come and go, connectors of others, references, counters, clocks and narrowed faults.

use serde_json::{Value, json};

use crate::support::{GOOD_KEY, ID, Sim, connector, options};

const URL: &str = "https://api.openai.com/v1/chat/completions";
const LIST: &str = "/api/actions/connectors";

#[tokio::test]
async fn spaces_come_go_hide_and_switch_the_feature_off() {
    let kibana = Sim::kibana("9.4.0").await;
    let many: Vec<String> = (0..200).map(|n| format!("team-{n}")).collect();
    kibana
        .switch("POST", "spaces", json!({ "add": many }))
        .await;
    assert_eq!(spaces(&kibana).await.len(), 202);
    let path = format!("/s/team-7/api/actions/connector/{ID}");
    let made = kibana
        .send("POST", &path, connector(URL, "gpt-4.1", GOOD_KEY))
        .await;
    assert_eq!(made.status, 200);

    kibana
        .switch(
            "POST",
            "spaces",
            json!({ "disable_actions": ["team-7"], "hide": ["team-8"] }),
        )
        .await;
    let shown = spaces(&kibana).await;
    assert_eq!(shown.len(), 201);
    let off = shown
        .iter()
        .find(|space| space["id"] == "team-7")
        .expect("an answer");
    assert_eq!(off["disabledFeatures"], json!(["actions"]));
    let refused = kibana.send("GET", &path, Value::Null).await;
    assert_eq!(
        (refused.status, refused.message()),
        (403, "Unauthorized to get actions")
    );
    let hidden = kibana
        .send("GET", "/s/team-8/api/actions/connectors", Value::Null)
        .await;
    assert_eq!(hidden.status, 403);
    let hidden = kibana
        .send("GET", "/api/spaces/space/team-8", Value::Null)
        .await;
    assert_eq!(
        (hidden.status, hidden.message()),
        (403, "Unauthorized to get team-8 space")
    );

    kibana
        .switch(
            "POST",
            "spaces",
            json!({ "enable_actions": ["team-7"], "show": ["team-8"] }),
        )
        .await;
    assert_eq!(kibana.send("GET", &path, Value::Null).await.status, 200);
    kibana
        .switch("POST", "spaces", json!({ "remove": ["team-7"] }))
        .await;
    assert_eq!(kibana.send("GET", &path, Value::Null).await.status, 404);
    assert_eq!(kibana.sim("/_sim/connectors").await, json!([]));
}

#[tokio::test]
async fn a_wrong_change_of_spaces_is_refused() {
    let kibana = Sim::kibana("9.4.0").await;
    let wrong = [
        (json!({ "remove": ["default"] }), 400),
        (json!({ "add": ["Big"] }), 400),
        (json!({ "hide": ["nowhere"] }), 404),
        (json!({ "drop": ["soc"] }), 400),
    ];
    for (change, status) in wrong {
        let answer = kibana
            .raw("POST", "/_sim/spaces", &[], Some(change.to_string()))
            .await
            .expect("an answer");
        assert_eq!(answer.status, status, "{change}: {}", answer.body);
    }
    kibana
        .switch(
            "POST",
            "spaces",
            json!({ "hide": kibana_spaces(&kibana).await }),
        )
        .await;
    assert_eq!(
        kibana
            .send("GET", "/api/spaces/space", Value::Null)
            .await
            .status,
        403
    );
}

async fn spaces(kibana: &Sim) -> Vec<Value> {
    let answer = kibana.send("GET", "/api/spaces/space", Value::Null).await;
    answer.body.as_array().expect("an answer").clone()
}

async fn kibana_spaces(kibana: &Sim) -> Vec<Value> {
    spaces(kibana)
        .await
        .iter()
        .map(|space| space["id"].clone())
        .collect()
}

#[tokio::test]
async fn a_right_may_differ_from_space_to_space() {
    let kibana = Sim::kibana("9.4.0").await;
    kibana
        .fault(json!({ "privilege_in": { "soc": "read" } }))
        .await;
    let unknown = json!({ "name": "n", "connector_type_id": "keyfleet.none" });
    for (space, status) in [("/s/soc", 403), ("", 400)] {
        let path = format!("{space}/api/actions/connector");
        assert_eq!(
            kibana.send("POST", &path, unknown.clone()).await.status,
            status
        );
        let list = kibana
            .send("GET", &format!("{space}{LIST}"), Value::Null)
            .await;
        assert_eq!(list.status, 200);
    }
}

#[tokio::test]
async fn connectors_of_others_and_what_refers_to_them() {
    let kibana = Sim::kibana("9.4.0").await;
    for kind in ["preconfigured", "dynamic", "system"] {
        let new =
            json!({ "id": kind, "name": kind, "connector_type_id": ".inference", "kind": kind });
        kibana.switch("POST", "connectors", new).await;
    }
    let stored = json!({ "id": ID, "space": "soc", "name": "Theirs", "connector_type_id": ".slack", "config": { "any": 1 } });
    kibana.switch("POST", "connectors", stored).await;
    kibana.switch("PUT", "references", json!({ ID: 3 })).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let list = kibana
            .send("GET", &format!("/s/soc{LIST}"), Value::Null)
            .await
            .body;
        let ids: Vec<String> = list
            .as_array()
            .expect("an answer")
            .iter()
            .map(|row| row["id"].as_str().expect("an answer").to_owned())
            .collect();
        assert_eq!(list[0]["referenced_by_count"], 3);
        seen.push(ids);
    }
    assert_eq!(
        seen,
        [
            vec![ID, "dynamic", "preconfigured"],
            vec![ID, "preconfigured"]
        ]
    );

    let read = kibana
        .send("GET", "/api/actions/connector/system", Value::Null)
        .await;
    assert_eq!(
        (read.status, read.message()),
        (404, "Connector system not found")
    );
    let cases = [
        (
            "DELETE",
            "system",
            "System action system is not allowed to delete.",
        ),
        (
            "DELETE",
            "dynamic",
            "Preconfigured action dynamic is not allowed to delete.",
        ),
    ];
    for (method, id, message) in cases {
        let path = format!("/api/actions/connector/{id}");
        let answer = kibana.send(method, &path, Value::Null).await;
        assert_eq!((answer.status, answer.message()), (400, message));
    }
    // A reference holds nothing back, and who deletes behind everybody's back is not asked.
    kibana.switch("PUT", "references", json!({ ID: 0 })).await;
    kibana
        .switch("DELETE", &format!("connectors/{ID}"), Value::Null)
        .await;
    assert_eq!(kibana.sim("/_sim/connectors").await, json!([]));
    assert_eq!(kibana.sim("/_sim/references").await, json!({}));
}

#[tokio::test]
async fn counters_tell_route_space_and_crowd() {
    let kibana = Sim::kibana("9.4.0").await;
    let slow = json!({ "mode": "slow", "delay_ms": 300, "methods": ["PUT"] });
    kibana.connector(ID, URL, "gpt-4.1").await;
    kibana.fault(json!({ "api": slow })).await;
    let good = connector(URL, "gpt-4.1", GOOD_KEY);
    let body = json!({ "name": "n", "config": good["config"], "secrets": good["secrets"] });
    let path = format!("/api/actions/connector/{ID}");
    let soc = format!("/s/soc{LIST}");
    tokio::join!(
        kibana.send("PUT", &path, body.clone()),
        kibana.send("PUT", &path, body.clone()),
        kibana.send("GET", &soc, Value::Null),
    );
    let counts = kibana.sim("/_sim/requests/counts").await;
    let of = |name: &str| counts[name].as_u64().expect("an answer");
    assert_eq!((of("total"), of("in_flight")), (4, 0));
    assert_eq!(
        (of("writes_in_flight_max"), of("writes_per_connector_max")),
        (2, 2)
    );
    assert!((2..=3).contains(&of("in_flight_max")), "{counts}");
    assert!(
        counts["counts"].as_array().expect("an answer").contains(
            &json!({ "method": "GET", "class": "connectors", "space": "soc", "count": 1 })
        )
    );
    let soc = kibana
        .sim("/_sim/requests/count?space=soc&method=get")
        .await;
    assert_eq!(soc, json!({ "count": 1, "exact": true }));
    kibana
        .raw("DELETE", "/_sim/requests", &[], None)
        .await
        .expect("an answer");
    let counts = kibana.sim("/_sim/requests/counts").await;
    assert_eq!(
        (&counts["total"], &counts["writes_in_flight_max"]),
        (&json!(0), &json!(0))
    );
}

#[tokio::test]
async fn overload_names_a_moment_and_the_clock_may_be_wrong() {
    let kibana = Sim::kibana("9.4.0").await;
    let load = json!({ "mode": "status", "status": 429, "retry_after_secs": 30, "retry_after_date": true });
    kibana
        .fault(json!({ "api": load, "clock_skew_secs": -3600 }))
        .await;
    assert_eq!(
        kibana.send("GET", "/api/status", Value::Null).await.status,
        200
    );
    let answer = kibana.send("GET", LIST, Value::Null).await;
    assert_eq!(answer.status, 429);
    let at = |name: &str| {
        let text = answer.headers[name].to_str().expect("an answer");
        assert!(text.ends_with(" GMT"), "{text}");
        jiff::fmt::rfc2822::parse(text)
            .expect("an answer")
            .timestamp()
            .as_second()
    };
    assert!((29..=31).contains(&(at("retry-after") - at("date"))));
    let now = jiff::Timestamp::now().as_second();
    assert!((3595..=3605).contains(&(now - at("date"))));
}

#[tokio::test]
async fn faults_may_be_for_one_connector_or_type_and_a_put_repairs() {
    let other = "0d1f7a52-3f9e-5c52-9d4e-0e6a7d1c9b12";
    let kibana = Sim::kibana_with(options("9.4.0")).await;
    kibana
        .connector(ID, "http://127.0.0.1:1/v1", "gpt-4.1")
        .await;
    kibana
        .connector(other, "http://127.0.0.1:1/v1", "gpt-4.1")
        .await;
    let missing = |list: &Value| -> Vec<bool> {
        let rows = list.as_array().expect("an answer").iter();
        rows.map(|row| row["is_missing_secrets"].as_bool().expect("an answer"))
            .collect()
    };
    kibana.fault(json!({ "secrets_missing": [other] })).await;
    let list = kibana.send("GET", LIST, Value::Null).await.body;
    assert_eq!(missing(&list), [false, true]);
    kibana.fault(json!({ "undecryptable": [ID] })).await;
    assert_eq!(kibana.execute(ID).await.status, 500);
    assert_eq!(kibana.execute(other).await.status, 200);
    let good = connector("http://127.0.0.1:1/v1", "gpt-4.1", GOOD_KEY);
    let body = json!({ "name": "n", "config": good["config"], "secrets": good["secrets"] });
    let path = format!("/api/actions/connector/{ID}");
    assert_eq!(kibana.send("PUT", &path, body.clone()).await.status, 200);
    assert_eq!(kibana.execute(ID).await.status, 200);

    let cases = [
        (json!({ "type_disabled": [".webhook"] }), 200, ""),
        (
            json!({ "type_disabled": [".gen-ai"] }),
            403,
            "action type \".gen-ai\" is not enabled in the Kibana config xpack.actions.enabledActionTypes",
        ),
        (
            json!({ "licence_expired": [".gen-ai"] }),
            403,
            "Action type .gen-ai is disabled because your enterprise license has expired.",
        ),
        (
            json!({ "licence_expired": true }),
            403,
            "Action type .gen-ai is disabled because your enterprise license has expired.",
        ),
    ];
    for (faults, status, message) in cases {
        kibana.fault(faults.clone()).await;
        let answer = kibana.send("PUT", &path, body.clone()).await;
        assert_eq!(
            (answer.status, answer.message()),
            (status, message),
            "{faults}"
        );
    }
    let types = kibana
        .send("GET", "/api/actions/connector_types", Value::Null)
        .await
        .body;
    assert_eq!(types[0]["enabled_in_license"], false);
}
