//! The exit codes, in one table that `--help` prints too.

use std::process::ExitCode;

/// How the command ended, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// An error without a code of its own.
    Error = 1,
    /// Wrong arguments; clap's own code.
    Usage = 2,
    /// Control cannot be reached, or does not allow it.
    NotAllowed = 3,
    /// A manifest is not valid.
    Invalid = 4,
    /// The rollout is paused or halted and waits for a person.
    Held = 5,
    /// The rollout went back.
    RolledBack = 6,
    /// The rollout was aborted, or a newer one took over.
    Ended = 7,
    /// A deadline passed.
    TimedOut = 8,
    /// `plan --exit-code`: there are changes.
    Changes = 10,
    /// `rollout simulate`: a rollout would not complete.
    WouldFail = 11,
    /// Ctrl-C, as shells count it.
    Interrupted = 130,
}

/// The table for `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0    done; for `apply --wait` and `rollout watch`: every rollout completed
  1    an error without a code of its own; `--yes` was needed; `audit verify`:
       the log is broken; `deployment preflight`: a check failed
  2    wrong arguments
  3    the control service cannot be reached, or does not allow it
  4    a manifest is not valid
  5    the rollout is paused or halted and waits for a person
  6    the rollout was rolled back
  7    the rollout was aborted, or a newer one took over
  8    timed out
  10   `plan --exit-code`: there are changes
  11   `rollout simulate`: a rollout would not complete
  130  interrupted; a rollout goes on without its watcher

Environment:
  KEYFLEET_CONFIG  the file of contexts, else keyfleet/config.toml in
                   $XDG_CONFIG_HOME or ~/.config
  HTTPS_PROXY      HTTP proxy before the control service; NO_PROXY lists
                   hosts that are reached without it
  NO_COLOR         no colours";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_code() {
        let all = [
            Exit::Ok,
            Exit::Error,
            Exit::Usage,
            Exit::NotAllowed,
            Exit::Invalid,
            Exit::Held,
            Exit::RolledBack,
            Exit::Ended,
            Exit::TimedOut,
            Exit::Changes,
            Exit::WouldFail,
            Exit::Interrupted,
        ];
        for exit in all {
            assert!(HELP.contains(&format!("\n  {:<5}", exit as u8)), "{exit:?}");
        }
    }
}
