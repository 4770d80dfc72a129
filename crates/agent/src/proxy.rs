//! The way out of a closed network: straight, or through an HTTP proxy that an operator named for it.
//!
//! Nothing is taken from the environment. Credentials in a proxy's URL are shown nowhere.

use std::fmt;
use std::io;
use std::time::Duration;

use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::Uri;
use url::Url;

/// A proxy answers as soon as it has its own connection; less than a whole connection to control may take, so that
/// the error says who was silent.
const DEADLINE: Duration = Duration::from_secs(8);

/// The longest head of an answer that is read.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The proxy on the way to one destination.
#[derive(Clone)]
pub struct Proxy {
    url: Url,
    intercept: Intercept,
}

/// Why the proxy gives no way.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Nobody listens, or its name does not resolve.
    #[error(
        "the proxy {proxy} cannot be reached ({reason}): check the proxy in the agent's settings"
    )]
    Unreachable {
        /// Its address.
        proxy: String,
        /// What the system said.
        reason: String,
    },
    /// It wants to know who asks.
    #[error(
        "the proxy {proxy} does not accept the agent's user and password (407): write the right ones into the proxy's URL, as http://user:password@host:port"
    )]
    Credentials {
        /// Its address.
        proxy: String,
    },
    /// It says no, or cannot get there itself.
    #[error(
        "the proxy {proxy} opens no way to {destination} ({status}): ask whoever runs it to allow and repair the way"
    )]
    Refused {
        /// Its address.
        proxy: String,
        /// Where to.
        destination: String,
        /// Its HTTP status.
        status: u16,
    },
    /// It answers with something else than HTTP, with too much of it, or not at all.
    #[error(
        "{proxy} does not answer as an HTTP proxy does: check the proxy in the agent's settings"
    )]
    NotAProxy {
        /// Its address.
        proxy: String,
    },
    /// It took the connection and says nothing.
    #[error("the proxy {proxy} did not answer within {} seconds", DEADLINE.as_secs())]
    Silent {
        /// Its address.
        proxy: String,
    },
}

impl Proxy {
    /// The proxy for a destination; `None` where none is named, or `no_proxy` lists the destination: by host, by domain
    /// with all below it, by address, by network (`10.0.0.0/8`), or `*`.
    ///
    /// # Errors
    /// What is wrong with the URL, in words that do not repeat it.
    pub fn choose(
        url: Option<&str>,
        no_proxy: &[String],
        destination: &Url,
    ) -> Result<Option<Self>, &'static str> {
        const FORM: &str = "write it as `http://host:port` or `http://user:password@host:port`, special characters as %XX";
        let Some(url) = url else { return Ok(None) };
        let parsed = Url::parse(url).map_err(|_| FORM)?;
        let plain = matches!(parsed.path(), "" | "/")
            && parsed.query().is_none()
            && parsed.fragment().is_none();
        if parsed.scheme() != "http" || !plain || !parsed.has_host() {
            return Err(FORM);
        }
        let matcher = |no: &str| Matcher::builder().all(parsed.as_str()).no(no).build();
        let destination: Uri = destination.as_str().parse().map_err(|_| FORM)?;
        // Without exceptions every destination is intercepted, unless the URL cannot be used.
        matcher("").intercept(&destination).ok_or(FORM)?;
        // The library's `*` is for names alone.
        let nowhere = no_proxy.iter().any(|entry| entry.trim() == "*");
        let intercept = matcher(&no_proxy.join(","))
            .intercept(&destination)
            .filter(|_| !nowhere);
        Ok(intercept.map(|intercept| Self {
            url: parsed,
            intercept,
        }))
    }

    /// Its URL, with credentials if it has them: for the HTTP client and nobody else.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// A connection to this host and port through the proxy (RFC 9110, section 9.3.6).
    ///
    /// # Errors
    /// Each names the proxy.
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Error> {
        let proxy = self.to_string();
        match timeout(DEADLINE, self.tunnel(&authority(host, port))).await {
            Ok(connected) => connected,
            Err(_) => Err(Error::Silent { proxy }),
        }
    }

    async fn tunnel(&self, destination: &str) -> Result<TcpStream, Error> {
        let proxy = || self.to_string();
        let unreachable = |error: io::Error| Error::Unreachable {
            proxy: self.to_string(),
            reason: error.to_string(),
        };
        let host = self
            .url
            .host_str()
            .unwrap_or_default()
            .trim_matches(['[', ']']);
        let port = self.url.port_or_known_default().unwrap_or(80);
        let mut tcp = TcpStream::connect((host, port))
            .await
            .map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        let broken = |_: io::Error| Error::NotAProxy { proxy: proxy() };
        tcp.write_all(&self.request(destination))
            .await
            .map_err(broken)?;
        let mut head = Vec::with_capacity(256);
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let n_read = (&mut tcp)
                .take((HEAD_BYTES_MAX - head.len()) as u64)
                .read_buf(&mut head)
                .await
                .map_err(broken)?;
            if n_read == 0 {
                return Err(Error::NotAProxy { proxy: proxy() });
            }
        }
        match status(&head) {
            Some(200..300) => Ok(tcp),
            Some(407) => Err(Error::Credentials { proxy: proxy() }),
            Some(status) => Err(Error::Refused {
                proxy: proxy(),
                destination: destination.to_owned(),
                status,
            }),
            None => Err(Error::NotAProxy { proxy: proxy() }),
        }
    }

    fn request(&self, destination: &str) -> Vec<u8> {
        let mut request =
            format!("CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n").into_bytes();
        if let Some(credentials) = self.intercept.basic_auth() {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(credentials.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        request
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The status of an HTTP/1 answer.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let (version, rest) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let code = rest.split(' ').next()?;
    let known = matches!(version, "HTTP/1.1" | "HTTP/1.0") && code.len() == 3;
    code.parse().ok().filter(|_| known)
}

/// Host and port alone.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        write!(
            f,
            "{host}:{}",
            self.url.port_or_known_default().unwrap_or(80)
        )
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(
        url: &str,
        no_proxy: &[&str],
        destination: &str,
    ) -> Result<Option<Proxy>, &'static str> {
        let no_proxy: Vec<String> = no_proxy.iter().map(|&entry| entry.to_owned()).collect();
        Proxy::choose(Some(url), &no_proxy, &destination.parse().unwrap())
    }

    #[test]
    fn exceptions_are_as_people_know_them() {
        let check = |no_proxy: &[&str], destination: &str, proxied: bool| {
            let chosen = choose("http://proxy.example:3128", no_proxy, destination).unwrap();
            assert_eq!(chosen.is_some(), proxied, "{no_proxy:?} {destination}");
        };
        check(&[], "https://control.example.com:9443", true);
        check(&["example.com"], "https://control.example.com:9443", false);
        check(&[".example.com"], "https://control.example.com", false);
        check(
            &["CONTROL.example.com"],
            "https://control.example.com",
            false,
        );
        check(&["ample.com"], "https://control.example.com", true);
        check(&["10.0.0.0/8", "::1"], "https://10.1.2.3:9443", false);
        check(&["10.0.0.0/8", "::1"], "https://11.1.2.3:9443", true);
        check(&["10.0.0.0/8", "::1"], "https://[::1]:9443", false);
        check(&["*"], "http://127.0.0.1:5601", false);
        assert!(
            Proxy::choose(None, &[], &"http://a".parse().unwrap())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn credentials_are_sent_and_never_shown() {
        let proxy = choose("http://me:p%40ss@proxy.example", &[], "https://a:1")
            .unwrap()
            .unwrap();
        assert_eq!(proxy.to_string(), "proxy.example:80");
        let shown = format!("{proxy:?} {proxy}");
        assert!(
            !shown.contains("me") && !shown.contains("p%40ss"),
            "{shown}"
        );
        let request = String::from_utf8(proxy.request("a:1")).unwrap();
        // `me:p@ss` in base64.
        assert!(
            request.contains("Proxy-Authorization: Basic bWU6cEBzcw==\r\n"),
            "{request}"
        );
        assert!(
            request.starts_with("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n")
                && request.ends_with("\r\n\r\n")
        );
    }

    #[test]
    fn a_url_that_is_no_proxy_is_refused_without_repeating_it() {
        for bad in [
            "",
            "proxy",
            "proxy:3128",
            "socks5://me:canary@proxy:1",
            "https://me:canary@proxy",
            "http://me:canary@proxy/path",
            "http://me:canary@proxy?x",
            "http://me:canary@",
            "http://me:canary@a b",
        ] {
            let problem = choose(bad, &[], "https://a:1").map(|_| ()).unwrap_err();
            assert!(
                problem.contains("http://host:port") && !problem.contains("canary"),
                "{bad}"
            );
        }
    }

    #[test]
    fn only_a_status_line_of_http_has_a_status() {
        for (head, expected) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Some(200)),
            ("HTTP/1.0 407\r\n\r\n", Some(407)),
            ("HTTP/2 200\r\n\r\n", None),
            ("HTTP/1.1 20\r\n\r\n", None),
            ("HTTP/1.1\r\n\r\n", None),
            ("SSH-2.0-OpenSSH\r\n\r\n", None),
            ("\u{16}\u{3}\r\n\r\n", None),
            ("", None),
        ] {
            assert_eq!(status(head.as_bytes()), expected, "{head:?}");
        }
    }
}
