//! One plain GET to a simulator on loopback; everything else goes through the binaries.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

const DEADLINE: Duration = Duration::from_secs(10);

/// The body of `http://host:port` + `path`.
///
/// # Errors
/// Nobody listens, or the answer is not 200.
pub fn get(url: &str, path: &str) -> Result<String> {
    let host = url
        .strip_prefix("http://")
        .context("not a plain http address")?;
    let mut stream =
        TcpStream::connect(host).with_context(|| format!("nobody listens at {url}"))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("not an HTTP answer")?;
    ensure!(
        head.split(' ').nth(1) == Some("200"),
        "{url}{path} answered {head}"
    );
    Ok(body.to_owned())
}
