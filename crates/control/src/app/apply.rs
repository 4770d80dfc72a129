//! `plan` and `apply`: one use case. A plan is an apply whose transaction is undone.

use std::collections::BTreeMap;

use keyfleet_core::Timestamp;
use keyfleet_core::connector::{ConnectorRevision, ConnectorSpec};
use keyfleet_core::id::{ConnectorName, KeyName, Revision, RolloutId};
use keyfleet_core::key::Key;
use keyfleet_core::token::Role;
use keyfleet_proto::v1;
use keyfleet_store::{Connector, Event, EventScope, KeyVersionRow, Tx};

use super::preview::{self, Change};
use super::start::{refresh_goals, start_rollouts};
use super::{Actor, App};
use crate::clock;
use crate::error::Error;
use crate::manifest::{self, InvalidManifest, Manifest, Object, Place};

mod check;

/// What an operator wants done with manifests.
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

/// What came of it.
pub(crate) struct Applied {
    pub(crate) result: v1::PlanResult,
    pub(crate) rollouts: Vec<RolloutId>,
}

impl Applied {
    /// True where an object of these kinds is new or changed.
    fn changes_any(&self, kinds: &[&str]) -> bool {
        let is_change = |object: &v1::ObjectChange| {
            object.change() != v1::ChangeKind::Unchanged && kinds.contains(&object.kind.as_str())
        };
        self.result.objects.iter().any(is_change)
    }
}

/// Why the transaction was undone.
enum Undo {
    Because(Error),
    OnlyPlanned(Box<v1::PlanResult>),
}

impl From<keyfleet_store::Error> for Undo {
    fn from(err: keyfleet_store::Error) -> Self {
        Self::Because(err.into())
    }
}

impl From<Error> for Undo {
    fn from(err: Error) -> Self {
        Self::Because(err)
    }
}

/// Everything the transaction needs, read and checked outside of it.
struct Job {
    manifests: Vec<Manifest>,
    versions: BTreeMap<KeyName, KeyVersionRow>,
    intent: Intent,
    actor: Actor,
    now: Timestamp,
}

impl App {
    /// Plans or applies manifests.
    pub(crate) async fn apply(
        &self,
        actor: &Actor,
        files: &[v1::ManifestFile],
        intent: Intent,
    ) -> Result<Applied, Error> {
        let needed = if intent == Intent::Plan {
            Role::Viewer
        } else {
            Role::Operator
        };
        actor.must_be(needed)?;
        let manifests = read_all(files)?;
        let versions = self.read_keys(actor, &manifests).await?;
        let actor = actor.clone();
        let job = Job {
            manifests,
            versions,
            intent,
            actor,
            now: clock::now(),
        };
        match self.store.write(move |tx| job.run(tx)).await {
            Ok(applied) => {
                self.changed();
                // What of these reaches an agent without a rollout: drift policies and allowed hosts.
                if applied.changes_any(&["Key", "Placement"]) {
                    self.sessions.notify(&self.sessions.online());
                }
                Ok(applied)
            }
            Err(Undo::OnlyPlanned(result)) => Ok(Applied {
                result: *result,
                rollouts: Vec::new(),
            }),
            Err(Undo::Because(err)) => Err(err),
        }
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
            let (name, wanted) = (key.name.clone(), key.clone());
            let (is_new, known) = self
                .store
                .read(move |tx| {
                    let is_new = !tx.keys()?.iter().any(|row| row.key == wanted);
                    Ok::<_, Error>((is_new, tx.key_versions(&name)?))
                })
                .await?;
            if !is_new {
                continue;
            }
            // Also a plan reads the key's value, to show that it can be had.
            actor.must_be(Role::Admin)?;
            self.check_key_path(key, &manifest.place)?;
            let newest = known.first().map(|row| row.version.0).unwrap_or_default();
            let found =
                self.newest_version(key, newest)
                    .await
                    .map_err(|problem| InvalidManifest {
                        place: manifest.place.clone(),
                        field: "spec.vault".to_owned(),
                        problem,
                    })?;
            versions.extend(found.map(|row| (key.name.clone(), row)));
        }
        Ok(versions)
    }

    fn check_key_path(&self, key: &Key, place: &Place) -> Result<(), InvalidManifest> {
        let full = format!("{}/{}", key.location.mount, key.location.path);
        let allowed = &self.config.key_paths;
        if allowed
            .iter()
            .any(|beginning| full.starts_with(beginning.as_str()))
        {
            return Ok(());
        }
        let problem = format!(
            "{full} may not serve as a Key: the control service allows what begins with {} (setting vault.key_paths)",
            allowed.join(" or ")
        );
        Err(InvalidManifest {
            place: place.clone(),
            field: "spec.vault.path".to_owned(),
            problem,
        })
    }
}

fn read_all(files: &[v1::ManifestFile]) -> Result<Vec<Manifest>, InvalidManifest> {
    let mut manifests: Vec<Manifest> = Vec::new();
    for file in files {
        for manifest in manifest::read(&file.name, &file.text)? {
            let (kind, name) = (manifest.object.kind(), manifest.object.name());
            let same = manifests
                .iter()
                .find(|m| m.object.kind() == kind && m.object.name() == name);
            if let Some(first) = same {
                let problem = format!(
                    "{kind} {name} stands in {}:{} already: keep one",
                    first.place.file, first.place.line
                );
                let field = "metadata.name".to_owned();
                return Err(InvalidManifest {
                    place: manifest.place.clone(),
                    field,
                    problem,
                });
            }
            manifests.push(manifest);
        }
    }
    Ok(manifests)
}

impl Job {
    fn run(self, tx: &Tx<'_>) -> Result<Applied, Undo> {
        let mut changes = Vec::new();
        for manifest in &self.manifests {
            changes.push(self.store_object(tx, manifest)?);
        }
        check::check(tx, &self.manifests)?;
        let before = preview::before(tx)?;
        let goals = refresh_goals(tx, self.now)?;
        let names: Vec<String> = changes
            .iter()
            .filter(|change| change.is_change())
            .map(|change| format!("{} {}", change.kind, change.name))
            .collect();
        let cause = format!("{} applied {}", self.actor.principal, names.join(", "));
        let started = start_rollouts(tx, &goals.spread(), &cause, &self.actor.principal, self.now)?;
        let result = preview::result(tx, changes, &before, &started)?;
        match self.intent {
            Intent::Plan => return Err(Undo::OnlyPlanned(Box::new(result))),
            Intent::Apply { yes: false } if !goals.removed.is_empty() => {
                let n = goals.removed.len();
                let bindings = if n == 1 { "binding" } else { "bindings" };
                let text = format!(
                    "this removes {n} {bindings} (see `keyfleet plan`): say --yes to do it"
                );
                return Err(Undo::Because(Error::Precondition(text)));
            }
            Intent::Apply { .. } => {}
        }
        if !names.is_empty() {
            let text = format!("applied {}", names.join(", "));
            let event = Event {
                at: self.now,
                actor: self.actor.principal,
                text,
            };
            tx.add_event(EventScope::Service, &event)?;
        }
        Ok(Applied {
            result,
            rollouts: started,
        })
    }

    fn store_object(&self, tx: &Tx<'_>, manifest: &Manifest) -> Result<Change, Error> {
        match &manifest.object {
            Object::Key(key) => {
                let old = tx.keys()?.into_iter().find(|row| row.key.name == key.name);
                if old
                    .as_ref()
                    .is_some_and(|old| old.key.location != key.location)
                {
                    return Err(moved(manifest).into());
                }
                if old.as_ref().is_none_or(|old| old.key != *key) {
                    self.actor.must_be(Role::Admin)?;
                }
                let change = Change::key(old.as_ref().map(|row| &row.key), key);
                tx.put_key(key)?;
                if let Some(version) = self.versions.get(&key.name) {
                    tx.insert_key_version(&key.name, version)?;
                    tx.set_vault_status(&key.name, "ok", self.now)?;
                }
                Ok(change)
            }
            Object::Connector(name, spec) => self.store_connector(tx, name, spec),
            Object::Placement(placement) => {
                let old = tx
                    .placements()?
                    .into_iter()
                    .find(|old| old.name == placement.name);
                tx.put_placement(placement)?;
                Ok(Change::placement(old.as_ref(), placement))
            }
            Object::Strategy(strategy) => {
                let old = tx
                    .strategies()?
                    .into_iter()
                    .find(|old| old.name == strategy.name);
                tx.put_strategy(strategy)?;
                Ok(Change::strategy(old.as_ref(), strategy))
            }
        }
    }

    fn store_connector(
        &self,
        tx: &Tx<'_>,
        name: &ConnectorName,
        spec: &ConnectorSpec,
    ) -> Result<Change, Error> {
        let known = tx
            .connectors()?
            .into_iter()
            .filter(|old| old.revision.connector == *name);
        let known: Vec<Connector> = known.collect();
        let newest = known.first();
        let current = known.iter().find(|old| old.withdrawn_by.is_none());
        let withdrawn = newest
            .filter(|old| old.revision.spec == *spec)
            .and_then(|old| old.withdrawn_by);
        if let (Some(rollout), false) =
            (withdrawn, current.is_some_and(|c| c.revision.spec == *spec))
        {
            let mut change = Change::connector(name, Some(spec), spec);
            change.warning = Some(format!(
                "connector {name}: rollout {rollout} rolled this content back; `keyfleet rollout retry {rollout}` tries it again"
            ));
            return Ok(change);
        }
        let change = Change::connector(name, current.map(|old| &old.revision.spec), spec);
        if !change.is_change() {
            return Ok(change);
        }
        let revision = Revision(newest.map_or(1, |old| old.revision.revision.0 + 1));
        let new = ConnectorRevision {
            connector: name.clone(),
            revision,
            spec: spec.clone(),
        };
        tx.insert_connector(&new, self.now)?;
        Ok(change)
    }
}

/// Versions are counted by the secret in Vault: at another place the same numbers would mean other values.
fn moved(manifest: &Manifest) -> InvalidManifest {
    InvalidManifest {
        place: manifest.place.clone(),
        field: "spec.vault".to_owned(),
        problem: "cannot change, because version numbers would mean other values: make a new Key and let the connectors name it".to_owned(),
    }
}
