//! Agents that are asked to prove their connectors anew: an old key is to be revoked, and their proofs are old.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// An agent that was asked works on it at its own pace; it is asked again where the answer may have been lost.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What one session's agent is asked.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    /// Told when the agent shall prove. One permit is kept.
    pub(crate) wanted: Notify,
    older_than_secs: AtomicU32,
    asked_at: Mutex<Option<Instant>>,
}

impl Proofs {
    /// Has the agent prove what was proven longer ago than this.
    pub(super) fn ask(&self, older_than_secs: u32) {
        let mut asked_at = self.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
        if asked_at.is_some_and(|at| at.elapsed() < ASK_AGAIN) {
            return;
        }
        *asked_at = Some(Instant::now());
        self.older_than_secs
            .store(older_than_secs, Ordering::Relaxed);
        self.wanted.notify_one();
    }

    /// What the agent is to be told.
    pub(crate) fn older_than_secs(&self) -> u32 {
        self.older_than_secs.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_agent_is_asked_once_and_again_when_the_answer_may_be_lost() {
        let proofs = Proofs::default();
        proofs.ask(900);
        proofs.ask(60);
        assert!(proofs.wanted.notified().now_or_never().is_some());
        assert_eq!(proofs.older_than_secs(), 900);
        assert!(proofs.wanted.notified().now_or_never().is_none());
        tokio::time::advance(ASK_AGAIN).await;
        proofs.ask(60);
        assert!(proofs.wanted.notified().now_or_never().is_some());
        assert_eq!(proofs.older_than_secs(), 60);
    }
}
