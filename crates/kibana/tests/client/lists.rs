//! Lists of connectors: what they alone tell, and how long they may be.

use keyfleet_core::failure::FailureClass;
use keyfleet_kibana::Error;
use serde_json::json;

use super::support::*;

#[tokio::test]
async fn a_list_tells_how_many_rules_refer_to_a_connector() {
    let raw = Raw::listen().await;
    let client = client(&raw.url());
    let connector = |more: serde_json::Value| {
        let mut connector = json!({"id": ID, "name": "OpenAI", "connector_type_id": ".gen-ai"});
        connector
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().cloned().unwrap());
        connector
    };
    let body = json!([
        connector(json!({"referenced_by_count": 3})),
        connector(json!({})),
        connector(json!({"referenced_by_count": null, "config": null})),
        connector(json!({"is_preconfigured": true, "referenced_by_count": 0})),
        connector(json!({"referenced_by_count": -1})),
        connector(json!({"referenced_by_count": 1u64 << 40})),
    ]);
    let answer = http("200 OK", "", &body.to_string());
    let default = space("default");
    let (_, listed) = tokio::join!(raw.answer(&answer), client.list(&default));
    let counts: Vec<_> = listed
        .unwrap()
        .iter()
        .map(|it| it.referenced_by_count)
        .collect();
    assert_eq!(counts, [Some(3), None, None, Some(0), None, Some(u32::MAX)]);
}

#[tokio::test]
async fn a_list_may_be_long_but_not_endless() {
    let default = space("default");
    let one = json!({"id": ID, "name": "x".repeat(1_000), "connector_type_id": ".gen-ai"});
    for (n, fits) in [(3_000, true), (9_000, false)] {
        let raw = Raw::listen().await;
        let client = client(&raw.url());
        let body = json!(vec![&one; n]).to_string();
        let answer = http("200 OK", "", &body);
        let (_, listed) = tokio::join!(raw.answer(&answer), client.list(&default));
        match listed {
            Ok(listed) => assert!(fits && listed.len() == n),
            Err(error) => {
                assert!(
                    !fits && matches!(error, Error::ListTooLarge { .. }),
                    "{error}"
                );
                assert!(error.to_string().contains("the list is longer"), "{error}");
                assert_eq!(error.class(), FailureClass::KibanaDown);
                assert!(!error.is_retryable());
            }
        }
    }
}
