//! Connectors and their revisions.

use keyfleet_proto::v1;

use super::deployment::{Column, binding_rows};
use super::rollout::short_id;
use super::{Page, words};
use crate::duration::short;
use crate::output::{Cell, Table, Tone, View, clean, counted, paint, when};

/// The table of connectors.
pub(crate) fn table(connectors: &[v1::Connector], view: &View) -> String {
    let headers: &[&str] = if view.wide {
        &[
            "NAME",
            "TYPE",
            "DISPLAY NAME",
            "KEY",
            "REVISION",
            "CREATED",
            "SET",
            "BINDINGS",
            "STATE",
            "CONFIG…",
        ]
    } else {
        &[
            "NAME",
            "TYPE",
            "KEY",
            "REVISION",
            "CREATED",
            "SET",
            "STATE",
            "BINDINGS…",
        ]
    };
    let mut table = Table::new(headers);
    for connector in connectors {
        let mut cells = vec![(&connector.name).into(), (&connector.r#type).into()];
        if view.wide {
            cells.push((&connector.display_name).into());
        }
        cells.push((&connector.key).into());
        cells.push(connector.revision.to_string().into());
        cells.push(when(connector.created_at, view).into());
        cells.push((&connector.set).into());
        if view.wide {
            cells.push(words::counts_cell(&connector.bindings));
            cells.push(state(connector));
            cells.push((&connector.config_json).into());
        } else {
            cells.push(state(connector));
            cells.push(words::counts_cell(&connector.bindings));
        }
        table.row(cells);
    }
    table.without_empty_columns().to_string()
}

/// A connector that was deleted stays in the list until the last binding of it is confirmed gone.
fn state(connector: &v1::Connector) -> Cell {
    if connector.deleted_at.is_some() {
        Cell::toned("deleting", Tone::Between)
    } else {
        "".into()
    }
}

/// What its live call says, where the connector says more than its type.
fn probe(connector: &v1::Connector) -> String {
    let said = connector.probe.clone().unwrap_or_default();
    let mut parts = Vec::new();
    if !said.body_json.is_empty() {
        parts.push(format!("body {}", said.body_json));
    }
    if said.max_tokens > 0 {
        parts.push(format!("at most {}", counted(said.max_tokens, "token")));
    }
    if !said.model.is_empty() {
        parts.push(format!("model {}", said.model));
    }
    if connector.probe_interval_secs > 0 {
        let every = short(connector.probe_interval_secs.into());
        parts.push(format!("every {every}"));
    }
    parts.join(", ")
}

/// One connector with its revisions and bindings.
pub(crate) fn page(response: &v1::GetConnectorResponse, view: &View) -> String {
    let mut page = Page::default();
    if let Some(connector) = &response.connector {
        page.fact("Connector", &connector.name);
        page.fact("Type", &connector.r#type);
        page.fact("Display name", &connector.display_name);
        page.fact("Key", &connector.key);
        page.fact("Revision", connector.revision);
        page.fact("Created", when(connector.created_at, view));
        page.fact("Set", &connector.set);
        if connector.deleted_at.is_some() {
            let text = format!(
                "{}: it goes away when its last binding is gone",
                when(connector.deleted_at, view)
            );
            page.fact("Deleted", paint(&text, Tone::Between));
        }
        page.fact("Config", &connector.config_json);
        page.fact("If supported", connector.if_supported.join(", "));
        page.fact("Probe", clean(&probe(connector)));
        page.fact("Replaces", &connector.replaces);
        page.fact("Bindings", words::counts(&connector.bindings).0);
    }
    let mut revisions = Table::new(&["REVISION", "KEY", "CREATED", "WITHDRAWN BY", "CONFIG…"]);
    for revision in &response.revisions {
        revisions.row(vec![
            revision.revision.to_string().into(),
            (&revision.key).into(),
            when(revision.created_at, view).into(),
            short_id(&revision.withdrawn_by).into(),
            (&revision.config_json).into(),
        ]);
    }
    page.table("Revisions", &revisions.without_empty_columns());
    page.table(
        "Bindings",
        &binding_rows(&response.bindings, view, Column::Connector),
    );
    page.finish()
}
