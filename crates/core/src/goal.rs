//! What every binding shall have when the rollouts have run.

use std::collections::{BTreeMap, BTreeSet};

use crate::binding::{Assignment, BindingId};
use crate::fleet::{Labels, Selector};
use crate::id::{ConnectorName, DeploymentId, KeyName, KeyVersion, PlacementName, Revision};
use crate::placement::{Placement, Site};

/// Most bindings that placements may ask for on one deployment: 200 spaces of ten connectors, and few enough that one
/// file, or a Kibana full of spaces, cannot drown itself and its agent.
pub const BINDINGS_MAX: usize = 2_000;

/// What the goals follow from.
#[derive(Debug, Clone, Default)]
pub struct GoalInput<'a> {
    /// Every placement, in order of names.
    pub placements: &'a [Placement],
    /// Every deployment with its labels and spaces.
    pub fleet: Vec<Site<'a>>,
    /// The revision of each connector that shall be spread, and its Key.
    pub connectors: BTreeMap<ConnectorName, (Revision, KeyName)>,
    /// The version of each Key that shall be spread.
    pub key_versions: BTreeMap<KeyName, KeyVersion>,
    /// The deployments that may use each Key.
    pub scopes: BTreeMap<KeyName, Selector>,
    /// The placement that each known binding belongs to now.
    pub owners: BTreeMap<BindingId, PlacementName>,
}

/// The goal of one binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// The placement it belongs to.
    pub placement: PlacementName,
    /// What it shall have; `None` where its connector or Key has nothing to spread yet.
    pub assignment: Option<Assignment>,
}

/// What placements ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Goals {
    /// The goal of every binding.
    pub bindings: BTreeMap<BindingId, Goal>,
    /// How many more bindings a placement's patterns would ask for on a deployment that has [`BINDINGS_MAX`] already.
    pub beyond: BTreeMap<(DeploymentId, PlacementName), usize>,
}

/// The goal of every binding that a placement asks for.
///
/// Where two placements ask for the same binding because labels or spaces changed after they were stored, the present
/// owner keeps it; a new one goes to the first placement by name. Where spaces appeared until there are more than
/// [`BINDINGS_MAX`] on a deployment, what is known or named stays, and of the rest as many are left out as are too many.
pub fn goals(input: &GoalInput<'_>) -> Goals {
    let mut goals = Goals::default();
    for site in &input.fleet {
        let claimed = input.claimed(site);
        let is_sure =
            |id: &BindingId, by: &Placement| input.owners.contains_key(id) || by.names(&id.space);
        let sure = claimed.iter().filter(|(id, by)| is_sure(id, by)).count();
        let mut room = BINDINGS_MAX.saturating_sub(sure);
        for (id, placement) in claimed {
            if !is_sure(&id, placement) {
                let Some(left) = room.checked_sub(1) else {
                    let key = (site.deployment, placement.name.clone());
                    *goals.beyond.entry(key).or_default() += 1;
                    continue;
                };
                room = left;
            }
            let assignment = input.assignment(&id.connector, site.labels);
            let placement = placement.name.clone();
            goals.bindings.insert(
                id,
                Goal {
                    placement,
                    assignment,
                },
            );
        }
    }
    goals
}

impl<'a> GoalInput<'a> {
    /// What placements ask for on one deployment, and whose each binding is.
    fn claimed(&self, site: &Site<'_>) -> BTreeMap<BindingId, &'a Placement> {
        let mut claimed = BTreeMap::new();
        for placement in self
            .placements
            .iter()
            .filter(|p| p.selector.matches(site.labels))
        {
            for id in placement.bindings_on(site) {
                let is_owner = self.owners.get(&id) == Some(&placement.name);
                if is_owner || !claimed.contains_key(&id) {
                    claimed.insert(id, placement);
                }
            }
        }
        claimed
    }

    /// `None` where the Key may not be used by a deployment with these labels, whatever a placement asks for.
    fn assignment(&self, connector: &ConnectorName, labels: &Labels) -> Option<Assignment> {
        let (revision, key) = self.connectors.get(connector)?;
        if !self.scopes.get(key)?.matches(labels) {
            return None;
        }
        let key_version = *self.key_versions.get(key)?;
        Some(Assignment {
            revision: *revision,
            key_version,
        })
    }
}

/// The connectors of the runs that a change of `changed` sets aside, and those runs' indexes.
///
/// A newer run of the same connectors sets an older one aside, and takes over all the connectors of it, which
/// may in turn belong to further runs.
pub fn superseded(
    changed: &BTreeSet<ConnectorName>,
    running: &[BTreeSet<ConnectorName>],
) -> (BTreeSet<ConnectorName>, BTreeSet<usize>) {
    let mut connectors = changed.clone();
    let mut runs = BTreeSet::new();
    loop {
        let hit = running
            .iter()
            .enumerate()
            .find(|(index, run)| !runs.contains(index) && !run.is_disjoint(&connectors));
        match hit {
            Some((index, run)) => {
                runs.insert(index);
                connectors.extend(run.iter().cloned());
            }
            None => return (connectors, runs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::DriftPolicy;
    use uuid::Uuid;

    fn placement(name: &str) -> Placement {
        Placement {
            name: name.parse().unwrap(),
            selector: Selector::default(),
            connectors: vec!["assistant".parse().unwrap()],
            spaces: vec!["default".parse().unwrap()],
            except_spaces: Vec::new(),
            adopt: Vec::new(),
            drift_policy: DriftPolicy::Correct,
            strategy: "default".parse().unwrap(),
            task: None,
        }
    }

    fn site<'a>(deployment: DeploymentId, labels: &'a Labels, seen: &[String]) -> Site<'a> {
        Site {
            deployment,
            labels,
            spaces: seen.iter().map(|space| space.parse().unwrap()).collect(),
            kept: BTreeSet::new(),
        }
    }

    #[test]
    fn more_spaces_than_there_is_room_for_take_nothing_from_those_that_are_there() {
        let labels = Labels::new();
        let deployment = DeploymentId::new(Uuid::from_u128(1));
        let seen: Vec<String> = (0..BINDINGS_MAX + 5).map(|i| format!("s{i:04}")).collect();
        let mut everywhere = placement("a");
        everywhere.spaces = vec!["*".parse().unwrap(), "named".parse().unwrap()];
        let placements = [everywhere];
        let last = BindingId {
            deployment,
            space: seen.last().unwrap().parse().unwrap(),
            connector: "assistant".parse().unwrap(),
        };
        let input = GoalInput {
            placements: &placements,
            fleet: vec![site(deployment, &labels, &seen)],
            owners: BTreeMap::from([(last.clone(), "a".parse().unwrap())]),
            ..GoalInput::default()
        };
        let found = goals(&input);
        assert_eq!(found.bindings.len(), BINDINGS_MAX);
        assert!(found.bindings.contains_key(&last), "it was there before");
        assert!(found.bindings.keys().any(|id| id.space.as_str() == "named"));
        let beyond: Vec<usize> = found.beyond.into_values().collect();
        assert_eq!(beyond, [6]);
    }

    #[test]
    fn the_present_owner_keeps_a_binding() {
        let labels = Labels::new();
        let deployment = DeploymentId::new(Uuid::from_u128(1));
        let placements = [placement("a"), placement("b")];
        let site = site(deployment, &labels, &[]);
        let binding = placements[0].bindings_on(&site).next().unwrap();
        let mut input = GoalInput {
            placements: &placements,
            fleet: vec![site],
            ..GoalInput::default()
        };
        let goals = |input: &GoalInput<'_>| super::goals(input).bindings;
        assert_eq!(goals(&input)[&binding].placement.as_str(), "a");
        input.owners.insert(binding.clone(), "b".parse().unwrap());
        assert_eq!(goals(&input)[&binding].placement.as_str(), "b");
        assert_eq!(goals(&input)[&binding].assignment, None);
        let key: KeyName = "openai".parse().unwrap();
        input
            .connectors
            .insert(binding.connector.clone(), (Revision(2), key.clone()));
        input.key_versions.insert(key.clone(), KeyVersion(3));
        input.scopes.insert(key.clone(), Selector::default());
        let assignment = Assignment {
            revision: Revision(2),
            key_version: KeyVersion(3),
        };
        assert_eq!(goals(&input)[&binding].assignment, Some(assignment));
        let prod = Labels::from([("env".to_owned(), "prod".to_owned())]);
        input.scopes.insert(key, Selector::from_labels(&prod));
        assert_eq!(
            goals(&input)[&binding].assignment,
            None,
            "out of the key's scope"
        );
    }

    #[test]
    fn a_change_sets_aside_every_run_it_touches_directly_or_not() {
        let set = |names: &[&str]| -> BTreeSet<ConnectorName> {
            names.iter().map(|name| name.parse().unwrap()).collect()
        };
        let running = [set(&["a", "b"]), set(&["b", "c"]), set(&["d"])];
        let (connectors, runs) = superseded(&set(&["a"]), &running);
        assert_eq!(connectors, set(&["a", "b", "c"]));
        assert_eq!(runs, BTreeSet::from([0, 1]));
        assert_eq!(superseded(&set(&["x"]), &running).1, BTreeSet::new());
    }
}
