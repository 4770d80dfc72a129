//! What one agent may ask of a session: how much, how often, and how long it may take.

use std::time::{Duration, Instant};

use keyfleet_proto::{Invalid, v1};

use crate::limits::Bucket;

/// An agent that says nothing for this many heartbeat intervals is gone.
pub(super) const HEARTBEATS_MISSED_MAX: u32 = 3;

/// The first message must come at once.
pub(super) const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// An agent that takes nothing for so long while something waits for it is cut off.
pub(super) const SEND_DEADLINE: Duration = Duration::from_secs(30);

/// Messages at once, and a second after that. An agent sends one report at a time, and a request for each key.
const MESSAGES_AT_ONCE: u32 = 1_000;
const MESSAGES_PER_SECOND: u32 = 100;

/// Bindings of one report: far more than a Kibana has spaces and a fleet has connectors.
const BINDINGS_MAX: usize = 20_000;

/// Keys that an agent says it has, and words for what it can do.
const HELLO_ITEMS_MAX: usize = 1_000;

/// Characters of a boot id, which is a UUID in our own agent.
const BOOT_ID_CHARS_MAX: usize = 64;

/// Refused key requests of one session that are written down.
pub(super) const REFUSALS_MAX: usize = 16;

/// The messages that a session takes.
pub(super) fn messages() -> Bucket {
    Bucket::new(MESSAGES_PER_SECOND, MESSAGES_AT_ONCE, Instant::now())
}

/// What the history says of a session that sent too much.
pub(super) fn flood() -> String {
    format!(
        "the agent sent more than {MESSAGES_AT_ONCE} messages at once and {MESSAGES_PER_SECOND} a second: its session was ended"
    )
}

/// Refuses a Hello that no honest agent sends.
pub(super) fn check_hello(hello: &v1::Hello) -> Result<(), Invalid> {
    let length = hello.boot_id.chars().count();
    if length == 0 || length > BOOT_ID_CHARS_MAX {
        let problem = format!("must have 1 to {BOOT_ID_CHARS_MAX} characters");
        return Err(Invalid::new("hello.boot_id", problem));
    }
    bounded("hello.keys_held", hello.keys_held.len(), HELLO_ITEMS_MAX)?;
    bounded(
        "hello.capabilities",
        hello.capabilities.len(),
        HELLO_ITEMS_MAX,
    )
}

/// Refuses a report that is longer than any fleet is large.
pub(super) fn check_report(report: &v1::StatusReport) -> Result<(), Invalid> {
    bounded("bindings", report.bindings.len(), BINDINGS_MAX)
}

fn bounded(field: &str, length: usize, max: usize) -> Result<(), Invalid> {
    if length <= max {
        return Ok(());
    }
    let problem = format!("has {length} entries, and at most {max} are taken");
    Err(Invalid::new(field, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(boot_id: &str, n_keys: usize) -> v1::Hello {
        v1::Hello {
            boot_id: boot_id.to_owned(),
            keys_held: vec![v1::KeyHeld::default(); n_keys],
            ..v1::Hello::default()
        }
    }

    #[test]
    fn what_no_honest_agent_sends_is_named() {
        let long = "x".repeat(BOOT_ID_CHARS_MAX + 1);
        for (hello, field) in [
            (hello("", 0), "hello.boot_id"),
            (hello(&long, 0), "hello.boot_id"),
            (hello("boot", HELLO_ITEMS_MAX + 1), "hello.keys_held"),
        ] {
            let err = check_hello(&hello).unwrap_err().to_string();
            assert!(err.contains(field), "{err}");
        }
        check_hello(&hello("boot", HELLO_ITEMS_MAX)).unwrap();
        let report = v1::StatusReport {
            bindings: vec![v1::BindingStatus::default(); BINDINGS_MAX + 1],
            ..v1::StatusReport::default()
        };
        assert!(check_report(&report).is_err());
    }
}
