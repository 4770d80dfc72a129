//! Whether a key may travel where a stored connector would send it: what the core decides, asked about rows.

use std::collections::BTreeMap;

use keyfleet_core::binding::BindingId;
use keyfleet_core::connector::{ConnectorRevision, ConnectorSpec};
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::{ConnectorName, DeploymentId, KeyName, Revision};
use keyfleet_core::key::Key;
use keyfleet_core::travel::{HostPattern, may_be_sent, may_travel};
use keyfleet_kibana::driver;
use keyfleet_store::{Binding, Deployment, Event, EventScope, Tx};
use url::Url;

use super::audit::record_own;
use super::start::{Spread, refresh_goals, start_rollouts};
use super::{App, KEYFLEET};
use crate::clock;
use crate::error::Error;

/// Keys and settings, as they are now.
pub(crate) struct Travel {
    keys: BTreeMap<KeyName, Key>,
    outbound: Vec<HostPattern>,
}

impl Travel {
    pub(crate) fn load(tx: &Tx<'_>) -> Result<Self, Error> {
        let keys = tx.keys()?.into_iter();
        Ok(Self {
            keys: keys.map(|row| (row.key.name.clone(), row.key)).collect(),
            outbound: tx.outbound()?,
        })
    }

    /// The Key of this name.
    pub(crate) fn key(&self, name: &KeyName) -> Option<&Key> {
        self.keys.get(name)
    }

    /// Why the key of this connector may not travel anywhere; `None` where it may.
    pub(crate) fn stays(&self, spec: &ConnectorSpec) -> Option<String> {
        self.judge(spec, |key, to| may_travel(key, to, &self.outbound).err())
    }

    /// Why the key of this connector may not be sent to a deployment with these labels; `None` where it may.
    pub(crate) fn stays_from(&self, spec: &ConnectorSpec, labels: &Labels) -> Option<String> {
        self.judge(spec, |key, to| {
            may_be_sent(key, to, labels, &self.outbound).err()
        })
    }

    fn judge<E: ToString>(
        &self,
        spec: &ConnectorSpec,
        why: impl FnOnce(&Key, Option<&Url>) -> Option<E>,
    ) -> Option<String> {
        let Some(key) = self.keys.get(&spec.key) else {
            return Some(format!("there is no Key {:?}", spec.key.as_str()));
        };
        why(key, destination(spec).as_ref()).map(|stays| stays.to_string())
    }
}

/// The bindings whose goal needs a key that may not be sent there, and why. Of one that has nothing, the newest revision
/// is looked at; a removal needs no key.
pub(super) fn barred(
    tx: &Tx<'_>,
    deployments: &[Deployment],
    bindings: &[Binding],
) -> Result<BTreeMap<BindingId, String>, Error> {
    let travel = Travel::load(tx)?;
    let labels = deployments.iter().map(|d| (d.id, &d.labels));
    let labels: BTreeMap<DeploymentId, &Labels> = labels.collect();
    let mut specs: BTreeMap<ConnectorName, BTreeMap<Revision, ConnectorSpec>> = BTreeMap::new();
    for ConnectorRevision {
        connector,
        revision,
        spec,
    } in tx.connectors()?.into_iter().map(|c| c.revision)
    {
        specs.entry(connector).or_default().insert(revision, spec);
    }
    let mut barred = BTreeMap::new();
    for binding in bindings {
        let revisions = specs.get(&binding.id.connector);
        let spec = match (binding.goal, binding.desired) {
            (Some(goal), _) => revisions.and_then(|all| all.get(&goal.revision)),
            (None, None) => revisions.and_then(|all| all.values().next_back()),
            (None, Some(_)) => None,
        };
        let (Some(spec), Some(labels)) = (spec, labels.get(&binding.id.deployment)) else {
            continue;
        };
        if let Some(why) = travel.stays_from(spec, labels) {
            barred.insert(binding.id.clone(), why);
        }
    }
    Ok(barred)
}

/// The URL that a connector calls, as Kibana reads it.
pub(crate) fn destination(spec: &ConnectorSpec) -> Option<Url> {
    driver(&spec.connector_type)?.destination(&spec.config)
}

impl App {
    /// Takes in which hosts the settings let keys travel to, before anybody is served. What may travel now and might
    /// not before is rolled out; what may no longer stays as it is and is sent no key.
    pub(crate) async fn settle_outbound(&self) -> Result<(), Error> {
        let (hosts, now) = (self.config.outbound_hosts.clone(), clock::now());
        let settle = move |tx: &Tx<'_>| {
            let before = tx.outbound()?;
            if before == hosts {
                return Ok(());
            }
            tx.set_outbound(&hosts)?;
            // Nothing before is a service that starts for the first time, or one whose keys could travel nowhere.
            if !before.is_empty() {
                note(tx, &before, &hosts, now)?;
            }
            refresh_goals(tx, now)?;
            let cause = "the setting outbound.allowed_hosts changed";
            start_rollouts(tx, &Spread::default(), cause, KEYFLEET, now)?;
            Ok::<_, Error>(())
        };
        self.store.write(settle).await
    }
}

fn note(
    tx: &Tx<'_>,
    before: &[HostPattern],
    after: &[HostPattern],
    now: keyfleet_core::Timestamp,
) -> Result<(), Error> {
    let list = |hosts: &[HostPattern]| {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        hosts.join(", ")
    };
    let detail = format!(
        "outbound.allowed_hosts: {} -> {}",
        list(before),
        list(after)
    );
    let event = Event {
        at: now,
        actor: KEYFLEET.to_owned(),
        text: detail.clone(),
    };
    tx.add_event(EventScope::Service, &event)?;
    let target = "setting outbound.allowed_hosts".to_owned();
    record_own(tx, "settings.change", target, detail, now)
}
