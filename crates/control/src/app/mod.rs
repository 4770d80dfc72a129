//! The use cases: the only callers of store, Vault and provider. gRPC handlers authenticate, convert, call these.

pub(crate) mod apply;
pub(crate) mod desired;
pub(crate) mod ending;
pub(crate) mod enrol;
pub(crate) mod keys;
pub(crate) mod preview;
pub(crate) mod rollout;
#[cfg(test)]
mod scenario;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod step;
pub(crate) mod tokens;
pub(crate) mod verdict;
pub(crate) mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use keyfleet_core::id::RolloutId;
use keyfleet_core::rollout::Waiting;
use keyfleet_core::token::Role;
use keyfleet_seal::FingerprintKey;
use keyfleet_store::Store;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::ca::Authority;
use crate::config::Config;
use crate::error::Error;
use crate::keyring::KeyRing;
use crate::sessions::Sessions;
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
    pub(crate) shutdown: CancellationToken,
    /// Wakes the planner. One permit is kept: a nudge is never lost.
    pub(crate) nudge: Notify,
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
    /// What it may do.
    pub(crate) role: Role,
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
        let parts = Parts {
            config,
            store,
            authority,
            fingerprint,
            keyring,
            sessions: Sessions::default(),
            verdicts,
            shutdown,
            nudge: Notify::new(),
            changes: watch::Sender::new(0),
            waiting: Mutex::default(),
        };
        Self {
            parts: Arc::new(parts),
        }
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
