//! What `plan` says of models that manifests choose.

use super::operator::{CONNECTOR, PLACEMENT, apply};
use super::world::World;
use crate::app::apply::Intent;

/// Warnings and notes of a plan over one connector with this model, placed for this task.
async fn said(provider: &str, model: &str, task: &str) -> (Vec<String>, Vec<String>) {
    let world = World::new(&["canary"]).await;
    let chosen = format!("apiProvider: {provider}, defaultModel: {model}");
    let connector = CONNECTOR.replace("apiProvider: OpenAI", &chosen);
    let placed = format!("connectors: [assistant]{task}");
    let placement = PLACEMENT.replace("connectors: [assistant]", &placed);
    let text = format!("{connector}{placement}");
    let result = apply(&world, &text, "", Intent::Plan).await.unwrap().result;
    (result.warnings, result.notes)
}

#[tokio::test]
async fn a_plan_warns_of_an_unfit_model_once_and_notes_an_unknown_one() {
    let attacks = ", task: attack-discovery";
    for (provider, model, task, warning, note) in [
        ("Other", "gpt-4.1", "", None, None),
        ("Other", "gpt-5.2", attacks, None, None),
        (
            "Other",
            "openai/gpt-4.1",
            attacks,
            Some(
                "connector assistant: model openai/gpt-4.1 is rated 3.60 of 10 for attack-discovery",
            ),
            None,
        ),
        (
            "OpenAI",
            "o1",
            "",
            Some("connector assistant: model o1 ended on 2026-10-23"),
            None,
        ),
        (
            "OpenAI",
            "gpt-9",
            attacks,
            None,
            Some("connector assistant: model gpt-9 has no rating for attack-discovery"),
        ),
        ("OpenAI", "gpt-9", "", None, None),
    ] {
        let (warnings, notes) = said(provider, model, task).await;
        for (found, expected) in [(&warnings, warning), (&notes, note)] {
            let about = found.iter().filter(|text| text.contains("model "));
            let about: Vec<_> = about.collect();
            assert_eq!(
                about.len(),
                usize::from(expected.is_some()),
                "{model}: {found:?}"
            );
            let fits = about
                .iter()
                .zip(expected)
                .all(|(text, part)| text.starts_with(part));
            assert!(fits, "{model}: {found:?}");
        }
    }
}
