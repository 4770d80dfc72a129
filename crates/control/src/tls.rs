//! TLS of the operators' port, which speaks HTTP/1.1 beside HTTP/2: probes and scrapers often know nothing else.
//!
//! tonic's own TLS offers HTTP/2 only, and a client that offers HTTP/1.1 only is turned away in the handshake.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::TcpListenerStream;

/// The protocols offered, the better one first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Handshakes under way at once; more wait in the listener's backlog.
const HANDSHAKES_MAX: usize = 256;

/// Settings for a chain and key in PEM.
///
/// # Errors
/// Where they do not fit together.
pub(crate) fn settings(chain: &str, key: &str) -> Result<Arc<ServerConfig>, rustls::Error> {
    let unreadable = |_| rustls::Error::General("no certificate or key in PEM".to_owned());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(unreadable)?;
    let mut settings = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    settings.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(settings))
}

/// The connections whose handshake succeeded within the deadline. One that hangs holds nobody else up.
pub(crate) fn incoming(
    listener: TcpListener,
    settings: Arc<ServerConfig>,
    deadline: Duration,
) -> impl Stream<Item = Result<TlsStream<TcpStream>, Infallible>> {
    let acceptor = TlsAcceptor::from(settings);
    TcpListenerStream::new(listener)
        .map(move |accepted| handshake(accepted, acceptor.clone(), deadline))
        .buffer_unordered(HANDSHAKES_MAX)
        .filter_map(|accepted| std::future::ready(accepted.map(Ok)))
}

async fn handshake(
    accepted: std::io::Result<TcpStream>,
    acceptor: TlsAcceptor,
    deadline: Duration,
) -> Option<TlsStream<TcpStream>> {
    let accepted = acceptor.accept(accepted.ok()?);
    match tokio::time::timeout(deadline, accepted).await.ok()? {
        Ok(stream) => Some(stream),
        Err(err) => {
            tracing::debug!(error = %err, "a TLS handshake on the operators' port failed");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{self, Authority};
    use crate::clock;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio_rustls::TlsConnector;

    /// Dials with these protocols; says which one was chosen.
    async fn dial(
        address: std::net::SocketAddr,
        authority: &Authority,
        offered: &[&[u8]],
    ) -> Option<Vec<u8>> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone()).unwrap();
        let mut client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = TlsConnector::from(Arc::new(client))
            .connect(name, tcp)
            .await
            .unwrap();
        tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
    }

    #[tokio::test]
    async fn each_client_gets_its_protocol_and_a_silent_one_holds_nobody_up() {
        // A second installation is refused and changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        ca::create(dir.path(), clock::now()).unwrap();
        let authority = Authority::load(dir.path()).unwrap();
        let names = ["localhost".to_owned()];
        let (chain, key) = authority.server(&names, clock::now()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let settings = settings(&chain, &key).unwrap();
        let accepted = incoming(listener, settings, Duration::from_secs(60));
        let mut accepted = std::pin::pin!(accepted);
        let _silent = TcpStream::connect(address).await.unwrap();
        for offered in [&["http/1.1"][..], &["http/1.1", "h2"], &[]] {
            let protocols: Vec<&[u8]> = offered.iter().map(|name| name.as_bytes()).collect();
            let (chosen, stream) =
                tokio::join!(dial(address, &authority, &protocols), accepted.next());
            // The better protocol is offered last here, and none means HTTP/1.1 too.
            let expected = offered.last().map(|name| name.as_bytes().to_vec());
            assert_eq!(chosen, expected, "{offered:?}");
            assert!(stream.is_some());
        }
    }
}
