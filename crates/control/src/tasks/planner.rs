//! The planner: steps every active rollout, on a nudge and when the plan asked for it.

use std::collections::BTreeMap;
use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::id::{DeploymentId, RolloutId};
use keyfleet_core::rollout::WaitingOn;
use keyfleet_store::{Deployment, Tx};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::app::rivals::Rivals;
use crate::app::standing::sentence;
use crate::app::step::{Outcome, Surroundings, begin_anew, step_all, unwatched};
use crate::clock;
use crate::error::Error;

/// Without news and without a wish of the plan, everything is looked at again after this long: sentences that say how
/// much time is left are never older, and a nudge that a mistake lost costs time and nothing else.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

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
    let (needs_work, cut_off) = app
        .store
        .read(|tx| {
            let waits = |b: &keyfleet_store::Binding| !b.is_told_goal();
            let needs = !tx.active_rollouts()?.is_empty() || tx.bindings()?.iter().any(waits);
            let cut_off = if needs { cut_off(tx)? } else { BTreeMap::new() };
            Ok::<_, Error>((needs, cut_off))
        })
        .await?;
    if !needs_work {
        app.set_waiting(BTreeMap::new());
        return Ok(None);
    }
    // An agent that is not trusted, or not alone, is sent nothing, as if it were not there.
    let mut online = app.sessions.online();
    online.retain(|id| !cut_off.contains_key(id));
    let now = clock::now();
    let turns = app.sessions.pace.turns().into_iter();
    let turns = turns.filter_map(|(id, ago)| Some((id, now.checked_sub(ago).ok()?)));
    let around = Surroundings {
        now,
        turns: turns.collect(),
        epoch: app.store.epoch(),
        online,
        watch: unwatched,
    };
    let outcomes = app.store.write(move |tx| step_all(tx, &around)).await?;
    let wake_at = outcomes
        .values()
        .filter_map(|outcome| outcome.wake_at)
        .min();
    publish(app, outcomes, &cut_off);
    Ok(wake_at)
}

/// The deployments that are told nothing new, each with the sentence that says why: their agents are not trusted, or
/// there is another one on the same Kibana. Who that is, views say to those who may see it.
pub(crate) fn cut_off(tx: &Tx<'_>) -> Result<BTreeMap<DeploymentId, String>, Error> {
    let rivals = Rivals::load(tx)?;
    let nobody = BTreeMap::<DeploymentId, String>::new();
    let conflict = |id| rivals.sentence(id, &nobody).map(|why| (id, why));
    let mut all: BTreeMap<DeploymentId, String> = rivals.ids().filter_map(conflict).collect();
    let rows = tx.deployments_cut_off()?.into_iter();
    let sentence = |row: Deployment| sentence(&row).map(|why| (row.id, why));
    all.extend(rows.filter_map(sentence));
    Ok(all)
}

fn publish(
    app: &App,
    outcomes: BTreeMap<RolloutId, Outcome>,
    cut_off: &BTreeMap<DeploymentId, String>,
) {
    let mut waiting = BTreeMap::new();
    for (id, mut outcome) in outcomes {
        for waiting in &mut outcome.waiting {
            let why = waiting.deployment().and_then(|id| cut_off.get(&id));
            if let Some(why) = why {
                waiting.on = WaitingOn::CutOff(why.clone());
            }
        }
        app.sessions.notify(&outcome.touched);
        if !outcome.ended {
            waiting.insert(id, outcome.waiting);
        }
    }
    app.set_waiting(waiting);
    app.publish();
}
