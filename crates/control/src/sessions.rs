//! The connected agents, in memory: liveness is judged here and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use keyfleet_core::id::DeploymentId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Every live session; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Sessions {
    live: Arc<Mutex<Live>>,
}

#[derive(Default)]
struct Live {
    next: u64,
    by_deployment: BTreeMap<DeploymentId, Entry>,
}

struct Entry {
    number: u64,
    changed: Arc<Notify>,
    end: CancellationToken,
}

/// A session's place among the live ones; leaving is dropping it.
pub(crate) struct Seat {
    sessions: Sessions,
    deployment: DeploymentId,
    number: u64,
    /// Told when the deployment's desired state changed. One permit is kept: no change is missed.
    pub(crate) changed: Arc<Notify>,
    /// Cancelled when a newer session of the same deployment takes over.
    pub(crate) end: CancellationToken,
}

impl Sessions {
    /// Takes the deployment's place; an older session of it is told to end.
    pub(crate) fn enter(&self, deployment: DeploymentId, shutdown: &CancellationToken) -> Seat {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.next += 1;
        let number = live.next;
        let changed = Arc::new(Notify::new());
        let end = shutdown.child_token();
        let entry = Entry { number, changed: changed.clone(), end: end.clone() };
        if let Some(older) = live.by_deployment.insert(deployment, entry) {
            older.end.cancel();
        }
        Seat { sessions: self.clone(), deployment, number, changed, end }
    }

    /// The deployments whose agents are connected.
    pub(crate) fn online(&self) -> BTreeSet<DeploymentId> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.by_deployment.keys().copied().collect()
    }

    /// Tells the sessions of these deployments that their desired state changed.
    pub(crate) fn notify<'a>(&self, deployments: impl IntoIterator<Item = &'a DeploymentId>) {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        for deployment in deployments {
            if let Some(entry) = live.by_deployment.get(deployment) {
                entry.changed.notify_one();
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut live = self.sessions.live.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ours =
            live.by_deployment.get(&self.deployment).is_some_and(|entry| entry.number == self.number);
        if is_ours {
            live.by_deployment.remove(&self.deployment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_session_ends_the_older_and_keeps_its_place() {
        let sessions = Sessions::default();
        let shutdown = CancellationToken::new();
        let deployment = DeploymentId::new(uuid::Uuid::from_u128(1));
        let older = sessions.enter(deployment, &shutdown);
        let newer = sessions.enter(deployment, &shutdown);
        assert!(older.end.is_cancelled() && !newer.end.is_cancelled());
        drop(older);
        assert!(sessions.online().contains(&deployment));
        drop(newer);
        assert!(sessions.online().is_empty());
    }
}
