//! Which spaces there are: patterns choose among those that an agent sees, and what has connectors is not taken away.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingId;
use keyfleet_core::goal::BINDINGS_MAX;
use keyfleet_core::id::{DeploymentId, PlacementName, SpaceId};
use keyfleet_core::placement::{Placement, Site};
use keyfleet_store::{Binding, Deployment, Facts, Tx};

use super::{Spread, refresh, start_rollouts};
use crate::app::KEYFLEET;
use crate::error::Error;

/// Most spaces that the cause of a rollout names.
const NAMED_MAX: usize = 5;

/// A deployment as placements see it; `bindings` are those of it, others are passed over.
pub(crate) fn site<'a, 'b>(
    deployment: &'a Deployment,
    bindings: impl IntoIterator<Item = &'b Binding>,
) -> Site<'a> {
    let seen = deployment.facts.as_ref().and_then(usable);
    // What was never told loses nothing when its space goes; while nobody knows the spaces everything stays.
    let is_kept = |binding: &Binding| match (&seen, binding.is_untold()) {
        (None, true) => true,
        (Some(_), true) => false,
        (_, false) => binding.goal.is_some(),
    };
    let own = |binding: &&Binding| binding.id.deployment == deployment.id;
    let kept = bindings.into_iter().filter(own).filter(|b| is_kept(b));
    let kept = kept.map(|binding| (binding.placement.clone(), binding.id.space.clone()));
    Site {
        deployment: deployment.id,
        labels: &deployment.labels,
        kept: kept.collect(),
        spaces: seen.unwrap_or_default(),
    }
}

/// The spaces that may hold connectors, as the agent saw them last; `None` where it never could look. Every Kibana has at
/// least one space: none at all is no answer.
pub(crate) fn usable(facts: &Facts) -> Option<BTreeSet<SpaceId>> {
    let usable = facts.spaces.iter().filter(|space| space.actions_enabled);
    (!facts.spaces.is_empty()).then(|| usable.filter_map(|space| space.id.parse().ok()).collect())
}

/// The bindings whose space a pattern chose and their agent does not see any more, each with a sentence.
pub(crate) fn absent(
    tx: &Tx<'_>,
    deployments: &[Deployment],
    bindings: &[Binding],
) -> Result<BTreeMap<BindingId, String>, Error> {
    let placements = tx.placements()?.into_iter();
    let placements: BTreeMap<PlacementName, Placement> = placements
        .filter(Placement::has_pattern)
        .map(|placement| (placement.name.clone(), placement))
        .collect();
    if placements.is_empty() {
        return Ok(BTreeMap::new());
    }
    let fleet: BTreeMap<DeploymentId, (&Deployment, BTreeSet<SpaceId>)> = deployments
        .iter()
        .filter_map(|row| {
            let usable = usable(row.facts.as_ref()?)?;
            Some((row.id, (row, usable)))
        })
        .collect();
    let why = |binding: &Binding| {
        let (deployment, usable) = fleet.get(&binding.id.deployment)?;
        let placement = placements.get(&binding.placement)?;
        let space = &binding.id.space;
        let is_absent =
            binding.goal.is_some() && !usable.contains(space) && !placement.names(space);
        is_absent.then(|| sentence(deployment, space, placement))
    };
    let found = bindings
        .iter()
        .filter_map(|b| Some((b.id.clone(), why(b)?)));
    Ok(found.collect())
}

fn sentence(deployment: &Deployment, space: &SpaceId, placement: &Placement) -> String {
    let mut seen = deployment.facts.iter().flat_map(|facts| &facts.spaces);
    let what = match seen.any(|seen| seen.id == space.as_str()) {
        true => "has Kibana's feature for connectors switched off",
        false => "is gone, or hidden from the agent",
    };
    format!(
        "the space {space} {what}; if it is to have none for good, add it to spec.exceptSpaces of placement {}",
        placement.name
    )
}

/// Spreads connectors into the spaces of a deployment that are new or back, after facts were stored in which
/// [`usable`] says something else than before.
///
/// Of a fleet without patterns it reads the placements and nothing else.
pub(crate) fn spaces_changed(
    tx: &Tx<'_>,
    deployment: DeploymentId,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(row) = tx.deployment(deployment)? else {
        return Ok(());
    };
    let chooses = |p: &Placement| p.has_pattern() && p.selector.matches(&row.labels);
    if !tx.placements()?.iter().any(chooses) {
        return Ok(());
    }
    refresh(tx, Some(deployment), now)?;
    let bindings = tx.bindings_of(deployment)?;
    let absent = absent(tx, std::slice::from_ref(&row), &bindings)?;
    let waits = |b: &&Binding| b.goal.is_some() && !b.is_told_goal() && !absent.contains_key(&b.id);
    let spaces: BTreeSet<&SpaceId> = bindings.iter().filter(waits).map(|b| &b.id.space).collect();
    if spaces.is_empty() {
        return Ok(());
    }
    let cause = format!("deployment {} has {}", row.name, named(&spaces));
    // Others of these connectors that are under way go on: a new space waits for them as a new deployment does.
    start_rollouts(tx, &Spread::default(), &cause, KEYFLEET, now)?;
    Ok(())
}

/// The deployments that have as many bindings as they may have while patterns choose more, each with a sentence.
pub(crate) fn full(
    deployments: &[Deployment],
    placements: &[Placement],
    bindings: &[Binding],
) -> BTreeMap<DeploymentId, String> {
    let mut by_deployment: BTreeMap<DeploymentId, Vec<&Binding>> = BTreeMap::new();
    for binding in bindings {
        let all = by_deployment.entry(binding.id.deployment).or_default();
        all.push(binding);
    }
    let mut full = BTreeMap::new();
    for row in deployments {
        let Some(own) = by_deployment
            .get(&row.id)
            .filter(|own| own.len() >= BINDINGS_MAX)
        else {
            continue;
        };
        let known: BTreeSet<&BindingId> = own.iter().map(|binding| &binding.id).collect();
        let site = site(row, own.iter().copied());
        let fitting = placements
            .iter()
            .filter(|p| p.selector.matches(&row.labels));
        let more = fitting.flat_map(|placement| placement.bindings_on(&site));
        let more: BTreeSet<BindingId> = more.filter(|id| !known.contains(id)).collect();
        if let Some(first) = more.first() {
            let (n, space, connector) = (more.len(), &first.space, &first.connector);
            let why = format!(
                "{n} bindings wait, the first is connector {connector} in space {space}: a deployment may have {BINDINGS_MAX}; choose fewer spaces or connectors"
            );
            full.insert(row.id, why);
        }
    }
    full
}

fn named(spaces: &BTreeSet<&SpaceId>) -> String {
    let names: Vec<&str> = spaces
        .iter()
        .take(NAMED_MAX)
        .map(|id| id.as_str())
        .collect();
    let names = names.join(", ");
    match spaces.len() {
        1 => format!("the space {names}"),
        n if n > NAMED_MAX => format!("the spaces {names} and {} more", n - NAMED_MAX),
        _ => format!("the spaces {names}"),
    }
}
