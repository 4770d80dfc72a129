//! Background tasks: each has a name, one owner that joins it, and ends with the one shutdown token.

pub(crate) mod last_seen;
pub(crate) mod planner;
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
