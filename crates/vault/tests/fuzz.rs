//! Whatever comes back from Vault's address is an answer or an error, and no error repeats a word of it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;

use keyfleet_core::id::KeyVersion;
use keyfleet_core::key::{KeyField, KeyLocation};
use keyfleet_vault::{Auth, Error, Settings, Vault};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use xtask::fuzz::Chance;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/answers");

const WORDS: [&str; 24] = [
    "\"data\":",
    "\"metadata\":",
    "\"version\":",
    "\"versions\":",
    "\"destroyed\":",
    "\"deletion_time\":",
    "\"created_time\":",
    "\"current_version\":",
    "\"ttl\":",
    "\"auth\":",
    "\"client_token\":",
    "\"lease_duration\":",
    "\"renewable\":",
    "\"errors\":",
    "\"type\":",
    "\"options\":",
    "\"api_key\":",
    "namespace not found",
    "no handler for route",
    "sk-canary",
    "{",
    "}",
    "[",
    "]",
];

/// Good answers first; a 404 or 412 is asked for twice, which takes its time.
const STATUSES: [u16; 16] = [
    200, 200, 200, 200, 200, 200, 204, 307, 400, 403, 404, 429, 472, 500, 501, 503,
];

const LOOKUP: &[u8] = include_bytes!("corpus/answers/lookup.json");
const MOUNT: &[u8] = include_bytes!("corpus/answers/mount.json");

/// Reads one request, chooses an answer by its head, and closes.
async fn answer(mut stream: TcpStream, choose: impl FnOnce(&str) -> Vec<u8>) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap() == 0 {
            return;
        }
    }
    // The client may hang up early.
    let _ = stream
        .write_all(&choose(&String::from_utf8_lossy(&request)))
        .await;
    let _ = stream.shutdown().await;
}

fn http(status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} x\r\nconnection: close\r\nlocation: https://elsewhere.example/x\r\nretry-after: 99999999999\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An error is a short line without a word of the answer.
fn check<T>(outcome: Result<T, Error>) {
    let Err(err) = outcome else { return };
    let said = format!("{err} {err:?}");
    assert!(!said.contains("canary"), "{said}");
    assert!(
        err.to_string().len() < 600 && !err.to_string().contains('\n'),
        "{said}"
    );
}

/// One of the calls that read an answer.
async fn call(settings: Settings, which: usize) {
    let location = KeyLocation {
        mount: "secret".to_owned(),
        path: "a".to_owned(),
        field: "api_key".into(),
    };
    let parts = KeyLocation {
        field: KeyField::Parts(BTreeMap::from([(
            "secret".to_owned(),
            "api_key".to_owned(),
        )])),
        ..location.clone()
    };
    let vault = match Vault::connect(settings).await {
        Ok(vault) => vault,
        Err(err) => return check::<()>(Err(err)),
    };
    match which {
        0 => check(vault.health().await),
        1 => check(vault.read(&location, Some(KeyVersion(2))).await),
        2 => check(vault.read(&location, None).await),
        3 => check(vault.read(&parts, None).await),
        4 => check(vault.current_version(&location).await),
        _ => check(vault.newest(&location).await),
    }
}

#[test]
fn any_answer_of_any_call_is_read_or_refused_without_its_text() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credential");
    std::fs::write(&file, "s.a-token").unwrap();
    let by_token = Auth::TokenFile(file.clone());
    let by_role = Auth::AppRole {
        mount: "approle".to_owned(),
        role_id: "role".to_owned(),
        secret_id_file: file,
        wrapped: None,
    };
    xtask::fuzz::run(CORPUS, &WORDS, |body| {
        let mut chance = Chance::new(body.iter().map(|byte| u64::from(*byte)).sum());
        // Logins, mounts and reads get the hostile answer in turn; the others are as they should be.
        for (part, status) in [
            (0, 200),
            (chance.below(3), *chance.one_of(&STATUSES).unwrap()),
        ] {
            let auth = if chance.below(2) == 0 {
                &by_token
            } else {
                &by_role
            };
            let mut settings = Settings::new(address.parse().unwrap(), auth.clone());
            settings.attempts = 1;
            let serve = async {
                loop {
                    let stream = listener.accept().await.unwrap().0;
                    answer(stream, |head| match part {
                        1 | 2 if head.contains("/lookup-self") => http(200, LOOKUP),
                        1 | 2 if head.contains("/login") => {
                            http(200, include_bytes!("corpus/answers/login.json"))
                        }
                        2 if head.contains("/mounts/") => http(200, MOUNT),
                        _ => http(status, body),
                    })
                    .await;
                }
            };
            runtime.block_on(async {
                tokio::select! {
                    () = serve => unreachable!("it answers for ever"),
                    () = call(settings, chance.below(6)) => {}
                }
            });
        }
    });
}
