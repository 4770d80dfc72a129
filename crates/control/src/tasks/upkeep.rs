//! Looks after the database: forgets old history in small bites, and asks a disk that was full whether it has space again.

use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_store::{Retention, Tx};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::clock;
use crate::error::Error;

/// How soon a disk that failed is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How often old history is looked for.
const LOOK: Duration = Duration::from_secs(3600);

/// What happened is kept for this long: a quarter, as long as people ask how something came about.
const KEPT_HOURS: i64 = 90 * 24;

/// Of each history, so many events stay however old they are.
const KEPT_ALWAYS: u32 = 20;

/// And never more of each: a thing that changes all day must not fill the disk.
const KEPT_AT_MOST: u32 = 2_000;

/// Events that are found at a time, and of these so many are forgotten in one commit: other writers go in between.
const FOUND_MAX: u32 = 10_000;
const BITE: usize = 500;

/// Runs until the shutdown.
pub(crate) async fn run(app: App, shutdown: CancellationToken) {
    let mut looked_at = None;
    let mut ticks = tokio::time::interval(ASK_AGAIN);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Cancel-safe: the token keeps its state.
            () = shutdown.cancelled() => return,
            // Cancel-safe: a tick that was not taken comes again.
            _ = ticks.tick() => {}
        }
        if let Some(trouble) = app.store.trouble() {
            ask_again(&app, &trouble).await;
            continue;
        }
        let now = tokio::time::Instant::now();
        if looked_at.is_some_and(|at| now.duration_since(at) < LOOK) {
            continue;
        }
        looked_at = Some(now);
        let kept = jiff::SignedDuration::from_hours(KEPT_HOURS);
        let since = clock::now().saturating_sub(kept).unwrap_or_default();
        if let Err(err) = forget(&app, since).await {
            tracing::warn!(error = %err, "old history was not forgotten; it is tried again");
        }
    }
}

async fn ask_again(app: &App, trouble: &str) {
    match app.store.probe().await {
        Ok(()) => {
            tracing::info!("the database is written again");
            // What failed meanwhile is tried again now.
            app.changed();
        }
        Err(err) => {
            tracing::error!(error = %err, trouble, "the database is not written; it is tried again");
        }
    }
}

async fn forget(app: &App, since: Timestamp) -> Result<(), Error> {
    let kept = Retention {
        since,
        always: KEPT_ALWAYS,
        at_most: KEPT_AT_MOST,
    };
    loop {
        let find = move |tx: &Tx<'_>| Ok::<_, Error>(tx.old_events(kept, FOUND_MAX)?);
        let found = app.store.read(find).await?;
        if found.is_empty() {
            return Ok(());
        }
        for bite in found.chunks(BITE) {
            let bite = bite.to_vec();
            let delete = move |tx: &Tx<'_>| Ok::<_, Error>(tx.delete_events(&bite)?);
            app.store.write(delete).await?;
        }
    }
}
