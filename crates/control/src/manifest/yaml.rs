//! The YAML forms of the four kinds, and the values inside them. Unknown fields are errors.

mod strategy;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use keyfleet_core::failure::FailureClass;
use keyfleet_core::fleet::{LABEL_CHARS_MAX, Labels, Operator, Requirement, Selector, is_label};
use keyfleet_core::id::{ConnectorName, KeyName, StrategyName};
use keyfleet_core::models::Task;
use keyfleet_core::placement::DriftPolicy;
use keyfleet_core::rollout::{Action, CatchUp, Per};
use keyfleet_core::space::SpacePattern;
use serde::{Deserialize, Deserializer, de};
use serde_saphyr::Spanned;

#[cfg(test)]
pub(super) use strategy::AmountForm;
pub(super) use strategy::{
    BlackoutForm, BudgetForm, DeadlinesForm, GateForm, OfflineForm, RollbackForm, StrategyForm,
    WaveForm, WindowForm,
};

/// The first look at a document: what kind it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head {
    pub(super) api_version: String,
    pub(super) kind: String,
}

/// A whole document.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document<N: FromStr<Err: Display>, S> {
    #[serde(rename = "apiVersion")]
    _api_version: de::IgnoredAny,
    #[serde(rename = "kind")]
    _kind: de::IgnoredAny,
    #[serde(bound(deserialize = "N: FromStr<Err: Display>"))]
    pub(super) metadata: Metadata<N>,
    pub(super) spec: S,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata<N: FromStr<Err: Display>> {
    #[serde(bound(deserialize = "N: FromStr<Err: Display>"))]
    pub(super) name: Word<N>,
    /// For people and for later selection of objects; not interpreted yet.
    #[serde(default, rename = "labels")]
    _labels: Labels,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KeySpec {
    pub(super) provider: Word<Provider>,
    pub(super) vault: VaultPlace,
    pub(super) allowed_hosts: Option<Vec<String>>,
    #[serde(default)]
    pub(super) scope: SelectorForm,
    #[serde(default)]
    pub(super) rotation: RotationForm,
}

/// How a new version takes the place of an old one.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RotationForm {
    /// How long the old version is kept alive once everybody has proven the new one.
    pub(super) overlap: Option<Word<Span>>,
    /// How many people have to agree before the old version is revoked.
    pub(super) approvals: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VaultPlace {
    pub(super) mount: String,
    pub(super) path: String,
    /// The field that holds the key.
    pub(super) field: Option<String>,
    /// Instead, for keys of several parts: which field holds each.
    pub(super) fields: Option<Spanned<BTreeMap<String, Spanned<String>>>>,
}

/// The providers whose keys we know how to handle.
#[derive(Clone, Copy)]
pub(super) enum Provider {
    OpenAi,
    /// The key of one Azure resource.
    AzureOpenAi,
    /// The access key and the secret of an AWS account.
    Bedrock,
    /// The service account of a Google Cloud project.
    Gemini,
    /// The key of any other server that connectors call.
    Other,
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "openai" => Ok(Self::OpenAi),
            "azure-openai" => Ok(Self::AzureOpenAi),
            "bedrock" => Ok(Self::Bedrock),
            "gemini" => Ok(Self::Gemini),
            "other" => Ok(Self::Other),
            other => Err(format!(
                "unknown provider {other:?}: this version knows `openai`, `azure-openai`, `bedrock`, `gemini` and `other`"
            )),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ConnectorForm {
    #[serde(rename = "type")]
    pub(super) connector_type: Spanned<String>,
    pub(super) display_name: Spanned<String>,
    pub(super) key: Word<KeyName>,
    pub(super) config: BTreeMap<String, Spanned<serde_json::Value>>,
    /// Fields of the config that are left out where a Kibana is too old for them.
    #[serde(default)]
    pub(super) if_supported: Vec<Spanned<String>>,
    /// How it is proven.
    #[serde(default)]
    pub(super) probe: ProbeForm,
    /// The connector whose place it takes.
    pub(super) replaces: Option<Spanned<Word<ConnectorName>>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ProbeForm {
    pub(super) body: Option<Spanned<BTreeMap<String, serde_json::Value>>>,
    pub(super) max_tokens: Option<Spanned<u32>>,
    pub(super) model: Option<Spanned<String>>,
    pub(super) interval: Option<Spanned<Word<Span>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PlacementForm {
    #[serde(default)]
    pub(super) selector: SelectorForm,
    pub(super) connectors: Vec<Word<ConnectorName>>,
    #[serde(default = "default_spaces")]
    pub(super) spaces: Vec<Word<SpacePattern>>,
    #[serde(default)]
    pub(super) except_spaces: Vec<Word<SpacePattern>>,
    #[serde(default)]
    pub(super) adopt: Vec<Spanned<AdoptForm>>,
    #[serde(default = "default_drift")]
    pub(super) drift: Word<DriftPolicyWord>,
    pub(super) strategy_ref: Option<Word<StrategyName>>,
    pub(super) task: Option<Word<TaskWord>>,
}

/// A connector that is there already; it has either a name or an id.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdoptForm {
    pub(super) connector: Word<ConnectorName>,
    pub(super) name: Option<String>,
    pub(super) id: Option<String>,
}

fn default_spaces() -> Vec<Word<SpacePattern>> {
    "default".parse().map(Word).into_iter().collect()
}

fn default_drift() -> Word<DriftPolicyWord> {
    Word(DriftPolicyWord(DriftPolicy::Correct))
}

/// Kubernetes' label selector, checked.
#[derive(Deserialize, Default)]
#[serde(try_from = "SelectorParts")]
pub(super) struct SelectorForm(Selector);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SelectorParts {
    #[serde(default)]
    match_labels: Labels,
    #[serde(default)]
    match_expressions: Vec<ExpressionForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpressionForm {
    key: String,
    operator: OperatorWord,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Deserialize, Clone, Copy)]
enum OperatorWord {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl TryFrom<SelectorParts> for SelectorForm {
    type Error = String;

    fn try_from(parts: SelectorParts) -> Result<Self, String> {
        let mut selector = Selector::from_labels(&parts.match_labels);
        for expression in parts.match_expressions {
            selector.requirements.push(expression.requirement()?);
        }
        for requirement in &selector.requirements {
            let texts = std::iter::once(&requirement.key).chain(requirement.operator.values());
            if let Some(wrong) = texts.into_iter().find(|text| !is_label(text)) {
                let shown: String = wrong.chars().take(LABEL_CHARS_MAX).collect();
                return Err(format!(
                    "{shown:?} cannot be a label: use 1 to {LABEL_CHARS_MAX} letters, digits, `-`, `_`, `.` or `/`"
                ));
            }
        }
        Ok(Self(selector))
    }
}

impl ExpressionForm {
    /// Values where they mean something and nowhere else: `NotIn` of nothing would choose everything.
    fn requirement(self) -> Result<Requirement, String> {
        let (wants_values, has_values) = (
            matches!(self.operator, OperatorWord::In | OperatorWord::NotIn),
            !self.values.is_empty(),
        );
        match (wants_values, has_values) {
            (true, false) => return Err("In and NotIn need values".to_owned()),
            (false, true) => return Err("Exists and DoesNotExist take no values".to_owned()),
            (true, true) | (false, false) => {}
        }
        let operator = match self.operator {
            OperatorWord::In => Operator::In(self.values),
            OperatorWord::NotIn => Operator::NotIn(self.values),
            OperatorWord::Exists => Operator::Exists,
            OperatorWord::DoesNotExist => Operator::DoesNotExist,
        };
        Ok(Requirement {
            key: self.key,
            operator,
        })
    }
}

impl From<SelectorForm> for Selector {
    fn from(form: SelectorForm) -> Self {
        form.0
    }
}

/// A text that its type parses; the parser of YAML adds line and path to the type's own error.
#[derive(Clone)]
pub(super) struct Word<T>(pub(super) T);

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

/// A length of time such as `90s`, `10m` or `2h 30m`.
#[derive(Clone, Copy)]
pub(super) struct Span(pub(super) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a length of time: write 90s, 10m or 2h 30m");
        let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
        if signed.subsec_nanos() % 1_000_000 != 0 {
            return Err(format!("{text:?} is finer than a millisecond"));
        }
        Duration::try_from(signed).map(Self).map_err(|_| wrong())
    }
}

macro_rules! word {
    ($type:ident($inner:ty), $what:literal, $parse:expr, $all:expr) => {
        #[derive(Clone, Copy)]
        pub(super) struct $type(pub(super) $inner);

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let parse: fn(&str) -> Option<$inner> = $parse;
                parse(text).map(Self).ok_or_else(|| {
                    let known: Vec<&str> = $all;
                    format!(
                        "unknown {} {text:?}: use one of {}",
                        $what,
                        known.join(", ")
                    )
                })
            }
        }
    };
}

word!(
    DriftPolicyWord(DriftPolicy),
    "drift policy",
    DriftPolicy::parse,
    DriftPolicy::ALL
        .iter()
        .map(|policy| policy.as_str())
        .collect()
);
word!(
    TaskWord(Task),
    "task",
    Task::parse,
    Task::ALL.iter().map(|task| task.as_str()).collect()
);
word!(
    ActionWord(Action),
    "action",
    Action::parse,
    Action::ALL.iter().map(|action| action.as_str()).collect()
);
word!(
    PerWord(Per),
    "count",
    Per::parse,
    vec![Per::Wave.as_str(), Per::Run.as_str()]
);
word!(
    CatchUpWord(CatchUp),
    "catch-up",
    CatchUp::parse,
    vec![CatchUp::Immediate.as_str(), CatchUp::InWindow.as_str()]
);
word!(
    ClassWord(Option<FailureClass>),
    "failure class",
    |text| if text == "any" {
        Some(None)
    } else {
        FailureClass::parse(text).map(Some)
    },
    std::iter::once("any")
        .chain(FailureClass::ALL.iter().map(|class| class.as_str()))
        .collect()
);
