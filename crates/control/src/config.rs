//! Settings: embedded defaults, then a file, then the environment, then flags; read once, checked, frozen.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyfleet_vault::{Auth, Settings as VaultSettings};
use serde::Deserialize;
use url::Url;

/// The documented defaults; also what `keyfleet-control check-config --defaults` prints.
pub const DEFAULTS: &str = include_str!("control.default.toml");

const ENV_PREFIX: &str = "KEYFLEET_CONTROL";

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file, the environment or the form of a value.
    #[error("settings cannot be read")]
    Read(#[from] config::ConfigError),
    /// A setting that does not exist.
    #[error(
        "unknown setting `{name}`: see `keyfleet-control check-config --defaults` for all there are"
    )]
    Unknown {
        /// Its path.
        name: String,
    },
    /// A setting whose value has the wrong form.
    #[error("setting `{name}` is not valid: {problem}")]
    Invalid {
        /// Its path.
        name: String,
        /// What is wrong and what to write.
        problem: String,
    },
}

/// All settings, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the database and the keys of `init` lie.
    pub data_dir: PathBuf,
    /// The agents' port.
    pub agents: Agents,
    /// The operators' port.
    pub operators: Port,
    /// How to reach Vault.
    pub vault: VaultSettings,
    /// How often Vault is asked for new versions.
    pub vault_poll: Duration,
    /// Beginnings of `mount/path` that may serve as Keys.
    pub key_paths: Vec<String>,
    /// Ask the provider about refused keys; with this deadline.
    pub verify: Option<Duration>,
    /// Logs as JSON.
    pub log_json: bool,
    /// Levels.
    pub log_filter: String,
    /// How long shutting down may take.
    pub shutdown_deadline: Duration,
}

/// A listening address and the names in its certificate.
#[derive(Debug, Clone, Deserialize)]
pub struct Port {
    /// Address and port.
    pub listen: SocketAddr,
    /// DNS names and IP addresses.
    pub names: Vec<String>,
}

/// Settings of the agents' port.
#[derive(Debug, Clone)]
pub struct Agents {
    /// Where.
    pub port: Port,
    /// Heartbeat interval.
    pub heartbeat: Duration,
    /// Live calls per minute and agent; 0 = no limit.
    pub probes_per_minute: u32,
    /// How long a certificate lives.
    pub certificate_lifetime: Duration,
    /// How often an unchanged connector is proven; 0 = never.
    pub idle_probe: Duration,
}

#[derive(Deserialize)]
struct Raw {
    data_dir: PathBuf,
    agents: RawAgents,
    operators: Port,
    vault: RawVault,
    provider: RawProvider,
    log: RawLog,
    shutdown: RawShutdown,
}

#[derive(Deserialize)]
struct RawAgents {
    listen: SocketAddr,
    names: Vec<String>,
    heartbeat_secs: u32,
    probes_per_minute: u32,
    certificate_days: u32,
    idle_probe_hours: u32,
}

#[derive(Deserialize)]
struct RawVault {
    address: String,
    ca_file: PathBuf,
    namespace: String,
    auth: String,
    token_file: PathBuf,
    approle_mount: String,
    approle_role_id: String,
    approle_secret_id_file: PathBuf,
    timeout_secs: u32,
    poll_interval_secs: u32,
    key_paths: Vec<String>,
}

#[derive(Deserialize)]
struct RawProvider {
    verify: bool,
    timeout_secs: u32,
}

#[derive(Deserialize)]
struct RawLog {
    format: String,
    filter: String,
}

#[derive(Deserialize)]
struct RawShutdown {
    deadline_secs: u32,
}

/// Reads the settings; `data_dir` is the one flag that overrides them.
///
/// # Errors
/// [`Error`], naming the setting.
pub fn load(file: Option<&Path>, data_dir: Option<PathBuf>) -> Result<Config, Error> {
    let mut builder = config::Config::builder()
        .add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml));
    if let Some(file) = file {
        builder = builder.add_source(config::File::from(file).format(config::FileFormat::Toml));
    }
    let environment = config::Environment::with_prefix(ENV_PREFIX)
        .prefix_separator("__")
        .separator("__")
        .list_separator(",")
        .with_list_parse_key("agents.names")
        .with_list_parse_key("operators.names")
        .with_list_parse_key("vault.key_paths")
        .try_parsing(true);
    let merged = builder.add_source(environment).build()?;
    let mut raw = deserialize(merged)?;
    if let Some(data_dir) = data_dir {
        raw.data_dir = data_dir;
    }
    check(raw)
}

fn deserialize(merged: config::Config) -> Result<Raw, Error> {
    let mut unknown = None;
    let mut note = |path: serde_ignored::Path<'_>| {
        unknown.get_or_insert_with(|| path.to_string());
    };
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(merged, &mut track);
    let raw = Raw::deserialize(serde_ignored::Deserializer::new(tracked, &mut note));
    let raw = match raw {
        Ok(raw) => raw,
        Err(err) => {
            let name = track.path().to_string();
            return Err(Error::Invalid {
                name,
                problem: err.to_string(),
            });
        }
    };
    match unknown {
        Some(name) => Err(Error::Unknown { name }),
        None => Ok(raw),
    }
}

fn check(raw: Raw) -> Result<Config, Error> {
    let seconds = |secs: u32| Duration::from_secs(u64::from(secs));
    let vault = vault_settings(&raw.vault)?;
    let log_json = match raw.log.format.as_str() {
        "text" => false,
        "json" => true,
        _ => return Err(invalid("log.format", "use \"text\" or \"json\"")),
    };
    for (name, value) in [
        ("agents.heartbeat_secs", raw.agents.heartbeat_secs),
        ("agents.certificate_days", raw.agents.certificate_days),
        ("vault.timeout_secs", raw.vault.timeout_secs),
        ("vault.poll_interval_secs", raw.vault.poll_interval_secs),
        ("provider.timeout_secs", raw.provider.timeout_secs),
    ] {
        if value == 0 {
            return Err(invalid(name, "must be at least 1"));
        }
    }
    Ok(Config {
        data_dir: raw.data_dir,
        agents: Agents {
            port: Port {
                listen: raw.agents.listen,
                names: raw.agents.names,
            },
            heartbeat: seconds(raw.agents.heartbeat_secs),
            probes_per_minute: raw.agents.probes_per_minute,
            certificate_lifetime: seconds(raw.agents.certificate_days) * 86_400,
            idle_probe: seconds(raw.agents.idle_probe_hours) * 3_600,
        },
        operators: raw.operators,
        vault,
        vault_poll: seconds(raw.vault.poll_interval_secs),
        key_paths: raw.vault.key_paths,
        verify: raw
            .provider
            .verify
            .then(|| seconds(raw.provider.timeout_secs)),
        log_json,
        log_filter: raw.log.filter,
        shutdown_deadline: seconds(raw.shutdown.deadline_secs),
    })
}

fn vault_settings(raw: &RawVault) -> Result<VaultSettings, Error> {
    let auth = match raw.auth.as_str() {
        "token-file" => Auth::TokenFile(raw.token_file.clone()),
        "approle" => {
            if raw.approle_role_id.is_empty() {
                return Err(invalid(
                    "vault.approle_role_id",
                    "is empty: give the role's id",
                ));
            }
            Auth::AppRole {
                mount: raw.approle_mount.clone(),
                role_id: raw.approle_role_id.clone(),
                secret_id_file: raw.approle_secret_id_file.clone(),
            }
        }
        _ => return Err(invalid("vault.auth", "use \"token-file\" or \"approle\"")),
    };
    let address: Url = raw
        .address
        .parse()
        .map_err(|_| invalid("vault.address", "is not a URL: write https://host:8200"))?;
    let mut settings = VaultSettings::new(address, auth);
    settings.ca_file = (!raw.ca_file.as_os_str().is_empty()).then(|| raw.ca_file.clone());
    settings.namespace = (!raw.namespace.is_empty()).then(|| raw.namespace.clone());
    settings.timeout = Duration::from_secs(u64::from(raw.timeout_secs));
    Ok(settings)
}

fn invalid(name: &str, problem: &str) -> Error {
    Error::Invalid {
        name: name.to_owned(),
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn with_file(text: &str) -> Result<Config, Error> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        load(Some(file.path()), None)
    }

    #[test]
    fn the_defaults_are_valid_and_a_file_overrides_them() {
        assert_eq!(load(None, None).unwrap().agents.port.listen.port(), 9443);
        let config = with_file("[agents]\nlisten = \"127.0.0.1:1\"\n").unwrap();
        assert_eq!(config.agents.port.listen.port(), 1);
        assert_eq!(config.operators.listen.port(), 9444);
    }

    #[test]
    fn every_kind_of_mistake_names_the_setting() {
        let cases = [
            ("[agents]\nlisen = \"127.0.0.1:1\"\n", "agents.lisen"),
            ("[agents]\nlisten = \"somewhere\"\n", "agents.listen"),
            ("[vault]\nauth = \"magic\"\n", "vault.auth"),
            ("[vault]\nauth = \"approle\"\n", "vault.approle_role_id"),
            (
                "[vault]\npoll_interval_secs = 0\n",
                "vault.poll_interval_secs",
            ),
            ("[log]\nformat = \"xml\"\n", "log.format"),
        ];
        for (text, name) in cases {
            let err = with_file(text).unwrap_err().to_string();
            assert!(err.contains(name), "{text}: {err}");
        }
    }
}
