//! What manifests would change.

use keyfleet_proto::v1;

use super::rollout::short_id;
use super::{Page, words};
use crate::duration;
use crate::output::{Cell, Table, Tone, View, clean, counted, paint};

/// Rows of bindings that are shown without `-o wide`: a change of the whole fleet would bury the rest.
const BINDINGS_SHOWN: usize = 40;

/// True where applying would store or roll out anything.
pub(crate) fn has_changes(result: &v1::PlanResult) -> bool {
    changed_objects(result).next().is_some()
        || !result.deployments.is_empty()
        || !result.rollouts.is_empty()
}

/// The whole plan.
pub(crate) fn page(result: &v1::PlanResult, view: &View) -> String {
    let mut page = Page::default();
    objects(&mut page, result);
    deployments(&mut page, result, view);
    adoptions(&mut page, result, view);
    page.sentences("In use", Tone::Bad, &in_use(result));
    for rollout in &result.rollouts {
        waves(&mut page, rollout);
    }
    page.sentences("Under way already", Tone::Between, &conflicts(result));
    page.sentences(
        "Cannot be rolled back",
        Tone::Between,
        &cannot_roll_back(result),
    );
    page.sentences("Warnings", Tone::Between, &result.warnings);
    page.sentences("Notes", Tone::Plain, &result.notes);
    if has_changes(result) || !result.warnings.is_empty() || !result.notes.is_empty() {
        page.line("");
    }
    page.sentence(&summary(result));
    page.finish()
}

/// The plan in one line.
pub(crate) fn summary(result: &v1::PlanResult) -> String {
    if !has_changes(result) {
        return format!(
            "No change: {} compared.",
            counted(result.objects.len() as u64, "object")
        );
    }
    let n = |kind: v1::ChangeKind| {
        result
            .objects
            .iter()
            .filter(|object| object.change() == kind)
            .count()
    };
    let n_bindings: usize = result
        .deployments
        .iter()
        .map(|deployment| deployment.bindings.len())
        .sum();
    format!(
        "{} to create, {} to update, {} to remove, {} unchanged; {} on {}; {}.",
        n(v1::ChangeKind::Create),
        n(v1::ChangeKind::Update),
        n(v1::ChangeKind::Remove),
        n(v1::ChangeKind::Unchanged),
        counted(n_bindings as u64, "binding"),
        counted(result.deployments.len() as u64, "deployment"),
        counted(result.probe_calls, "live probe call"),
    )
}

/// What it takes away, in one clause; nothing where no binding goes.
pub(crate) fn removed(result: &v1::PlanResult) -> Option<String> {
    let n_removed = |deployment: &v1::DeploymentChange| {
        let goes = |binding: &&v1::BindingChange| binding.change() == v1::ChangeKind::Remove;
        deployment.bindings.iter().filter(goes).count()
    };
    let counts: Vec<usize> = result
        .deployments
        .iter()
        .map(n_removed)
        .filter(|n| *n > 0)
        .collect();
    let n_bindings: usize = counts.iter().sum();
    (n_bindings > 0).then(|| {
        format!(
            "this removes {} on {}",
            counted(n_bindings as u64, "binding"),
            counted(counts.len() as u64, "deployment")
        )
    })
}

fn changed_objects(result: &v1::PlanResult) -> impl Iterator<Item = &v1::ObjectChange> {
    result
        .objects
        .iter()
        .filter(|object| object.change() != v1::ChangeKind::Unchanged)
}

fn objects(page: &mut Page, result: &v1::PlanResult) {
    let mut objects = changed_objects(result).peekable();
    if objects.peek().is_some() {
        page.heading("Objects");
    }
    for object in objects {
        let (mark, word, tone) = change(object.change());
        let name = format!("{} {}", object.kind, object.name);
        page.line(format_args!(
            "{} {}: {word}",
            paint(mark, tone),
            clean(&name)
        ));
        for detail in &object.details {
            page.line(format_args!("    {}", clean(detail)));
        }
    }
}

fn deployments(page: &mut Page, result: &v1::PlanResult, view: &View) {
    let rows = || {
        result.deployments.iter().flat_map(|deployment| {
            deployment
                .bindings
                .iter()
                .map(move |binding| (deployment, binding))
        })
    };
    let n_rows = rows().count();
    let n_shown = if view.wide { n_rows } else { BINDINGS_SHOWN };
    let mut table = Table::new(&[
        "DEPLOYMENT",
        "SPACE",
        "CONNECTOR",
        "CHANGE",
        "FROM",
        "TO",
        "WHY…",
    ]);
    for (deployment, binding) in rows().take(n_shown) {
        let (mark, word, tone) = change(binding.change());
        let reference = binding.binding.clone().unwrap_or_default();
        table.row(vec![
            (&deployment.deployment).into(),
            reference.space.into(),
            reference.connector.into(),
            Cell::toned(format!("{mark} {word}"), tone),
            words::assignment(binding.from.as_ref()).into(),
            words::assignment(binding.to.as_ref()).into(),
            (&binding.why).into(),
        ]);
    }
    page.table("Deployments", &table.without_empty_columns());
    if n_rows > n_shown {
        page.line(format_args!("… and {} more: -o wide", n_rows - n_shown));
    }
}

fn waves(page: &mut Page, rollout: &v1::PlannedRollout) {
    page.heading(&format!("Rollout by strategy {}", clean(&rollout.strategy)));
    let mut table = Table::new(&[
        "WAVE",
        "NAME",
        "DEPLOYMENTS",
        "AT ONCE",
        "SOAK",
        "APPROVALS",
        "MARK",
        "AT ONCE IS…",
        "LIMIT ON HARM…",
    ]);
    for (index, wave) in rollout.waves.iter().enumerate() {
        let limit = match (wave.strict, wave.overshoot_max) {
            (true, _) => {
                "strict: the failure that breaks the budget is the last one started".to_owned()
            }
            (false, 0) => String::new(),
            (false, n) => format!("at worst {} beyond the budget", counted(n, "failure")),
        };
        let at_once = wave.concurrency.to_string();
        // A plain number is its own rule.
        let rule = if wave.rule == at_once { "" } else { &wave.rule };
        table.row(vec![
            (index + 1).to_string().into(),
            (&wave.name).into(),
            wave.deployments.to_string().into(),
            (&at_once).into(),
            some(wave.soak_secs, duration::short).into(),
            some(wave.approvals.into(), |n| n.to_string()).into(),
            if wave.mandatory { "mandatory" } else { "" }.into(),
            rule.into(),
            limit.into(),
        ]);
    }
    page.line(table.without_empty_columns());
    for rule in &rollout.rules {
        page.marked(Tone::Plain, rule);
    }
}

/// A number in words; empty where it is zero.
fn some(n: u64, words: impl Fn(u64) -> String) -> String {
    match n {
        0 => String::new(),
        n => words(n),
    }
}

/// What the change meets that is under way already, a sentence for each rollout.
pub(super) fn conflicts(result: &v1::PlanResult) -> Vec<String> {
    let sentence = |conflict: &v1::Conflict| {
        let id = short_id(&conflict.rollout_id);
        let connectors = conflict.connectors.join(", ");
        format!("rollout {id} ({connectors}): {}", conflict.sentence)
    };
    result.conflicts.iter().map(sentence).collect()
}

/// What becomes of connectors that were there before, with what the first write changes.
fn adoptions(page: &mut Page, result: &v1::PlanResult, view: &View) {
    let all: Vec<_> = bindings(result)
        .filter_map(|(name, binding)| Some((name, binding.adoption.as_ref()?)))
        .collect();
    if all.is_empty() {
        return;
    }
    page.heading("Adoption");
    let n_shown = if view.wide { all.len() } else { BINDINGS_SHOWN };
    for (name, adoption) in all.iter().take(n_shown) {
        if !adoption.problem.is_empty() {
            page.marked(Tone::Bad, &format!("{name} waits: {}", adoption.problem));
            continue;
        }
        let kept = match adoption.differences.is_empty() {
            true => "and finds it as it shall be",
            false => "and changes",
        };
        page.marked(
            Tone::Between,
            &format!("{name} takes over connector {} {kept}", adoption.id),
        );
        for difference in &adoption.differences {
            page.indented(difference);
        }
    }
    if all.len() > n_shown {
        page.line(format_args!("… and {} more: -o wide", all.len() - n_shown));
    }
}

/// Connectors that go although something refers to them.
fn in_use(result: &v1::PlanResult) -> Vec<String> {
    bindings(result)
        .filter(|(_, binding)| binding.references > 0)
        .map(|(name, binding)| format!("{name}: {}", words::referred_to(binding.references)))
        .collect()
}

/// Every binding that changes, with its name.
fn bindings(result: &v1::PlanResult) -> impl Iterator<Item = (String, &v1::BindingChange)> {
    result.deployments.iter().flat_map(|deployment| {
        deployment.bindings.iter().map(move |binding| {
            let at = binding.binding.clone().unwrap_or_default();
            let name = format!("{} {}/{}", deployment.deployment, at.space, at.connector);
            (name, binding)
        })
    })
}

fn cannot_roll_back(result: &v1::PlanResult) -> Vec<String> {
    bindings(result)
        .filter(|(_, binding)| !binding.cannot_roll_back.is_empty())
        .map(|(name, binding)| format!("{name}: {}", binding.cannot_roll_back))
        .collect()
}

fn change(kind: v1::ChangeKind) -> (&'static str, &'static str, Tone) {
    match kind {
        v1::ChangeKind::Create => ("+", "create", Tone::Good),
        v1::ChangeKind::Update => ("~", "update", Tone::Between),
        v1::ChangeKind::Remove => ("-", "remove", Tone::Bad),
        v1::ChangeKind::Unchanged => ("=", "unchanged", Tone::Plain),
        v1::ChangeKind::Unspecified => ("?", "unknown change", Tone::Between),
    }
}

/// What was stored: the changed objects, the plan in one line, and the rollouts that were started.
pub(crate) fn applied(result: &v1::PlanResult, rollout_ids: &[String]) -> String {
    let mut page = Page::default();
    for object in changed_objects(result) {
        let (mark, word, tone) = change(object.change());
        page.line(format_args!(
            "{} {}: {word}d",
            paint(mark, tone),
            clean(&format!("{} {}", object.kind, object.name))
        ));
    }
    page.sentences("Warnings", Tone::Between, &result.warnings);
    if !result.warnings.is_empty() {
        page.line("");
    }
    page.sentence(&summary(result));
    for id in rollout_ids {
        page.line(format_args!("rollout {} started", short_id(id)));
    }
    page.finish()
}
