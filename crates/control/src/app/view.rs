//! What operators see: rows put together as wire messages.

mod campaigns;
mod facts;
mod fleet;
mod keys;
mod rollouts;
mod sight;
mod waits;

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{BindingId, BindingState};
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{DeploymentId, DeploymentName, KeyName, PlacementName, RolloutId};
use keyfleet_core::placement::Placement;
use keyfleet_core::rollout::WaitingOn;
use keyfleet_proto::{WireTime, v1};
use keyfleet_store::{Binding, Event, KeyRow, Tx};

use super::andon::words;
use super::barred::Barred;
use super::standing::sentence;
use super::{Actor, App};
use crate::clock;
use crate::error::Error;
use waits::Waits;

impl App {
    /// What is known of the moment outside the database.
    pub(crate) fn scene(&self) -> Scene {
        let mut problems = self.database_problems();
        problems.extend(self.rotation_problem());
        Scene {
            now: clock::now(),
            online: self.sessions.online(),
            left: self.sessions.left(),
            waiting: self.waiting(),
            around: self.around_campaigns(),
            problems,
        }
    }

    /// Reads what this caller may see.
    pub(crate) async fn view_as<T: Send + 'static>(
        &self,
        actor: &Actor,
        work: impl FnOnce(&Sight<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (scene, scope) = (self.scene(), actor.scope.clone());
        let read = move |tx: &Tx<'_>| work(&Sight::load(tx, &scene, &scope)?);
        self.store.read(read).await
    }
}

pub(crate) use campaigns::{campaign, campaigns, only_campaign};
pub(crate) use fleet::{
    binding_views, connector, connectors, deployment, deployments, placements, strategies,
};
pub(crate) use fleet::{status, wire_andon};
pub(crate) use keys::{key, keys};
pub(crate) use rollouts::{explain, rollout, rollout_detail, rollouts};
pub(crate) use sight::{Scene, Sight};

/// A point in time for the wire.
pub(crate) fn wire_time(at: Timestamp) -> Option<prost_types::Timestamp> {
    Some(WireTime(at).into())
}

fn count_states(states: impl IntoIterator<Item = BindingState>) -> Vec<v1::StateCount> {
    let mut counts: BTreeMap<BindingState, u32> = BTreeMap::new();
    for state in states {
        *counts.entry(state).or_default() += 1;
    }
    counts
        .into_iter()
        .map(|(state, count)| v1::StateCount {
            state: v1::BindingState::from(state).into(),
            count,
        })
        .collect()
}

fn events(events: Vec<Event>) -> Vec<v1::Event> {
    events
        .into_iter()
        .map(|event| v1::Event {
            at: wire_time(event.at),
            actor: event.actor,
            text: event.text,
        })
        .collect()
}

/// Why bindings are not converged: what the sentences are made of, loaded once.
struct Reasons {
    /// Who stopped the fleet, and why.
    andon: Option<String>,
    run_of: BTreeMap<BindingId, RolloutId>,
    /// What holds up the deployments that an active rollout changes.
    waits: BTreeMap<RolloutId, Waits>,
    /// Bindings that wait for the end of a rollout that is not for them, or that were away when theirs ended.
    later: BTreeMap<BindingId, String>,
    keys_of: BTreeMap<keyfleet_core::id::ConnectorName, KeyName>,
    keys: BTreeMap<KeyName, KeyRow>,
    placements: BTreeMap<PlacementName, Placement>,
    labels: BTreeMap<DeploymentId, Labels>,
    online: BTreeSet<DeploymentId>,
    /// Why deployments get nothing whose agents are not trusted.
    cut_off: BTreeMap<DeploymentId, String>,
    /// Bindings that no rollout can do anything about.
    barred: Barred,
    /// Removals that wait for what takes the connector's place.
    exchanged: BTreeMap<BindingId, String>,
    /// Deployments that have as many bindings as they may have, and are asked for more.
    full: BTreeMap<DeploymentId, String>,
    /// The deployments that may be named.
    names: BTreeMap<DeploymentId, DeploymentName>,
}

impl Reasons {
    fn load(sight: &Sight<'_>) -> Result<Self, Error> {
        let fleet = || sight.deployments().iter();
        let mut reasons = Self {
            andon: sight.andon()?.as_ref().map(words),
            run_of: BTreeMap::new(),
            waits: BTreeMap::new(),
            later: sight.later()?,
            keys_of: BTreeMap::new(),
            keys: BTreeMap::new(),
            placements: sight
                .placements()?
                .into_iter()
                .map(|p| (p.name.clone(), p))
                .collect(),
            labels: fleet().map(|d| (d.id, d.labels.clone())).collect(),
            online: fleet()
                .map(|d| d.id)
                .filter(|id| sight.is_online(*id))
                .collect(),
            cut_off: fleet()
                .filter_map(|d| sentence(d).map(|why| (d.id, why)))
                .collect(),
            barred: sight.barred()?,
            exchanged: sight.exchanged()?,
            full: sight.full()?,
            names: sight.names(),
        };
        for (id, changes) in sight.active_changes()? {
            for change in changes {
                reasons.run_of.insert(change.id, id);
            }
            reasons.waits.insert(id, Waits::load(sight, id)?);
        }
        for connector in sight.connectors()? {
            let revision = connector.revision;
            reasons
                .keys_of
                .entry(revision.connector)
                .or_insert(revision.spec.key);
        }
        for row in sight.keys()? {
            reasons.keys.insert(row.key.name.clone(), row);
        }
        Ok(reasons)
    }

    /// True where a placement asks for the binding and there is nothing that it could get.
    fn is_bare(&self, binding: &Binding) -> bool {
        let id = &binding.id;
        let asks = |placement: &Placement| {
            let labels = self.labels.get(&id.deployment);
            labels.is_some_and(|labels| placement.selector.matches(labels))
                && placement.connectors.contains(&id.connector)
                && placement.places_in(&id.space)
        };
        binding.goal.is_none()
            && binding.is_told_goal()
            && self.placements.get(&binding.placement).is_some_and(asks)
    }

    /// True where the connector was removed for good: nobody wants to see it any more.
    fn is_gone(&self, binding: &Binding) -> bool {
        binding.goal.is_none() && binding.is_converged() && !self.is_bare(binding)
    }

    /// One sentence; empty where the binding has what it shall have and has proven it.
    fn of(&self, binding: &Binding) -> String {
        if let Some(why) = self.barred.why(&binding.id, &self.names) {
            let runs = match binding.running {
                Some(_) => "; what runs there stays as it is",
                None => "",
            };
            return format!("{why}{runs}");
        }
        if binding.is_converged() && !self.is_bare(binding) {
            return String::new();
        }
        if let Some(andon) = &self.andon {
            return WaitingOn::Andon(andon.as_str().into()).to_string();
        }
        if let Some(why) = self.cut_off.get(&binding.id.deployment) {
            return why.clone();
        }
        let later = self.later.get(&binding.id);
        if let Some(id) = self.run_of.get(&binding.id).filter(|_| later.is_none()) {
            let waits = self.waits.get(id);
            let sentence = waits.map(|waits| waits.of(binding.id.deployment));
            return sentence.unwrap_or_else(|| waits::about_to_act(*id));
        }
        let offline = if self.online.contains(&binding.id.deployment) {
            ""
        } else {
            "; its agent is not connected"
        };
        if self.is_bare(binding) {
            return self.nothing_to_spread(binding);
        }
        if let Some(id) = binding.held_by.filter(|_| later.is_none()) {
            let id = short(id);
            return format!(
                "rollout {id} was aborted or rolled back before this binding had what it shall have: `keyfleet rollout retry {id}` or a new change goes on{offline}"
            );
        }
        if let Some(why) = self.exchanged.get(&binding.id) {
            return format!("{why}{offline}");
        }
        if !binding.is_told_goal() {
            let why = later.map_or("a rollout is about to start", String::as_str);
            return format!("{why}{offline}");
        }
        match &binding.progress.failure {
            Some(failure) => format!("{}: {}{offline}", failure.class, failure.text),
            None => format!(
                "{}: no live call has proven it yet{offline}",
                binding.progress.state
            ),
        }
    }

    /// Why a deployment gets nothing at all; empty where nothing of that kind stands in the way.
    fn of_deployment(&self, id: DeploymentId) -> String {
        let conflict = || self.barred.rivals().sentence(id, &self.names);
        let cut_off = self.cut_off.get(&id).cloned();
        let full = || self.full.get(&id).cloned();
        cut_off.or_else(conflict).or_else(full).unwrap_or_default()
    }

    fn nothing_to_spread(&self, binding: &Binding) -> String {
        let connector = &binding.id.connector;
        let Some(key) = self.keys_of.get(connector) else {
            return format!("connector {connector} has no revision");
        };
        let row = self.keys.get(key);
        let labels = self.labels.get(&binding.id.deployment);
        if let (Some(row), Some(labels)) = (row, labels)
            && !row.key.scope.matches(labels)
        {
            let scope = &row.key.scope;
            return format!(
                "key {key} may only be used where {scope}: change its spec.scope or the placement"
            );
        }
        let vault = row.map_or("not asked yet", |row| row.vault_status.as_str());
        format!(
            "connector {connector} has no revision and version of key {key} that is not withdrawn or abandoned (Vault: {vault})"
        )
    }
}

/// The beginning of a rollout's id: enough for people. The last group of a UUIDv7 is random, the first is time;
/// eight characters would be the same for all rollouts of a minute, so that thirteen are shown.
pub(crate) fn short(id: RolloutId) -> String {
    id.to_string().chars().take(13).collect()
}
