//! The Admin API against a server on loopback that keeps accounts.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up fails at once"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use keyfleet_openai::admin::{Client, Deleted, Error, Outcome, Settings};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const VALUE: &str = "sk-svcacct-canary";
const ACCOUNTS: &str = "/v1/organization/projects/proj_a/service_accounts";

/// What the server says to every request instead of doing it; status 0 means that it says nothing.
type Instead = Option<(u16, &'static str)>;

#[derive(Clone, Default)]
struct Fake {
    accounts: Arc<Mutex<Vec<Value>>>,
    n_requests: Arc<Mutex<usize>>,
    instead: Instead,
}

impl Fake {
    fn create(&self, body: &[u8]) -> Value {
        let asked: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(asked["create_service_account_only"], false);
        let mut accounts = self.accounts.lock().unwrap();
        let id = format!("svc_acct_{}", accounts.len());
        let account = json!({ "id": id, "name": asked["name"], "role": "member", "created_at": 1_711_471_533 });
        accounts.push(account.clone());
        let mut answer = account;
        answer["api_key"] =
            json!({ "id": "key_1", "value": VALUE, "name": "k", "created_at": 1_711_471_533 });
        answer
    }

    fn list(&self, query: &HashMap<String, String>) -> Value {
        let accounts = self.accounts.lock().unwrap();
        let limit: usize = query["limit"].parse().unwrap();
        let start = query.get("after").map_or(0, |after| {
            let found = accounts.iter().position(|a| a["id"] == after.as_str());
            found.unwrap() + 1
        });
        let data: Vec<_> = accounts.iter().skip(start).take(limit).collect();
        json!({ "object": "list", "has_more": start + data.len() < accounts.len(), "data": data })
    }

    fn delete(&self, id: &str) -> (u16, Value) {
        let mut accounts = self.accounts.lock().unwrap();
        let n_before = accounts.len();
        accounts.retain(|account| account["id"] != id);
        if accounts.len() == n_before {
            let error = json!({ "message": "canary", "type": "invalid_request_error", "code": null, "param": null });
            return (404, json!({ "error": error }));
        }
        (200, json!({ "id": id, "deleted": true }))
    }
}

async fn answer(
    State(fake): State<Fake>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    assert_eq!(headers["authorization"], "Bearer sk-admin-canary");
    *fake.n_requests.lock().unwrap() += 1;
    if let Some((status, text)) = fake.instead {
        if status == 0 {
            return std::future::pending().await;
        }
        return (StatusCode::from_u16(status).unwrap(), text.to_owned());
    }
    let rest = uri.path().strip_prefix(ACCOUNTS).unwrap();
    let (status, body) = match method.as_str() {
        "POST" => (200, fake.create(&body)),
        "GET" => (200, fake.list(&query)),
        _ => fake.delete(rest.trim_start_matches('/')),
    };
    (StatusCode::from_u16(status).unwrap(), body.to_string())
}

fn key() -> SecretString {
    SecretString::from("sk-admin-canary")
}

fn client(base: &str) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new(&Settings {
        base: base.parse().unwrap(),
        ca_file: None,
        proxy: None,
        timeout: Duration::from_millis(300),
    })
    .unwrap()
}

/// Runs `work` with a client of this server.
async fn with<T>(fake: Fake, work: impl AsyncFnOnce(Client) -> T) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&format!("http://{}/v1", listener.local_addr().unwrap()));
    let app = Router::new().fallback(answer).with_state(fake);
    tokio::select! {
        ended = axum::serve(listener, app) => unreachable!("the fake ended: {ended:?}"),
        done = work(client) => done,
    }
}

fn check(error: &Error, expected: Outcome, what: &str) {
    assert_eq!(error.outcome(), expected, "{what}: {error}");
    let said = format!("{error} {error:?}");
    assert!(!said.contains("canary"), "{what}: {said}");
}

#[tokio::test]
async fn an_account_is_made_listed_and_deleted() {
    with(Fake::default(), async |client| {
        let minted = client
            .create_account(&key(), "proj_a", "fleet-g1")
            .await
            .unwrap();
        assert_eq!(minted.value.expose_secret(), VALUE);
        assert_eq!(minted.created_at.as_second(), 1_711_471_533);
        assert!(!format!("{minted:?} {client:?}").contains("canary"));
        let accounts = client.accounts(&key(), "proj_a").await.unwrap();
        assert_eq!(accounts.len(), 1);
        assert_eq!(
            (&accounts[0].id, accounts[0].name.as_str()),
            (&minted.account, "fleet-g1")
        );
        for expected in [Deleted::Now, Deleted::AlreadyGone] {
            let deleted = client
                .delete_account(&key(), "proj_a", &minted.account)
                .await;
            assert_eq!(deleted.unwrap(), expected);
        }
        assert_eq!(client.accounts(&key(), "proj_a").await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn every_page_is_read_and_a_list_without_end_is_not() {
    let accounts = |n: u32| {
        let account =
            |i| json!({ "id": format!("svc_{i}"), "name": "n", "role": "member", "created_at": 1 });
        Fake {
            accounts: Arc::new(Mutex::new((0..n).map(account).collect())),
            ..Fake::default()
        }
    };
    let list =
        async |fake| with(fake, async |client| client.accounts(&key(), "proj_a").await).await;
    for n in [100, 101, 250] {
        let mut ids: Vec<_> = list(accounts(n))
            .await
            .unwrap()
            .into_iter()
            .map(|a| a.id)
            .collect();
        ids.dedup();
        assert_eq!(ids.len(), n as usize);
    }
    assert!(matches!(
        list(accounts(10_001)).await,
        Err(Error::TooMany { limit: 10_000 })
    ));
    let empty = Fake {
        instead: Some((200, r#"{"data":[],"has_more":true}"#)),
        ..Fake::default()
    };
    assert!(matches!(
        list(empty).await,
        Err(Error::BadAnswer { status: 200 })
    ));
}

#[tokio::test]
async fn a_failed_creation_says_whether_it_may_have_happened_and_is_sent_once() {
    let refused =
        r#"{"error":{"message":"canary","type":"invalid_request_error","code":"sk-canary"}}"#;
    let no_value = r#"{"id":"svc_1","api_key":{"id":"key_1","value":"","created_at":1}}"#;
    let bad_id = r#"{"id":"../canary","api_key":{"id":"key_1","value":"canary","created_at":1}}"#;
    let bad_time = r#"{"id":"svc_1","api_key":{"id":"key_1","value":"canary","created_at":9223372036854775807}}"#;
    for (status, body, outcome) in [
        (400, refused, Outcome::NotDone),
        (401, refused, Outcome::NotDone),
        (403, "<html>canary", Outcome::NotDone),
        (404, refused, Outcome::NotDone),
        (429, refused, Outcome::NotDone),
        (408, refused, Outcome::Unknown),
        (409, refused, Outcome::Unknown),
        (302, "canary", Outcome::Unknown),
        (500, refused, Outcome::Unknown),
        (503, "canary", Outcome::Unknown),
        (201, no_value, Outcome::Unknown),
        (200, "canary", Outcome::Unknown),
        (200, no_value, Outcome::Unknown),
        (200, bad_id, Outcome::Unknown),
        (200, bad_time, Outcome::Unknown),
        (0, "", Outcome::Unknown),
    ] {
        let fake = Fake {
            instead: Some((status, body)),
            ..Fake::default()
        };
        let n_requests = fake.n_requests.clone();
        let made = with(fake, async |client| {
            client.create_account(&key(), "proj_a", "n").await
        });
        check(
            &made.await.unwrap_err(),
            outcome,
            &format!("{status} {body}"),
        );
        assert_eq!(*n_requests.lock().unwrap(), 1, "{status} {body}");
    }
}

#[tokio::test]
async fn what_was_never_sent_was_not_done() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = client(&format!("http://{}/v1", listener.local_addr().unwrap()));
    drop(listener);
    let error = closed
        .create_account(&key(), "proj_a", "n")
        .await
        .unwrap_err();
    check(&error, Outcome::NotDone, "no server");
    let bad_key = SecretString::from("canary\n");
    let error = closed
        .create_account(&bad_key, "proj_a", "n")
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Key));
    for id in ["", ".", "..", "a/b", "a?b", "a%2e", &"a".repeat(129)] {
        let error = closed
            .delete_account(&key(), "proj_a", id)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Id), "{id:?}");
        check(&error, Outcome::NotDone, id);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_after_sending_leaves_it_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&format!("http://{}/v1", listener.local_addr().unwrap()));
    let hang_up = async {
        let (stream, _) = listener.accept().await.unwrap();
        stream.readable().await.unwrap();
        drop(stream);
        std::future::pending::<()>().await;
    };
    let key = key();
    let error = tokio::select! {
        () = hang_up => unreachable!("it never ends"),
        made = client.create_account(&key, "proj_a", "n") => made.unwrap_err(),
    };
    assert!(matches!(error, Error::Broken { .. }), "{error:?}");
    check(&error, Outcome::Unknown, "hung up");
}

#[tokio::test]
async fn only_the_provider_itself_can_say_that_an_account_is_gone() {
    let other = r#"{"id":"svc_2","deleted":true}"#;
    let kept = r#"{"id":"svc_1","deleted":false}"#;
    for (status, body, outcome) in [
        (404, "<html>canary", Outcome::NotDone),
        (200, other, Outcome::Unknown),
        (200, kept, Outcome::Unknown),
    ] {
        let fake = Fake {
            instead: Some((status, body)),
            ..Fake::default()
        };
        let deleted = with(fake, async |client| {
            client.delete_account(&key(), "proj_a", "svc_1").await
        });
        check(&deleted.await.unwrap_err(), outcome, body);
    }
}
