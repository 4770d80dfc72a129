//! The live view on a terminal: a bar for each wave, and why things wait below them.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use keyfleet_proto::v1;

use crate::output::{Tone, clean, paint};
use crate::views::rollout::{left, short_id, waiting_as_a_whole, wave_done, wave_marks};
use crate::views::{gate, words};

/// Redraws a second: enough to look alive.
pub(super) const REDRAWS_HZ: u8 = 10;

/// How often the clock in the head line moves.
const TICK: Duration = Duration::from_millis(250);

/// True where the view can redraw its lines.
pub(super) fn possible() -> bool {
    std::io::stderr().is_terminal() && std::io::stdout().is_terminal()
}

/// All bars of all rollouts that are watched.
#[derive(Debug)]
pub(super) struct Bars {
    all: MultiProgress,
    rollouts: BTreeMap<String, RolloutBars>,
}

/// The lines of one rollout.
#[derive(Debug)]
struct RolloutBars {
    head: ProgressBar,
    waves: Vec<ProgressBar>,
    foot: ProgressBar,
}

impl Bars {
    /// Draws on stderr, so that stdout stays data.
    pub(super) fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS_HZ));
        Self {
            all,
            rollouts: BTreeMap::new(),
        }
    }

    /// Draws the new state.
    pub(super) fn update(&mut self, rollout: &v1::Rollout) {
        let all = &self.all;
        let bars = self
            .rollouts
            .entry(rollout.id.clone())
            .or_insert_with(|| RolloutBars::new(all, rollout));
        bars.update(rollout);
    }

    /// Says a sentence above the bars.
    pub(super) fn trouble(&mut self, text: &str) {
        // Where the terminal is gone there is nobody left to tell.
        let _ = self.all.println(text);
    }
}

impl Drop for Bars {
    /// The last state stays on the screen.
    fn drop(&mut self) {
        for bars in self.rollouts.values() {
            bars.head.abandon();
            for wave in &bars.waves {
                wave.abandon();
            }
            bars.foot.finish_and_clear();
        }
    }
}

impl RolloutBars {
    fn new(all: &MultiProgress, rollout: &v1::Rollout) -> Self {
        let head = all
            .add(ProgressBar::no_length())
            .with_style(style("{spinner} {wide_msg} {elapsed}"));
        head.enable_steady_tick(TICK);
        let name_chars = rollout
            .waves
            .iter()
            .map(|wave| wave.name.chars().count())
            .max()
            .unwrap_or_default();
        let add = |wave: &v1::Wave| {
            let template =
                format!("  {{prefix:{name_chars}}} {{bar:20}} {{pos:>3}}/{{len}} {{wide_msg}}");
            let bar = all
                .add(ProgressBar::new(wave.deployments.into()))
                .with_style(style(&template));
            bar.with_prefix(clean(&wave.name))
        };
        let waves = rollout.waves.iter().map(add).collect();
        let foot = all.add(ProgressBar::no_length()).with_style(style("{msg}"));
        Self { head, waves, foot }
    }

    fn update(&self, rollout: &v1::Rollout) {
        let phase = paint(
            words::phase_word(rollout.phase),
            words::phase_tone(rollout.phase),
        );
        let why = if rollout.reason.is_empty() {
            &rollout.cause
        } else {
            &rollout.reason
        };
        let left = left(rollout)
            .map(|left| format!("  {left}"))
            .unwrap_or_default();
        self.head.set_message(colored(&format!(
            "rollout {} {phase}{left}  {}",
            short_id(&rollout.id),
            clean(why)
        )));
        for (bar, wave) in self.waves.iter().zip(&rollout.waves) {
            let (counts, tone) = words::counts(&wave.states);
            let marks = wave_marks(wave);
            let marks = if marks.is_empty() {
                marks
            } else {
                format!("  ({marks})")
            };
            let counts = if counts.is_empty() {
                counts
            } else {
                paint(&counts, tone)
            };
            bar.set_message(colored(&format!("{counts}{marks}")));
            // Deployments may leave the rollout.
            bar.set_length(wave.deployments.into());
            bar.set_position(wave_done(wave).into());
        }
        let mark = paint("!", Tone::Between);
        let held = waiting_as_a_whole(rollout)
            .chain(gate::not_passing(rollout))
            .map(|sentence| format!("  {mark} {}", clean(&sentence)));
        let held: Vec<String> = held.collect();
        self.foot.set_message(colored(&held.join("\n")));
    }
}

/// indicatif writes past the writer that takes colours out, so they are taken out here.
fn colored(text: &str) -> String {
    match anstream::AutoStream::choice(&std::io::stderr()) {
        anstream::ColorChoice::Never => anstream::adapter::strip_str(text).to_string(),
        anstream::ColorChoice::Auto
        | anstream::ColorChoice::AlwaysAnsi
        | anstream::ColorChoice::Always => text.to_owned(),
    }
}

pub(super) fn style(template: &str) -> ProgressStyle {
    // The templates are ours; a broken one would only look plain.
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("━╸─").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}
