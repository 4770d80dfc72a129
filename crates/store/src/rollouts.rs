//! Rollouts: frozen strategy, targets and bindings, and where each run stands.

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingId, Failure};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{DeploymentId, RolloutId};
use keyfleet_core::rollout::{Approved, GateState, Phase, Run, Strategy, Verdict};
use rusqlite::{Row, params};

use crate::bindings::{read_failure, read_id};
use crate::rows::{assignment, columns, known, nanos, parse, time, time_opt};
use crate::strategies::{read_strategy, strategy_json};
use crate::{Error, Tx};

const TABLE: &str = "rollouts";
const COLUMNS: &str = "id, strategy, spec, cause, actor, phase, reason, wave, wave_started_at, \
                       started_at, ended_at, fast_forward, paused_at, rollback_reason";

/// One rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Its id.
    pub id: RolloutId,
    /// The strategy as it was at the start.
    pub strategy: Strategy,
    /// What started it, in words.
    pub cause: String,
    /// Who.
    pub actor: String,
    /// Where it stands.
    pub run: Run,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// A deployment of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutTarget {
    /// Which.
    pub deployment: DeploymentId,
    /// Index of its wave.
    pub wave: usize,
    /// When the change was offered to it.
    pub offered_at: Option<Timestamp>,
    /// When it was told to go back.
    pub rollback_at: Option<Timestamp>,
    /// Its failure so far is forgiven.
    pub forgiven: bool,
    /// It no longer belongs to what the rollout is for.
    pub left: bool,
    /// What had failed when it was told to go back.
    pub failure: Option<Failure>,
}

/// A binding of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutBinding {
    /// Which.
    pub id: BindingId,
    /// What it last proved before the run; `None` = there was nothing.
    pub from: Option<Assignment>,
    /// What the run brings; `None` = removal.
    pub to: Option<Assignment>,
    /// How it had failed when it was told to go back.
    pub failure: Option<FailureClass>,
}

impl Tx<'_> {
    /// Every rollout, the newest first; at most `limit`.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn rollouts(&self, limit: u32) -> Result<Vec<Rollout>, Error> {
        self.rollouts_where(
            &format!("1 = 1 ORDER BY started_at DESC, id DESC LIMIT {limit}"),
            &[],
        )
    }

    /// The rollouts that have not ended, the oldest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn active_rollouts(&self) -> Result<Vec<Rollout>, Error> {
        self.rollouts_where("active = 1 ORDER BY started_at, id", &[])
    }

    /// The rollouts whose id begins so; more than one = ambiguous.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn rollouts_with_prefix(&self, prefix: &str) -> Result<Vec<Rollout>, Error> {
        self.rollouts_where(
            "substr(id, 1, length(?1)) = ?1 ORDER BY id LIMIT 2",
            &[&prefix],
        )
    }

    fn rollouts_where(
        &self,
        condition: &str,
        params: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<Rollout>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM rollouts WHERE {condition}");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query(params)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(self.read(row)?);
        }
        Ok(all)
    }

    fn read(&self, row: &Row<'_>) -> Result<Rollout, Error> {
        let mut rollout = read(row)?;
        let id = rollout.id.to_string();
        rollout.run.approvals = self.approvals(&id)?;
        rollout.run.gates = self.gates(&id)?;
        Ok(rollout)
    }

    /// Stores a new rollout with everything that is frozen in it.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn insert_rollout(
        &self,
        rollout: &Rollout,
        targets: &[RolloutTarget],
        bindings: &[RolloutBinding],
    ) -> Result<(), Error> {
        let id = rollout.id.to_string();
        self.0
            .prepare_cached(
                "INSERT INTO rollouts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            )?
            .execute(params![
                id,
                rollout.strategy.name.as_str(),
                strategy_json(&rollout.strategy)?,
                rollout.cause,
                rollout.actor,
                rollout.run.phase.as_str(),
                !rollout.run.phase.is_terminal(),
                rollout.run.hold_reason,
                rollout.run.wave,
                nanos(rollout.run.wave_started_at),
                nanos(rollout.started_at),
                rollout.ended_at.map(nanos),
                rollout.run.fast_forward,
                rollout.run.paused_at.map(nanos),
                rollout.run.rollback_reason,
            ])?;
        self.put_gates(rollout.id, &rollout.run.gates)?;
        for approved in &rollout.run.approvals {
            self.approve_rollout(rollout.id, approved, rollout.started_at)?;
        }
        for target in targets {
            self.put_rollout_target(rollout.id, target)?;
        }
        let mut insert = self.0.prepare_cached(
            "INSERT INTO rollout_bindings VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        for binding in bindings {
            let (from_revision, from_version) = columns(binding.from);
            let (to_revision, to_version) = columns(binding.to);
            insert.execute(params![
                id,
                binding.id.deployment.to_string(),
                binding.id.space.as_str(),
                binding.id.connector.as_str(),
                from_revision,
                from_version,
                to_revision,
                to_version,
                binding.failure.map(FailureClass::as_str),
            ])?;
        }
        Ok(())
    }

    /// Takes a binding out of a rollout that never told it anything.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn delete_rollout_binding(&self, id: RolloutId, binding: &BindingId) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "DELETE FROM rollout_bindings WHERE rollout = ?1
                 AND deployment = ?2 AND space = ?3 AND connector = ?4",
            )?
            .execute(params![
                id.to_string(),
                binding.deployment.to_string(),
                binding.space.as_str(),
                binding.connector.as_str(),
            ])?;
        Ok(())
    }

    /// Notes how a binding had failed when it was told to go back.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn blame(
        &self,
        id: RolloutId,
        binding: &BindingId,
        class: FailureClass,
    ) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "UPDATE rollout_bindings SET failure_class = ?5 WHERE rollout = ?1
                 AND deployment = ?2 AND space = ?3 AND connector = ?4",
            )?
            .execute(params![
                id.to_string(),
                binding.deployment.to_string(),
                binding.space.as_str(),
                binding.connector.as_str(),
                class.as_str(),
            ])?;
        Ok(())
    }

    /// Stores where a rollout stands now.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn set_run(
        &self,
        id: RolloutId,
        run: &Run,
        ended_at: Option<Timestamp>,
    ) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "UPDATE rollouts SET phase = ?2, active = ?3, reason = ?4, wave = ?5,
                 wave_started_at = ?6, ended_at = ?7, fast_forward = ?8, paused_at = ?9,
                 rollback_reason = ?10 WHERE id = ?1",
            )?
            .execute(params![
                id.to_string(),
                run.phase.as_str(),
                !run.phase.is_terminal(),
                run.hold_reason,
                run.wave,
                nanos(run.wave_started_at),
                ended_at.map(nanos),
                run.fast_forward,
                run.paused_at.map(nanos),
                run.rollback_reason,
            ])?;
        self.put_gates(id, &run.gates)
    }

    /// Notes that somebody agrees with a wave; said twice it stands once.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn approve_rollout(
        &self,
        id: RolloutId,
        approved: &Approved,
        at: Timestamp,
    ) -> Result<(), Error> {
        self.0
            .prepare_cached("INSERT OR IGNORE INTO rollout_approvals VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![
                id.to_string(),
                approved.wave,
                approved.principal,
                nanos(at)
            ])?;
        Ok(())
    }

    fn approvals(&self, id: &str) -> Result<Vec<Approved>, Error> {
        let mut statement = self.0.prepare_cached(
            "SELECT wave, principal FROM rollout_approvals WHERE rollout = ?1 ORDER BY wave, at, principal",
        )?;
        let mut rows = statement.query([id])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(Approved {
                wave: row.get(0)?,
                principal: row.get(1)?,
            });
        }
        Ok(all)
    }

    /// Stores where the gates of a rollout stand, in the place of what was known.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn put_gates(&self, id: RolloutId, gates: &[GateState]) -> Result<(), Error> {
        let id = id.to_string();
        self.0
            .prepare_cached("DELETE FROM rollout_gates WHERE rollout = ?1")?
            .execute([&id])?;
        let mut insert = self
            .0
            .prepare_cached("INSERT INTO rollout_gates VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        for gate in gates {
            insert.execute(params![
                id,
                gate.name,
                gate.verdict.as_str(),
                gate.streak,
                nanos(gate.at),
                gate.text,
            ])?;
        }
        Ok(())
    }

    fn gates(&self, id: &str) -> Result<Vec<GateState>, Error> {
        const TABLE: &str = "rollout_gates";
        let mut statement = self.0.prepare_cached(
            "SELECT name, verdict, streak, at, text FROM rollout_gates WHERE rollout = ?1 ORDER BY name",
        )?;
        let mut rows = statement.query([id])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let verdict: String = row.get(1)?;
            all.push(GateState {
                name: row.get(0)?,
                verdict: known(TABLE, &verdict, Verdict::parse(&verdict))?,
                streak: row.get(2)?,
                at: time(TABLE, row.get(3)?)?,
                text: row.get(4)?,
            });
        }
        Ok(all)
    }

    /// The deployments of a rollout, in order of their ids.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn rollout_targets(&self, id: RolloutId) -> Result<Vec<RolloutTarget>, Error> {
        let mut statement = self.0.prepare_cached(
            "SELECT deployment, wave, offered_at, rollback_at, forgiven, failure_class, text, gone
             FROM rollout_targets WHERE rollout = ?1 ORDER BY deployment",
        )?;
        let mut rows = statement.query([id.to_string()])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(RolloutTarget {
                deployment: parse("rollout_targets", &row.get::<_, String>(0)?)?,
                wave: row.get(1)?,
                offered_at: time_opt("rollout_targets", row.get(2)?)?,
                rollback_at: time_opt("rollout_targets", row.get(3)?)?,
                forgiven: row.get(4)?,
                failure: read_failure("rollout_targets", row, 5)?,
                left: row.get(7)?,
            });
        }
        Ok(all)
    }

    /// Stores a target, new or changed.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn put_rollout_target(&self, id: RolloutId, target: &RolloutTarget) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "INSERT OR REPLACE INTO rollout_targets VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                id.to_string(),
                target.deployment.to_string(),
                target.wave,
                target.offered_at.map(nanos),
                target.rollback_at.map(nanos),
                target.forgiven,
                target
                    .failure
                    .as_ref()
                    .map(|failure| failure.class.as_str()),
                target
                    .failure
                    .as_ref()
                    .map_or("", |failure| failure.text.as_str()),
                target.left,
            ])?;
        Ok(())
    }

    /// The bindings of a rollout with what it changes.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn rollout_bindings(&self, id: RolloutId) -> Result<Vec<RolloutBinding>, Error> {
        let mut statement = self.0.prepare_cached(
            "SELECT deployment, space, connector, from_revision, from_key_version, to_revision,
             to_key_version, failure_class FROM rollout_bindings WHERE rollout = ?1
             ORDER BY deployment, space, connector",
        )?;
        let mut rows = statement.query([id.to_string()])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let class: Option<String> = row.get(7)?;
            let class =
                class.map(|word| known("rollout_bindings", &word, FailureClass::parse(&word)));
            all.push(RolloutBinding {
                id: read_id("rollout_bindings", row, 0)?,
                from: assignment(row.get(3)?, row.get(4)?),
                to: assignment(row.get(5)?, row.get(6)?),
                failure: class.transpose()?,
            });
        }
        Ok(all)
    }
}

fn read(row: &Row<'_>) -> Result<Rollout, Error> {
    let phase: String = row.get(5)?;
    let name = parse(TABLE, &row.get::<_, String>(1)?)?;
    Ok(Rollout {
        id: parse(TABLE, &row.get::<_, String>(0)?)?,
        strategy: read_strategy(name, &row.get::<_, String>(2)?)?,
        cause: row.get(3)?,
        actor: row.get(4)?,
        run: Run {
            phase: known(TABLE, &phase, Phase::parse(&phase))?,
            hold_reason: row.get(6)?,
            wave: row.get(7)?,
            wave_started_at: time(TABLE, row.get(8)?)?,
            author: row.get(4)?,
            approvals: Vec::new(),
            fast_forward: row.get(11)?,
            paused_at: time_opt(TABLE, row.get(12)?)?,
            rollback_reason: row.get(13)?,
            gates: Vec::new(),
        },
        started_at: time(TABLE, row.get(9)?)?,
        ended_at: time_opt(TABLE, row.get(10)?)?,
    })
}
