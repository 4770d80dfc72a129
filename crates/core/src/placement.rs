//! Placements: which connectors go into which spaces of which deployments.

use std::collections::BTreeMap;
use std::fmt;

use crate::binding::BindingId;
use crate::fleet::{Labels, Selector};
use crate::id::{ConnectorName, DeploymentId, PlacementName, SpaceId, StrategyName};
use crate::models::Task;

/// What to do when Kibana differs from desired without our doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DriftPolicy {
    /// Write the desired state again.
    Correct,
    /// Say so and leave it.
    Report,
    /// Stop writing to that binding until an operator resumes it.
    Pause,
}

impl DriftPolicy {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Correct, Self::Report, Self::Pause];

    /// The name in manifests and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Correct => "correct",
            Self::Report => "report",
            Self::Pause => "pause",
        }
    }

    /// The policy of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == text)
    }
}

/// Which connectors go where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Its name.
    pub name: PlacementName,
    /// Which deployments.
    pub selector: Selector,
    /// Which connectors.
    pub connectors: Vec<ConnectorName>,
    /// Into which spaces of each.
    pub spaces: Vec<SpaceId>,
    /// What to do about drift.
    pub drift_policy: DriftPolicy,
    /// How a change spreads.
    pub strategy: StrategyName,
    /// What the models are for; decides nothing but what `plan` says of them.
    pub task: Option<Task>,
}

/// Two placements that claim the same binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// What both claim.
    pub binding: BindingId,
    /// The first, in order of names.
    pub first: PlacementName,
    /// The second.
    pub second: PlacementName,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            binding,
            first,
            second,
        } = self;
        write!(
            f,
            "placements {first} and {second} both place connector {} in space {} of the same deployment",
            binding.connector, binding.space
        )
    }
}

/// Every binding that two of the placements ask for, each pair once.
pub fn overlaps<'a>(
    placements: &'a [Placement],
    fleet: impl IntoIterator<Item = (DeploymentId, &'a Labels)>,
) -> Vec<Overlap> {
    let mut bindings: BTreeMap<BindingId, &'a Placement> = BTreeMap::new();
    let mut overlaps = Vec::new();
    for (deployment, labels) in fleet {
        for placement in placements.iter().filter(|p| p.selector.matches(labels)) {
            for binding in placement.bindings_of(deployment) {
                let first = *bindings.entry(binding.clone()).or_insert(placement);
                if first.name != placement.name {
                    overlaps.push(Overlap {
                        binding,
                        first: first.name.clone(),
                        second: placement.name.clone(),
                    });
                }
            }
        }
    }
    overlaps
}

impl Placement {
    /// The bindings this placement asks for on one deployment.
    pub fn bindings_of(&self, deployment: DeploymentId) -> impl Iterator<Item = BindingId> + '_ {
        self.spaces.iter().flat_map(move |space| {
            self.connectors.iter().map(move |connector| BindingId {
                deployment,
                space: space.clone(),
                connector: connector.clone(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn placement(name: &str, spaces: &[&str]) -> Placement {
        Placement {
            name: name.parse().unwrap(),
            selector: Selector::default(),
            connectors: vec!["assistant".parse().unwrap()],
            spaces: spaces.iter().map(|space| space.parse().unwrap()).collect(),
            drift_policy: DriftPolicy::Correct,
            strategy: "default".parse().unwrap(),
            task: None,
        }
    }

    #[test]
    fn a_binding_belongs_to_exactly_one_placement() {
        let labels = Labels::new();
        let fleet = || [(DeploymentId::new(Uuid::from_u128(1)), &labels)];
        let apart = [placement("a", &["default"]), placement("b", &["soc"])];
        assert_eq!(overlaps(&apart, fleet()), []);
        let overlapping = [
            placement("a", &["default"]),
            placement("b", &["soc", "default"]),
        ];
        let found = overlaps(&overlapping, fleet());
        let named: Vec<_> = found
            .iter()
            .map(|o| {
                (
                    o.first.as_str(),
                    o.second.as_str(),
                    o.binding.space.as_str(),
                )
            })
            .collect();
        assert_eq!(named, [("a", "b", "default")]);
    }
}
