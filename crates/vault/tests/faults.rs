//! A server on loopback that behaves as no healthy Vault does.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up fails at once"
)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use keyfleet_core::id::KeyVersion;
use keyfleet_core::key::KeyLocation;
use keyfleet_vault::{Auth, Error, Settings, Vault};
use tokio::net::TcpListener;

const SECRET: &str =
    r#"{"data":{"data":{"api_key":"sk-canary-value"},"metadata":{"version":2,"destroyed":false}}}"#;

/// One scripted answer: status, header, body.
type Scripted = (u16, Option<(&'static str, String)>, String);

/// Plays its answers in order to every request but those about the token and the mount; hangs when none is left. Remembers what it saw.
#[derive(Clone, Default)]
struct Fake {
    answers: Arc<Mutex<VecDeque<Scripted>>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn with(answers: impl IntoIterator<Item = Scripted>) -> Self {
        Self {
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            ..Self::default()
        }
    }

    fn n_seen(&self, path: &str) -> usize {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| seen.contains(path))
            .count()
    }

    /// Listens and runs `body` with a logged-in client.
    async fn serve<T>(&self, body: impl AsyncFnOnce(Vault) -> T) -> T {
        self.serve_with(|_| {}, body).await
    }

    /// As [`Fake::serve`], with other settings.
    async fn serve_with<T>(
        &self,
        change: impl FnOnce(&mut Settings),
        body: impl AsyncFnOnce(Vault) -> T,
    ) -> T {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/prefix", listener.local_addr().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "s.canary-token").unwrap();
        let mut settings = Settings::new(address.parse().unwrap(), Auth::TokenFile(token));
        settings.timeout = Duration::from_millis(400);
        settings.attempts = 2;
        change(&mut settings);
        let app = Router::new().fallback(answer).with_state(self.clone());
        tokio::select! {
            result = axum::serve(listener, app) => unreachable!("the fake ended: {result:?}"),
            done = async { body(Vault::connect(settings).await.unwrap()).await } => done,
        }
    }
}

async fn answer(State(fake): State<Fake>, request: Request) -> Response {
    let uri = request.uri().to_string();
    let headers = ["x-vault-token", "x-vault-index", "x-vault-inconsistent"]
        .map(|name| request.headers().contains_key(name));
    fake.seen.lock().unwrap().push(format!("{uri} {headers:?}"));
    let known = [
        ("/lookup-self", r#"{"data":{"ttl":0,"renewable":false}}"#),
        (
            "/sys/internal/ui/mounts/",
            r#"{"data":{"type":"kv","options":{"version":"2"}}}"#,
        ),
    ];
    let known = known.into_iter().find(|(path, _)| uri.contains(path));
    let scripted = if let Some((_, body)) = known {
        Some((200, None, body.to_owned()))
    } else {
        fake.answers.lock().unwrap().pop_front()
    };
    let Some((status, header, body)) = scripted else {
        return std::future::pending().await;
    };
    let mut response = Response::builder().status(status);
    if let Some((name, value)) = header {
        response = response.header(name, value);
    }
    response.body(Body::from(body)).unwrap()
}

fn location() -> KeyLocation {
    KeyLocation {
        mount: "secret".to_owned(),
        path: "a".to_owned(),
        field: "api_key".into(),
    }
}

fn plain(status: u16, body: &str) -> Scripted {
    (status, None, body.to_owned())
}

fn metadata(created: &str, current: u64) -> Scripted {
    let body = format!(
        r#"{{"data":{{"cas_required":false,"created_time":"{created}","current_version":{current},"delete_version_after":"0s",
            "max_versions":0,"oldest_version":0,"updated_time":"{created}","custom_metadata":null,
            "versions":{{"{current}":{{"created_time":"{created}","deletion_time":"","destroyed":false}}}}}}}}"#
    );
    (200, None, body)
}

#[tokio::test]
async fn each_fault_is_its_own_error_and_shows_no_secret() {
    let html = "<html>sk-canary-value</html>";
    let huge = format!("{{\"data\":\"{}\"}}", "x".repeat(2 * 1024 * 1024));
    let slow_down = Some(("retry-after", "60".to_owned()));
    let limited = r#"{"errors":["request path \"secret/data/a\": rate limit quota exceeded"]}"#;
    let wrong_type = SECRET.replace("2,", "\"sk-canary-value\",");
    let cases: Vec<(Vec<Scripted>, &str)> = vec![
        (vec![], "Timeout"),
        (vec![plain(200, html)], "BadAnswer"),
        (vec![plain(200, &wrong_type)], "BadAnswer"),
        (vec![plain(502, html), plain(502, html)], "Status"),
        (vec![plain(200, &huge)], "TooLarge"),
        (vec![(429, slow_down, limited.to_owned())], "RateLimited"),
        (
            vec![plain(403, r#"{"errors":["permission denied"]}"#)],
            "Denied",
        ),
        (
            vec![plain(503, r#"{"errors":["Vault is sealed"]}"#)],
            "Sealed",
        ),
    ];
    for (answers, expected) in cases {
        let error = Fake::with(answers)
            .serve(async |vault| vault.read(&location(), None).await)
            .await
            .unwrap_err();
        let text = format!("{error:?}");
        assert!(text.starts_with(expected), "{expected}: {text}");
        assert!(!format!("{text} {error}").contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn the_token_never_follows_a_redirect() {
    let thief = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}/v1/secret/data/a", thief.local_addr().unwrap());
    let fake = Fake::with([(307, Some(("location", target)), String::new())]);
    let error = fake
        .serve(async |vault| vault.read(&location(), None).await)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Redirected { to } if *to == thief.local_addr().unwrap().to_string()),
        "{error}"
    );
    let visit = tokio::time::timeout(Duration::from_millis(50), thief.accept()).await;
    assert!(visit.is_err(), "nobody came");
}

#[tokio::test]
async fn passing_troubles_are_tried_again_and_a_lagging_standby_is_not_believed() {
    let stale = [
        plain(412, r#"{"errors":["required index state not present"]}"#),
        plain(429, r#"{"errors":[]}"#),
    ];
    for trouble in stale
        .into_iter()
        .chain([plain(500, ""), plain(503, "<html>")])
    {
        let fake = Fake::with([trouble, plain(200, SECRET)]);
        let found = fake
            .serve(async |vault| vault.read(&location(), None).await)
            .await
            .unwrap();
        assert_eq!(found.version, Some(KeyVersion(2)));
    }
    // One 404 proves nothing.
    let fake = Fake::with([plain(404, r#"{"errors":[]}"#), plain(200, SECRET)]);
    assert!(
        fake.serve(async |vault| vault.read(&location(), None).await)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn versions_never_go_backwards_unless_the_secret_was_made_anew() {
    let (old, new) = ("2026-11-01T10:00:00.5Z", "2026-11-02T10:00:00Z");
    let lagging = [metadata(old, 5), metadata(old, 4), metadata(old, 5)];
    let stuck = std::iter::repeat_with(|| metadata(old, 4)).take(5);
    let anew = std::iter::once(metadata(new, 1));
    let before = std::iter::repeat_with(|| metadata(old, 5)).take(5);
    let fake = Fake::with(lagging.into_iter().chain(stuck).chain(anew).chain(before));
    fake.serve(async |vault| {
        let current = async || {
            vault
                .current_version(&location())
                .await
                .map(|info| info.current.0)
        };
        assert_eq!(current().await.unwrap(), 5);
        assert_eq!(
            current().await.unwrap(),
            5,
            "the older answer is asked about again"
        );
        assert!(matches!(current().await, Err(Error::Stale)));
        assert_eq!(current().await.unwrap(), 1, "made anew");
        assert!(
            matches!(current().await, Err(Error::Stale)),
            "an answer about the secret before"
        );
    })
    .await;
}

#[tokio::test]
async fn the_cluster_state_is_sent_back_so_that_a_standby_forwards() {
    let index = Some(("x-vault-index", "abc".to_owned()));
    let fake = Fake::with([(200, index, SECRET.to_owned()), plain(200, SECRET)]);
    fake.serve(async |vault| {
        vault.read(&location(), Some(KeyVersion(2))).await.unwrap();
        vault.read(&location(), None).await.unwrap();
    })
    .await;
    assert_eq!(
        fake.n_seen("/prefix/v1/secret/data/a?version=2 [true, false, false]"),
        1
    );
    assert_eq!(
        fake.n_seen("/prefix/v1/secret/data/a [true, true, true]"),
        1,
        "{:?}",
        fake.seen.lock().unwrap()
    );
}

#[tokio::test]
async fn a_node_that_cannot_answer_is_left_for_the_next() {
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone_address = gone.local_addr().unwrap();
    drop(gone);
    let no_leader = r#"{"errors":["local node not active but active cluster node not found"]}"#;
    let lost = Fake::with([
        plain(500, no_leader),
        plain(503, r#"{"errors":["Vault is sealed"]}"#),
    ]);
    let well = Fake::with([plain(200, SECRET), plain(200, SECRET)]);
    let read = async |vault: Vault| {
        for _ in 0..2 {
            let found = vault.read(&location(), None).await.unwrap();
            assert_eq!(found.version, Some(KeyVersion(2)));
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lost_address = listener.local_addr().unwrap();
    let app = Router::new().fallback(answer).with_state(lost.clone());
    let change = |settings: &mut Settings| {
        let well_address = settings.address.clone();
        settings.address = format!("http://{gone_address}").parse().unwrap();
        let lost_address = format!("http://{lost_address}").parse().unwrap();
        settings.more_addresses = vec![lost_address, well_address];
    };
    tokio::select! {
        result = axum::serve(listener, app) => unreachable!("the fake ended: {result:?}"),
        () = well.serve_with(change, read) => {}
    }
    assert_eq!(lost.n_seen("secret/data/a"), 1, "it is not asked again");
    assert_eq!(well.n_seen("secret/data/a"), 2);
}

#[tokio::test]
async fn a_rate_limit_is_kept_by_not_asking_at_all() {
    let limited = r#"{"errors":["request path \"secret/data/a\": rate limit quota exceeded"]}"#;
    let slow_down = Some(("retry-after", "60".to_owned()));
    let fake = Fake::with([(429, slow_down, limited.to_owned()), plain(200, SECRET)]);
    fake.serve(async |vault| {
        for _ in 0..3 {
            let error = vault.read(&location(), None).await.unwrap_err();
            assert!(error.to_string().contains("for 60 s"), "{error}");
        }
    })
    .await;
    assert_eq!(fake.n_seen("secret/data/a"), 1);
}
