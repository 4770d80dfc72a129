//! Background gates: questions about the world that are asked while a run goes on.
//!
//! Asking is the shell's work; what an answer means for the run is decided here.

use std::fmt;
use std::time::Duration;

use url::Url;

use super::strategy::Action;
use crate::Timestamp;

/// A question that is asked again and again while a run goes on. Until it has passed, and once its last answer is older
/// than [`Gate::fresh_for`], nothing is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Its name, for people; once in a strategy.
    pub name: String,
    /// What is asked.
    pub check: GateCheck,
    /// How often, at least every 10 s.
    pub interval: Duration,
    /// What the run does when the gate fails: pause, halt or rollback.
    pub action: Action,
    /// After how many failing answers in a row, at least 1.
    pub fail_after: u32,
    /// After how many answers in a row that say nothing the run pauses, at least 1.
    pub inconclusive_after: u32,
}

/// What a gate asks. The hosts must be allowed by the setting `gates.allowed_hosts` of control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateCheck {
    /// A GET: any 2xx passes, 409 fails, everything else says nothing.
    Http {
        /// Where.
        url: Url,
    },
    /// An instant query of Prometheus' HTTP API (`/api/v1/query`): fails where any sample of the answer is beyond
    /// the threshold, says nothing where there is no sample, a NaN or an error, passes otherwise.
    Prometheus {
        /// The server, without `/api/v1/query`.
        url: Url,
        /// The PromQL expression.
        query: String,
        /// What is too much.
        fail_if: Threshold,
    },
}

/// What is too much or too little: `> 0.02`.
#[derive(Debug, Clone, Copy)]
pub struct Threshold {
    /// How a value is compared.
    pub operator: Comparison,
    /// With what; finite.
    pub value: f64,
}

/// How a value is compared with a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
}

/// One answer of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Go on.
    Pass,
    /// Do not go on.
    Fail,
    /// It says nothing.
    Inconclusive,
}

/// Where a gate of a run stands. A gate that was never asked has none; `resume` forgets them all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateState {
    /// The gate's name.
    pub name: String,
    /// Its last answer.
    pub verdict: Verdict,
    /// How many answers in a row were the same.
    pub streak: u32,
    /// When it last answered.
    pub at: Timestamp,
    /// What it said, for people: a value beside its threshold, a status, an error.
    pub text: String,
}

/// A text that is not a threshold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a threshold: write a comparison and a number, such as \"> 0.02\"")]
pub struct InvalidThreshold(pub String);

impl Gate {
    /// How long an answer counts: three intervals.
    pub fn fresh_for(&self) -> Duration {
        self.interval.saturating_mul(3)
    }

    /// Where it asks.
    pub fn url(&self) -> &Url {
        match &self.check {
            GateCheck::Http { url } | GateCheck::Prometheus { url, .. } => url,
        }
    }

    /// Where it asks, for people: without the URL's query, which may hold a token.
    pub fn shown_url(&self) -> String {
        let mut url = self.url().clone();
        url.set_query(None);
        url.set_fragment(None);
        url.into()
    }
}

impl GateState {
    /// Where the gate stands after one more answer.
    pub fn after(
        previous: Option<&Self>,
        gate: &Gate,
        verdict: Verdict,
        text: String,
        at: Timestamp,
    ) -> Self {
        let same = previous.filter(|previous| previous.verdict == verdict);
        Self {
            name: gate.name.clone(),
            verdict,
            streak: same.map_or(1, |previous| previous.streak.saturating_add(1)),
            at,
            text,
        }
    }
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 3] = [Self::Pass, Self::Fail, Self::Inconclusive];

    /// The name in tables, rows and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
        }
    }

    /// The verdict of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|verdict| verdict.as_str() == text)
    }
}

impl Threshold {
    /// True where the value is beyond it.
    pub fn is_broken_by(&self, value: f64) -> bool {
        match self.operator {
            Comparison::Above => value > self.value,
            Comparison::AtLeast => value >= self.value,
            Comparison::Below => value < self.value,
            Comparison::AtMost => value <= self.value,
        }
    }
}

impl PartialEq for Threshold {
    fn eq(&self, other: &Self) -> bool {
        self.operator == other.operator && self.value.total_cmp(&other.value).is_eq()
    }
}

impl Eq for Threshold {}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operator.as_str(), self.value)
    }
}

impl std::str::FromStr for Threshold {
    type Err = InvalidThreshold;

    fn from_str(text: &str) -> Result<Self, InvalidThreshold> {
        let wrong = || InvalidThreshold(text.chars().take(80).collect());
        let text = text.trim();
        // The longer signs first: `>=` also begins with `>`.
        let operators = [
            Comparison::AtLeast,
            Comparison::AtMost,
            Comparison::Above,
            Comparison::Below,
        ];
        let found = operators
            .into_iter()
            .find_map(|operator| Some((operator, text.strip_prefix(operator.as_str())?)));
        let (operator, number) = found.ok_or_else(wrong)?;
        let value: f64 = number.trim().parse().map_err(|_| wrong())?;
        if !value.is_finite() {
            return Err(wrong());
        }
        Ok(Self { operator, value })
    }
}

impl Comparison {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::AtMost => "<=",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_read_as_it_is_shown() {
        for text in ["> 0.02", ">= 5", "< -1.5", "<= 0"] {
            let threshold: Threshold = text.parse().unwrap();
            assert_eq!(threshold.to_string(), text);
        }
        for bad in ["", "0.02", "> ", "> inf", "> NaN", "= 3", "> 2%"] {
            assert!(bad.parse::<Threshold>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_threshold_is_broken_beyond_it() {
        let check = |text: &str, value: f64, broken: bool| {
            let threshold: Threshold = text.parse().unwrap();
            assert_eq!(threshold.is_broken_by(value), broken, "{value} {text}");
        };
        check("> 1", 1.0, false);
        check(">= 1", 1.0, true);
        check("< 1", 0.5, true);
        check("<= 1", 1.5, false);
        check("> 1", f64::NAN, false);
    }
}
