//! A request on its way, and what a failure below HTTP means.

use std::error::Error as StdError;
use std::time::Duration;

use reqwest::Response;

use super::answer::{header_date, retry_after};
use super::{Answer, Call, Reading};
use crate::error::Error;

/// Only a proxy answers so (RFC 9110, section 15.5.8).
const PROXY_AUTHENTICATION_REQUIRED: u16 = 407;

/// A request on its way.
pub(super) struct Trip<'a> {
    pub(super) call: Call,
    pub(super) limit: Duration,
    /// Host and port.
    pub(super) proxy: Option<&'a str>,
}

impl Trip<'_> {
    pub(super) async fn read(
        self,
        mut response: Response,
        reading: Reading,
    ) -> Result<Answer, Error> {
        let status = response.status().as_u16();
        if let (PROXY_AUTHENTICATION_REQUIRED, Some(proxy)) = (status, self.proxy) {
            let reason = "it does not accept the user and password, 407";
            return Err(no_way(self.call, proxy, reason));
        }
        let date = header_date(response.headers());
        let retry_after = retry_after(response.headers(), date);
        let mut body = Vec::new();
        while !reading.is_enough(&body) {
            let next = response.chunk().await;
            let Some(chunk) = next.map_err(|error| self.broken(&error))? else {
                break;
            };
            if body.len() + chunk.len() > reading.bytes_max() {
                return Err(reading.too_long(self.call));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            call: self.call,
            status,
            retry_after,
            date,
            body,
        })
    }

    pub(super) fn broken(&self, error: &reqwest::Error) -> Error {
        transport_error(self.call.clone(), self.limit, self.proxy, error)
    }
}

/// What a failure below HTTP means. The words of the library's outer errors are dropped: they hold the URL.
fn transport_error(
    call: Call,
    limit: Duration,
    proxy: Option<&str>,
    error: &reqwest::Error,
) -> Error {
    let reason = root_cause(error);
    if error.is_timeout() {
        Error::Timeout { call, limit }
    } else if error.is_connect() && is_about_tls(&reason) {
        Error::Tls { call, reason }
    } else if let (true, Some(proxy)) = (error.is_connect(), proxy) {
        no_way(call, proxy, &reason)
    } else if error.is_connect() {
        Error::Unreachable { call, reason }
    } else {
        Error::Truncated { call }
    }
}

/// With a proxy every connection is one to the proxy, or was asked of it.
fn no_way(call: Call, proxy: &str, reason: &str) -> Error {
    Error::Proxy {
        call,
        proxy: proxy.to_owned(),
        reason: reason.to_owned(),
    }
}

/// The texts of `rustls::Error` and of its handshake: the system's own errors never use these words.
fn is_about_tls(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    [
        "certificate",
        "handshake",
        "tls",
        "corrupt message",
        "fatal alert",
        "peer is",
        "peer misbehaved",
    ]
    .iter()
    .any(|words| reason.contains(words))
}

/// The innermost error of a chain: the system's or the TLS library's own words.
pub(super) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_connection_is_no_certificate_trouble() {
        for reason in [
            "Connection reset by peer (os error 104)",
            "Connection refused (os error 111)",
        ] {
            assert!(!is_about_tls(reason), "{reason}");
        }
        for reason in [
            "invalid peer certificate: UnknownIssuer",
            "tls handshake eof",
            "received fatal alert: x",
        ] {
            assert!(is_about_tls(reason), "{reason}");
        }
    }
}
