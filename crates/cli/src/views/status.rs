//! The fleet in short.

use keyfleet_proto::v1;

use super::{Page, rollout, words};
use crate::output::{Table, Tone, View, counted, paint};

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
        page.fact(
            "Andon",
            paint("ON: no change leaves the control service", Tone::Bad),
        );
    }
    page.sentences("Problems", Tone::Bad, &status.problems);
    page.table(
        "Active rollouts",
        &rollout::rows(&status.active_rollouts, view),
    );
    waiting(&mut page, &status.waiting, view);
    page.finish()
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
