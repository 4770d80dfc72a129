//! Prints an error with its sources.

use std::error::Error;

/// The error and its sources, joined by `: `. A text that its predecessor already ends with is not repeated, as some
/// foreign errors print their source themselves.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    let mut next = error.source();
    while let Some(source) = next {
        let this = source.to_string();
        if !last.ends_with(&this) {
            text.push_str(": ");
            text.push_str(&this);
        }
        last = this;
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    fn chain(texts: &[&'static str]) -> Option<Box<Link>> {
        let (text, rest) = texts.split_first()?;
        Some(Box::new(Link {
            text,
            source: chain(rest),
        }))
    }

    #[test]
    fn each_link_appears_once() {
        let cases: [(&[&str], &str); 4] = [
            (&["alone"], "alone"),
            (
                &["cannot read a", "no such file"],
                "cannot read a: no such file",
            ),
            (&["outer: inner", "inner", "root"], "outer: inner: root"),
            (&["a", "a", "a"], "a"),
        ];
        for (texts, expected) in cases {
            assert_eq!(error_chain(&*chain(texts).unwrap()), expected);
        }
    }
}
