//! Changing the labels of a deployment.
//!
//! An agent's labels are frozen at enrolment, within what its join token allows. Afterwards they belong to the
//! operators. A label that the scope of a Key asks for decides who may have that Key, so that it needs an admin without
//! a scope.

use keyfleet_core::Timestamp;
use keyfleet_core::fleet::Labels;
use keyfleet_core::id::DeploymentName;
use keyfleet_core::token::Role;
use keyfleet_proto::{Invalid, labels, v1};
use keyfleet_store::{Deployment, Event, EventScope, Tx};

use super::apply::{Applied, Intent, Settling, Undo};
use super::audit::Act;
use super::delete::must_say_why;
use super::preview::Change;
use super::{Actor, App, preview};
use crate::clock;
use crate::error::Error;

impl App {
    /// Changes labels, or says what that would change.
    pub(crate) async fn label_deployment(
        &self,
        actor: &Actor,
        request: v1::LabelDeploymentRequest,
    ) -> Result<v1::LabelDeploymentResponse, Error> {
        let intent = Intent::new(request.plan, request.yes);
        actor.must_be(match intent {
            Intent::Plan => Role::Viewer,
            Intent::Apply { .. } => Role::Operator,
        })?;
        let name: DeploymentName = Invalid::parse("name", &request.name)?;
        let set = labels("set", request.set)?;
        if set.is_empty() && request.unset.is_empty() {
            return Err(
                Invalid::new("set", "is empty: name a label to set or to take away").into(),
            );
        }
        if let Some(twice) = request.unset.iter().find(|key| set.contains_key(*key)) {
            let problem = format!("names {twice:?}, which is to be set too");
            return Err(Invalid::new("unset", problem).into());
        }
        if !request.plan {
            must_say_why(&request.reason)?;
        }
        let relabel = Relabel {
            name,
            set,
            unset: request.unset,
            reason: request.reason,
        };
        let (actor, now) = (actor.clone(), clock::now());
        let applied = self
            .settle(move |tx| relabel.run(tx, &actor, intent, now))
            .await?;
        Ok(v1::LabelDeploymentResponse {
            result: Some(applied.result),
            rollout_ids: applied.rollouts.iter().map(ToString::to_string).collect(),
        })
    }
}

/// Labels to set and to take away.
pub(crate) struct Relabel {
    pub(crate) name: DeploymentName,
    pub(crate) set: Labels,
    pub(crate) unset: Vec<String>,
    pub(crate) reason: String,
}

impl Relabel {
    /// Does it, or says what it would change, inside of one transaction.
    pub(crate) fn run(
        self,
        tx: &Tx<'_>,
        actor: &Actor,
        intent: Intent,
        now: Timestamp,
    ) -> Result<Applied, Undo> {
        let before = preview::before(tx)?;
        let missing = || Error::NotFound {
            kind: "deployment",
            name: self.name.to_string(),
        };
        let deployment = tx.deployment_named(&self.name)?.ok_or_else(missing)?;
        let new = self.new_labels(&deployment.labels)?;
        self.may(tx, actor, &deployment, &new)?;
        let change = Change::labels(self.name.as_str(), &deployment.labels, &new);
        if change.is_change() {
            tx.set_labels(deployment.id, &new)?;
            let text = format!("labels are now {}", show(&new));
            let actor = actor.principal.clone();
            tx.add_event(
                EventScope::Deployment(deployment.id),
                &Event {
                    at: now,
                    actor,
                    text,
                },
            )?;
        }
        let warnings = super::apply::warnings_of(tx, deployment.id)?;
        Settling {
            actor,
            intent,
            act: Act {
                action: "deployment.label",
                target: format!("deployment {}", self.name),
                reason: self.reason,
                detail: String::new(),
            },
            verb: "labelled",
            before,
            changes: vec![change],
            warnings,
            now,
        }
        .run(tx)
    }

    /// The labels that it shall have; never more than an agent may claim.
    fn new_labels(&self, old: &Labels) -> Result<Labels, Error> {
        let mut new = old.clone();
        new.retain(|key, _| !self.unset.contains(key));
        new.extend(self.set.clone());
        Ok(labels("set", new)?)
    }

    /// In the caller's scope before and after; and, as for the Key itself, an admin of the whole fleet where the label
    /// decides who may have a Key.
    fn may(
        &self,
        tx: &Tx<'_>,
        actor: &Actor,
        deployment: &Deployment,
        new: &Labels,
    ) -> Result<(), Error> {
        actor.must_reach(&deployment.name, &deployment.labels)?;
        actor.must_reach(&deployment.name, new)?;
        let old = &deployment.labels;
        for row in tx.keys()? {
            let asked = row.key.scope.requirements.iter();
            let decided = asked
                .map(|r| &r.key)
                .find(|key| old.get(*key) != new.get(*key));
            let may = actor.role >= Role::Admin && actor.scope.is_everything();
            if let (Some(label), false) = (decided, may) {
                let (who, key) = (&actor.principal, &row.key.name);
                return Err(Error::Forbidden(format!(
                    "{who} has the role {} for deployments with {}; label {label} decides who may have key {key}, and that needs admin without a scope",
                    actor.role.as_str(),
                    actor.scope
                )));
            }
        }
        Ok(())
    }
}

fn show(labels: &Labels) -> String {
    if labels.is_empty() {
        return "none".to_owned();
    }
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(", ")
}
