//! The settings as they are written, and the checks of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::{Accept, Config, Control, Deployment, Elasticsearch, Error, Kibana, Log};
use crate::hosts;
use crate::proxy::Proxy;

/// Everything.
#[derive(Deserialize)]
pub(super) struct Raw {
    state_dir: PathBuf,
    #[serde(default)]
    deployment: RawDeployment,
    control: RawControl,
    kibana: RawKibana,
    #[serde(default)]
    elasticsearch: RawElasticsearch,
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

#[derive(Deserialize)]
struct RawControl {
    address: Option<String>,
    join_token_file: Option<PathBuf>,
    proxy: Option<String>,
    no_proxy: Vec<String>,
    timeout_secs: u64,
}

#[derive(Deserialize)]
struct RawKibana {
    url: Option<String>,
    credentials_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    proxy: Option<String>,
    no_proxy: Vec<String>,
    timeout_secs: u64,
    probe_timeout_secs: u64,
}

#[derive(Deserialize, Default)]
struct RawElasticsearch {
    url: Option<String>,
    credentials_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

#[derive(Deserialize)]
struct RawAccept {
    connector_types: Vec<String>,
    hosts: Vec<String>,
    spaces: Vec<String>,
    adoption: bool,
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

pub(super) fn parse(merged: config::Config) -> Result<Raw, Error> {
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
    /// Only how the log looks.
    pub(super) fn log(self) -> Result<Log, Error> {
        self.log.check()
    }

    /// The directory below which the deployments of remote mode keep their own.
    pub(super) fn state_dir(&mut self) -> &mut PathBuf {
        &mut self.state_dir
    }

    /// `credentials` is where the API key for Kibana is unless a setting names another file.
    pub(super) fn check(self, credentials: Option<PathBuf>) -> Result<Config, Error> {
        let name = required("deployment.name", self.deployment.name)?;
        let name = name
            .parse()
            .map_err(|error| invalid("deployment.name", error))?;
        let labels = keyfleet_proto::labels("deployment.labels", self.deployment.labels)
            .map_err(|error| invalid("deployment.labels", error.problem))?;
        let kibana = self.kibana.check(credentials)?;
        Ok(Config {
            deployment: Deployment { name, labels },
            control: self.control.check()?,
            state_dir: self.state_dir,
            elasticsearch: self.elasticsearch.check(&kibana)?,
            kibana,
            accept: self.accept.check()?,
            drift_interval: seconds("drift.interval_secs", self.drift.interval_secs)?,
            log: self.log.check()?,
        })
    }
}

impl RawLog {
    fn check(self) -> Result<Log, Error> {
        let format = self.format.parse();
        Ok(Log {
            format: format.map_err(|error| invalid("log.format", error))?,
            filter: self.filter,
        })
    }
}

impl RawControl {
    fn check(self) -> Result<Control, Error> {
        let url = control_url(&required("control.address", self.address)?)?;
        let proxy = Proxy::choose(self.proxy.as_deref(), &self.no_proxy, &url)
            .map_err(|problem| invalid("control.proxy", problem))?;
        let host = url.host_str().unwrap_or_default();
        Ok(Control {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default().unwrap_or(443),
            join_token_file: self.join_token_file,
            proxy,
            timeout: seconds("control.timeout_secs", self.timeout_secs)?,
        })
    }
}

impl RawKibana {
    fn check(self, credentials: Option<PathBuf>) -> Result<Kibana, Error> {
        let url = required("kibana.url", self.url)?;
        let url = Url::parse(&url).map_err(|error| invalid("kibana.url", error))?;
        let proxy = Proxy::choose(self.proxy.as_deref(), &self.no_proxy, &url)
            .map_err(|problem| invalid("kibana.proxy", problem))?;
        let credentials_file = self.credentials_file.or(credentials);
        Ok(Kibana {
            url,
            credentials_file: required("kibana.credentials_file", credentials_file)?,
            ca_file: self.ca_file,
            proxy,
            timeout: seconds("kibana.timeout_secs", self.timeout_secs)?,
            probe_timeout: seconds("kibana.probe_timeout_secs", self.probe_timeout_secs)?,
        })
    }
}

impl RawElasticsearch {
    /// What is left out here is as it is for Kibana, but for the certificates: the two seldom share a CA.
    fn check(self, kibana: &Kibana) -> Result<Option<Elasticsearch>, Error> {
        let Some(url) = self.url else {
            let others = [self.credentials_file.is_some(), self.ca_file.is_some()];
            return match others.contains(&true) {
                true => Err(invalid(
                    "elasticsearch.url",
                    "it must be set where others of `[elasticsearch]` are",
                )),
                false => Ok(None),
            };
        };
        Ok(Some(Elasticsearch {
            url: Url::parse(&url).map_err(|error| invalid("elasticsearch.url", error))?,
            credentials_file: self
                .credentials_file
                .unwrap_or_else(|| kibana.credentials_file.clone()),
            ca_file: self.ca_file,
        }))
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
        let hosts = self.hosts.iter().map(|host| accepted(host));
        let hosts = hosts.collect::<Result<_, _>>()?;
        Ok(Accept {
            connector_types: self.connector_types,
            hosts,
            spaces: self.spaces,
            adoption: self.adoption,
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

fn control_url(address: &str) -> Result<Url, Error> {
    let wrong = || {
        invalid(
            "control.address",
            "write it as `https://host:port`, without a path",
        )
    };
    let url = Url::parse(address).map_err(|_| wrong())?;
    let plain = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    if url.scheme() != "https" || !url.has_host() || !plain || !anonymous {
        return Err(wrong());
    }
    Ok(url)
}

/// One entry of `accept.hosts`, as hosts of URLs are compared with it.
fn accepted(entry: &str) -> Result<String, Error> {
    if entry.trim() == hosts::ANY {
        return Ok(hosts::ANY.to_owned());
    }
    hosts::canonical(entry).ok_or_else(|| {
        let problem = format!("`{entry}` is no host; write `host` or `host:port`");
        invalid("accept.hosts", problem)
    })
}
