//! The light agent beside each Kibana.
//!
//! Reading order: [`config`] (what it is told), [`enrol`], [`identity`] and `renew` (who it is), [`proxy`] and [`tls`]
//! (the way out), `session` (the stream to control), `wish` (what is wanted), `decide` (what to do next, pure), `ledger` (what was done), `reconcile`
//! (does it), `outbox` (what control hears).
//!
//! One thread. Two loops that are joined, the session and the reconciler: the session owns the stream, the
//! reconciler owns desired state, ledger and keys. They share a bounded command queue and the outbox.
//!
//! [`remote`] runs all of that once for each of many Kibanas.

mod backoff;
pub mod config;
mod decide;
pub mod enrol;
mod facts;
mod files;
#[cfg(test)]
mod fuzz;
mod hosts;
pub mod identity;
mod issued;
mod ledger;
mod outbox;
mod pace;
pub mod proxy;
mod reconcile;
pub mod remote;
mod renew;
mod said;
mod session;
pub mod tls;
mod wish;
mod work;

use std::fs;
use std::io;
use std::path::PathBuf;

use keyfleet_kibana::{Client, Credentials, Elasticsearch, Settings};
use tokio_util::sync::CancellationToken;

use backoff::Backoff;
use config::Config;
use identity::Identity;
use ledger::Ledger;
use reconcile::Reconciler;
use session::{Session, Void};

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting or a file that it names.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The identity cannot be read.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The agent is not enrolled and cannot become so.
    #[error(transparent)]
    Enrol(#[from] enrol::Error),
    /// The identity opens no session any more.
    #[error(
        "the control service does not take this agent's certificate any more: {reason}. Connectors in Kibana stay as they are. To bring the agent back, an operator runs `keyfleet deployment replace {name}`; put the join token that it prints into the file of `control.join_token_file`"
    )]
    Void {
        /// The deployment's name.
        name: keyfleet_core::id::DeploymentName,
        /// Control's own sentence.
        reason: String,
    },
    /// Identity and TLS do not fit together.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The Kibana settings cannot be used.
    #[error(transparent)]
    Kibana(#[from] keyfleet_kibana::Error),
    /// Two agents with one identity would undo each other's work.
    #[error("another agent runs with the state directory {}: stop it, or give this one its own", path.display())]
    Taken {
        /// Which one.
        path: PathBuf,
    },
    /// The state directory cannot be used.
    #[error("cannot use the state directory {}", path.display())]
    State {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Enrols if needed, then serves control and Kibana until `stop` is cancelled.
///
/// # Errors
/// What an operator must repair. Trouble with control or Kibana that may pass is waited out instead.
///
/// # Panics
/// If the process has installed no `rustls` crypto provider.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let client = kibana_client(&config)?;
    let state = |source| Error::State {
        path: config.state_dir.clone(),
        source,
    };
    files::private_dir(&config.state_dir).map_err(state)?;
    let taken = || Error::Taken {
        path: config.state_dir.clone(),
    };
    let _lock = files::lock(&config.state_dir)
        .map_err(state)?
        .ok_or_else(taken)?;
    let mut identity = Identity::load(&config.state_dir)?;
    loop {
        let known = match identity.take() {
            Some(identity) => identity,
            None => match enrol(&config, &stop).await? {
                Some(identity) => identity,
                None => return Ok(()),
            },
        };
        let Err(void) = serve(&config, &client, known, &stop).await? else {
            return Ok(());
        };
        if !enrol::has_other_token(&config, &void.identity) {
            return Err(Error::Void {
                name: config.deployment.name,
                reason: void.reason,
            });
        }
        tracing::warn!(reason = %void.reason, "the agent's certificate is void, and there is another join token: enrolling again");
    }
}

/// Checks the settings and every file that they name, without a connection.
///
/// # Errors
/// What an operator must repair.
///
/// # Panics
/// If the process has installed no `rustls` crypto provider.
pub fn check(config: &Config) -> Result<(), Error> {
    kibana_client(config)?;
    if Identity::load(&config.state_dir)?.is_none() {
        enrol::check_token(config)?;
    }
    Ok(())
}

/// Serves under one identity until stopped, or until the identity is void.
async fn serve(
    config: &Config,
    client: &Client,
    identity: Identity,
    stop: &CancellationToken,
) -> Result<Result<(), Void>, Error> {
    tls::mutual(&identity, &[])?;
    let state = |source| Error::State {
        path: config.state_dir.clone(),
        source,
    };
    let settings = reconcile::Settings {
        client: client.clone(),
        accept: config.accept.clone(),
        deployment: identity.deployment,
        drift_interval: config.drift_interval,
        ledger: Ledger::open(&config.state_dir, identity.deployment).map_err(state)?,
    };
    let (reconciler, handle) = Reconciler::new(settings).map_err(state)?;
    let session = Session::new(
        config.control.clone(),
        config.state_dir.clone(),
        identity,
        handle,
    );
    Ok(run_both(reconciler, session, stop.child_token()).await)
}

/// The reconciler ends first, so that the session can still carry what it has to say.
async fn run_both(
    reconciler: Reconciler,
    session: Session,
    stop: CancellationToken,
) -> Result<(), Void> {
    let session_stop = CancellationToken::new();
    let reconcile = async {
        reconciler.run(stop.clone()).await;
        session_stop.cancel();
    };
    let session = async {
        let ended = session.run(session_stop.clone()).await;
        // Without a session there is nothing to reconcile for.
        stop.cancel();
        ended
    };
    tokio::join!(reconcile, session).1
}

/// Tries to enrol until it works, is refused for good, or is stopped (`None`).
async fn enrol(config: &Config, stop: &CancellationToken) -> Result<Option<Identity>, Error> {
    let application = enrol::Application::new(config)?;
    let mut n_failures = 0_u32;
    loop {
        let submitted = tokio::select! {
            () = stop.cancelled() => return Ok(None),
            submitted = application.submit(config) => submitted,
        };
        match submitted {
            Ok(identity) => {
                identity
                    .save(&config.state_dir)
                    .map_err(enrol::Error::from)?;
                tracing::info!(deployment.id = %identity.deployment, "enrolled");
                return Ok(Some(identity));
            }
            Err(error) if error.is_transient() => {
                n_failures = n_failures.saturating_add(1);
                tracing::warn!(reason = %keyfleet_telemetry::error_chain(&error), "could not enrol; trying again");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(Backoff::CONTROL.wait(n_failures)) => {}
        }
    }
}

fn kibana_client(config: &Config) -> Result<Client, Error> {
    let kibana = &config.kibana;
    let key = config::read_secret("the API key for Kibana", &kibana.credentials_file)?;
    let elasticsearch = config.elasticsearch.as_ref().map(elasticsearch);
    let settings = Settings {
        url: kibana.url.clone(),
        credentials: Credentials::ApiKey(key),
        ca_pem: certificates("certificates for Kibana", kibana.ca_file.as_ref())?,
        elasticsearch: elasticsearch.transpose()?,
        proxy: kibana.proxy.as_ref().map(|proxy| proxy.url().clone()),
        timeout: kibana.timeout,
        probe_timeout: kibana.probe_timeout,
    };
    Ok(Client::new(settings)?)
}

fn elasticsearch(place: &config::Elasticsearch) -> Result<Elasticsearch, config::Error> {
    let key = config::read_secret("the API key for Elasticsearch", &place.credentials_file)?;
    Ok(Elasticsearch {
        url: place.url.clone(),
        credentials: Credentials::ApiKey(key),
        ca_pem: certificates("certificates for Elasticsearch", place.ca_file.as_ref())?,
    })
}

fn certificates(
    what: &'static str,
    file: Option<&PathBuf>,
) -> Result<Option<Vec<u8>>, config::Error> {
    let read = |path: &PathBuf| {
        fs::read(path).map_err(|source| config::Error::File {
            what,
            path: path.clone(),
            source,
        })
    };
    file.map(read).transpose()
}
