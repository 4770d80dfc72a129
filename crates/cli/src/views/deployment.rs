//! Deployments and their bindings.

use keyfleet_proto::v1;

use super::{Page, words};
use crate::output::{Cell, Table, Tone, View, rfc3339, when};

/// The table of deployments.
pub(crate) fn table(deployments: &[v1::Deployment], view: &View) -> String {
    let headers: &[&str] = if view.wide {
        &[
            "NAME",
            "CONNECTED",
            "KIBANA",
            "BINDINGS",
            "LABELS",
            "AGENT",
            "LAST SEEN",
            "CERTIFICATE ENDS",
            "ID",
            "WAITING…",
        ]
    } else {
        &["NAME", "CONNECTED", "KIBANA", "BINDINGS", "WAITING…"]
    };
    let mut table = Table::new(headers);
    for deployment in deployments {
        let mut cells: Vec<Cell> = vec![
            (&deployment.name).into(),
            connected(deployment, view),
            kibana(deployment).into(),
            words::counts_cell(&deployment.bindings),
        ];
        if view.wide {
            cells.push(words::labels(&deployment.labels).into());
            cells.push((&deployment.agent_version).into());
            cells.push(rfc3339(deployment.last_seen).into());
            cells.push(rfc3339(deployment.certificate_not_after).into());
            cells.push((&deployment.id).into());
        }
        cells.push((&deployment.waiting).into());
        table.row(cells);
    }
    table.without_empty_columns().to_string()
}

/// One deployment with everything known of it.
pub(crate) fn page(response: &v1::GetDeploymentResponse, view: &View) -> String {
    let mut page = Page::default();
    if let Some(deployment) = &response.deployment {
        facts(&mut page, deployment, view);
    }
    page.table(
        "Bindings",
        &binding_rows(&response.bindings, view, Column::Deployment),
    );
    page.events(&response.events, view);
    page.finish()
}

fn facts(page: &mut Page, deployment: &v1::Deployment, view: &View) {
    page.fact("Deployment", &deployment.name);
    page.fact("Id", &deployment.id);
    page.fact("Labels", words::labels(&deployment.labels));
    let connected = if deployment.connected {
        "yes".to_owned()
    } else {
        format!(
            "no, last seen {}",
            or_never(when(deployment.last_seen, view))
        )
    };
    page.fact("Connected", connected);
    page.fact("Agent", &deployment.agent_version);
    page.fact(
        "Certificate",
        ends(when(deployment.certificate_not_after, view)),
    );
    if let Some(facts) = &deployment.facts {
        page.fact("Kibana", kibana(deployment));
        page.fact("Kibana id", &facts.uuid);
        page.fact("Licence", &facts.licence);
        page.fact("Spaces", spaces(&facts.spaces));
    }
    if let Some(generation) = deployment.generation {
        page.fact(
            "Generation",
            keyfleet_core::id::Generation::from(generation),
        );
    }
    page.fact("Waiting", &deployment.waiting);
    if let Some(facts) = &deployment.facts {
        page.sentences("Problems", Tone::Bad, &facts.problems);
    }
}

fn or_never(text: String) -> String {
    if text.is_empty() {
        "never".to_owned()
    } else {
        text
    }
}

fn ends(text: String) -> String {
    if text.is_empty() {
        text
    } else {
        format!("ends {text}")
    }
}

fn spaces(spaces: &[v1::Space]) -> String {
    let name = |space: &v1::Space| match space.actions_enabled {
        true => space.id.clone(),
        false => format!("{} (connectors disabled)", space.id),
    };
    spaces.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn connected(deployment: &v1::Deployment, view: &View) -> Cell {
    if deployment.connected || view.wide {
        return words::yes_cell(deployment.connected);
    }
    let last_seen = when(deployment.last_seen, view);
    let text = if last_seen.is_empty() {
        "never".to_owned()
    } else {
        format!("no, {last_seen}")
    };
    Cell::toned(text, Tone::Bad)
}

fn kibana(deployment: &v1::Deployment) -> String {
    let Some(facts) = &deployment.facts else {
        return String::new();
    };
    match (facts.version.is_empty(), facts.reachable) {
        (true, _) => "unknown".to_owned(),
        (false, true) => facts.version.clone(),
        (false, false) => format!("{} (down)", facts.version),
    }
}

/// A column of bindings that is the same in all rows, so it is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// The page is about one deployment.
    Deployment,
    /// The page is about one connector.
    Connector,
    /// Every column is wanted.
    None,
}

/// The rows of bindings.
pub(crate) fn binding_rows(bindings: &[v1::Binding], view: &View, left_out: Column) -> Table {
    let headers: &[&str] = if view.wide {
        &[
            "DEPLOYMENT",
            "SPACE",
            "CONNECTOR",
            "STATE",
            "RUNS",
            "GOAL",
            "PROVEN",
            "CHANGED",
            "PLACEMENT",
            "CONNECTOR ID",
            "CLASS",
            "TEXT…",
        ]
    } else {
        &[
            "DEPLOYMENT",
            "SPACE",
            "CONNECTOR",
            "STATE",
            "RUNS",
            "GOAL",
            "PROVEN",
            "CLASS",
            "TEXT…",
        ]
    };
    let mut table = Table::new(headers);
    for binding in bindings {
        let reference = binding.binding.clone().unwrap_or_default();
        let (running, goal) = (
            words::assignment(binding.running.as_ref()),
            words::assignment(binding.goal.as_ref()),
        );
        let mut cells: Vec<Cell> = vec![
            if left_out == Column::Deployment {
                "".into()
            } else {
                (&binding.deployment).into()
            },
            reference.space.into(),
            if left_out == Column::Connector {
                "".into()
            } else {
                reference.connector.into()
            },
            words::state_cell(binding.state),
            (&running).into(),
            // The goal is news only where it is not reached.
            if running == goal && !view.wide {
                "".into()
            } else {
                (&goal).into()
            },
            when(binding.proven_at, view).into(),
        ];
        if view.wide {
            cells.push(rfc3339(binding.changed_at).into());
            cells.push((&binding.placement).into());
            cells.push((&binding.connector_id).into());
        }
        cells.push(words::failure_class(binding.failure_class).into());
        cells.push(first_of(&binding.text, &binding.waiting).into());
        table.row(cells);
    }
    table.without_empty_columns()
}

/// What is wrong comes before why it waits.
pub(crate) fn first_of<'a>(text: &'a str, waiting: &'a str) -> &'a str {
    if text.is_empty() { waiting } else { text }
}
