//! The desired state of this deployment, checked once when it comes from the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use keyfleet_core::binding::Assignment;
use keyfleet_core::connector::{ConnectorSpec, Probe};
use keyfleet_core::id::{ConnectorName, Generation, KeyName, KeyVersion, SpaceId};
use keyfleet_core::placement::DriftPolicy;
use keyfleet_kibana::Surface;
use keyfleet_proto::{Invalid, v1};
use serde::{Deserialize, Serialize};

use crate::ledger::{Entry, GoalRow};

mod rules;

pub(crate) use rules::listed;

/// More than any Kibana has; beyond it the agent would run out of memory before it ran out of work.
const BINDINGS_MAX: usize = 10_000;
/// Kibana itself takes at most 1 MiB a request (`server.maxPayload`), and no definition comes near this.
const CONFIG_BYTES_MAX: usize = 64 * 1024;
/// Names that people see, and types.
const NAME_BYTES_MAX: usize = 1024;
/// Hosts that one key may travel to.
const HOSTS_MAX: usize = 256;
/// The longest host name (RFC 1035) with a port and the brackets of an address.
const HOST_BYTES_MAX: usize = 264;
/// A digest is 32 bytes.
const DIGEST_BYTES_MAX: usize = 128;
/// Parts of one key; no type has as many.
const PARTS_MAX: usize = 16;
/// Most fields that may be left out; no type has as many.
const FIELDS_MAX: usize = 64;

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
    /// Its id in Kibana.
    pub(crate) connector_id: String,
    /// It was there before us: the id is not the one that follows from the binding.
    pub(crate) adopted: bool,
    /// The definition; a removal has none.
    pub(crate) spec: Option<ConnectorSpec>,
    /// `None`: the connector shall go.
    pub(crate) goal: Option<Goal>,
    pub(crate) drift_policy: DriftPolicy,
    pub(crate) allowed_hosts: Vec<String>,
    /// How long a proof is good for; `None`: for ever.
    pub(crate) probe_interval: Option<Duration>,
    /// The names of the parts of its key; none where the key is one text.
    pub(crate) key_parts: Vec<String>,
    /// A removal waits until every binding of this connector here is proven.
    pub(crate) after: Option<ConnectorName>,
    /// A removal is agreed with while at most so many rules and others refer to the connector.
    pub(crate) references_agreed: u32,
    /// It is an inference endpoint of this task; a removal need not say so.
    pub(crate) task: Option<String>,
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
        at_most("bindings", wire.bindings.len(), BINDINGS_MAX)?;
        at_most("digest", wire.digest.len(), DIGEST_BYTES_MAX)?;
        let mut wishes = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for (index, binding) in wire.bindings.into_iter().enumerate() {
            let within = |invalid: Invalid| {
                Invalid::new(
                    format!("bindings[{index}].{}", invalid.field),
                    invalid.problem,
                )
            };
            let (place, wish) = Wish::read(binding).map_err(within)?;
            let id = (place.space.clone(), wish.connector_id.clone());
            if wishes.insert(place, wish).is_some() {
                return Err(within(Invalid::new("binding", "is listed twice")));
            }
            // Two bindings of one connector would undo each other.
            if !ids.insert(id) {
                return Err(within(Invalid::new("connector_id", "is listed twice")));
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
        check_sizes(&wire)?;
        let binding = wire.binding.ok_or_else(|| Invalid::missing("binding"))?;
        let place = Place {
            space: Invalid::parse("binding.space", &binding.space)?,
            connector: Invalid::parse("binding.connector", &binding.connector)?,
        };
        // An adopted one has whatever id somebody else gave it, which is checked with the agent's own rules.
        if !wire.adopted {
            let _: uuid::Uuid = Invalid::parse("connector_id", &wire.connector_id)?;
        }
        let task = task(&wire.connector_type, &wire.config_json);
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
                if_supported: wire.if_supported,
                probe: wire.probe.map(probe).unwrap_or_default(),
                replaces: None,
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
        let after = match wire.after_connector.as_str() {
            "" => None,
            name => Some(Invalid::parse("after_connector", name)?),
        };
        let interval = Duration::from_secs(wire.probe_interval_secs.into());
        let wish = Self {
            connector_id: wire.connector_id,
            adopted: wire.adopted,
            spec,
            goal,
            drift_policy,
            allowed_hosts: wire.allowed_hosts,
            probe_interval: (!interval.is_zero()).then_some(interval),
            key_parts: wire.key_parts,
            after,
            references_agreed: wire.references_agreed,
            task,
        };
        Ok((place, wish))
    }

    /// Where the connector is kept; for a removal the ledger knows.
    pub(crate) fn surface(&self, entry: &Entry) -> Surface {
        let known = entry.task.as_ref().filter(|_| self.spec.is_none());
        match self.task.as_ref().or(known) {
            Some(task) => Surface::Elasticsearch { task: task.clone() },
            None => Surface::Kibana,
        }
    }

    /// Its id, where it was there before us.
    pub(crate) fn adopted_id(&self) -> Option<&str> {
        self.adopted.then_some(self.connector_id.as_str())
    }

    /// The version of its Key that it needs; `None` for a removal.
    pub(crate) fn key(&self) -> Option<KeyId> {
        let (goal, spec) = self.goal.zip(self.spec.as_ref())?;
        Some((spec.key.clone(), goal.assignment.key_version))
    }
}

/// The task of a connector that is an inference endpoint.
fn task(connector_type: &str, config_json: &str) -> Option<String> {
    match keyfleet_kibana::driver(connector_type)?.surface(config_json) {
        Surface::Kibana => None,
        Surface::Elasticsearch { task } => Some(task),
    }
}

fn probe(wire: v1::Probe) -> Probe {
    let said = |text: String| (!text.is_empty()).then_some(text);
    Probe {
        body: said(wire.body_json),
        max_tokens: (wire.max_tokens > 0).then_some(wire.max_tokens),
        model: said(wire.model),
        interval: None,
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

/// Refuses what nobody means, before anything is done with it.
fn check_sizes(wire: &v1::DesiredBinding) -> Result<(), Invalid> {
    at_most("config_json", wire.config_json.len(), CONFIG_BYTES_MAX)?;
    at_most("display_name", wire.display_name.len(), NAME_BYTES_MAX)?;
    at_most("connector_type", wire.connector_type.len(), NAME_BYTES_MAX)?;
    at_most("allowed_hosts", wire.allowed_hosts.len(), HOSTS_MAX)?;
    at_most("if_supported", wire.if_supported.len(), FIELDS_MAX)?;
    at_most("connector_id", wire.connector_id.len(), NAME_BYTES_MAX)?;
    at_most("key_parts", wire.key_parts.len(), PARTS_MAX)?;
    wire.key_parts
        .iter()
        .try_for_each(|name| at_most("key_parts", name.len(), NAME_BYTES_MAX))?;
    if let Some(probe) = &wire.probe {
        at_most("probe.body_json", probe.body_json.len(), CONFIG_BYTES_MAX)?;
        at_most("probe.model", probe.model.len(), NAME_BYTES_MAX)?;
    }
    wire.if_supported
        .iter()
        .try_for_each(|name| at_most("if_supported", name.len(), NAME_BYTES_MAX))?;
    wire.allowed_hosts
        .iter()
        .try_for_each(|host| at_most("allowed_hosts", host.len(), HOST_BYTES_MAX))
}

fn at_most(field: &str, size: usize, limit: usize) -> Result<(), Invalid> {
    if size > limit {
        return Err(Invalid::new(
            field,
            format_args!("is too long: {size}, where at most {limit} are read"),
        ));
    }
    Ok(())
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
