//! What the core is asked about a campaign: everything that its next step depends on, read in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::campaign::{Case, Course, Found, State, Trial};
use keyfleet_core::id::{CampaignId, DeploymentId, KeyVersion};
use keyfleet_core::key::KeyState;
use keyfleet_core::rollout::Phase;
use keyfleet_store::{CampaignRow, KeyVersionRow, Rollout, Tx};

use crate::app::ending::key_at;
use crate::app::revoke::Uses;
use crate::app::view::short;
use crate::error::Error;

/// Evidence may always be as old as this when a version is revoked: it takes time to ask everybody.
const EVIDENCE_SECS_LEAST: i64 = 30 * 60;

/// What is known of the moment outside the database.
#[derive(Clone)]
pub(crate) struct Around {
    pub(crate) now: Timestamp,
    pub(crate) online: BTreeSet<DeploymentId>,
    /// What the provider said, of campaigns in the state that they are in.
    pub(crate) trials: BTreeMap<(CampaignId, State, KeyVersion), Trial>,
    /// Live calls per minute, all agents together; 0 = no limit.
    pub(crate) probes_per_minute: u32,
}

/// Reads it.
pub(crate) fn found(tx: &Tx<'_>, row: &CampaignRow, around: &Around) -> Result<Found, Error> {
    let campaign = &row.campaign;
    let versions = tx.key_versions(&row.key)?;
    let others = super::of_key(tx, &row.key)?;
    let first = others.first().filter(|first| first.id != row.id);
    let state_of = |version: KeyVersion| {
        let known = versions.iter().find(|it| it.version == version);
        known.map(|it| it.state)
    };
    let place = tx.keys()?.into_iter().find(|it| it.key.name == row.key);
    let trials = around.trials.iter();
    let trials = trials
        .filter(|((id, state, _), _)| *id == row.id && *state == campaign.state)
        .map(|((_, _, version), trial)| (*version, trial.clone()));
    let mut found = Found {
        is_andon: tx.andon()?.is_some(),
        first: first.map(|first| first.id),
        newest: newest(&versions),
        place: place.map_or_else(String::new, |it| it.key.location.to_string()),
        new_state: campaign.new.and_then(state_of),
        trials: trials.collect(),
        ..Found::default()
    };
    if is_about_the_fleet(campaign.state) {
        look_at_fleet(tx, row, around, &mut found)?;
    }
    Ok(found)
}

const fn is_about_the_fleet(state: State) -> bool {
    match state {
        State::Rolling
        | State::Converged
        | State::Draining
        | State::RevokeReady
        | State::Revoking
        | State::RollingBack => true,
        State::Planned
        | State::Minting
        | State::Validating
        | State::VerifyingDead
        | State::Closed
        | State::Halted
        | State::RolledBack
        | State::Cancelled => false,
    }
}

fn newest(versions: &[KeyVersionRow]) -> Option<KeyVersion> {
    let pending = versions
        .iter()
        .filter(|it| it.readable && it.state == KeyState::Pending);
    pending.map(|it| it.version).max()
}

fn look_at_fleet(
    tx: &Tx<'_>,
    row: &CampaignRow,
    around: &Around,
    found: &mut Found,
) -> Result<(), Error> {
    let campaign = &row.campaign;
    let uses = Uses::load(tx, &row.key, &around.online, around.now)?;
    let lives = campaign.lives();
    found.users = uses.wanted();
    found.proven = uses.proven(lives);
    found.held_up = held_up(tx, row)?;
    let approvals = tx.campaign_approvals(row.id)?.len();
    let rollback_until = row
        .converged_at
        .filter(|_| campaign.course == Course::Forward)
        .map(|at| plus(at, row.rotation.overlap_secs));
    let is_fenced = campaign.state == State::Revoking;
    let ends = matches!(campaign.state, State::RevokeReady | State::Revoking);
    for version in campaign.dying() {
        let case = uses.case(version);
        found.cases.push(Case {
            evidence_secs: ends.then(|| evidence_secs(found.users, around.probes_per_minute)),
            rollback_until,
            approvals: u32::try_from(approvals).unwrap_or(u32::MAX),
            approvals_needed: row.rotation.approvals,
            is_fenced,
            ..case
        });
    }
    Ok(())
}

/// Twice the time that it takes to ask everybody, and half an hour at least (design 8).
fn evidence_secs(users: usize, per_minute: u32) -> i64 {
    let users = i64::try_from(users).unwrap_or(i64::MAX);
    let sweep = match i64::from(per_minute) {
        0 => 0,
        rate => users.saturating_mul(2 * 60) / rate,
    };
    sweep.max(EVIDENCE_SECS_LEAST)
}

fn plus(at: Timestamp, secs: u64) -> Timestamp {
    let secs = i64::try_from(secs).unwrap_or(i64::MAX);
    let end = at.as_second().saturating_add(secs);
    Timestamp::from_second(end).unwrap_or(Timestamp::MAX)
}

/// Why the Key does not go on spreading: rollouts that hold, and bindings that a rollout left behind.
fn held_up(tx: &Tx<'_>, row: &CampaignRow) -> Result<Vec<String>, Error> {
    let mut sentences = Vec::new();
    for rollout in bringing(tx, row)? {
        let phase = rollout.run.phase;
        if !matches!(
            phase,
            Phase::Pending | Phase::Progressing | Phase::RollingBack
        ) {
            let (id, why) = (short(rollout.id), &rollout.run.hold_reason);
            sentences.push(format!("rollout {id} is {}: {why}", phase.as_str()));
        }
    }
    let mut left: BTreeMap<_, usize> = BTreeMap::new();
    for binding in tx.bindings()? {
        let (Some(held_by), Some(goal)) = (binding.held_by, binding.goal) else {
            continue;
        };
        if key_at(tx, &binding.id.connector, goal.revision)? == row.key {
            *left.entry(held_by).or_default() += 1;
        }
    }
    for (rollout, count) in left {
        let id = short(rollout);
        sentences.push(format!(
            "{count} bindings were left behind by rollout {id}: `keyfleet rollout retry {id}` tries them again"
        ));
    }
    Ok(sentences)
}

/// The rollouts under way that bring a version of the Key to bindings, the oldest first.
pub(crate) fn bringing(tx: &Tx<'_>, row: &CampaignRow) -> Result<Vec<Rollout>, Error> {
    let wanted = row.campaign.lives();
    let mut all = Vec::new();
    for rollout in tx.active_rollouts()? {
        let mut brings = false;
        for change in tx.rollout_bindings(rollout.id)? {
            if let Some(to) = change.to.filter(|to| Some(to.key_version) == wanted) {
                brings |= key_at(tx, &change.id.connector, to.revision)? == row.key;
            }
        }
        if brings {
            all.push(rollout);
        }
    }
    Ok(all)
}
