//! What control said, made fit for logs and for people: scrubbed, on one line, short.

use std::error::Error as _;

use keyfleet_telemetry::error_chain;
use tonic::Status;

/// Longest text of control that is kept, in characters: enough for a sentence or two.
const CHARS_MAX: usize = 600;

/// Any text of control.
pub(crate) fn tidy(text: &str) -> String {
    // Cut first: scrubbing must not be given megabytes.
    let short: String = text
        .chars()
        .take(CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    keyfleet_seal::scrub(&short).into_owned()
}

/// The words of an error; where there are none, what its code means.
pub(crate) fn said(status: &Status) -> String {
    // Not control's words but the connection's, and only the causes say anything.
    if let Some(cause) = status.source() {
        return tidy(&error_chain(cause));
    }
    match tidy(status.message()) {
        text if text.trim().is_empty() => status.code().description().to_owned(),
        text => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn what_control_says_stays_on_one_short_line() {
        let long = format!("a\nb\u{1b}[31m{}", "ü".repeat(100_000));
        let text = tidy(&long);
        assert_eq!(text.chars().count(), CHARS_MAX);
        assert!(text.starts_with("a b [31mü"), "{text}");
        assert!(!tidy("sk-proj-Canary1aaaaaaaaaaaaaaaaaaaaaaaaQx1Z").contains("Canary"));
        assert_eq!(said(&Status::new(Code::NotFound, "no\nsuch")), "no such");
        assert!(!said(&Status::new(Code::NotFound, "\n")).is_empty());
    }
}
