//! Rows of a new rollout, and the end of those that it takes over.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{DeploymentId, RolloutId};
use keyfleet_core::rollout::{Event as RunEvent, Phase, Run, Strategy, assign_waves};
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
    let id = RolloutId::new(uuid::Uuid::now_v7());
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
        run: Run {
            phase: Phase::Pending,
            wave: 0,
            wave_started_at: now,
            hold_reason: String::new(),
        },
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
        failure: None,
    };
    Ok(deployments.iter().zip(waves).map(target).collect())
}

pub(super) fn supersede(
    tx: &Tx<'_>,
    rollout: &Rollout,
    by: &[RolloutId],
    now: Timestamp,
) -> Result<(), Error> {
    let phase = rollout.run.phase.next(RunEvent::Superseded)?;
    let by = by
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let reason = match by.as_str() {
        "" => "what it was to bring is wanted no more".to_owned(),
        by => format!("a newer rollout of the same connectors took over: {by}"),
    };
    let run = Run {
        phase,
        hold_reason: reason.clone(),
        ..rollout.run.clone()
    };
    tx.set_run(rollout.id, &run, Some(now))?;
    let event = Event {
        at: now,
        actor: KEYFLEET.to_owned(),
        text: reason,
    };
    tx.add_event(EventScope::Rollout(rollout.id), &event)?;
    Ok(())
}
