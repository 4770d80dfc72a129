//! How far a simulation has come: one bar on a terminal, nothing elsewhere, for it takes seconds.

use indicatif::{ProgressBar, ProgressDrawTarget};
use keyfleet_proto::v1;

use super::bars::{REDRAWS_HZ, possible, style};
use crate::duration;
use crate::output::{Printer, clean};

/// The bar of a simulation; it goes away with its owner.
#[derive(Debug)]
pub(crate) struct Trial(Option<ProgressBar>);

impl Trial {
    /// A bar where a person looks at a terminal.
    pub(crate) fn new(printer: &Printer) -> Self {
        let is_seen = !printer.is_quiet() && !printer.is_machine() && possible();
        Self(is_seen.then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_HZ);
            ProgressBar::with_draw_target(None, target)
                .with_style(style("simulating {bar:20} {pos}/{len} {wide_msg}"))
        }))
    }

    /// Draws the new state.
    pub(crate) fn update(&self, progress: &v1::SimulationProgress) {
        let Some(bar) = &self.0 else { return };
        bar.set_length(progress.deployments.into());
        bar.set_position(progress.settled.into());
        let time = duration::short(progress.virtual_secs);
        bar.set_message(format!("{time}  {}", clean(&progress.now)));
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
