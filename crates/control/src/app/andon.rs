//! The fleet-wide stop. It is a row, which the planner reads in the transaction that would offer something: what was
//! not offered before it was stored never is. Sessions hear of it through [`super::Parts::andon`].

use std::collections::BTreeSet;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingState;
use keyfleet_core::id::PlacementName;
use keyfleet_core::placement::DriftPolicy;
use keyfleet_proto::{Invalid, v1};
use keyfleet_store::{Andon, Tx};

use super::audit::{Act, record};
use super::step::begin_anew;
use super::view::wire_andon;
use super::{Actor, App};
use crate::clock;
use crate::error::Error;

/// Who stopped the fleet, since when and why: what every sentence about waiting says.
pub(crate) fn words(andon: &Andon) -> String {
    let since = andon.at.strftime("%Y-%m-%d %H:%M:%S UTC");
    format!("{} since {since}: {}", andon.by, andon.reason)
}

/// Drift that agents were not allowed to correct fails no rollout: they correct it now, and prove it in time.
fn let_drift_be_corrected(tx: &Tx<'_>, now: Timestamp) -> Result<(), Error> {
    let placements = tx.placements()?.into_iter();
    let correcting: BTreeSet<PlacementName> = placements
        .filter(|placement| placement.drift_policy == DriftPolicy::Correct)
        .map(|placement| placement.name)
        .collect();
    for rollout in tx.active_rollouts()? {
        for mut binding in tx.bindings_in(rollout.id)? {
            let is_theirs = correcting.contains(&binding.placement);
            if is_theirs && binding.progress.state == BindingState::Drifted {
                binding.progress.state = BindingState::Applied;
                binding.progress.at = now;
                binding.progress.failure = None;
                tx.put_binding(&binding)?;
            }
        }
    }
    Ok(())
}

impl App {
    /// Tells everybody what is stored; once, before anything is planned or any agent is let in.
    pub(crate) async fn load_andon(&self) -> Result<(), keyfleet_store::Error> {
        let andon = self.store.read(|tx| tx.andon()).await?;
        if let Some(andon) = &andon {
            tracing::warn!(andon = %words(andon), "andon is on: nothing new leaves control");
        }
        self.andon.send_replace(andon);
        Ok(())
    }

    /// Stops the fleet, or lets it go on. Stopping it twice keeps the first word; each is in the audit log.
    pub(crate) async fn set_andon(
        &self,
        actor: &Actor,
        request: v1::SetAndonRequest,
    ) -> Result<v1::SetAndonResponse, Error> {
        let reason = request.reason.trim().to_owned();
        if reason.is_empty() {
            let problem = "is missing: say why, for the audit log";
            return Err(Invalid::new("reason", problem).into());
        }
        // What is told has the order of what is stored.
        let _turn = self.andon_turn.lock().await;
        let (actor, now) = (actor.clone(), clock::now());
        let write = move |tx: &Tx<'_>| set(tx, &actor, request.on, reason, now);
        let andon = self.store.write(write).await?;
        self.andon.send_replace(andon.clone());
        self.changed();
        Ok(v1::SetAndonResponse {
            andon: andon.map(wire_andon),
        })
    }
}

/// Stores the stop, or its end; returns what holds from now on.
pub(crate) fn set(
    tx: &Tx<'_>,
    actor: &Actor,
    on: bool,
    reason: String,
    now: Timestamp,
) -> Result<Option<Andon>, Error> {
    let before = tx.andon()?;
    let andon = on.then(|| {
        before.clone().unwrap_or(Andon {
            by: actor.principal.clone(),
            reason: reason.clone(),
            at: now,
        })
    });
    tx.set_andon(andon.as_ref())?;
    if before.is_some() && andon.is_none() {
        // Nobody was at work meanwhile, and nobody is late.
        begin_anew(tx, now)?;
        let_drift_be_corrected(tx, now)?;
    }
    let act = Act {
        action: if on { "andon.on" } else { "andon.off" },
        target: "fleet".to_owned(),
        reason,
        detail: match (&before, on) {
            (Some(before), true) => format!("it was on already, by {}", words(before)),
            (Some(before), false) => format!("it was on, by {}", words(before)),
            (None, true) => String::new(),
            (None, false) => "it was off already".to_owned(),
        },
    };
    record(tx, actor, act, now)?;
    Ok(andon)
}
