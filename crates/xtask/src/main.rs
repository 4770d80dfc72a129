//! `cargo xtask`: the project's own commands.

use std::process::ExitCode;

use anyhow::{Result, bail};
use xtask::{bao, bench, binaries, demo, say, simulate};

const USAGE: &str = "\
Usage: cargo xtask <command>

  demo [--rotate] [--keep]
                     run the whole product on this machine and show a rollout; with --rotate also a key rotation
  test [arguments]   fetch OpenBao, build every binary, run every test; arguments go to the test runner
  check              format, lints, licences, then test: what CI runs
  bench [arguments]  measure against the bars of the design; `--json FILE` writes the figures down too
  simulate [--seeds N] [--from S]
                     run random scenarios of the rollout engine with optimisation, a million where no number is given";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Demo(demo::Options),
    Test(Vec<String>),
    Check,
    Bench { json: Option<std::path::PathBuf> },
    Simulate(simulate::Seeds),
    Help,
}

fn main() -> ExitCode {
    let result = parse(std::env::args().skip(1)).and_then(run);
    if let Err(error) = result {
        say::line(&format!("error: {error:#}"));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Task> {
    let mut arguments = arguments.into_iter();
    let Some(command) = arguments.next() else {
        bail!("no command given\n\n{USAGE}")
    };
    let rest: Vec<String> = arguments.collect();
    match (command.as_str(), rest.as_slice()) {
        ("test", _) => Ok(Task::Test(rest)),
        ("demo", flags) => Ok(Task::Demo(demo::options(flags)?)),
        ("bench", _) => Ok(Task::Bench {
            json: bench::arguments(&rest)?,
        }),
        ("simulate", _) => Ok(Task::Simulate(simulate::arguments(&rest)?)),
        ("check", []) => Ok(Task::Check),
        ("help" | "--help" | "-h", []) => Ok(Task::Help),
        ("check" | "help", [unexpected, ..]) => {
            bail!("`{command}` takes no argument, found `{unexpected}`")
        }
        _ => bail!("there is no command `{command}`\n\n{USAGE}"),
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Test(arguments) => test(&arguments),
        Task::Check => check(),
        Task::Demo(options) => demo::run(options),
        Task::Bench { json } => bench::run(json.as_deref()),
        Task::Simulate(seeds) => simulate::run(seeds),
        Task::Help => {
            say::line(USAGE);
            Ok(())
        }
    }
}

fn test(arguments: &[String]) -> Result<()> {
    bao::fetch()?;
    binaries::build()?;
    let arguments = arguments.iter().map(String::as_str);
    if binaries::has_tool("cargo", &["nextest", "--version"]) {
        return binaries::run(
            "cargo",
            &["nextest", "run", "--workspace"]
                .into_iter()
                .chain(arguments)
                .collect::<Vec<_>>(),
        );
    }
    say::line("cargo-nextest is not installed: using `cargo test`, which is slower");
    binaries::run(
        "cargo",
        &["test", "--workspace"]
            .into_iter()
            .chain(arguments)
            .collect::<Vec<_>>(),
    )
}

/// What a build machine runs: one list of checks, kept in `.ci/run`.
fn check() -> Result<()> {
    binaries::run("bash", &[".ci/run"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<Task> {
        parse(line.split_whitespace().map(str::to_owned)).ok()
    }

    #[test]
    fn reads_the_command_line() {
        assert_eq!(parsed("test"), Some(Task::Test(vec![])));
        assert_eq!(
            parsed("test -p keyfleet-core"),
            Some(Task::Test(vec!["-p".into(), "keyfleet-core".into()]))
        );
        assert_eq!(parsed("check"), Some(Task::Check));
        assert_eq!(parsed("--help"), Some(Task::Help));
        for wrong in ["", "check now", "demonstrate"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
