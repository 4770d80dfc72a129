//! Rollouts: the list, one in full, and how it ended.

use keyfleet_core::binding::BindingState;
use keyfleet_proto::v1;

use super::deployment::first_of;
use super::{Page, gate, words};
use crate::duration;
use crate::output::{Cell, Table, Tone, View, clean, counted, paint, unique_len, when};

/// Characters of an id where a single rollout is named: ids of one minute share fewer.
const ID_CHARS: usize = 13;

/// The beginning of a rollout's id, for sentences.
pub(crate) fn short_id(id: &str) -> &str {
    id.get(..ID_CHARS).unwrap_or(id)
}

/// The rows of a list of rollouts.
pub(crate) fn rows(rollouts: &[v1::Rollout], view: &View) -> Table {
    let headers: &[&str] = if view.wide {
        &[
            "ID",
            "PHASE",
            "WAVE",
            "DONE",
            "LEFT",
            "STRATEGY",
            "CONNECTORS",
            "STARTED",
            "ENDED",
            "CAUSE…",
            "REASON…",
        ]
    } else {
        &[
            "ID",
            "PHASE",
            "WAVE",
            "DONE",
            "LEFT",
            "STARTED",
            "CAUSE…",
            "REASON…",
        ]
    };
    let id_len = unique_len(rollouts.iter().map(|rollout| rollout.id.as_str()));
    let mut table = Table::new(headers);
    for rollout in rollouts {
        let id: String = if view.wide {
            rollout.id.clone()
        } else {
            rollout.id.chars().take(id_len).collect()
        };
        let (done, total) = progress(&rollout.waves);
        let mut cells: Vec<Cell> = vec![
            id.into(),
            phase_cell(rollout),
            wave(rollout).into(),
            format!("{done}/{total}").into(),
            left_secs(rollout)
                .map(duration::short)
                .unwrap_or_default()
                .into(),
        ];
        if view.wide {
            cells.push((&rollout.strategy).into());
            cells.push(rollout.connectors.join(", ").into());
        }
        cells.push(when(rollout.started_at, view).into());
        if view.wide {
            cells.push(when(rollout.ended_at, view).into());
        }
        cells.push((&rollout.cause).into());
        cells.push((&rollout.reason).into());
        table.row(cells);
    }
    table.without_empty_columns()
}

/// One rollout with its waves, targets and events.
pub(crate) fn page(response: &v1::GetRolloutResponse, view: &View) -> String {
    let mut page = Page::default();
    let rollout = response.rollout.clone().unwrap_or_default();
    facts(&mut page, &rollout, view);
    page.table("Waves", &wave_rows(&rollout));
    page.table("Gates", &gate::rows(&rollout, view));
    page.table("Targets", &target_rows(&rollout, response.targets.iter()));
    let whole: Vec<String> = waiting_as_a_whole(&rollout).collect();
    page.sentences("Waiting", Tone::Between, &whole);
    page.events(&response.events, view);
    page.finish()
}

fn facts(page: &mut Page, rollout: &v1::Rollout, view: &View) {
    page.fact("Rollout", &rollout.id);
    page.fact(
        "Phase",
        paint(
            words::phase_word(rollout.phase),
            words::phase_tone(rollout.phase),
        ),
    );
    page.fact("Reason", clean(&rollout.reason));
    page.fact("Cause", clean(&rollout.cause));
    page.fact("By", clean(&rollout.author));
    page.fact("Strategy", &rollout.strategy);
    page.fact("Connectors", rollout.connectors.join(", "));
    page.fact("Started", when(rollout.started_at, view));
    page.fact("Ended", when(rollout.ended_at, view));
    let estimate = rollout.estimate.as_ref();
    page.fact(
        "Time left",
        estimate
            .map(|estimate| clean(&estimate.basis))
            .unwrap_or_default(),
    );
}

/// Why a rollout does not advance.
pub(crate) fn explained(response: &v1::ExplainRolloutResponse, view: &View) -> String {
    let mut page = Page::default();
    let rollout = response.rollout.clone().unwrap_or_default();
    facts(&mut page, &rollout, view);
    page.sentences("Rollout", Tone::Between, [&response.sentence]);
    page.table("Waves", &wave_rows(&rollout));
    page.table("Gates", &gate::rows(&rollout, view));
    let mut table = Table::new(&["DEPLOYMENT", "WHY IT WAITS…"]);
    for waiting in &response.deployments {
        table.row(vec![
            (&waiting.deployment).into(),
            (&waiting.sentence).into(),
        ]);
    }
    page.table("Deployments", &table);
    if response.more > 0 {
        page.line(format_args!(
            "… and {} more: --deployment names one",
            counted(response.more, "deployment")
        ));
    }
    page.finish()
}

/// Who has agreed with which wave: `wave fleet: 1 of 2 approvals (ada)`.
pub(crate) fn approved(rollout: &v1::Rollout) -> String {
    let mut page = Page::default();
    page.sentence(&sentence(rollout));
    for wave in rollout.waves.iter().filter(|w| w.approvals_required > 0) {
        let by = match wave.approved_by.is_empty() {
            true => String::new(),
            false => format!(" ({})", clean(&wave.approved_by.join(", "))),
        };
        let name = clean(&wave.name);
        page.sentence(&format!("wave {name}: {}{by}", approvals(wave)));
    }
    page.finish()
}

/// `1 of 2 approvals`.
fn approvals(wave: &v1::Wave) -> String {
    let (given, required) = (wave.approved_by.len(), wave.approvals_required);
    format!("{given} of {}", counted(required, "approval"))
}

/// How long it still takes, where that is known: `about 33m left`.
pub(crate) fn left(rollout: &v1::Rollout) -> Option<String> {
    left_secs(rollout).map(|secs| format!("about {} left", duration::short(secs)))
}

/// Whole minutes where it is minutes: an estimate is not better than that.
fn left_secs(rollout: &v1::Rollout) -> Option<u64> {
    let secs = rollout.estimate.as_ref()?.left_secs?;
    Some(if secs < 60 {
        secs
    } else {
        secs.div_ceil(60) * 60
    })
}

/// What holds it up as a whole, in sentences.
pub(crate) fn waiting_as_a_whole(rollout: &v1::Rollout) -> impl Iterator<Item = String> {
    let whole = rollout
        .waiting
        .iter()
        .filter(|waiting| waiting.deployment.is_empty());
    whole.map(|waiting| waiting.sentence.clone())
}

/// How a watched rollout ended: the targets that failed or are not proven, then one line.
pub(crate) fn outcome(response: &v1::GetRolloutResponse) -> String {
    let mut page = Page::default();
    let rollout = response.rollout.clone().unwrap_or_default();
    let went_back = is_rolled_back(&rollout);
    let is_telling = |target: &&v1::RolloutTarget| {
        let is_proven = words::state(target.state) == Some(BindingState::Proven);
        // After a rollback the deployments that were never touched have nothing to tell.
        let has_nothing_to_tell = is_proven || (went_back && target.text.is_empty());
        target.rolled_back || !has_nothing_to_tell
    };
    let title = if went_back {
        "Rolled back"
    } else {
        "Not proven"
    };
    let telling = response.targets.iter().filter(is_telling);
    page.table(title, &target_rows(&rollout, telling));
    if page != Page::default() {
        page.line("");
    }
    page.line(sentence(&rollout));
    page.finish()
}

/// A rollout in one sentence: `rollout 0192f3a4-5b6c COMPLETED after 3m: 5 of 5 deployments done`.
pub(crate) fn sentence(rollout: &v1::Rollout) -> String {
    let phase = paint(
        words::phase_word(rollout.phase),
        words::phase_tone(rollout.phase),
    );
    let after = match (rollout.started_at, rollout.ended_at) {
        (Some(start), Some(end)) => {
            format!(
                " after {}",
                duration::short(u64::try_from(end.seconds - start.seconds).unwrap_or_default())
            )
        }
        _ => String::new(),
    };
    let (done, total) = progress(&rollout.waves);
    let reason = if rollout.reason.is_empty() {
        String::new()
    } else {
        format!("; {}", clean(&rollout.reason))
    };
    let deployments = counted(total, "deployment");
    let progress = if is_rolled_back(rollout) {
        String::new()
    } else {
        format!(": {done} of {deployments} done")
    };
    format!(
        "rollout {} {phase}{after}{progress}{reason}",
        short_id(&rollout.id)
    )
}

fn is_rolled_back(rollout: &v1::Rollout) -> bool {
    rollout.phase() == v1::RolloutPhase::RolledBack
}

/// Deployments of a wave that need nothing more.
pub(crate) fn wave_done(wave: &v1::Wave) -> u32 {
    let done = |count: &&v1::StateCount| {
        matches!(
            words::state(count.state),
            Some(BindingState::Proven | BindingState::Waived)
        )
    };
    wave.states
        .iter()
        .filter(done)
        .map(|count| count.count)
        .sum()
}

/// What is said of a wave beside its counts.
pub(crate) fn wave_marks(wave: &v1::Wave) -> String {
    let mut marks = Vec::new();
    if wave.strict {
        marks.push("strict".to_owned());
    }
    if wave.mandatory {
        marks.push("mandatory".to_owned());
    }
    if wave.approvals_required > 0 {
        marks.push(approvals(wave));
    }
    if wave.baseline_red > 0 {
        marks.push(format!("{} broken before", wave.baseline_red));
    }
    if wave.offline > 0 {
        marks.push(format!("{} offline", wave.offline));
    }
    if wave.left > 0 {
        marks.push(format!("{} left it", wave.left));
    }
    marks.join(", ")
}

fn progress(waves: &[v1::Wave]) -> (u32, u32) {
    (
        waves.iter().map(wave_done).sum(),
        waves.iter().map(|wave| wave.deployments).sum(),
    )
}

fn phase_cell(rollout: &v1::Rollout) -> Cell {
    Cell::toned(
        words::phase_word(rollout.phase),
        words::phase_tone(rollout.phase),
    )
}

/// The running wave: `canary (1/2)`.
fn wave(rollout: &v1::Rollout) -> String {
    let index = usize::try_from(rollout.wave).unwrap_or(usize::MAX);
    match rollout.waves.get(index) {
        Some(wave) => {
            let before = if has_begun(rollout, wave) {
                ""
            } else {
                "before "
            };
            let n_waves = rollout.waves.len();
            format!("{before}{} ({}/{n_waves})", wave.name, index + 1)
        }
        None => String::new(),
    }
}

/// True where the running wave has begun; an older control service says of no wave that it has.
fn has_begun(rollout: &v1::Rollout, wave: &v1::Wave) -> bool {
    wave.begun || rollout.ended_at.is_some() || wave_done(wave) > 0
}

fn wave_rows(rollout: &v1::Rollout) -> Table {
    let mut table = Table::new(&[
        "WAVE",
        "NAME",
        "DONE",
        "AT ONCE",
        "MARKS",
        "STATES…",
        "WAITS…",
    ]);
    for (index, wave) in rollout.waves.iter().enumerate() {
        table.row(vec![
            (index + 1).to_string().into(),
            (&wave.name).into(),
            format!("{}/{}", wave_done(wave), wave.deployments).into(),
            wave.concurrency.to_string().into(),
            wave_marks(wave).into(),
            words::counts_cell(&wave.states),
            (&wave.waiting).into(),
        ]);
    }
    table.without_empty_columns()
}

fn target_rows<'a>(
    rollout: &v1::Rollout,
    targets: impl Iterator<Item = &'a v1::RolloutTarget>,
) -> Table {
    let mut table = Table::new(&["DEPLOYMENT", "WAVE", "STATE", "BACK", "CLASS", "TEXT…"]);
    for target in targets {
        let wave = usize::try_from(target.wave)
            .ok()
            .and_then(|index| rollout.waves.get(index));
        table.row(vec![
            (&target.deployment).into(),
            wave.map(|wave| wave.name.as_str())
                .unwrap_or_default()
                .into(),
            words::state_cell(target.state),
            if target.rolled_back {
                Cell::toned("rolled back", Tone::Between)
            } else {
                "".into()
            },
            words::failure_class(target.failure_class).into(),
            first_of(&target.text, &target.waiting).into(),
        ]);
    }
    table.without_empty_columns()
}
