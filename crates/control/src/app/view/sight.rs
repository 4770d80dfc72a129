//! What a caller may see: the one place where a token's scope is put between rows and views.
//!
//! A view has no transaction, only a sight: of deployments and what hangs on them (bindings, targets, holdings, evidence)
//! it gets those of the scope, and a rollout only where it has such a target. Connectors, placements, strategies and
//! Keys belong to the whole fleet and everybody sees them; where in Vault a Key lies is for tokens without a scope.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::binding::BindingId;
use keyfleet_core::campaign::Found;
use keyfleet_core::campaign::guard::blockers;
use keyfleet_core::fleet::Selector;
use keyfleet_core::id::{
    CampaignId, ConnectorName, DeploymentId, DeploymentName, KeyName, KeyVersion, RolloutId,
};
use keyfleet_core::key::KeyField;
use keyfleet_core::placement::Placement;
use keyfleet_core::rollout::{Strategy, Target, Waiting};
use keyfleet_store::{
    Andon, Binding, CampaignRow, CampaignStep, Connector, Deployment, Event, EventScope, Evidence,
    Holding, Inventory, KeyRow, KeyVersionRow, Rollout, RolloutBinding, Tx,
};

use super::short;
use crate::app::barred::Barred;
use crate::app::campaign::found::{Around, bringing, found};
use crate::app::campaign::verbs::find;
use crate::app::revoke::Uses;
use crate::app::start::{Exchanges, full, later};
use crate::app::step::{Loaded, load};
use crate::error::Error;

/// What views need that is not in the database.
#[derive(Clone)]
pub(crate) struct Scene {
    /// The moment.
    pub(super) now: Timestamp,
    pub(super) online: BTreeSet<DeploymentId>,
    pub(super) left: BTreeMap<DeploymentId, Timestamp>,
    pub(super) waiting: BTreeMap<RolloutId, Vec<Waiting>>,
    /// What campaigns need to know.
    pub(super) around: Around,
    /// What is wrong with the database itself, and what operators must know of a rotation of the CA.
    pub(super) problems: Vec<String>,
}

/// What one caller may see, at one moment.
pub(crate) struct Sight<'a> {
    tx: &'a Tx<'a>,
    scene: &'a Scene,
    sees_all: bool,
    /// Those it sees, in the order of their names.
    deployments: Vec<Deployment>,
    ids: BTreeSet<DeploymentId>,
}

impl<'a> Sight<'a> {
    /// The sight of a caller with this scope.
    pub(crate) fn load(tx: &'a Tx<'a>, scene: &'a Scene, scope: &Selector) -> Result<Self, Error> {
        let mut deployments = tx.deployments()?;
        deployments.retain(|deployment| scope.matches(&deployment.labels));
        Ok(Self {
            tx,
            scene,
            sees_all: scope.is_everything(),
            ids: deployments.iter().map(|deployment| deployment.id).collect(),
            deployments,
        })
    }

    /// True where this deployment is in sight; without a scope also one that is no longer there.
    pub(crate) fn sees(&self, deployment: DeploymentId) -> bool {
        self.sees_all || self.ids.contains(&deployment)
    }

    /// The moment.
    pub(super) fn now(&self) -> Timestamp {
        self.scene.now
    }

    /// The bindings that wait for the end of a rollout that is not for them, each with a sentence.
    pub(super) fn later(&self) -> Result<BTreeMap<BindingId, String>, Error> {
        later(self.tx, &self.tx.bindings()?, short)
    }

    pub(super) fn deployments(&self) -> &[Deployment] {
        &self.deployments
    }

    pub(super) fn deployment(&self, name: &DeploymentName) -> Option<&Deployment> {
        self.deployments.iter().find(|row| row.name == *name)
    }

    pub(super) fn names(&self) -> BTreeMap<DeploymentId, DeploymentName> {
        let names = self.deployments.iter();
        names.map(|row| (row.id, row.name.clone())).collect()
    }

    pub(super) fn is_online(&self, deployment: DeploymentId) -> bool {
        self.scene.online.contains(&deployment)
    }

    /// When its agent left, where that is not in the database yet.
    pub(super) fn left(&self, deployment: DeploymentId) -> Option<Timestamp> {
        self.scene.left.get(&deployment).copied()
    }

    pub(super) fn bindings(&self) -> Result<Vec<Binding>, Error> {
        Ok(self.only(self.tx.bindings()?, |row| row.id.deployment))
    }

    pub(super) fn bindings_of(&self, deployment: DeploymentId) -> Result<Vec<Binding>, Error> {
        let rows = self.tx.bindings_of(deployment)?;
        Ok(self.only(rows, |row| row.id.deployment))
    }

    /// The bindings in sight that a rollout changes.
    pub(super) fn bindings_in(&self, rollout: RolloutId) -> Result<Vec<Binding>, Error> {
        let rows = self.tx.bindings_in(rollout)?;
        Ok(self.only(rows, |row| row.id.deployment))
    }

    pub(super) fn bindings_with(&self, connector: &ConnectorName) -> Result<Vec<Binding>, Error> {
        let rows = self.tx.bindings_with(connector)?;
        Ok(self.only(rows, |row| row.id.deployment))
    }

    pub(super) fn holdings(&self, key: &KeyName) -> Result<Vec<Holding>, Error> {
        let rows = self.tx.holdings(key)?;
        Ok(self.only(rows, |row| row.binding.deployment))
    }

    pub(super) fn evidence(&self, key: &KeyName) -> Result<Vec<Evidence>, Error> {
        let rows = self.tx.evidence(key)?;
        Ok(self.only(rows, |row| row.binding.deployment))
    }

    /// What stands between a version of a Key and its revocation, a sentence each. All of the fleet counts, and only
    /// what is in sight is named.
    pub(super) fn revoke_waits(
        &self,
        key: &KeyName,
        versions: impl IntoIterator<Item = KeyVersion>,
    ) -> Result<BTreeMap<KeyVersion, Vec<String>>, Error> {
        let uses = Uses::load(self.tx, key, &self.scene.online, self.scene.now)?;
        let name = self.name();
        let waits = |version| {
            let blockers = blockers(&uses.case(version));
            let sentences = blockers.iter().map(|blocker| blocker.sentence(&name));
            (version, sentences.collect())
        };
        Ok(versions.into_iter().map(waits).collect())
    }

    /// The newest campaigns. They concern the whole fleet: who has a scope does not come here.
    pub(super) fn campaigns(&self, limit: u32) -> Result<Vec<CampaignRow>, Error> {
        Ok(self.tx.campaigns(limit)?)
    }

    /// The campaign whose id begins so.
    pub(super) fn campaign(&self, id: &str) -> Result<CampaignRow, Error> {
        find(self.tx, id)
    }

    pub(super) fn campaign_steps(&self, id: CampaignId) -> Result<Vec<CampaignStep>, Error> {
        Ok(self.tx.campaign_steps(id)?)
    }

    pub(super) fn campaign_approvals(&self, id: CampaignId) -> Result<Vec<String>, Error> {
        Ok(self.tx.campaign_approvals(id)?)
    }

    /// What the core is told of a campaign, and the rollouts that bring its Key.
    pub(super) fn found(&self, row: &CampaignRow) -> Result<(Found, Vec<Rollout>), Error> {
        let found = found(self.tx, row, &self.scene.around)?;
        Ok((found, bringing(self.tx, row)?))
    }

    /// What a binding in sight is called.
    pub(super) fn name(&self) -> impl Fn(&BindingId) -> Option<String> + use<> {
        let names = self.names();
        move |id: &BindingId| {
            let deployment = names.get(&id.deployment)?;
            Some(format!("{deployment}/{}/{}", id.space, id.connector))
        }
    }

    /// The newest rollouts that have a target in sight.
    pub(super) fn rollouts(&self, limit: u32) -> Result<Vec<Rollout>, Error> {
        self.in_sight(self.tx.rollouts(limit)?)
    }

    pub(crate) fn active_rollouts(&self) -> Result<Vec<Rollout>, Error> {
        self.in_sight(self.tx.active_rollouts()?)
    }

    /// What every active rollout changes, in sight or not: one out of sight holds a connector up all the same.
    pub(super) fn active_changes(&self) -> Result<Vec<(RolloutId, Vec<RolloutBinding>)>, Error> {
        let mut all = Vec::new();
        for rollout in self.tx.active_rollouts()? {
            all.push((rollout.id, self.tx.rollout_bindings(rollout.id)?));
        }
        Ok(all)
    }

    /// The rollouts in sight whose id begins so.
    pub(crate) fn rollouts_with_prefix(&self, prefix: &str) -> Result<Vec<Rollout>, Error> {
        self.in_sight(self.tx.rollouts_with_prefix(prefix)?)
    }

    /// A rollout with everything that belongs to it, out of sight or not: what is shown of it asks [`Sight::sees`].
    pub(super) fn load_rollout(&self, rollout: Rollout) -> Result<(Loaded, Vec<Target>), Error> {
        let loaded = load(self.tx, rollout)?;
        let targets = loaded.plan_targets(
            self.tx,
            self.scene.now,
            &self.scene.online,
            &BTreeMap::new(),
        )?;
        Ok((loaded, targets))
    }

    /// Why a rollout waits: for the deployments in sight, and for itself.
    pub(super) fn waiting(&self, rollout: RolloutId) -> impl Iterator<Item = &Waiting> {
        let all = self.scene.waiting.get(&rollout).into_iter().flatten();
        all.filter(|waiting| waiting.deployment().is_none_or(|id| self.sees(id)))
    }

    pub(super) fn events(&self, scope: EventScope, limit: u32) -> Result<Vec<Event>, Error> {
        Ok(self.tx.events(scope, limit)?)
    }

    /// Why nothing is told about bindings, in sight or not: whoever asks does so for one that he sees.
    pub(super) fn barred(&self) -> Result<Barred, Error> {
        Barred::load(self.tx, &self.tx.bindings()?)
    }

    /// What the agent of a deployment in sight saw on its Kibana beside its own connectors.
    pub(super) fn inventory(&self, deployment: &Deployment) -> Result<Inventory, Error> {
        Ok(self.tx.inventory(deployment.id)?)
    }

    /// The removals that wait for what takes the connector's place, and why.
    pub(super) fn exchanged(&self) -> Result<BTreeMap<BindingId, String>, Error> {
        let exchanges = Exchanges::load(self.tx)?;
        if exchanges.is_empty() {
            return Ok(BTreeMap::new());
        }
        Ok(exchanges.waiting(&self.bindings()?))
    }

    /// The deployments in sight that have as many bindings as they may have while patterns choose more, and why.
    pub(super) fn full(&self) -> Result<BTreeMap<DeploymentId, String>, Error> {
        let placements = self.placements()?;
        if !placements.iter().any(Placement::has_pattern) {
            return Ok(BTreeMap::new());
        }
        Ok(full(&self.deployments, &placements, &self.bindings()?))
    }

    /// The named set that an object belongs to; empty where it belongs to none.
    pub(super) fn set_of(&self) -> Result<impl Fn(&str, &str) -> String + use<>, Error> {
        let sets = self.tx.sets()?;
        Ok(move |kind: &str, name: &str| {
            let set = sets.get(&(kind.to_owned(), name.to_owned()));
            set.map(ToString::to_string).unwrap_or_default()
        })
    }

    pub(super) fn connectors(&self) -> Result<Vec<Connector>, Error> {
        Ok(self.tx.connectors()?)
    }

    pub(super) fn placements(&self) -> Result<Vec<Placement>, Error> {
        Ok(self.tx.placements()?)
    }

    pub(super) fn strategies(&self) -> Result<Vec<Strategy>, Error> {
        Ok(self.tx.strategies()?)
    }

    /// The Keys; with a scope without where they lie, which is also what Vault says of them.
    pub(super) fn keys(&self) -> Result<Vec<KeyRow>, Error> {
        let mut rows = self.tx.keys()?;
        for row in rows.iter_mut().filter(|_| !self.sees_all) {
            let location = &mut row.key.location;
            location.mount.clear();
            location.path.clear();
            location.field = KeyField::One(String::new());
            if row.vault_status != "ok" {
                row.vault_status = "Vault does not serve it".to_owned();
            }
        }
        Ok(rows)
    }

    pub(super) fn key_versions(&self, key: &KeyName) -> Result<Vec<KeyVersionRow>, Error> {
        Ok(self.tx.key_versions(key)?)
    }

    /// What is wrong with the database itself, and of a rotation of the CA, a sentence each.
    pub(super) fn problems(&self) -> &[String] {
        &self.scene.problems
    }

    pub(super) fn andon(&self) -> Result<Option<Andon>, Error> {
        Ok(self.tx.andon()?)
    }

    fn in_sight(&self, mut rollouts: Vec<Rollout>) -> Result<Vec<Rollout>, Error> {
        if self.sees_all {
            return Ok(rollouts);
        }
        let mut seen = Vec::new();
        for rollout in rollouts.drain(..) {
            let targets = self.tx.rollout_targets(rollout.id)?;
            if targets.iter().any(|target| self.sees(target.deployment)) {
                seen.push(rollout);
            }
        }
        Ok(seen)
    }

    fn only<T>(&self, mut rows: Vec<T>, of: impl Fn(&T) -> DeploymentId) -> Vec<T> {
        rows.retain(|row| self.sees(of(row)));
        rows
    }
}
