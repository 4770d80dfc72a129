//! Who belongs to a rollout that is under way: who leaves while it runs, and who comes too late for it.
//!
//! Both wait for its end, also while it is paused or halted. Who joins is to have the very change that is held: it would get
//! it past the hold, with budgets of its own. Who leaves may have to go back with the others, and what it is to have
//! now must not meet that half-way. Beyond its own bindings a held rollout holds nothing: rollouts of other connectors go
//! on with the same deployments, a newer change of the same connectors takes over, and `abort` lets everybody go.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingId};
use keyfleet_core::id::{ConnectorName, DeploymentId, RolloutId};
use keyfleet_core::rollout::Phase;
use keyfleet_store::{Binding, Event, EventScope, RolloutBinding, Tx};

use super::Exchanges;
use crate::app::KEYFLEET;
use crate::app::step::Loaded;
use crate::error::Error;

impl Loaded {
    /// Notes who no longer belongs to what the rollout is for; false where nobody is left.
    ///
    /// A deployment leaves when none of its bindings is to have what the rollout brings: what is in flight is finished,
    /// nothing is offered any more. Who has left stays away until the end, also when it comes back.
    pub(crate) fn take_leave(&mut self, tx: &Tx<'_>, now: Timestamp) -> Result<bool, Error> {
        let id = self.rollout.id;
        let mut is_anybody_left = false;
        for target in self.targets.iter_mut().filter(|target| !target.left) {
            let deployment = target.deployment;
            let changes = self.changes.entry(deployment).or_default();
            let gone = gone(&self.bindings, &self.exchanges, changes);
            if gone.len() < changes.len() {
                is_anybody_left = true;
                let is_left = |change: &mut RolloutBinding| {
                    gone.contains(&change.id) && !is_told(&self.bindings, change)
                };
                for change in changes.extract_if(.., is_left) {
                    tx.delete_rollout_binding(id, &change.id)?;
                }
                continue;
            }
            target.left = true;
            tx.put_rollout_target(id, target)?;
            let text = farewell(tx, deployment, target.offered_at.is_some())?;
            let event = Event {
                at: now,
                actor: KEYFLEET.to_owned(),
                text,
            };
            tx.add_event(EventScope::Rollout(id), &event)?;
        }
        Ok(is_anybody_left)
    }
}

/// The bindings of a deployment that are to have something else than the rollout brings, or are not there any more. A
/// removal goes with what was to take its connector's place.
fn gone(
    bindings: &BTreeMap<BindingId, Binding>,
    exchanges: &Exchanges,
    changes: &[RolloutBinding],
) -> BTreeSet<BindingId> {
    let is_gone = |change: &&RolloutBinding| {
        let binding = bindings.get(&change.id);
        binding.is_none_or(|binding| binding.goal != change.to)
    };
    let goes_along = |removal: &&RolloutBinding| {
        let older = &removal.id.connector;
        let newer = changes.iter().filter(|change| change.to.is_some());
        let mut newer = newer
            .filter(|newer| exchanges.is_pair(&newer.id.connector, older))
            .peekable();
        removal.to.is_none() && newer.peek().is_some() && newer.all(|newer| is_gone(&newer))
    };
    let gone = changes
        .iter()
        .filter(|change| is_gone(change) || goes_along(change));
    gone.map(|change| change.id.clone()).collect()
}

fn is_told(bindings: &BTreeMap<BindingId, Binding>, change: &RolloutBinding) -> bool {
    let told = bindings.get(&change.id).and_then(|binding| binding.desired);
    told.is_some_and(|told| told.assignment == change.to)
}

fn farewell(tx: &Tx<'_>, id: DeploymentId, is_offered: bool) -> Result<String, Error> {
    let row = tx.deployment(id)?;
    let what = match (&row, is_offered) {
        (None, _) => "it was removed from Keyfleet",
        (Some(_), true) => "what it was offered is finished and counts for nothing",
        (Some(_), false) => "it is not offered the change any more",
    };
    let name = row.map_or_else(|| id.to_string(), |row| row.name.to_string());
    Ok(format!("deployment {name} left the rollout: {what}"))
}

/// What the rollouts under way bring to whom they are for.
pub(super) fn brought(tx: &Tx<'_>) -> Result<BTreeSet<(ConnectorName, Assignment)>, Error> {
    let mut brought = BTreeSet::new();
    for rollout in tx.active_rollouts()? {
        let changes = tx.rollout_bindings(rollout.id)?.into_iter();
        brought.extend(changes.filter_map(|change| Some((change.id.connector, change.to?))));
    }
    Ok(brought)
}

/// The bindings that wait for the end of a rollout that is not, or no longer, for them, and those that were away when
/// theirs ended: each with a sentence. `short` shortens the id of a rollout for people.
pub(crate) fn later(
    tx: &Tx<'_>,
    bindings: &[Binding],
    short: fn(RolloutId) -> String,
) -> Result<BTreeMap<BindingId, String>, Error> {
    let under_way = UnderWay::load(tx)?;
    let mut ended: BTreeMap<RolloutId, Option<Phase>> = BTreeMap::new();
    let mut sentences = BTreeMap::new();
    for binding in bindings.iter().filter(|binding| !binding.is_converged()) {
        let sentence = match binding.held_by {
            Some(id) => {
                let phase = match ended.get(&id) {
                    Some(phase) => *phase,
                    None => *ended.entry(id).or_insert(phase_of(tx, id)?),
                };
                (phase == Some(Phase::Completed)).then(|| was_away(&short(id)))
            }
            None if binding.is_told_goal() => None,
            None => under_way.sentence(binding, short),
        };
        sentences.extend(sentence.map(|sentence| (binding.id.clone(), sentence)));
    }
    Ok(sentences)
}

/// Where a rollout stands; `None` = there is none of this id.
pub(crate) fn phase_of(tx: &Tx<'_>, id: RolloutId) -> Result<Option<Phase>, Error> {
    let found = tx.rollouts_with_prefix(&id.to_string())?;
    Ok(found.first().map(|rollout| rollout.run.phase))
}

fn was_away(rollout: &str) -> String {
    format!(
        "was away when rollout {rollout} ended: gets the change in its window once it is connected"
    )
}

/// The rollouts under way, as those see them who wait for their end.
struct UnderWay {
    /// Who is in one, and still belongs to it.
    members: BTreeSet<BindingId>,
    /// Who left which.
    left: BTreeMap<BindingId, RolloutId>,
    /// Which changes a connector, or one that is exchanged with it.
    busy: BTreeMap<ConnectorName, RolloutId>,
}

impl UnderWay {
    fn load(tx: &Tx<'_>) -> Result<Self, Error> {
        let exchanges = Exchanges::load(tx)?;
        let mut found = Self {
            members: BTreeSet::new(),
            left: BTreeMap::new(),
            busy: BTreeMap::new(),
        };
        for rollout in tx.active_rollouts()? {
            let id = rollout.id;
            let targets = tx.rollout_targets(id)?.into_iter();
            let gone: BTreeSet<DeploymentId> = targets
                .filter(|target| target.left)
                .map(|target| target.deployment)
                .collect();
            let mut connectors = BTreeSet::new();
            for change in tx.rollout_bindings(id)? {
                connectors.insert(change.id.connector.clone());
                match gone.contains(&change.id.deployment) {
                    true => found.left.insert(change.id, id).is_some(),
                    false => found.members.insert(change.id),
                };
            }
            let families = exchanges.families(&connectors).into_iter();
            found.busy.extend(families.map(|name| (name, id)));
        }
        Ok(found)
    }

    fn sentence(&self, binding: &Binding, short: fn(RolloutId) -> String) -> Option<String> {
        if self.members.contains(&binding.id) {
            return None;
        }
        if let Some(id) = self.left.get(&binding.id) {
            let id = short(*id);
            return Some(format!(
                "its deployment left rollout {id} while that was under way: what it is to have now begins when rollout {id} has ended"
            ));
        }
        let id = short(*self.busy.get(&binding.id.connector)?);
        Some(format!(
            "begins when rollout {id} of the same connector has ended"
        ))
    }
}
