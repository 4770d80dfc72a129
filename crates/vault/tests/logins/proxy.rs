//! Through an HTTP CONNECT proxy that wants a password, which nobody may see.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use keyfleet_vault::{Error, Proxy, Settings, Vault};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing_subscriber::filter::LevelFilter;

use crate::common::{Fixture, read};

/// `user:canary-password` as the proxy gets it.
const AUTHORIZATION: &str = "dXNlcjpjYW5hcnktcGFzc3dvcmQ=";

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tunnels whoever has the password, refuses the others, and counts both.
async fn serve(listener: TcpListener, tunnels: Arc<Mutex<(usize, usize)>>) {
    let mut open = JoinSet::new();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let tunnels = Arc::clone(&tunnels);
        open.spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await?);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            if !head.contains(AUTHORIZATION) {
                tunnels.lock().unwrap().1 += 1;
                let refusal =
                    b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
                return client.write_all(refusal).await;
            }
            tunnels.lock().unwrap().0 += 1;
            let mut server = TcpStream::connect(target).await?;
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            copy_bidirectional(&mut client, &mut server).await.map(drop)
        });
    }
}

#[tokio::test]
async fn vault_is_reached_through_a_proxy_whose_password_is_never_shown() {
    let fixture = Fixture::start();
    fixture
        .bao
        .kv_put("openai/a", "api_key", "sk-first")
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tunnels = Arc::new(Mutex::new((0, 0)));
    let mut proxy = JoinSet::new();
    proxy.spawn(serve(listener, Arc::clone(&tunnels)));
    let through = |user: &str, no_proxy: Option<&str>| Settings {
        proxy: Some(Proxy {
            url: format!("http://{user}@{address}").parse().unwrap(),
            no_proxy: no_proxy.map(str::to_owned),
        }),
        attempts: 1,
        ..fixture.with_token()
    };

    let log = Buffer::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let settings = through("user:canary-password", None);
    let vault = Vault::connect(settings.clone()).await.unwrap();
    assert_eq!(read(&vault, "openai/a", None).await.unwrap().1, "sk-first");
    assert!(tunnels.lock().unwrap().0 >= 1);
    tracing::error!(?settings, ?vault, "everything that can be printed");

    let refused = Vault::connect(through("user:wrong", None))
        .await
        .unwrap_err();
    let names_the_proxy =
        matches!(&refused, Error::Unreachable { to, .. } if to.contains(&address.to_string()));
    assert!(names_the_proxy, "{refused:?}");
    assert_eq!(tunnels.lock().unwrap().1, 1);
    Vault::connect(through("user:wrong", Some("127.0.0.0/8")))
        .await
        .unwrap();
    assert_eq!(tunnels.lock().unwrap().1, 1, "a direct host needs no proxy");
    drop(guard);
    proxy.shutdown().await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("everything that can be printed"));
    for secret in ["canary-password", AUTHORIZATION] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "the password is in the log");
    }
}
