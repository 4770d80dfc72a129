//! `plan` and `apply`: one use case. A plan is an apply whose transaction is undone.

use std::collections::BTreeMap;

use keyfleet_core::Timestamp;
use keyfleet_core::id::{KeyName, SetName};
use keyfleet_core::rollout::GateCheck;
use keyfleet_core::token::Role;
use keyfleet_core::travel::may_serve;
use keyfleet_proto::{Invalid, v1};
use keyfleet_store::{KeyVersionRow, Scratch, Tx};

use super::audit::Act;
use super::preview;
use super::{Actor, App};
use crate::clock;
use crate::error::Error;
use crate::gates;
use crate::manifest::{self, InvalidManifest, Manifest, Object};

mod check;
mod models;
pub(super) mod prune;
mod reach;
pub(super) mod settle;
mod store;

pub(super) use check::warnings_of;
pub(crate) use settle::{Applied, Undo};
pub(super) use settle::{Settling, agree_with_references};

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
pub(crate) struct Job {
    pub(crate) manifests: Vec<Manifest>,
    pub(crate) versions: BTreeMap<KeyName, KeyVersionRow>,
    pub(crate) set: Option<SetName>,
    pub(crate) prune: bool,
    pub(crate) reason: String,
    pub(crate) intent: Intent,
    pub(crate) actor: Actor,
    pub(crate) now: Timestamp,
}

impl App {
    /// Plans or applies manifests.
    pub(crate) async fn apply(
        &self,
        actor: &Actor,
        batch: Batch,
        intent: Intent,
    ) -> Result<Applied, Error> {
        let job = self.job(actor, batch, intent).await?;
        self.settle(move |tx| job.run(tx)).await
    }

    /// Reads and checks what can be without a transaction.
    pub(super) async fn job(
        &self,
        actor: &Actor,
        batch: Batch,
        intent: Intent,
    ) -> Result<Job, Error> {
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
        self.gates_may_ask(&manifests)?;
        let versions = self.read_keys(actor, &manifests).await?;
        Ok(Job {
            manifests,
            versions,
            set,
            prune: batch.prune,
            reason: batch.reason,
            intent,
            actor: actor.clone(),
            now: clock::now(),
        })
    }

    /// Every gate among the manifests asks a host that the settings allow.
    fn gates_may_ask(&self, manifests: &[Manifest]) -> Result<(), InvalidManifest> {
        for manifest in manifests {
            let Object::Strategy(strategy) = &manifest.object else {
                continue;
            };
            for (index, gate) in strategy.gates.iter().enumerate() {
                let kind = match gate.check {
                    GateCheck::Http { .. } => "http",
                    GateCheck::Prometheus { .. } => "prometheus",
                };
                let field = format!("spec.gates[{index}].{kind}.url");
                gates::may_ask(gate, &self.config.gates.allowed_hosts)
                    .map_err(|problem| manifest.invalid(&field, problem))?;
            }
        }
        Ok(())
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
    /// Carries it out on a copy of the database, where nothing has to be asked twice.
    ///
    /// # Errors
    /// As `apply`.
    pub(super) fn run_on(mut self, copy: &Scratch) -> Result<v1::PlanResult, Error> {
        self.intent = Intent::Apply { yes: true };
        match copy.run(|tx| self.run(tx)) {
            Ok(applied) => Ok(applied.result),
            Err(Undo::OnlyPlanned(result)) => Ok(*result),
            Err(Undo::Because(err)) => Err(err),
        }
    }

    /// Plans or applies, inside of one transaction.
    pub(crate) fn run(self, tx: &Tx<'_>) -> Result<Applied, Undo> {
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
