//! What the labels of deployments mean to a strategy: the group that a wave is spread over, and maintenance windows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::DeploymentId;
use keyfleet_core::rollout::{Opening, Run, Strategy, TIME_ZONE_LABEL};
use keyfleet_store::{RolloutTarget, Tx};

use crate::app::calendar::{Calendar, Shut};
use crate::error::Error;

/// The deployments of a run as its strategy sees them now.
pub(super) struct Sites<'a> {
    strategy: &'a Strategy,
    now: Timestamp,
    /// Empty where the strategy asks for none.
    labels: BTreeMap<DeploymentId, Labels>,
    /// `None` without windows and blackouts.
    calendar: Option<Calendar>,
    groups: BTreeMap<String, Arc<str>>,
    /// By time zone: whether a window is open is the same for all who share one.
    openings: BTreeMap<Option<String>, Opening>,
    /// By time zone too: when none was open since the running wave began.
    shut: BTreeMap<Option<String>, Vec<Shut>>,
}

impl<'a> Sites<'a> {
    pub(super) fn load(tx: &Tx<'_>, strategy: &'a Strategy, now: Timestamp) -> Result<Self, Error> {
        let has_calendar = !strategy.windows.is_empty() || !strategy.blackouts.is_empty();
        let is_spread = strategy.waves.iter().any(|wave| wave.spread.is_some());
        let rows = match has_calendar || is_spread {
            true => tx.deployments()?,
            false => Vec::new(),
        };
        Ok(Self {
            strategy,
            now,
            labels: rows.into_iter().map(|row| (row.id, row.labels)).collect(),
            calendar: has_calendar.then(|| Calendar::new(strategy)),
            groups: BTreeMap::new(),
            openings: BTreeMap::new(),
            shut: BTreeMap::new(),
        })
    }

    /// The value of the label that the target's wave is spread over.
    pub(super) fn group(&mut self, target: &RolloutTarget) -> Option<Arc<str>> {
        let waves = &self.strategy.waves;
        let wave = waves.get(target.wave).or(waves.last())?;
        let label = &wave.spread.as_ref()?.label;
        let value = self.labels.get(&target.deployment)?.get(label)?;
        if let Some(known) = self.groups.get(value) {
            return Some(Arc::clone(known));
        }
        let group: Arc<str> = Arc::from(value.as_str());
        self.groups.insert(value.clone(), Arc::clone(&group));
        Some(group)
    }

    /// Whether one of the deployment's windows is open.
    pub(super) fn opening(&mut self, deployment: DeploymentId) -> Opening {
        let Some(calendar) = &self.calendar else {
            return Opening::Always;
        };
        let none = Labels::new();
        let labels = self.labels.get(&deployment).unwrap_or(&none);
        let now = self.now;
        let opening = self.openings.entry(zone_of(labels));
        opening
            .or_insert_with(|| calendar.opening(labels, now))
            .clone()
    }

    /// For how long its windows kept the change from the target since the running wave began.
    pub(super) fn shut(&mut self, target: &RolloutTarget, run: &Run) -> Duration {
        let Some(calendar) = &self.calendar else {
            return Duration::ZERO;
        };
        let (from, now) = (run.wave_started_at, self.now);
        let none = Labels::new();
        let labels = self.labels.get(&target.deployment).unwrap_or(&none);
        let shut = self.shut.entry(zone_of(labels));
        let shut = shut.or_insert_with(|| calendar.shut(labels, from, now));
        let until = target.offered_at.unwrap_or(now);
        shut.iter().map(|shut| shut.before(until)).sum()
    }
}

fn zone_of(labels: &Labels) -> Option<String> {
    labels.get(TIME_ZONE_LABEL).cloned()
}
