//! What each message looks like to a person.

pub(crate) mod audit;
pub(crate) mod ca;
pub(crate) mod campaign;
pub(crate) mod connector;
pub(crate) mod deployment;
pub(crate) mod gate;
pub(crate) mod held;
pub(crate) mod key;
pub(crate) mod models;
pub(crate) mod placement;
pub(crate) mod plan;
pub(crate) mod preflight;
pub(crate) mod rollout;
pub(crate) mod simulation;
pub(crate) mod status;
mod timeline;
pub(crate) mod token;
pub(crate) mod words;

use std::fmt::{Display, Write as _};

use keyfleet_proto::v1;

use crate::output::{Table, Tone, View, clean, paint, terminal_width, when, wrap};

/// Newest events of one object that are shown without `-o wide`.
const EVENTS_SHOWN: usize = 10;

/// What stands before a sentence.
const MARK: &str = "! ";

/// Where what belongs to a sentence begins.
const DETAIL_INDENT: usize = 4;

/// Where the values of facts begin.
const FACT_INDENT: usize = 16;

/// A page of a description: facts, then sections.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page(String);

impl Page {
    /// A fact on one line; an empty one is left out.
    pub(crate) fn fact(&mut self, name: &str, value: impl Display) {
        let value = value.to_string();
        if value.is_empty() {
            return;
        }
        let name = format!("{name}:");
        let value = lines(&value, FACT_INDENT).join(&format!("\n{:FACT_INDENT$}", ""));
        self.line(format_args!("{name:<FACT_INDENT$}{value}"));
    }

    /// A sentence, in lines that fit the terminal.
    pub(crate) fn sentence(&mut self, sentence: &str) {
        self.line(lines(sentence, 0).join("\n"));
    }

    /// A line as it is.
    pub(crate) fn line(&mut self, line: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    /// A headed section with a table, or nothing where the table has no rows.
    pub(crate) fn table(&mut self, heading: &str, table: &Table) {
        if !table.is_empty() {
            self.heading(heading);
            self.line(table);
        }
    }

    /// A headed list of sentences, or nothing where there is none.
    pub(crate) fn sentences<'a>(
        &mut self,
        heading: &str,
        tone: Tone,
        sentences: impl IntoIterator<Item = &'a String>,
    ) {
        let mut sentences = sentences.into_iter().peekable();
        if sentences.peek().is_none() {
            return;
        }
        self.heading(heading);
        for sentence in sentences {
            self.marked(tone, sentence);
        }
    }

    /// A sentence with a mark before it, in lines that fit the terminal.
    pub(crate) fn marked(&mut self, tone: Tone, sentence: &str) {
        let mut mark = paint("!", tone);
        for line in lines(&clean(sentence), MARK.len()) {
            self.line(format_args!("{mark} {line}"));
            " ".clone_into(&mut mark);
        }
    }

    /// What belongs to the line before.
    pub(crate) fn indented(&mut self, text: &str) {
        for line in lines(&clean(text), DETAIL_INDENT) {
            self.line(format_args!("{:DETAIL_INDENT$}{line}", ""));
        }
    }

    /// The events, newest first as control sends them.
    pub(crate) fn events(&mut self, events: &[v1::Event], view: &View) {
        let n_shown = if view.wide {
            events.len()
        } else {
            EVENTS_SHOWN
        };
        let mut table = Table::new(&["WHEN", "WHO", "WHAT…"]);
        for event in events.iter().take(n_shown) {
            table.row(vec![
                when(event.at, view).into(),
                (&event.actor).into(),
                (&event.text).into(),
            ]);
        }
        self.table("Events", &table);
        if events.len() > n_shown {
            self.line(format_args!(
                "… and {} more: -o wide",
                events.len() - n_shown
            ));
        }
    }

    /// A heading after an empty line.
    pub(crate) fn heading(&mut self, heading: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.line(paint(heading, Tone::Plain));
    }

    /// The whole page.
    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// Text in lines that fit the terminal after an indent; in one line where stdout is none, or where it fits.
fn lines(text: &str, indent: usize) -> Vec<String> {
    match terminal_width() {
        Some(width) if indent + text.chars().count() > width => {
            wrap(text, width.saturating_sub(indent))
        }
        _ => vec![text.to_owned()],
    }
}
