//! Bindings: what each shall run (written by control only) and what it was seen to run (reported by its agent).

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingId, BindingState, Failure, Rung};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{ConnectorName, DeploymentId, Generation, PlacementName, RolloutId};
use rusqlite::{Row, params};

use crate::rows::{assignment, columns, known, nanos, parse, time, time_opt};
use crate::{Error, Tx};

const TABLE: &str = "bindings";
const COLUMNS: &str = "deployment, space, connector, placement, goal_revision, goal_key_version, held_by, \
                       desired_revision, desired_key_version, desired_remove, attempt, desired_epoch, \
                       desired_counter, state, state_at, failure_class, text, running_revision, \
                       running_key_version, proven_revision, proven_key_version, proven_at, baseline_ok, \
                       adopted_id, rung, refs, refs_agreed";

/// Starts from the rollout's rows, however many other bindings there are.
const IN_ROLLOUT: &str = "(deployment, space, connector) IN
    (SELECT deployment, space, connector FROM rollout_bindings WHERE rollout = ?1)";

/// One binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Which.
    pub id: BindingId,
    /// The placement it belongs to.
    pub placement: PlacementName,
    /// What it shall have when the rollouts have run; `None` = nothing: it shall be removed.
    pub goal: Option<Assignment>,
    /// The aborted or rolled back rollout that left it without its goal: it waits for a retry or something new.
    pub held_by: Option<RolloutId>,
    /// What its agent is told; `None` = nothing, ever or since a restore.
    pub desired: Option<Desired>,
    /// How far it has come with that.
    pub progress: Progress,
    /// What is known to be on Kibana.
    pub running: Option<Assignment>,
    /// What last proved itself with a live call.
    pub last_proven: Option<Assignment>,
    /// When.
    pub proven_at: Option<Timestamp>,
    /// The id of the connector that was there before us and became ours; `None` = the id follows from the binding.
    pub adopted_id: Option<String>,
    /// How far the last live call came.
    pub rung: Option<Rung>,
    /// Rules and others that refer to the connector, as last seen.
    pub references: u32,
    /// How many of them an operator has agreed with when the connector goes.
    pub references_agreed: u32,
}

/// What an agent is told about a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Desired {
    /// What to run; `None` = remove the connector.
    pub assignment: Option<Assignment>,
    /// Counts the tries of it.
    pub attempt: u32,
    /// The generation of the deployment's desired state that said so first.
    pub generation: Generation,
}

/// How far a binding has come with what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The state.
    pub state: BindingState,
    /// Since when.
    pub at: Timestamp,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Whether the connector worked before the change; `None` = not asked.
    pub baseline_ok: Option<bool>,
}

impl Binding {
    /// The id of its connector in Kibana.
    pub fn connector_id(&self) -> String {
        let own = || self.id.connector_id().as_hyphenated().to_string();
        self.adopted_id.clone().unwrap_or_else(own)
    }

    /// True where no agent was ever told of it: nothing of it can be on a Kibana. What was told before a restore is
    /// forgotten, and its state says so.
    pub fn is_untold(&self) -> bool {
        self.desired.is_none() && self.progress.state == BindingState::Waiting
    }

    /// True where it has been told its goal.
    pub fn is_told_goal(&self) -> bool {
        match (&self.desired, self.goal) {
            (Some(desired), goal) => desired.assignment == goal,
            (None, goal) => goal.is_none() && self.is_untold(),
        }
    }

    /// True where it has been told its goal and has reached it.
    pub fn is_converged(&self) -> bool {
        self.is_told_goal() && self.desired.is_some() && self.progress.state == BindingState::Proven
    }
}

impl Tx<'_> {
    /// Every binding, in order of deployment, space and connector.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn bindings(&self) -> Result<Vec<Binding>, Error> {
        self.bindings_where("1 = 1", &[])
    }

    /// The bindings of one deployment.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn bindings_of(&self, deployment: DeploymentId) -> Result<Vec<Binding>, Error> {
        self.bindings_where("deployment = ?1", &[&deployment.to_string()])
    }

    /// One binding.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn binding(&self, id: &BindingId) -> Result<Option<Binding>, Error> {
        let condition = "deployment = ?1 AND space = ?2 AND connector = ?3";
        let deployment = id.deployment.to_string();
        let params: [&dyn rusqlite::ToSql; 3] =
            [&deployment, &id.space.as_str(), &id.connector.as_str()];
        Ok(self.bindings_where(condition, &params)?.pop())
    }

    /// The bindings of one connector.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn bindings_with(&self, connector: &ConnectorName) -> Result<Vec<Binding>, Error> {
        self.bindings_where("connector = ?1", &[&connector.as_str()])
    }

    /// The bindings of one rollout.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn bindings_in(&self, rollout: RolloutId) -> Result<Vec<Binding>, Error> {
        self.bindings_where(IN_ROLLOUT, &[&rollout.to_string()])
    }

    fn bindings_where(
        &self,
        condition: &str,
        params: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<Binding>, Error> {
        let mut statement = self.0.prepare_cached(&select(condition))?;
        let mut rows = statement.query(params)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read(row)?);
        }
        Ok(all)
    }

    /// Stores a binding, new or changed.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn put_binding(&self, binding: &Binding) -> Result<(), Error> {
        let (goal_revision, goal_version) = columns(binding.goal);
        let told = binding.desired.and_then(|desired| desired.assignment);
        let (desired_revision, desired_version) = columns(told);
        let generation = binding.desired.map(|desired| desired.generation);
        let (running_revision, running_version) = columns(binding.running);
        let (proven_revision, proven_version) = columns(binding.last_proven);
        let failure = binding.progress.failure.as_ref();
        self.0
            .prepare_cached(
                "INSERT OR REPLACE INTO bindings VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,
                 ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27)",
            )?
            .execute(params![
                binding.id.deployment.to_string(),
                binding.id.space.as_str(),
                binding.id.connector.as_str(),
                binding.placement.as_str(),
                goal_revision,
                goal_version,
                binding.held_by.map(|id| id.to_string()),
                desired_revision,
                desired_version,
                binding.desired.is_some_and(|desired| desired.assignment.is_none()),
                binding.desired.map_or(0, |desired| desired.attempt),
                generation.map(|generation| generation.epoch),
                generation.map(|generation| generation.counter),
                binding.progress.state.as_str(),
                nanos(binding.progress.at),
                failure.map(|failure| failure.class.as_str()),
                failure.map_or("", |failure| failure.text.as_str()),
                running_revision,
                running_version,
                proven_revision,
                proven_version,
                binding.proven_at.map(nanos),
                binding.progress.baseline_ok,
                binding.adopted_id,
                binding.rung.map(Rung::as_str),
                binding.references,
                binding.references_agreed,
            ])?;
        Ok(())
    }

    /// Forgets a binding that is confirmed gone and shall stay so.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn delete_binding(&self, id: &BindingId) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "DELETE FROM bindings WHERE deployment = ?1 AND space = ?2 AND connector = ?3",
            )?
            .execute(params![
                id.deployment.to_string(),
                id.space.as_str(),
                id.connector.as_str()
            ])?;
        Ok(())
    }
}

fn select(condition: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM bindings WHERE {condition} ORDER BY deployment, space, connector"
    )
}

pub(crate) fn read_id(
    table: &'static str,
    row: &Row<'_>,
    first: usize,
) -> Result<BindingId, Error> {
    Ok(BindingId {
        deployment: parse(table, &row.get::<_, String>(first)?)?,
        space: parse(table, &row.get::<_, String>(first + 1)?)?,
        connector: parse(table, &row.get::<_, String>(first + 2)?)?,
    })
}

fn read(row: &Row<'_>) -> Result<Binding, Error> {
    let held_by: Option<String> = row.get(6)?;
    Ok(Binding {
        id: read_id(TABLE, row, 0)?,
        placement: parse(TABLE, &row.get::<_, String>(3)?)?,
        goal: assignment(row.get(4)?, row.get(5)?),
        held_by: held_by.map(|id| parse(TABLE, &id)).transpose()?,
        desired: read_desired(row)?,
        progress: read_progress(row)?,
        running: assignment(row.get(17)?, row.get(18)?),
        last_proven: assignment(row.get(19)?, row.get(20)?),
        proven_at: time_opt(TABLE, row.get(21)?)?,
        adopted_id: row.get(23)?,
        rung: read_rung(row)?,
        references: row.get(25)?,
        references_agreed: row.get(26)?,
    })
}

fn read_rung(row: &Row<'_>) -> Result<Option<Rung>, Error> {
    let rung: Option<String> = row.get(24)?;
    rung.map(|rung| known(TABLE, &rung, Rung::parse(&rung)))
        .transpose()
}

fn read_desired(row: &Row<'_>) -> Result<Option<Desired>, Error> {
    let told = assignment(row.get(7)?, row.get(8)?);
    let remove: bool = row.get(9)?;
    let generation = match (row.get(11)?, row.get(12)?) {
        (Some(epoch), Some(counter)) => Generation { epoch, counter },
        _ => return Ok(None),
    };
    if told.is_none() && !remove {
        return Ok(None);
    }
    Ok(Some(Desired {
        assignment: told,
        attempt: row.get(10)?,
        generation,
    }))
}

fn read_progress(row: &Row<'_>) -> Result<Progress, Error> {
    let state: String = row.get(13)?;
    let failure = read_failure(TABLE, row, 15)?;
    Ok(Progress {
        state: known(TABLE, &state, BindingState::parse(&state))?,
        at: time(TABLE, row.get(14)?)?,
        failure,
        baseline_ok: row.get(22)?,
    })
}

/// A failure class and the text in the column after it.
pub(crate) fn read_failure(
    table: &'static str,
    row: &Row<'_>,
    first: usize,
) -> Result<Option<Failure>, Error> {
    let class: Option<String> = row.get(first)?;
    let Some(class) = class else { return Ok(None) };
    let class = known(table, &class, FailureClass::parse(&class))?;
    Ok(Some(Failure {
        class,
        text: row.get(first + 1)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::plan_of;

    #[test]
    fn no_query_of_some_bindings_looks_at_all_of_them() {
        let by_id = "deployment = ?1 AND space = ?2 AND connector = ?3";
        for condition in ["deployment = ?1", by_id, "connector = ?1", IN_ROLLOUT] {
            let plan = plan_of(&select(condition));
            assert!(!plan.contains("SCAN"), "{condition}: {plan}");
        }
    }
}
