//! Refusals, by status and text.

use keyfleet_core::failure::FailureClass::{self, *};
use serde_json::{Value, json};

use super::*;
use crate::client::Service;

/// Status, type and reason; the class, and a part of what a person reads.
const REFUSALS: [(u16, &str, &str, FailureClass, &str); 13] = [
    (
        401,
        "security_exception",
        "unable to authenticate",
        KibanaAuth,
        "Elasticsearch refused the credentials",
    ),
    (
        403,
        "security_exception",
        "action [x] is unauthorized for API key id [y]",
        KibanaAuth,
        "manage_inference",
    ),
    (
        403,
        "security_exception",
        "current license is non-compliant for [inference]",
        Licence,
        "inference endpoints",
    ),
    (
        409,
        "status_exception",
        "Inference endpoint x is referenced by pipelines: [p].",
        Conflict,
        "pipelines",
    ),
    (
        403,
        "status_exception",
        "Model x is referenced by pipelines and cannot be deleted.",
        Conflict,
        "pipelines",
    ),
    (
        409,
        "version_conflict_engine_exception",
        "[x]: version conflict",
        Conflict,
        "somebody else",
    ),
    (
        400,
        "resource_already_exists_exception",
        "Inference endpoint [x] already exists",
        Conflict,
        "somebody else",
    ),
    (
        404,
        "resource_not_found_exception",
        "Inference endpoint not found [x]",
        Conflict,
        "gone",
    ),
    (
        413,
        "content_too_long_exception",
        "x",
        Rejected,
        "http.max_content_length",
    ),
    (418, "status_exception", "x", KibanaDown, "418"),
    (
        429,
        "circuit_breaking_exception",
        "[parent] Data too large",
        KibanaDown,
        "overloaded",
    ),
    (
        500,
        "null_pointer_exception",
        "x",
        KibanaDown,
        "failed (500)",
    ),
    (
        503,
        "master_not_discovered_exception",
        "",
        KibanaDown,
        "not ready",
    ),
];

fn refused(status: u16, body: impl Into<Vec<u8>>) -> Error {
    let call = Call {
        service: Service::Elasticsearch,
        line: "PUT /x".to_owned(),
    };
    Answer {
        call,
        status,
        retry_after: None,
        date: None,
        body: body.into(),
    }
    .refusal()
}

fn check(status: u16, error: &Value, class: FailureClass, says: &str) {
    let body = json!({"error": error, "status": status}).to_string();
    let found = refused(status, body);
    assert_eq!(found.class(), class, "{status} {error}: {found}");
    assert!(
        found.to_string().contains(says),
        "{status} {error}: {found}"
    );
}

fn of(kind: &str, reason: &str) -> Value {
    json!({"root_cause": [{"type": kind, "reason": reason}], "type": kind, "reason": reason})
}

#[test]
fn refusals_are_read_by_status_and_type() {
    for (status, kind, reason, class, says) in REFUSALS {
        check(status, &of(kind, reason), class, says);
    }
}

#[test]
fn an_endpoint_of_another_task_is_somebody_elses() {
    for text in [
        "Requested task type [completion] does not match the inference endpoint's task type [rerank]",
        "Incompatible task_type, the requested type [completion] does not match the model type [rerank]",
        "Task type must match the task type of the existing endpoint",
    ] {
        check(
            400,
            &of("status_exception", text),
            Conflict,
            "somebody else",
        );
    }
}

#[test]
fn a_route_that_an_older_release_lacks_is_named_so() {
    let unknown = json!("no handler found for uri [/_inference/a/b] and method [PUT]");
    check(400, &unknown, KibanaDown, "8.17");
    check(
        405,
        &json!("Incorrect HTTP method for uri"),
        KibanaDown,
        "8.17",
    );
    check(404, &json!("Not Found"), KibanaDown, "`elasticsearch.url`");
}

#[test]
fn a_refused_definition_keeps_words_that_name_settings_alone() {
    let lacks = of(
        "validation_exception",
        "Validation Failed: 1: [service_settings] does not contain the required setting [model_id];",
    );
    check(400, &lacks, Rejected, "required setting [model_id]");
    let service = of("status_exception", "Unknown service [nothing]");
    check(400, &service, Rejected, "Unknown service");
    for text in [
        "Configuration contains settings [{api_key=sk-canary}] unknown to the [openai] service",
        "Validation Failed: 1: [{api_key=sk-canary}];",
        "Validation Failed: 1: field [api_key] is not of the expected type. The value [sk-canary] cannot be converted",
        "[1:2] Failed to parse sk-canary",
    ] {
        for status in [400, 401, 403, 404, 409, 500] {
            let body = json!({"error": of("status_exception", text)}).to_string();
            let error = refused(status, body);
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }
}

#[test]
fn the_provider_is_told_from_elasticsearch_by_the_text() {
    let says = |what: &str, status: u16, message: &str| {
        let inner = format!(
            "Received {what} status code for request from inference entity id [x] status [{status}]. Error message: [{message}]"
        );
        json!({"type": "status_exception",
            "reason": "Could not complete inference endpoint creation as validation call to service threw an exception.",
            "caused_by": {"type": "status_exception", "reason": inner}})
    };
    let wrong = says(
        "an authentication error",
        401,
        "Incorrect API key provided: sk-canary",
    );
    check(400, &wrong, Auth, "(401)");
    let error = refused(400, json!({"error": wrong}).to_string());
    assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    check(
        400,
        &says("a rate limit", 429, "You exceeded your current quota"),
        Quota,
        "(429)",
    );
    check(
        400,
        &says("an unsuccessful", 404, "The model `x` does not exist"),
        Model,
        "(404)",
    );
    check(400, &says("a server error", 500, "x"), Provider, "(500)");
    let late = json!({"type": "status_exception", "reason": "Could not complete …",
        "caused_by": {"type": "timeout_exception", "reason": "Request timed out after [30s]"}});
    check(400, &late, Timeout, "no answer");
    let lost = of(
        "exception",
        "Http client failed to send request from inference entity id [x]",
    );
    check(500, &lost, Network, "no answer");
}

#[test]
fn a_refused_stream_says_so_in_an_event() {
    let error = json!({"error": {"code": "unauthorized", "type": "openai_error",
        "message": "Received an authentication error status code for request from inference entity id [x] status [401]. Error message: [no]"}});
    let body = format!("\u{feff}event: error\ndata: {error}\n\n");
    assert_eq!(refused(401, body).class(), Auth);
    assert!(matches!(refused(403, "<html>"), Error::NotJson { .. }));
}
