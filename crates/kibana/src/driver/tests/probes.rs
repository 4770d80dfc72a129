//! The live call: what is sent, and what its outcome means.

use keyfleet_core::binding::Rung;
use keyfleet_core::failure::FailureClass::{self, *};
use serde_json::{Value, json};

use super::{azure, config, gen_ai, other, usual};
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
    let params = gen_ai().probe(&config(&json!({})), &usual());
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
    let without = gen_ai().probe(&config(&json!({"defaultModel": null})), &usual());
    assert!(
        !without["subActionParams"]["body"]
            .as_str()
            .unwrap()
            .contains("model\"")
    );
}

/// The body of the probe of a config, or of the second one after this refusal.
fn body(config: &Value, refusal: Option<(u16, &str)>) -> Option<Value> {
    let config = config.to_string();
    let params = match refusal {
        None => gen_ai().probe(&config, &usual()),
        Some((status, message)) => {
            gen_ai().probe_again(&config, &usual(), &failed(status, message))?
        }
    };
    serde_json::from_str(params["subActionParams"]["body"].as_str().unwrap()).ok()
}

fn failed(status: u16, message: &str) -> Execution {
    Execution {
        ok: false,
        status_code: Some(status),
        message: format!("Status code: {status}. Message: {message}"),
    }
}

#[test]
fn each_provider_is_probed_as_kibana_calls_it() {
    let openai: Value = serde_json::from_str(&config(&json!({}))).unwrap();
    let mut with_model = azure();
    with_model["defaultModel"] = json!("gpt-4.1");
    for (config, model) in [
        (&openai, Some("gpt-4.1")),
        (&azure(), None),
        (&with_model, None),
        (&other(), Some("llama")),
    ] {
        let body = body(config, None).unwrap();
        assert_eq!(body.get("model").and_then(Value::as_str), model, "{config}");
        assert_eq!(body["max_completion_tokens"], 16);
    }
}

#[test]
fn a_server_that_knows_only_the_older_limit_is_asked_once_more() {
    let openai: Value = serde_json::from_str(&config(&json!({}))).unwrap();
    let named =
        "API Error: Bad Request - Unrecognized request argument supplied: max_completion_tokens";
    let free = "API Error: Bad Request - unexpected argument in the request";
    let tiny = "Could not finish the message because max_tokens or model output limit was reached.";
    for (config, status, text, is_asked) in [
        (&openai, 400, named, true),
        (&azure(), 400, named, true),
        (&other(), 422, named, true),
        (&other(), 400, free, true),
        (&openai, 400, free, false),
        (&azure(), 400, free, false),
        (&other(), 400, tiny, false),
        (&other(), 401, free, false),
        (&other(), 400, "the model `llama` does not exist", false),
        (&other(), 500, named, false),
    ] {
        let again = body(config, Some((status, text)));
        assert_eq!(again.is_some(), is_asked, "{config} {status} {text}");
        let Some(again) = again else { continue };
        assert_eq!(
            (&again["max_tokens"], again.get("max_completion_tokens")),
            (&json!(16), None)
        );
        assert_eq!(again.get("model"), body(config, None).unwrap().get("model"));
    }
}

#[test]
fn refusals_of_azure_have_a_class() {
    for (status, text, expected) in [
        (
            401,
            "Unauthorized API Error - Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription.",
            Auth,
        ),
        (401, "Unauthorized API Error", Auth),
        (
            401,
            "Unauthorized API Error - Access denied due to missing subscription key.",
            Auth,
        ),
        (
            403,
            "API Error: Forbidden - Access denied due to Virtual Network/Firewall rules.",
            Egress,
        ),
        (
            401,
            "Unauthorized API Error - Access denied due to Virtual Network/Firewall rules.",
            Egress,
        ),
        (
            403,
            "API Error: Forbidden - Public access is disabled. Please configure private endpoint.",
            Egress,
        ),
        (
            403,
            "API Error: Forbidden - Out of call volume quota. Quota will be replenished in 01:00:00.",
            Quota,
        ),
        (
            404,
            "API Error: Not Found - The API deployment for this resource does not exist.",
            Model,
        ),
        (404, "API Error: Not Found - Resource not found", Model),
        (
            429,
            "API Error: Too Many Requests - Requests have exceeded call rate limit of your current OpenAI S0 pricing tier.",
            RateLimit,
        ),
    ] {
        let ProbeResult::Failed { class, .. } = gen_ai().read_probe(&failed(status, text)) else {
            panic!("proven: {text}")
        };
        assert_eq!(class, expected, "{text}");
    }
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
    let answered = ProbeResult::Proven {
        note: None,
        rung: Rung::Answered,
    };
    assert_eq!(gen_ai().read_probe(&ok), answered);
    let message = "Status code: 400. Message: Could not finish the message because max_tokens or model output limit was reached.";
    let tiny = Execution {
        ok: false,
        status_code: Some(400),
        message: message.to_owned(),
    };
    assert!(matches!(
        gen_ai().read_probe(&tiny),
        ProbeResult::Proven {
            note: Some(_),
            rung: Rung::KeyAccepted
        }
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
