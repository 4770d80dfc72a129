//! Says where the audit log ends, for logs that are kept elsewhere, and writes down how many were refused.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often the end of the chain is logged.
const HEAD_INTERVAL: Duration = Duration::from_secs(3_600);

/// How often counted refusals are written.
const REFUSALS_INTERVAL: Duration = Duration::from_secs(60);

/// Runs until the shutdown.
pub(crate) async fn run(app: App, shutdown: CancellationToken) {
    let mut heads = tokio::time::interval(HEAD_INTERVAL);
    let mut refusals = tokio::time::interval(REFUSALS_INTERVAL);
    for ticks in [&mut heads, &mut refusals] {
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    }
    loop {
        tokio::select! {
            // Cancel-safe: the token keeps its state.
            () = shutdown.cancelled() => return,
            // Cancel-safe: a tick that was not taken comes again. The first is at once.
            _ = heads.tick() => app.log_audit_head().await,
            // Cancel-safe: a tick that was not taken comes again.
            _ = refusals.tick() => app.write_counted_refusals().await,
        }
    }
}
