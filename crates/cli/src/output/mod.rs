//! The one writer: data to stdout, everything else to stderr. A closed pipe is no error.

mod json;
mod table;
mod text;
mod time;

use std::fmt::Display;
use std::io::{self, BufRead as _, IsTerminal as _, Write};

use jiff::Timestamp;
use prost::{Message, Name};
use serde::Serialize;

pub(crate) use json::Canonical;
pub(crate) use table::{Cell, Table, terminal_width};
pub(crate) use text::{Tone, clean, clean_lines, counted, paint, unique_len, wrap};
pub(crate) use time::{rfc3339, time_of_day, when};

use crate::cli::{Format, Global};
use crate::error::{Error, chain};

/// Where and how to print.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    quiet: bool,
}

/// What a view for people needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// Every column, full ids, full times.
    pub(crate) wide: bool,
    /// Ages are counted from here.
    pub(crate) now: Timestamp,
}

impl Printer {
    /// A printer as the flags say.
    pub(crate) fn new(global: &Global) -> Self {
        if global.no_color {
            anstream::ColorChoice::Never.write_global();
        }
        Self {
            format: global.output,
            quiet: global.quiet,
        }
    }

    /// True where a machine reads the output.
    pub(crate) fn is_machine(&self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    /// True where notes and progress are not wanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// The view for people.
    pub(crate) fn view(&self) -> View {
        View {
            wide: self.format == Format::Wide,
            now: Timestamp::now(),
        }
    }

    /// Prints a message: as it is for a machine, through `people` for a person.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub(crate) fn show<M: Message + Name>(
        &self,
        message: &M,
        people: impl FnOnce(&View) -> String,
    ) -> Result<(), Error> {
        if self.is_machine() {
            return self.machine(&Canonical::new(message)?);
        }
        self.text(&people(&self.view()))
    }

    /// Prints a list like [`Printer::show`]; an empty one is a note, so that a pipe stays empty.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub(crate) fn show_list<M: Message + Name>(
        &self,
        message: &M,
        empty: Option<&str>,
        people: impl FnOnce(&View) -> String,
    ) -> Result<(), Error> {
        match empty {
            Some(note) if !self.is_machine() => {
                self.note(note);
                Ok(())
            }
            _ => self.show(message, people),
        }
    }

    /// Prints any value for a machine.
    ///
    /// # Errors
    /// Where it cannot be formatted or stdout cannot be written.
    pub(crate) fn machine(&self, value: &impl Serialize) -> Result<(), Error> {
        self.text(&json::format(self.format, value)?)
    }

    /// Prints one line of JSON, or one YAML document: for streams of values.
    ///
    /// # Errors
    /// Where it cannot be formatted or stdout cannot be written.
    pub(crate) fn machine_item(&self, value: &impl Serialize) -> Result<(), Error> {
        self.text(&json::format_item(self.format, value)?)
    }

    /// Prints data to stdout, ended by one newline.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub(crate) fn text(&self, text: &str) -> Result<(), Error> {
        let mut out = anstream::stdout().lock();
        let outcome = writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush());
        outcome.or_else(ignore_closed_pipe).map_err(Error::Output)
    }

    /// Prints a note to stderr, unless `--quiet`.
    pub(crate) fn note(&self, note: impl Display) {
        if !self.quiet {
            to_stderr(&note);
        }
    }

    /// True where a person sits before the command: at a terminal, and no machine reads the output.
    pub(crate) fn can_ask(&self) -> bool {
        !self.is_machine() && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Shows what is about to happen, also with `--quiet`: nobody agrees to what they did not see.
    pub(crate) fn before(&self, page: &str) {
        to_stderr(&format_args!("{}\n", page.trim_end()));
    }

    /// Asks a person; everything but a clear yes is no.
    pub(crate) fn ask(&self, question: &str) -> bool {
        let mut err = anstream::stderr();
        let _ = write!(err, "{} [y/N] ", paint(question, Tone::Between)).and_then(|()| err.flush());
        let mut answer = String::new();
        // What cannot be read is no yes.
        let _ = io::stdin().lock().read_line(&mut answer);
        if !answer.ends_with('\n') {
            // Ctrl-D leaves the cursor behind the question.
            to_stderr(&"");
        }
        matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
    }

    /// Prints an error with its hint to stderr.
    pub(crate) fn error(&self, err: &Error) {
        let text = clean_lines(&chain(err));
        to_stderr(&format_args!("{} {text}", paint("error:", Tone::Bad)));
        if let Some(hint) = err.hint() {
            to_stderr(&format_args!("{} {hint}", paint("hint:", Tone::Good)));
        }
    }
}

/// Where stderr cannot be written there is nobody left to tell.
fn to_stderr(text: &dyn Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

fn ignore_closed_pipe(err: io::Error) -> io::Result<()> {
    if err.kind() == io::ErrorKind::BrokenPipe {
        Ok(())
    } else {
        Err(err)
    }
}
