//! The desired state of this deployment, checked once when it comes from the wire.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use keyfleet_core::binding::{Assignment, BindingId, Failure};
use keyfleet_core::connector::ConnectorSpec;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{ConnectorName, DeploymentId, Generation, KeyName, KeyVersion, SpaceId};
use keyfleet_core::placement::DriftPolicy;
use keyfleet_proto::{Invalid, v1};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::Accept;
use crate::ledger::GoalRow;

/// One binding of this deployment: a connector in a space.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) space: SpaceId,
    pub(crate) connector: ConnectorName,
}

/// The whole desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) generation: Generation,
    /// Opaque; echoed to control.
    pub(crate) digest: Bytes,
    pub(crate) wishes: BTreeMap<Place, Wish>,
}

/// What one binding shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) connector_id: Uuid,
    /// The definition; a removal has none.
    pub(crate) spec: Option<ConnectorSpec>,
    /// `None`: the connector shall go.
    pub(crate) goal: Option<Goal>,
    pub(crate) drift_policy: DriftPolicy,
    pub(crate) allowed_hosts: Vec<String>,
    /// How long a proof is good for; `None`: for ever.
    pub(crate) probe_interval: Option<Duration>,
}

/// What a binding shall run, and the how-manieth try of it this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "GoalRow", into = "GoalRow")]
pub(crate) struct Goal {
    pub(crate) assignment: Assignment,
    pub(crate) attempt: u32,
}

/// A version of a Key.
pub(crate) type KeyId = (KeyName, KeyVersion);

impl Desired {
    /// Reads control's message. One field that cannot be read spoils the whole document: control must know.
    ///
    /// # Errors
    /// Names the field.
    pub(crate) fn read(wire: v1::Desired) -> Result<Self, Invalid> {
        let generation = wire
            .generation
            .ok_or_else(|| Invalid::missing("generation"))?
            .into();
        let mut wishes = BTreeMap::new();
        for (index, binding) in wire.bindings.into_iter().enumerate() {
            let within = |invalid: Invalid| {
                Invalid::new(
                    format!("bindings[{index}].{}", invalid.field),
                    invalid.problem,
                )
            };
            let (place, wish) = Wish::read(binding).map_err(within)?;
            if wishes.insert(place, wish).is_some() {
                return Err(within(Invalid::new("binding", "is listed twice")));
            }
        }
        Ok(Self {
            generation,
            digest: wire.digest,
            wishes,
        })
    }

    /// The versions of Keys that this state names; every other one is forgotten.
    pub(crate) fn names_key(&self, key: &KeyId) -> bool {
        self.wishes
            .values()
            .any(|wish| wish.key().as_ref() == Some(key))
    }
}

impl Wish {
    fn read(wire: v1::DesiredBinding) -> Result<(Place, Self), Invalid> {
        let binding = wire.binding.ok_or_else(|| Invalid::missing("binding"))?;
        let place = Place {
            space: Invalid::parse("binding.space", &binding.space)?,
            connector: Invalid::parse("binding.connector", &binding.connector)?,
        };
        let policy = v1::DriftPolicy::try_from(wire.drift_policy)
            .map_err(|_| Invalid::new("drift_policy", "is one that this agent does not know"))?;
        // A removal needs the binding and the connector's id, nothing else.
        let (goal, spec, drift_policy) = if wire.remove {
            (None, None, DriftPolicy::Correct)
        } else {
            let assignment = wire
                .assignment
                .ok_or_else(|| Invalid::missing("assignment"))?
                .into();
            let spec = ConnectorSpec {
                connector_type: wire.connector_type,
                display_name: wire.display_name,
                config: wire.config_json,
                key: Invalid::parse("key", &wire.key)?,
            };
            (
                Some(Goal {
                    assignment,
                    attempt: wire.attempt,
                }),
                Some(spec),
                policy.try_into()?,
            )
        };
        let interval = Duration::from_secs(wire.probe_interval_secs.into());
        let wish = Self {
            connector_id: Invalid::parse("connector_id", &wire.connector_id)?,
            spec,
            goal,
            drift_policy,
            allowed_hosts: wire.allowed_hosts,
            probe_interval: (!interval.is_zero()).then_some(interval),
        };
        Ok((place, wish))
    }

    /// The version of its Key that it needs; `None` for a removal.
    pub(crate) fn key(&self) -> Option<KeyId> {
        let (goal, spec) = self.goal.zip(self.spec.as_ref())?;
        Some((spec.key.clone(), goal.assignment.key_version))
    }

    /// Checks the wish against this agent's own rules.
    ///
    /// # Errors
    /// [`FailureClass::Rejected`] with a sentence that names the rule.
    pub(crate) fn check(
        &self,
        place: &Place,
        deployment: DeploymentId,
        accept: &Accept,
    ) -> Result<(), Failure> {
        let binding = BindingId {
            deployment,
            space: place.space.clone(),
            connector: place.connector.clone(),
        };
        if self.connector_id != binding.connector_id() {
            return Err(rejected(
                "the connector's id is not the one of this deployment, space and connector",
            ));
        }
        // Our own connector may always go, also from where the agent would put none any more.
        match &self.spec {
            None => Ok(()),
            Some(spec) => self.check_definition(place, spec, accept),
        }
    }

    fn check_definition(
        &self,
        place: &Place,
        spec: &ConnectorSpec,
        accept: &Accept,
    ) -> Result<(), Failure> {
        let kind = &spec.connector_type;
        if !listed(&accept.connector_types, kind) {
            return Err(rejected(format!(
                "this agent does not accept connectors of type {kind} (`accept.connector_types`)"
            )));
        }
        if !listed(&accept.spaces, place.space.as_str()) {
            return Err(rejected(format!(
                "this agent does not accept the space {} (`accept.spaces`)",
                place.space
            )));
        }
        let Some(driver) = keyfleet_kibana::driver(kind) else {
            return Err(rejected(format!(
                "this agent has no driver for connectors of type {kind}; update the agent"
            )));
        };
        if let Err(problems) = driver.check(&spec.config) {
            return Err(rejected(join(&problems)));
        }
        let destination = driver.destination(&spec.config);
        let Some(host) = destination
            .as_ref()
            .and_then(|url| url.host_str())
            .map(str::to_ascii_lowercase)
        else {
            return Err(rejected(
                "the definition names no host for the key to travel to",
            ));
        };
        if !listed(&accept.hosts, bare(&host)) {
            return Err(rejected(format!(
                "this agent lets no key travel to {host} (`accept.hosts`)"
            )));
        }
        if !self
            .allowed_hosts
            .iter()
            .any(|allowed| bare(&host).eq_ignore_ascii_case(bare(allowed)))
        {
            return Err(rejected(format!(
                "the key {} may not travel to {host} (its allowed hosts)",
                spec.key
            )));
        }
        Ok(())
    }
}

/// Several things that are wrong, as one sentence.
pub(crate) fn join(problems: &[impl fmt::Display]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

fn rejected(text: impl Into<String>) -> Failure {
    Failure {
        class: FailureClass::Rejected,
        text: text.into(),
    }
}

fn listed(list: &[String], value: &str) -> bool {
    list.iter().any(|entry| entry == "*" || entry == value)
}

/// A host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

impl Place {
    /// The reference on the wire.
    pub(crate) fn to_wire(&self) -> v1::BindingRef {
        v1::BindingRef {
            space: self.space.to_string(),
            connector: self.connector.to_string(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.space, self.connector)
    }
}
