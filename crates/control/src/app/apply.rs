//! `plan` and `apply`: one use case. A plan is an apply whose transaction is undone.

use std::collections::BTreeMap;

use keyfleet_core::Timestamp;
use keyfleet_core::id::{KeyName, SetName};
use keyfleet_core::token::Role;
use keyfleet_core::travel::may_serve;
use keyfleet_proto::{Invalid, v1};
use keyfleet_store::{KeyVersionRow, Tx};

use super::audit::Act;
use super::preview;
use super::{Actor, App};
use crate::clock;
use crate::error::Error;
use crate::manifest::{self, InvalidManifest, Manifest, Object};

mod check;
mod models;
pub(super) mod prune;
mod reach;
pub(super) mod settle;
mod store;

pub(super) use check::warnings_of;
pub(super) use settle::{Applied, Settling, Undo, agree_with_references};

/// What an operator wants done with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    /// Say what would change.
    Plan,
    /// Change it; removals only where `yes`.
    Apply {
        /// The operator has seen what goes away.
        yes: bool,
    },
}

impl Intent {
    /// As a request that may only ask says it.
    pub(crate) fn new(plan: bool, yes: bool) -> Self {
        if plan {
            Self::Plan
        } else {
            Self::Apply { yes }
        }
    }
}

/// Manifests and what they are the whole of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    /// The files.
    pub(crate) files: Vec<v1::ManifestFile>,
    /// The named set that every object of the files belongs to; empty = none.
    pub(crate) set: String,
    /// Delete what else is in the set.
    pub(crate) prune: bool,
    /// Why, for the audit log.
    pub(crate) reason: String,
}

/// Everything the transaction needs, read and checked outside of it.
struct Job {
    manifests: Vec<Manifest>,
    versions: BTreeMap<KeyName, KeyVersionRow>,
    set: Option<SetName>,
    prune: bool,
    reason: String,
    intent: Intent,
    actor: Actor,
    now: Timestamp,
}

impl App {
    /// Plans or applies manifests.
    pub(crate) async fn apply(
        &self,
        actor: &Actor,
        batch: Batch,
        intent: Intent,
    ) -> Result<Applied, Error> {
        let needed = if intent == Intent::Plan {
            Role::Viewer
        } else {
            Role::Operator
        };
        actor.must_be(needed)?;
        let set = match (batch.set.as_str(), batch.prune) {
            ("", true) => return Err(Invalid::new("prune", NEEDS_SET).into()),
            ("", false) => None,
            (name, _) => Some(Invalid::parse("set", name)?),
        };
        let manifests = manifest::read_all(&batch.files)?;
        let versions = self.read_keys(actor, &manifests).await?;
        let job = Job {
            manifests,
            versions,
            set,
            prune: batch.prune,
            reason: batch.reason,
            intent,
            actor: actor.clone(),
            now: clock::now(),
        };
        self.settle(move |tx| job.run(tx)).await
    }

    /// Checks the Keys among the manifests and reads the versions nobody has seen yet.
    async fn read_keys(
        &self,
        actor: &Actor,
        manifests: &[Manifest],
    ) -> Result<BTreeMap<KeyName, KeyVersionRow>, Error> {
        let mut versions = BTreeMap::new();
        for manifest in manifests {
            let Object::Key(key) = &manifest.object else {
                continue;
            };
            may_serve(&key.location, &self.config.key_paths)
                .map_err(|problem| manifest.invalid("spec.vault.path", problem.to_string()))?;
            let wanted = key.clone();
            let is_known = self
                .store
                .read(move |tx| Ok::<_, Error>(tx.keys()?.iter().any(|row| row.key == wanted)));
            if is_known.await? {
                continue;
            }
            // Also a plan reads the key's value, to show that it can be had.
            actor.must_be(Role::Admin)?;
            let found = self.newest_version(key).await;
            let found = found.map_err(|problem| manifest.invalid("spec.vault", problem))?;
            versions.extend(found.map(|row| (key.name.clone(), row)));
        }
        Ok(versions)
    }
}

const NEEDS_SET: &str = "needs `set`: only what belongs to a named set is deleted";

impl Job {
    fn run(self, tx: &Tx<'_>) -> Result<Applied, Undo> {
        let before = preview::before(tx)?;
        let mut changes = Vec::new();
        for manifest in &self.manifests {
            reach::may_store(tx, &self.actor, &manifest.object)?;
            let mut change = store::store(tx, &self, manifest)?;
            if let Some(set) = &self.set {
                store::join(tx, manifest, set, &mut change)?;
            }
            changes.push(change);
        }
        models::advise_all(tx, &mut changes, self.now)?;
        if let (Some(set), true) = (&self.set, self.prune) {
            let pruned = prune::prune(tx, &self.actor, set, &self.manifests, self.now)?;
            prune::say_renamed(&self.manifests, &mut changes, &pruned);
            changes.extend(pruned.into_iter().map(|pruned| pruned.change));
        }
        let warnings = check::check(tx, &self.manifests, &changes, &self.actor.scope)?;
        let act = Act {
            action: "manifests.apply",
            target: self
                .set
                .as_ref()
                .map(|set| format!("set {set}"))
                .unwrap_or_default(),
            reason: self.reason.clone(),
            detail: String::new(),
        };
        Settling {
            actor: &self.actor,
            intent: self.intent,
            act,
            verb: "applied",
            before,
            changes,
            warnings,
            now: self.now,
        }
        .run(tx)
    }
}

impl From<InvalidManifest> for Undo {
    fn from(err: InvalidManifest) -> Self {
        Self::Because(err.into())
    }
}
