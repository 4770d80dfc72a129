//! Stores when agents that stay away were last seen. One that comes back soon leaves no trace in the database:
//! reconnecting with nothing new writes no row.

use std::time::Duration;

use keyfleet_store::Tx;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::clock;
use crate::error::Error;

/// An agent that is away for longer has not just reconnected.
const AWAY: Duration = Duration::from_secs(60);

/// Runs until the shutdown.
pub(crate) async fn run(app: App, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(AWAY / 2);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Cancel-safe: the token keeps its state.
            () = shutdown.cancelled() => return,
            // Cancel-safe: a tick that was not taken comes again.
            _ = ticks.tick() => {}
        }
        if let Err(err) = activate(&app).await {
            tracing::warn!(error = %err, "when agents were last seen was not stored");
        }
    }
}

async fn activate(app: &App) -> Result<(), Error> {
    let limit = clock::now().saturating_sub(AWAY).unwrap_or_default();
    let left = app.sessions.take_left_before(limit);
    if left.is_empty() {
        return Ok(());
    }
    let write = move |tx: &Tx<'_>| {
        for (deployment, at) in left {
            tx.set_last_seen(deployment, at)?;
        }
        Ok::<_, Error>(())
    };
    app.store.write(write).await
}
