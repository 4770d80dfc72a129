//! Deleting an object: what it placed is removed by a rollout.

use keyfleet_core::token::Role;
use keyfleet_proto::{Invalid, v1};
use keyfleet_store::Tx;

use super::apply::{Applied, Intent, Settling, Undo, prune};
use super::audit::Act;
use super::{Actor, App, preview};
use crate::clock;
use crate::error::Error;

impl App {
    /// Deletes one object, or says what that would change.
    pub(crate) async fn delete_object(
        &self,
        actor: &Actor,
        request: v1::DeleteObjectRequest,
    ) -> Result<v1::DeleteObjectResponse, Error> {
        let intent = Intent::new(request.plan, request.yes);
        actor.must_be(match intent {
            Intent::Plan => Role::Viewer,
            Intent::Apply { .. } => Role::Operator,
        })?;
        let kind = prune::kind_named(&request.kind)
            .ok_or_else(|| Invalid::new("kind", "must be Key, Connector, Placement or Strategy"))?;
        if !request.plan {
            must_say_why(&request.reason)?;
        }
        let (actor, now) = (actor.clone(), clock::now());
        let work = move |tx: &Tx<'_>| -> Result<Applied, Undo> {
            let before = preview::before(tx)?;
            let pruned = prune::delete(tx, &actor, kind, &request.name, now)?;
            Settling {
                actor: &actor,
                intent,
                act: Act {
                    action: "object.delete",
                    target: format!("{} {}", kind.to_ascii_lowercase(), request.name),
                    reason: request.reason,
                    detail: String::new(),
                },
                verb: "deleted",
                before,
                changes: vec![pruned.change],
                warnings: Vec::new(),
                now,
            }
            .run(tx)
        };
        let applied = self.settle(work).await?;
        Ok(v1::DeleteObjectResponse {
            result: Some(applied.result),
            rollout_ids: applied.rollouts.iter().map(ToString::to_string).collect(),
        })
    }
}

/// What takes something away needs a reason.
pub(crate) fn must_say_why(reason: &str) -> Result<(), Invalid> {
    if reason.trim().is_empty() {
        return Err(Invalid::new(
            "reason",
            "is missing: say why, for the audit log",
        ));
    }
    Ok(())
}
