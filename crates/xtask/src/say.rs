//! Prints one line for the person who runs the command. Output goes to stderr, so that stdout stays free for results.

use std::io::Write as _;

/// Prints one line. A closed terminal is no reason to stop, so an error is ignored.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
