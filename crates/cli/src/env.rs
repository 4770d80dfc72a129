//! The environment: the only module that reads it. (`NO_COLOR` is read by anstream.)

use std::ffi::OsString;
use std::path::PathBuf;

/// Where the contexts may be, from the environment.
#[derive(Debug, Default)]
pub(crate) struct Env {
    /// `KEYFLEET_CONFIG`: the file itself.
    pub(crate) config: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`: the folder of all configuration.
    pub(crate) xdg_config_home: Option<PathBuf>,
    /// `HOME`.
    pub(crate) home: Option<PathBuf>,
}

impl Env {
    /// Reads the variables; an empty one counts as not set.
    pub(crate) fn read() -> Self {
        Self {
            config: path("KEYFLEET_CONFIG"),
            xdg_config_home: path("XDG_CONFIG_HOME"),
            home: path("HOME"),
        }
    }
}

fn path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value: &OsString| !value.is_empty())
        .map(PathBuf::from)
}
