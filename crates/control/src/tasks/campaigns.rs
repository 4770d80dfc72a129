//! Takes campaigns further: after each change, and now and then because time alone may let one go on.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::App;

/// Without news everything is looked at again after this long: an overlap may have ended.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Changes that come faster than this are looked at as one: a look reads every binding of the Key.
const COALESCE: Duration = Duration::from_millis(200);

/// Runs until the shutdown.
pub(crate) async fn run(app: App, shutdown: CancellationToken) {
    let mut changes = app.watch();
    loop {
        changes.mark_unchanged();
        let has_more = app.step_campaigns().await.unwrap_or_else(|err| {
            tracing::error!(error = %err, "the campaigns were not taken further; it is tried again");
            false
        });
        if has_more {
            continue;
        }
        tokio::select! {
            // Cancel-safe: the token keeps its state.
            () = shutdown.cancelled() => return,
            // Cancel-safe: a change that was not seen is seen at the next look.
            _ = changes.changed() => {}
            // Cancel-safe: a new timer is made each time.
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        tokio::select! {
            // Cancel-safe: the token keeps its state.
            () = shutdown.cancelled() => return,
            // Cancel-safe: a new timer is made each time.
            () = tokio::time::sleep(COALESCE) => {}
        }
    }
}
