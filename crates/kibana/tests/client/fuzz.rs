//! Whatever comes back from Kibana's address is an answer or an error, and never more than a person can read.

use jiff::Timestamp;
use keyfleet_core::connector::Probe;
use keyfleet_core::id::SpaceId;
use keyfleet_kibana::{
    CheckName, Client, Elasticsearch, Error, ProbeResult, Settings, Version, Wanted, driver,
    preflight,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use xtask::fuzz::Chance;

use super::support::{
    GOOD_KEY, ID, answer_with, config, gen_ai, install_tls, key_value, settings, space,
};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");

/// Fields of Kibana's answers and what may stand in them.
const WORDS: [&str; 36] = [
    "\"id\":",
    "\"name\":",
    "\"version\":",
    "\"number\":",
    "\"status\":",
    "\"overall\":",
    "\"level\":",
    "\"plugins\":",
    "\"config\":",
    "\"connector_type_id\":",
    "\"message\":",
    "\"service_message\":",
    "\"statusCode\":",
    "\"disabledFeatures\":",
    "\"available\"",
    "\"9.4.0\"",
    "\"ok\"",
    "[",
    "{",
    "]",
    "}",
    "Status code: ",
    "\u{1b}[31m",
    "\\u0000",
    "\\n",
    "<html>",
    "\"error\":",
    "\"reason\":",
    "\"caused_by\":",
    "\"endpoints\":",
    "\"inference_id\":",
    "\"completion\":",
    "event: error\n",
    "data: ",
    "\n\n",
    " status [",
];

/// Statuses that mean something to us, and some that mean nothing.
const STATUSES: [u16; 14] = [
    200, 200, 200, 200, 204, 302, 400, 401, 403, 404, 409, 429, 500, 503,
];

/// The last of the calls.
const PREFLIGHT: usize = 15;

/// The longest text that an operator may have to read.
const TEXT_CHARS_MAX: usize = 1_000;

/// What comes from Kibana's side is shown in one line of a terminal.
fn check_text(text: &str) {
    assert!(
        text.chars().count() <= TEXT_CHARS_MAX,
        "{} characters",
        text.chars().count()
    );
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

fn check<T>(outcome: Result<T, Error>) -> Option<T> {
    outcome.map_err(|err| check_text(&err.to_string())).ok()
}

/// Every call that reads an answer, one of them per input.
async fn call(client: &Client, which: usize) {
    let (space, config) = (space("default"), config("https://api.openai.com"));
    let driver = gen_ai();
    let secret = GOOD_KEY.into();
    let write = driver
        .render(
            &config.to_string(),
            "OpenAI",
            &key_value(&secret),
            &Version::new(9, 4, 0),
        )
        .unwrap();
    match which {
        0 => {
            if let Some(status) = check(client.status().await) {
                [status.uuid, status.name, status.flavor]
                    .iter()
                    .for_each(|text| check_text(text));
            }
        }
        1 => drop(check(client.spaces().await)),
        2 => drop(check(client.connector_types().await)),
        3 => {
            if let Some(Some(observed)) = check(client.get(&space, ID).await) {
                for difference in driver.differences(&config.to_string(), "OpenAI", &observed) {
                    check_text(&difference.to_string());
                }
            }
        }
        4 => drop(check(client.create(&space, ID, &write).await)),
        5 => drop(check(client.update(&space, ID, &write).await)),
        6 => drop(check(client.delete(&space, ID).await)),
        7 => {
            let execution = check(client.execute(&space, ID, &json!({})).await);
            let read = execution.map(|execution| driver.read_probe(&execution));
            if let Some(ProbeResult::Failed { text, .. }) = read {
                check_text(&text);
            }
        }
        8 => drop(check(client.get_endpoint("completion", ID).await)),
        9 => drop(check(
            client.create_endpoint("completion", ID, &write).await,
        )),
        10 => drop(check(
            client.update_endpoint("completion", ID, &write).await,
        )),
        11 => drop(check(client.delete_endpoint("completion", ID).await)),
        12 => drop(check(
            client.try_endpoint("completion", ID, &json!({})).await,
        )),
        13 => drop(check(
            client.try_endpoint("chat_completion", ID, &json!({})).await,
        )),
        14 => drop(check(client.list(&space).await)),
        _ => look(client, &space).await,
    }
}

/// The whole preflight.
async fn look(client: &Client, space: &SpaceId) {
    let wanted = Wanted {
        types: &[".gen-ai", "inference-endpoint"],
        spaces: std::slice::from_ref(space),
        privileges: true,
        now: Timestamp::UNIX_EPOCH,
    };
    let found = preflight(client, &wanted).await;
    for problem in &found.problems {
        check_text(&problem.to_string());
    }
    let names: Vec<CheckName> = found.checks.iter().map(|check| check.name).collect();
    assert_eq!(names, CheckName::ALL);
    for check in &found.checks {
        check_text(&check.sentence);
        check.detail.lines().for_each(check_text);
    }
}

fn http(status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn any_answer_of_any_call_is_read_or_refused_in_a_line() {
    install_tls();
    let runtime = Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let client = {
        let _guard = runtime.enter();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let settings = settings(&url);
        Client::new(Settings {
            elasticsearch: Some(Elasticsearch {
                url: settings.url.clone(),
                credentials: settings.credentials.clone(),
                ca_pem: None,
            }),
            ..settings
        })
        .unwrap()
    };
    let well = http(200, include_bytes!("../corpus/answers/status.json"));
    xtask::fuzz::run(format!("{CORPUS}/answers"), &WORDS, |body| {
        let mut chance = Chance::new(body.iter().map(|byte| u64::from(*byte)).sum());
        let answer = http(*chance.one_of(&STATUSES).unwrap(), body);
        let which = chance.below(PREFLIGHT + 1);
        let serve = async {
            loop {
                // What follows the status page is asked only of a Kibana that is well.
                let is_status = |head: &str| which == PREFLIGHT && head.contains("/api/status");
                let raw = listener.accept().await.unwrap().0;
                answer_with(raw, |head| if is_status(head) { &well } else { &answer }).await;
            }
        };
        runtime.block_on(async {
            tokio::select! {
                () = serve => {}
                () = call(&client, which) => {}
            }
        });
    });
}

#[test]
fn any_definition_is_taken_or_refused_by_field() {
    let driver = driver(".gen-ai").unwrap();
    let words = [
        "\"apiUrl\":",
        "\"apiProvider\":",
        "\"headers\":",
        "https://",
        "\"Other\"",
        "/v1/chat/completions",
        "\u{0}",
        "[::1]",
        "@",
    ];
    xtask::fuzz::run(format!("{CORPUS}/configs"), &words, |input| {
        let text = String::from_utf8_lossy(input);
        match driver.canonical(&text) {
            Ok(canonical) => {
                assert_eq!(
                    driver.canonical(&canonical).as_ref(),
                    Ok(&canonical),
                    "said twice"
                );
                assert!(driver.destination(&canonical).is_some(), "{canonical}");
                let _ = (
                    driver.model(&canonical),
                    driver.probe(&canonical, &Probe::default()),
                );
                for version in [Version::OLDEST, Version::new(9, 6, 0)] {
                    let secret = GOOD_KEY.into();
                    let rendered =
                        driver.render(&canonical, "OpenAI", &key_value(&secret), &version);
                    rendered
                        .err()
                        .iter()
                        .flatten()
                        .for_each(|invalid| check_text(&invalid.to_string()));
                }
            }
            Err(problems) => {
                assert!(!problems.is_empty());
                for invalid in problems {
                    assert!(!invalid.field.is_empty());
                    check_text(&invalid.to_string());
                }
            }
        }
    });
}
