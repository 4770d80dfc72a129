//! The settings of an agent: embedded defaults < file < environment, checked once into plain structs.
//!
//! This is the only module that reads the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyfleet_core::fleet::Labels;
use keyfleet_core::id::DeploymentName;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

/// The documented defaults, which are also the template of a file.
pub const DEFAULTS: &str = include_str!("../agent.default.toml");

/// The environment's settings begin with this and two underscores.
const PREFIX: &str = "KEYFLEET_AGENT";

/// Lists that the environment gives as text with commas.
const LISTS: [&str; 3] = ["accept.connector_types", "accept.hosts", "accept.spaces"];

/// The name of the API key in the service manager's credential directory.
const CREDENTIAL_NAME: &str = "kibana-api-key";

/// The longest file that is read as a secret.
const SECRET_BYTES_MAX: u64 = 16 * 1024;

/// Everything an agent is told by its operator.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this is.
    pub deployment: Deployment,
    /// Where control is.
    pub control: Control,
    /// Where identity and ledger are kept.
    pub state_dir: PathBuf,
    /// How Kibana is reached.
    pub kibana: Kibana,
    /// What is accepted at all.
    pub accept: Accept,
    /// How often Kibana's connectors are compared with what was written.
    pub drift_interval: Duration,
    /// How the log looks.
    pub log: Log,
}

/// Who this deployment is for the fleet.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The name that operators see.
    pub name: DeploymentName,
    /// What operators select it by.
    pub labels: Labels,
}

/// The agents' port of the control service.
#[derive(Debug, Clone)]
pub struct Control {
    /// Host name or address, as its certificate names it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Holds a join token; only needed to enrol.
    pub join_token_file: Option<PathBuf>,
}

/// How Kibana is reached.
#[derive(Debug, Clone)]
pub struct Kibana {
    /// Its URL, without a space.
    pub url: Url,
    /// Holds its API key.
    pub credentials_file: PathBuf,
    /// Certificates that alone are trusted.
    pub ca_file: Option<PathBuf>,
    /// The deadline of a call.
    pub timeout: Duration,
    /// The deadline of a live call through a connector.
    pub probe_timeout: Duration,
}

/// The agent's own rules, which control cannot override.
#[derive(Debug, Clone)]
pub struct Accept {
    /// Types of connectors.
    pub connector_types: Vec<String>,
    /// Lowercase hosts without port, or `*`.
    pub hosts: Vec<String>,
    /// Ids of spaces, or `*`.
    pub spaces: Vec<String>,
}

/// How the log looks.
#[derive(Debug, Clone)]
pub struct Log {
    /// Text or JSON.
    pub format: keyfleet_telemetry::Format,
    /// In the language of tracing's `EnvFilter`.
    pub filter: String,
}

/// Why the settings cannot be used. Names the setting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there, or not TOML, or the environment cannot be read.
    #[error("cannot read the settings from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        #[source]
        source: Box<config::ConfigError>,
    },
    /// A value of the wrong type, or a setting that must be there and is not.
    #[error("setting `{setting}` cannot be used: {problem}")]
    Invalid {
        /// Its path, for example `kibana.url`.
        setting: String,
        /// What is wrong and what to write.
        problem: String,
    },
    /// A setting that does not exist.
    #[error(
        "unknown setting `{settings}`: check its spelling against the documented defaults (`keyfleet-agent --help`)"
    )]
    Unknown {
        /// Their paths, separated by commas.
        settings: String,
    },
    /// A file with a secret.
    #[error("cannot use {} as {what}: {problem}", path.display())]
    Secret {
        /// What should be in it.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A file that is not there or not readable.
    #[error("cannot read {what} from {}", path.display())]
    File {
        /// What should be in it.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Config {
    /// Reads defaults, then the file, then the environment, and checks the result.
    ///
    /// # Errors
    /// Names the setting or the file.
    pub fn load(file: &Path) -> Result<Self, Error> {
        Self::read(
            file,
            environment(),
            std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        )
    }

    fn read(
        file: &Path,
        environment: config::Environment,
        credentials: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let read = |source| Error::Read {
            path: file.to_owned(),
            source: Box::new(source),
        };
        let merged = config::Config::builder()
            .add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml))
            .add_source(config::File::from(file).format(config::FileFormat::Toml))
            .add_source(environment)
            .build()
            .map_err(read)?;
        parse(merged)?.check(credentials)
    }
}

fn environment() -> config::Environment {
    let environment = config::Environment::with_prefix(PREFIX)
        .prefix_separator("__")
        .separator("__")
        .list_separator(",")
        .try_parsing(true);
    LISTS
        .into_iter()
        .fold(environment, config::Environment::with_list_parse_key)
}

/// The settings as they are written.
#[derive(Deserialize)]
struct Raw {
    state_dir: PathBuf,
    #[serde(default)]
    deployment: RawDeployment,
    #[serde(default)]
    control: RawControl,
    kibana: RawKibana,
    accept: RawAccept,
    drift: RawDrift,
    log: RawLog,
}

#[derive(Deserialize, Default)]
struct RawDeployment {
    name: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
struct RawControl {
    address: Option<String>,
    join_token_file: Option<PathBuf>,
}

#[derive(Deserialize)]
struct RawKibana {
    url: Option<String>,
    credentials_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    timeout_secs: u64,
    probe_timeout_secs: u64,
}

#[derive(Deserialize)]
struct RawAccept {
    connector_types: Vec<String>,
    hosts: Vec<String>,
    spaces: Vec<String>,
}

#[derive(Deserialize)]
struct RawDrift {
    interval_secs: u64,
}

#[derive(Deserialize)]
struct RawLog {
    format: String,
    filter: String,
}

fn parse(merged: config::Config) -> Result<Raw, Error> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(merged, &mut track);
    let raw = serde_ignored::deserialize(tracked, |path| unknown.push(path.to_string()));
    if !unknown.is_empty() {
        return Err(Error::Unknown {
            settings: unknown.join("`, `"),
        });
    }
    raw.map_err(|error: config::ConfigError| Error::Invalid {
        setting: track.path().to_string(),
        problem: error.to_string(),
    })
}

impl Raw {
    fn check(self, credentials: Option<PathBuf>) -> Result<Config, Error> {
        let name = required("deployment.name", self.deployment.name)?;
        let name = name
            .parse()
            .map_err(|error| invalid("deployment.name", error))?;
        let labels = keyfleet_proto::labels("deployment.labels", self.deployment.labels)
            .map_err(|error| invalid("deployment.labels", error.problem))?;
        let (host, port) = control_address(&required("control.address", self.control.address)?)?;
        let control = Control {
            host,
            port,
            join_token_file: self.control.join_token_file,
        };
        let format = self
            .log
            .format
            .parse()
            .map_err(|error| invalid("log.format", error))?;
        Ok(Config {
            deployment: Deployment { name, labels },
            control,
            state_dir: self.state_dir,
            kibana: self.kibana.check(credentials)?,
            accept: self.accept.check()?,
            drift_interval: seconds("drift.interval_secs", self.drift.interval_secs)?,
            log: Log {
                format,
                filter: self.log.filter,
            },
        })
    }
}

impl RawKibana {
    fn check(self, credentials: Option<PathBuf>) -> Result<Kibana, Error> {
        let url = required("kibana.url", self.url)?;
        let url = Url::parse(&url).map_err(|error| invalid("kibana.url", error))?;
        let in_directory = || credentials.map(|directory| directory.join(CREDENTIAL_NAME));
        let credentials_file = self.credentials_file.or_else(in_directory);
        Ok(Kibana {
            url,
            credentials_file: required("kibana.credentials_file", credentials_file)?,
            ca_file: self.ca_file,
            timeout: seconds("kibana.timeout_secs", self.timeout_secs)?,
            probe_timeout: seconds("kibana.probe_timeout_secs", self.probe_timeout_secs)?,
        })
    }
}

impl RawAccept {
    fn check(self) -> Result<Accept, Error> {
        for (setting, list) in [
            ("accept.connector_types", &self.connector_types),
            ("accept.hosts", &self.hosts),
            ("accept.spaces", &self.spaces),
        ] {
            if list.iter().any(|entry| entry.trim().is_empty()) {
                return Err(invalid(setting, "it holds an empty entry"));
            }
        }
        if let Some(unknown) = self
            .connector_types
            .iter()
            .find(|id| keyfleet_kibana::driver(id).is_none())
        {
            let known: Vec<_> = keyfleet_kibana::driver_types().collect();
            let problem = format!(
                "this agent has no driver for `{unknown}`; it has {}",
                known.join(", ")
            );
            return Err(invalid("accept.connector_types", problem));
        }
        let hosts = self.hosts.iter().map(|host| without_port(host)).collect();
        Ok(Accept {
            connector_types: self.connector_types,
            hosts,
            spaces: self.spaces,
        })
    }
}

fn invalid(setting: &str, problem: impl fmt::Display) -> Error {
    Error::Invalid {
        setting: setting.to_owned(),
        problem: problem.to_string(),
    }
}

fn required<T>(setting: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| invalid(setting, "it must be set; it has no default"))
}

fn seconds(setting: &str, secs: u64) -> Result<Duration, Error> {
    match secs {
        1..=86_400 => Ok(Duration::from_secs(secs)),
        _ => Err(invalid(setting, "use 1 to 86400 seconds")),
    }
}

fn control_address(address: &str) -> Result<(String, u16), Error> {
    let wrong = || {
        invalid(
            "control.address",
            "write it as `https://host:port`, without a path",
        )
    };
    let url = Url::parse(address).map_err(|_| wrong())?;
    let plain = url.scheme() == "https" && matches!(url.path(), "" | "/") && url.query().is_none();
    let host = url
        .host_str()
        .filter(|_| plain && url.username().is_empty())
        .ok_or_else(wrong)?;
    let port = url.port_or_known_default().ok_or_else(wrong)?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

/// A host in lower case, without the port that a careful operator may have written.
fn without_port(host: &str) -> String {
    let host = host.trim().to_ascii_lowercase();
    match host.rsplit_once(':') {
        Some((name, port))
            if !name.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            name.to_owned()
        }
        _ => host,
    }
}

/// Reads a secret from a file: one trailing line break is dropped, any other white space is refused.
///
/// # Errors
/// Names the file and says what is wrong with it; never what is in it.
pub fn read_secret(what: &'static str, path: &Path) -> Result<SecretString, Error> {
    let failed = |source| Error::File {
        what,
        path: path.to_owned(),
        source,
    };
    let refused = |problem: &str| Error::Secret {
        what,
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > SECRET_BYTES_MAX {
        return Err(refused("it is not a file of at most 16 KiB"));
    }
    warn_if_open(path, &metadata);
    let bytes = Zeroizing::new(fs::read(path).map_err(failed)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| refused("it is not text"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(refused("it is empty"));
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(refused(
            "it holds white space; it must hold the secret alone, on one line",
        ));
    }
    Ok(SecretString::from(text))
}

#[cfg(unix)]
fn warn_if_open(path: &Path, metadata: &fs::Metadata) {
    use std::os::unix::fs::PermissionsExt;
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "other users may read this secret; set its mode to 0600");
    }
}

#[cfg(not(unix))]
fn warn_if_open(_: &Path, _: &fs::Metadata) {}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    const MINIMAL: &str = r#"
        [deployment]
        name = "prod"
        labels = { env = "prod" }
        [control]
        address = "https://control.example.com:7443"
        [kibana]
        url = "http://127.0.0.1:5601"
        credentials_file = "/nowhere"
    "#;

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, Error> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("agent.toml");
        fs::write(&file, text).unwrap();
        let variables = environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Config::read(&file, super::environment().source(Some(variables)), None)
    }

    fn error(text: &str, environment: &[(&str, &str)]) -> String {
        let error = read(text, environment).unwrap_err();
        keyfleet_telemetry::error_chain(&error)
    }

    #[test]
    fn a_short_file_is_enough() {
        let config = read(MINIMAL, &[]).unwrap();
        assert_eq!(config.control.host, "control.example.com");
        assert_eq!(config.control.port, 7443);
        assert_eq!(config.deployment.labels["env"], "prod");
        assert_eq!(config.accept.hosts, ["api.openai.com"]);
        assert_eq!(config.drift_interval, Duration::from_secs(300));
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let config = read(
            MINIMAL,
            &[
                ("KEYFLEET_AGENT__KIBANA__URL", "http://127.0.0.1:9"),
                ("KEYFLEET_AGENT__KIBANA__TIMEOUT_SECS", "7"),
                (
                    "KEYFLEET_AGENT__ACCEPT__HOSTS",
                    "API.openai.com:443,127.0.0.1:9100",
                ),
            ],
        )
        .unwrap();
        assert_eq!(config.kibana.url.as_str(), "http://127.0.0.1:9/");
        assert_eq!(config.kibana.timeout, Duration::from_secs(7));
        assert_eq!(config.accept.hosts, ["api.openai.com", "127.0.0.1"]);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |addition: &str, environment: &[(&str, &str)], expected: &[&str]| {
            let text = error(&format!("{addition}\n{MINIMAL}"), environment);
            assert!(expected.iter().all(|part| text.contains(part)), "{text}");
        };
        check("kibanna = 1", &[], &["unknown", "`kibanna`"]);
        check(
            "[drift]\ninterval = 1",
            &[],
            &["unknown", "`drift.interval`"],
        );
        check(
            "",
            &[("KEYFLEET_AGENT__KIBANA__URLL", "x")],
            &["unknown", "`kibana.urll`"],
        );
        check(
            "[drift]\ninterval_secs = 0",
            &[],
            &["`drift.interval_secs`", "1 to 86400"],
        );
        check(
            "[drift]\ninterval_secs = \"often\"",
            &[],
            &["drift.interval_secs"],
        );
        check("[log]\nformat = \"xml\"", &[], &["`log.format`", "xml"]);
        check(
            "",
            &[("KEYFLEET_AGENT__DEPLOYMENT__NAME", "Prod Eu")],
            &["`deployment.name`", "Prod Eu"],
        );
        check(
            "",
            &[("KEYFLEET_AGENT__CONTROL__ADDRESS", "http://x:1")],
            &["`control.address`", "https://"],
        );
        check(
            "[accept]\nconnector_types = [\".email\"]",
            &[],
            &["accept.connector_types", ".email", ".gen-ai"],
        );
        check("[accept", &[], &["agent.toml"]);
        assert!(error("", &[]).contains("`deployment.name`"));
    }

    #[test]
    fn secrets_come_from_files_and_only_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let check = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            read_secret("the test's secret", &path).map(|secret| secret.expose_secret().to_owned())
        };
        assert_eq!(check(b"abc\n").unwrap(), "abc");
        assert_eq!(check(b"abc\r\n").unwrap(), "abc");
        for bad in [&b""[..], b"\n", b"abc\n\n", b"a b", b" abc", b"abc\xff"] {
            let text = check(bad).unwrap_err().to_string();
            assert!(
                text.contains("the test's secret") && !text.contains("abc"),
                "{text}"
            );
        }
        assert!(read_secret("it", Path::new("/nowhere/at/all")).is_err());
    }
}
