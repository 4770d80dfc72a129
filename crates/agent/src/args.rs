//! The command line, read by hand: the agent has three forms of it and stays small.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};

const HELP: &str = "\
The light agent beside a Kibana: applies connectors that the control service sends, and proves them.

Usage: keyfleet-agent run --config FILE           enrols if needed, then runs until SIGTERM
       keyfleet-agent check-config --config FILE  checks settings and files, connects nowhere
       keyfleet-agent defaults                    prints every setting with its default
       keyfleet-agent --version | --help

With --deployments DIR one process is the agent of many Kibanas: each DIR/*.toml, laid over FILE, is one of them.

Exit codes: 0 stopped or all well, 1 an operator must act (the last line on stderr says what).
";

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Run,
    CheckConfig,
}

/// What to do, with which file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) action: Action,
    pub(crate) file: PathBuf,
    /// One process for many Kibanas: the directory of their files.
    pub(crate) deployments: Option<PathBuf>,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Print this and end.
    Say(String),
    Do(Args),
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> anyhow::Result<Parsed> {
    let (mut action, mut file, mut deployments) = (None, None, None);
    let mut args = args;
    while let Some(arg) = args.next() {
        match arg.to_str().unwrap_or_default() {
            "--help" | "-h" | "help" => return Ok(Parsed::Say(HELP.to_owned())),
            "--version" | "-V" => {
                return Ok(Parsed::Say(format!(
                    "keyfleet-agent {}",
                    env!("CARGO_PKG_VERSION")
                )));
            }
            "defaults" => return Ok(Parsed::Say(keyfleet_agent::config::DEFAULTS.to_owned())),
            "run" if action.is_none() => action = Some(Action::Run),
            "check-config" if action.is_none() => action = Some(Action::CheckConfig),
            "--config" => file = Some(args.next().context("--config wants a file")?.into()),
            "--deployments" => {
                let directory = args.next().context("--deployments wants a directory")?;
                deployments = Some(directory.into());
            }
            other => match other.split_once('=') {
                Some(("--config", path)) => file = Some(path.into()),
                Some(("--deployments", path)) => deployments = Some(path.into()),
                _ => bail!("unknown argument {arg:?}; try --help"),
            },
        }
    }
    let action = action.context("say what to do: run or check-config; try --help")?;
    let file = file.context("say where the settings are: --config FILE")?;
    Ok(Parsed::Do(Args {
        action,
        file,
        deployments,
    }))
}

/// Prints a line to stdout; a reader that has gone away is no error.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{}", text.trim_end()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints the reason why the process ends to stderr.
pub(crate) fn complain(text: &str) {
    // Where stderr is closed nobody listens.
    let _ = writeln!(
        std::io::stderr().lock(),
        "keyfleet-agent: {}",
        keyfleet_seal::scrub(text)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str]) -> Result<Parsed, String> {
        parse(args.iter().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_three_forms() {
        let args = |action| {
            Ok(Parsed::Do(Args {
                action,
                file: "a.toml".into(),
                deployments: None,
            }))
        };
        assert_eq!(check(&["run", "--config", "a.toml"]), args(Action::Run));
        assert_eq!(
            check(&["--config=a.toml", "check-config"]),
            args(Action::CheckConfig)
        );
        let many = |args: &[&str]| match check(args) {
            Ok(Parsed::Do(args)) => args.deployments,
            other => panic!("{other:?}"),
        };
        let directory = Some("d".into());
        assert_eq!(
            many(&["run", "--config", "a.toml", "--deployments", "d"]),
            directory
        );
        assert_eq!(
            many(&["run", "--config=a.toml", "--deployments=d"]),
            directory
        );
        assert!(matches!(check(&["--help"]), Ok(Parsed::Say(text)) if text.contains("Usage")));
        assert!(
            matches!(check(&["--version"]), Ok(Parsed::Say(text)) if text.starts_with("keyfleet-agent "))
        );
        assert!(matches!(check(&["defaults"]), Ok(Parsed::Say(text)) if text.contains("[kibana]")));
    }

    #[test]
    fn mistakes_are_told() {
        for (args, expected) in [
            (&["run"][..], "--config FILE"),
            (&["--config", "x"], "run or check-config"),
            (&["run", "--config"], "wants a file"),
            (&["run", "run", "--config", "x"], "unknown argument"),
            (&["--colour"], "unknown argument"),
        ] {
            let error = check(args).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
