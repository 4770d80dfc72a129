//! The desired state of one deployment, composed per binding, and the keys its agent may have.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::binding::BindingState;
use keyfleet_core::connector::{ConnectorRevision, ConnectorSpec, Probe};
use keyfleet_core::id::{ConnectorName, DeploymentId, Generation, KeyName, KeyVersion};
use keyfleet_core::placement::DriftPolicy;
use keyfleet_core::travel::may_serve;
use keyfleet_kibana::{Surface, driver};
use keyfleet_proto::{duration_secs, v1};
use keyfleet_store::{Binding, Deployment, Tx};
use prost::Message as _;
use secrecy::SecretString;

use super::App;
use super::start::older_than;
use super::travel::Travel;
use crate::error::Error;

/// Everything a session needs to tell its agent.
#[derive(Debug, Clone)]
pub(crate) struct DesiredState {
    pub(crate) deployment: Deployment,
    /// The document, with its digest.
    pub(crate) document: v1::Desired,
    /// Key versions that the document names; true where some binding still has to write with it.
    pub(crate) keys: BTreeMap<(KeyName, KeyVersion), bool>,
}

/// A key value on its way to an agent.
pub(crate) struct KeyForAgent {
    pub(crate) value: SecretString,
    pub(crate) fingerprint: String,
}

impl App {
    /// What this deployment shall have now.
    ///
    /// A generation stands for one document: what changes the document without a rollout (a drift policy, the
    /// hosts of a Key, a setting of control) gives it a new generation first.
    pub(crate) async fn desired(&self, id: DeploymentId) -> Result<DesiredState, Error> {
        let probe_secs = duration_secs(self.config.agents.idle_probe);
        let look = move |tx: &Tx<'_>| {
            let desired = compose(tx, id, probe_secs)?;
            Ok::<_, Error>((tx.digest(id)?, desired))
        };
        let (known, desired) = self.store.read(look).await?;
        let is_told = desired.deployment.generation != Generation::default();
        if !is_told || known.as_deref() == Some(desired.document.digest.as_ref()) {
            return Ok(desired);
        }
        let epoch = self.store.epoch();
        let settle = move |tx: &Tx<'_>| settle(tx, id, probe_secs, epoch);
        self.store.write(settle).await
    }

    /// The value of a key version for an agent whose desired state names it.
    pub(crate) async fn key_for_agent(
        &self,
        name: &KeyName,
        version: KeyVersion,
    ) -> Result<KeyForAgent, Error> {
        let wanted = name.clone();
        let stored = self
            .store
            .read(move |tx| {
                let key = tx.keys()?.into_iter().find(|row| row.key.name == wanted);
                let versions = tx.key_versions(&wanted)?;
                Ok::<_, Error>((key, versions.into_iter().find(|row| row.version == version)))
            })
            .await?;
        let (Some(row), Some(known)) = stored else {
            return Err(Error::NotFound {
                kind: "key version",
                name: format!("{name} {version}"),
            });
        };
        if !known.state.may_be_assigned() {
            let state = known.state.as_str();
            return Err(Error::Precondition(format!(
                "key {name} {version} is {state}"
            )));
        }
        // Asked at each read: the setting may have been narrowed since the Key was stored.
        may_serve(&row.key.location, &self.config.key_paths)
            .map_err(|refused| Error::Precondition(refused.to_string()))?;
        let value = self
            .keyring
            .value(&row.key, version, |value| {
                self.fingerprint.fingerprint(value) == known.fingerprint
            })
            .await
            .map_err(|err| Error::Unavailable(err.to_string()))?;
        Ok(KeyForAgent {
            value,
            fingerprint: known.fingerprint,
        })
    }
}

/// What a deployment shall have now, with the generation that stands for it.
pub(crate) fn settle(
    tx: &Tx<'_>,
    id: DeploymentId,
    probe_interval_secs: u32,
    epoch: u64,
) -> Result<DesiredState, Error> {
    let mut desired = compose(tx, id, probe_interval_secs)?;
    let known = tx.digest(id)?;
    if known.is_some_and(|known| known != desired.document.digest) {
        tx.next_generation(id, epoch)?;
        desired = compose(tx, id, probe_interval_secs)?;
    }
    tx.set_digest(id, &desired.document.digest)?;
    Ok(desired)
}

fn compose(tx: &Tx<'_>, id: DeploymentId, probe_interval_secs: u32) -> Result<DesiredState, Error> {
    let missing = || Error::NotFound {
        kind: "deployment",
        name: id.to_string(),
    };
    let deployment = tx.deployment(id)?.ok_or_else(missing)?;
    let rows = tx.bindings_of(id)?;
    let around = Around {
        travel: Travel::load(tx)?,
        after: after(tx, &rows)?,
        probe_interval_secs,
    };
    let policies: BTreeMap<_, DriftPolicy> = tx
        .placements()?
        .into_iter()
        .map(|p| (p.name, p.drift_policy))
        .collect();
    let mut named = BTreeMap::new();
    let mut bindings = Vec::new();
    for binding in rows {
        let policy = policies
            .get(&binding.placement)
            .copied()
            .unwrap_or(DriftPolicy::Report);
        let Some(wire) = around.wire(tx, &binding, &deployment, policy)? else {
            continue;
        };
        if let (false, Some(assignment)) = (wire.remove, wire.assignment) {
            let key: KeyName = wire.key.parse().map_err(|err| Error::internal(&err))?;
            let must_write = !matches!(
                binding.progress.state,
                BindingState::Proven | BindingState::Applied | BindingState::Waived
            );
            *named
                .entry((key, KeyVersion(assignment.key_version)))
                .or_insert(false) |= must_write;
        }
        bindings.push(wire);
    }
    let document = document(deployment.generation, bindings);
    Ok(DesiredState {
        deployment,
        document,
        keys: named,
    })
}

/// The digest is of the content alone: the same content has the same digest in every generation.
fn document(generation: Generation, bindings: Vec<v1::DesiredBinding>) -> v1::Desired {
    let mut document = v1::Desired {
        generation: None,
        digest: bytes::Bytes::new(),
        bindings,
    };
    let digest = blake3::hash(&document.encode_to_vec());
    document.digest = bytes::Bytes::copy_from_slice(digest.as_bytes());
    document.generation = Some(generation.into());
    document
}

/// What the bindings of a document have in common.
struct Around {
    travel: Travel,
    /// Of a connector that is to be removed, the one that must be proven first.
    after: BTreeMap<ConnectorName, ConnectorName>,
    probe_interval_secs: u32,
}

impl Around {
    /// A binding as its agent is told of it; `None` where it is told nothing.
    fn wire(
        &self,
        tx: &Tx<'_>,
        binding: &Binding,
        deployment: &Deployment,
        policy: DriftPolicy,
    ) -> Result<Option<v1::DesiredBinding>, Error> {
        let Some(told) = binding.desired else {
            return Ok(None);
        };
        let mut wire = v1::DesiredBinding {
            binding: Some(v1::BindingRef {
                space: binding.id.space.to_string(),
                connector: binding.id.connector.to_string(),
            }),
            connector_id: binding.connector_id(),
            adopted: binding.adopted_id.is_some(),
            attempt: told.attempt,
            drift_policy: v1::DriftPolicy::from(policy).into(),
            remove: told.assignment.is_none(),
            probe_interval_secs: self.probe_interval_secs,
            ..v1::DesiredBinding::default()
        };
        let Some(assignment) = told.assignment else {
            let after = self.after.get(&binding.id.connector);
            wire.after_connector = after.map(ToString::to_string).unwrap_or_default();
            wire.references_agreed = binding.references_agreed;
            if let Some(spec) = removed_spec(tx, binding)? {
                wire.connector_type = spec.connector_type;
                wire.config_json = spec.config;
            }
            return Ok(Some(wire));
        };
        let stored = tx.connector(&binding.id.connector, assignment.revision)?;
        let name = || format!("{} {}", binding.id.connector, assignment.revision);
        let stored = stored.ok_or_else(|| Error::NotFound {
            kind: "connector revision",
            name: name(),
        })?;
        let spec = stored.revision.spec;
        // A key never goes to a deployment outside of its scope, nor to a host that its Key or the settings do not
        // allow, whatever else was decided: the document does not name it, and what runs stays as it is.
        if self.travel.stays_from(&spec, &deployment.labels).is_some() {
            return Ok(None);
        }
        wire.assignment = Some(assignment.into());
        self.define(&mut wire, spec);
        Ok(Some(wire))
    }

    /// What the revision says.
    fn define(&self, wire: &mut v1::DesiredBinding, spec: ConnectorSpec) {
        wire.connector_type = spec.connector_type;
        wire.display_name = spec.display_name;
        wire.config_json = spec.config;
        wire.if_supported = spec.if_supported;
        if let Some(key) = self.travel.key(&spec.key) {
            wire.allowed_hosts.clone_from(&key.allowed_hosts);
            wire.key_parts = key.location.field.parts();
        }
        wire.key = spec.key.to_string();
        if let Some(interval) = spec.probe.interval {
            wire.probe_interval_secs = duration_secs(interval);
        }
        wire.probe = wire_probe(spec.probe);
    }
}

/// What a connector that is removed was, where its path says so: an agent that lost its ledger finds an inference
/// endpoint by its task.
fn removed_spec(tx: &Tx<'_>, binding: &Binding) -> Result<Option<ConnectorSpec>, Error> {
    let connector = &binding.id.connector;
    let known = binding.running.or(binding.last_proven);
    let stored = match known {
        Some(known) => tx.connector(connector, known.revision)?,
        None => None,
    };
    let stored = match stored {
        Some(stored) => Some(stored),
        None => tx.newest_connector(connector)?,
    };
    let is_endpoint = |spec: &ConnectorSpec| {
        let driver = driver(&spec.connector_type);
        let surface = driver.map(|driver| driver.surface(&spec.config));
        matches!(surface, Some(Surface::Elasticsearch { .. }))
    };
    Ok(stored
        .map(|stored| stored.revision.spec)
        .filter(is_endpoint))
}

/// What the live call says; absent where the connector's type decides all of it.
fn wire_probe(probe: Probe) -> Option<v1::Probe> {
    let wire = v1::Probe {
        body_json: probe.body.unwrap_or_default(),
        max_tokens: probe.max_tokens.unwrap_or_default(),
        model: probe.model.unwrap_or_default(),
    };
    (wire != v1::Probe::default()).then_some(wire)
}

/// Of each connector that this deployment is told to remove, the one that must be proven there first: what takes its
/// place, or on the way back what had its place before. Only one that is told can be waited for.
fn after(tx: &Tx<'_>, rows: &[Binding]) -> Result<BTreeMap<ConnectorName, ConnectorName>, Error> {
    let told = || {
        rows.iter()
            .filter_map(|row| Some((&row.id.connector, row.desired?)))
    };
    let mut after = BTreeMap::new();
    if told().all(|(_, told)| told.assignment.is_some()) {
        return Ok(after);
    }
    let mut replaces = BTreeMap::new();
    for connector in tx.connectors()? {
        let ConnectorRevision {
            connector, spec, ..
        } = connector.revision;
        // The newest comes first and stays, withdrawn or not.
        replaces.entry(connector).or_insert(spec.replaces);
    }
    let stands: BTreeSet<&ConnectorName> = told()
        .filter(|(_, told)| told.assignment.is_some())
        .map(|(name, _)| name)
        .collect();
    let mut pairs = Vec::new();
    for newer in replaces.keys() {
        let all = older_than(newer, &replaces);
        if stands.contains(newer) {
            let each = all.into_iter().enumerate();
            pairs.extend(each.map(|(distance, older)| (distance, older, newer.clone())));
        } else if let Some(older) = all.into_iter().find(|older| stands.contains(older)) {
            pairs.push((usize::MAX, newer.clone(), older));
        }
    }
    // The nearest comes first and stays.
    pairs.sort();
    for (_, gone, stands) in pairs {
        after.entry(gone).or_insert(stands);
    }
    Ok(after)
}
