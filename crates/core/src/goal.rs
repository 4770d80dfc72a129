//! What every binding shall have when the rollouts have run.

use std::collections::{BTreeMap, BTreeSet};

use crate::binding::{Assignment, BindingId};
use crate::fleet::{Labels, Selector};
use crate::id::{ConnectorName, DeploymentId, KeyName, KeyVersion, PlacementName, Revision};
use crate::placement::Placement;

/// What the goals follow from.
#[derive(Debug, Clone, Default)]
pub struct GoalInput<'a> {
    /// Every placement, in order of names.
    pub placements: &'a [Placement],
    /// Every deployment with its labels.
    pub fleet: Vec<(DeploymentId, &'a Labels)>,
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

/// The goal of every binding that a placement asks for.
///
/// Where two placements ask for the same binding because labels changed after they were stored, the present
/// owner keeps it; a new one goes to the first placement by name.
pub fn goals(input: &GoalInput<'_>) -> BTreeMap<BindingId, Goal> {
    let mut goals: BTreeMap<BindingId, Goal> = BTreeMap::new();
    for (deployment, labels) in &input.fleet {
        for placement in input
            .placements
            .iter()
            .filter(|p| p.selector.matches(labels))
        {
            for binding in placement.bindings_of(*deployment) {
                let is_owner = input.owners.get(&binding) == Some(&placement.name);
                if is_owner || !goals.contains_key(&binding) {
                    let assignment = input.assignment(&binding.connector, labels);
                    goals.insert(
                        binding,
                        Goal {
                            placement: placement.name.clone(),
                            assignment,
                        },
                    );
                }
            }
        }
    }
    goals
}

impl GoalInput<'_> {
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
            drift_policy: DriftPolicy::Correct,
            strategy: "default".parse().unwrap(),
            task: None,
        }
    }

    #[test]
    fn the_present_owner_keeps_a_binding() {
        let labels = Labels::new();
        let deployment = DeploymentId::new(Uuid::from_u128(1));
        let placements = [placement("a"), placement("b")];
        let binding = placements[0].bindings_of(deployment).next().unwrap();
        let mut input = GoalInput {
            placements: &placements,
            fleet: vec![(deployment, &labels)],
            ..GoalInput::default()
        };
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
