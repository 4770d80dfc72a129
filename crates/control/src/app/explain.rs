//! Why a rollout does not advance, in sentences: those that its planner published.

use keyfleet_core::id::DeploymentName;
use keyfleet_proto::{Invalid, v1};
use keyfleet_store::Rollout;

use super::rollout::find;
use super::view::{Sight, explain};
use super::{Actor, App};
use crate::error::Error;

impl App {
    /// Explains a rollout: the run, its waves, and each deployment that is not converged, as far as the caller sees them.
    ///
    /// # Errors
    /// Where the id names no rollout or several, is left out while not exactly one is active, or the deployment has no
    /// part in it.
    pub(crate) async fn explain_rollout(
        &self,
        actor: &Actor,
        call: v1::ExplainRolloutRequest,
    ) -> Result<v1::ExplainRolloutResponse, Error> {
        let named = Some(&call.deployment).filter(|name| !name.is_empty());
        let deployment = named
            .map(|name| Invalid::parse::<DeploymentName>("deployment", name))
            .transpose()?;
        self.view_as(actor, move |sight| {
            let row = match call.id.as_str() {
                "" => only_active(sight)?,
                id => find(sight, id)?,
            };
            explain(sight, row, deployment.as_ref())
        })
        .await
    }
}

/// The rollout that is meant where no id is given.
fn only_active(sight: &Sight<'_>) -> Result<Rollout, Error> {
    let mut active = sight.active_rollouts()?;
    match (active.pop(), active.len()) {
        (Some(rollout), 0) => Ok(rollout),
        (None, _) => Err(Error::Precondition(
            "no rollout is active: name the one to explain".to_owned(),
        )),
        (Some(_), others) => Err(Error::Precondition(format!(
            "{} rollouts are active: name the one to explain",
            others + 1
        ))),
    }
}
