//! What became of each deployment of a run, read from the copy once nothing happens any more.

use std::collections::BTreeMap;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingState;
use keyfleet_core::id::DeploymentId;
use keyfleet_proto::v1;
use keyfleet_store::{Rollout, RolloutTarget, Tx};

use crate::error::Error;

/// A deployment of a run, as it ended.
pub(super) struct Fate {
    pub(super) deployment: DeploymentId,
    /// Index of its wave.
    pub(super) wave: usize,
    /// When it was offered the change.
    pub(super) offered: Option<Timestamp>,
    /// When it was proven, had failed for the last time, or was told to go back.
    pub(super) settled: Option<Timestamp>,
    /// When it had again what it had before.
    pub(super) back: Option<Timestamp>,
    pub(super) is_proven: bool,
    pub(super) has_failed: bool,
}

/// How many deployments of the active runs have settled.
pub(super) fn settled(tx: &Tx<'_>) -> Result<v1::SimulationProgress, Error> {
    let mut progress = v1::SimulationProgress::default();
    for rollout in tx.active_rollouts()? {
        for fate in fates(tx, &rollout)? {
            progress.deployments += 1;
            progress.settled += u32::from(fate.settled.is_some());
        }
    }
    Ok(progress)
}

/// How each deployment of a run stands: it is as good as its worst binding.
pub(super) fn fates(tx: &Tx<'_>, rollout: &Rollout) -> Result<Vec<Fate>, Error> {
    let mut rows = BTreeMap::new();
    for row in tx.bindings_in(rollout.id)? {
        rows.insert(row.id.clone(), row);
    }
    let mut changes: BTreeMap<DeploymentId, Vec<_>> = BTreeMap::new();
    for change in tx.rollout_bindings(rollout.id)? {
        changes
            .entry(change.id.deployment)
            .or_default()
            .push(change);
    }
    let fate = |target: RolloutTarget| {
        let own = changes
            .get(&target.deployment)
            .map_or(&[][..], Vec::as_slice);
        let found: Vec<_> = own
            .iter()
            .map(|change| (change, rows.get(&change.id)))
            .collect();
        // What was removed has no row any more.
        let has_it = found.iter().all(|(change, row)| {
            row.map_or(change.to.is_none(), |row| {
                let told = row.desired.and_then(|desired| desired.assignment);
                told == change.to && row.progress.state == BindingState::Proven
            })
        });
        let failed = target.failure.is_some()
            || found.iter().any(|(change, row)| {
                let is_failed = row.is_some_and(|row| row.progress.state == BindingState::Failed);
                is_failed || change.failure.is_some()
            });
        let last = found
            .iter()
            .filter_map(|(_, row)| Some(row.as_ref()?.progress.at))
            .max();
        let is_proven = target.offered_at.is_some() && has_it;
        let is_back = target.rollback_at.is_some()
            && found
                .iter()
                .all(|(_, row)| row.is_none_or(|row| row.progress.state == BindingState::Proven));
        let settled = target.rollback_at.or(last.filter(|_| is_proven || failed));
        Fate {
            deployment: target.deployment,
            wave: target.wave,
            offered: target.offered_at,
            settled,
            back: last.or(target.rollback_at).filter(|_| is_back),
            is_proven,
            has_failed: failed,
        }
    };
    Ok(tx
        .rollout_targets(rollout.id)?
        .into_iter()
        .map(fate)
        .collect())
}

/// How many spans are open at the same time, at most; one without an end never closes.
pub(super) fn most(spans: impl Iterator<Item = (Timestamp, Option<Timestamp>)>) -> u32 {
    let mut steps = Vec::new();
    for (from, until) in spans {
        steps.push((from, 1));
        // Who leaves makes room before the next one comes.
        steps.extend(until.map(|until| (until.max(from), -1)));
    }
    steps.sort_unstable();
    let (mut now, mut most) = (0_i64, 0_i64);
    for (_, step) in steps {
        now += step;
        most = most.max(now);
    }
    u32::try_from(most).unwrap_or_default()
}
