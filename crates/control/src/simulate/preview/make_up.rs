//! Made-up deployments: a fleet of any size that has nothing yet, in the place of the real one.

use std::collections::BTreeMap;

use keyfleet_core::Timestamp;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::DeploymentId;
use keyfleet_core::rollout::Phase;
use keyfleet_proto::Invalid;
use keyfleet_store::Tx;

use crate::app::start::refresh_goals;
use crate::error::Error;
use crate::simulate::fleet::made_up;

/// The largest made-up fleet: the most that one control serves.
pub(crate) const DEPLOYMENTS_MAX: u32 = 20_000;

/// Takes the place of the deployments with `n` made-up ones that have nothing yet.
///
/// # Errors
/// Where the database fails, or a label cannot be one.
pub(crate) fn make_up(
    tx: &Tx<'_>,
    n: u32,
    labels: &BTreeMap<String, Vec<String>>,
    seed: u64,
    now: Timestamp,
) -> Result<(), Error> {
    if n > DEPLOYMENTS_MAX {
        let problem = format!("is {n}, and at most {DEPLOYMENTS_MAX} are tried");
        return Err(Invalid::new("deployments", problem).into());
    }
    for mut rollout in tx.active_rollouts()? {
        rollout.run.phase = Phase::Aborted;
        tx.set_run(rollout.id, &rollout.run, Some(now))?;
    }
    for row in tx.deployments()? {
        tx.remove_deployment(row.id, "preview", now)?;
    }
    for number in 0..n {
        let index = usize::try_from(number).unwrap_or_default();
        let own = labels.iter().filter_map(|(key, values)| {
            let value = values.get(index % values.len().max(1))?;
            Some((key.clone(), value.clone()))
        });
        let own: Labels = own.collect();
        let id = u128::from(seed) << 64 | u128::from(number + 1);
        let id = DeploymentId::new(uuid::Uuid::from_u128(id));
        let name = format!("sim-{:04}", number + 1);
        tx.insert_deployment(&made_up(id, &name, own, now)?)?;
    }
    refresh_goals(tx, now)?;
    Ok(())
}
