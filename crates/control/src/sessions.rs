//! The connected agents, in memory: liveness is judged here and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keyfleet_core::Timestamp;
use keyfleet_core::id::DeploymentId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock;

/// New sessions a second: a fleet of 10,000 is back within half a minute, and operators' calls stay quick meanwhile.
const ADMITTED_PER_SECOND: u32 = 500;

/// Sessions that may begin at once after a quiet second.
const ADMITTED_AT_ONCE: u32 = 1_000;

/// An agent that is not admitted comes back after this long, spread by its own jitter.
const COME_BACK: Duration = Duration::from_secs(5);

/// Every live session; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Sessions {
    live: Arc<Mutex<Live>>,
}

#[derive(Default)]
struct Live {
    next: u64,
    admission: Admission,
    /// When agents that are away left.
    left: BTreeMap<DeploymentId, Timestamp>,
    by_deployment: BTreeMap<DeploymentId, Entry>,
}

/// A token bucket in front of the costly work of a new session.
struct Admission {
    tokens: u32,
    filled_at: Instant,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            tokens: ADMITTED_AT_ONCE,
            filled_at: Instant::now(),
        }
    }
}

impl Admission {
    fn take(&mut self, now: Instant) -> bool {
        let millis = now.duration_since(self.filled_at).as_millis();
        let earned = millis.saturating_mul(u128::from(ADMITTED_PER_SECOND)) / 1_000;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(ADMITTED_AT_ONCE);
            self.tokens = self.tokens.saturating_add(earned).min(ADMITTED_AT_ONCE);
            self.filled_at = now;
        }
        let has_one = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        has_one
    }
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
    /// `None` where a new session may begin now; else how long its agent should stay away.
    pub(crate) fn admit(&self) -> Option<Duration> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        (!live.admission.take(Instant::now())).then_some(COME_BACK)
    }

    /// Takes the deployment's place; an older session of it is told to end.
    pub(crate) fn enter(&self, deployment: DeploymentId, shutdown: &CancellationToken) -> Seat {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.next += 1;
        let number = live.next;
        let changed = Arc::new(Notify::new());
        let end = shutdown.child_token();
        let entry = Entry {
            number,
            changed: changed.clone(),
            end: end.clone(),
        };
        live.left.remove(&deployment);
        if let Some(older) = live.by_deployment.insert(deployment, entry) {
            older.end.cancel();
        }
        Seat {
            sessions: self.clone(),
            deployment,
            number,
            changed,
            end,
        }
    }

    /// The deployments whose agents are connected.
    pub(crate) fn online(&self) -> BTreeSet<DeploymentId> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.by_deployment.keys().copied().collect()
    }

    /// When agents that are away left; what lies further back is in the database.
    pub(crate) fn left(&self) -> BTreeMap<DeploymentId, Timestamp> {
        self.live
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .left
            .clone()
    }

    /// Takes those that left before `limit`, to be stored.
    pub(crate) fn take_left_before(&self, limit: Timestamp) -> BTreeMap<DeploymentId, Timestamp> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let (stored, kept) = std::mem::take(&mut live.left)
            .into_iter()
            .partition(|(_, at)| *at < limit);
        live.left = kept;
        stored
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
        let mut live = self
            .sessions
            .live
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_ours = live
            .by_deployment
            .get(&self.deployment)
            .is_some_and(|entry| entry.number == self.number);
        if is_ours {
            live.by_deployment.remove(&self.deployment);
            live.left.insert(self.deployment, clock::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_burst_is_sent_away_and_let_in_later() {
        let begin = Instant::now();
        let mut admission = Admission {
            tokens: ADMITTED_AT_ONCE,
            filled_at: begin,
        };
        for _ in 0..ADMITTED_AT_ONCE {
            assert!(admission.take(begin));
        }
        assert!(!admission.take(begin));
        let later = begin + Duration::from_millis(10);
        assert_eq!((0..10).filter(|_| admission.take(later)).count(), 5);
    }

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
