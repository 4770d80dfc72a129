//! The live call: what is sent, and what its outcome means.

use keyfleet_core::failure::FailureClass::{self, *};
use serde_json::{Value, json};

use super::{config, gen_ai};
use crate::api::Execution;
use crate::driver::ProbeResult;

/// The provider's status, Kibana's text, the class.
const FAILURES: [(Option<u16>, &str, FailureClass); 17] = [
    (
        Some(401),
        "Status code: 401. Message: Unauthorized API Error - Incorrect API key provided: sk-1****",
        Auth,
    ),
    (
        Some(401),
        "Status code: 401. Message: IP not authorized",
        Egress,
    ),
    (
        Some(404),
        "Status code: 404. Message: API Error: Not Found - The model `x` does not exist",
        Model,
    ),
    (
        Some(422),
        "Status code: 422. Message: API Error: Unprocessable Entity - The model `bad model` does not exist",
        Model,
    ),
    (
        Some(429),
        "Status code: 429. Message: You exceeded your current quota",
        Quota,
    ),
    (
        Some(429),
        "Status code: 429. Message: Rate limit reached",
        RateLimit,
    ),
    (Some(500), "Status code: 500. Message: x", Provider),
    (
        None,
        "Status code: undefined. Message: Unexpected API Error: ECONNREFUSED - connect",
        Network,
    ),
    (
        None,
        "Status code: undefined. Message: Unexpected API Error: ECONNABORTED - timeout of 60000ms exceeded",
        Timeout,
    ),
    (
        None,
        "error validating action type config: target url \"x\" is not added to the Kibana config xpack.actions.allowedHosts",
        Egress,
    ),
    (
        None,
        "error validating connector type secrets: Field \"apiKey\": Required",
        Encryption,
    ),
    (None, "Unable to decrypt attribute \"secrets\"", Encryption),
    (
        None,
        "error validating connector type config: Unrecognized keys: \"a\"",
        Rejected,
    ),
    (
        None,
        "error validating action params: [subAction]: expected value",
        Agent,
    ),
    (
        None,
        "Sub action \"test\" is not registered. Connector id: x",
        Agent,
    ),
    (
        None,
        "Response validation failed (Error: [usage]: expected)",
        Provider,
    ),
    (None, "", Provider),
];

#[test]
fn the_probe_is_tiny_and_names_the_model() {
    let params = gen_ai().probe(&config(&json!({})));
    assert_eq!(params["subAction"], "test");
    let body: Value =
        serde_json::from_str(params["subActionParams"]["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["model"], "gpt-4.1");
    assert_eq!(body["max_completion_tokens"], 16);
    assert_eq!(
        params["subActionParams"].as_object().unwrap().len(),
        1,
        "Kibana refuses other parameters"
    );
    let without = gen_ai().probe(&config(&json!({"defaultModel": null})));
    assert!(
        !without["subActionParams"]["body"]
            .as_str()
            .unwrap()
            .contains("model\"")
    );
}

#[test]
fn destination_and_model_are_read_from_any_text() {
    assert_eq!(
        gen_ai()
            .destination(&config(&json!({})))
            .unwrap()
            .host_str(),
        Some("api.openai.com")
    );
    assert_eq!(
        gen_ai().model(&config(&json!({}))).as_deref(),
        Some("gpt-4.1")
    );
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"apiUrl":1,"defaultModel":1}"#,
        r#"{"apiUrl":"","defaultModel":""}"#,
    ] {
        assert_eq!(gen_ai().destination(bad), None, "{bad}");
        assert_eq!(gen_ai().model(bad), None, "{bad}");
    }
}

#[test]
fn a_failed_probe_has_a_class() {
    for (status_code, message, expected) in FAILURES {
        let execution = Execution {
            ok: false,
            status_code,
            message: message.to_owned(),
        };
        let ProbeResult::Failed { class, .. } = gen_ai().read_probe(&execution) else {
            panic!("proven: {message}")
        };
        assert_eq!(class, expected, "{message}");
    }
}

#[test]
fn an_answer_or_a_limit_that_was_too_small_proves_the_key() {
    let ok = Execution {
        ok: true,
        status_code: None,
        message: String::new(),
    };
    assert_eq!(gen_ai().read_probe(&ok), ProbeResult::Proven { note: None });
    let message = "Status code: 400. Message: Could not finish the message because max_tokens or model output limit was reached.";
    let tiny = Execution {
        ok: false,
        status_code: Some(400),
        message: message.to_owned(),
    };
    assert!(matches!(
        gen_ai().read_probe(&tiny),
        ProbeResult::Proven { note: Some(_) }
    ));
}

#[test]
fn the_text_of_a_failed_probe_is_bounded_and_hidden_from_debug() {
    let execution = Execution {
        ok: false,
        status_code: Some(401),
        message: "canary\n".repeat(1000),
    };
    let result = gen_ai().read_probe(&execution);
    assert!(!format!("{result:?}").contains("canary"));
    let ProbeResult::Failed { text, .. } = result else {
        panic!("proven")
    };
    assert!(text.chars().count() == 500 && !text.contains('\n'));
}
