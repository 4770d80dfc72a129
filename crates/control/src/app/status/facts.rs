//! What an agent says of its Kibana: cut to what is kept, stored where it is news, and what follows from the news.

use std::collections::BTreeMap;

use keyfleet_core::Timestamp;
use keyfleet_proto::{Invalid, timestamp, v1};
use keyfleet_seal::scrub;
use keyfleet_store::{Check, Deployment, Facts, Inventory, SeenConnector, Space, Tx};
use serde_json::{Map, Value};

use super::{Reporter, TEXT_CHARS_MAX, text, text_within};
use crate::app::adopt::{self, is_like_ours};
use crate::app::start::{Spread, spaces_changed, start_rollouts, usable};
use crate::app::{App, KEYFLEET};
use crate::clock;
use crate::error::Error;

/// Most spaces and problems kept of a Kibana.
const FACTS_MAX: usize = 1000;

/// Most questions of a preflight that are kept, and most characters of what belongs to one.
const CHECKS_MAX: usize = 32;
const DETAIL_CHARS_MAX: usize = 8 * 1024;

/// Most connectors of others that are kept of a Kibana; of a Kibana that has more, nobody can say what is not there.
const CONNECTORS_MAX: usize = 1000;

/// Lists that are not complete add up to so many bytes at the most: an answer to an operator holds them all.
const INVENTORY_BYTES_MAX: usize = 1024 * 1024;

/// Characters of what names a connector, and bytes of its fields, that are kept. No id that Kibana gives or takes is
/// longer; a name that is cut means no connector of a manifest.
const NAME_CHARS_MAX: usize = 200;
const CONFIG_BYTES_MAX: usize = 4 * 1024;

/// The outcomes of a check, in rows.
const OUTCOMES: [(v1::CheckOutcome, &str); 4] = [
    (v1::CheckOutcome::Ok, "ok"),
    (v1::CheckOutcome::Warning, "warning"),
    (v1::CheckOutcome::Failed, "failed"),
    (v1::CheckOutcome::Skipped, "skipped"),
];

/// Facts from the wire, cut to what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) facts: Facts,
    pub(crate) inventory: Inventory,
}

impl App {
    /// Stores what an agent says of its Kibana as its session begins. What is known already asks no writer.
    pub(crate) async fn note_facts(
        &self,
        from: &Reporter,
        wire: v1::KibanaFacts,
        agent_version: &str,
    ) -> Result<(), Error> {
        let said = Said::read(wire)?;
        let (from, version) = (from.clone(), agent_version.to_owned());
        let (reader, asked, known) = (from.clone(), said.clone(), version.clone());
        let look = move |tx: &Tx<'_>| News::of(tx, &reader, &known, asked);
        if self.store.read(look).await?.is_none() {
            return Ok(());
        }
        let now = clock::now();
        let write = move |tx: &Tx<'_>| store(tx, &from, &version, said, now);
        self.store.write(write).await?;
        self.changed();
        Ok(())
    }
}

impl Said {
    /// # Errors
    /// Where the time is none.
    pub(crate) fn read(wire: v1::KibanaFacts) -> Result<Self, Invalid> {
        let observed_at = timestamp("facts.observed_at", wire.observed_at)?;
        let spaces = wire.spaces.into_iter().take(FACTS_MAX).map(|space| Space {
            id: cleaned(&space.id),
            actions_enabled: space.actions_enabled,
        });
        let problems = wire.problems.iter().take(FACTS_MAX);
        let facts = Facts {
            reachable: wire.reachable,
            version: cleaned(&wire.version),
            uuid: cleaned(&wire.uuid),
            flavor: cleaned(&wire.flavor),
            licence: cleaned(&wire.licence),
            spaces: spaces.collect(),
            problems: problems.map(|problem| text(problem)).collect(),
            checks: wire.checks.iter().take(CHECKS_MAX).map(check).collect(),
            observed_at: observed_at.map_or(0, |at| at.as_microsecond()),
        };
        let is_whole = wire.connectors.len() <= CONNECTORS_MAX;
        let seen = wire.connectors.iter().take(CONNECTORS_MAX).map(seen);
        let seen: BTreeMap<_, _> = seen.map(|seen| (place(&seen), seen)).collect();
        let inventory = Inventory {
            connectors: seen.into_values().collect(),
            is_complete: wire.connectors_complete && is_whole,
        };
        Ok(Self { facts, inventory })
    }
}

/// What an agent says that was not known.
struct News {
    known: Deployment,
    inventory: Inventory,
    said: Said,
}

impl News {
    /// `None` where nothing is new, or where the agent has nothing to say any more.
    fn of(
        tx: &Tx<'_>,
        from: &Reporter,
        agent_version: &str,
        mut said: Said,
    ) -> Result<Option<Self>, Error> {
        let known = tx.deployment(from.deployment)?;
        let Some(known) = known.filter(|known| known.enrolment == from.enrolment) else {
            return Ok(None);
        };
        let inventory = tx.inventory(from.deployment)?;
        said.inventory = together(&inventory, said.inventory);
        let is_same_inventory = inventory == said.inventory;
        let before = known.facts.clone().unwrap_or_default();
        if said.facts.uuid.is_empty() {
            // A Kibana that does not answer is the same Kibana.
            said.facts.uuid.clone_from(&before.uuid);
        }
        if said.facts.spaces.is_empty() {
            // And its spaces are those that it had: there is no Kibana without any.
            said.facts.spaces.clone_from(&before.spaces);
        }
        // When it was seen is not news.
        let observed_at = said.facts.observed_at;
        let is_same = known.facts.is_some()
            && known.agent_version == agent_version
            && said.facts
                == Facts {
                    observed_at,
                    ..before
                };
        let is_news = !is_same || !is_same_inventory;
        Ok(is_news.then_some(Self {
            known,
            inventory,
            said,
        }))
    }

    /// True where patterns may choose other spaces now.
    fn has_other_spaces(&self) -> bool {
        self.known.facts.as_ref().and_then(usable) != usable(&self.said.facts)
    }

    /// True where it may end that two agents serve one Kibana, and so let others go on too.
    fn may_part(&self) -> bool {
        let before = self.known.facts.as_ref().map_or("", |facts| &facts.uuid);
        let is_other = !before.is_empty() && before != self.said.facts.uuid;
        let still = |id: &str| self.said.inventory.connectors.iter().any(|it| it.id == id);
        let mut ours = self.inventory.connectors.iter();
        is_other || ours.any(|it| is_like_ours(&it.id) && !still(&it.id))
    }
}

/// Stores facts if they say anything new, and starts what they make possible.
pub(crate) fn store(
    tx: &Tx<'_>,
    from: &Reporter,
    agent_version: &str,
    said: Said,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(news) = News::of(tx, from, agent_version, said)? else {
        return Ok(());
    };
    tx.set_facts(from.deployment, agent_version, &news.said.facts)?;
    let is_new_inventory = tx.set_inventory(from.deployment, &news.said.inventory)?;
    if news.has_other_spaces() {
        spaces_changed(tx, from.deployment, now)?;
    }
    // A look at the whole fleet, for every agent that says anything new, would take a fleet an hour to begin.
    if news.may_part() || (is_new_inventory && adopt::concerns(tx, from.deployment)?) {
        let name = &news.known.name;
        let cause = format!("the agent of deployment {name} sees other connectors");
        start_rollouts(tx, &Spread::default(), &cause, KEYFLEET, now)?;
    }
    Ok(())
}

/// What is known to be there. A list that is not complete says of nothing that it is gone.
fn together(known: &Inventory, said: Inventory) -> Inventory {
    if said.is_complete {
        return said;
    }
    let both = known.connectors.iter().cloned();
    let both: BTreeMap<_, _> = both
        .chain(said.connectors.iter().cloned())
        .map(|seen| (place(&seen), seen))
        .collect();
    let n_bytes: usize = both.values().map(bytes).sum();
    if both.len() > CONNECTORS_MAX || n_bytes > INVENTORY_BYTES_MAX {
        return said;
    }
    Inventory {
        connectors: both.into_values().collect(),
        is_complete: false,
    }
}

fn bytes(seen: &SeenConnector) -> usize {
    let texts = [&seen.space, &seen.id, &seen.name, &seen.connector_type];
    texts.iter().map(|text| text.len()).sum::<usize>() + seen.config.len()
}

fn place(seen: &SeenConnector) -> (String, String) {
    (seen.space.clone(), seen.id.clone())
}

/// A connector that cannot be named as it is can be seen, and not taken over.
fn seen(wire: &v1::SeenConnector) -> SeenConnector {
    let id = cleaned(&wire.id);
    let is_altered = id.is_empty() || id != wire.id;
    SeenConnector {
        space: cleaned(&wire.space),
        is_read_only: wire.read_only || is_altered,
        id,
        name: cleaned(&wire.name),
        connector_type: cleaned(&wire.r#type),
        config: config(&wire.config_json),
        is_missing_secrets: wire.missing_secrets,
        references: wire.references,
    }
}

/// Masked, without control characters, and marked where it is cut.
fn cleaned(foreign: &str) -> String {
    let cut = short(foreign);
    let mark = if cut.len() < foreign.len() { "…" } else { "" };
    let text: String = scrub(&cut).chars().filter(|c| !c.is_control()).collect();
    format!("{text}{mark}")
}

/// One JSON object in one form, or nothing.
fn config(foreign: &str) -> String {
    if foreign.len() > CONFIG_BYTES_MAX {
        return String::new();
    }
    let fields = serde_json::from_str::<Map<String, Value>>(&scrub(foreign));
    let text = fields.map(|fields| Value::Object(fields).to_string());
    text.unwrap_or_default()
}

fn check(wire: &v1::Check) -> Check {
    Check {
        name: cleaned(&wire.name),
        outcome: word(wire.outcome()).to_owned(),
        sentence: text_within(&wire.sentence, TEXT_CHARS_MAX),
        detail: text_within(&wire.detail, DETAIL_CHARS_MAX),
    }
}

/// What nobody understands counts as not asked.
fn word(outcome: v1::CheckOutcome) -> &'static str {
    let known = OUTCOMES.iter().find(|(known, _)| *known == outcome);
    known.map_or("skipped", |(_, word)| word)
}

/// An outcome as it is stored, for the wire.
pub(crate) fn outcome(word: &str) -> v1::CheckOutcome {
    let known = OUTCOMES.iter().find(|(_, known)| *known == word);
    known.map_or(v1::CheckOutcome::Skipped, |(outcome, _)| *outcome)
}

fn short(text: &str) -> String {
    text.chars().take(NAME_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(wire: v1::KibanaFacts) -> Said {
        Said::read(wire).unwrap()
    }

    fn listed(ids: &[&str], complete: bool) -> Inventory {
        let connectors = ids.iter().map(|id| v1::SeenConnector {
            space: "default".to_owned(),
            id: (*id).to_owned(),
            ..v1::SeenConnector::default()
        });
        let wire = v1::KibanaFacts {
            connectors: connectors.collect(),
            connectors_complete: complete,
            ..v1::KibanaFacts::default()
        };
        said(wire).inventory
    }

    #[test]
    fn fields_are_one_json_object_or_nothing() {
        let check = |foreign: &str, kept: &str| assert_eq!(config(foreign), kept, "{foreign}");
        check(r#"{"b":1, "a":"x"}"#, r#"{"a":"x","b":1}"#);
        for foreign in ["", "[]", "1", "{", r#"{"a":1}{}"#, &"[".repeat(3000)] {
            check(foreign, "");
        }
        check(&format!(r#"{{"a":"{}"}}"#, "x".repeat(5000)), "");
        let masked = config(r#"{"a":"sk-proj-0123456789abcdef0123"}"#);
        assert!(!masked.contains("0123456789"), "{masked}");
    }

    #[test]
    fn what_cannot_be_named_as_it_is_cannot_be_taken_over() {
        let check = |id: &str, is_read_only: bool| {
            let seen = listed(&[id], true).connectors.remove(0);
            assert_eq!(seen.is_read_only, is_read_only, "{seen:?}");
        };
        check("3f7e0f4e-0d3a-4c56-9d7f-6a4d1f0f3b1a", false);
        check("openai-prod", false);
        check("", true);
        check("a\u{1b}[2J", true);
        check(&"x".repeat(NAME_CHARS_MAX + 1), true);
    }

    #[test]
    fn a_list_that_is_not_complete_takes_nothing_away() {
        let known = listed(&["a", "b"], true);
        let ids = |said: Inventory| -> Vec<String> {
            let all = together(&known, said).connectors.into_iter();
            all.map(|seen| seen.id).collect()
        };
        assert_eq!(ids(listed(&["c"], false)), ["a", "b", "c"]);
        assert_eq!(ids(listed(&["c"], true)), ["c"]);
        let many: Vec<String> = (0..CONNECTORS_MAX).map(|n| format!("n{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(ids(listed(&many, false)).len(), CONNECTORS_MAX);
    }

    #[test]
    fn a_list_that_is_too_long_is_not_complete() {
        let many: Vec<String> = (0..=CONNECTORS_MAX).map(|n| format!("n{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(!listed(&many, true).is_complete);
        assert!(listed(&many[1..], true).is_complete);
    }

    #[test]
    fn checks_are_bounded_and_masked() {
        let secret = "sk-proj-0123456789abcdef0123";
        let check = v1::Check {
            name: "privileges".to_owned(),
            outcome: v1::CheckOutcome::Failed.into(),
            sentence: format!("{secret} {}", "word ".repeat(1000)),
            detail: format!("{{\n  \"{secret}\": 1,\n{}", "line\n".repeat(9000)),
        };
        let wire = v1::KibanaFacts {
            checks: vec![check; CHECKS_MAX + 1],
            ..v1::KibanaFacts::default()
        };
        let checks = said(wire).facts.checks;
        assert_eq!(checks.len(), CHECKS_MAX);
        let kept = &checks[0];
        assert_eq!(outcome(&kept.outcome), v1::CheckOutcome::Failed);
        assert!(kept.sentence.chars().count() <= TEXT_CHARS_MAX);
        assert!(kept.detail.chars().count() <= DETAIL_CHARS_MAX);
        assert!(kept.detail.contains("line\nline"), "{}", kept.detail);
        assert!(!kept.sentence.contains(secret) && !kept.detail.contains(secret));
    }
}
