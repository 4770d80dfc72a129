//! What must hold before the first write to a Kibana.

use std::fmt;

use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::SpaceId;

use crate::api::{Space, Status, TypeInfo};
use crate::client::Client;
use crate::error::Error;
use crate::text::word;
use crate::version::Version;

/// Elastic's licences, from the least to the most; a trial allows what `enterprise` allows and shows as it.
const LICENCES: [&str; 5] = ["basic", "standard", "gold", "platinum", "enterprise"];

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
    fn problem(&mut self, class: FailureClass, scope: Scope, sentence: impl Into<String>) {
        self.problems.push(Problem {
            class,
            scope,
            sentence: sentence.into(),
        });
    }

    fn failed(&mut self, error: &Error) {
        self.problem(error.class(), Scope::Kibana, error.to_string());
    }
}

/// Asks everything that must hold before connectors of these types are written into these spaces. Writes nothing.
///
/// At most four calls: status, types, spaces, encryption key. A Kibana that cannot be reached is asked once.
pub async fn preflight(client: &Client, types: &[&str], spaces: &[SpaceId]) -> Preflight {
    let mut found = Preflight::default();
    match client.status().await {
        Ok(status) => check_status(&mut found, status),
        Err(error) => found.failed(&error),
    }
    if found.status.is_none() || !found.problems.is_empty() {
        return found;
    }
    // Whether Kibana tells depends on a privilege that nothing else needs, so silence is no problem.
    check_encryption(
        &mut found,
        client.has_encryption_key().await.unwrap_or(None),
    );
    match client.spaces().await {
        Ok(visible) => check_spaces(&mut found, visible, spaces),
        Err(error) => found.failed(&error),
    }
    // Without the key every connector route fails, which would only repeat the same problem.
    if found.encryption_key != Some(false) {
        match client.connector_types().await {
            Ok(registered) => check_types(&mut found, &registered, types),
            Err(error) => found.failed(&error),
        }
    }
    found
}

fn check_status(found: &mut Preflight, status: Status) {
    let version = status.version;
    if version < Version::OLDEST {
        let sentence = format!(
            "Kibana {version} is too old: {} was the first with LLM connectors; upgrade it",
            Version::OLDEST
        );
        found.problem(FailureClass::Rejected, Scope::Kibana, sentence);
    }
    if !status.available {
        let sentence = "Kibana answers but is not ready; look at `status` in its /api/status page";
        found.problem(FailureClass::KibanaDown, Scope::Kibana, sentence);
    }
    found.status = Some(status);
}

fn check_types(found: &mut Preflight, registered: &[TypeInfo], wanted: &[&str]) {
    let allowed = |licence: &&&str| {
        registered
            .iter()
            .any(|info| info.enabled_in_license && info.minimum_license_required == **licence)
    };
    found.licence = LICENCES
        .iter()
        .rev()
        .find(allowed)
        .map(|licence| (*licence).to_owned());
    for id in wanted {
        let scope = Scope::Type((*id).to_owned());
        match registered.iter().find(|info| info.id == *id) {
            None => {
                let sentence = format!(
                    "this Kibana has no connector type {id}; use another type or another Kibana"
                );
                found.problem(FailureClass::Rejected, scope, sentence);
            }
            Some(info) if !info.enabled_in_config => {
                let sentence = format!(
                    "the connector type {id} is switched off; add it to `xpack.actions.enabledActionTypes` in kibana.yml"
                );
                found.problem(FailureClass::Rejected, scope, sentence);
            }
            Some(info) if !info.enabled_in_license => {
                let sentence = format!(
                    "the licence does not allow the connector type {id}, which needs {}; upgrade or renew it",
                    word(&info.minimum_license_required)
                );
                found.problem(FailureClass::Licence, scope, sentence);
            }
            Some(_) => {}
        }
    }
}

fn check_spaces(found: &mut Preflight, visible: Vec<Space>, wanted: &[SpaceId]) {
    for id in wanted {
        match visible.iter().find(|space| space.id == *id) {
            None => {
                let sentence = format!(
                    "the space {id} does not exist, or the agent's API key may not see it; create or grant it"
                );
                found.problem(FailureClass::Rejected, Scope::Space(id.clone()), sentence);
            }
            Some(space) if !space.actions_enabled => {
                let sentence = format!(
                    "the space {id} has the feature \"Actions and Connectors\" switched off; switch it on in the space's settings"
                );
                found.problem(FailureClass::Rejected, Scope::Space(id.clone()), sentence);
            }
            Some(_) => {}
        }
    }
    found.spaces = visible;
}

fn check_encryption(found: &mut Preflight, answer: Option<bool>) {
    found.encryption_key = answer;
    if answer == Some(false) {
        let sentence = "Kibana has no encryption key for secrets; set `xpack.encryptedSavedObjects.encryptionKey` in kibana.yml";
        found.problem(FailureClass::Encryption, Scope::Kibana, sentence);
    }
}
