//! Tables for people: no borders, as wide as the terminal, colour always beside a word.

use std::fmt;

use comfy_table::{Attribute, ColumnConstraint, ContentArrangement};

use super::text::{Tone, clean, wrap};

/// Space between two columns.
const GAP: u16 = 2;

/// A column of sentences that would be narrower than this is printed below the rows.
const SENTENCE_CHARS_MIN: usize = 24;

/// Ends the header of a column of sentences.
const SENTENCE_MARK: char = '…';

/// Before a sentence below its row.
const INDENT: &str = "    ";

/// One cell.
#[derive(Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

/// What an empty cell shows, so that a column is never mistaken for its neighbour.
const EMPTY: &str = "-";

impl Cell {
    /// A cell that repeats the one above it, or marks nothing.
    pub(crate) fn blank() -> Self {
        Self {
            text: " ".to_owned(),
            tone: Tone::Plain,
        }
    }

    /// A cell whose colour has a meaning that its word has too.
    pub(crate) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self {
            text: clean(text.as_ref()),
            tone,
        }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// A table. A column whose header ends in `…` holds sentences and is the one that wraps.
#[derive(Debug)]
pub(crate) struct Table {
    headers: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these headers.
    pub(crate) fn new(headers: &[&str]) -> Self {
        Self {
            headers: headers.iter().map(|&header| header.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// True without rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Leaves out the columns that are empty in every row.
    pub(crate) fn without_empty_columns(mut self) -> Self {
        for index in (0..self.headers.len()).rev() {
            if self
                .rows
                .iter()
                .all(|row| row.get(index).is_none_or(|cell| cell.text.is_empty()))
            {
                self.headers.remove(index);
                for row in &mut self.rows {
                    if index < row.len() {
                        row.remove(index);
                    }
                }
            }
        }
        self
    }

    /// Narrow terminals get the sentences below their row instead of in columns of a few characters.
    fn render(&self) -> String {
        let sentences = (0..self.headers.len())
            .filter(|&index| self.is_sentence(index))
            .count();
        let facts: usize = (0..self.headers.len())
            .filter(|&index| !self.is_sentence(index))
            .map(|index| self.content_chars(index) + usize::from(GAP))
            .sum();
        match terminal_width() {
            Some(width) if facts + sentences * SENTENCE_CHARS_MIN > width => self.stacked(width),
            _ => self.table(|_| true).trim_fmt(),
        }
    }

    fn stacked(&self, width: usize) -> String {
        let mut lines: Vec<String> = Vec::new();
        let table = self.table(|index| !self.is_sentence(index)).trim_fmt();
        let mut rows = self.rows.iter();
        for (index, line) in table.lines().enumerate() {
            lines.push(line.to_owned());
            // The first line is the header; every other line is one row, for its cells do not wrap.
            if let Some(row) = (index > 0).then(|| rows.next()).flatten() {
                lines.extend(self.sentences_of(row, width));
            }
        }
        lines.join("\n")
    }

    fn sentences_of(&self, row: &[Cell], width: usize) -> Vec<String> {
        let cells = row
            .iter()
            .enumerate()
            .filter(|(index, cell)| self.is_sentence(*index) && !cell.text.is_empty());
        cells
            .flat_map(|(index, cell)| {
                let name = self.header(index).to_lowercase();
                wrap(
                    &format!("{name}: {}", cell.text),
                    width.saturating_sub(INDENT.len()),
                )
            })
            .map(|line| format!("{INDENT}{line}"))
            .collect()
    }

    /// The table of the columns that are wanted.
    fn table(&self, wanted: impl Fn(usize) -> bool) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table
            .load_style(comfy_table::presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic);
        table.enforce_styling();
        table.style_text_only();
        let columns: Vec<usize> = (0..self.headers.len())
            .filter(|&index| wanted(index))
            .collect();
        let header = |index: &usize| {
            comfy_table::Cell::new(self.header(*index)).add_attribute(Attribute::Bold)
        };
        table.set_header(columns.iter().map(header).collect::<Vec<_>>());
        for row in &self.rows {
            table.add_row(
                columns
                    .iter()
                    .filter_map(|&index| row.get(index))
                    .map(styled)
                    .collect::<Vec<_>>(),
            );
        }
        for (column, index) in table.column_iter_mut().zip(columns) {
            column.set_padding((0, GAP));
            if !self.is_sentence(index) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table
    }

    fn header(&self, index: usize) -> &str {
        self.headers
            .get(index)
            .map(|header| header.trim_end_matches(SENTENCE_MARK))
            .unwrap_or_default()
    }

    fn is_sentence(&self, index: usize) -> bool {
        self.headers
            .get(index)
            .is_some_and(|header| header.ends_with(SENTENCE_MARK))
    }

    fn content_chars(&self, index: usize) -> usize {
        let cells = self
            .rows
            .iter()
            .filter_map(|row| row.get(index))
            .map(|cell| cell.text.chars().count());
        cells
            .chain([self.header(index).chars().count()])
            .max()
            .unwrap_or_default()
    }
}

/// Columns of the terminal that stdout is; nothing where it is none.
pub(crate) fn terminal_width() -> Option<usize> {
    comfy_table::Table::new().width().map(usize::from)
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}

fn styled(cell: &Cell) -> comfy_table::Cell {
    let text = if cell.text.is_empty() {
        EMPTY
    } else {
        &cell.text
    };
    let styled = comfy_table::Cell::new(text);
    match cell.tone.color() {
        Some(color) => styled.fg(color),
        None => styled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_gets_sentences_below_their_row() {
        let mut table = Table::new(&["NAME", "WHY…"]);
        table.row(vec!["kibana-a".into(), "it waits for the canary".into()]);
        table.row(vec!["kibana-b".into(), "".into()]);
        assert_eq!(
            anstream::adapter::strip_str(&table.stacked(20)).to_string(),
            "NAME\nkibana-a\n    why: it waits\n    for the canary\nkibana-b"
        );
    }
}
