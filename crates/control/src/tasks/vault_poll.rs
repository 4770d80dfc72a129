//! Asks Vault for new versions, and wipes values that nobody needs any more.

use tokio_util::sync::CancellationToken;

use crate::app::App;

/// Runs until the shutdown.
pub(crate) async fn run(app: App, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(app.config.vault_poll);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Cancel-safe: the token keeps its state.
            () = shutdown.cancelled() => return,
            // Cancel-safe: a tick that was not taken comes again.
            _ = ticks.tick() => {}
        }
        if let Err(err) = app.poll_keys().await {
            tracing::error!(error = %err, "asking Vault for new versions failed; it is tried again");
        }
        app.keyring.wipe_unneeded();
    }
}
