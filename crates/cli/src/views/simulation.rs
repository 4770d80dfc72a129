//! What a simulation found: a drawing of the waves over time, numbers, and the worst cases.

use keyfleet_proto::v1;

use super::timeline::{Lane, Timeline};
use super::{Page, plan, words};
use crate::duration;
use crate::output::{Cell, Table, Tone, View, clean, counted, paint};

/// Events of a rollout that are shown without `-o wide`.
const EVENTS_SHOWN: usize = 10;

/// The whole answer.
pub(crate) fn page(result: &v1::SimulationResult, view: &View) -> String {
    let mut page = Page::default();
    let timeline = Timeline::new(result.rollouts.iter().map(length).max().unwrap_or_default());
    for rollout in &result.rollouts {
        one(&mut page, rollout, &timeline, view);
    }
    page.table(
        "If every deployment failed",
        &worst_cases(&result.worst_cases),
    );
    if let Some(plan) = &result.plan {
        page.sentences("Under way already", Tone::Between, &plan::conflicts(plan));
    }
    page.sentences("Warnings", Tone::Between, &result.warnings);
    page.sentences("Notes", Tone::Plain, &result.notes);
    if page != Page::default() {
        page.line("");
    }
    page.sentence(&summary(result));
    page.finish()
}

fn one(page: &mut Page, rollout: &v1::SimulatedRollout, timeline: &Timeline, view: &View) {
    page.heading(&format!("Rollout by strategy {}", clean(&rollout.strategy)));
    page.sentence(&how_it_ends(rollout));
    page.line("");
    for line in timeline.draw(&lanes(rollout)) {
        page.line(line);
    }
    page.line("");
    page.line(wave_rows(rollout));
    events(page, &rollout.events, view);
}

/// `COMPLETED after 1h 25m: ada applied fleet/`.
fn how_it_ends(rollout: &v1::SimulatedRollout) -> String {
    let phase = paint(
        words::phase_word(rollout.phase),
        words::phase_tone(rollout.phase),
    );
    let why = match rollout.reason.is_empty() {
        true => clean(&rollout.cause),
        false => clean(&rollout.reason),
    };
    let after = duration::short(rollout.ends_secs);
    format!("{phase} after {after}: {why}")
}

/// How long the drawing of a rollout has to be.
fn length(rollout: &v1::SimulatedRollout) -> u64 {
    let of_wave = |wave: &v1::SimulatedWave| {
        let times = [wave.begins_secs, wave.proven_secs, wave.ends_secs];
        times.into_iter().flatten().max().unwrap_or_default()
    };
    let waves = rollout.waves.iter().map(of_wave).max();
    waves.unwrap_or_default().max(rollout.ends_secs)
}

/// A line for each wave that has deployments.
fn lanes(rollout: &v1::SimulatedRollout) -> Vec<Lane> {
    let mut free_at = 0;
    let mut lanes = Vec::new();
    for wave in rollout.waves.iter().filter(|wave| wave.deployments > 0) {
        let end = rollout.ends_secs;
        let lane = Lane {
            name: clean(&wave.name),
            free_at,
            begins: wave.begins_secs,
            // A wave that is never all proven is at work until the rollout stands still.
            worked_until: wave.proven_secs.or(wave.ends_secs).unwrap_or(end),
            ends: wave.ends_secs.or(wave.proven_secs).unwrap_or(end),
        };
        free_at = lane.ends;
        lanes.push(lane);
    }
    lanes
}

fn wave_rows(rollout: &v1::SimulatedRollout) -> Table {
    let mut table = Table::new(&[
        "WAVE",
        "PROVEN",
        "BEGINS",
        "ALL PROVEN",
        "ENDS",
        "AT ONCE",
        "FAILED",
        "OFFLINE",
    ]);
    for wave in &rollout.waves {
        let at = |secs: Option<u64>| secs.map(duration::short).unwrap_or_default();
        let failed = match wave.failed {
            0 => "".into(),
            n => Cell::toned(n.to_string(), Tone::Bad),
        };
        table.row(vec![
            (&wave.name).into(),
            format!("{}/{}", wave.proven, wave.deployments).into(),
            match wave.begins_secs {
                Some(secs) => duration::short(secs).into(),
                None if wave.deployments == 0 => "".into(),
                None => Cell::toned("never", Tone::Between),
            },
            at(wave.proven_secs).into(),
            at(wave.ends_secs).into(),
            wave.in_flight_max.to_string().into(),
            failed,
            some(wave.offline).into(),
        ]);
    }
    table.without_empty_columns()
}

fn events(page: &mut Page, events: &[v1::SimulatedEvent], view: &View) {
    let n_shown = if view.wide {
        events.len()
    } else {
        EVENTS_SHOWN
    };
    let mut table = Table::new(&["AFTER", "WHAT…"]);
    for event in events.iter().take(n_shown) {
        table.row(vec![
            duration::short(event.at_secs).into(),
            (&event.text).into(),
        ]);
    }
    page.table("Events", &table);
    if events.len() > n_shown {
        page.line(format_args!(
            "… and {} more: -o wide",
            events.len() - n_shown
        ));
    }
}

fn worst_cases(cases: &[v1::WorstCase]) -> Table {
    let mut table = Table::new(&[
        "WITH",
        "BROKEN AT MOST",
        "STOPS AFTER",
        "BACK AFTER",
        "ENDS",
        "SO…",
    ]);
    for case in cases {
        table.row(vec![
            words::failure_class(case.failure_class).into(),
            case.broken_max.to_string().into(),
            duration::short(case.held_secs).into(),
            case.back_secs
                .map(duration::short)
                .unwrap_or_default()
                .into(),
            Cell::toned(words::phase_word(case.phase), words::phase_tone(case.phase)),
            (&case.sentence).into(),
        ]);
    }
    table.without_empty_columns()
}

/// The answer in one sentence.
fn summary(result: &v1::SimulationResult) -> String {
    let fleet = counted(result.deployments, "deployment");
    let asked = format!("Simulated with {fleet} and seed {}", result.seed);
    let n = result.rollouts.len();
    if n == 0 {
        return format!("{asked}: nothing to roll out.");
    }
    let is_complete = |r: &&v1::SimulatedRollout| r.phase() == v1::RolloutPhase::Completed;
    let n_complete = result.rollouts.iter().filter(is_complete).count();
    if n_complete == n {
        let last = result
            .rollouts
            .iter()
            .map(|rollout| rollout.ends_secs)
            .max();
        let after = duration::short(last.unwrap_or_default());
        let whole = if n == 1 {
            "the rollout completes"
        } else {
            "all rollouts complete"
        };
        return format!("{asked}: {whole} after {after}.");
    }
    let rollouts = counted(n as u64, "rollout");
    format!(
        "{asked}: {} of {rollouts} would not complete.",
        n - n_complete
    )
}

/// A count; empty where it is none.
fn some(n: u32) -> String {
    match n {
        0 => String::new(),
        n => n.to_string(),
    }
}
