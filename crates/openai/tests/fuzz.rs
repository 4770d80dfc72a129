//! Whatever comes back from the provider's address proves a key or is refused, and none of its text is kept.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use keyfleet_core::connector::Provider;
use keyfleet_openai::{Client, Error, Proof, Settings, Verified};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use xtask::fuzz::Chance;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/answers");

const WORDS: [&str; 16] = [
    "\"id\":",
    "\"gpt-5.2\"",
    "\"shutdown_date\":",
    "\"choices\":",
    "\"error\":",
    "\"message\":",
    "\"type\":",
    "\"code\":",
    "\"param\":",
    "\"invalid_api_key\"",
    "max_completion_tokens",
    "sk-canary",
    "{",
    "[",
    "]",
    "}",
];

/// Statuses that mean something to us, and some that mean nothing.
const STATUSES: [u16; 12] = [200, 200, 200, 204, 302, 400, 401, 403, 404, 422, 429, 503];

/// Reads one request and answers it with these bytes.
async fn answer(mut stream: TcpStream, bytes: &[u8]) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap() == 0 {
            return;
        }
    }
    // The client may hang up early.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
}

fn http(status: u16, chance: &mut Chance, body: &[u8]) -> Vec<u8> {
    // A length that is wrong cuts the answer off, or ends it early.
    let length = if chance.below(8) == 0 {
        chance.below(2 * body.len() + 1)
    } else {
        body.len()
    };
    let head = format!(
        "HTTP/1.1 {status} x\r\nconnection: close\r\nretry-after: {}\r\nx-request-id: {}\r\ncontent-length: {length}\r\n\r\n",
        chance.number(),
        String::from_utf8_lossy(body)
            .chars()
            .filter(char::is_ascii_graphic)
            .take(40)
            .collect::<String>(),
    );
    [head.as_bytes(), body].concat()
}

fn check(outcome: Result<Verified, Error>, body: &[u8]) {
    match outcome {
        Ok(verified) => {
            let names_model = body.windows(7).any(|part| part == b"gpt-5.2");
            assert!(verified.proof == Proof::Completion || names_model);
            let date = verified.model_shutdown.unwrap_or_default();
            assert!(
                date.len() <= 80 && !date.chars().any(char::is_control),
                "{date:?}"
            );
        }
        Err(err) => {
            let said = format!("{err} {err:?}");
            assert!(
                !said.contains("canary") && err.to_string().len() < 500,
                "{said}"
            );
        }
    }
}

#[test]
fn any_answer_proves_a_key_or_is_refused_without_its_text() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!(
        "http://{}/v1/chat/completions",
        listener.local_addr().unwrap()
    );
    let client = {
        let _guard = runtime.enter();
        Client::new(&Settings::new(url.parse().unwrap(), Provider::OpenAi)).unwrap()
    };
    let key = SecretString::from("sk-canary");
    let verify = |answered: &[u8]| {
        let serve = async {
            loop {
                answer(listener.accept().await.unwrap().0, answered).await;
            }
        };
        runtime.block_on(async {
            tokio::select! {
                () = serve => unreachable!("it answers for ever"),
                outcome = client.verify(&key, "gpt-5.2") => outcome,
            }
        })
    };
    xtask::fuzz::run(CORPUS, &WORDS, |body| {
        let mut chance = Chance::new(body.iter().map(|byte| u64::from(*byte)).sum());
        for status in [200, *chance.one_of(&STATUSES).unwrap()] {
            let answered = http(status, &mut chance, body);
            check(verify(&answered), body);
        }
    });
}
