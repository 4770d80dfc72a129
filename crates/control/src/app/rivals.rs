//! Two agents on one Kibana: found by what they report, and told nothing new until that ends.
//!
//! What an agent reports decides here about another deployment too, and only this: both wait. What runs stays, nobody
//! takes anything over, and an agent that lies counts no more once it is suspended.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::DeploymentId;
use keyfleet_core::standing::Standing;
use keyfleet_store::{Binding, Deployment, Tx};
use uuid::Uuid;

use crate::error::Error;

/// Deployments that a sentence names.
const NAMED_MAX: usize = 5;

/// Who is at work on the same Kibana as somebody else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rivals {
    groups: Vec<Group>,
    /// The first group of each.
    group_of: BTreeMap<DeploymentId, usize>,
}

/// Deployments whose agents serve one Kibana.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    members: Vec<DeploymentId>,
    sign: Sign,
}

/// How it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sign {
    /// All report the same uuid.
    Uuid(Uuid),
    /// The first member sees connectors that belong to the second.
    Sees,
}

impl Rivals {
    /// Those of now.
    pub(crate) fn load(tx: &Tx<'_>) -> Result<Self, Error> {
        // Asked at each step of a rollout, and nearly always there are none.
        if !tx.has_shared_uuid()? && tx.seen_like_ours()?.is_empty() {
            return Ok(Self::default());
        }
        Self::find(tx, &tx.deployments()?, None)
    }

    /// Those among `deployments`; the bindings are loaded where they are needed and not given.
    pub(super) fn find(
        tx: &Tx<'_>,
        deployments: &[Deployment],
        bindings: Option<&[Binding]>,
    ) -> Result<Self, Error> {
        let active = deployments
            .iter()
            .filter(|d| d.standing == Standing::Active);
        let active: BTreeMap<DeploymentId, &Deployment> = active.map(|d| (d.id, d)).collect();
        let mut rivals = Self::default();
        for (uuid, members) in by_uuid(active.values().copied()) {
            rivals.add(members, Sign::Uuid(uuid));
        }
        let mut seen = tx.seen_like_ours()?;
        seen.retain(|(who, _)| active.contains_key(who));
        if seen.is_empty() {
            return Ok(rivals);
        }
        let owners = match bindings {
            Some(bindings) => owners(bindings),
            None => owners(&tx.bindings()?),
        };
        let pairs: BTreeSet<(DeploymentId, DeploymentId)> = seen
            .iter()
            .filter_map(|(who, id)| Some((*who, *owners.get(&id.parse().ok()?)?)))
            .filter(|(who, whose)| who != whose && active.contains_key(whose))
            .collect();
        for (who, whose) in pairs {
            rivals.add(vec![who, whose], Sign::Sees);
        }
        Ok(rivals)
    }

    fn add(&mut self, members: Vec<DeploymentId>, sign: Sign) {
        for member in &members {
            self.group_of.entry(*member).or_insert(self.groups.len());
        }
        self.groups.push(Group { members, sign });
    }

    /// Every deployment that is at work beside another.
    pub(crate) fn ids(&self) -> impl Iterator<Item = DeploymentId> {
        self.group_of.keys().copied()
    }

    /// True where this one is at work beside another.
    pub(crate) fn contains(&self, deployment: DeploymentId) -> bool {
        self.group_of.contains_key(&deployment)
    }

    /// Why a deployment is told nothing new, for somebody who knows these names; `None` where it is alone.
    pub(crate) fn sentence<N: ToString>(
        &self,
        deployment: DeploymentId,
        names: &BTreeMap<DeploymentId, N>,
    ) -> Option<String> {
        let group = self.groups.get(*self.group_of.get(&deployment)?)?;
        Some(group.sentence(names))
    }

    /// A sentence for each group that has a member of these names, in order of what they say.
    pub(crate) fn sentences<N: ToString>(
        &self,
        names: &BTreeMap<DeploymentId, N>,
    ) -> BTreeSet<String> {
        let is_known = |group: &&Group| group.members.iter().any(|id| names.contains_key(id));
        let known = self.groups.iter().filter(is_known);
        known.map(|group| group.sentence(names)).collect()
    }
}

impl Group {
    fn sentence<N: ToString>(&self, names: &BTreeMap<DeploymentId, N>) -> String {
        let name = |id: &DeploymentId| names.get(id).map(ToString::to_string);
        let mut known: Vec<String> = self.members.iter().filter_map(name).collect();
        known.sort();
        known.truncate(NAMED_MAX);
        let n_more = self.members.len() - known.len();
        let who = match (known.as_slice(), n_more) {
            ([], n) => format!("{n} deployments"),
            ([names @ .., last], 0) => format!("deployments {} and {last}", names.join(", ")),
            (names, n) => format!("deployments {} and {n} more", names.join(", ")),
        };
        let sign = match (&self.sign, self.members.as_slice()) {
            (Sign::Uuid(uuid), _) => format!(
                "they report the same Kibana uuid {uuid} (if these are copies of one Kibana, give each its own)"
            ),
            (Sign::Sees, [seer, owner]) => {
                let shown = |id| name(id).unwrap_or_else(|| "another".to_owned());
                format!(
                    "{} reports connectors there that Keyfleet keeps for {}",
                    shown(seer),
                    shown(owner)
                )
            }
            (Sign::Sees, _) => "one reports the connectors of another".to_owned(),
        };
        format!(
            "{}: {who} are agents of one Kibana: {sign}; nothing new is told to them until all but one are removed or suspended, or report otherwise",
            FailureClass::Conflict
        )
    }
}

/// What is no uuid says nothing.
fn by_uuid<'a>(
    deployments: impl Iterator<Item = &'a Deployment>,
) -> BTreeMap<Uuid, Vec<DeploymentId>> {
    let mut all: BTreeMap<Uuid, Vec<DeploymentId>> = BTreeMap::new();
    for deployment in deployments {
        let facts = deployment.facts.as_ref();
        let uuid = facts.and_then(|facts| Uuid::try_parse(&facts.uuid).ok());
        if let Some(uuid) = uuid.filter(|uuid| !uuid.is_nil()) {
            all.entry(uuid).or_default().push(deployment.id);
        }
    }
    all.retain(|_, members| members.len() > 1);
    all
}

/// Whose connector has which id. Only ids that Keyfleet gave say whose a connector is: one that was there before can
/// have the same id on several Kibanas.
fn owners(bindings: &[Binding]) -> BTreeMap<Uuid, DeploymentId> {
    let own = bindings.iter().filter(|b| b.adopted_id.is_none());
    own.map(|b| (b.id.connector_id(), b.id.deployment))
        .collect()
}
