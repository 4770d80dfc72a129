//! TLS to control: pinned by the join token while enrolling, mutual afterwards.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service;

use crate::config::Control;
use crate::identity::Identity;
use crate::proxy::{self, Proxy, authority};

/// TCP and TLS together; longer only where control is unreachable or overloaded, and then the next try is better.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent connection is found dead after both together.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Alerts about a client's certificate, as rustls prints them.
const REFUSING_ALERTS: [&str; 7] = [
    "UnknownCA",
    // What it says where another CA of the same name took the place of the one that signed.
    "DecryptError",
    "BadCertificate",
    "CertificateUnknown",
    "CertificateRevoked",
    "CertificateExpired",
    "AccessDenied",
];

/// The SHA-256 of the public key (SubjectPublicKeyInfo, DER) of control's CA, as a join token carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CaPin(pub(crate) [u8; 32]);

impl CaPin {
    /// True where it is the pin of this CA.
    pub(crate) fn is_of(self, ca: &CertificateDer<'_>) -> bool {
        spki_sha256(ca) == Some(self.0)
    }
}

/// Why TLS cannot be set up or control cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The parts of the identity do not fit together.
    #[error("the agent's certificate, key or CA cannot be used: enrol the agent again")]
    Identity(#[source] rustls::Error),
    /// The host of `control.address` is no name and no address.
    #[error("`control.address` names no usable host")]
    Host,
    /// The proxy on the way gives none.
    #[error(transparent)]
    Proxy(proxy::Error),
    /// Control's certificate has ended or does not hold yet, by this host's clock.
    #[error(
        "the certificate of the control service at {host}:{port} does not hold at this host's time, {now}: set the clock of this host right; if it is right, look at the clock and the certificate of the control service"
    )]
    Clock {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// This host's time.
        now: jiff::Timestamp,
    },
    /// Somebody answers, and is not our control service or does not take us for its agent.
    #[error("no trusted connection to the control service at {host}:{port}")]
    Untrusted {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// What went wrong below.
        #[source]
        source: tonic::transport::Error,
    },
    /// No connection.
    #[error("cannot connect to the control service at {host}:{port}")]
    Connect {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// What went wrong below.
        #[source]
        source: tonic::transport::Error,
    },
}

/// TLS that accepts exactly the control service whose CA has this public key. The client stays anonymous.
pub(crate) fn pinned(pin: CaPin) -> Arc<ClientConfig> {
    let verifier = PinnedVerifier {
        pin,
        provider: provider(),
    };
    let config = builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    with_http2(config)
}

/// Mutual TLS as this agent; control must come from a CA of this identity, or from one of `also`.
///
/// # Errors
/// [`Error::Identity`].
pub(crate) fn mutual(
    identity: &Identity,
    also: &[CertificateDer<'static>],
) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    for ca in identity.cas.iter().chain(also) {
        roots.add(ca.clone()).map_err(Error::Identity)?;
    }
    let key = PrivateKeyDer::Pkcs8(identity.keys.private_key());
    let config = builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![identity.certificate.clone()], key)
        .map_err(Error::Identity)?;
    Ok(with_http2(config))
}

/// Connects to control.
///
/// # Errors
/// [`Error::Host`] and [`Error::Connect`].
pub(crate) async fn connect(control: &Control, tls: Arc<ClientConfig>) -> Result<Channel, Error> {
    let Control { host, port, .. } = control;
    let name = ServerName::try_from(host.clone()).map_err(|_| Error::Host)?;
    let connector = Connector {
        host: host.clone(),
        port: *port,
        proxy: control.proxy.clone(),
        name,
        tls: TlsConnector::from(tls),
    };
    let authority = authority(host, *port);
    // TLS is the connector's business; tonic would add its own for an `https` endpoint.
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|_| Error::Host)?;
    let origin: Uri = format!("https://{authority}")
        .parse()
        .map_err(|_| Error::Host)?;
    endpoint
        .origin(origin)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|source| failed(control, source))
}

/// Says who is to blame: the proxy, the clock, the certificate, or the network, which may come back by itself.
fn failed(control: &Control, source: tonic::transport::Error) -> Error {
    let Control { host, port, .. } = control.clone();
    if let Some(problem) = find::<proxy::Error>(&source) {
        return Error::Proxy(problem.clone());
    }
    match find::<rustls::Error>(&source) {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )) => Error::Clock {
            host,
            port,
            now: jiff::Timestamp::now(),
        },
        Some(_) => Error::Untrusted { host, port, source },
        None => Error::Connect { host, port, source },
    }
}

/// The words with which control's TLS turned down this agent's certificate; `None` where it did not. TLS 1.3 tells a
/// client only when it reads, so this is found in what comes after the connection. By then the HTTP/2 library has made
/// a text of the alert.
pub(crate) fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        let alert = text.strip_prefix("received fatal alert: ");
        if let Some(alert) = alert.filter(|alert| REFUSING_ALERTS.contains(alert)) {
            return Some(format!(
                "its TLS does not take this agent's certificate ({alert})"
            ));
        }
        cause = error.source();
    }
    None
}

/// The first error of this type in a chain, also inside of the system's errors, which hide what they wrap.
fn find<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(|error| error.get_ref())
            .and_then(|error| error.downcast_ref());
        if let Some(found) = error.downcast_ref().or(inner) {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring supports TLS 1.3")
}

fn with_http2(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Opens TCP, then TLS, to the one control service.
#[derive(Clone)]
struct Connector {
    host: String,
    port: u16,
    proxy: Option<Proxy>,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self {
            host,
            port,
            proxy,
            name,
            tls,
        } = self.clone();
        Box::pin(async move {
            // Names are resolved anew each time: the host behind one may have changed.
            let tcp = match proxy {
                Some(proxy) => proxy.connect(&host, port).await.map_err(io::Error::other)?,
                None => TcpStream::connect((host.as_str(), port)).await?,
            };
            tcp.set_nodelay(true)?;
            Ok(TokioIo::new(tls.connect(name, tcp).await?))
        })
    }
}

/// Accepts a server whose chain holds a CA certificate with the pinned key that signed the server's own, if the
/// server's name fits too.
struct PinnedVerifier {
    pin: CaPin,
    provider: Arc<CryptoProvider>,
}

impl PinnedVerifier {
    fn verifier(
        &self,
        chain: &[CertificateDer<'_>],
    ) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
        let general = |text: &str| rustls::Error::General(text.to_owned());
        let ca = chain.iter().find(|certificate| self.pin.is_of(certificate)).ok_or_else(|| {
            general("the server does not show the CA that the join token names: wrong address, or not our control service")
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|_| {
                general("the CA that the join token names cannot be used to check the server")
            })
    }
}

/// The SHA-256 of a certificate's SubjectPublicKeyInfo; `None` for what is no certificate.
fn spki_sha256(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let anchor = webpki::anchor_from_trusted_cert(certificate).ok()?;
    Some(Sha256::digest(webpki::spki_for_anchor(&anchor)).into())
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier(intermediates)?.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl fmt::Debug for PinnedVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedVerifier")
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData,
    };

    fn ca() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn only_a_server_of_the_pinned_ca_is_accepted() {
        let (ours, other) = (ca(), ca());
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["control.test".to_owned()])
            .unwrap()
            .signed_by(&leaf_key, &ours)
            .unwrap();
        let pin = CaPin(Sha256::digest(ours.key().subject_public_key_info()).into());
        let verifier = PinnedVerifier {
            pin,
            provider: provider(),
        };
        let check = |chain: &[&CertifiedIssuer<'static, KeyPair>], name: &str| {
            let chain: Vec<_> = chain.iter().map(|issuer| issuer.der().clone()).collect();
            let name = ServerName::try_from(name.to_owned()).unwrap();
            verifier
                .verify_server_cert(leaf.der(), &chain, &name, &[], UnixTime::now())
                .is_ok()
        };
        assert!(check(&[&ours], "control.test"));
        assert!(!check(&[&ours], "elsewhere.test"), "another name");
        assert!(!check(&[], "control.test"), "no CA shown");
        assert!(!check(&[&other], "control.test"), "another CA");
        let forged = CertificateParams::new(vec!["control.test".to_owned()])
            .unwrap()
            .signed_by(&leaf_key, &other)
            .unwrap();
        let name = ServerName::try_from("control.test").unwrap();
        let chain = [ours.der().clone()];
        assert!(
            verifier
                .verify_server_cert(forged.der(), &chain, &name, &[], UnixTime::now())
                .is_err(),
            "our CA is shown, and another one signed"
        );
    }

    /// What connecting to a server with a certificate of this span says.
    async fn connect_to(years: (i32, i32)) -> Error {
        let ours = ca();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let leaf = params.signed_by(&key, &ours).unwrap();
        let chain = vec![leaf.der().clone(), ours.der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let control = Control {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            join_token_file: None,
            proxy: None,
            timeout: CONNECT_TIMEOUT,
        };
        let pin = CaPin(Sha256::digest(ours.key().subject_public_key_info()).into());
        let serve = async {
            let (tcp, _) = listener.accept().await.unwrap();
            let _ = acceptor.accept(tcp).await;
        };
        tokio::join!(serve, connect(&control, pinned(pin)))
            .1
            .unwrap_err()
    }

    #[tokio::test]
    async fn a_clock_that_is_wrong_is_named_and_no_stranger_suspected() {
        for years in [(2001, 2002), (2200, 2201)] {
            let error = connect_to(years).await;
            assert!(matches!(error, Error::Clock { .. }), "{error:?}");
            assert!(error.to_string().contains("set the clock"), "{error}");
        }
    }
}
