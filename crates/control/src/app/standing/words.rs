//! What there is to say of a deployment whose agent is not trusted, and of the keys that it was ever sent.

use keyfleet_core::id::DeploymentId;
use keyfleet_core::standing::Standing;
use keyfleet_proto::v1;
use keyfleet_store::{Deployment, Tx};

use crate::error::Error;

/// Why a deployment gets nothing, and what lets it go on; `None` = it is trusted.
pub(crate) fn sentence(row: &Deployment) -> Option<String> {
    let (reason, name) = (&row.standing_reason, &row.name);
    match row.standing {
        Standing::Active => None,
        Standing::Suspended => Some(format!(
            "{reason}; `keyfleet deployment resume {name}` gives it keys and changes again"
        )),
        Standing::Cloned => Some(format!(
            "{reason}; neither gets keys or changes: `keyfleet deployment resume {name}` if it was a false alarm, such as a host restored from a snapshot, else `keyfleet deployment replace {name}`"
        )),
        Standing::Revoked => Some(format!(
            "{reason}; `keyfleet deployment replace {name}` makes a join token for a new agent"
        )),
    }
}

/// As [`sentence`], for whoever is refused because of it.
pub(crate) fn refusal(row: &Deployment) -> String {
    let why = sentence(row).unwrap_or_else(|| "active".to_owned());
    format!("deployment {} is {}: {why}", row.name, row.standing)
}

/// Every key version that a deployment was ever sent.
pub(super) fn held(tx: &Tx<'_>, id: DeploymentId) -> Result<Vec<v1::HeldKey>, Error> {
    let mut all = Vec::new();
    for held in tx.held_by(id)? {
        let versions = tx.key_versions(&held.key)?;
        let known = versions.into_iter().find(|row| row.version == held.version);
        let state = known.as_ref().map(|row| v1::KeyState::from(row.state));
        let known = known.as_ref();
        all.push(v1::HeldKey {
            key: held.key.to_string(),
            version: held.version.0,
            state: state.unwrap_or_default().into(),
            fingerprint: known.map(|row| row.fingerprint.clone()).unwrap_or_default(),
            shown: known.map(|row| row.shown.clone()).unwrap_or_default(),
            open: held.open,
        });
    }
    Ok(all)
}
