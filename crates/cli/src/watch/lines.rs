//! The live view where no terminal is: a line for each change, so that a log reads well.

use std::collections::BTreeMap;

use jiff::Timestamp;
use keyfleet_proto::v1;

use crate::output::{Printer, clean, time_of_day};
use crate::views::rollout::{left, short_id, waiting_as_a_whole, wave_done, wave_marks};
use crate::views::{gate, words};

/// What was said last, by what it was said of.
#[derive(Debug)]
pub(super) struct Lines {
    /// Waves are told apart by their rollout too.
    many: bool,
    said: BTreeMap<String, String>,
}

impl Lines {
    /// For one rollout, or for many.
    pub(super) fn new(many: bool) -> Self {
        Self {
            many,
            said: BTreeMap::new(),
        }
    }

    /// Says a sentence with the time.
    pub(super) fn say(printer: &Printer, text: &str) {
        printer.note(format_args!("{} {text}", time_of_day(Timestamp::now())));
    }

    /// Says what is new.
    pub(super) fn update(&mut self, printer: &Printer, rollout: &v1::Rollout) {
        // How long it still takes is said with other news only: it changes all the time.
        let mut left = left(rollout)
            .map(|left| format!(", {left}"))
            .unwrap_or_default();
        for (subject, text) in sentences(rollout, self.many) {
            let key = format!("{} {subject}", rollout.id);
            if self.said.get(&key) != Some(&text) {
                let left = std::mem::take(&mut left);
                Self::say(printer, &format!("{subject}{text}{left}"));
                self.said.insert(key, text);
            }
        }
    }
}

/// Everything there is to say of a rollout, as subject and rest.
fn sentences(rollout: &v1::Rollout, many: bool) -> Vec<(String, String)> {
    let reason = if rollout.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", clean(&rollout.reason))
    };
    let phase = format!(" is {}{reason}", words::phase_word(rollout.phase));
    let name = format!("rollout {}", short_id(&rollout.id));
    let of = if many {
        format!("{name} ")
    } else {
        String::new()
    };
    let mut sentences = vec![(name, phase)];
    for wave in &rollout.waves {
        let (counts, _) = words::counts(&wave.states);
        if counts.is_empty() {
            continue;
        }
        let marks = wave_marks(wave);
        let marks = if marks.is_empty() {
            marks
        } else {
            format!(" ({marks})")
        };
        let text = format!(" {}/{}: {counts}{marks}", wave_done(wave), wave.deployments);
        sentences.push((format!("{of}wave {}", clean(&wave.name)), text));
    }
    for sentence in gate::not_passing(rollout) {
        let (gate, text) = sentence.split_once(':').unwrap_or((&sentence, ""));
        sentences.push((format!("{of}{}", clean(gate)), format!(": {}", clean(text))));
    }
    let whole = waiting_as_a_whole(rollout).map(|sentence| clean(&sentence));
    let waiting = whole.collect::<Vec<_>>().join("; ");
    if !waiting.is_empty() {
        sentences.push((format!("{of}waiting"), format!(": {waiting}")));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_of_many_rollouts_are_told_apart() {
        let count = v1::StateCount {
            state: v1::BindingState::Proven.into(),
            count: 2,
        };
        let wave = v1::Wave {
            name: "canary".into(),
            deployments: 3,
            states: vec![count],
            ..v1::Wave::default()
        };
        let rollout = v1::Rollout {
            id: "0192f3a4-5b6c-7d8e".into(),
            waves: vec![wave],
            ..v1::Rollout::default()
        };
        let check = |many: bool, expect: &str| {
            let said: Vec<String> = sentences(&rollout, many)
                .into_iter()
                .map(|(subject, text)| subject + &text)
                .collect();
            assert_eq!(said.last().map(String::as_str), Some(expect));
        };
        check(false, "wave canary 2/3: 2 PROVEN");
        check(true, "rollout 0192f3a4-5b6c wave canary 2/3: 2 PROVEN");
    }
}
