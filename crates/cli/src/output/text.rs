//! Words and colours.

use anstyle::{AnsiColor, Style};

/// What a colour means; the word beside it means the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tone {
    /// Nothing special.
    Plain,
    /// As it should be.
    Good,
    /// On its way, or waiting.
    Between,
    /// Broken.
    Bad,
}

impl Tone {
    /// The colour in tables.
    pub(super) fn color(self) -> Option<comfy_table::Color> {
        match self {
            Self::Plain => None,
            Self::Good => Some(comfy_table::Color::DarkGreen),
            Self::Between => Some(comfy_table::Color::DarkYellow),
            Self::Bad => Some(comfy_table::Color::DarkRed),
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new().bold(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Between => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// Text in the colour of its meaning; plain text becomes bold. The writer takes colours out where nobody sees them.
pub(crate) fn paint(text: &str, tone: Tone) -> String {
    let style = tone.style();
    format!("{style}{text}{style:#}")
}

/// Text from elsewhere on one line, without control characters that a terminal would obey.
pub(crate) fn clean(text: &str) -> String {
    visible(text).trim().to_owned()
}

/// The same, keeping line breaks.
pub(crate) fn clean_lines(text: &str) -> String {
    text.lines().map(visible).collect::<Vec<_>>().join("\n")
}

fn visible(text: &str) -> String {
    let is_shown = |c: char| !c.is_control() && !turns_around(c);
    text.chars()
        .map(|c| if is_shown(c) { c } else { ' ' })
        .collect()
}

/// True for what makes a terminal show the characters after it in another order (Unicode UAX #9).
fn turns_around(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text in lines of at most so many characters; a longer word keeps its own line.
pub(crate) fn wrap(text: &str, chars_max: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let chars = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && chars > chars_max {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// A count with its noun: `1 deployment`, `3 deployments`.
pub(crate) fn counted(n: impl Into<u64>, noun: &str) -> String {
    let n = n.into();
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {noun}{plural}")
}

/// Fewest characters of an id that are shown.
const ID_CHARS_MIN: usize = 8;

/// How many characters tell all of these ids apart: at least eight.
pub(crate) fn unique_len<'a>(ids: impl IntoIterator<Item = &'a str>) -> usize {
    let mut ids: Vec<&str> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    let shared = |a: &str, b: &str| a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let longest = ids
        .iter()
        .zip(ids.iter().skip(1))
        .map(|(a, b)| shared(a, b))
        .max();
    longest.map_or(ID_CHARS_MIN, |longest| ID_CHARS_MIN.max(longest + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_as_long_as_they_must_be() {
        assert_eq!(unique_len([]), 8);
        assert_eq!(unique_len(["0192f3a4-5b6c", "0192f3a4-5b6c"]), 8);
        assert_eq!(unique_len(["0192f3a4-5b6c", "0192f3a4-5b7c", "1"]), 12);
    }

    #[test]
    fn a_terminal_obeys_nothing_foreign() {
        assert_eq!(clean("\u{1b}[2Jhello\nworld "), "[2Jhello world");
        assert_eq!(clean_lines("a\u{7}b\nc\r\n"), "a b\nc");
        assert_eq!(clean("all \u{202e}llew\u{2069}"), "all  llew");
    }
}
