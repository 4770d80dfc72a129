//! Handshakes over loopback.

use super::*;

use futures_util::StreamExt as _;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsConnector, client};

const DEADLINE: Duration = Duration::from_secs(60);

struct Server {
    _dir: tempfile::TempDir,
    authority: Authority,
    presented: Arc<Presented>,
}

fn server() -> Server {
    let dir = tempfile::tempdir().unwrap();
    ca::create(dir.path(), clock::now()).unwrap();
    let authority = Authority::load(dir.path()).unwrap();
    let presented = Presented::new(&authority, &["localhost".to_owned()]).unwrap();
    Server {
        _dir: dir,
        authority,
        presented,
    }
}

/// Dials with these protocols and versions, trusting what is trusted now.
async fn dial(
    address: std::net::SocketAddr,
    trusted: &[bytes::Bytes],
    offered: &[&str],
    version: &'static rustls::SupportedProtocolVersion,
) -> io::Result<client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for der in trusted {
        roots.add(der.to_vec().into()).unwrap();
    }
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = offered
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(client))
        .connect(name, tcp)
        .await
}

async fn listen() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn each_client_gets_its_protocol_and_a_silent_one_holds_nobody_up() {
    let server = server();
    let (listener, address) = listen().await;
    let settings = operators(server.presented.clone()).unwrap();
    let mut accepted = std::pin::pin!(incoming(listener, settings, DEADLINE));
    let trusted = server.authority.cas().certificates();
    let _silent = TcpStream::connect(address).await.unwrap();
    let cases = [
        (&["http/1.1"][..], &rustls::version::TLS13),
        (&["http/1.1", "h2"], &rustls::version::TLS12),
        (&[], &rustls::version::TLS13),
    ];
    for (offered, version) in cases {
        let (client, accepted) =
            tokio::join!(dial(address, &trusted, offered, version), accepted.next());
        let client = client.unwrap();
        let session = client.get_ref().1;
        // The better protocol is offered last here, and none means HTTP/1.1 too.
        let expected = offered.last().map(|name| name.as_bytes());
        assert_eq!(session.alpn_protocol(), expected, "{offered:?}");
        assert!(
            accepted
                .unwrap()
                .unwrap()
                .connect_info()
                .certificate
                .is_none()
        );
    }
}

#[tokio::test]
async fn the_agents_port_speaks_http_2_only_and_a_connection_can_be_hung_up() {
    let server = server();
    let (listener, address) = listen().await;
    let settings = agents(server.presented.clone(), &server.authority).unwrap();
    let mut accepted = std::pin::pin!(incoming(listener, settings, DEADLINE));
    let trusted = server.authority.cas().certificates();
    let http_1 = dial(address, &trusted, &["http/1.1"], &rustls::version::TLS13);
    tokio::select! {
        refused = http_1 => assert!(refused.is_err()),
        _ = accepted.next() => panic!("accepted without h2"),
    }
    let (client, accepted) = tokio::join!(
        dial(address, &trusted, &["h2"], &rustls::version::TLS13),
        accepted.next()
    );
    let (mut client, mut accepted) = (client.unwrap(), accepted.unwrap().unwrap());
    client.write_all(b"x").await.unwrap();
    let mut buffer = [0_u8; 8];
    assert_eq!(accepted.read(&mut buffer).await.unwrap(), 1);
    accepted.connect_info().hang_up.cancel();
    let err = accepted.read(&mut buffer).await.unwrap_err();
    assert_eq!(err.kind(), io::ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn the_end_of_a_rotation_changes_what_is_presented_at_once() {
    let server = server();
    let (listener, address) = listen().await;
    let settings = operators(server.presented.clone()).unwrap();
    let mut accepted = std::pin::pin!(incoming(listener, settings, DEADLINE));
    let old = server.authority.cas().certificates();
    server.authority.begin_rotation(clock::now()).unwrap();
    let both = server.authority.cas().certificates();
    let mut works = async |trusted: &[bytes::Bytes]| {
        let dial = dial(address, trusted, &["h2"], &rustls::version::TLS13);
        tokio::select! {
            biased;
            client = dial => client.is_ok(),
            // The server works while the client verifies.
            () = async { while accepted.next().await.is_some() {} } => false,
        }
    };
    assert!(works(&old).await && works(&both).await);
    server.authority.finish_rotation().unwrap();
    assert!(!works(&old).await);
    assert!(works(&both).await);
}

#[test]
fn a_certificate_is_made_anew_long_before_its_end() {
    let server = server();
    let now = clock::now();
    let first = server.presented.at(now);
    let later = |days: i64| now + jiff::SignedDuration::from_hours(24 * days);
    assert!(Arc::ptr_eq(&first, &server.presented.at(later(199))));
    assert!(!Arc::ptr_eq(&first, &server.presented.at(later(201))));
}

#[test]
fn every_suite_has_forward_secrecy_and_authenticated_encryption() {
    let server = server();
    let settings = agents(server.presented.clone(), &server.authority).unwrap();
    let suites = &settings.crypto_provider().cipher_suites;
    assert!(!suites.is_empty());
    for suite in suites {
        let name = format!("{:?}", suite.suite());
        // TLS 1.3 knows nothing else.
        let is_forward = suite.tls13().is_some() || name.starts_with("TLS_ECDHE_");
        let is_authenticated = name.contains("_GCM_") || name.contains("_CHACHA20_POLY1305_");
        assert!(is_forward && is_authenticated, "{name}");
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_more_is_ended() {
    let server = server();
    let (listener, address) = listen().await;
    let settings = operators(server.presented.clone()).unwrap();
    let mut accepted = std::pin::pin!(incoming(listener, settings, DEADLINE));
    let trusted = server.authority.cas().certificates();
    let (client, accepted) = tokio::join!(
        dial(address, &trusted, &["h2"], &rustls::version::TLS13),
        accepted.next()
    );
    let (mut client, mut accepted) = (client.unwrap(), accepted.unwrap().unwrap());
    let mut buffer = [0_u8; 8];
    // As if that much time had passed; what is read begins it anew.
    accepted.silence.as_mut().reset(Instant::now());
    client.write_all(b"x").await.unwrap();
    client.flush().await.unwrap();
    accepted.stream.get_ref().0.readable().await.unwrap();
    assert_eq!(accepted.read(&mut buffer).await.unwrap(), 1);
    accepted.silence.as_mut().reset(Instant::now());
    let err = accepted.read(&mut buffer).await.unwrap_err();
    assert_eq!(err.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn without_a_place_a_connection_waits() {
    let (listener, address) = listen().await;
    let places = Arc::new(Semaphore::new(1));
    let _waiting = [(); 2].map(|()| std::net::TcpStream::connect(address).unwrap());
    let first = accept(&listener, &places).await.unwrap();
    tokio::select! {
        biased;
        _ = accept(&listener, &places) => panic!("one more than there are places"),
        () = std::future::ready(()) => {}
    }
    drop(first);
    drop(accept(&listener, &places).await.unwrap());
}
