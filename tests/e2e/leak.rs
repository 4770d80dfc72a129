//! What a leak is: so many characters of a secret in a row, or more of a key than people are shown.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;

/// How the keys of a project begin; the rest is random.
pub(crate) const KEY_PREFIX: &str = "sk-proj-";

/// So many characters in a row give a secret away.
const WINDOW: usize = 12;
/// Every window of a secret holds one whole piece of this length, so that it is enough to look for pieces first.
const PIECE: usize = 6;

/// Something that must be nowhere but in its own files.
pub(crate) struct Secret {
    name: String,
    /// What no output may hold twelve characters in a row of.
    value: String,
    /// Forms that give too much away, and are whole as they stand.
    forms: Vec<String>,
    /// Beginnings of paths, below the fleet's directory, that may hold it.
    may_hold: &'static [&'static str],
}

impl Secret {
    /// A key: of it only prefix class and last four characters are shown.
    pub(crate) fn key(name: &str, key: &str) -> Self {
        let random = &key[KEY_PREFIX.len()..];
        let forms = vec![
            // One character more at either end is too much.
            format!("{KEY_PREFIX}{}", &random[..1]),
            random[random.len() - 5..].to_owned(),
            // What a provider echoes is not what we show.
            format!("...{}", tail(key)),
            format!("*{}", tail(key)),
            masked(key),
            shortened(key),
        ];
        Self {
            name: name.to_owned(),
            value: random.to_owned(),
            forms,
            may_hold: &[],
        }
    }

    /// Something random that may lie in some files.
    pub(crate) fn random(name: &str, value: &str, may_hold: &'static [&'static str]) -> Self {
        let value = value.trim().to_owned();
        assert!(value.len() >= WINDOW, "{name} is long enough to be found");
        Self {
            name: name.to_owned(),
            value,
            forms: Vec::new(),
            may_hold,
        }
    }

    /// Something that is told from its like only as a whole.
    pub(crate) fn whole(name: &str, value: &str, may_hold: &'static [&'static str]) -> Self {
        let forms = vec![value.trim().to_owned()];
        Self {
            name: name.to_owned(),
            value: String::new(),
            forms,
            may_hold,
        }
    }
}

/// Where a secret, or too much of one, is in an output; in plain text, as hexadecimal and as a list of numbers.
pub(crate) fn search(path: &Path, text: &str, secrets: &[Secret]) -> Vec<String> {
    let mut found = Vec::new();
    for secret in secrets {
        if secret
            .may_hold
            .iter()
            .any(|beginning| path.starts_with(beginning))
        {
            continue;
        }
        let fragments = fragments(&secret.value).chain(secret.forms.iter().cloned());
        for fragment in fragments.filter(|fragment| text.contains(fragment.as_str())) {
            let line = text
                .lines()
                .find(|line| line.contains(fragment.as_str()))
                .unwrap_or_default();
            let line: String = line.chars().take(400).collect();
            found.push(format!(
                "{}: {fragment:?} of {}: {line}",
                path.display(),
                secret.name
            ));
        }
    }
    found
}

/// Twelve characters in a row hold one of the pieces whole. A piece of a random secret does not come by chance.
fn fragments(value: &str) -> impl Iterator<Item = String> {
    let pieces = value.as_bytes().chunks_exact(PIECE);
    pieces.flat_map(|piece| {
        let numbers: Vec<String> = piece.iter().map(u8::to_string).collect();
        let hexadecimal = piece.iter().map(|byte| format!("{byte:02x}")).collect();
        [
            String::from_utf8_lossy(piece).into_owned(),
            hexadecimal,
            numbers.join(", "),
        ]
    })
}

/// Letters and digits, new in each run.
pub(crate) fn random_key() -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let random = |index: u64| {
        let number = RandomState::new().hash_one(index) % 62;
        char::from(ALPHABET[usize::try_from(number).unwrap_or_default()])
    };
    let random: String = (0..48).map(random).collect();
    format!("{KEY_PREFIX}{random}")
}

/// The last four characters.
pub(crate) fn tail(key: &str) -> &str {
    &key[key.len() - 4..]
}

/// As OpenAI's 401 shows a key.
pub(crate) fn masked(key: &str) -> String {
    format!(
        "{KEY_PREFIX}{}{}",
        "*".repeat(key.len() - KEY_PREFIX.len() - 4),
        tail(key)
    )
}

/// As people shorten a key.
pub(crate) fn shortened(key: &str) -> String {
    format!("{}...{}", &key[..5], tail(key))
}
