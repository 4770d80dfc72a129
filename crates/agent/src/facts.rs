//! What control hears of this Kibana.

use jiff::Timestamp;
use keyfleet_core::id::SpaceId;
use keyfleet_kibana::{Check, CheckName, CheckOutcome, Observed, Preflight, Scope};
use keyfleet_proto::{WireTime, v1};
use keyfleet_seal::scrub;
use prost::Message as _;
use serde_json::{Map, Value};

/// Spaces that control keeps of one Kibana.
const SPACES_MAX: usize = 1_000;
/// All facts together; control refuses longer ones.
const FACTS_BYTES_MAX: usize = 256 * 1024;
/// Sentences of the preflight that are reported: there may be one for each space.
const PROBLEMS_MAX: usize = 200;
/// The longest config of somebody else's connector that is reported.
const CONFIG_BYTES_MAX: usize = 2 * 1024;
/// The longest name and id that are reported, in characters; Kibana's own limits are far below.
const NAME_CHARS_MAX: usize = 256;

/// The longest detail of a check, in characters: the role for a thousand spaces is longer, and nobody reads that.
const DETAIL_CHARS_MAX: usize = 16 * 1024;

/// The preflight's findings for the wire. What a Kibana in trouble does not tell stays as it was `known` before: nobody
/// shall believe that its spaces are gone.
pub(crate) fn facts(
    found: &Preflight,
    known: Option<&v1::KibanaFacts>,
    now: Timestamp,
) -> v1::KibanaFacts {
    let mut facts = asked(found, now);
    let in_trouble = found
        .problems
        .iter()
        .any(|problem| problem.scope == Scope::Kibana);
    let Some(known) = known.filter(|_| in_trouble) else {
        return facts;
    };
    if facts.spaces.is_empty() {
        facts.spaces.clone_from(&known.spaces);
    }
    for (told, before) in [
        (&mut facts.version, &known.version),
        (&mut facts.uuid, &known.uuid),
        (&mut facts.flavor, &known.flavor),
        (&mut facts.licence, &known.licence),
    ] {
        if told.is_empty() {
            told.clone_from(before);
        }
    }
    facts
}

fn asked(found: &Preflight, now: Timestamp) -> v1::KibanaFacts {
    let status = found.status.as_ref();
    let spaces = found.spaces.iter().take(SPACES_MAX).map(|space| v1::Space {
        id: space.id.to_string(),
        actions_enabled: space.actions_enabled,
    });
    v1::KibanaFacts {
        reachable: status.is_some(),
        version: status
            .map(|status| status.version.to_string())
            .unwrap_or_default(),
        uuid: status.map(|status| status.uuid.clone()).unwrap_or_default(),
        flavor: status
            .map(|status| status.flavor.clone())
            .unwrap_or_default(),
        licence: found
            .licence
            .as_ref()
            .map(|licence| format!("allows up to {licence}"))
            .unwrap_or_default(),
        spaces: spaces.collect(),
        problems: found
            .problems
            .iter()
            .take(PROBLEMS_MAX)
            .map(|problem| scrub(&problem.sentence).into_owned())
            .collect(),
        observed_at: Some(WireTime(now).into()),
        checks: found.checks.iter().map(check).collect(),
        connectors: Vec::new(),
        connectors_complete: false,
    }
}

/// True where nothing changed but the time of looking.
pub(crate) fn same(one: &v1::KibanaFacts, other: &v1::KibanaFacts) -> bool {
    let timeless = |facts: &v1::KibanaFacts| {
        let mut facts = facts.clone();
        facts.observed_at = None;
        // How far a wrong clock is off is another second every time.
        let clocks = facts.checks.iter_mut();
        for clock in clocks.filter(|check| check.name == CheckName::Clock.as_str()) {
            clock.sentence.clear();
        }
        facts
    };
    timeless(one) == timeless(other)
}

fn check(check: &Check) -> v1::Check {
    let outcome = match check.outcome {
        CheckOutcome::Ok => v1::CheckOutcome::Ok,
        CheckOutcome::Warning => v1::CheckOutcome::Warning,
        CheckOutcome::Failed => v1::CheckOutcome::Failed,
        CheckOutcome::Skipped => v1::CheckOutcome::Skipped,
    };
    v1::Check {
        name: check.name.to_string(),
        outcome: outcome.into(),
        sentence: scrub(&check.sentence).into_owned(),
        detail: scrub(&check.detail)
            .chars()
            .take(DETAIL_CHARS_MAX)
            .collect(),
    }
}

/// A connector of somebody else for the wire; `None` for types that this agent has no driver for.
pub(crate) fn seen_connector(space: &SpaceId, observed: &Observed) -> Option<v1::SeenConnector> {
    keyfleet_kibana::driver(&observed.connector_type_id)?;
    // An id that had to be cut would name another connector.
    if observed.id.chars().count() > NAME_CHARS_MAX {
        return None;
    }
    Some(v1::SeenConnector {
        space: space.to_string(),
        id: observed.id.clone(),
        name: scrub(&observed.name).chars().take(NAME_CHARS_MAX).collect(),
        r#type: observed.connector_type_id.clone(),
        config_json: shown_config(&observed.config),
        read_only: observed.is_read_only(),
        missing_secrets: observed.is_missing_secrets,
        references: observed.referenced_by_count.unwrap_or(0),
    })
}

/// Cuts facts to what control takes: connectors of others go first, then sentences.
pub(crate) fn bounded(mut facts: v1::KibanaFacts) -> v1::KibanaFacts {
    while facts.encoded_len() > FACTS_BYTES_MAX && !facts.connectors.is_empty() {
        facts.connectors_complete = false;
        facts.connectors.truncate(facts.connectors.len() / 2);
    }
    while facts.encoded_len() > FACTS_BYTES_MAX && !facts.problems.is_empty() {
        facts.problems.truncate(facts.problems.len() / 2);
    }
    facts
}

/// Without what may be a credential: the values of headers, and of URLs the user, the password and every parameter but
/// Azure's `api-version`. Empty where nothing or too much is shown.
fn shown_config(config: &Map<String, Value>) -> String {
    if config.is_empty() {
        return String::new();
    }
    let mut config = Value::Object(config.clone());
    blank(&mut config, false);
    let text = config.to_string();
    match scrub(&text) {
        shown if shown.len() <= CONFIG_BYTES_MAX => shown.into_owned(),
        _ => String::new(),
    }
}

/// Kibana has read the config from JSON, so it is as deep as that allows.
fn blank(value: &mut Value, is_header: bool) {
    match value {
        Value::String(text) if is_header => text.clear(),
        Value::String(text) => {
            if let Some(shown) = url::Url::parse(text).ok().and_then(bare_url) {
                *text = shown;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| blank(item, is_header)),
        Value::Object(fields) => {
            for (name, field) in fields {
                let is_headers = name.to_ascii_lowercase().contains("headers");
                blank(field, is_header || is_headers);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `None` where there is nothing to take away.
fn bare_url(mut url: url::Url) -> Option<String> {
    let is_bare = url.username().is_empty() && url.password().is_none();
    if is_bare && url.query().is_none() && url.fragment().is_none() {
        return None;
    }
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    url.set_fragment(None);
    let version = url.query_pairs().find(|(name, _)| name == "api-version");
    let query = version.map(|(name, value)| format!("{name}={value}"));
    url.set_query(query.as_deref());
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn observed(config: &Value) -> Observed {
        serde_json::from_value(json!({
            "id": "abc", "name": "OpenAI", "connector_type_id": ".gen-ai", "config": config,
            "referenced_by_count": 2,
        }))
        .unwrap()
    }

    #[test]
    fn others_are_shown_without_what_may_be_secret() {
        let space = "soc".parse().unwrap();
        let config = json!({
            "apiUrl": "https://x/sk-proj-Canary1aaaaaaaaaaaaaaaaaaaaaaaaQx1Z",
            "headers": {"x-gateway-token": "hunter2"},
        });
        let seen = seen_connector(&space, &observed(&config)).unwrap();
        assert_eq!((seen.space.as_str(), seen.references), ("soc", 2));
        assert!(seen.config_json.contains("x-gateway-token"), "{seen:?}");
        assert!(!seen.config_json.contains("hunter2") && !seen.config_json.contains("Canary1"));
        for (url, shown) in [
            (
                "https://u:hunter2@x/v1?api-key=hunter2#hunter2",
                "https://x/v1",
            ),
            (
                "https://x/chat?token=hunter2&api-version=2024-10-21",
                "https://x/chat?api-version=2024-10-21",
            ),
            ("https://x/v1/", "https://x/v1/"),
        ] {
            let nested = json!({"a": [{"Headers": {"b": {"c": "hunter2"}}}], "apiUrl": url});
            let seen = seen_connector(&space, &observed(&nested)).unwrap();
            let config: Value = serde_json::from_str(&seen.config_json).unwrap();
            assert_eq!(config["apiUrl"], shown);
            assert!(!seen.config_json.contains("hunter2"), "{seen:?}");
        }
        let long = json!({"apiUrl": "x".repeat(CONFIG_BYTES_MAX)});
        assert_eq!(
            seen_connector(&space, &observed(&long))
                .unwrap()
                .config_json,
            ""
        );
        let email = Observed {
            connector_type_id: ".email".to_owned(),
            ..observed(&json!({}))
        };
        assert_eq!(seen_connector(&space, &email), None);
    }

    #[test]
    fn a_kibana_in_trouble_keeps_its_version_and_its_spaces() {
        let known = v1::KibanaFacts {
            reachable: true,
            version: "9.4.0".to_owned(),
            spaces: vec![v1::Space {
                id: "soc".to_owned(),
                actions_enabled: true,
            }],
            ..v1::KibanaFacts::default()
        };
        let check = |found: Preflight, expected: (&str, usize)| {
            let facts = facts(&found, Some(&known), Timestamp::UNIX_EPOCH);
            assert!(!facts.reachable);
            assert_eq!((facts.version.as_str(), facts.spaces.len()), expected);
        };
        let down = keyfleet_kibana::Problem {
            class: keyfleet_core::failure::FailureClass::KibanaDown,
            scope: Scope::Kibana,
            sentence: "it does not answer".to_owned(),
        };
        let in_trouble = Preflight {
            problems: vec![down],
            ..Preflight::default()
        };
        check(in_trouble, ("9.4.0", 1));
        // One that answers and shows no space has none.
        check(Preflight::default(), ("", 0));
    }

    #[test]
    fn facts_stay_short() {
        let connector = v1::SeenConnector {
            config_json: "x".repeat(CONFIG_BYTES_MAX),
            ..v1::SeenConnector::default()
        };
        let facts = bounded(v1::KibanaFacts {
            problems: vec!["x".repeat(1024); 300],
            connectors: vec![connector; 200],
            connectors_complete: true,
            ..v1::KibanaFacts::default()
        });
        assert!(facts.encoded_len() <= FACTS_BYTES_MAX);
        assert!(!facts.connectors_complete && !facts.problems.is_empty());
    }
}
