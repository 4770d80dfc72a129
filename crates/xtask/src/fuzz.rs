//! Hostile input for parsers: kept examples, and what chance makes of them.
//!
//! A parser's examples lie in a folder of its own, `tests/corpus/<what>` of its crate; what once broke a parser is
//! added there and tried first ever after. [`run`] tries each as it is, then in as many mutations as
//! `KEYFLEET_FUZZ_ROUNDS` says; without it a few, the same at every run. Every case has a number, the seed of all chance in it: a case that fails prints it, and
//! `KEYFLEET_FUZZ_SEED=<number>` begins with that very case.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::say;

/// Mutations where nobody asks for more: enough to find what is easily found, at every run of the tests.
const ROUNDS: u64 = 2_000;

/// The usual number of rounds ends early after this time, so that the tests stay quick on a slow machine.
const TIME: Duration = Duration::from_millis(1_500);

/// What takes longer than this is not bounded by the size of its input.
const CASE_TIME_MAX: Duration = Duration::from_secs(10);

/// No parser of ours needs as much for an input of some megabytes. Each test runs in a process of its own.
const MEMORY_KIB_MAX: u64 = 1 << 20;

/// The longest mutated input in bytes. Longer ones are for tests of limits.
const BYTES_MAX: usize = 64 << 10;

/// The most of a failing input that is printed.
const SHOWN_BYTES: usize = 600;

/// Numbers and characters at which parsers go wrong.
const WORDS: [&str; 26] = [
    "0",
    "-1",
    "1e999",
    "-0.0",
    "255",
    "65536",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "null",
    "true",
    "\"\"",
    "{}",
    "[]",
    "\u{0}",
    "\u{feff}",
    "\u{202e}",
    "\u{1f600}",
    "\\ud800",
    "\r\n",
    "\u{85}",
    "%00",
    "..",
    "//",
    "NaN",
];

/// A source of chance that gives the same for the same seed, on every machine and for ever (SplitMix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// Everything that follows is settled by the seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 where `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.number() % end).unwrap_or(0)
    }

    /// One of them; `None` where there is none.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }

    /// So many bytes.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.number().to_le_bytes()[0]).collect()
    }

    /// A place in the bytes, their end included.
    fn place(&mut self, bytes: &[u8]) -> usize {
        self.below(bytes.len() + 1)
    }

    /// A part of the bytes, mostly a short one.
    fn part(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let begin = self.place(bytes);
        let longest = if self.below(4) == 0 { bytes.len() } else { 16 };
        let end = (begin + self.below(longest + 1)).min(bytes.len());
        begin..end
    }
}

/// Tries `check` on every file of the corpus, then on mutations of them. `words` are what this parser knows, such as
/// the names of its fields. `check` must panic where something is wrong; an error of the parser is none.
///
/// # Panics
/// Where `check` does, a case takes much too long, or the process has grown too large; the output names the case.
pub fn run(corpus: impl AsRef<Path>, words: &[&str], mut check: impl FnMut(&[u8])) {
    let examples = examples(corpus.as_ref());
    let mut attempt = |case: &Case<'_>| {
        let begin = Instant::now();
        check(case.input);
        assert!(begin.elapsed() < CASE_TIME_MAX, "this input takes too long");
        assert!(
            memory_kib() < MEMORY_KIB_MAX,
            "this input takes too much memory"
        );
    };
    for (name, input) in &examples {
        attempt(&Case { name, input });
    }
    let all: Vec<&[u8]> = examples.iter().map(|(_, input)| input.as_slice()).collect();
    let (seed, rounds) = (number("KEYFLEET_FUZZ_SEED"), number("KEYFLEET_FUZZ_ROUNDS"));
    let end = rounds.is_none().then(|| Instant::now() + TIME);
    // The usual rounds are the same at every run; who asks for more wants new ones.
    let seed = seed.unwrap_or_else(|| rounds.map_or(0, |_| fresh_seed()));
    for round in 0..rounds.unwrap_or(ROUNDS) {
        if end.is_some_and(|end| Instant::now() > end) {
            break;
        }
        let seed = seed.wrapping_add(round);
        let name = format!("KEYFLEET_FUZZ_SEED={seed}");
        let input = mutate(&mut Chance::new(seed), &all, words);
        attempt(&Case {
            name: &name,
            input: &input,
        });
    }
}

/// A mutation of one of the examples: some edits, each a byte, a part, a word, or a piece of another example.
pub fn mutate(chance: &mut Chance, examples: &[&[u8]], words: &[&str]) -> Vec<u8> {
    let n_random = chance.below(256);
    let mut bytes = match chance.one_of(examples) {
        // Now and then no example at all: what a port gets from a stranger.
        Some(example) if chance.below(16) > 0 => example.to_vec(),
        _ => chance.bytes(n_random),
    };
    for _ in 0..=chance.below(6) {
        edit(chance, &mut bytes, examples, words);
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn edit(chance: &mut Chance, bytes: &mut Vec<u8>, examples: &[&[u8]], words: &[&str]) {
    let (part, at) = (chance.part(bytes), chance.place(bytes));
    let piece = bytes.get(part.clone()).unwrap_or_default().to_vec();
    let mut word = |known: &[&str]| {
        chance
            .one_of(known)
            .map_or(Vec::new(), |word| word.as_bytes().to_vec())
    };
    let (own, usual) = (word(words), word(&WORDS));
    match chance.below(10) {
        0 => {
            if let Some(byte) = bytes.get_mut(part.start) {
                *byte ^= 1 << chance.below(8);
            }
        }
        1 => drop(bytes.drain(part)),
        2 => bytes.truncate(at),
        3 => drop(bytes.splice(at..at, piece)),
        4 => drop(bytes.splice(part, usual)),
        5 => drop(bytes.splice(at..at, usual)),
        6 => drop(bytes.splice(part, own)),
        7 => drop(bytes.splice(at..at, own)),
        // Deep nesting, long words and many fields are all repetitions.
        8 => {
            let n = [2, 100, 10_000].get(chance.below(3)).copied().unwrap_or(2);
            let piece = piece
                .get(..piece.len().min(BYTES_MAX / n))
                .unwrap_or_default();
            drop(bytes.splice(at..at, piece.repeat(n)));
        }
        _ => {
            let other = chance.one_of(examples).copied().unwrap_or_default();
            let other = other.get(chance.part(other)).unwrap_or_default().to_vec();
            drop(bytes.splice(part, other));
        }
    }
}

/// One input on its way through a parser; says which it was where that panics.
struct Case<'a> {
    name: &'a str,
    input: &'a [u8],
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let shown = self.input.get(..SHOWN_BYTES).unwrap_or(self.input);
            say::line(&format!(
                "failed on {}: {}",
                self.name,
                shown.escape_ascii()
            ));
        }
    }
}

/// Every file of a folder, by name.
fn examples(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(dir).expect("a parser has a folder of examples");
    let mut all: Vec<_> = files
        .filter_map(|file| {
            let file = file.ok()?;
            let name = file.file_name().to_string_lossy().into_owned();
            Some((name, std::fs::read(file.path()).ok()?))
        })
        .collect();
    all.sort();
    assert!(!all.is_empty(), "the folder of examples is empty");
    all
}

#[expect(
    clippy::disallowed_methods,
    reason = "settings of a test run, read in this one place"
)]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn fresh_seed() -> u64 {
    getrandom::u64().expect("the system gives randomness") >> 16
}

/// The most memory that this process ever held; 0 where the system does not tell.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_settles_the_input_and_seeds_differ() {
        let (examples, words) = ([b"{\"name\": 1}".as_slice(), b"[]"], ["name"]);
        let inputs = || (0..200).map(|seed| mutate(&mut Chance::new(seed), &examples, &words));
        assert!(inputs().eq(inputs()));
        let different: std::collections::BTreeSet<_> = inputs().collect();
        assert!(different.len() > 150, "{}", different.len());
        assert!(different.iter().all(|input| input.len() <= BYTES_MAX));
        assert!(different.iter().any(|input| input.len() > 5_000));
    }

    #[test]
    fn a_planted_mistake_is_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("good"), "count: 17").unwrap();
        let found = std::panic::catch_unwind(|| {
            run(dir.path(), &["count"], |input| {
                let text = String::from_utf8_lossy(input);
                let number = text
                    .split_once(": ")
                    .and_then(|(_, number)| number.parse::<u64>().ok());
                assert!(number.is_none_or(|number| number < 256));
            });
        });
        assert!(found.is_err());
    }
}
