//! The fleet in short.

use keyfleet_proto::v1;

use super::{Page, rollout, words};
use crate::output::{Table, Tone, View, clean, counted, paint, when};

/// Waiting deployments that are shown without `-o wide`.
const WAITING_SHOWN: usize = 20;

/// The page of `keyfleet status`.
pub(crate) fn page(status: &v1::GetStatusResponse, view: &View) -> String {
    let mut page = Page::default();
    let offline = status
        .deployments
        .saturating_sub(status.deployments_connected);
    let tone = if offline == 0 { Tone::Good } else { Tone::Bad };
    let connected = paint(&format!("{} connected", status.deployments_connected), tone);
    page.fact(
        "Deployments",
        format_args!("{}, {connected}", status.deployments),
    );
    let (counts, tone) = words::counts(&status.bindings);
    page.fact(
        "Bindings",
        if counts.is_empty() {
            "none".to_owned()
        } else {
            paint(&counts, tone)
        },
    );
    page.fact("Control", &status.control_version);
    if status.andon {
        page.fact("Andon", stopped(status.andon_state.as_ref(), view));
    }
    page.sentences("Problems", Tone::Bad, &status.problems);
    page.table(
        "Active rollouts",
        &rollout::rows(&status.active_rollouts, view),
    );
    waiting(&mut page, &status.waiting, view);
    page.finish()
}

/// The fleet-wide stop in one line.
pub(crate) fn andon(andon: Option<&v1::AndonState>, view: &View) -> String {
    match andon {
        Some(_) => format!("andon is {}", stopped(andon, view)),
        None => format!("andon is {}: changes spread", paint("off", Tone::Good)),
    }
}

/// Who stopped the fleet, since when and why.
fn stopped(andon: Option<&v1::AndonState>, view: &View) -> String {
    let on = paint("ON", Tone::Bad);
    let Some(andon) = andon.filter(|andon| andon.at.is_some()) else {
        return format!("{on}: no change leaves the control service");
    };
    format!(
        "{on} by {}, {}: {}",
        clean(&andon.by),
        when(andon.at, view),
        clean(&andon.reason)
    )
}

fn waiting(page: &mut Page, waiting: &[v1::Waiting], view: &View) {
    let n_shown = if view.wide {
        waiting.len()
    } else {
        WAITING_SHOWN
    };
    let mut table = Table::new(&["DEPLOYMENT", "WHY IT WAITS…"]);
    for waiting in waiting.iter().take(n_shown) {
        table.row(vec![
            (&waiting.deployment).into(),
            (&waiting.sentence).into(),
        ]);
    }
    page.table("Waiting", &table);
    if waiting.len() > n_shown {
        page.line(format_args!(
            "… and {} more: -o wide",
            counted((waiting.len() - n_shown) as u64, "deployment")
        ));
    }
}
