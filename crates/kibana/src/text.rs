//! Foreign words on their way to people.

/// The most of a name, a version or another short word of a Kibana that is kept.
pub(crate) const WORD_CHARS_MAX: usize = 200;

/// The text in one line, without what could move a terminal's cursor, and not longer than this.
pub(crate) fn one_line(text: &str, chars_max: usize) -> String {
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    shown.take(chars_max).collect()
}

/// A short word of a Kibana.
pub(crate) fn word(text: &str) -> String {
    one_line(text, WORD_CHARS_MAX)
}
