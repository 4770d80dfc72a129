//! Keys, their versions, and who holds which.

use std::collections::BTreeMap;

use keyfleet_core::id::{KeyName, KeyVersion};
use keyfleet_core::key::KeyField;
use keyfleet_proto::v1;
use keyfleet_store::KeyRow;

use super::{Sight, wire_time};
use crate::app::revoke::is_leftover;
use crate::error::Error;

/// Every Key.
pub(crate) fn keys(sight: &Sight<'_>) -> Result<Vec<v1::Key>, Error> {
    sight
        .keys()?
        .into_iter()
        .map(|row| wire_key(sight, row))
        .collect()
}

/// One Key with its versions.
pub(crate) fn key(sight: &Sight<'_>, name: &str) -> Result<v1::GetKeyResponse, Error> {
    let missing = || Error::NotFound {
        kind: "key",
        name: name.to_owned(),
    };
    let parsed: KeyName = name.parse().map_err(|_| missing())?;
    let row = sight
        .keys()?
        .into_iter()
        .find(|row| row.key.name == parsed)
        .ok_or_else(missing)?;
    let mut open: BTreeMap<KeyVersion, u32> = BTreeMap::new();
    for holding in sight
        .holdings(&parsed)?
        .iter()
        .filter(|holding| holding.closed_at.is_none())
    {
        *open.entry(holding.version).or_default() += 1;
    }
    let mut proven: BTreeMap<KeyVersion, u32> = BTreeMap::new();
    for evidence in sight.evidence(&parsed)? {
        *proven.entry(evidence.version).or_default() += 1;
    }
    let versions = sight.key_versions(&parsed)?;
    let leftovers = versions.iter().filter(|row| is_leftover(row.state));
    let mut waits = sight.revoke_waits(&parsed, leftovers.map(|row| row.version))?;
    let versions = versions
        .into_iter()
        .map(|version| v1::KeyVersion {
            may_be_revoked: waits.get(&version.version).is_some_and(Vec::is_empty),
            revoke_waits: waits.remove(&version.version).unwrap_or_default(),
            version: version.version.0,
            state: v1::KeyState::from(version.state).into(),
            fingerprint: version.fingerprint,
            shown: version.shown,
            first_seen: wire_time(version.first_seen),
            holdings_open: open.get(&version.version).copied().unwrap_or_default(),
            bindings_proven: proven.get(&version.version).copied().unwrap_or_default(),
        })
        .collect();
    Ok(v1::GetKeyResponse {
        key: Some(wire_key(sight, row)?),
        versions,
    })
}

fn wire_key(sight: &Sight<'_>, row: KeyRow) -> Result<v1::Key, Error> {
    let newest = sight
        .key_versions(&row.key.name)?
        .first()
        .map(|version| version.version.0);
    let location = row.key.location;
    Ok(v1::Key {
        name: row.key.name.to_string(),
        mount: location.mount,
        path: location.path,
        field: match &location.field {
            KeyField::One(field) => field.clone(),
            KeyField::Parts(_) => String::new(),
        },
        parts: match location.field {
            KeyField::One(_) => BTreeMap::new(),
            KeyField::Parts(parts) => parts,
        },
        allowed_hosts: row.key.allowed_hosts,
        current_version: newest.unwrap_or_default(),
        vault_status: row.vault_status,
        checked_at: row.checked_at.and_then(wire_time),
        set: sight.set_of()?("Key", row.key.name.as_str()),
    })
}
