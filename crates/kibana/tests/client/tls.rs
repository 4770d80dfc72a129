//! Certificates: only the given CA is trusted, and a failure says so.

use std::sync::Arc;

use jiff::Timestamp;
use keyfleet_core::failure::FailureClass;
use keyfleet_kibana::{
    CheckName, CheckOutcome, Client, Error, Settings, Status, Wanted, preflight,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::support::*;

const STATUS: &str = r#"{"name":"k","uuid":"u","version":{"number":"9.4.0"},"status":{"overall":{"level":"available"}}}"#;

fn certificate(name: &str) -> (TlsAcceptor, Vec<u8>) {
    install_tls();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), cert.pem().into_bytes())
}

/// Asks a TLS server with this certificate, trusting that CA.
async fn ask(acceptor: &TlsAcceptor, ca_pem: Option<Vec<u8>>) -> Result<Status, Error> {
    let raw = Raw::listen().await;
    let client = trusting(&raw, ca_pem);
    tokio::join!(serve(&raw, acceptor), client.status()).1
}

fn trusting(raw: &Raw, ca_pem: Option<Vec<u8>>) -> Client {
    Client::new(Settings {
        ca_pem,
        ..settings(&format!("https://{}", raw.address()))
    })
    .unwrap()
}

/// Serves the status page once.
async fn serve(raw: &Raw, acceptor: &TlsAcceptor) {
    // The client hangs up where it does not trust us.
    let Ok(mut stream) = acceptor.accept(raw.accept().await).await else {
        return;
    };
    let mut request = vec![0; 4096];
    let _ = stream.read(&mut request).await;
    let _ = stream.write_all(&http("200 OK", "", STATUS)).await;
    let _ = stream.shutdown().await;
}

/// What the preflight says of the way.
async fn trust(client: &Client) -> (CheckOutcome, String) {
    let wanted = Wanted {
        types: &[],
        spaces: &[],
        privileges: false,
        now: Timestamp::now(),
    };
    let found = preflight(client, &wanted).await;
    let mut checks = found.checks.into_iter();
    let check = checks.find(|check| check.name == CheckName::Tls).unwrap();
    (check.outcome, check.sentence)
}

#[tokio::test]
async fn the_given_ca_is_trusted_and_no_other() {
    let (acceptor, ca) = certificate("127.0.0.1");
    let (_, other) = certificate("127.0.0.1");
    let (wrong_name, wrong_name_ca) = certificate("kibana.example.com");
    assert_eq!(ask(&acceptor, Some(ca)).await.unwrap().uuid, "u");
    for (acceptor, ca) in [
        (&acceptor, Some(other)),
        (&acceptor, None),
        (&wrong_name, Some(wrong_name_ca)),
    ] {
        let error = ask(acceptor, ca).await.unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{error}");
        assert_eq!(error.class(), FailureClass::KibanaDown);
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn https_to_a_plain_port_says_so() {
    install_tls();
    let raw = Raw::listen().await;
    let client = Client::new(settings(&format!("https://{}", raw.address()))).unwrap();
    let serve = async {
        let mut stream = raw.accept().await;
        let _ = stream.write_all(&http("400 Bad Request", "", "")).await;
        let _ = stream.shutdown().await;
    };
    let (_, outcome) = tokio::join!(serve, client.status());
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error}");
}

#[tokio::test]
async fn the_preflight_says_how_the_way_is_protected() {
    let (acceptor, ca) = certificate("127.0.0.1");
    let raw = Raw::listen().await;
    let client = trusting(&raw, Some(ca));
    let (outcome, sentence) = tokio::select! {
        found = trust(&client) => found,
        // Every call but the first finds a closed connection.
        () = async { loop { serve(&raw, &acceptor).await } } => unreachable!(),
    };
    assert_eq!(outcome, CheckOutcome::Ok, "{sentence}");
    assert!(sentence.contains("CA file"), "{sentence}");

    let client = trusting(&raw, None);
    let ((), (outcome, sentence)) = tokio::join!(serve(&raw, &acceptor), trust(&client));
    assert_eq!(outcome, CheckOutcome::Failed, "{sentence}");
    assert!(sentence.contains("certificate"), "{sentence}");

    // The proxy answers for a Kibana elsewhere.
    let client = Client::new(Settings {
        proxy: Some(raw.url().parse().unwrap()),
        ..settings("http://kibana.invalid:5601")
    })
    .unwrap();
    let serve = async {
        loop {
            raw.answer(http("200 OK", "", STATUS)).await;
        }
    };
    let (outcome, sentence) = tokio::select! {
        found = trust(&client) => found,
        () = serve => unreachable!(),
    };
    assert_eq!(outcome, CheckOutcome::Warning, "{sentence}");
    assert!(sentence.contains("https://"), "{sentence}");
}
