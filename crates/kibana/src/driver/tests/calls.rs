//! What the live call of each type sends, and what a definition may say of it.

use keyfleet_core::connector::Probe;
use serde_json::{Value, json};

use super::{
    AZURE, BEDROCK, ENDPOINT, GEMINI, INFERENCE, KINDS, Kind, OPENAI, OTHER, least, usual, with,
};
use crate::driver::driver;

fn own(body: &Value) -> Probe {
    Probe {
        body: Some(body.to_string()),
        ..Probe::default()
    }
}

fn asking(model: &str, max_tokens: u32) -> Probe {
    Probe {
        model: Some(model.to_owned()),
        max_tokens: Some(max_tokens),
        ..Probe::default()
    }
}

fn call(kind: Kind, extra: &Value, probe: &Probe) -> Value {
    driver(kind.0)
        .unwrap()
        .probe(&with(least(kind), extra), probe)
}

/// The body inside of `params`, which is a text of JSON for the older types.
fn body(kind: Kind, extra: &Value, probe: &Probe) -> Value {
    let params = call(kind, extra, probe);
    assert_eq!(params["subAction"], "test");
    serde_json::from_str(params["subActionParams"]["body"].as_str().unwrap()).unwrap()
}

#[test]
fn each_type_is_called_as_it_wants() {
    let claude = json!({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 16,
        "messages": [{"role": "user", "content": "ping"}]});
    assert_eq!(body(BEDROCK, &json!({}), &usual()), claude);
    let google = json!({"contents": [{"role": "user", "parts": [{"text": "ping"}]}],
        "generation_config": {"maxOutputTokens": 512}});
    assert_eq!(body(GEMINI, &json!({}), &usual()), google);

    let prompt = "Answer with one word: pong";
    let messages = json!([{"role": "user", "content": prompt}]);
    let chat = json!({"taskType": "chat_completion"});
    let one = json!({"subAction": "completion", "subActionParams": {"input": prompt}});
    assert_eq!(call(INFERENCE, &json!({}), &usual()), one);
    let conversation = json!({"subAction": "unified_completion", "subActionParams": {"body": {"messages": messages}}});
    assert_eq!(call(INFERENCE, &chat, &usual()), conversation);
    assert_eq!(
        call(ENDPOINT, &json!({}), &usual()),
        json!({"input": prompt})
    );
    let whole = json!({"messages": messages, "max_completion_tokens": 16});
    assert_eq!(call(ENDPOINT, &chat, &usual()), whole);
}

#[test]
fn model_and_limit_of_the_definition_are_asked_for() {
    let probe = asking("m", 5);
    let openai = body(OPENAI, &json!({"defaultModel": "gpt-4.1"}), &probe);
    assert_eq!(
        (&openai["model"], &openai["max_completion_tokens"]),
        (&json!("m"), &json!(5))
    );
    let claude = call(BEDROCK, &json!({}), &probe);
    assert_eq!(claude["subActionParams"]["model"], "m");
    assert_eq!(body(BEDROCK, &json!({}), &probe)["max_tokens"], 5);
    assert_eq!(
        body(GEMINI, &json!({}), &probe)["generation_config"]["maxOutputTokens"],
        5
    );
    let endpoint = call(ENDPOINT, &json!({"taskType": "chat_completion"}), &probe);
    assert_eq!(
        (&endpoint["model"], &endpoint["max_completion_tokens"]),
        (&json!("m"), &json!(5))
    );
}

#[test]
fn a_body_of_ones_own_is_sent_as_it_is_with_a_model_in_it() {
    let said = json!({"messages": [{"role": "user", "content": "hi"}], "temperature": 0});
    for (kind, extra, model) in [
        (OTHER, json!({}), Some("llama")),
        (OPENAI, json!({"defaultModel": "gpt-4.1"}), Some("gpt-4.1")),
        (OPENAI, json!({}), None),
        (AZURE, json!({}), None),
    ] {
        let mut expected = said.clone();
        if let Some(model) = model {
            expected["model"] = json!(model);
        }
        assert_eq!(body(kind, &extra, &own(&said)), expected, "{kind:?}");
        let mut named = said.clone();
        named["model"] = json!("own");
        assert_eq!(body(kind, &extra, &own(&named)), named, "{kind:?}");
    }
    assert_eq!(body(BEDROCK, &json!({}), &own(&said)), said);
    let chat = json!({"taskType": "chat_completion"});
    assert_eq!(call(ENDPOINT, &chat, &own(&said)), said);
    assert_eq!(
        call(INFERENCE, &chat, &own(&said))["subActionParams"],
        json!({"body": said})
    );
    let input = json!({"input": "hi"});
    assert_eq!(
        call(INFERENCE, &json!({}), &own(&input))["subActionParams"],
        input
    );
}

/// The fields of a definition's call that are refused.
fn refused(kind: Kind, extra: &Value, probe: &Probe) -> Vec<String> {
    let outcome = driver(kind.0)
        .unwrap()
        .check_probe(&with(least(kind), extra), probe);
    outcome
        .err()
        .unwrap_or_default()
        .into_iter()
        .map(|problem| problem.field)
        .collect()
}

#[test]
fn a_call_that_cannot_work_is_refused() {
    let messages = json!({"messages": [{"role": "user", "content": "hi"}]});
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    let input = json!({"input": "hi"});
    let chat = json!({"taskType": "chat_completion"});
    let none = json!({});
    for kind in KINDS {
        assert_eq!(refused(kind, &none, &usual()), [""; 0], "{kind:?}");
    }
    for (kind, extra, body, field) in [
        (OPENAI, &none, &messages, ""),
        (OPENAI, &none, &input, "probe.body.messages"),
        (
            OPENAI,
            &none,
            &json!({"messages": []}),
            "probe.body.messages",
        ),
        (OPENAI, &none, &json!([]), "probe.body"),
        (BEDROCK, &none, &messages, ""),
        (BEDROCK, &none, &contents, "probe.body.messages"),
        (GEMINI, &none, &contents, ""),
        (GEMINI, &none, &messages, "probe.body.contents"),
        (INFERENCE, &none, &input, ""),
        (INFERENCE, &none, &messages, "probe.body.input"),
        (INFERENCE, &chat, &messages, ""),
        (ENDPOINT, &chat, &input, "probe.body.messages"),
        (ENDPOINT, &none, &input, ""),
    ] {
        let problems = refused(kind, extra, &own(body));
        assert_eq!(problems.join(" "), field, "{kind:?} {body}");
    }
    for (kind, extra, probe, fields) in [
        (OPENAI, &none, asking("m", 5), &[][..]),
        (OPENAI, &none, asking("m", 0), &["probe.maxTokens"]),
        (OPENAI, &none, asking("m", 5000), &["probe.maxTokens"]),
        (OPENAI, &none, asking(" ", 5), &["probe.model"]),
        (OPENAI, &none, asking("a\nb", 5), &["probe.model"]),
        (
            OPENAI,
            &none,
            Probe {
                body: own(&messages).body,
                ..asking("m", 5)
            },
            &["probe.maxTokens", "probe.model"],
        ),
        (AZURE, &none, asking("m", 5), &["probe.model"]),
        (INFERENCE, &chat, asking("m", 5), &["probe.maxTokens"]),
        (ENDPOINT, &chat, asking("m", 5), &[]),
        (
            ENDPOINT,
            &none,
            asking("m", 5),
            &["probe.model", "probe.maxTokens"],
        ),
    ] {
        assert_eq!(refused(kind, extra, &probe), fields, "{kind:?} {probe:?}");
    }
    let long = json!({"messages": ["x".repeat(5000)]});
    assert_eq!(refused(OPENAI, &none, &own(&long)), ["probe.body"]);
}
