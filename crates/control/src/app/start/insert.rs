//! Rows of a new rollout, and the end of those that it takes over.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{DeploymentId, RolloutId};
use keyfleet_core::rollout::{Event as RunEvent, Run, Strategy, assign_waves};
use keyfleet_store::{Binding, Event, EventScope, Rollout, RolloutBinding, RolloutTarget, Tx};

use crate::app::KEYFLEET;
use crate::error::Error;

pub(super) fn insert(
    tx: &Tx<'_>,
    strategy: Strategy,
    bindings: &[Binding],
    cause: &str,
    actor: &str,
    now: Timestamp,
) -> Result<RolloutId, Error> {
    let id = new_id(tx, now)?;
    let targets = targets(tx, &strategy, bindings)?;
    let changes: Vec<RolloutBinding> = bindings
        .iter()
        .map(|binding| RolloutBinding {
            id: binding.id.clone(),
            from: binding.last_proven,
            to: binding.goal,
            failure: None,
        })
        .collect();
    let rollout = Rollout {
        id,
        strategy,
        cause: cause.to_owned(),
        actor: actor.to_owned(),
        run: Run::new(actor, now),
        started_at: now,
        ended_at: None,
    };
    tx.insert_rollout(&rollout, &targets, &changes)?;
    let text = format!(
        "started: {cause}; {} bindings on {} deployments",
        changes.len(),
        targets.len()
    );
    tx.add_event(
        EventScope::Rollout(id),
        &Event {
            at: now,
            actor: actor.to_owned(),
            text,
        },
    )?;
    Ok(id)
}

fn targets(
    tx: &Tx<'_>,
    strategy: &Strategy,
    bindings: &[Binding],
) -> Result<Vec<RolloutTarget>, Error> {
    let labels: BTreeMap<DeploymentId, Labels> = tx
        .deployments()?
        .into_iter()
        .map(|d| (d.id, d.labels))
        .collect();
    let none = Labels::new();
    let deployments: BTreeSet<DeploymentId> = bindings.iter().map(|b| b.id.deployment).collect();
    let fleet: Vec<(DeploymentId, &Labels)> = deployments
        .iter()
        .map(|id| (*id, labels.get(id).unwrap_or(&none)))
        .collect();
    let waves = assign_waves(strategy, &fleet);
    let target = |(deployment, wave): (&DeploymentId, usize)| RolloutTarget {
        deployment: *deployment,
        wave,
        offered_at: None,
        rollback_at: None,
        forgiven: false,
        left: false,
        failure: None,
    };
    Ok(deployments.iter().zip(waves).map(target).collect())
}

/// Why a rollout ends that is for nobody any more.
pub(crate) const NOBODY_LEFT: &str =
    "nobody of it is left: what it was to bring is wanted nowhere any more";

/// Ends a rollout for another, or because it is for nobody any more.
pub(crate) fn supersede(
    tx: &Tx<'_>,
    rollout: &Rollout,
    reason: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let mut run = rollout.run.clone();
    run.happen(RunEvent::Superseded, reason, now)?;
    tx.set_run(rollout.id, &run, Some(now))?;
    let event = Event {
        at: now,
        actor: KEYFLEET.to_owned(),
        text: reason.to_owned(),
    };
    tx.add_event(EventScope::Rollout(rollout.id), &event)?;
    Ok(())
}

/// The id of the `n`th thing of a kind that starts now: a UUIDv7 whose random part follows from all that, so that a
/// simulation gives the same ids again.
pub(crate) fn time_ordered(kind: &str, n: u16, now: Timestamp) -> uuid::Uuid {
    let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
    let seed = format!("{kind} {n} of {}", now.as_nanosecond());
    let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, seed.as_bytes());
    let mut random = [0; 10];
    for (byte, hashed) in random.iter_mut().skip(2).zip(hash.as_bytes()) {
        *byte = *hashed;
    }
    // Later ones of the same moment come later in the order of ids.
    [random[0], random[1]] = n.to_be_bytes();
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// The id of a rollout that starts now.
fn new_id(tx: &Tx<'_>, now: Timestamp) -> Result<RolloutId, Error> {
    for n in 0..=u16::MAX {
        let id = time_ordered("rollout", n, now);
        if tx.rollouts_with_prefix(&id.to_string())?.is_empty() {
            return Ok(RolloutId::new(id));
        }
    }
    Ok(RolloutId::new(uuid::Uuid::now_v7()))
}
