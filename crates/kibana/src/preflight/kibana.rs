//! The questions that Kibana's own answers settle.

use jiff::Timestamp;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::SpaceId;

use super::check::{CheckName, CheckOutcome};
use super::{Preflight, Problem, Scope};
use crate::api::endpoints::ENDPOINT_TYPE;
use crate::api::{Space, Status, TypeInfo};
use crate::client::Trust;
use crate::text::word;
use crate::version::Version;

/// Elastic's licences, from the least to the most; a trial allows what `enterprise` allows and shows as it.
const LICENCES: [&str; 5] = ["basic", "standard", "gold", "platinum", "enterprise"];
/// Two clocks that differ by this much are worth a word: a certificate may be refused as not yet valid.
const SKEW_SECS: u64 = 60;

pub(super) fn note_trust(found: &mut Preflight, trust: Option<Trust>) {
    let (outcome, sentence) = match trust {
        Some(Trust::OwnCa) => (
            CheckOutcome::Ok,
            "TLS; Kibana's certificate is checked against the CA file in the agent's config",
        ),
        Some(Trust::SystemCa) => (
            CheckOutcome::Ok,
            "TLS; Kibana's certificate is checked against the CAs that the system trusts",
        ),
        Some(Trust::Loopback) => (
            CheckOutcome::Ok,
            "plain HTTP, which does not leave this machine",
        ),
        Some(Trust::Plain) | None => (
            CheckOutcome::Warning,
            "plain HTTP: the agent's API key and the keys of connectors are readable for everybody on the way; use Kibana's https:// URL",
        ),
    };
    found.note(CheckName::Tls, outcome, sentence);
}

pub(super) fn note_clock(found: &mut Preflight, date: Option<Timestamp>, now: Timestamp) {
    let name = CheckName::Clock;
    let Some(date) = date else {
        let sentence = "Kibana does not say what time it has";
        return found.note(name, CheckOutcome::Skipped, sentence);
    };
    let ahead = date.duration_since(now);
    let secs = ahead.unsigned_abs().as_secs();
    if secs < SKEW_SECS {
        let sentence = "Kibana and this agent have the same time, within a minute";
        return found.note(name, CheckOutcome::Ok, sentence);
    }
    let side = if ahead.is_negative() {
        "behind"
    } else {
        "ahead of"
    };
    let sentence = format!(
        "Kibana's clock is {secs} s {side} the agent's; set both machines by NTP, or certificates and API keys end too early or too late"
    );
    found.note(name, CheckOutcome::Warning, sentence);
}

pub(super) fn check_status(found: &mut Preflight, status: Status) {
    let version = status.version;
    let mut problems = Vec::new();
    if !status.available {
        problems.push(Problem {
            class: FailureClass::KibanaDown,
            scope: Scope::Kibana,
            sentence: "Kibana answers but is not ready; look at `status` in its /api/status page"
                .to_owned(),
        });
    }
    let mut too_old = Vec::new();
    if version < Version::OLDEST {
        too_old.push(Problem {
            class: FailureClass::Rejected,
            scope: Scope::Kibana,
            sentence: format!(
                "Kibana {version} is too old: {} was the first with LLM connectors; upgrade it",
                Version::OLDEST
            ),
        });
    }
    found.conclude(CheckName::Version, too_old, format!("Kibana {version}"));
    found.conclude(
        CheckName::Reachability,
        problems,
        "Kibana answers and is ready",
    );
    let known = "Kibana knows the agent's API key";
    found.note(CheckName::Credentials, CheckOutcome::Ok, known);
    let (outcome, sentence) = match status.flavor.as_str() {
        "traditional" => (CheckOutcome::Ok, "self-managed or hosted".to_owned()),
        "serverless" => (
            CheckOutcome::Ok,
            "serverless: Elastic upgrades it without a word, and there is no kibana.yml".to_owned(),
        ),
        other => (
            CheckOutcome::Warning,
            format!("Kibana calls itself {other:?}, which this agent does not know"),
        ),
    };
    found.note(CheckName::Flavour, outcome, sentence);
    found.status = Some(status);
}

pub(super) fn check_types(found: &mut Preflight, registered: &[TypeInfo], wanted: &[&str]) {
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
    let in_kibana = || wanted.iter().filter(|id| **id != ENDPOINT_TYPE);
    let problems = in_kibana().filter_map(|id| type_problem(registered, id));
    let (licence, switch) = problems.partition(|it| it.class == FailureClass::Licence);
    let has_all = match &found.licence {
        Some(licence) => format!("the licence allows connector types up to {licence}"),
        None => "the licence allows every wanted connector type".to_owned(),
    };
    found.conclude(CheckName::Licence, licence, has_all);
    let is_old = |id: &&&str| {
        let info = registered.iter().find(|info| info.id == ***id);
        info.is_some_and(|info| info.is_deprecated)
    };
    let old: Vec<&str> = in_kibana().filter(is_old).copied().collect();
    if !old.is_empty() && Vec::is_empty(&switch) {
        let sentence = format!(
            "Elastic has marked {} as deprecated: such connectors work, and can be made and changed through the API; plan to replace them by inference endpoints",
            old.join(", ")
        );
        return found.note(CheckName::ConnectorTypes, CheckOutcome::Warning, sentence);
    }
    let good = "every wanted connector type is there and switched on";
    found.conclude(CheckName::ConnectorTypes, switch, good);
}

fn type_problem(registered: &[TypeInfo], id: &str) -> Option<Problem> {
    let (class, sentence) = match registered.iter().find(|info| info.id == id) {
        None => (
            FailureClass::Rejected,
            format!("this Kibana has no connector type {id}; use another type or another Kibana"),
        ),
        Some(info) if !info.enabled_in_config => (
            FailureClass::Rejected,
            format!(
                "the connector type {id} is switched off; add it to `xpack.actions.enabledActionTypes` in kibana.yml"
            ),
        ),
        Some(info) if !info.enabled_in_license => (
            FailureClass::Licence,
            format!(
                "the licence does not allow the connector type {id}, which needs {}; upgrade or renew it",
                word(&info.minimum_license_required)
            ),
        ),
        Some(_) => return None,
    };
    Some(Problem {
        class,
        scope: Scope::Type(id.to_owned()),
        sentence,
    })
}

pub(super) fn check_spaces(found: &mut Preflight, visible: Vec<Space>, wanted: &[SpaceId]) {
    let problem = |id: &SpaceId| {
        let sentence = match visible.iter().find(|space| space.id == *id) {
            None => format!(
                "the space {id} does not exist, or the agent's API key may not see it; create or grant it"
            ),
            Some(space) if !space.actions_enabled => format!(
                "the space {id} has the feature \"Actions and Connectors\" switched off; switch it on in the space's settings"
            ),
            Some(_) => return None,
        };
        Some(Problem {
            class: FailureClass::Rejected,
            scope: Scope::Space(id.clone()),
            sentence,
        })
    };
    let problems = wanted.iter().filter_map(problem).collect();
    let good = format!(
        "every wanted space is among those that the agent sees ({})",
        visible.len()
    );
    found.conclude(CheckName::Spaces, problems, good);
    found.spaces = visible;
}

pub(super) fn check_encryption(found: &mut Preflight, answer: Option<bool>) {
    found.encryption_key = answer;
    let name = CheckName::EncryptionKey;
    match answer {
        None => {
            let sentence = "Kibana does not tell; the answer needs a privilege to read rules, which nothing else here needs";
            found.note(name, CheckOutcome::Skipped, sentence);
        }
        Some(true) => {
            let sentence = "Kibana has a permanent key for secrets";
            found.note(name, CheckOutcome::Ok, sentence);
        }
        Some(false) => {
            let sentence = "Kibana has no encryption key for secrets; set `xpack.encryptedSavedObjects.encryptionKey` in kibana.yml";
            found.problem(FailureClass::Encryption, Scope::Kibana, sentence);
            found.note(name, CheckOutcome::Failed, sentence);
        }
    }
}
