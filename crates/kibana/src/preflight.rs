//! What must hold before the first write to a Kibana.

mod check;
mod kibana;
mod privileges;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::SpaceId;

pub use self::check::{Check, CheckName, CheckOutcome};
use self::kibana::{
    check_encryption, check_spaces, check_status, check_types, note_clock, note_trust,
};
use crate::api::{Space, Status};
use crate::client::{Client, Service};
use crate::error::Error;

/// What is to be written there.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Connector types.
    pub types: &'a [&'a str],
    /// Into which spaces.
    pub spaces: &'a [SpaceId],
    /// Ask also what is not asked in every round: one request per space, and one to Elasticsearch where inference
    /// endpoints are wanted.
    pub privileges: bool,
    /// What time it is here.
    pub now: Timestamp,
}

/// What was found. Fields stay empty where Kibana did not answer; the problems say why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preflight {
    /// Release, id, flavor, readiness.
    pub status: Option<Status>,
    /// The most that the licence allows (`basic` to `enterprise`; a trial is `enterprise`). Inferred from the types
    /// that it enables, for Kibana has no public route for the licence.
    pub licence: Option<String>,
    /// The spaces that the credentials may see.
    pub spaces: Vec<Space>,
    /// Whether Kibana has its encryption key; `None` where it does not tell.
    pub encryption_key: Option<bool>,
    /// Everything that is in the way, the most basic first. Empty: go ahead.
    pub problems: Vec<Problem>,
    /// Every question with its answer, one of each name, in order.
    pub checks: Vec<Check>,
    /// How long Kibana or Elasticsearch asked to be left alone.
    pub retry_after: Option<Duration>,
}

/// One thing in the way of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The class that a binding in its scope is reported under.
    pub class: FailureClass,
    /// Which bindings it holds back.
    pub scope: Scope,
    /// What is wrong and what to do, one sentence.
    pub sentence: String,
}

/// What a problem holds back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every binding of this Kibana.
    Kibana,
    /// The bindings of this connector type.
    Type(String),
    /// The bindings in this space.
    Space(SpaceId),
}

impl Scope {
    /// Whether a connector of this type in this space is held back.
    pub fn covers(&self, connector_type: &str, space: &SpaceId) -> bool {
        match self {
            Self::Kibana => true,
            Self::Type(id) => id == connector_type,
            Self::Space(id) => id == space,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl Preflight {
    /// Takes over from an earlier one what this one did not ask, because it is not asked in every round.
    pub fn complete_from(&mut self, earlier: &Self) {
        for check in self.checks.iter_mut().filter(|check| check.is_left_out()) {
            if let Some(known) = earlier.checks.iter().find(|known| known.name == check.name) {
                *check = known.clone();
            }
        }
    }

    fn problem(&mut self, class: FailureClass, scope: Scope, sentence: impl Into<String>) {
        self.problems.push(Problem {
            class,
            scope,
            sentence: sentence.into(),
        });
    }

    /// A call failed whose answer everything else depends on.
    fn failed(&mut self, name: CheckName, error: &Error) {
        self.quiet(error);
        if matches!(error, Error::Unauthorized { .. }) {
            // Some releases show their status to everybody.
            self.checks
                .retain(|check| check.name != CheckName::Credentials);
            self.note(
                CheckName::Credentials,
                CheckOutcome::Failed,
                error.to_string(),
            );
        }
        self.problem(error.class(), Scope::Kibana, error.to_string());
        self.note(name, CheckOutcome::Failed, error.to_string());
    }

    fn quiet(&mut self, error: &Error) {
        self.retry_after = self.retry_after.max(error.retry_after());
    }

    fn note(&mut self, name: CheckName, outcome: CheckOutcome, sentence: impl Into<String>) {
        self.checks.push(Check::new(name, outcome, sentence));
    }

    /// Takes in the problems of one question; without any the answer is good and says this.
    fn conclude(&mut self, name: CheckName, problems: Vec<Problem>, good: impl Into<String>) {
        let lines: Vec<&str> = problems.iter().map(|it| it.sentence.as_str()).collect();
        let check = match lines.as_slice() {
            [] => Check::new(name, CheckOutcome::Ok, good),
            [one] => Check::new(name, CheckOutcome::Failed, *one),
            [first, others @ ..] => {
                let sentence = format!("{first} (and {} more)", others.len());
                Check::new(name, CheckOutcome::Failed, sentence).with_detail(lines.join("\n"))
            }
        };
        self.checks.push(check);
        self.problems.extend(problems);
    }
}

/// Asks everything that must hold before connectors of these types are written into these spaces. Writes nothing.
///
/// At most four calls: status, types, spaces, encryption key; with [`Wanted::privileges`] one more per space, and one to
/// Elasticsearch. A Kibana that cannot be reached is asked once.
pub async fn preflight(client: &Client, wanted: &Wanted<'_>) -> Preflight {
    let mut found = Preflight::default();
    ask(client, wanted, &mut found).await;
    if !found
        .checks
        .iter()
        .any(|it| it.name == CheckName::Privileges)
    {
        privileges::skip(wanted, &mut found, check::POINTLESS);
    }
    found.checks = check::complete(found.checks);
    found
}

async fn ask(client: &Client, wanted: &Wanted<'_>, found: &mut Preflight) {
    match client.status_and_date().await {
        Ok((status, date)) => {
            note_trust(found, client.trust(Service::Kibana));
            note_clock(found, date, wanted.now);
            check_status(found, status);
        }
        Err(error) => check_refusal(found, client, &error),
    }
    if found.status.is_none() || !found.problems.is_empty() {
        return;
    }
    // Whether Kibana tells depends on a privilege that nothing else needs, so silence is no problem.
    let has_key = client.has_encryption_key().await;
    if let Err(error) = &has_key {
        found.quiet(error);
    }
    check_encryption(found, has_key.unwrap_or(None));
    match client.spaces().await {
        Ok(visible) => check_spaces(found, visible, wanted.spaces),
        Err(error) => found.failed(CheckName::Spaces, &error),
    }
    // Without the key every connector route fails, which would only repeat the same problem.
    if found.encryption_key != Some(false) {
        match client.connector_types().await {
            Ok(registered) => check_types(found, &registered, wanted.types),
            Err(error) => found.failed(CheckName::ConnectorTypes, &error),
        }
        privileges::check(client, wanted, found).await;
    }
    privileges::check_elasticsearch(client, wanted, found).await;
}

/// The first call of all failed.
fn check_refusal(found: &mut Preflight, client: &Client, error: &Error) {
    let answered = matches!(error.class(), FailureClass::KibanaAuth);
    let name = if answered {
        note_trust(found, client.trust(Service::Kibana));
        found.note(CheckName::Reachability, CheckOutcome::Ok, "Kibana answers");
        CheckName::Credentials
    } else if matches!(error, Error::Tls { .. }) {
        let sentence = "there is no trusted connection to Kibana";
        found.note(CheckName::Reachability, CheckOutcome::Failed, sentence);
        CheckName::Tls
    } else {
        CheckName::Reachability
    };
    found.failed(name, error);
}
