//! The handle everybody holds: one login, one connection pool, one counter.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustify::Endpoint;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::kv::Seen;
use crate::login::wrapped::Opened;
use crate::login::{self, Login, Renewed};
use crate::mount::Engine;
use crate::transport::{About, Transport};
use crate::{Error, Settings, retry};

/// A connection to one Vault or OpenBao. Cloning is cheap and shares everything.
#[derive(Clone)]
pub struct Vault {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    transport: Transport,
    /// The token in use; replaced by renewals and logins.
    login: watch::Sender<Option<Arc<Login>>>,
    /// Held while logging in, so that many callers that are refused at once log in once.
    logging_in: tokio::sync::Mutex<Opened>,
    /// Why the login could not be renewed, in a sentence.
    trouble: Mutex<Option<String>>,
    pub(crate) reads: AtomicU64,
    logins: AtomicU64,
    renewals: AtomicU64,
    /// The newest version seen of each secret.
    pub(crate) seen: Mutex<BTreeMap<String, Seen>>,
    /// What is mounted where, as far as it is known.
    pub(crate) engines: Mutex<BTreeMap<String, Engine>>,
}

/// What `sys/health` says, by its status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// 200: unsealed and active.
    Active,
    /// 429, 473: unsealed; reads work, by itself or through the active node.
    Standby,
    /// 503.
    Sealed,
    /// 501.
    Uninitialised,
    /// Any other status: a recovery site, a removed node, or no Vault at all.
    Other(u16),
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault")
            .field(
                "address",
                &self.shared.transport.settings().address.as_str(),
            )
            .finish_non_exhaustive()
    }
}

impl Vault {
    /// Checks the settings and reads the CA file. Nothing is sent: the first call logs in.
    ///
    /// # Errors
    /// A setting that cannot work, or an unreadable CA file.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        settings.check()?;
        let shared = Shared {
            transport: Transport::new(settings)?,
            login: watch::Sender::new(None),
            logging_in: tokio::sync::Mutex::default(),
            trouble: Mutex::new(None),
            reads: AtomicU64::new(0),
            logins: AtomicU64::new(0),
            renewals: AtomicU64::new(0),
            seen: Mutex::new(BTreeMap::new()),
            engines: Mutex::new(BTreeMap::new()),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// As [`Vault::new`], then logs in.
    ///
    /// # Errors
    /// As [`Vault::new`], or the login fails.
    pub async fn connect(settings: Settings) -> Result<Self, Error> {
        let vault = Self::new(&settings)?;
        vault.retrying(|| vault.login()).await?;
        Ok(vault)
    }

    /// How many values were asked of the server, by this handle and its clones: what "one read per (path, version)
    /// for the whole fleet" is measured by.
    pub fn reads(&self) -> u64 {
        self.shared.reads.load(Ordering::Relaxed)
    }

    /// How often this handle and its clones logged in.
    pub fn logins(&self) -> u64 {
        self.shared.logins.load(Ordering::Relaxed)
    }

    /// How often a login was renewed for a full term.
    pub fn renewals(&self) -> u64 {
        self.shared.renewals.load(Ordering::Relaxed)
    }

    /// Why the login could not be renewed, in a sentence, while that is so. The token may still live for a while, so
    /// that reads go on, but somebody has to act before it ends.
    pub fn login_trouble(&self) -> Option<String> {
        let trouble = self.shared.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self
            .shared
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// How the server says it is. Needs no login.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn health(&self) -> Result<Health, Error> {
        Ok(match self.shared.transport.health().await? {
            200 => Health::Active,
            429 | 473 => Health::Standby,
            501 => Health::Uninitialised,
            503 => Health::Sealed,
            other => Health::Other(other),
        })
    }

    /// Keeps the login fresh until `shutdown`: renews at two thirds of what was granted, and logs in again where a
    /// renewal is capped or refused. The caller spawns it once; without it, an expired login costs the next call one
    /// refused request.
    pub async fn keep_logged_in(&self, shutdown: CancellationToken) {
        let mut logins = self.shared.login.subscribe();
        let mut failures = 0_u32;
        loop {
            let login = logins.borrow_and_update().clone();
            let due = async {
                match login.as_ref().map(|login| login.renew_at) {
                    _ if failures > 0 => sleep(retry::login_pause(failures)).await,
                    Some(Some(at)) => sleep_until(at).await,
                    Some(None) | None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = logins.changed() => failures = 0,
                () = due => failures = self.refresh(login, failures).await,
            }
        }
    }

    /// Renews or replaces `login` and returns the number of failures in a row.
    async fn refresh(&self, login: Option<Arc<Login>>, failures: u32) -> u32 {
        let result = match &login {
            Some(login) => self.renew(login).await,
            None => self.login().await.map(drop),
        };
        match result {
            Ok(()) => {
                self.set_trouble(None);
                0
            }
            Err(error) => {
                self.set_trouble(Some(chain(&error)));
                tracing::warn!(error = %chain(&error), failures, "the login at Vault could not be renewed; trying again");
                failures.saturating_add(1)
            }
        }
    }

    async fn renew(&self, login: &Arc<Login>) -> Result<(), Error> {
        match login::renew(&self.shared.transport, login).await? {
            Renewed::Kept(renewed) => {
                let renewed = Some(Arc::new(renewed));
                self.shared.login.send_if_modified(|current| {
                    let is_ours = current
                        .as_ref()
                        .is_some_and(|current| Arc::ptr_eq(current, login));
                    if is_ours {
                        *current = renewed;
                    }
                    is_ours
                });
                self.shared.renewals.fetch_add(1, Ordering::Relaxed);
                tracing::debug!("renewed the login at Vault");
                Ok(())
            }
            Renewed::Ending => self.log_in_again(login).await.map(drop),
        }
    }

    /// Sends a request with the token in use. A 403 with a dead token logs in again, exactly once; troubles that pass
    /// are tried again, a bounded number of times.
    pub(crate) async fn call<E: Endpoint>(&self, endpoint: &E) -> Result<Answer, Error> {
        self.retrying(|| self.call_once(endpoint)).await
    }

    async fn call_once<E: Endpoint>(&self, endpoint: &E) -> Result<Answer, Error> {
        let transport = &self.shared.transport;
        let login = self.login().await?;
        match transport
            .send(About::Reads, endpoint, Some(&login.token))
            .await
        {
            Err(Error::Denied { at }) => {
                if login::is_alive(transport, &login).await? {
                    return Err(Error::Denied { at });
                }
                let login = self.log_in_again(&login).await?;
                transport
                    .send(About::Reads, endpoint, Some(&login.token))
                    .await
            }
            other => other,
        }
    }

    pub(crate) async fn retrying<T, F: Future<Output = Result<T, Error>>>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Error> {
        let mut next = 1;
        loop {
            match attempt().await {
                Err(error) if next < self.shared.transport.settings().attempts => {
                    match retry::pause(&error, next) {
                        Some(pause) => sleep(pause).await,
                        None => return Err(error),
                    }
                }
                other => return other,
            }
            next += 1;
        }
    }

    async fn login(&self) -> Result<Arc<Login>, Error> {
        if let Some(login) = self.current() {
            return Ok(login);
        }
        let mut one_at_a_time = self.shared.logging_in.lock().await;
        match self.current() {
            Some(login) => Ok(login),
            None => self.log_in(&mut one_at_a_time).await,
        }
    }

    /// Replaces `old`, unless somebody else already did.
    async fn log_in_again(&self, old: &Arc<Login>) -> Result<Arc<Login>, Error> {
        let mut one_at_a_time = self.shared.logging_in.lock().await;
        match self.current() {
            Some(login) if !Arc::ptr_eq(&login, old) => Ok(login),
            Some(_) | None => self.log_in(&mut one_at_a_time).await,
        }
    }

    async fn log_in(&self, opened: &mut Opened) -> Result<Arc<Login>, Error> {
        let login = Arc::new(login::log_in(&self.shared.transport, opened).await?);
        self.shared.login.send_replace(Some(Arc::clone(&login)));
        self.shared.logins.fetch_add(1, Ordering::Relaxed);
        self.set_trouble(None);
        tracing::info!("logged in at Vault");
        Ok(login)
    }

    fn current(&self) -> Option<Arc<Login>> {
        self.shared.login.borrow().clone()
    }
}

/// The error and its sources; the only sources here are reqwest's without URL and the system's.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
