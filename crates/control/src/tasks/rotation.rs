//! Ends a rotation of the CA when the last agent has come with a certificate of the next one.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::App;

/// Without a rotation a look costs nothing.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until the shutdown.
pub(crate) async fn run(app: App, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Cancel-safe: the token keeps its state.
            () = shutdown.cancelled() => return,
            // Cancel-safe: a tick that was not taken comes again.
            _ = ticks.tick() => {}
        }
        if let Err(err) = app.finish_ca_rotation_if_done().await {
            tracing::error!(error = %err, "the rotation of the CA was not ended; it is tried again");
        }
    }
}
