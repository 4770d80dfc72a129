//! What the agent's credentials may do, and what they should be allowed.
//!
//! Kibana has no public route that tells it. A create of a connector type that does not exist does: Kibana looks at the
//! privilege before it looks for the type, and nothing comes of it either way.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt, stream};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::SpaceId;
use serde_json::{Value, json};

use super::check::{Check, CheckName, CheckOutcome, NOT_ASKED};
use super::{Preflight, Problem, Scope, Wanted};
use crate::api::endpoints::ENDPOINT_TYPE;
use crate::client::{Client, Service, Trust};
use crate::error::Error;

/// Spaces that are asked about at the same time.
const CONCURRENCY: usize = 4;
/// Spaces that a sentence names.
const NAMED_MAX: usize = 5;
/// The name of the API key and of the role.
const NAME: &str = "keyfleet-agent";
/// Connector types for which an inference endpoint is written; for `.inference` Kibana does it, and may do so with the
/// caller's privileges.
const TYPES_WITH_ENDPOINT: [&str; 2] = [ENDPOINT_TYPE, ".inference"];

/// What one space answered.
enum Asked {
    May,
    MayNot,
    /// Nobody knows.
    Unknown(Error),
    /// Left out after the trouble of another one.
    LeftOut,
}

/// Asks in each wanted space that is there. Not in every round: it costs a request per space.
pub(super) async fn check(client: &Client, wanted: &Wanted<'_>, found: &mut Preflight) {
    let has_kibana_type = wanted.types.iter().any(|id| *id != ENDPOINT_TYPE);
    if !has_kibana_type {
        return skip(
            wanted,
            found,
            "no connector that this agent accepts is wanted in Kibana yet",
        );
    }
    if !wanted.privileges {
        return skip(wanted, found, NOT_ASKED);
    }
    let is_open = |id: &&SpaceId| {
        let space = found.spaces.iter().find(|space| space.id == **id);
        space.is_some_and(|space| space.actions_enabled)
    };
    let spaces: Vec<&SpaceId> = wanted.spaces.iter().filter(is_open).collect();
    if spaces.is_empty() {
        return skip(wanted, found, "none of the wanted spaces can be asked");
    }
    let asked = ask(client, &spaces).await;
    let check = conclude(found, &spaces, &asked);
    found.checks.push(check.with_detail(grants(wanted)));
}

/// Notes that nothing was asked; what the credentials need is told all the same.
pub(super) fn skip(wanted: &Wanted<'_>, found: &mut Preflight, why: &str) {
    let check = Check::new(CheckName::Privileges, CheckOutcome::Skipped, why);
    found.checks.push(check.with_detail(grants(wanted)));
}

/// In order of the spaces. After the first trouble that is not one of the space alone, the rest is left out.
async fn ask(client: &Client, spaces: &[&SpaceId]) -> Vec<Asked> {
    let in_trouble = AtomicBool::new(false);
    let asked = spaces
        .iter()
        .map(|space| ask_one(client, space, &in_trouble));
    // A list of futures: a closure would make the whole not `Send`.
    let asked: Vec<_> = asked.collect();
    stream::iter(asked).buffered(CONCURRENCY).collect().await
}

async fn ask_one(client: &Client, space: &SpaceId, in_trouble: &AtomicBool) -> Asked {
    if in_trouble.load(Ordering::Relaxed) {
        return Asked::LeftOut;
    }
    match client.may_write(space).await {
        Ok(true) => Asked::May,
        Ok(false) => Asked::MayNot,
        Err(error) => {
            let is_of_all = matches!(error, Error::Unauthorized { .. }) || error.is_retryable();
            in_trouble.fetch_or(is_of_all, Ordering::Relaxed);
            Asked::Unknown(error)
        }
    }
}

fn conclude(found: &mut Preflight, spaces: &[&SpaceId], asked: &[Asked]) -> Check {
    let name = CheckName::Privileges;
    let pairs = || spaces.iter().zip(asked);
    let refused: Vec<&str> = pairs()
        .filter(|(_, asked)| matches!(asked, Asked::MayNot))
        .map(|(space, _)| space.as_str())
        .collect();
    let error = asked.iter().find_map(|asked| match asked {
        Asked::Unknown(error) => Some(error),
        Asked::May | Asked::MayNot | Asked::LeftOut => None,
    });
    if let Some(error) = error {
        found.quiet(error);
    }
    if !refused.is_empty() {
        let sentence = format!(
            "the agent's API key may not write connectors in {}; give it the privileges below",
            named(&refused)
        );
        return Check::new(name, CheckOutcome::Failed, sentence);
    }
    if let Some(error) = error {
        let sentence = format!("not every space could be asked: {error}");
        return Check::new(name, CheckOutcome::Warning, sentence);
    }
    let names: Vec<&str> = spaces.iter().map(|space| space.as_str()).collect();
    let sentence = format!(
        "the agent's API key may write connectors in {}",
        named(&names)
    );
    Check::new(name, CheckOutcome::Ok, sentence)
}

/// Elasticsearch tells every user what it may do, in one request.
pub(super) async fn check_elasticsearch(
    client: &Client,
    wanted: &Wanted<'_>,
    found: &mut Preflight,
) {
    let name = CheckName::Elasticsearch;
    let skipped = |why: &str| Check::new(name, CheckOutcome::Skipped, why);
    let check = if !wanted.types.contains(&ENDPOINT_TYPE) {
        skipped("no inference endpoint that this agent accepts is wanted")
    } else if !client.has_elasticsearch() {
        let sentence = "the agent's config names no Elasticsearch, which keeps inference endpoints; write its URL as `url` under `[elasticsearch]`";
        found.problems.push(Problem {
            class: FailureClass::Agent,
            scope: Scope::Type(ENDPOINT_TYPE.to_owned()),
            sentence: sentence.to_owned(),
        });
        Check::new(name, CheckOutcome::Failed, sentence)
    } else if wanted.privileges {
        ask_elasticsearch(client, found).await
    } else {
        skipped(NOT_ASKED)
    };
    let detail = match check.outcome {
        CheckOutcome::Failed => grants(wanted),
        CheckOutcome::Ok | CheckOutcome::Warning | CheckOutcome::Skipped => String::new(),
    };
    found.checks.push(check.with_detail(detail));
}

async fn ask_elasticsearch(client: &Client, found: &mut Preflight) -> Check {
    let name = CheckName::Elasticsearch;
    match client.may_manage_endpoints().await {
        Ok(true) if client.trust(Service::Elasticsearch) == Some(Trust::Plain) => {
            let sentence = "the agent may manage inference endpoints, but keys travel to Elasticsearch over plain HTTP, readable for everybody on the way; use its https:// URL";
            Check::new(name, CheckOutcome::Warning, sentence)
        }
        Ok(true) => {
            let sentence = "Elasticsearch answers, and the agent may manage inference endpoints";
            Check::new(name, CheckOutcome::Ok, sentence)
        }
        Ok(false) => {
            let sentence = "the agent's credentials for Elasticsearch lack the cluster privilege `manage_inference`; give it to them";
            Check::new(name, CheckOutcome::Failed, sentence)
        }
        Err(error) => {
            found.quiet(&error);
            Check::new(name, CheckOutcome::Failed, error.to_string())
        }
    }
}

/// The privileges for exactly these spaces and types, in the two forms in which Elastic takes them: an API key
/// (Elasticsearch, "Create API key") and a role (Kibana, "Create or update a role").
pub(super) fn grants(wanted: &Wanted<'_>) -> String {
    let cluster: &[&str] = if wanted
        .types
        .iter()
        .any(|id| TYPES_WITH_ENDPOINT.contains(id))
    {
        &["manage_inference"]
    } else {
        &[]
    };
    let spaces: Vec<&str> = wanted.spaces.iter().map(SpaceId::as_str).collect();
    let resources: Vec<String> = spaces
        .iter()
        .map(|space| format!("space:{space}"))
        .collect();
    let key = json!({"name": NAME, "role_descriptors": {NAME: {
        "cluster": cluster,
        "indices": [],
        "applications": [{
            "application": "kibana-.kibana",
            "privileges": ["feature_actions.all"],
            "resources": resources,
        }],
    }}});
    let role = json!({
        "elasticsearch": {"cluster": cluster, "indices": []},
        "kibana": [{"base": [], "feature": {"actions": ["all"]}, "spaces": spaces}],
    });
    format!(
        "API key, for `POST /_security/api_key` of Elasticsearch:\n{}\nor a role, for `PUT /api/security/role/{NAME}` of Kibana:\n{}",
        pretty(&key),
        pretty(&role)
    )
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

/// "the space a", "the spaces a, b and 7 more".
fn named(spaces: &[&str]) -> String {
    let shown: Vec<&str> = spaces.iter().copied().take(NAMED_MAX).collect();
    let shown = shown.join(", ");
    match spaces.len() {
        1 => format!("the space {shown}"),
        n if n > NAMED_MAX => format!("the spaces {shown} and {} more", n - NAMED_MAX),
        _ => format!("the spaces {shown}"),
    }
}
