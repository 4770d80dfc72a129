//! Placements: which connectors go into which spaces of which deployments.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::adoption::Adopt;
use crate::binding::BindingId;
use crate::fleet::{Labels, Selector};
use crate::id::{ConnectorName, DeploymentId, PlacementName, SpaceId, StrategyName};
use crate::models::Task;
use crate::space::SpacePattern;

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
    pub spaces: Vec<SpacePattern>,
    /// And into which not, whatever `spaces` says.
    pub except_spaces: Vec<SpacePattern>,
    /// Connectors that were there before Keyfleet and that these become.
    pub adopt: Vec<Adopt>,
    /// What to do about drift.
    pub drift_policy: DriftPolicy,
    /// How a change spreads.
    pub strategy: StrategyName,
    /// What the models are for; decides nothing but what `plan` says of them.
    pub task: Option<Task>,
}

/// A deployment as placements see it.
#[derive(Debug, Clone)]
pub struct Site<'a> {
    /// Which.
    pub deployment: DeploymentId,
    /// Its labels.
    pub labels: &'a Labels,
    /// Its spaces that may hold connectors, as its agent saw them last; none where nobody knows.
    pub spaces: BTreeSet<SpaceId>,
    /// The spaces where a placement has connectors already: one that is not seen for a while loses nothing.
    pub kept: BTreeSet<(PlacementName, SpaceId)>,
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
    fleet: impl IntoIterator<Item = Site<'a>>,
) -> Vec<Overlap> {
    let mut bindings: BTreeMap<BindingId, &'a Placement> = BTreeMap::new();
    let mut overlaps = Vec::new();
    for site in fleet {
        for placement in placements
            .iter()
            .filter(|p| p.selector.matches(site.labels))
        {
            for binding in placement.bindings_on(&site) {
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
    /// True where its connectors belong into this space, if it is there.
    pub fn places_in(&self, space: &SpaceId) -> bool {
        is_any(&self.spaces, space) && !is_any(&self.except_spaces, space)
    }

    /// True where it names this space, and does not only choose it by a pattern: it asks for it seen or not.
    pub fn names(&self, space: &SpaceId) -> bool {
        let named = self.spaces.iter().filter_map(SpacePattern::exact);
        named.into_iter().any(|id| id == space) && !is_any(&self.except_spaces, space)
    }

    /// True where it chooses spaces by a pattern, so that which ones depends on what agents see.
    pub fn has_pattern(&self) -> bool {
        self.spaces.iter().any(|space| space.exact().is_none())
    }

    /// The bindings it asks for on one deployment that its selector chooses, space by space.
    pub fn bindings_on(&self, site: &Site<'_>) -> impl Iterator<Item = BindingId> + use<'_> {
        let deployment = site.deployment;
        self.spaces_on(site).into_iter().flat_map(move |space| {
            self.connectors.iter().map(move |connector| BindingId {
                deployment,
                space: space.clone(),
                connector: connector.clone(),
            })
        })
    }

    /// What is named, seen or not; and of what is seen, or was when its connectors came there, what a pattern chooses.
    fn spaces_on(&self, site: &Site<'_>) -> BTreeSet<SpaceId> {
        let named = self.spaces.iter().filter_map(SpacePattern::exact);
        let mut spaces: BTreeSet<SpaceId> = named.cloned().collect();
        if self.has_pattern() {
            let kept = site.kept.iter().filter(|(by, _)| *by == self.name);
            let seen = site.spaces.iter().chain(kept.map(|(_, space)| space));
            spaces.extend(seen.filter(|space| self.places_in(space)).cloned());
        }
        spaces.retain(|space| !is_any(&self.except_spaces, space));
        spaces
    }
}

fn is_any(patterns: &[SpacePattern], space: &SpaceId) -> bool {
    patterns.iter().any(|pattern| pattern.matches(space))
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
            except_spaces: Vec::new(),
            adopt: Vec::new(),
            drift_policy: DriftPolicy::Correct,
            strategy: "default".parse().unwrap(),
            task: None,
        }
    }

    fn site<'a>(labels: &'a Labels, seen: &[&str]) -> Site<'a> {
        Site {
            deployment: DeploymentId::new(Uuid::from_u128(1)),
            labels,
            spaces: seen.iter().map(|space| space.parse().unwrap()).collect(),
            kept: BTreeSet::new(),
        }
    }

    #[test]
    fn a_pattern_chooses_what_is_seen_and_keeps_what_it_has() {
        let labels = Labels::new();
        let check = |spaces: &[&str], except: &[&str], kept: &[&str], expected: &[&str]| {
            let mut placement = placement("a", spaces);
            placement.except_spaces = except.iter().map(|space| space.parse().unwrap()).collect();
            let mut site = site(&labels, &["default", "soc-eu", "soc-us"]);
            for (owner, space) in kept.iter().filter_map(|kept| kept.split_once('/')) {
                let known = (owner.parse().unwrap(), space.parse().unwrap());
                site.kept.insert(known);
            }
            let found: Vec<_> = placement.bindings_on(&site).map(|id| id.space).collect();
            let found: Vec<&str> = found.iter().map(SpaceId::as_str).collect();
            assert_eq!(found, expected, "{spaces:?} without {except:?}, {kept:?}");
        };
        check(&["unseen"], &[], &[], &["unseen"]);
        check(&["*"], &[], &[], &["default", "soc-eu", "soc-us"]);
        check(&["soc-*", "x"], &["*-us"], &[], &["soc-eu", "x"]);
        check(&["soc-*", "x"], &["x"], &[], &["soc-eu", "soc-us"]);
        check(&["soc-*"], &["soc-*"], &["a/soc-old"], &[]);
        let kept = ["a/soc-old", "a/web", "b/soc-b"];
        check(&["soc-*"], &[], &kept, &["soc-eu", "soc-old", "soc-us"]);
    }

    #[test]
    fn a_binding_belongs_to_exactly_one_placement() {
        let labels = Labels::new();
        let fleet = || [site(&labels, &["soc-eu", "web-eu"])];
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
        let patterns = [placement("a", &["soc-*"]), placement("b", &["*-eu"])];
        let found = overlaps(&patterns, fleet());
        let spaces: Vec<_> = found.iter().map(|o| o.binding.space.as_str()).collect();
        assert_eq!(spaces, ["soc-eu"]);
    }
}
