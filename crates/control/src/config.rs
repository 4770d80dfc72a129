//! Settings: embedded defaults, then a file, then the environment, then flags; read once, checked, frozen.

mod vault;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use keyfleet_core::travel::{AskedHost, HostPattern, InvalidHost};
use keyfleet_vault::{Proxy, Settings as VaultSettings};
use serde::Deserialize;

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
    /// Hosts that Keys may ever travel to: exact, or `*.` and a domain.
    pub outbound_hosts: Vec<HostPattern>,
    /// How gates are asked.
    pub gates: Gates,
    /// Ask the provider about refused keys; with this deadline.
    pub verify: Option<Duration>,
    /// The proxy on the way to the provider.
    pub provider_proxy: Option<Proxy>,
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

/// Whom gates may ask, and how they are reached.
#[derive(Debug, Clone, Default)]
pub struct Gates {
    /// Hosts: exact, or `*.` and a domain; with the port where it is not that of the scheme.
    pub allowed_hosts: Vec<AskedHost>,
    /// PEM file with authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The proxy on the way.
    pub proxy: Option<Proxy>,
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
    /// Live calls per minute, all agents together; 0 = no limit.
    pub fleet_probes_per_minute: u32,
    /// How long a certificate lives.
    pub certificate_lifetime: Duration,
    /// How long after its end a certificate may still be renewed.
    pub renew_ended: Duration,
    /// An operator must allow each such renewal.
    pub renew_ended_needs_approval: bool,
    /// A rotation of the CA does not end by itself before this has passed.
    pub ca_overlap: Duration,
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
    outbound: RawOutbound,
    gates: RawGates,
    log: RawLog,
    shutdown: RawShutdown,
}

#[derive(Deserialize)]
struct RawAgents {
    listen: SocketAddr,
    names: Vec<String>,
    heartbeat_secs: u32,
    probes_per_minute: u32,
    fleet_probes_per_minute: u32,
    certificate_secs: u32,
    renew_ended_secs: u32,
    renew_ended_needs_approval: bool,
    ca_overlap_secs: u32,
    idle_probe_hours: u32,
}

#[derive(Deserialize)]
struct RawVault {
    address: String,
    more_addresses: Vec<String>,
    ca_file: PathBuf,
    namespace: String,
    login_namespace: String,
    proxy: String,
    no_proxy: Vec<String>,
    auth: String,
    token_file: PathBuf,
    approle_mount: String,
    approle_role_id: String,
    approle_secret_id_file: PathBuf,
    approle_wrapped_role: String,
    kubernetes_mount: String,
    kubernetes_role: String,
    kubernetes_token_file: PathBuf,
    jwt_mount: String,
    jwt_role: String,
    jwt_token_file: PathBuf,
    cert_mount: String,
    cert_role: String,
    cert_file: PathBuf,
    cert_key_file: PathBuf,
    timeout_secs: u32,
    poll_interval_secs: u32,
    key_paths: Vec<String>,
}

#[derive(Deserialize)]
struct RawProvider {
    verify: bool,
    timeout_secs: u32,
    proxy: String,
    no_proxy: Vec<String>,
}

#[derive(Deserialize)]
struct RawOutbound {
    allowed_hosts: Vec<String>,
}

#[derive(Deserialize)]
struct RawGates {
    allowed_hosts: Vec<String>,
    ca_file: PathBuf,
    proxy: String,
    no_proxy: Vec<String>,
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
        .with_list_parse_key("vault.more_addresses")
        .with_list_parse_key("vault.no_proxy")
        .with_list_parse_key("provider.no_proxy")
        .with_list_parse_key("outbound.allowed_hosts")
        .with_list_parse_key("gates.allowed_hosts")
        .with_list_parse_key("gates.no_proxy")
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
    let vault = vault::settings(&raw.vault, &raw.data_dir)?;
    let provider_proxy = vault::proxy("provider", &raw.provider.proxy, &raw.provider.no_proxy)?;
    let log_json = match raw.log.format.as_str() {
        "text" => false,
        "json" => true,
        _ => return Err(invalid("log.format", "use \"text\" or \"json\"")),
    };
    for (name, value) in [
        ("agents.heartbeat_secs", raw.agents.heartbeat_secs),
        ("agents.certificate_secs", raw.agents.certificate_secs),
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
            fleet_probes_per_minute: raw.agents.fleet_probes_per_minute,
            certificate_lifetime: seconds(raw.agents.certificate_secs),
            renew_ended: seconds(raw.agents.renew_ended_secs),
            renew_ended_needs_approval: raw.agents.renew_ended_needs_approval,
            ca_overlap: seconds(raw.agents.ca_overlap_secs),
            idle_probe: seconds(raw.agents.idle_probe_hours) * 3_600,
        },
        operators: raw.operators,
        vault,
        vault_poll: seconds(raw.vault.poll_interval_secs),
        key_paths: raw.vault.key_paths,
        outbound_hosts: hosts("outbound.allowed_hosts", &raw.outbound.allowed_hosts)?,
        gates: gates(raw.gates)?,
        verify: raw
            .provider
            .verify
            .then(|| seconds(raw.provider.timeout_secs)),
        provider_proxy,
        log_json,
        log_filter: raw.log.filter,
        shutdown_deadline: seconds(raw.shutdown.deadline_secs),
    })
}

fn gates(raw: RawGates) -> Result<Gates, Error> {
    Ok(Gates {
        allowed_hosts: hosts("gates.allowed_hosts", &raw.allowed_hosts)?,
        ca_file: (!raw.ca_file.as_os_str().is_empty()).then_some(raw.ca_file),
        proxy: vault::proxy("gates", &raw.proxy, &raw.no_proxy)?,
    })
}

fn hosts<H: FromStr<Err = InvalidHost>>(name: &str, raw: &[String]) -> Result<Vec<H>, Error> {
    let hosts = raw.iter().map(|host| host.parse());
    hosts
        .collect::<Result<_, InvalidHost>>()
        .map_err(|err| invalid(name, &err.to_string()))
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
            ("[vault]\nauth = \"jwt\"\n", "vault.jwt_role"),
            ("[vault]\nauth = \"kubernetes\"\n", "vault.kubernetes_role"),
            ("[vault]\nauth = \"cert\"\n", "vault.cert_file"),
            (
                "[vault]\nmore_addresses = [\"vault 2\"]\n",
                "vault.more_addresses",
            ),
            ("[vault]\nproxy = \"ftp://a:canary@b\"\n", "vault.proxy"),
            ("[provider]\nproxy = \"canary\"\n", "provider.proxy"),
            (
                "[vault]\npoll_interval_secs = 0\n",
                "vault.poll_interval_secs",
            ),
            ("[log]\nformat = \"xml\"\n", "log.format"),
            (
                "[outbound]\nallowed_hosts = [\"*\"]\n",
                "outbound.allowed_hosts",
            ),
            (
                "[gates]\nallowed_hosts = [\"prometheus:90900\"]\n",
                "gates.allowed_hosts",
            ),
            ("[gates]\nproxy = \"canary\"\n", "gates.proxy"),
        ];
        for (text, name) in cases {
            let err = with_file(text).unwrap_err().to_string();
            assert!(err.contains(name), "{text}: {err}");
            assert!(!err.contains("canary"), "{err}");
        }
    }
}
