//! `cargo xtask simulate`: many more random scenarios of the one simulator than the tests run, built with optimisation.

use anyhow::{Context as _, Result, bail, ensure};

use crate::{binaries, say};

/// Scenarios where none are asked for.
const SEEDS: u64 = 1_000_000;

/// Scenarios between two lines of progress.
const STRIDE: u64 = 10_000;

/// The tests that share them, by the beginning of their names in `keyfleet-control`.
const TEST: &str = "simulate::seeds::every_seed";

/// What `cargo` runs them with.
const RUNNER: &[&str] = &[
    "test",
    "--quiet",
    "--release",
    "-p",
    "keyfleet-control",
    "--lib",
    TEST,
];

/// Which scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeds {
    /// How many.
    pub count: u64,
    /// The first.
    pub from: u64,
}

/// The command line's arguments: `--seeds N` and `--from S`, each at most once.
///
/// # Errors
/// Anything else.
pub fn arguments(arguments: &[String]) -> Result<Seeds> {
    let mut seeds = Seeds {
        count: SEEDS,
        from: 0,
    };
    for pair in arguments.chunks(2) {
        let [flag, number] = pair else {
            bail!("`{}` needs a number", pair.concat())
        };
        let number = number.parse();
        let number = number.with_context(|| format!("`{flag}` needs a whole number"))?;
        match flag.as_str() {
            "--seeds" => seeds.count = number,
            "--from" => seeds.from = number,
            _ => bail!("`simulate` takes `--seeds N` and `--from S`, found `{flag}`"),
        }
    }
    Ok(seeds)
}

/// Runs them, a stride at a time; ends at the first that fails, whose seed and story the test has printed by then.
///
/// # Errors
/// A scenario failed, or nothing could be built.
pub fn run(seeds: Seeds) -> Result<()> {
    // A filter that fits no test would succeed for ever.
    let list = [RUNNER, &["--", "--list"]].concat();
    ensure!(
        binaries::output("cargo", &list)?.contains(TEST),
        "no test of keyfleet-control begins with `{TEST}`: there are no scenarios to run"
    );
    let end = seeds.from.saturating_add(seeds.count);
    let mut from = seeds.from;
    while from < end {
        let count = STRIDE.min(end - from);
        let (count_text, from_text) = (count.to_string(), from.to_string());
        let environment = [
            ("KEYFLEET_SEEDS", count_text.as_str()),
            ("KEYFLEET_SEED_FROM", from_text.as_str()),
        ];
        binaries::run_with("cargo", RUNNER, &environment)?;
        from += count;
        say::line(&format!(
            "{} of {} scenarios hold",
            from - seeds.from,
            seeds.count
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_command_line() {
        let read = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            arguments(&words)
                .ok()
                .map(|seeds| (seeds.count, seeds.from))
        };
        assert_eq!(read(""), Some((SEEDS, 0)));
        assert_eq!(read("--seeds 5 --from 7"), Some((5, 7)));
        assert_eq!(read("--from 7"), Some((SEEDS, 7)));
        for wrong in ["--seeds", "--seeds x", "--seeds -1", "5", "--fast 1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
