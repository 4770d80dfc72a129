//! The desired state of one deployment, composed per binding, and the keys its agent may have.

use std::collections::BTreeMap;

use keyfleet_core::binding::BindingState;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{DeploymentId, Generation, KeyName, KeyVersion};
use keyfleet_core::placement::DriftPolicy;
use keyfleet_core::travel::may_serve;
use keyfleet_proto::{duration_secs, v1};
use keyfleet_store::{Binding, Deployment, Tx};
use prost::Message as _;
use secrecy::SecretString;

use super::App;
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
        let settle = move |tx: &Tx<'_>| {
            let mut desired = compose(tx, id, probe_secs)?;
            let known = tx.digest(id)?;
            if known.is_some_and(|known| known != desired.document.digest) {
                tx.next_generation(id, epoch)?;
                desired = compose(tx, id, probe_secs)?;
            }
            tx.set_digest(id, &desired.document.digest)?;
            Ok::<_, Error>(desired)
        };
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

fn compose(tx: &Tx<'_>, id: DeploymentId, probe_interval_secs: u32) -> Result<DesiredState, Error> {
    let missing = || Error::NotFound {
        kind: "deployment",
        name: id.to_string(),
    };
    let deployment = tx.deployment(id)?.ok_or_else(missing)?;
    let travel = Travel::load(tx)?;
    let policies: BTreeMap<_, DriftPolicy> = tx
        .placements()?
        .into_iter()
        .map(|p| (p.name, p.drift_policy))
        .collect();
    let mut named = BTreeMap::new();
    let mut bindings = Vec::new();
    for binding in tx.bindings_of(id)? {
        let policy = policies
            .get(&binding.placement)
            .copied()
            .unwrap_or(DriftPolicy::Report);
        // A key never goes to a deployment outside of its scope, nor to a host that its Key or the settings do not
        // allow, whatever else was decided: the document does not name it, and what runs stays as it is.
        let (labels, travel) = (&deployment.labels, &travel);
        let Some(wire) = wire_binding(tx, &binding, (travel, labels), policy, probe_interval_secs)?
        else {
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

fn wire_binding(
    tx: &Tx<'_>,
    binding: &Binding,
    (travel, labels): (&Travel, &Labels),
    policy: DriftPolicy,
    probe_interval_secs: u32,
) -> Result<Option<v1::DesiredBinding>, Error> {
    let Some(told) = binding.desired else {
        return Ok(None);
    };
    let mut wire = v1::DesiredBinding {
        binding: Some(v1::BindingRef {
            space: binding.id.space.to_string(),
            connector: binding.id.connector.to_string(),
        }),
        connector_id: binding.id.connector_id().as_hyphenated().to_string(),
        attempt: told.attempt,
        drift_policy: v1::DriftPolicy::from(policy).into(),
        remove: told.assignment.is_none(),
        probe_interval_secs,
        ..v1::DesiredBinding::default()
    };
    let Some(assignment) = told.assignment else {
        return Ok(Some(wire));
    };
    let stored = tx.connector(&binding.id.connector, assignment.revision)?;
    let name = || format!("{} {}", binding.id.connector, assignment.revision);
    let stored = stored.ok_or_else(|| Error::NotFound {
        kind: "connector revision",
        name: name(),
    })?;
    let spec = stored.revision.spec;
    if travel.stays_from(&spec, labels).is_some() {
        return Ok(None);
    }
    wire.connector_type = spec.connector_type;
    wire.display_name = spec.display_name;
    wire.config_json = spec.config;
    wire.if_supported = spec.if_supported;
    wire.allowed_hosts = travel
        .key(&spec.key)
        .map(|key| key.allowed_hosts.clone())
        .unwrap_or_default();
    wire.key = spec.key.to_string();
    wire.assignment = Some(assignment.into());
    Ok(Some(wire))
}
