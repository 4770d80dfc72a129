//! The edges of the service: what strangers, thieves and broken networks find at its two ports.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use keyfleet_proto::v1;
use keyfleet_proto::v1::agent_message::Message;
use keyfleet_proto::v1::agent_service_client::AgentServiceClient;
use keyfleet_proto::v1::operator_service_client::OperatorServiceClient;
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedCipherSuite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Code, Status, Streaming};
use xtask::fleet::AgentOptions;
use xtask::net::free_port;
use xtask::stack::Stack;

use crate::kit::{Fleet, KEY, Member, PATIENCE};

const TWO: [Member; 2] = [
    ("lab", "8.18.0", &["default"], &[("tier", "canary")]),
    ("shop", "9.1.0", &["default"], &[]),
];

/// Control gives a handshake 10 s; a busy machine some more.
const HANDSHAKE: Duration = Duration::from_secs(20);

/// As long as an operator waits for a command without thinking that something is broken.
const QUICK: Duration = Duration::from_secs(10);

/// As long as one of many messages may take to be sent.
const STEP: Duration = Duration::from_secs(1);

/// Kinds of TLS records (RFC 8446, section 5.1).
const ALERT: u8 = 21;
const HANDSHAKE_RECORD: u8 = 22;

/// Descriptions of alerts (RFC 8446, section 6).
const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;

/// Suites that nobody should speak any more: RSA key exchange, RC4, 3DES, no encryption at all, CBC.
const WEAK_SUITES: [u16; 7] = [0x002f, 0x0035, 0x0005, 0x000a, 0x0001, 0xc013, 0xc009];
/// ECDHE with ECDSA and AES-128-GCM: what a good client of TLS 1.2 offers.
const GOOD_SUITE: [u16; 1] = [0xc02b];

fn ports(fleet: &Fleet) -> Result<[u16; 2]> {
    let operators = fleet
        .control
        .operators_url
        .rsplit_once(':')
        .context("no port")?;
    Ok([fleet.control.agents_port, operators.1.parse()?])
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(HANDSHAKE))?;
    Ok(stream)
}

/// A ClientHello of this version with these suites (RFC 5246, section 7.4.1.2), with what a server needs to choose one.
fn client_hello(version: u16, suites: &[u16]) -> Vec<u8> {
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let suites: Vec<u8> = suites
        .iter()
        .flat_map(|suite| suite.to_be_bytes())
        .collect();
    let extensions: [&[u8]; 4] = [
        // Groups: x25519 and P-256. Signatures: ECDSA with P-256, RSA-PSS, RSA. Points: uncompressed.
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23],
        &[0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1],
        &[0, 11, 0, 2, 1, 0],
        // Extended master secret (RFC 7627).
        &[0, 23, 0, 0],
    ];
    let extensions = extensions.concat();
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend(length(&suites));
    body.extend(&suites);
    body.extend([1, 0]);
    body.extend(length(&extensions));
    body.extend(&extensions);
    let mut record = vec![HANDSHAKE_RECORD, 3, 1];
    record.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
    record.extend([1, 0]);
    record.extend(length(&body));
    record.extend(body);
    record
}

/// Kind of the first record that comes back, and the description of the alert if it is one.
fn first_record(port: u16, hello: &[u8]) -> Result<(u8, u8)> {
    let mut stream = connect(port)?;
    stream.write_all(hello)?;
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    Ok((head[0], head[6]))
}

/// The suite and protocol of a handshake of this client; an error where it does not come about.
fn shake_hands(
    port: u16,
    ca: &Path,
    suites: Vec<SupportedCipherSuite>,
    protocol: &str,
) -> Result<(String, Vec<u8>)> {
    let provider = rustls::crypto::CryptoProvider {
        cipher_suites: suites,
        ..rustls::crypto::ring::default_provider()
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let mut tls = ClientConnection::new(Arc::new(config), "localhost".try_into()?)?;
    let mut stream = connect(port)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream)?;
    }
    let suite = tls.negotiated_cipher_suite().context("no suite")?;
    Ok((
        format!("{:?}", suite.suite()),
        tls.alpn_protocol().unwrap_or_default().to_vec(),
    ))
}

/// True where the other end closed, however.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(err) => err.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn both_ports_speak_good_tls_and_nothing_else() {
    let fleet = Fleet::start("edges-tls", &TWO[..1]).unwrap();
    let ca = fleet.control.data_dir.join("ca.pem");
    let [agents, operators] = ports(&fleet).unwrap();
    let silent: Vec<_> = [agents, operators]
        .map(|port| connect(port).unwrap())
        .into();
    for port in [agents, operators] {
        for suite in rustls::crypto::ring::ALL_CIPHER_SUITES {
            let name = format!("{:?}", suite.suite());
            let shaken = shake_hands(port, &ca, vec![*suite], "h2");
            // The server's key is an ECDSA key: of TLS 1.2 only its suites fit.
            assert_eq!(
                shaken.is_ok(),
                !name.contains("_RSA_"),
                "{name}: {shaken:?}"
            );
            assert!(shaken.is_err() || shaken.unwrap().1 == b"h2", "{name}");
        }
        let all = rustls::crypto::ring::ALL_CIPHER_SUITES.to_vec();
        let other = shake_hands(port, &ca, all, "spdy/3").unwrap_err();
        assert!(
            format!("{other:#}").contains("NoApplicationProtocol"),
            "{other:#}"
        );
        for version in [0x0300, 0x0301, 0x0302] {
            let found = first_record(port, &client_hello(version, &GOOD_SUITE)).unwrap();
            assert_eq!(found, (ALERT, PROTOCOL_VERSION), "version {version:x}");
        }
        let weak = first_record(port, &client_hello(0x0303, &WEAK_SUITES)).unwrap();
        assert_eq!(weak, (ALERT, HANDSHAKE_FAILURE));
        let good = first_record(port, &client_hello(0x0303, &GOOD_SUITE)).unwrap();
        assert_eq!(good.0, HANDSHAKE_RECORD, "the hello itself is well formed");
        let mut plain = connect(port).unwrap();
        plain
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/"), "{}", answer.escape_ascii());
    }
    for mut stream in silent {
        assert!(is_closed(&mut stream), "a silent client is let go");
    }
    fleet.keyfleet(&["status"]).unwrap().must_succeed().unwrap();
}

/// What an agent has on disk: the certificate and key of its identity, in PEM.
fn identity_of(fleet: &Fleet, name: &str) -> Result<(String, String)> {
    let file = fleet.stack.dir().join(format!("{name}.state/identity.pem"));
    let text = std::fs::read_to_string(&file)?;
    let block = |label: &str| -> Result<String> {
        let (begin, end) = (
            format!("-----BEGIN {label}-----"),
            format!("-----END {label}-----"),
        );
        let (_, rest) = text
            .split_once(&begin)
            .with_context(|| format!("no {label}"))?;
        let (inner, _) = rest
            .split_once(&end)
            .with_context(|| format!("no end of {label}"))?;
        Ok(format!("{begin}{inner}{end}\n"))
    };
    Ok((block("CERTIFICATE")?, block("PRIVATE KEY")?))
}

/// Certificate and key in PEM.
type Pair<'a> = (&'a str, &'a str);

/// A client of the agents' port with this identity, if any.
async fn dial(fleet: &Fleet, identity: Option<Pair<'_>>) -> Result<AgentServiceClient<Channel>> {
    dial_with(fleet, identity, None).await
}

/// As [`dial`]; before anybody reads, a stream takes so many bytes.
async fn dial_with(
    fleet: &Fleet,
    identity: Option<Pair<'_>>,
    window: Option<u32>,
) -> Result<AgentServiceClient<Channel>> {
    let ca = std::fs::read(fleet.control.data_dir.join("ca.pem"))?;
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .domain_name("localhost");
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let url = format!("https://127.0.0.1:{}", fleet.control.agents_port);
    let channel = Channel::from_shared(url)?
        .initial_stream_window_size(window)
        .tls_config(tls)?
        .connect()
        .await?;
    Ok(AgentServiceClient::new(channel))
}

fn said(message: Message) -> v1::AgentMessage {
    v1::AgentMessage {
        message: Some(message),
    }
}

fn hello() -> v1::AgentMessage {
    said(Message::Hello(v1::Hello {
        boot_id: "a-boot-of-the-test".to_owned(),
        nonce: vec![7; 32].into(),
        agent_version: "test".to_owned(),
        ..v1::Hello::default()
    }))
}

type Session = (
    mpsc::Sender<v1::AgentMessage>,
    Streaming<v1::ControlMessage>,
);

async fn open(mut client: AgentServiceClient<Channel>) -> Result<Session, Status> {
    let (sender, messages) = mpsc::channel(16);
    sender.try_send(hello()).unwrap();
    let answers = client.session(ReceiverStream::new(messages)).await?;
    Ok((sender, answers.into_inner()))
}

/// Why no session comes about with this identity; `None` where one does.
async fn refusal(fleet: &Fleet, identity: Option<Pair<'_>>) -> Option<String> {
    let client = match dial(fleet, identity).await {
        Ok(client) => client,
        Err(err) => return Some(format!("{err:#}")),
    };
    let (_sender, mut answers) = match open(client).await {
        Ok(session) => session,
        Err(status) => return Some(status.to_string()),
    };
    answers
        .message()
        .await
        .err()
        .map(|status| status.to_string())
}

/// A certificate as control gives them, for another key and time, signed by this CA.
fn forged(like: &str, ca: &Issuer<'_, KeyPair>, is_ended: bool) -> Result<(String, String)> {
    let original = CertificateDer::from_pem_slice(like.as_bytes())?;
    // The URI stands in the certificate as it is.
    let text = String::from_utf8_lossy(&original).into_owned();
    let (_, rest) = text.split_once("urn:keyfleet:").context("no name")?;
    let plain = |c: &char| c.is_ascii_alphanumeric() || ":-".contains(*c);
    let uri = format!(
        "urn:keyfleet:{}",
        rest.chars().take_while(plain).collect::<String>()
    );
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(if is_ended { 2021 } else { 2090 }, 1, 1);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

#[test]
fn a_session_wants_a_certificate_of_this_ca_that_has_not_ended() {
    let mut fleet = Fleet::start("edges-thief", &TWO[..1]).unwrap();
    fleet.agent_mut("lab").unwrap().kill_hard().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (certificate, key) = identity_of(&fleet, "lab").unwrap();
    let read = |name: &str| std::fs::read_to_string(fleet.control.data_dir.join(name)).unwrap();
    let ca_key = KeyPair::from_pem(&read("ca.key")).unwrap();
    let ours = Issuer::from_ca_cert_pem(&read("ca.pem"), ca_key).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let theirs = Issuer::new(params, KeyPair::generate().unwrap());
    let ended = forged(&certificate, &ours, true).unwrap();
    let stranger = forged(&certificate, &theirs, false).unwrap();
    runtime.block_on(async {
        let nobody = refusal(&fleet, None).await.unwrap();
        assert!(nobody.contains("certificate"), "{nobody}");
        let ended = refusal(&fleet, Some((&ended.0, &ended.1))).await.unwrap();
        assert!(
            ended.contains("ended") || ended.contains("out of date"),
            "{ended}"
        );
        assert!(
            refusal(&fleet, Some((&stranger.0, &stranger.1)))
                .await
                .is_some()
        );
        assert_eq!(
            refusal(&fleet, Some((&certificate, &key))).await,
            None,
            "the agent's own"
        );
    });
}

/// A session whose agent reports, and reads none of the answers: they fill its stream and then the queue to it.
async fn read_nothing(fleet: &Fleet, identity: Pair<'_>) -> Result<Session> {
    let (sender, answers) = open(dial_with(fleet, Some(identity), Some(256)).await?).await?;
    for sequence in 1..=200 {
        let report = v1::StatusReport {
            sequence,
            ..v1::StatusReport::default()
        };
        // Where nobody answers any more, nobody listens either.
        let sent = sender
            .send_timeout(said(Message::StatusReport(report)), STEP)
            .await;
        if sent.is_err() {
            break;
        }
    }
    Ok((sender, answers))
}

async fn send_too_large(fleet: &Fleet) -> Result<()> {
    let request = v1::EnrollRequest {
        join_token: "x".repeat(5 << 20),
        ..v1::EnrollRequest::default()
    };
    let refused = dial(fleet, None).await?.enroll(request).await.unwrap_err();
    ensure!(refused.code() == Code::OutOfRange, "{refused}");
    let ca = std::fs::read(fleet.control.data_dir.join("ca.pem"))?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    let url = fleet.control.operators_url.clone();
    let channel = Channel::from_shared(url)?
        .tls_config(tls)?
        .connect()
        .await?;
    let file = v1::ManifestFile {
        name: "a.yaml".to_owned(),
        text: "x".repeat(5 << 20),
    };
    let request = v1::PlanRequest {
        files: vec![file],
        ..v1::PlanRequest::default()
    };
    let refused = OperatorServiceClient::new(channel)
        .plan(request)
        .await
        .unwrap_err();
    ensure!(
        matches!(refused.code(), Code::OutOfRange | Code::Unauthenticated),
        "{refused}"
    );
    Ok(())
}

/// Sends until the session is over; says why it is.
async fn flood(fleet: &Fleet, identity: Pair<'_>) -> Result<Status> {
    let (sender, mut answers) = open(dial(fleet, Some(identity)).await?).await?;
    let pour = async {
        let heartbeat = || said(Message::Heartbeat(v1::Heartbeat::default()));
        while sender.send(heartbeat()).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let listen = async {
        loop {
            if let Err(status) = answers.message().await {
                return status;
            }
        }
    };
    tokio::select! {
        () = pour => unreachable!("it pours for ever"),
        status = listen => Ok(status),
    }
}

#[test]
fn floods_slow_readers_and_idle_connections_stop_nobody_else() {
    let mut fleet = Fleet::start("edges-flood", &TWO).unwrap();
    let [agents, operators] = ports(&fleet).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (lab, shop) = (
        identity_of(&fleet, "lab").unwrap(),
        identity_of(&fleet, "shop").unwrap(),
    );
    for name in ["lab", "shop"] {
        fleet.agent_mut(name).unwrap().kill_hard().unwrap();
    }
    let slow = runtime
        .block_on(read_nothing(&fleet, (&lab.0, &lab.1)))
        .unwrap();
    let flooded = runtime.block_on(flood(&fleet, (&shop.0, &shop.1))).unwrap();
    assert!(flooded.message().contains("messages"), "{flooded}");
    runtime.block_on(send_too_large(&fleet)).unwrap();
    let idle: Vec<_> = (0..2_000)
        .map(|n| connect(if n % 2 == 0 { agents } else { operators }).unwrap())
        .collect();
    let begin = Instant::now();
    fleet.keyfleet(&["status"]).unwrap().must_succeed().unwrap();
    fleet.agent_mut("shop").unwrap().restart().unwrap();
    assert!(
        begin.elapsed() < QUICK,
        "{:?} beside {} idle connections",
        begin.elapsed(),
        idle.len()
    );
    let shown = fleet
        .keyfleet(&["describe", "deployment", "shop"])
        .unwrap()
        .must_succeed()
        .unwrap();
    assert!(
        shown.out.contains("messages at once"),
        "the history names it: {}",
        shown.out
    );
    for mut stream in idle {
        assert!(is_closed(&mut stream), "an idle connection is let go");
    }
    let line = fleet
        .control
        .process
        .wait_for_line(PATIENCE, |line| line.contains("took nothing for"));
    assert!(line.is_ok(), "a slow reader is let go: {line:?}");
    drop(slow);
}

#[test]
fn control_agent_and_command_meet_over_ipv6() {
    let (agents, operators) = (free_port().unwrap(), free_port().unwrap());
    if std::net::TcpListener::bind(("::1", agents)).is_err() {
        xtask::say::line("skipped: this machine has no address ::1");
        return;
    }
    let stack = Stack::start_quick("e2e-edges-ipv6-").unwrap();
    stack.bao.kv_put("keyfleet/openai", "api_key", KEY).unwrap();
    let listen = [agents, operators].map(|port| format!("[::1]:{port}"));
    let control = stack
        .control(&[
            ("KEYFLEET_CONTROL__AGENTS__LISTEN", &listen[0]),
            ("KEYFLEET_CONTROL__AGENTS__NAMES", "::1"),
            ("KEYFLEET_CONTROL__OPERATORS__LISTEN", &listen[1]),
            ("KEYFLEET_CONTROL__OPERATORS__NAMES", "::1"),
        ])
        .unwrap();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (ca, token) = (
        text(&control.data_dir.join("ca.pem")),
        text(&control.data_dir.join("admin.token")),
    );
    let endpoint = format!("https://{}", listen[1]);
    let context = [
        "context",
        "add",
        "six",
        "--endpoint",
        &endpoint,
        "--ca",
        &ca,
        "--token-file",
        &token,
        "--use",
    ];
    stack.keyfleet(&context).unwrap().must_succeed().unwrap();
    let join_token = stack.join_token(1).unwrap();
    let kibana = stack
        .kibana("kibana-lab", "9.4.0", &["default"], "kibana-key-of-lab")
        .unwrap();
    let options = AgentOptions {
        name: "lab",
        labels: &[],
        api_key: "kibana-key-of-lab",
        join_token: &join_token,
        drift_interval_secs: 300,
    };
    let address = format!("https://{}", listen[0]);
    let settings = [("KEYFLEET_AGENT__CONTROL__ADDRESS", address.as_str())];
    let _agent = stack
        .agent_with(&control, &kibana, &options, &settings)
        .unwrap();
    let answer = stack.json(&["get", "deployments"]).unwrap();
    assert_eq!(answer["deployments"][0]["connected"], true, "{answer}");
}
