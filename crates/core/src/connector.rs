//! A connector: the fleet-level definition that is spread over many Kibanas.

use crate::id::{ConnectorName, KeyName, Revision};

/// The content of one revision.
///
/// `config` is opaque here: a JSON object in canonical text (sorted keys, no spaces) that only the drivers
/// of the `kibana` crate understand, so that a new connector type changes nothing in this crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorSpec {
    /// Kibana's id of the type, such as `.gen-ai`.
    pub connector_type: String,
    /// The name that people see in Kibana; not unique there.
    pub display_name: String,
    /// The type's fields, canonical JSON.
    pub config: String,
    /// The Key whose value the connector holds; never a version of it.
    pub key: KeyName,
}

/// One immutable revision of a connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorRevision {
    /// Which connector.
    pub connector: ConnectorName,
    /// Which revision of it, from 1.
    pub revision: Revision,
    /// Its content.
    pub spec: ConnectorSpec,
}
