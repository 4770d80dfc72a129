//! Key rotation campaigns: the rows that the core is asked about, and what follows from its answers.
//!
//! [`step`] takes the campaigns as far as they go, in one transaction and without asking anybody; [`trial`] asks the
//! provider about versions; [`verbs`] is what operators may say.

pub(crate) mod found;
pub(crate) mod step;
pub(crate) mod trial;
pub(crate) mod verbs;

use std::collections::BTreeSet;

use keyfleet_core::Timestamp;
use keyfleet_core::campaign::{Campaign, Course, Event, State};
use keyfleet_core::id::{CampaignId, KeyName, KeyVersion};
use keyfleet_core::key::{KeyState, goal_version};
use keyfleet_store::{CampaignRow, CampaignStep, KeyVersionRow, Tx};

use super::KEYFLEET;
use super::start::{refresh_goals, start_rollouts};
use crate::error::Error;
use step::happen;

/// The version that bindings are to have now.
pub(crate) fn goal_of(tx: &Tx<'_>, key: &KeyName) -> Result<Option<KeyVersion>, Error> {
    let versions: Vec<_> = tx
        .key_versions(key)?
        .iter()
        .filter(|row| row.released)
        .map(|row| (row.version, row.state))
        .collect();
    Ok(goal_version(&versions))
}

/// A version was seen that nobody knew. The first of a Key goes to the fleet; each later one is a campaign's.
pub(crate) fn version_found(
    tx: &Tx<'_>,
    key: &KeyName,
    row: &KeyVersionRow,
    now: Timestamp,
) -> Result<(), Error> {
    if store_version(tx, key, row, now)? {
        let goals = refresh_goals(tx, now)?;
        let cause = found_in_vault(key, row.version);
        start_rollouts(tx, &goals.spread(), &cause, KEYFLEET, now)?;
    }
    Ok(())
}

/// Why a version is rolled out.
fn found_in_vault(key: &KeyName, version: KeyVersion) -> String {
    format!("key {key} has version {} in Vault", version.0)
}

/// Stores a version that nobody knew; true where it is the first of its Key, which no campaign brings.
pub(crate) fn store_version(
    tx: &Tx<'_>,
    key: &KeyName,
    row: &KeyVersionRow,
    now: Timestamp,
) -> Result<bool, Error> {
    let version = row.version;
    let is_first = goal_of(tx, key)?.is_none() && of_key(tx, key)?.is_empty();
    let row = KeyVersionRow {
        released: is_first,
        ..row.clone()
    };
    tx.insert_key_version(key, &row)?;
    if is_first {
        return Ok(true);
    }
    for mut open in of_key(tx, key)? {
        if take_over(tx, &mut open, version, now)? {
            return Ok(false);
        }
    }
    let cause = found_in_vault(key, version);
    let beginning = Beginning {
        new: Some(version),
        course: Course::Forward,
        cause: &cause,
        actor: KEYFLEET,
    };
    begin(tx, key, &beginning, now)?;
    Ok(false)
}

/// Gives a newer version to a campaign of its Key; false where that campaign goes on without it.
fn take_over(
    tx: &Tx<'_>,
    row: &mut CampaignRow,
    version: KeyVersion,
    now: Timestamp,
) -> Result<bool, Error> {
    let campaign = &row.campaign;
    // Whoever waits for a version finds it.
    if campaign.state == State::Minting || campaign.new.is_some_and(|new| new >= version) {
        return Ok(true);
    }
    let may = campaign
        .state
        .next(campaign.course, campaign.stopped, Event::Overtaken);
    if may.is_err() {
        return Ok(false);
    }
    if let Some(before) = campaign.new {
        let known = tx.key_versions(&row.key)?;
        let was_held_back = known.iter().any(|it| it.version == before && !it.released);
        if was_held_back {
            tx.set_key_state(&row.key, before, KeyState::Abandoned)?;
        }
    }
    let was_proven = row.converged_at.take().is_some();
    row.campaign.overtake(version, was_proven);
    tx.forget_campaign_approvals(row.id)?;
    let why = format!("version {} is in Vault and takes over", version.0);
    happen(tx, row, Event::Overtaken, &why, KEYFLEET, now)?;
    Ok(true)
}

/// The campaigns of a Key that have not ended, the oldest first.
pub(crate) fn of_key(tx: &Tx<'_>, key: &KeyName) -> Result<Vec<CampaignRow>, Error> {
    let mut rows = tx.active_campaigns()?;
    rows.retain(|row| row.key == *key);
    Ok(rows)
}

/// How a campaign begins.
pub(crate) struct Beginning<'a> {
    /// What it brings; `None` = it is not there yet.
    pub(crate) new: Option<KeyVersion>,
    pub(crate) course: Course,
    /// Why, in words.
    pub(crate) cause: &'a str,
    /// Who.
    pub(crate) actor: &'a str,
}

/// Stores a new campaign.
pub(crate) fn begin(
    tx: &Tx<'_>,
    key: &KeyName,
    beginning: &Beginning<'_>,
    now: Timestamp,
) -> Result<CampaignRow, Error> {
    let Beginning {
        new,
        course,
        cause,
        actor,
    } = *beginning;
    let stored = tx.keys()?.into_iter().find(|row| row.key.name == *key);
    let rotation = stored.map(|row| row.key.rotation).unwrap_or_default();
    let row = CampaignRow {
        id: new_id(tx, now)?,
        key: key.clone(),
        cause: cause.to_owned(),
        actor: actor.to_owned(),
        rotation,
        campaign: Campaign {
            state: State::Planned,
            stopped: None,
            course,
            old: goal_of(tx, key)?.filter(|old| Some(*old) != new),
            new,
            overtaken: BTreeSet::new(),
            reason: String::new(),
        },
        state_since: now,
        converged_at: None,
        started_at: now,
        ended_at: None,
    };
    tx.put_campaign(&row)?;
    note(tx, &row, actor, cause, now)?;
    Ok(row)
}

/// Adds to its path.
fn note(
    tx: &Tx<'_>,
    row: &CampaignRow,
    actor: &str,
    text: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let step = CampaignStep {
        at: now,
        actor: actor.to_owned(),
        state: row.campaign.state,
        text: text.to_owned(),
    };
    Ok(tx.add_campaign_step(row.id, &step)?)
}

/// As a rollout's: it follows from the moment and from how many began in it, so that a simulation gives the same again.
fn new_id(tx: &Tx<'_>, now: Timestamp) -> Result<CampaignId, Error> {
    for n in 0..=u16::MAX {
        let id = CampaignId::new(super::start::time_ordered("campaign", n, now));
        if tx.campaigns_with_prefix(&id.to_string())?.is_empty() {
            return Ok(id);
        }
    }
    Ok(CampaignId::new(uuid::Uuid::now_v7()))
}
