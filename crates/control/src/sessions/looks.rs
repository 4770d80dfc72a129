//! Agents that are asked to look at their Kibana now, because somebody waits for what they find.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use keyfleet_core::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// How long somebody waits for an agent that looks.
const LOOK_DEADLINE: Duration = Duration::from_secs(30);

/// What one session's agent is asked, and what it said last.
pub(crate) struct Looks {
    /// Told when the agent shall look. One permit is kept.
    pub(crate) wanted: Notify,
    /// When the question was put that has no answer yet: who asks meanwhile waits for the same answer.
    asked_at: Mutex<Option<Instant>>,
    /// When Kibana was looked at, by the agent's clock.
    seen: watch::Sender<Option<Timestamp>>,
}

/// A question to an agent.
pub(crate) struct Look {
    seen: watch::Receiver<Option<Timestamp>>,
    before: Option<Timestamp>,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            wanted: Notify::new(),
            asked_at: Mutex::default(),
            seen: watch::Sender::new(None),
        }
    }
}

impl Looks {
    /// Has the agent look; once for all who ask before it has answered.
    pub(super) fn ask(&self) -> Look {
        let seen = self.seen.subscribe();
        let before = *seen.borrow();
        let mut asked_at = self.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
        if asked_at.is_none_or(|at| at.elapsed() >= LOOK_DEADLINE) {
            *asked_at = Some(Instant::now());
            self.wanted.notify_one();
        }
        Look { seen, before }
    }

    /// The agent said what it found, and that is stored.
    pub(super) fn found(&self, observed_at: Timestamp) {
        *self.asked_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.seen.send_replace(Some(observed_at));
    }
}

impl Look {
    /// Waits until the agent has looked; when it did, by its own clock. `None` where it has gone or takes too long.
    pub(crate) async fn found(mut self) -> Option<Timestamp> {
        let before = self.before;
        let is_newer = |seen: &Option<Timestamp>| seen.is_some() && *seen > before;
        // Cancel-safe: nothing is taken.
        let found = tokio::time::timeout(LOOK_DEADLINE, self.seen.wait_for(is_newer)).await;
        found.ok()?.ok().and_then(|seen| *seen)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(secs).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_ask_at_once_wait_for_one_answer() {
        let looks = Looks::default();
        looks.found(at(1));
        let (first, second) = (looks.ask(), looks.ask());
        looks.wanted.notified().now_or_never().unwrap();
        assert!(looks.wanted.notified().now_or_never().is_none());
        let mut first = pin!(first.found());
        assert!(first.as_mut().now_or_never().is_none());
        // What it saw before it was asked is no answer.
        looks.found(at(1));
        assert!(first.as_mut().now_or_never().is_none());
        looks.found(at(2));
        assert_eq!(
            (first.await, second.found().await),
            (Some(at(2)), Some(at(2)))
        );
        let _next = looks.ask();
        looks.wanted.notified().now_or_never().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let looks = Looks::default();
        let begin = Instant::now();
        assert_eq!(looks.ask().found().await, None);
        assert_eq!(begin.elapsed(), LOOK_DEADLINE);
        // An answer that never came does not keep the next question away.
        looks.wanted.notified().now_or_never().unwrap();
        let next = looks.ask();
        looks.wanted.notified().now_or_never().unwrap();
        drop(looks);
        assert_eq!(next.found().await, None);
    }
}
