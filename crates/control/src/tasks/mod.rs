//! Background tasks: each has a name, one owner that joins it, and ends with the one shutdown token.

pub(crate) mod audit_log;
pub(crate) mod campaigns;
pub(crate) mod gates;
pub(crate) mod last_seen;
pub(crate) mod planner;
pub(crate) mod rotation;
pub(crate) mod upkeep;
pub(crate) mod vault_poll;

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The tasks of the service. A task that ends before the shutdown takes the service down with it:
/// a control service without its planner would look healthy and do nothing.
pub(crate) struct Tasks {
    shutdown: CancellationToken,
    running: JoinSet<&'static str>,
}

impl Tasks {
    pub(crate) fn new(shutdown: CancellationToken) -> Self {
        Self {
            shutdown,
            running: JoinSet::new(),
        }
    }

    /// Starts a task under a name.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.running.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits for the shutdown or for a task that ended without it; returns that task's name.
    pub(crate) async fn until_shutdown(&mut self) -> Option<&'static str> {
        tokio::select! {
            // Cancel-safe: the token keeps its state.
            () = self.shutdown.cancelled() => None,
            // Cancel-safe: an ended task stays in the set until it is taken.
            ended = self.running.join_next() => {
                // The shutdown is the reason where both are seen at once.
                if self.shutdown.is_cancelled() {
                    return None;
                }
                self.shutdown.cancel();
                Some(ended.and_then(Result::ok).unwrap_or("a task that panicked"))
            }
        }
    }

    /// Waits for every task to end; after the deadline the rest is aborted and counted.
    pub(crate) async fn join(mut self, deadline: Duration) -> usize {
        let all = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(deadline, all).await.is_ok() {
            return 0;
        }
        let left = self.running.len();
        self.running.shutdown().await;
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_because_of_the_shutdown_is_not_blamed_for_it() {
        // Often: which of the two is seen first is up to chance.
        for _ in 0..50 {
            let shutdown = CancellationToken::new();
            let mut tasks = Tasks::new(shutdown.clone());
            tasks.spawn("quick", shutdown.clone().cancelled_owned());
            shutdown.cancel();
            tokio::task::yield_now().await;
            assert_eq!(tasks.until_shutdown().await, None);
            assert_eq!(tasks.join(Duration::from_secs(5)).await, 0);
        }
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_takes_the_service_down_and_is_named() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn("the planner", std::future::ready(()));
        assert_eq!(tasks.until_shutdown().await, Some("the planner"));
        assert!(shutdown.is_cancelled());
    }
}
