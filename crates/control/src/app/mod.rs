//! The use cases: the only callers of store, Vault and provider. gRPC handlers authenticate, convert, call these.

pub(crate) mod adopt;
pub(crate) mod andon;
pub(crate) mod apply;
pub(crate) mod audit;
pub(crate) mod authority;
pub(crate) mod barred;
pub(crate) mod calendar;
pub(crate) mod campaign;
pub(crate) mod conflict;
pub(crate) mod delete;
pub(crate) mod desired;
pub(crate) mod ending;
pub(crate) mod enrol;
pub(crate) mod explain;
pub(crate) mod history;
pub(crate) mod keys;
pub(crate) mod label;
pub(crate) mod preview;
pub(crate) mod renew;
pub(crate) mod revoke;
pub(crate) mod rivals;
pub(crate) mod rollout;
#[cfg(test)]
pub(crate) mod scenario;
pub(crate) mod simulate;
pub(crate) mod standing;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod step;
pub(crate) mod tokens;
pub(crate) mod travel;
pub(crate) mod verdict;
pub(crate) mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keyfleet_core::fleet::{Labels, Selector};
use keyfleet_core::id::{DeploymentName, RolloutId, TokenId};
use keyfleet_core::rollout::Waiting;
use keyfleet_core::token::Role;
use keyfleet_seal::FingerprintKey;
use keyfleet_store::{Andon, Store};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ca::Authority;
use crate::config::Config;
use crate::error::Error;
use crate::keyring::KeyRing;
use crate::sessions::Sessions;
use campaign::trial::Trials;
use verdict::Verdicts;

/// The name in the history of what nobody asked for.
pub(crate) const KEYFLEET: &str = "keyfleet";

/// Everything the use cases share; cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    parts: Arc<Parts>,
}

/// See the fields' own types for who owns what.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) authority: Authority,
    pub(crate) fingerprint: FingerprintKey,
    pub(crate) keyring: KeyRing,
    pub(crate) sessions: Sessions,
    pub(crate) verdicts: Verdicts,
    /// What the provider said of key versions when campaigns asked.
    pub(crate) trials: Trials,
    pub(crate) shutdown: CancellationToken,
    /// Wakes the planner. One permit is kept: a nudge is never lost.
    pub(crate) nudge: Notify,
    /// The fleet-wide stop, while it is on.
    pub(crate) andon: watch::Sender<Option<Andon>>,
    /// What goes on although its caller has gone.
    under_way: TaskTracker,
    /// Who changes it comes one after the other.
    andon_turn: tokio::sync::Mutex<()>,
    /// Who was refused lately.
    refusals: audit::Refusals,
    /// Whose agents know more than the database.
    ahead: history::Ahead,
    /// Counts changes that operators may be watching.
    changes: watch::Sender<u64>,
    /// Why each active rollout waits, as the planner saw it last.
    waiting: Mutex<BTreeMap<RolloutId, Vec<Waiting>>>,
}

/// Who calls, as the transport has found out.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    /// The name in the history.
    pub(crate) principal: String,
    /// Its operator token; `None` where nobody called.
    pub(crate) token: Option<TokenId>,
    /// What it may do.
    pub(crate) role: Role,
    /// With which deployments.
    pub(crate) scope: Selector,
}

impl Actor {
    /// Refuses a caller whose role is less than `needed`.
    pub(crate) fn must_be(&self, needed: Role) -> Result<(), Error> {
        if self.role >= needed {
            return Ok(());
        }
        let (who, has, wants) = (&self.principal, self.role.as_str(), needed.as_str());
        Err(Error::Forbidden(format!(
            "{who} has the role {has}; this needs {wants}"
        )))
    }

    /// Refuses a caller that may see and change some deployments only: what it asks for concerns the whole fleet.
    pub(crate) fn must_be_for_all(&self) -> Result<(), Error> {
        self.must_cover(&Selector::default(), "what concerns the whole fleet")
    }

    /// Refuses a caller whose scope does not hold every deployment that `selector` may ever choose.
    pub(crate) fn must_cover(&self, selector: &Selector, what: &str) -> Result<(), Error> {
        if selector.implies(&self.scope) {
            return Ok(());
        }
        let (who, scope) = (&self.principal, &self.scope);
        Err(Error::Forbidden(format!(
            "the token of {who} is for deployments with {scope} only, and {what} may reach others"
        )))
    }

    /// Refuses a caller whose scope does not hold this deployment.
    pub(crate) fn must_reach(&self, name: &DeploymentName, labels: &Labels) -> Result<(), Error> {
        if self.scope.matches(labels) {
            return Ok(());
        }
        let (who, scope) = (&self.principal, &self.scope);
        Err(Error::Forbidden(format!(
            "the token of {who} is for deployments with {scope} only, and {name} is none of them"
        )))
    }
}

impl App {
    pub(crate) fn new(
        config: Config,
        store: Store,
        authority: Authority,
        fingerprint: FingerprintKey,
        keyring: KeyRing,
        shutdown: CancellationToken,
    ) -> Self {
        let verdicts = Verdicts::new(config.verify);
        let sessions = Sessions::new(config.agents.fleet_probes_per_minute);
        let parts = Parts {
            config,
            store,
            authority,
            fingerprint,
            keyring,
            sessions,
            verdicts,
            trials: Trials::default(),
            shutdown,
            nudge: Notify::new(),
            andon: watch::Sender::new(None),
            under_way: TaskTracker::new(),
            andon_turn: tokio::sync::Mutex::default(),
            refusals: audit::Refusals::default(),
            ahead: history::Ahead::default(),
            changes: watch::Sender::new(0),
            waiting: Mutex::default(),
        };
        Self {
            parts: Arc::new(parts),
        }
    }

    /// Does work to its end, also where its caller goes away meanwhile: what is stored must be told to the sessions too.
    pub(crate) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let done = self.under_way.spawn(work).await;
        // The hook of panics has logged the place; what a panic says is nobody's business.
        let text = "the call did not end: the log of keyfleet-control says more";
        done.unwrap_or_else(|_| Err(Error::Unavailable(text.to_owned())))
    }

    /// Waits for what goes on without a caller; nothing new may begin. False where that takes too long.
    pub(crate) async fn finish(&self, deadline: Duration) -> bool {
        self.under_way.close();
        let ended = tokio::time::timeout(deadline, self.under_way.wait());
        ended.await.is_ok()
    }

    /// Wakes the planner and everybody who watches.
    pub(crate) fn changed(&self) {
        self.nudge.notify_one();
        self.publish();
    }

    /// Wakes everybody who watches.
    pub(crate) fn publish(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Told at every change that operators may be watching.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Keeps why the active rollouts wait.
    pub(crate) fn set_waiting(&self, waiting: BTreeMap<RolloutId, Vec<Waiting>>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
    }

    /// Why the active rollouts wait.
    pub(crate) fn waiting(&self) -> BTreeMap<RolloutId, Vec<Waiting>> {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}
