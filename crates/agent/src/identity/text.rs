//! The text form of an identity: fields, one a line, then PEM blocks (RFC 7468, which lets text stand before them), so
//! that an operator can look at the certificate with the usual tools.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

pub(super) const PRIVATE_KEY: &str = "PRIVATE KEY";
pub(super) const SEALING_KEY: &str = "KEYFLEET SEALING KEY";
pub(super) const CERTIFICATE: &str = "CERTIFICATE";

/// Characters of a line of base64 (RFC 7468, section 2).
const LINE: usize = 64;
/// More than an identity with two CAs has: the buffer with the keys never grows, which would leave copies behind.
const CAPACITY: usize = 32 * 1024;

/// A text that is wiped when it is dropped.
pub(super) struct Text(Zeroizing<String>);

impl Text {
    pub(super) fn new(title: &str) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(CAPACITY));
        text.push_str(title);
        text.push('\n');
        Self(text)
    }

    pub(super) fn field(&mut self, name: &str, value: &str) {
        for part in [name, ": ", value, "\n"] {
            self.0.push_str(part);
        }
    }

    pub(super) fn block(&mut self, label: &str, content: &[u8]) {
        let base64 = Zeroizing::new(STANDARD.encode(content));
        for part in ["-----BEGIN ", label, "-----\n"] {
            self.0.push_str(part);
        }
        let mut rest = base64.as_str();
        while let Some((line, after)) = rest.split_at_checked(LINE) {
            self.0.push_str(line);
            self.0.push('\n');
            rest = after;
        }
        if !rest.is_empty() {
            self.0.push_str(rest);
            self.0.push('\n');
        }
        for part in ["-----END ", label, "-----\n"] {
            self.0.push_str(part);
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The value of a field.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .take_while(|line| !line.starts_with("-----"))
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// The content of every block with this label; `None` where one is broken.
pub(super) fn blocks(text: &str, label: &str) -> Option<Vec<Zeroizing<Vec<u8>>>> {
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(&begin) {
        let (inner, after) = after.split_once(&end)?;
        let base64: Zeroizing<String> =
            Zeroizing::new(inner.chars().filter(|c| !c.is_ascii_whitespace()).collect());
        found.push(Zeroizing::new(STANDARD.decode(base64.as_bytes()).ok()?));
        rest = after;
    }
    Some(found)
}

/// The content of the only block with this label.
pub(super) fn block(text: &str, label: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut found = blocks(text, label)?;
    let one = found.pop()?;
    found.is_empty().then_some(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let content: Vec<u8> = (0..=255).collect();
        let mut text = Text::new("title");
        text.field("Name", "a: b");
        text.block(PRIVATE_KEY, &content);
        text.block(CERTIFICATE, &[1]);
        text.block(CERTIFICATE, &[]);
        let text = std::str::from_utf8(text.as_bytes()).unwrap();
        assert!(text.lines().all(|line| line.len() <= LINE));
        assert_eq!(field(text, "Name"), Some("a: b"));
        assert_eq!(field(text, "Nam"), None);
        assert_eq!(*block(text, PRIVATE_KEY).unwrap(), content);
        let certificates = blocks(text, CERTIFICATE).unwrap();
        assert_eq!(certificates.len(), 2);
        assert!(block(text, CERTIFICATE).is_none(), "there are two");
        assert!(block(text, SEALING_KEY).is_none());
        assert!(blocks("-----BEGIN CERTIFICATE-----\nAAAA", CERTIFICATE).is_none());
        assert!(
            blocks(
                "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----",
                CERTIFICATE
            )
            .is_none()
        );
    }
}
