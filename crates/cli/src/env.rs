//! The environment: the only module that reads it. (`NO_COLOR` is read by anstream.)

use std::ffi::OsString;
use std::path::PathBuf;

use secrecy::SecretString;

/// Where the address of a proxy may be, the first one counts: the order of curl.
const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// Where the hosts are listed that are reached without a proxy.
const NO_PROXY_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// Where the contexts may be and what stands before the control service, from the environment.
#[derive(Debug, Default)]
pub(crate) struct Env {
    /// `KEYFLEET_CONFIG`: the file itself.
    pub(crate) config: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`: the folder of all configuration.
    pub(crate) xdg_config_home: Option<PathBuf>,
    /// `HOME`.
    pub(crate) home: Option<PathBuf>,
    /// The proxy with the variable that names it; it may hold a password.
    pub(crate) proxy: Option<(&'static str, SecretString)>,
    /// Hosts that are reached without the proxy.
    pub(crate) no_proxy: String,
}

impl Env {
    /// Reads the variables; an empty one counts as not set.
    pub(crate) fn read() -> Self {
        Self {
            config: path("KEYFLEET_CONFIG"),
            xdg_config_home: path("XDG_CONFIG_HOME"),
            home: path("HOME"),
            proxy: PROXY_VARIABLES
                .into_iter()
                .find_map(|name| Some((name, SecretString::from(text(name)?)))),
            no_proxy: NO_PROXY_VARIABLES
                .into_iter()
                .find_map(text)
                .unwrap_or_default(),
        }
    }
}

fn text(name: &str) -> Option<String> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
    // What is no text cannot be an address either, and is refused where it is read.
    Some(value.to_string_lossy().into_owned())
}

fn path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value: &OsString| !value.is_empty())
        .map(PathBuf::from)
}
