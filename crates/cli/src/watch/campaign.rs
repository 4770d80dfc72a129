//! A campaign as it goes: a line for each change, so that a log reads well.

use jiff::Timestamp;
use keyfleet_proto::v1;

use crate::output::{Printer, clean, time_of_day};
use crate::views::{campaign, words};

/// What was said last.
#[derive(Debug, Default)]
pub(crate) struct CampaignLines {
    said: String,
}

impl CampaignLines {
    /// Says what is new.
    pub(crate) fn update(&mut self, printer: &Printer, seen: &v1::Campaign) {
        let (word, _) = words::campaign_state_word(seen.state);
        let mut text = word.to_owned();
        let proven = campaign::proven(seen);
        if !proven.is_empty() {
            text.push_str(&format!(" {proven} proven"));
        }
        let waits: Vec<String> = seen.waits.iter().map(|wait| clean(wait)).collect();
        if !waits.is_empty() {
            text.push_str(&format!(": {}", waits.join("; ")));
        }
        if text != self.said {
            printer.note(format_args!("{} {text}", time_of_day(Timestamp::now())));
            self.said = text;
        }
    }
}
