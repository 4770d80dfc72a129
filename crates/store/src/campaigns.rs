//! Campaigns: what each is up to, where it stands, the path it took, and who agreed.

use std::collections::BTreeSet;

use keyfleet_core::Timestamp;
use keyfleet_core::campaign::{Campaign, Course, State};
use keyfleet_core::id::{CampaignId, KeyName, KeyVersion};
use keyfleet_core::key::Rotation;
use rusqlite::{Row, params};

use crate::keys::RotationRow;
use crate::rows::{from_json, known, nanos, parse, time, time_opt, to_json};
use crate::{Error, Tx};

const TABLE: &str = "campaigns";
const COLUMNS: &str = "id, key, cause, actor, rotation, state, stopped, course, old, new, overtaken, reason, \
                       state_since, converged_at, started_at, ended_at";

/// One campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignRow {
    /// Its id.
    pub id: CampaignId,
    /// Whose Key.
    pub key: KeyName,
    /// What started it, in words.
    pub cause: String,
    /// Who.
    pub actor: String,
    /// The rules of the Key as they were at the start.
    pub rotation: Rotation,
    /// Where it stands.
    pub campaign: Campaign,
    /// Since when it is in its state.
    pub state_since: Timestamp,
    /// When everybody in reach had proven what it brings.
    pub converged_at: Option<Timestamp>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// One step of a campaign's path: it came to a state, or somebody spoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignStep {
    /// When.
    pub at: Timestamp,
    /// A principal, or `keyfleet`.
    pub actor: String,
    /// Where it was after that.
    pub state: State,
    /// What happened, in a sentence.
    pub text: String,
}

impl Tx<'_> {
    /// Every campaign, the newest first; at most `limit`.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn campaigns(&self, limit: u32) -> Result<Vec<CampaignRow>, Error> {
        self.campaigns_where(
            &format!("1 = 1 ORDER BY started_at DESC, id DESC LIMIT {limit}"),
            &[],
        )
    }

    /// The campaigns that have not ended, the oldest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn active_campaigns(&self) -> Result<Vec<CampaignRow>, Error> {
        self.campaigns_where("active = 1 ORDER BY started_at, id", &[])
    }

    /// The campaigns whose id begins so; more than one = ambiguous.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn campaigns_with_prefix(&self, prefix: &str) -> Result<Vec<CampaignRow>, Error> {
        self.campaigns_where(
            "substr(id, 1, length(?1)) = ?1 ORDER BY id LIMIT 2",
            &[&prefix],
        )
    }

    fn campaigns_where(
        &self,
        condition: &str,
        params: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<CampaignRow>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM campaigns WHERE {condition}");
        let mut statement = self.0.prepare_cached(&sql)?;
        let mut rows = statement.query(params)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read(row)?);
        }
        Ok(all)
    }

    /// Stores a campaign, new or changed.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn put_campaign(&self, row: &CampaignRow) -> Result<(), Error> {
        let campaign = &row.campaign;
        let overtaken: Vec<u64> = campaign.overtaken.iter().map(|v| v.0).collect();
        self.0
            .prepare_cached(
                "INSERT INTO campaigns VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
                 ON CONFLICT (id) DO UPDATE SET state = ?6, active = ?7, stopped = ?8, course = ?9, old = ?10, new = ?11,
                 overtaken = ?12, reason = ?13, state_since = ?14, converged_at = ?15, ended_at = ?17",
            )?
            .execute(params![
                row.id.to_string(),
                row.key.as_str(),
                row.cause,
                row.actor,
                to_json(TABLE, &RotationRow::from(&row.rotation))?,
                campaign.state.as_str(),
                !campaign.state.is_terminal(),
                campaign.stopped.map(State::as_str),
                campaign.course.as_str(),
                campaign.old.map(|v| v.0),
                campaign.new.map(|v| v.0),
                to_json(TABLE, &overtaken)?,
                campaign.reason,
                nanos(row.state_since),
                row.converged_at.map(nanos),
                nanos(row.started_at),
                row.ended_at.map(nanos),
            ])?;
        Ok(())
    }

    /// Adds to the path of a campaign.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn add_campaign_step(&self, id: CampaignId, step: &CampaignStep) -> Result<(), Error> {
        self.0
            .prepare_cached(
                "INSERT INTO campaign_steps SELECT ?1, count(*) + 1, ?2, ?3, ?4, ?5
                 FROM campaign_steps WHERE campaign = ?1",
            )?
            .execute(params![
                id.to_string(),
                nanos(step.at),
                step.actor,
                step.state.as_str(),
                step.text,
            ])?;
        Ok(())
    }

    /// The path of a campaign, the oldest step first.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn campaign_steps(&self, id: CampaignId) -> Result<Vec<CampaignStep>, Error> {
        let mut statement = self.0.prepare_cached(
            "SELECT at, actor, state, text FROM campaign_steps WHERE campaign = ?1 ORDER BY number",
        )?;
        let mut rows = statement.query([id.to_string()])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let state: String = row.get(2)?;
            all.push(CampaignStep {
                at: time("campaign_steps", row.get(0)?)?,
                actor: row.get(1)?,
                state: known("campaign_steps", &state, State::parse(&state))?,
                text: row.get(3)?,
            });
        }
        Ok(all)
    }

    /// Notes that somebody agrees with a campaign's revocation; false where that was known.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn approve_campaign(
        &self,
        id: CampaignId,
        principal: &str,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let added = self
            .0
            .prepare_cached("INSERT OR IGNORE INTO campaign_approvals VALUES (?1, ?2, ?3)")?
            .execute(params![id.to_string(), principal, nanos(now)])?;
        Ok(added > 0)
    }

    /// Forgets who agreed: it is about other versions now.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn forget_campaign_approvals(&self, id: CampaignId) -> Result<(), Error> {
        self.0
            .prepare_cached("DELETE FROM campaign_approvals WHERE campaign = ?1")?
            .execute([id.to_string()])?;
        Ok(())
    }

    /// Who agreed with a campaign's revocation, the first first.
    ///
    /// # Errors
    /// Where the database fails.
    pub fn campaign_approvals(&self, id: CampaignId) -> Result<Vec<String>, Error> {
        let mut statement = self.0.prepare_cached(
            "SELECT principal FROM campaign_approvals WHERE campaign = ?1 ORDER BY at, principal",
        )?;
        let principals = statement.query_map([id.to_string()], |row| row.get(0))?;
        Ok(principals.collect::<Result<_, _>>()?)
    }
}

fn read(row: &Row<'_>) -> Result<CampaignRow, Error> {
    let (state, stopped, course): (String, Option<String>, String) =
        (row.get(5)?, row.get(6)?, row.get(7)?);
    let stopped = stopped.map(|text| known(TABLE, &text, State::parse(&text)));
    let overtaken: Vec<u64> = from_json(TABLE, &row.get::<_, String>(10)?)?;
    let rotation: RotationRow = from_json(TABLE, &row.get::<_, String>(4)?)?;
    Ok(CampaignRow {
        id: parse(TABLE, &row.get::<_, String>(0)?)?,
        key: parse(TABLE, &row.get::<_, String>(1)?)?,
        cause: row.get(2)?,
        actor: row.get(3)?,
        rotation: rotation.into(),
        campaign: Campaign {
            state: known(TABLE, &state, State::parse(&state))?,
            stopped: stopped.transpose()?,
            course: known(TABLE, &course, Course::parse(&course))?,
            old: row.get::<_, Option<u64>>(8)?.map(KeyVersion),
            new: row.get::<_, Option<u64>>(9)?.map(KeyVersion),
            overtaken: overtaken
                .into_iter()
                .map(KeyVersion)
                .collect::<BTreeSet<_>>(),
            reason: row.get(11)?,
        },
        state_since: time(TABLE, row.get(12)?)?,
        converged_at: time_opt(TABLE, row.get(13)?)?,
        started_at: time(TABLE, row.get(14)?)?,
        ended_at: time_opt(TABLE, row.get(15)?)?,
    })
}
