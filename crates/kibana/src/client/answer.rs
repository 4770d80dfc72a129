//! One answer, read: its body, what it asks to wait, and what time the server says it is.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::Call;
use crate::error::Error;

/// The most that `Retry-After` is honoured: a broken header must not silence an agent for hours.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// One answer of any status.
pub(crate) struct Answer {
    pub(crate) call: Call,
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    /// When the server says it is.
    pub(crate) date: Option<Timestamp>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// True for 2xx.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body of a good answer, or what a refusal means.
    pub(crate) fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        if !self.is_success() {
            return Err(self.refusal());
        }
        self.parse().map_err(|error| self.unreadable(&error))
    }

    /// The body as JSON, whatever the status.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    fn unreadable(self, error: &serde_json::Error) -> Error {
        let Self {
            call, status, body, ..
        } = self;
        let begins_as_json = body
            .trim_ascii_start()
            .first()
            .is_some_and(|byte| b"{[".contains(byte));
        match error.classify() {
            Category::Eof if begins_as_json => Error::Truncated { call },
            Category::Data => {
                let problem = format!("the answer lacks fields that {} has here", call.service);
                Error::Unexpected { call, problem }
            }
            Category::Eof | Category::Syntax | Category::Io => Error::NotJson { call, status },
        }
    }
}

/// When the server says it is (RFC 9110, section 6.6.1). The two obsolete forms of a date are no longer sent.
pub(super) fn header_date(headers: &HeaderMap) -> Option<Timestamp> {
    date(headers.get(DATE)?)
}

fn date(value: &HeaderValue) -> Option<Timestamp> {
    let text = value.to_str().ok()?.trim();
    DateTimeParser::new().parse_timestamp(text).ok()
}

/// Seconds, or a date (RFC 9110, section 10.2.3). A date is read against the server's own clock, so that a wrong clock
/// on either side makes no difference; without that clock a date says nothing.
pub(super) fn retry_after(headers: &HeaderMap, now: Option<Timestamp>) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?;
    let seconds = value.to_str().ok()?.trim().parse().ok();
    let wait = match seconds.map(Duration::from_secs) {
        Some(wait) => wait,
        None => {
            let wait = date(value)?.duration_since(now?);
            Duration::try_from(wait).unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_bounded_and_nonsense_is_ignored() {
        let now = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (text, seconds) in [
            ("2", Some(2)),
            ("86400", Some(300)),
            ("99999999999999999999999", None),
            ("soon", None),
            ("-1", None),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 09:49:37 GMT", Some(300)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Sun, 99 Nov 1994 08:00:00 GMT", None),
        ] {
            let pairs = [(RETRY_AFTER, text), (DATE, now)];
            let headers = pairs.map(|(name, text)| (name, HeaderValue::from_str(text).unwrap()));
            let headers = HeaderMap::from_iter(headers);
            let found = retry_after(&headers, header_date(&headers));
            assert_eq!(found, seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_date_to_wait_for_says_nothing_without_the_servers_clock() {
        let value = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:47 GMT");
        let headers = HeaderMap::from_iter([(RETRY_AFTER, value)]);
        assert_eq!(retry_after(&headers, None), None);
    }
}
