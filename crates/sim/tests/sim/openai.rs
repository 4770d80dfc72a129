//! The simulated OpenAI: models, chat, error bodies, keys.

use serde_json::{Value, json};

use crate::support::{Answer, GOOD_KEY, Sim};

const CHAT: &str = "/v1/chat/completions";
const INVALID: &str = "invalid_request_error";

#[tokio::test]
async fn models_and_chat_answer_a_good_key() {
    let openai = Sim::openai().await;
    let list = ask(&openai, "GET", "/v1/models", GOOD_KEY, Value::Null).await;
    assert_eq!(
        (list.status, list.body["object"].as_str()),
        (200, Some("list"))
    );
    let model = ask(&openai, "GET", "/v1/models/gpt-4.1", GOOD_KEY, Value::Null).await;
    assert_eq!(
        (model.status, model.body["id"].as_str()),
        (200, Some("gpt-4.1"))
    );
    let chat = ask(&openai, "POST", CHAT, GOOD_KEY, message("gpt-4.1")).await;
    assert_eq!(
        (chat.status, chat.body["object"].as_str()),
        (200, Some("chat.completion"))
    );
    assert_eq!(chat.body["usage"]["prompt_tokens"], 2);
    assert!(chat.headers.contains_key("x-request-id"));
    let mut streamed = message("gpt-4.1");
    streamed["stream"] = json!(true);
    let chat = ask(&openai, "POST", CHAT, GOOD_KEY, streamed).await;
    assert_eq!(chat.headers["content-type"], "text/event-stream");
    assert!(chat.body.as_str().unwrap().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn refusals_have_openai_s_form() {
    let openai = Sim::openai().await;
    let wrong = "sk-proj-wrongwrongwrongwrong1234";
    let cases = [
        (
            "/v1/models",
            wrong,
            (
                401,
                json!("invalid_api_key"),
                "Incorrect API key provided: sk-proj-**",
            ),
        ),
        (
            "/v1/models",
            "kk",
            (
                401,
                json!("invalid_api_key"),
                "Incorrect API key provided: kk. You",
            ),
        ),
        (
            "/v1/models",
            "",
            (401, Value::Null, "You didn't provide an API key."),
        ),
        (
            "/v1/models/gpt-0",
            GOOD_KEY,
            (404, json!("model_not_found"), "The model `gpt-0` does not"),
        ),
        ("/v1", GOOD_KEY, (404, Value::Null, "Invalid URL (GET /v1)")),
    ];
    for (path, key, (status, code, text)) in cases {
        let answer = ask(&openai, "GET", path, key, Value::Null).await;
        check(&answer, (status, INVALID), &code, text);
        assert!(!answer.body.to_string().contains(wrong));
    }
}

#[tokio::test]
async fn chat_refuses_what_openai_refuses() {
    let openai = Sim::openai().await;
    let with = |model: &str, field: &str, limit: u32| {
        let mut body = message(model);
        body[field] = json!(limit);
        body
    };
    let cases = [
        (
            message("gpt-0"),
            404,
            json!("model_not_found"),
            "The model `gpt-0` does not exist",
        ),
        (
            json!({}),
            400,
            Value::Null,
            "you must provide a model parameter",
        ),
        (
            json!({ "model": "gpt-4o" }),
            400,
            json!("missing_required_parameter"),
            "Missing required",
        ),
        (
            with("gpt-5.4", "max_tokens", 16),
            400,
            json!("unsupported_parameter"),
            "Unsupported param",
        ),
        (
            with("o3-mini", "max_completion_tokens", 1),
            400,
            Value::Null,
            "Could not finish the message",
        ),
    ];
    for (body, status, code, text) in cases {
        let answer = ask(&openai, "POST", CHAT, GOOD_KEY, body).await;
        check(&answer, (status, INVALID), &code, text);
    }
    for body in [
        with("gpt-4o", "max_tokens", 1),
        with("gpt-5.4", "max_completion_tokens", 16),
    ] {
        assert_eq!(ask(&openai, "POST", CHAT, GOOD_KEY, body).await.status, 200);
    }
}

/// Mode, status, type, code, start of the message.
const FAULTS: [&str; 10] = [
    "quota | 429 | insufficient_quota | insufficient_quota | You exceeded your current quota",
    "rate_limit | 429 | requests | rate_limit_exceeded | Rate limit reached for gpt-4.1",
    "server_error | 503 | server_error | server_is_overloaded | The server is currently",
    "revoked | 401 | invalid_request_error | invalid_api_key | Incorrect API key provided: sk-pr",
    "missing_scope | 401 | invalid_request_error | null | You have insufficient permissions",
    "ip_not_authorized | 401 | invalid_request_error | ip_not_authorized | IP not authorized",
    "region | 403 | request_forbidden | unsupported_country_region_territory | Country, region",
    "model_denied | 403 | invalid_request_error | model_not_found | Project `proj_simulated`",
    "wrong_model | 404 | invalid_request_error | model_not_found | The model `gpt-4.1`",
    "status | 500 | server_error | null | Internal Server Error",
];

#[tokio::test]
async fn faults_answer_for_the_real_thing() {
    let openai = Sim::openai().await;
    for row in FAULTS {
        let [mode, status, kind, code, text] = *row.split(" | ").collect::<Vec<_>>() else {
            panic!("{row}");
        };
        let code = if code == "null" {
            Value::Null
        } else {
            json!(code)
        };
        openai.fault(json!({ "mode": mode })).await;
        let answer = ask(&openai, "POST", CHAT, GOOD_KEY, message("gpt-4.1")).await;
        check(&answer, (status.parse().unwrap(), kind), &code, text);
    }
}

#[tokio::test]
async fn a_fault_may_choose_its_own_status_and_words() {
    let openai = Sim::openai().await;
    let fault = json!({ "mode": "quota", "status": 418, "message": "no", "retry_after_secs": 9 });
    openai.fault(fault).await;
    let answer = ask(&openai, "POST", CHAT, GOOD_KEY, message("gpt-4.1")).await;
    check(
        &answer,
        (418, "insufficient_quota"),
        &json!("insufficient_quota"),
        "no",
    );
    assert_eq!(answer.headers["retry-after"], "9");
    openai.fault(json!({ "mode": "html" })).await;
    let answer = ask(&openai, "POST", CHAT, GOOD_KEY, message("gpt-4.1")).await;
    assert!(answer.status == 403 && answer.body.is_string());
}

#[tokio::test]
async fn a_fault_hits_one_model_or_one_key() {
    let openai = Sim::openai().await;
    let cases = [
        ("gpt-4o", "MxYA", "/v1/models", false),
        ("gpt-4o", "MxYA", "/v1/models/gpt-4o", true),
        ("gpt-4o", "0000", "/v1/models/gpt-4o", false),
        ("gpt-4o", "MxYA", "/v1/models/gpt-4.1", false),
    ];
    for (model, key_tail, path, hit) in cases {
        let fault = json!({ "mode": "down", "model": model, "key_tail": key_tail, "remaining": 1 });
        openai.fault(fault.clone()).await;
        let answer = try_ask(&openai, "GET", path, GOOD_KEY, Value::Null).await;
        assert_eq!(answer.is_err(), hit, "{fault} {path}");
    }
    let unknown = Some(json!({ "mode": "hang", "x": 1 }).to_string());
    assert_eq!(
        openai
            .raw("PUT", "/_sim/faults", &[], unknown)
            .await
            .unwrap()
            .status,
        400
    );
}

#[tokio::test]
async fn keys_come_and_go_while_it_runs() {
    let openai = Sim::openai().await;
    let new = "sk-svcacct-0000000000000000000000NEW1";
    let works = async |key: &str| {
        ask(&openai, "GET", "/v1/models", key, Value::Null)
            .await
            .status
            == 200
    };
    assert!(!works(new).await);
    change(&openai, json!({ "add": new }), 200).await;
    assert!(works(new).await && works(new).await && works(GOOD_KEY).await);
    change(&openai, json!({ "revoke": GOOD_KEY }), 200).await;
    assert!(!works(GOOD_KEY).await);
    let keys = openai.sim("/_sim/keys").await;
    let row = |index: usize| {
        (
            keys[index]["tail"].clone(),
            keys[index]["active"].clone(),
            keys[index]["uses"].clone(),
        )
    };
    assert_eq!(row(0), (json!("MxYA"), json!(false), json!(1)));
    assert_eq!(row(1), (json!("NEW1"), json!(true), json!(2)));
    assert!(keys[1]["last_used_ms"].is_u64());
    change(&openai, json!({ "revoke": "sk-nobody" }), 404).await;
    change(&openai, json!({ "add": "a", "revoke": "b" }), 400).await;
    change(&openai, json!({ "remove": "a" }), 400).await;
}

#[tokio::test]
async fn azure_speaks_in_its_own_way() {
    let openai = Sim::openai().await;
    let (new, old) = ("max_completion_tokens", "max_tokens");
    let (good, wrong) = (("api-key", GOOD_KEY), ("api-key", "wrong"));
    let gpt = "/openai/deployments/gpt-4.1/chat/completions";
    let today = &format!("{gpt}?api-version=2024-10-21");
    let before = &format!("{gpt}?api-version=2024-02-01");
    let nobody = "/openai/deployments/nobody/chat/completions?api-version=2024-10-21";
    let denied = "Access denied due to";
    completes(&openai, today, good, new).await;
    completes(&openai, before, good, old).await;
    answers(&openai, before, (good, new), (400, "/error/message", new)).await;
    answers(&openai, gpt, (good, new), (404, "/error/code", "404")).await;
    answers(
        &openai,
        nobody,
        (good, new),
        (404, "/error/code", "DeploymentNotFound"),
    )
    .await;
    answers(&openai, today, (wrong, new), (401, "/error/code", "401")).await;
    answers(
        &openai,
        today,
        (wrong, new),
        (401, "/error/message", denied),
    )
    .await;
    let bearer = &format!("Bearer {GOOD_KEY}");
    answers(
        &openai,
        today,
        (("authorization", bearer), new),
        (401, "/message", denied),
    )
    .await;
    answers(&openai, CHAT, (good, new), (401, "/error/type", INVALID)).await;
}

#[tokio::test]
async fn a_compatible_server_knows_chat_and_the_older_limit_alone() {
    let openai = Sim::openai().await;
    let (new, old) = ("max_completion_tokens", "max_tokens");
    let bearer = &format!("Bearer {GOOD_KEY}");
    let (good, azure) = (("authorization", bearer.as_str()), ("api-key", GOOD_KEY));
    let chat = "/compatible/v1/chat/completions";
    completes(&openai, chat, good, old).await;
    answers(
        &openai,
        chat,
        (good, new),
        (400, "/error", "unexpected argument"),
    )
    .await;
    answers(&openai, chat, (azure, old), (401, "/error", "API key")).await;
    let model = "/compatible/v1/models/gpt-4.1";
    answers(&openai, model, (good, old), (404, "/error", "Invalid URL")).await;
}

async fn completes(openai: &Sim, path: &str, header: (&str, &str), limit: &str) {
    answers(
        openai,
        path,
        (header, limit),
        (200, "/object", "chat.completion"),
    )
    .await;
}

/// The answer has this status, and at the pointer a text with these words.
async fn answers(
    openai: &Sim,
    path: &str,
    (header, limit): ((&str, &str), &str),
    (status, pointer, says): (u16, &str, &str),
) {
    let mut body = message("gpt-4.1");
    body[limit] = json!(16);
    let headers = [header, ("content-type", "application/json")];
    let answer = openai
        .raw("POST", path, &headers, Some(body.to_string()))
        .await
        .expect("an answer");
    assert_eq!(answer.status, status, "{path}: {}", answer.body);
    let text = answer.body.pointer(pointer).and_then(Value::as_str);
    assert!(
        text.is_some_and(|text| text.contains(says)),
        "{path}: {}",
        answer.body
    );
}

async fn change(openai: &Sim, change: Value, status: u16) {
    let answer = openai
        .raw("POST", "/_sim/keys", &[], Some(change.to_string()))
        .await
        .expect("an answer");
    assert_eq!(answer.status, status, "{change}: {}", answer.body);
}

fn check(answer: &Answer, expected: (u16, &str), code: &Value, text: &str) {
    let error = &answer.body["error"];
    assert_eq!(
        (answer.status, error["type"].as_str()),
        (expected.0, Some(expected.1)),
        "{error}"
    );
    assert_eq!(&error["code"], code, "{error}");
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|message| message.starts_with(text)),
        "{error}"
    );
    assert!(
        error.as_object().is_some_and(|error| error.len() == 4),
        "{error}"
    );
}

fn message(model: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": "ping me" }] })
}

async fn ask(openai: &Sim, method: &str, path: &str, key: &str, body: Value) -> Answer {
    try_ask(openai, method, path, key, body)
        .await
        .expect("an answer")
}

async fn try_ask(
    openai: &Sim,
    method: &str,
    path: &str,
    key: &str,
    body: Value,
) -> Result<Answer, reqwest::Error> {
    let bearer = format!("Bearer {key}");
    let body = (!body.is_null()).then(|| body.to_string());
    openai
        .raw(
            method,
            path,
            &[
                ("authorization", &bearer),
                ("content-type", "application/json"),
            ],
            body,
        )
        .await
}
