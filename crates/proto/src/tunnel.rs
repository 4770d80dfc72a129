//! The way to control through an HTTP proxy: `CONNECT` (RFC 9110, section 9.3.6), for agents and operators alike.
//!
//! The proxy sees the name and the port of control and nothing else: TLS goes through it, end to end.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::Uri;
use percent_encoding::percent_decode_str;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Most bytes of a proxy's answer: its headers are a few hundred.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Port of a proxy that names none, as for any `http` address.
const DEFAULT_PORT: u16 = 80;

/// The end of the headers.
const HEADERS_END: &[u8] = b"\r\n\r\n";

/// The status of a proxy that wants to know who asks.
const CREDENTIALS_WANTED: u16 = 407;

/// Why there is no way through the proxy. No text holds the password, nor anything that the proxy said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers at the proxy's address.
    #[error("cannot reach the proxy at {proxy}")]
    Unreachable {
        /// Its address, without credentials.
        proxy: String,
        /// What the system says.
        source: io::Error,
    },
    /// It took too long, connection and answer together.
    #[error("the proxy at {proxy} did not open a way to {target} within {} s", deadline.as_secs())]
    TimedOut {
        /// Its address, without credentials.
        proxy: String,
        /// Host and port that were asked for.
        target: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// The proxy wants a user and a password (407).
    #[error("the proxy at {proxy} wants a user and a password (407)")]
    NeedsCredentials {
        /// Its address, without credentials.
        proxy: String,
    },
    /// The proxy does not accept the user and the password (407).
    #[error("the proxy at {proxy} does not accept the user and the password (407)")]
    WrongCredentials {
        /// Its address, without credentials.
        proxy: String,
    },
    /// The proxy does not open the way: its rules forbid it (403), or it cannot reach the target itself (502, 503, 504).
    #[error("the proxy at {proxy} does not open a way to {target} (status {status})")]
    Refused {
        /// Its address, without credentials.
        proxy: String,
        /// Host and port that were asked for.
        target: String,
        /// The HTTP status.
        status: u16,
    },
    /// What answers is no HTTP proxy, or a broken one.
    #[error("what answers at {proxy} is no HTTP proxy: {problem}")]
    NoProxy {
        /// Its address, without credentials.
        proxy: String,
        /// What is wrong with its answer.
        problem: &'static str,
    },
    /// The target's name cannot be asked for.
    #[error("no proxy can be asked for a host whose name has spaces or control characters")]
    Target,
}

/// An address that is no proxy. The text leaves the address out: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not an address at all.
    #[error("is not an address: write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")]
    Address,
    /// A proxy that is spoken to in another way.
    #[error("must begin with http://: what goes through it is encrypted all the same")]
    Scheme,
    /// More than host and port.
    #[error("must end after the port")]
    Path,
    /// The user and the password are not text, or the user has a colon.
    #[error("has a user or a password that cannot be sent: write special characters as %XX")]
    Credentials,
}

/// An HTTP proxy. Neither `Debug` nor `Display` shows the password.
#[derive(Clone)]
pub struct Proxy {
    host: String,
    port: u16,
    /// The value of `Proxy-Authorization` (RFC 7617).
    authorization: Option<SecretString>,
}

impl Proxy {
    /// Reads `http://HOST:PORT`, with `USER:PASSWORD@` before the host for a proxy that wants to know (special
    /// characters as `%XX`). `http://` may be left out; the port is 80 where it is.
    ///
    /// # Errors
    /// [`ParseError`], to be read after the name of the setting.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let uri: Uri = text.trim().parse().map_err(|_| ParseError::Address)?;
        if !matches!(uri.scheme_str(), None | Some("http")) {
            return Err(ParseError::Scheme);
        }
        let authority = uri.authority().ok_or(ParseError::Address)?;
        if uri
            .path_and_query()
            .is_some_and(|path| path.as_str() != "/")
        {
            return Err(ParseError::Path);
        }
        let host = bare(authority.host());
        let says_port =
            authority.as_str().len() > credentials_end(authority.as_str()) + authority.host().len();
        let port = authority.port_u16();
        if host.is_empty() || (says_port && port.is_none()) {
            return Err(ParseError::Address);
        }
        let credentials = authority.as_str().rsplit_once('@');
        Ok(Self {
            host: host.to_owned(),
            port: port.unwrap_or(DEFAULT_PORT),
            authorization: credentials.map(|(text, _)| basic(text)).transpose()?,
        })
    }
}

impl Proxy {
    /// True where a user and a password are sent.
    pub fn has_credentials(&self) -> bool {
        self.authorization.is_some()
    }
}

/// Where the host begins.
fn credentials_end(authority: &str) -> usize {
    authority.rfind('@').map_or(0, |at| at + 1)
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", authority(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// The hosts that are reached without the proxy, as `NO_PROXY` lists them: names (with everything below them), addresses,
/// networks such as `10.0.0.0/8`, or `*` for all; with commas between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Direct(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Everything,
    /// A name in lower case, without a dot before it.
    Name(String),
    /// A network: its address as a number, and how many of its leading bits count.
    Network(IpAddr, u8),
}

impl Direct {
    /// Reads a list. What cannot be a network is taken as a name, as other programs do.
    pub fn parse(text: &str) -> Self {
        let words = text.split(',').map(str::trim);
        Self(words.filter(|word| !word.is_empty()).map(rule).collect())
    }

    /// True where this host (a name or an address) is reached without a proxy.
    pub fn includes(&self, host: &str) -> bool {
        let host = bare(host).trim_end_matches('.').to_ascii_lowercase();
        let address = host
            .parse::<IpAddr>()
            .ok()
            .map(|address| address.to_canonical());
        self.0.iter().any(|rule| match rule {
            Rule::Everything => true,
            Rule::Name(name) => host
                .strip_suffix(name.as_str())
                .is_some_and(|before| before.is_empty() || before.ends_with('.')),
            Rule::Network(network, bits) => {
                address.is_some_and(|address| same_network(address, *network, *bits))
            }
        })
    }
}

fn rule(word: &str) -> Rule {
    if word == "*" {
        return Rule::Everything;
    }
    let (address, bits) = match word.split_once('/') {
        Some((address, bits)) => (address, bits.parse::<u8>().ok()),
        None => (word, Some(u8::MAX)),
    };
    match (bare(address).parse::<IpAddr>(), bits) {
        (Ok(address), Some(bits)) => Rule::Network(address.to_canonical(), bits),
        _ => {
            let name = word.trim_start_matches("*.").trim_matches('.');
            Rule::Name(name.to_ascii_lowercase())
        }
    }
}

/// True where both addresses are of one family and agree in the leading bits.
fn same_network(a: IpAddr, b: IpAddr, bits: u8) -> bool {
    let (difference, width) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits() ^ b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    let bits = u32::from(bits).min(width);
    bits == 0 || difference >> (width - bits) == 0
}

/// Opens a connection to `host` (a name, which the proxy looks up, or an address) and `port` through the proxy.
/// What comes next on the stream is between this side and the target.
///
/// # Errors
/// [`Error`]; after `deadline` for connection and answer together, [`Error::TimedOut`].
pub async fn open(
    proxy: &Proxy,
    host: &str,
    port: u16,
    deadline: Duration,
) -> Result<TcpStream, Error> {
    if host.is_empty() || !host.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Error::Target);
    }
    let target = authority(bare(host), port);
    match tokio::time::timeout(deadline, connect(proxy, &target)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::TimedOut {
            proxy: proxy.to_string(),
            target,
            deadline,
        }),
    }
}

async fn connect(proxy: &Proxy, target: &str) -> Result<TcpStream, Error> {
    let unreachable = |source| Error::Unreachable {
        proxy: proxy.to_string(),
        source,
    };
    let mut stream = TcpStream::connect((proxy.host.as_str(), proxy.port))
        .await
        .map_err(unreachable)?;
    // What follows are small messages of HTTP/2, which must not wait for one another.
    stream.set_nodelay(true).map_err(unreachable)?;
    let question = question(proxy, target);
    stream
        .write_all(question.as_bytes())
        .await
        .map_err(unreachable)?;
    let answer = answer(proxy, &mut stream).await?;
    let status = status(&answer).ok_or_else(|| no_proxy(proxy, "it does not speak HTTP/1"))?;
    match status {
        200..=299 if answer.ends_with(HEADERS_END) => Ok(stream),
        // A TLS server waits for the client's first word; what came too early is not from the target.
        200..=299 => Err(no_proxy(proxy, "it says more than its answer")),
        CREDENTIALS_WANTED if proxy.authorization.is_some() => Err(Error::WrongCredentials {
            proxy: proxy.to_string(),
        }),
        CREDENTIALS_WANTED => Err(Error::NeedsCredentials {
            proxy: proxy.to_string(),
        }),
        status => Err(Error::Refused {
            proxy: proxy.to_string(),
            target: target.to_owned(),
            status,
        }),
    }
}

fn question(proxy: &Proxy, target: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: keyfleet\r\n"
    ));
    if let Some(authorization) = &proxy.authorization {
        text.push_str("Proxy-Authorization: ");
        text.push_str(authorization.expose_secret());
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text
}

/// The answer up to the end of its headers, and what came with them.
async fn answer(proxy: &Proxy, stream: &mut TcpStream) -> Result<Vec<u8>, Error> {
    let mut answer = Vec::new();
    loop {
        if answer
            .windows(HEADERS_END.len())
            .any(|end| end == HEADERS_END)
        {
            return Ok(answer);
        }
        if answer.len() >= ANSWER_BYTES_MAX {
            return Err(no_proxy(proxy, "its answer has no end"));
        }
        let mut rest = (&mut *stream).take((ANSWER_BYTES_MAX - answer.len()) as u64);
        match rest.read_buf(&mut answer).await {
            Ok(0) => return Err(no_proxy(proxy, "it hung up instead of answering")),
            Ok(_) => {}
            Err(source) => {
                return Err(Error::Unreachable {
                    proxy: proxy.to_string(),
                    source,
                });
            }
        }
    }
}

/// The status of an answer that begins `HTTP/1.x NNN`.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let digits = rest.split(' ').next()?;
    let plain = version.starts_with("HTTP/1.") && digits.len() == 3;
    digits.parse().ok().filter(|_| plain)
}

fn no_proxy(proxy: &Proxy, problem: &'static str) -> Error {
    Error::NoProxy {
        proxy: proxy.to_string(),
        problem,
    }
}

/// The value of the header for `USER:PASSWORD`, each with `%XX`.
fn basic(credentials: &str) -> Result<SecretString, ParseError> {
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(|text| Zeroizing::new(text.into_owned()))
            .map_err(|_| ParseError::Credentials)
    };
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let (user, password) = (decoded(user)?, decoded(password)?);
    if user.contains(':') {
        return Err(ParseError::Credentials);
    }
    let pair = Zeroizing::new(format!("{}:{}", user.as_str(), password.as_str()));
    let value = format!("Basic {}", BASE64.encode(pair.as_bytes()));
    Ok(SecretString::from(value))
}

/// A host without the brackets that addresses of IPv6 wear in URLs.
fn bare(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// Host and port as one, with brackets where the host has colons.
fn authority(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const DEADLINE: Duration = Duration::from_secs(5);

    #[test]
    fn addresses_of_proxies_are_read_and_passwords_hidden() {
        let check = |text: &str, expect: Result<(&str, Option<&str>), ParseError>| {
            let parsed = Proxy::parse(text);
            let shown = parsed.as_ref().map(|proxy| {
                let authorization = proxy.authorization.as_ref();
                (
                    proxy.to_string(),
                    authorization.map(|a| a.expose_secret().to_owned()),
                )
            });
            let expect = expect.map(|(address, authorization)| {
                (address.to_owned(), authorization.map(str::to_owned))
            });
            assert_eq!(shown.map_err(|err| *err), expect, "{text}");
            assert!(!format!("{parsed:?}").contains("geheim"), "{parsed:?}");
        };
        check(
            "http://proxy.corp:3128",
            Ok(("http://proxy.corp:3128", None)),
        );
        check("proxy.corp:3128", Ok(("http://proxy.corp:3128", None)));
        check("http://proxy.corp/", Ok(("http://proxy.corp:80", None)));
        check("http://[::1]:3128", Ok(("http://[::1]:3128", None)));
        check(
            "http://ada:geheim%40home@proxy.corp:3128",
            Ok(("http://proxy.corp:3128", Some("Basic YWRhOmdlaGVpbUBob21l"))),
        );
        check("https://proxy.corp:3128", Err(ParseError::Scheme));
        check("socks5://proxy.corp:3128", Err(ParseError::Scheme));
        check("http://proxy.corp:3128/geheim", Err(ParseError::Path));
        check(
            "http://a%3Ab:geheim@proxy.corp",
            Err(ParseError::Credentials),
        );
        check(
            "http://a:%ffgeheim@proxy.corp",
            Err(ParseError::Credentials),
        );
        for bad in [
            "",
            "http://",
            "/geheim",
            "http://geheim:99999",
            "http://geheim:",
            "two words",
        ] {
            check(bad, Err(ParseError::Address));
        }
    }

    #[test]
    fn hosts_without_a_proxy_are_known() {
        let check = |list: &str, host: &str, expect: bool| {
            assert_eq!(
                Direct::parse(list).includes(host),
                expect,
                "{list:?} {host:?}"
            );
        };
        check("", "control.corp", false);
        check("*", "control.corp", true);
        check("corp", "control.corp", true);
        check(".corp", "Control.CORP.", true);
        check("*.corp", "control.corp", true);
        check("rp", "control.corp", false);
        check("localhost, 10.0.0.0/8", "10.1.2.3", true);
        check("10.0.0.0/8", "11.1.2.3", false);
        check("10.0.0.0/33", "10.0.0.0", true);
        check("0.0.0.0/0", "192.0.2.1", true);
        check("0.0.0.0/0", "::1", false);
        check("192.0.2.1", "192.0.2.1", true);
        check("192.0.2.1", "192.0.2.2", false);
        check("192.0.2.1", "::ffff:192.0.2.1", true);
        check("2001:db8::/32", "[2001:db8::7]", true);
        check("2001:db8::/32", "2001:db9::7", false);
        check("10.0.0.0/8", "control.corp", false);
    }

    /// A proxy that says `answer` and hangs up; gives what it was asked.
    async fn ask(user: &str, host: &str, answer: &[u8]) -> (Result<TcpStream, Error>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Proxy::parse(&format!("http://{user}{address}")).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = Vec::new();
            while !question.ends_with(HEADERS_END) {
                stream.read_buf(&mut question).await.unwrap();
            }
            // A client that has heard enough hangs up before the end.
            let _ = stream.write_all(answer).await;
            String::from_utf8(question).unwrap()
        };
        tokio::join!(open(&proxy, host, 8443, DEADLINE), serve)
    }

    #[tokio::test]
    async fn the_way_is_asked_for_with_credentials() {
        let (opened, question) = ask(
            "ada:geheim@",
            "control.corp",
            b"HTTP/1.1 200 Connection established\r\nVia: a\r\n\r\n",
        )
        .await;
        assert!(opened.is_ok(), "{opened:?}");
        assert_eq!(
            question,
            "CONNECT control.corp:8443 HTTP/1.1\r\nHost: control.corp:8443\r\nUser-Agent: keyfleet\r\n\
             Proxy-Authorization: Basic YWRhOmdlaGVpbQ==\r\n\r\n"
        );
        let (_, question) = ask("", "::1", b"HTTP/1.0 200\r\n\r\n").await;
        assert!(
            question.starts_with("CONNECT [::1]:8443 HTTP/1.1\r\n"),
            "{question}"
        );
    }

    #[tokio::test]
    async fn every_other_answer_is_an_error_with_its_own_words() {
        let endless = [b'a'; ANSWER_BYTES_MAX + 1];
        for (user, answer, expect) in [
            (
                "",
                &b"HTTP/1.1 407 Who?\r\n\r\n"[..],
                "wants a user and a password",
            ),
            (
                "a:geheim@",
                b"HTTP/1.1 407 geheim\r\n\r\n",
                "does not accept the user",
            ),
            (
                "",
                b"HTTP/1.1 403 No\r\n\r\n<html>",
                "control.corp:8443 (status 403)",
            ),
            ("", b"HTTP/1.1 200 OK\r\n\r\nhello", "says more"),
            ("", b"SSH-2.0\r\n\r\n", "does not speak HTTP"),
            ("", b"HTTP/2 200 OK\r\n\r\n", "does not speak HTTP"),
            ("", b"HTTP/1.1 2000\r\n\r\n", "does not speak HTTP"),
            ("", b"HTTP/1.1 \xff\xff\r\n\r\n", "does not speak HTTP"),
            ("", b"HTTP/1.1 200 OK\r\n", "hung up"),
            ("", b"", "hung up"),
            ("", &endless, "no end"),
        ] {
            let err = ask(user, "control.corp", answer).await.0.unwrap_err();
            let text = format!("{err} {err:?}");
            assert!(text.contains(expect) && !text.contains("geheim"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_proxy_that_is_away_or_silent_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let short = Duration::from_millis(20);
        let silent = open(&proxy, "control.corp", 8443, short).await;
        assert!(matches!(silent, Err(Error::TimedOut { .. })), "{silent:?}");
        drop(listener);
        let away = open(&proxy, "control.corp", 8443, DEADLINE).await;
        assert!(matches!(away, Err(Error::Unreachable { .. })), "{away:?}");
        let bad = open(&proxy, "a\r\nHost: b", 8443, DEADLINE).await;
        assert!(matches!(bad, Err(Error::Target)), "{bad:?}");
    }
}
