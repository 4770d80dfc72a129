//! The YAML form of a strategy.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use keyfleet_core::rollout::{Amount, Threshold};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, de};
use url::Url;

use super::{ActionWord, CatchUpWord, ClassWord, PerWord, SelectorForm, Span, Word};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::manifest) struct StrategyForm {
    pub(in crate::manifest) waves: Vec<WaveForm>,
    pub(in crate::manifest) ramp: Option<RampForm>,
    pub(in crate::manifest) max_per_minute: Option<u32>,
    #[serde(default)]
    pub(in crate::manifest) deadlines: DeadlinesForm,
    pub(in crate::manifest) budgets: Option<Vec<BudgetForm>>,
    #[serde(default)]
    pub(in crate::manifest) offline: OfflineForm,
    #[serde(default)]
    pub(in crate::manifest) windows: Vec<WindowForm>,
    #[serde(default)]
    pub(in crate::manifest) blackouts: Vec<BlackoutForm>,
    #[serde(default)]
    pub(in crate::manifest) gates: Vec<GateForm>,
    #[serde(default)]
    pub(in crate::manifest) rollback: RollbackForm,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::manifest) struct WaveForm {
    pub(in crate::manifest) name: String,
    #[serde(default)]
    pub(in crate::manifest) select: SelectorForm,
    pub(in crate::manifest) sample: Option<SampleForm>,
    pub(in crate::manifest) concurrency: AmountForm,
    pub(in crate::manifest) spread: Option<SpreadForm>,
    #[serde(default)]
    pub(in crate::manifest) strict: bool,
    #[serde(default)]
    pub(in crate::manifest) mandatory: bool,
    pub(in crate::manifest) soak: Option<Word<Span>>,
    pub(in crate::manifest) approval: Option<ApprovalForm>,
}

/// An amount alone, or with how it is taken.
pub(in crate::manifest) struct SampleForm(pub(in crate::manifest) SampleParts);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::manifest) struct SampleParts {
    pub(in crate::manifest) amount: AmountForm,
    pub(in crate::manifest) spread: Option<String>,
    #[serde(default)]
    pub(in crate::manifest) min_matching: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct SpreadForm {
    pub(in crate::manifest) label: String,
    #[serde(default = "one")]
    pub(in crate::manifest) max: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::manifest) struct ApprovalForm {
    #[serde(default = "one")]
    pub(in crate::manifest) required: u32,
    #[serde(default)]
    pub(in crate::manifest) not_author: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct RampForm {
    #[serde(default = "one")]
    pub(in crate::manifest) start: u32,
    pub(in crate::manifest) factor: Word<Factor>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct DeadlinesForm {
    pub(in crate::manifest) ack: Option<Word<Span>>,
    pub(in crate::manifest) apply: Option<Word<Span>>,
    pub(in crate::manifest) prove: Option<Word<Span>>,
    pub(in crate::manifest) wave: Option<Word<Span>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::manifest) struct BudgetForm {
    /// A failure class, or `any` for all that no other budget names.
    pub(in crate::manifest) class: Word<ClassWord>,
    pub(in crate::manifest) per: Option<Word<PerWord>>,
    pub(in crate::manifest) max: AmountForm,
    #[serde(default)]
    pub(in crate::manifest) min_sample: u32,
    pub(in crate::manifest) action: Word<ActionWord>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::manifest) struct OfflineForm {
    pub(in crate::manifest) max_percent: Option<u8>,
    pub(in crate::manifest) catch_up: Option<Word<CatchUpWord>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::manifest) struct WindowForm {
    pub(in crate::manifest) cron: String,
    pub(in crate::manifest) duration: Word<Span>,
    /// `deployment`, or the name of a zone.
    pub(in crate::manifest) time_zone: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct BlackoutForm {
    pub(in crate::manifest) from: Word<Day>,
    pub(in crate::manifest) until: Word<Day>,
    #[serde(default)]
    pub(in crate::manifest) reason: String,
}

/// A gate; it has either `http` or `prometheus`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::manifest) struct GateForm {
    pub(in crate::manifest) name: String,
    pub(in crate::manifest) http: Option<HttpForm>,
    pub(in crate::manifest) prometheus: Option<PrometheusForm>,
    pub(in crate::manifest) interval: Option<Word<Span>>,
    pub(in crate::manifest) action: Option<Word<ActionWord>>,
    pub(in crate::manifest) fail_after: Option<u32>,
    pub(in crate::manifest) inconclusive_after: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::manifest) struct HttpForm {
    pub(in crate::manifest) url: Word<Address>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::manifest) struct PrometheusForm {
    pub(in crate::manifest) url: Word<Address>,
    pub(in crate::manifest) query: String,
    pub(in crate::manifest) fail_if: Word<Threshold>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::manifest) struct RollbackForm {
    pub(in crate::manifest) concurrency: Option<AmountForm>,
    pub(in crate::manifest) max_per_minute: Option<u32>,
    pub(in crate::manifest) deadline: Option<Word<Span>>,
}

fn one() -> u32 {
    1
}

/// A whole number, or a percentage such as `10%`.
#[derive(Clone, Copy)]
pub(in crate::manifest) struct AmountForm(pub(in crate::manifest) Amount);

impl FromStr for AmountForm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a whole number nor a percentage such as 10%");
        let amount = match text.strip_suffix('%') {
            Some(percent) => Amount::Percent(percent.trim().parse().map_err(|_| wrong())?),
            None => Amount::Count(text.parse().map_err(|_| wrong())?),
        };
        Ok(Self(amount))
    }
}

impl<'de> Deserialize<'de> for AmountForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Word::deserialize(deserializer).map(|word| word.0)
    }
}

impl<'de> Deserialize<'de> for SampleForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SampleVisitor)
    }
}

/// Serde's own "one of several forms" forgets where a mistake is.
struct SampleVisitor;

impl SampleVisitor {
    fn amount<E: de::Error>(text: &str) -> Result<SampleForm, E> {
        Ok(SampleForm(SampleParts {
            amount: text.parse().map_err(E::custom)?,
            spread: None,
            min_matching: 0,
        }))
    }
}

impl<'de> de::Visitor<'de> for SampleVisitor {
    type Value = SampleForm;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a number, a percentage such as 10%, or {amount: 10%, spread: LABEL, minMatching: N}",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SampleForm, E> {
        Self::amount(text)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<SampleForm, E> {
        Self::amount(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<SampleForm, E> {
        Self::amount(&number.to_string())
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<SampleForm, A::Error> {
        SampleParts::deserialize(MapAccessDeserializer::new(map)).map(SampleForm)
    }
}

/// How much a ramp grows, written as a factor such as `2` or `1.5`; in percent.
#[derive(Clone, Copy)]
pub(in crate::manifest) struct Factor(pub(in crate::manifest) u32);

impl FromStr for Factor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a factor: write a number from 1.5 to 5");
        let (whole, hundredths) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(hundredths) || !(1..=2).contains(&hundredths.len()) {
            return Err(wrong());
        }
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let hundredths: u32 = format!("{hundredths:0<2}").parse().map_err(|_| wrong())?;
        let percent = whole
            .checked_mul(100)
            .and_then(|w| w.checked_add(hundredths));
        percent.map(Self).ok_or_else(wrong)
    }
}

/// A day such as `2026-12-24`.
#[derive(Clone, Copy)]
pub(in crate::manifest) struct Day(pub(in crate::manifest) Date);

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a day: write 2026-12-24");
        let day: Date = text.parse().map_err(|_| wrong())?;
        // The library takes a time of day too, which would be lost.
        if day.to_string() == text {
            Ok(Self(day))
        } else {
            Err(wrong())
        }
    }
}

/// Where a gate asks. The error does not repeat it: it may hold a password.
#[derive(Clone)]
pub(in crate::manifest) struct Address(pub(in crate::manifest) Url);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |err| format!("is not a URL ({err}): write https://HOST/PATH");
        text.parse().map(Self).map_err(wrong)
    }
}
