//! The settings of an agent: embedded defaults < file < environment, checked once into plain structs.
//!
//! This is the only module that reads the environment.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyfleet_core::fleet::Labels;
use keyfleet_core::id::DeploymentName;
use url::Url;

use crate::proxy::Proxy;

mod raw;
mod secret;

pub use secret::read_secret;

/// The documented defaults, which are also the template of a file.
pub const DEFAULTS: &str = include_str!("../agent.default.toml");

/// The environment's settings begin with this and two underscores.
const PREFIX: &str = "KEYFLEET_AGENT";

/// Lists that the environment gives as text with commas.
const LISTS: [&str; 5] = [
    "accept.connector_types",
    "accept.hosts",
    "accept.spaces",
    "control.no_proxy",
    "kibana.no_proxy",
];

/// The name of the API key in the service manager's credential directory. In remote mode the name of the deployment's
/// file and a dot come before it: a key is never sent to another Kibana by default.
const CREDENTIAL_NAME: &str = "kibana-api-key";

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
    /// Its Elasticsearch, where inference endpoints are kept.
    pub elasticsearch: Option<Elasticsearch>,
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
    /// The proxy on the way there.
    pub proxy: Option<Proxy>,
    /// The deadline of a call, and of the beginning of a session.
    pub timeout: Duration,
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
    /// The proxy on the way there.
    pub proxy: Option<Proxy>,
    /// The deadline of a call.
    pub timeout: Duration,
    /// The deadline of a live call through a connector.
    pub probe_timeout: Duration,
}

/// How Elasticsearch is reached: through Kibana's proxy, with its deadlines.
#[derive(Debug, Clone)]
pub struct Elasticsearch {
    /// Its URL.
    pub url: Url,
    /// Holds its API key.
    pub credentials_file: PathBuf,
    /// Certificates that alone are trusted.
    pub ca_file: Option<PathBuf>,
}

/// The agent's own rules, which control cannot override.
#[derive(Debug, Clone)]
pub struct Accept {
    /// Types of connectors.
    pub connector_types: Vec<String>,
    /// Hosts without port, in the form of [`Url::host_str`] without brackets; or `*`.
    pub hosts: Vec<String>,
    /// Ids of spaces, or `*`.
    pub spaces: Vec<String>,
    /// Whether connectors that were there before may be taken over.
    pub adoption: bool,
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
    /// A deployment of remote mode sets what holds for the whole process.
    #[error("`[log]` belongs into the common file: one process has one log")]
    LogOfOne,
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
        Self::read(file, environment(), credentials_directory())
    }

    /// As [`Config::load`], then a deployment's own file: one of the many deployments of remote mode.
    ///
    /// The deployment's file comes last, for the environment is the same for all of them. Its state directory is one
    /// below the common one, named as the file, unless the file says otherwise.
    ///
    /// # Errors
    /// Names the setting or the file.
    pub fn load_over(common: &Path, deployment: &Path) -> Result<Self, Error> {
        Self::read_over(common, deployment, environment(), credentials_directory())
    }

    fn read(
        file: &Path,
        environment: config::Environment,
        credentials: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let merged = common(file, environment)
            .build()
            .map_err(|error| unreadable(file, error))?;
        raw::parse(merged)?.check(credentials.map(|directory| directory.join(CREDENTIAL_NAME)))
    }

    fn read_over(
        file: &Path,
        deployment: &Path,
        environment: config::Environment,
        credentials: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let source = || config::File::from(deployment).format(config::FileFormat::Toml);
        let own = config::Config::builder()
            .add_source(source())
            .build()
            .map_err(|error| unreadable(deployment, error))?;
        if own.get::<config::Value>("log").is_ok() {
            return Err(Error::LogOfOne);
        }
        let merged = common(file, environment)
            .add_source(source())
            .build()
            .map_err(|error| unreadable(file, error))?;
        let mut raw = raw::parse(merged)?;
        let name = deployment.file_stem().unwrap_or_default();
        if own.get::<config::Value>("state_dir").is_err() {
            raw.state_dir().push(name);
        }
        let credential = format!("{}.{CREDENTIAL_NAME}", name.to_string_lossy());
        raw.check(credentials.map(|directory| directory.join(credential)))
    }
}

impl Log {
    /// How the log looks, from a file that need not be complete.
    ///
    /// # Errors
    /// Names the setting or the file.
    pub fn load(file: &Path) -> Result<Self, Error> {
        let merged = common(file, environment())
            .build()
            .map_err(|error| unreadable(file, error))?;
        raw::parse(merged)?.log()
    }
}

type Builder = config::ConfigBuilder<config::builder::DefaultState>;

fn common(file: &Path, environment: config::Environment) -> Builder {
    config::Config::builder()
        .add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml))
        .add_source(config::File::from(file).format(config::FileFormat::Toml))
        .add_source(environment)
}

fn unreadable(file: &Path, source: config::ConfigError) -> Error {
    Error::Read {
        path: file.to_owned(),
        source: Box::new(source),
    }
}

fn credentials_directory() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::fs;

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

    fn read_over(common: &str, own: &str) -> Result<Config, Error> {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (common, own) = (file("common.toml", common), file("eu.toml", own));
        let environment = super::environment().source(Some(HashMap::new()));
        Config::read_over(&common, &own, environment, Some("/credentials".into()))
    }

    #[test]
    fn a_deployment_of_remote_mode_lies_over_the_common_file() {
        const COMMON: &str = r#"
            state_dir = "/state"
            [deployment.labels]
            env = "prod"
            [control]
            address = "https://control.example.com:7443"
            [accept]
            hosts = ["a.example"]
        "#;
        const OWN: &str = r#"
            [deployment]
            name = "eu"
            labels = { region = "eu" }
            [kibana]
            url = "http://127.0.0.1:5601"
            [accept]
            hosts = ["b.example"]
        "#;
        let config = read_over(COMMON, OWN).unwrap();
        assert_eq!(config.state_dir, Path::new("/state/eu"));
        assert_eq!(
            config.kibana.credentials_file,
            Path::new("/credentials/eu.kibana-api-key")
        );
        assert_eq!(
            (config.deployment.labels.len(), &*config.accept.hosts),
            (2, &["b.example".to_owned()][..])
        );
        let other = format!("state_dir = \"/elsewhere\"\n{OWN}");
        assert_eq!(
            read_over(COMMON, &other).unwrap().state_dir,
            Path::new("/elsewhere")
        );
        let check = |addition: &str, expected: &str| {
            let error = read_over(COMMON, &format!("{addition}\n{OWN}")).unwrap_err();
            let text = keyfleet_telemetry::error_chain(&error);
            assert!(text.contains(expected), "{text}");
        };
        check("[log]\nformat = \"json\"", "common file");
        check("kibanna = 1", "`kibanna`");
        check("[kibana", "eu.toml");
    }

    #[test]
    fn elasticsearch_takes_kibanas_credentials() {
        let check = |addition: &str, expected: Result<Option<&str>, &str>| match read(
            &format!("{addition}\n{MINIMAL}"),
            &[],
        ) {
            Ok(config) => {
                let file = config.elasticsearch.map(|place| place.credentials_file);
                assert_eq!(file.as_deref(), expected.unwrap().map(Path::new));
            }
            Err(error) => assert!(error.to_string().contains(expected.unwrap_err())),
        };
        check("", Ok(None));
        let url = "[elasticsearch]\nurl = \"https://127.0.0.1:9200\"";
        check(url, Ok(Some("/nowhere")));
        check(
            &format!("{url}\ncredentials_file = \"/other\""),
            Ok(Some("/other")),
        );
        check(
            "[elasticsearch]\nca_file = \"/ca\"",
            Err("`elasticsearch.url`"),
        );
        check(
            "[elasticsearch]\nurl = \"9200\"",
            Err("`elasticsearch.url`"),
        );
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
}
