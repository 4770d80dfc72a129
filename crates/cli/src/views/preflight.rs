//! What an agent found of its Kibana, and what other connectors it sees there.

use keyfleet_proto::v1;

use super::{Page, words};
use crate::output::{Cell, Table, Tone, View, clean, clean_lines, counted, paint, when};

/// Connectors that are shown without `-o wide`.
const CONNECTORS_SHOWN: usize = 100;

/// The checks of a deployment, one by one, and what belongs to them.
pub(crate) fn page(
    response: &v1::PreflightDeploymentResponse,
    wanted_fresh: bool,
    view: &View,
) -> String {
    let mut page = Page::default();
    let deployment = response.deployment.clone().unwrap_or_default();
    let facts = deployment.facts.clone().unwrap_or_default();
    page.fact("Deployment", &deployment.name);
    page.fact("Kibana", &facts.version);
    page.fact("Looked at", when(facts.observed_at, view));
    if let Some(note) = staleness(&deployment, response.fresh, wanted_fresh) {
        page.fact("Note", paint(note, Tone::Between));
    }
    let mut table = Table::new(&["CHECK", "OUTCOME", "FOUND…"]);
    for check in &facts.checks {
        table.row(vec![
            (&check.name).into(),
            outcome(check.outcome()),
            (&check.sentence).into(),
        ]);
    }
    page.table("Checks", &table);
    for check in facts.checks.iter().filter(|check| !check.detail.is_empty()) {
        page.heading(&format!("For {}", clean(&check.name)));
        page.line(clean_lines(&check.detail));
    }
    page.line("");
    page.sentence(&summary(&facts.checks));
    page.finish()
}

/// True where nothing was found that keeps connectors from working; false also where nobody has looked.
pub(crate) fn is_good(response: &v1::PreflightDeploymentResponse) -> bool {
    let facts = response.deployment.as_ref().and_then(|d| d.facts.as_ref());
    let is_fine = |check: &v1::Check| check.outcome() != v1::CheckOutcome::Failed;
    facts.is_some_and(|facts| !facts.checks.is_empty() && facts.checks.iter().all(is_fine))
}

/// Why this is not what is there now.
fn staleness(
    deployment: &v1::Deployment,
    is_fresh: bool,
    wanted_fresh: bool,
) -> Option<&'static str> {
    match (deployment.connected, wanted_fresh, is_fresh) {
        (false, _, _) => Some("the agent is not connected: this is what it saw last"),
        (true, true, false) => Some("the agent did not look in time: this is what it saw before"),
        (true, ..) => None,
    }
}

fn outcome(outcome: v1::CheckOutcome) -> Cell {
    match outcome {
        v1::CheckOutcome::Ok => Cell::toned("ok", Tone::Good),
        v1::CheckOutcome::Warning => Cell::toned("warning", Tone::Between),
        v1::CheckOutcome::Failed => Cell::toned("FAILED", Tone::Bad),
        v1::CheckOutcome::Skipped => "skipped".into(),
        v1::CheckOutcome::Unspecified => "?".into(),
    }
}

fn summary(checks: &[v1::Check]) -> String {
    if checks.is_empty() {
        return "Nothing was checked yet: the agent has not reported, or is older than this command."
            .to_owned();
    }
    let n = |outcome| checks.iter().filter(|it| it.outcome() == outcome).count();
    let (failed, warnings) = (n(v1::CheckOutcome::Failed), n(v1::CheckOutcome::Warning));
    let checked = counted(checks.len() as u64, "check");
    match (failed, warnings) {
        (0, 0) => format!("{checked}: nothing is in the way of connectors."),
        (0, n) => format!(
            "{checked}, {}: connectors work, somebody should look.",
            counted(n as u64, "warning")
        ),
        (failed, warnings) => format!(
            "{checked}, {failed} failed, {}: connectors cannot be written or cannot work.",
            counted(warnings as u64, "warning")
        ),
    }
}

/// The connectors of others that an agent sees, and how one becomes Keyfleet's.
pub(crate) fn connectors(deployment: &v1::Deployment, view: &View) -> String {
    let mut page = Page::default();
    let facts = deployment.facts.clone().unwrap_or_default();
    let n_shown = if view.wide {
        facts.connectors.len()
    } else {
        CONNECTORS_SHOWN
    };
    let mut table = Table::new(&["SPACE", "ID", "TYPE", "REFERENCES", "NOTE", "NAME…"]);
    for seen in facts.connectors.iter().take(n_shown) {
        table.row(vec![
            (&seen.space).into(),
            (&seen.id).into(),
            (&seen.r#type).into(),
            words::references(seen.references).into(),
            note(seen),
            (&seen.name).into(),
        ]);
    }
    if !table.is_empty() {
        page.line(table.without_empty_columns());
    }
    if facts.connectors.len() > n_shown {
        let n_more = facts.connectors.len() - n_shown;
        page.line(format_args!("… and {n_more} more: -o wide"));
    }
    if !facts.connectors.is_empty() {
        page.line("");
    }
    page.sentence(&seen_summary(deployment, &facts));
    if let Some(seen) = facts.connectors.iter().find(|seen| !seen.read_only) {
        page.heading("To make one of them Keyfleet's");
        page.sentence(
            "Name it in the placement that places your connector, then look at `keyfleet plan`:",
        );
        page.line(format_args!(
            "\n  spec:\n    adopt:\n      - connector: NAME"
        ));
        page.line(format_args!("        id: {}", quoted(&seen.id)));
    }
    page.finish()
}

fn note(seen: &v1::SeenConnector) -> Cell {
    match (seen.read_only, seen.missing_secrets) {
        (true, _) => Cell::toned("read-only", Tone::Between),
        (false, true) => Cell::toned("no secrets", Tone::Bad),
        (false, false) => "".into(),
    }
}

fn seen_summary(deployment: &v1::Deployment, facts: &v1::KibanaFacts) -> String {
    let name = clean(&deployment.name);
    let has = match facts.connectors.len() {
        0 => "no connector that is not Keyfleet's".to_owned(),
        1 => "1 connector that is not Keyfleet's".to_owned(),
        n => format!("{n} connectors that are not Keyfleet's"),
    };
    let whole = if facts.connectors_complete {
        "."
    } else {
        " so far: its agent has not looked through every space yet."
    };
    let kept = if facts.connectors.iter().any(|seen| seen.read_only) {
        " Read-only ones are kept in kibana.yml or by Kibana itself and cannot be adopted."
    } else {
        ""
    };
    format!("{name} has {has}{whole}{kept}")
}

/// An id as YAML takes it, whatever is in it.
fn quoted(id: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let has_letter = id.starts_with(|c: char| c.is_ascii_alphabetic());
    match has_letter && id.chars().all(is_plain) {
        true => id.to_owned(),
        false => format!("{:?}", clean(id)),
    }
}
