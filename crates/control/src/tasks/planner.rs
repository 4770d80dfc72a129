//! The planner: steps every active rollout, on a nudge and when the plan asked for it.

use std::collections::BTreeMap;
use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::id::RolloutId;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::app::step::{Outcome, Surroundings, begin_anew, step_all};
use crate::clock;
use crate::error::Error;

/// Without news and without a wish of the plan, everything is looked at again after this long: a nudge that a
/// mistake lost costs time and nothing else.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Runs until the shutdown.
pub(crate) async fn run(app: App, shutdown: CancellationToken) {
    let begin = |tx: &keyfleet_store::Tx<'_>| begin_anew(tx, clock::now());
    if let Err(err) = app.store.write(begin).await {
        tracing::error!(error = %err, "the rollouts under way were not given a new beginning");
    }
    loop {
        let wake_after = match activate(&app).await {
            Ok(wake_at) => until(wake_at),
            Err(err) => {
                tracing::error!(error = %err, "planning failed; it is tried again");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            // Cancel-safe: the token keeps its state.
            () = shutdown.cancelled() => return,
            // Cancel-safe: the permit stays until it is taken.
            () = app.nudge.notified() => {}
            // Cancel-safe: a new timer is made each time.
            () = tokio::time::sleep(wake_after) => {}
        }
    }
}

fn until(wake_at: Option<Timestamp>) -> Duration {
    let left =
        wake_at.map(|at| Duration::try_from(at.duration_since(clock::now())).unwrap_or_default());
    left.map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN))
}

/// Looks at everything once; returns when to look again.
async fn activate(app: &App) -> Result<Option<Timestamp>, Error> {
    let around = Surroundings {
        now: clock::now(),
        epoch: app.store.epoch(),
        online: app.sessions.online(),
    };
    let needs_work = app
        .store
        .read(|tx| {
            let waits = |b: &keyfleet_store::Binding| !b.is_told_goal() && b.held_by.is_none();
            Ok::<_, Error>(!tx.active_rollouts()?.is_empty() || tx.bindings()?.iter().any(waits))
        })
        .await?;
    if !needs_work {
        app.set_waiting(BTreeMap::new());
        return Ok(None);
    }
    let outcomes = app.store.write(move |tx| step_all(tx, &around)).await?;
    let wake_at = outcomes
        .values()
        .filter_map(|outcome| outcome.wake_at)
        .min();
    publish(app, outcomes);
    Ok(wake_at)
}

fn publish(app: &App, outcomes: BTreeMap<RolloutId, Outcome>) {
    let mut waiting = BTreeMap::new();
    for (id, outcome) in outcomes {
        app.sessions.notify(&outcome.touched);
        if !outcome.ended {
            waiting.insert(id, outcome.waiting);
        }
    }
    app.set_waiting(waiting);
    app.publish();
}
