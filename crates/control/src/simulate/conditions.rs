//! What a simulated fleet is like: who is away, what fails, how slow everything is.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use keyfleet_core::failure::FailureClass;

/// How long one step of an agent takes on average, where nothing else is said.
const STEP: Duration = Duration::from_secs(2);

/// No step is slower than this: beyond it, every deadline has passed long ago.
const SLOW_MAX: Duration = Duration::from_secs(86_400);

/// What a fleet is like at the start. Shares are in parts of 10,000 and are drawn for each deployment by the seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conditions {
    /// Agents that are not connected, and stay so.
    pub(crate) offline: u32,
    /// Kibanas that do not answer.
    pub(crate) kibana_down: u32,
    /// Deployments on which the change fails so, while what was there before works.
    pub(crate) fails: BTreeMap<FailureClass, u32>,
    /// How long one step of an agent takes on average.
    pub(crate) step: Duration,
    /// Messages with which the session breaks.
    pub(crate) loss: u32,
}

/// Conditions that nobody can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no fault: write a share such as `offline=10%`, `kibana-down=1%`, `loss=0.5%` or a failure class such as `auth=2%`, or how long a step takes, such as `slow=5s`"
)]
pub(crate) struct InvalidConditions {
    text: String,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            offline: 0,
            kibana_down: 0,
            fails: BTreeMap::new(),
            step: STEP,
            loss: 0,
        }
    }
}

impl Conditions {
    /// The change fails everywhere, and so.
    pub(crate) fn all_fail(class: FailureClass) -> Self {
        Self {
            fails: BTreeMap::from([(class, 10_000)]),
            ..Self::default()
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "offline" => self.offline = share(value)?,
            "kibana-down" => self.kibana_down = share(value)?,
            "loss" => self.loss = share(value)?,
            "slow" => self.step = secs(value)?,
            class => {
                let class = FailureClass::parse(&class.replace('-', "_").to_uppercase())?;
                self.fails.insert(class, share(value)?);
            }
        }
        Some(())
    }
}

impl FromStr for Conditions {
    type Err = InvalidConditions;

    /// Reads `offline=10%,auth=2%,slow=5s`; nothing = a fleet without trouble.
    fn from_str(text: &str) -> Result<Self, InvalidConditions> {
        let mut conditions = Self::default();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let pair = part.split_once('=');
            let set = pair.and_then(|(name, value)| conditions.set(name.trim(), value.trim()));
            set.ok_or_else(|| InvalidConditions {
                text: part.chars().take(80).collect(),
            })?;
        }
        Ok(conditions)
    }
}

/// Parts of 10,000 from `2%` or `0.25%`.
fn share(text: &str) -> Option<u32> {
    let percent = text.strip_suffix('%')?;
    let (whole, part) = percent.split_once('.').unwrap_or((percent, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if part.len() > 2 || !is_digits(part) || !is_digits(whole) {
        return None;
    }
    let whole: u32 = whole.parse().ok()?;
    let part: u32 = format!("{part:0<2}").parse().ok()?;
    let share = whole.checked_mul(100)?.checked_add(part)?;
    (share <= 10_000).then_some(share)
}

/// `500ms`, `5s` or `2m`.
fn secs(text: &str) -> Option<Duration> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(number.len()..)?;
    let number: u64 = number.parse().ok()?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        _ => return None,
    };
    (duration <= SLOW_MAX).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read() {
        let read: Conditions =
            "offline=10%, auth=2%,slow=5s,kibana-down=1%,rate-limit=0.25%,loss=0.5%"
                .parse()
                .unwrap();
        let expected = Conditions {
            offline: 1_000,
            kibana_down: 100,
            fails: BTreeMap::from([(FailureClass::Auth, 200), (FailureClass::RateLimit, 25)]),
            step: Duration::from_secs(5),
            loss: 50,
        };
        assert_eq!(read, expected);
        assert_eq!("".parse(), Ok(Conditions::default()));
    }

    #[test]
    fn what_is_no_fault_is_named() {
        for bad in [
            "offline",
            "offline=10",
            "x=1%",
            "auth=101%",
            "auth=-1%",
            "slow=5",
            "slow=99999999m",
            "auth=1.234%",
            "auth=%",
            "slow=é",
        ] {
            let text = bad.parse::<Conditions>().unwrap_err().to_string();
            assert!(text.starts_with(&format!("{bad:?} is no fault")), "{text}");
        }
    }
}
