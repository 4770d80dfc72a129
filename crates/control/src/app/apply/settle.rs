//! The second half of every change of what operators want: goals, rollouts, what the operator sees, and the records.

use std::collections::BTreeSet;

use keyfleet_core::Timestamp;
use keyfleet_core::goal::BINDINGS_MAX;
use keyfleet_core::id::{DeploymentId, RolloutId};
use keyfleet_proto::v1;
use keyfleet_store::{Binding, Event, EventScope, Tx};

use super::{Intent, reach};
use crate::app::audit::{Act, record};
use crate::app::conflict::conflicts;
use crate::app::preview::{self, Before, Change};
use crate::app::start::{GoalChanges, refresh_goals, start_rollouts};
use crate::app::{Actor, App};
use crate::error::Error;

/// Most names that a sentence of the history or of the audit log lists.
const NAMED_MAX: usize = 50;

/// What came of a change.
pub(crate) struct Applied {
    pub(crate) result: v1::PlanResult,
    pub(crate) rollouts: Vec<RolloutId>,
}

/// Why the transaction was undone.
pub(crate) enum Undo {
    Because(Error),
    OnlyPlanned(Box<v1::PlanResult>),
}

impl From<keyfleet_store::Error> for Undo {
    fn from(err: keyfleet_store::Error) -> Self {
        Self::Because(err.into())
    }
}

impl From<Error> for Undo {
    fn from(err: Error) -> Self {
        Self::Because(err)
    }
}

/// A change whose objects are stored.
pub(crate) struct Settling<'a> {
    pub(crate) actor: &'a Actor,
    pub(crate) intent: Intent,
    /// For the audit log; what changed becomes its detail.
    pub(crate) act: Act,
    /// What the actor did to the objects, in the history and as the cause of rollouts.
    pub(crate) verb: &'static str,
    pub(crate) before: Before,
    pub(crate) changes: Vec<Change>,
    pub(crate) warnings: Vec<String>,
    pub(crate) now: Timestamp,
}

impl App {
    /// Runs a change in one transaction; a plan's is undone. Sessions look again, for what of it reaches an agent
    /// without a rollout: drift policies, allowed hosts, scopes and labels.
    pub(crate) async fn settle(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<Applied, Undo> + Send + 'static,
    ) -> Result<Applied, Error> {
        match self.store.write(work).await {
            Ok(applied) => {
                self.changed();
                self.sessions.notify(&self.sessions.online());
                Ok(applied)
            }
            Err(Undo::OnlyPlanned(result)) => Ok(Applied {
                result: *result,
                rollouts: Vec::new(),
            }),
            Err(Undo::Because(err)) => Err(err),
        }
    }
}

impl Settling<'_> {
    /// Works out the goals, starts the rollouts, and writes down who did it.
    pub(crate) fn run(mut self, tx: &Tx<'_>) -> Result<Applied, Undo> {
        let under_way = tx.active_rollouts()?;
        let goals = refresh_goals(tx, self.now)?;
        let names = self.names();
        let cause = format!("{} {} {names}", self.actor.principal, self.verb);
        let started = start_rollouts(tx, &goals.spread(), &cause, &self.actor.principal, self.now)?;
        reach::may_touch(tx, self.actor, &goals, &started)?;
        not_too_many(tx, &goals, &self.changes)?;
        let changes = std::mem::take(&mut self.changes);
        let is_change = changes.iter().any(Change::is_change);
        let mut result = preview::result(tx, changes, &self.before, &started, &self.actor.scope)?;
        result.warnings.append(&mut self.warnings);
        result.conflicts = conflicts(tx, under_way, &goals, &self.actor.scope)?;
        match self.intent {
            Intent::Plan => return Err(Undo::OnlyPlanned(Box::new(result))),
            Intent::Apply { yes: false } if !goals.removed.is_empty() => {
                return Err(Undo::Because(needs_yes(tx, &goals)?));
            }
            Intent::Apply { .. } => agree(tx, &goals)?,
        }
        if is_change {
            self.write_down(tx, &names)?;
        }
        Ok(Applied {
            result,
            rollouts: started,
        })
    }

    fn write_down(self, tx: &Tx<'_>, names: &str) -> Result<(), Error> {
        let event = Event {
            at: self.now,
            actor: self.actor.principal.clone(),
            text: format!("{} {names}", self.verb),
        };
        tx.add_event(EventScope::Service, &event)?;
        let act = Act {
            detail: names.to_owned(),
            ..self.act
        };
        record(tx, self.actor, act, self.now)
    }

    /// The changed objects, for people.
    fn names(&self) -> String {
        let changed = || self.changes.iter().filter(|change| change.is_change());
        let named = changed().take(NAMED_MAX).map(Change::sentence);
        let mut names = named.collect::<Vec<_>>().join(", ");
        let n = changed().count();
        if n > NAMED_MAX {
            names = format!("{names} and {} more", n - NAMED_MAX);
        }
        names
    }
}

fn needs_yes(tx: &Tx<'_>, goals: &GoalChanges) -> Result<Error, Error> {
    let n = goals.removed.len();
    let bindings = if n == 1 { "binding" } else { "bindings" };
    let mut references = 0;
    for id in &goals.removed {
        references += tx.binding(id)?.map_or(0, |binding| binding.references);
    }
    let in_use = match references {
        0 => String::new(),
        1 => ", to which 1 rule or other object refers".to_owned(),
        n => format!(", to which {n} rules or other objects refer"),
    };
    Ok(Error::Precondition(format!(
        "this removes {n} {bindings}{in_use} (see `keyfleet plan`): say --yes to do it"
    )))
}

/// Who says --yes has seen how many rules and others refer to what goes.
fn agree(tx: &Tx<'_>, goals: &GoalChanges) -> Result<(), Error> {
    for id in &goals.removed {
        if let Some(binding) = tx.binding(id)? {
            agree_with_references(tx, binding)?;
        }
    }
    Ok(())
}

/// The connector may go although so many refer to it as were seen last.
pub(in crate::app) fn agree_with_references(tx: &Tx<'_>, binding: Binding) -> Result<(), Error> {
    if binding.references_agreed != binding.references {
        tx.put_binding(&Binding {
            references_agreed: binding.references,
            ..binding
        })?;
    }
    Ok(())
}

/// Refuses what would give a deployment more bindings than it may have. Spaces that appeared by themselves are nobody's
/// doing: only who changes a placement or labels answers for how many a pattern chooses.
fn not_too_many(tx: &Tx<'_>, goals: &GoalChanges, changes: &[Change]) -> Result<(), Error> {
    let touched: BTreeSet<DeploymentId> = goals.changed.iter().map(|id| id.deployment).collect();
    let is_changed = |kind: &str, name: &str| {
        let mut changed = changes.iter().filter(|change| change.is_change());
        changed.any(|change| change.kind == kind && change.name == name)
    };
    for ((id, placement), beyond) in &goals.beyond {
        let name = deployment_name(tx, *id)?;
        let is_own = is_changed("Placement", placement.as_str()) || is_changed("Deployment", &name);
        if is_own {
            return Err(too_many(&name, BINDINGS_MAX + beyond));
        }
    }
    for id in touched {
        let wanted = |b: &Binding| b.goal.is_some() || b.desired.is_none();
        let n = tx.bindings_of(id)?.iter().filter(|b| wanted(b)).count();
        if n > BINDINGS_MAX {
            return Err(too_many(&deployment_name(tx, id)?, n));
        }
    }
    Ok(())
}

fn deployment_name(tx: &Tx<'_>, id: DeploymentId) -> Result<String, Error> {
    let name = tx.deployment(id)?.map(|deployment| deployment.name);
    Ok(name.map_or_else(|| id.to_string(), |name| name.to_string()))
}

fn too_many(deployment: &str, n: usize) -> Error {
    Error::Precondition(format!(
        "deployment {deployment} would have {n} bindings, and one may have {BINDINGS_MAX}: name fewer connectors or spaces"
    ))
}
