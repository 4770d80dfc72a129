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
use crate::hosts::{self, bare};
use crate::ledger::GoalRow;
use crate::said::tidy;

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
        at_most("bindings", wire.bindings.len(), BINDINGS_MAX)?;
        at_most("digest", wire.digest.len(), DIGEST_BYTES_MAX)?;
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
        check_sizes(&wire)?;
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
                if_supported: wire.if_supported,
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
            .map(bare)
        else {
            return Err(rejected(
                "the definition names no host for the key to travel to",
            ));
        };
        if !listed(&accept.hosts, host) {
            return Err(rejected(format!(
                "this agent lets no key travel to {host} (`accept.hosts`)"
            )));
        }
        // A Key names its hosts one by one: there is no entry for every host.
        let is_host = |allowed: &String| hosts::canonical(allowed).as_deref() == Some(host);
        if !self.allowed_hosts.iter().any(is_host) {
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

/// The text may repeat what control sent.
fn rejected(text: impl AsRef<str>) -> Failure {
    Failure {
        class: FailureClass::Rejected,
        text: tidy(text.as_ref()),
    }
}

fn listed(list: &[String], value: &str) -> bool {
    list.iter()
        .any(|entry| entry == hosts::ANY || entry == value)
}

/// Refuses what nobody means, before anything is done with it.
fn check_sizes(wire: &v1::DesiredBinding) -> Result<(), Invalid> {
    at_most("config_json", wire.config_json.len(), CONFIG_BYTES_MAX)?;
    at_most("display_name", wire.display_name.len(), NAME_BYTES_MAX)?;
    at_most("connector_type", wire.connector_type.len(), NAME_BYTES_MAX)?;
    at_most("allowed_hosts", wire.allowed_hosts.len(), HOSTS_MAX)?;
    at_most("if_supported", wire.if_supported.len(), FIELDS_MAX)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "good.example";

    fn accepts(url: &str, allowed: &[&str], accepted: &[&str]) -> bool {
        let config =
            serde_json::json!({"apiProvider": "OpenAI", "apiUrl": url, "defaultModel": "m"});
        let place = Place {
            space: "default".parse().unwrap(),
            connector: "assistant".parse().unwrap(),
        };
        let deployment = DeploymentId::new(Uuid::nil());
        let id = BindingId {
            deployment,
            space: place.space.clone(),
            connector: place.connector.clone(),
        };
        let wish = Wish {
            connector_id: id.connector_id(),
            spec: Some(ConnectorSpec {
                connector_type: ".gen-ai".to_owned(),
                display_name: "OpenAI".to_owned(),
                config: config.to_string(),
                key: "openai".parse().unwrap(),
                if_supported: Vec::new(),
            }),
            goal: None,
            drift_policy: DriftPolicy::Correct,
            allowed_hosts: allowed.iter().map(|&host| host.to_owned()).collect(),
            probe_interval: None,
        };
        let accept = Accept {
            connector_types: vec![".gen-ai".to_owned()],
            hosts: accepted.iter().map(|&host| host.to_owned()).collect(),
            spaces: vec!["*".to_owned()],
        };
        wish.check(&place, deployment, &accept).is_ok()
    }

    #[test]
    fn a_key_goes_where_both_the_key_and_the_host_allow_it() {
        let url = |host: &str| format!("https://{host}/v1/chat/completions");
        let check = |host: &str, allowed: &[&str], accepted: &[&str], expected: bool| {
            let got = accepts(&url(host), allowed, accepted);
            assert_eq!(got, expected, "{host} {allowed:?} {accepted:?}");
        };
        check(GOOD, &[GOOD], &[GOOD], true);
        check(GOOD, &[GOOD], &["*"], true);
        check(GOOD, &["*"], &["*"], false);
        check(GOOD, &[], &[GOOD], false);
        check(GOOD, &[GOOD], &[], false);
        check("GOOD.example:8443", &["Good.Example:443"], &[GOOD], true);
        check("good.example.", &[GOOD], &[GOOD], false);
        check(
            "a.good.example",
            &[GOOD, ".good.example", "*.good.example"],
            &["*"],
            false,
        );
        check("good.example@evil.example", &[GOOD], &["*"], false);
        check("[::1]:9100", &["[0:0::1]"], &["::1"], true);
        check("[::1]", &["::2"], &["::1"], false);
        check("127.0.0.1:9100", &["127.0.0.1:1"], &["127.0.0.1"], true);
    }

    /// Pieces of which hostile URLs are made.
    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "good.example",
            "evil.example",
            "GOOD.EXAMPLE",
            "good.example.",
            "@",
            ":",
            "/",
            "//",
            "\\",
            "?",
            "#",
            "%2e",
            "%40",
            "%2f",
            "%00",
            "\t",
            "\n",
            " ",
            "\u{3002}",
            "\u{ff0f}",
            "\u{200b}",
            "\u{ad}",
            "[",
            "]",
            "::1",
            "127.1",
            "0x7f000001",
            ".",
            "-",
            "443",
            "https:",
            "http://",
            "javascript:",
            ";",
            "&",
            "=",
            "|",
            "^",
            "xn--",
            "\u{430}",
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_url_sends_a_key_anywhere_else(
            pieces in prop::collection::vec(piece(), 1..8),
            scheme in prop::sample::select(vec!["https://", "http://", "https:", "https:/", "HTTPS://", " https://", ""]),
        ) {
            let url = format!("{scheme}{}/v1/chat/completions", pieces.concat());
            if accepts(&url, &[GOOD], &["*"]) {
                // What Kibana is sent is this text. A careful and a careless reader find the same host in it.
                let careful = url::Url::parse(&url).unwrap();
                prop_assert_eq!(careful.host_str(), Some(GOOD), "{}", url);
                let (_, rest) = url.trim().split_once("://").unwrap();
                let authority = rest.split(['/', '?', '#', '\\']).next().unwrap();
                let careless = authority.split(':').next().unwrap();
                prop_assert!(careless.eq_ignore_ascii_case(GOOD), "{}", url);
                prop_assert!(!authority.contains('@'), "{}", url);
            }
        }
    }
}
