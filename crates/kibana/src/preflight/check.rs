//! The preflight as a person reads it: one answer to each question, always all of them, always in the same order.

use std::fmt;

/// Stands where a question was left out because it is not asked in every round.
pub(super) const NOT_ASKED: &str = "not asked in this round";
/// Stands where a question makes no sense after what was found before.
pub(super) const POINTLESS: &str = "not asked, because an earlier check failed";
/// The most of a sentence that is kept.
const SENTENCE_CHARS_MAX: usize = 800;

/// One question of the preflight and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The question.
    pub name: CheckName,
    /// The answer.
    pub outcome: CheckOutcome,
    /// What was found, and what to do about it.
    pub sentence: String,
    /// More for it, of several lines, such as the role to create; may be empty.
    pub detail: String,
}

/// The questions, in the order of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckName {
    /// Does Kibana answer, and is it ready?
    Reachability,
    /// Is the way to it protected?
    Tls,
    /// Does it know the agent?
    Credentials,
    /// Is it new enough?
    Version,
    /// Self-managed or serverless?
    Flavour,
    /// Does it agree with the agent on what time it is?
    Clock,
    /// Can it encrypt secrets?
    EncryptionKey,
    /// Does the licence allow the connector types that are wanted?
    Licence,
    /// Are they there and switched on?
    ConnectorTypes,
    /// Are the spaces there, with connectors switched on?
    Spaces,
    /// May the agent write connectors in each of them?
    Privileges,
    /// Can the agent manage inference endpoints, where some are wanted?
    Elasticsearch,
}

/// The answer to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckOutcome {
    /// Nothing to do.
    Ok,
    /// Connectors work; somebody should look.
    Warning,
    /// Connectors cannot be written or cannot work.
    Failed,
    /// Not asked, or Kibana does not tell.
    Skipped,
}

impl CheckName {
    /// Every question, in order.
    pub const ALL: [Self; 12] = [
        Self::Reachability,
        Self::Tls,
        Self::Credentials,
        Self::Version,
        Self::Flavour,
        Self::Clock,
        Self::EncryptionKey,
        Self::Licence,
        Self::ConnectorTypes,
        Self::Spaces,
        Self::Privileges,
        Self::Elasticsearch,
    ];

    /// The name on the wire and in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reachability => "reachability",
            Self::Tls => "tls",
            Self::Credentials => "credentials",
            Self::Version => "version",
            Self::Flavour => "flavour",
            Self::Clock => "clock",
            Self::EncryptionKey => "encryption-key",
            Self::Licence => "licence",
            Self::ConnectorTypes => "connector-types",
            Self::Spaces => "spaces",
            Self::Privileges => "privileges",
            Self::Elasticsearch => "elasticsearch",
        }
    }
}

impl fmt::Display for CheckName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Check {
    pub(super) fn new(name: CheckName, outcome: CheckOutcome, sentence: impl Into<String>) -> Self {
        let mut sentence = sentence.into();
        if let Some((end, _)) = sentence.char_indices().nth(SENTENCE_CHARS_MAX) {
            sentence.truncate(end);
        }
        Self {
            name,
            outcome,
            sentence,
            detail: String::new(),
        }
    }

    pub(super) fn with_detail(self, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { detail, ..self }
    }

    /// True where another round may have asked it.
    pub(super) fn is_left_out(&self) -> bool {
        self.sentence == NOT_ASKED
    }
}

/// One check of each name, in order.
pub(super) fn complete(mut checks: Vec<Check>) -> Vec<Check> {
    for name in CheckName::ALL {
        if !checks.iter().any(|check| check.name == name) {
            checks.push(Check::new(name, CheckOutcome::Skipped, POINTLESS));
        }
    }
    checks.sort_by_key(|check| check.name);
    checks.dedup_by_key(|check| check.name);
    checks
}
