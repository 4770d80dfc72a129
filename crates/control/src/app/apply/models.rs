//! What a plan says of the models that its manifests choose. Data that may be out of date warns; it refuses nothing.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::connector::{ConnectorSpec, Provider};
use keyfleet_core::id::ConnectorName;
use keyfleet_core::models::{Advice, Task, advise};
use keyfleet_kibana::driver;
use keyfleet_store::{Connector, Tx};

use crate::app::preview::Change;
use crate::error::Error;

/// Most sentences about one object: nobody reads more.
const SENTENCES_MAX: usize = 20;

/// Adds what is known of its model to each connector that a manifest gives, alone or through its placements.
pub(super) fn advise_all(tx: &Tx<'_>, changes: &mut [Change], now: Timestamp) -> Result<(), Error> {
    let live = tx.connectors()?.into_iter().filter(Connector::is_live);
    let mut connectors: BTreeMap<ConnectorName, ConnectorSpec> = BTreeMap::new();
    for revision in live.map(|connector| connector.revision) {
        connectors
            .entry(revision.connector)
            .or_insert(revision.spec);
    }
    let placements = tx.placements()?;
    // A connector may be given, or placed by what is given, or both: each sentence is said once.
    let mut said = BTreeSet::new();
    for change in changes.iter_mut() {
        let mut sentences = Advice::default();
        for placement in &placements {
            for name in &placement.connectors {
                let is_given = match change.kind {
                    "Placement" => change.name == placement.name.as_str(),
                    "Connector" => change.name == name.as_str(),
                    _ => false,
                };
                if let (true, Some(spec)) = (is_given, connectors.get(name)) {
                    let advice = of(name, spec, placement.task, now);
                    sentences.warnings.extend(advice.warnings);
                    sentences.notes.extend(advice.notes);
                }
            }
        }
        let mut news = |text: &String| said.insert(text.clone());
        sentences.warnings.retain(&mut news);
        sentences.notes.retain(&mut news);
        change.warnings.extend(shortened(sentences.warnings));
        change.notes.extend(shortened(sentences.notes));
    }
    Ok(())
}

fn of(name: &ConnectorName, spec: &ConnectorSpec, task: Option<Task>, now: Timestamp) -> Advice {
    let driver = driver(&spec.connector_type);
    let Some((driver, model)) = driver.and_then(|d| Some((d, d.model(&spec.config)?))) else {
        return Advice::default();
    };
    let is_openai = driver.provider(&spec.config) == Some(Provider::OpenAi);
    let today = jiff::tz::Offset::UTC.to_datetime(now).date();
    let mut advice = advise(&model, task, is_openai, today);
    for sentence in advice.warnings.iter_mut().chain(&mut advice.notes) {
        *sentence = format!("connector {name}: {sentence}");
    }
    advice
}

fn shortened(mut sentences: Vec<String>) -> Vec<String> {
    let more = sentences.len().saturating_sub(SENTENCES_MAX);
    if more > 0 {
        sentences.truncate(SENTENCES_MAX);
        sentences.push(format!("and {more} more about models"));
    }
    sentences
}
