//! Deployments and their bindings.

use keyfleet_core::standing::Standing;
use keyfleet_proto::v1;

use super::{Page, held, words};
use crate::output::{Cell, Table, Tone, View, clean, counted, paint, rfc3339, when};

/// The table of deployments.
pub(crate) fn table(deployments: &[v1::Deployment], view: &View) -> String {
    let headers: &[&str] = if view.wide {
        &[
            "NAME",
            "CONNECTED",
            "STANDING",
            "KIBANA",
            "BINDINGS",
            "LABELS",
            "AGENT",
            "LAST SEEN",
            "CERTIFICATE ENDS",
            "CA",
            "ID",
            "WAITING…",
        ]
    } else {
        &[
            "NAME",
            "CONNECTED",
            "STANDING",
            "KIBANA",
            "BINDINGS",
            "WAITING…",
        ]
    };
    let mut table = Table::new(headers);
    for deployment in deployments {
        let mut cells: Vec<Cell> = vec![
            (&deployment.name).into(),
            connected(deployment, view),
            standing(deployment, view),
            kibana(deployment).into(),
            words::counts_cell(&deployment.bindings),
        ];
        if view.wide {
            cells.push(words::labels(&deployment.labels).into());
            cells.push((&deployment.agent_version).into());
            cells.push(rfc3339(deployment.last_seen).into());
            cells.push(rfc3339(deployment.certificate_not_after).into());
            cells.push((&deployment.certificate_ca).into());
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
    page.fact("Standing", standing_in_full(deployment, view));
    page.fact("Certificate", certificate(deployment, view));
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

/// Whether its agent is trusted; in a narrow table only where it is not.
fn standing(deployment: &v1::Deployment, view: &View) -> Cell {
    if words::standing(deployment.standing) == Some(Standing::Active) && !view.wide {
        "".into()
    } else {
        words::standing_cell(deployment.standing)
    }
}

/// The standing with when and why.
fn standing_in_full(deployment: &v1::Deployment, view: &View) -> String {
    let tone = match words::standing(deployment.standing) {
        Some(Standing::Active) => Tone::Good,
        Some(Standing::Suspended) => Tone::Between,
        Some(Standing::Cloned | Standing::Revoked) => Tone::Bad,
        None => return String::new(),
    };
    let mut text = words::standing(deployment.standing)
        .map(|standing| paint(standing.as_str(), tone))
        .unwrap_or_default();
    if deployment.standing_reason.is_empty() {
        return text;
    }
    let since = when(deployment.standing_at, view);
    if !since.is_empty() {
        text.push_str(&format!(", {since}"));
    }
    format!("{text}: {}", clean(&deployment.standing_reason))
}

/// When the certificate ends, or ended, and which CA signed it.
fn certificate(deployment: &v1::Deployment, view: &View) -> String {
    let Some(end) = deployment.certificate_not_after else {
        return String::new();
    };
    let at = when(Some(end), view);
    let mut text = if end.seconds <= view.now.as_second() {
        paint(&format!("ended {at}"), Tone::Bad)
    } else {
        format!("ends {at}")
    };
    if !deployment.certificate_ca.is_empty() {
        text.push_str(&format!(", signed by CA {}", deployment.certificate_ca));
    }
    text
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

/// What an operator is about to do to deployments that cannot be taken back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Consequence {
    verb: &'static str,
    sentences: [&'static str; 3],
}

/// What `deployment revoke` does.
pub(crate) const REVOKED: Consequence = Consequence {
    verb: "revokes",
    sentences: [
        "the agent's certificate is void: it is cut off within a second and cannot come back",
        "the connectors in its Kibana stay as they are, with the keys they have",
        "`keyfleet deployment replace` lets a new agent in",
    ],
};

/// What `deployment replace` does.
pub(crate) const REPLACED: Consequence = Consequence {
    verb: "replaces the agent of",
    sentences: [
        "the agent's certificate is void: it is cut off within a second and cannot come back",
        "the connectors in its Kibana stay as they are, with the keys they have",
        "a new agent enrols with the join token and keeps the name, the labels and the connectors",
    ],
};

/// What `deployment remove` does.
pub(crate) const REMOVED: Consequence = Consequence {
    verb: "removes",
    sentences: [
        "keyfleet forgets the deployment and its agent is cut off",
        "the connectors in its Kibana stay as they are, with the keys they have",
        "nothing waits for its Kibana any more before a key is revoked",
    ],
};

impl Consequence {
    /// The whole of it in one clause.
    pub(crate) fn clause(&self, names: &[String]) -> String {
        format!("this {} {}", self.verb, names.join(", "))
    }
}

/// The deployments as they are, and what will become of them.
pub(crate) fn before(
    deployments: &[v1::Deployment],
    consequence: &Consequence,
    view: &View,
) -> String {
    let mut page = Page::default();
    page.line(table(deployments, view));
    page.sentences(
        "What happens",
        Tone::Between,
        &consequence.sentences.map(str::to_owned),
    );
    page.finish()
}

/// What a verb did.
pub(crate) fn changed(
    response: &v1::ChangeDeploymentResponse,
    verb: v1::DeploymentVerb,
    view: &View,
) -> String {
    let deployment = response.deployment.clone().unwrap_or_default();
    let mut page = Page::default();
    let name = clean(&deployment.name);
    if verb == v1::DeploymentVerb::AllowRenewal {
        let end = certificate(&deployment, view);
        page.line(format_args!(
            "deployment {name} may renew its certificate once ({end})"
        ));
    } else {
        let now = v1::Deployment {
            standing_at: None,
            ..deployment
        };
        let standing = standing_in_full(&now, view);
        page.line(format_args!("deployment {name} is {standing}"));
    }
    if verb == v1::DeploymentVerb::Revoke {
        held::rows(&mut page, &name, &response.held, view);
    }
    page.finish()
}

/// What was removed.
pub(crate) fn removed(name: &str, response: &v1::RemoveDeploymentResponse, view: &View) -> String {
    let mut page = Page::default();
    let left = match response.bindings {
        0 => String::new(),
        n => format!("; its Kibana keeps {} as before", counted(n, "connector")),
    };
    page.line(format_args!("deployment {} is removed{left}", clean(name)));
    held::rows(&mut page, name, &response.held, view);
    page.finish()
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
            "NOTE…",
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
            "NOTE…",
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
        cells.push(note(binding, view).into());
        cells.push(first_of(&binding.text, &binding.waiting).into());
        table.row(cells);
    }
    table.without_empty_columns()
}

/// What else is to be known of a connector: where it comes from, who uses it, and how far its live call came where that
/// was not the whole way.
fn note(binding: &v1::Binding, view: &View) -> String {
    let mut parts = Vec::new();
    if binding.adopted {
        parts.push("adopted".to_owned());
    }
    if binding.references > 0 {
        parts.push(words::referred_to(binding.references));
    }
    let is_whole = binding.rung() == v1::ProbeRung::Answered;
    let rung = words::rung(binding.rung);
    if !rung.is_empty() && (view.wide || !is_whole) {
        parts.push(format!("live call: {rung}"));
    }
    parts.join(", ")
}

/// What is wrong comes before why it waits.
pub(crate) fn first_of<'a>(text: &'a str, waiting: &'a str) -> &'a str {
    if text.is_empty() { waiting } else { text }
}
