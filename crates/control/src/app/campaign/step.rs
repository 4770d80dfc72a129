//! One step of a campaign, in one transaction: what happened, and what follows for key versions and rollouts.

use std::collections::BTreeSet;

use keyfleet_core::Timestamp;
use keyfleet_core::binding::Assignment;
use keyfleet_core::campaign::guard::Blocker;
use keyfleet_core::campaign::{Course, Event, State, Step, Verb, Wait, step};
use keyfleet_core::id::{CampaignId, DeploymentId, KeyVersion};
use keyfleet_core::key::KeyState;
use keyfleet_store::{CampaignRow, Tx};

use super::found::{Around, found};
use super::{found_in_vault, goal_of, note};
use crate::app::KEYFLEET;
use crate::app::audit::record_own;
use crate::app::ending::{key_at, make_current};
use crate::app::start::{refresh_goals, start_rollouts};
use crate::error::Error;

/// Steps of one campaign at once: it has far fewer states. The bound turns a mistake into an oddity in the log.
const STEPS_MAX: usize = 32;

/// What the campaigns came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Something happened.
    pub(crate) is_news: bool,
    /// What the provider has to be asked about.
    pub(crate) asks: Vec<(CampaignId, State, BTreeSet<KeyVersion>)>,
    /// Whose proofs are too old, and how old they may be in seconds.
    pub(crate) stale: Vec<(BTreeSet<DeploymentId>, i64)>,
}

/// Takes every campaign as far as it goes now.
pub(crate) fn step_all(tx: &Tx<'_>, around: &Around) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    for mut row in tx.active_campaigns()? {
        for _ in 0..STEPS_MAX {
            let now = around.now;
            match step(&row.campaign, &found(tx, &row, around)?) {
                Step::Go(event, why) => {
                    prepare(tx, &mut row, event)?;
                    happen(tx, &mut row, event, &why, KEYFLEET, now)?;
                    outcome.is_news = true;
                }
                Step::Try(versions) => {
                    outcome.asks.push((row.id, row.campaign.state, versions));
                    break;
                }
                Step::Wait(waits) => {
                    outcome.stale.extend(waits.iter().filter_map(stale));
                    break;
                }
            }
        }
    }
    Ok(outcome)
}

/// Who has to prove anew.
fn stale(wait: &Wait) -> Option<(BTreeSet<DeploymentId>, i64)> {
    let Wait::Blocked(_, Blocker::Stale(bindings, secs)) = wait else {
        return None;
    };
    Some((bindings.iter().map(|id| id.deployment).collect(), *secs))
}

/// What a campaign learns by what happened.
fn prepare(tx: &Tx<'_>, row: &mut CampaignRow, event: Event) -> Result<(), Error> {
    if event == Event::Minted {
        let versions = tx.key_versions(&row.key)?;
        let pending = versions.iter().filter(|it| it.state == KeyState::Pending);
        row.campaign.new = pending.map(|it| it.version).max();
    } else if row.campaign.state == State::Planned && row.campaign.course == Course::Forward {
        // Another campaign may have ended since this one was planned.
        let new = row.campaign.new;
        row.campaign.old = goal_of(tx, &row.key)?.filter(|old| Some(*old) != new);
    }
    Ok(())
}

/// Changes the state, writes it down, and does what follows.
pub(crate) fn happen(
    tx: &Tx<'_>,
    row: &mut CampaignRow,
    event: Event,
    why: &str,
    actor: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let campaign = &mut row.campaign;
    let before = campaign.state;
    let (state, course) = before
        .next(campaign.course, campaign.stopped, event)
        .map_err(|err| Error::Precondition(err.to_string()))?;
    (campaign.state, campaign.course) = (state, course);
    if state != before {
        row.state_since = now;
        campaign.stopped = (state == State::Halted).then_some(before);
        if is_told_as_reason(event) {
            why.clone_into(&mut campaign.reason);
        } else if before == State::Halted {
            campaign.reason.clear();
        }
        row.ended_at = state.is_terminal().then_some(now);
    }
    if event == Event::Converged {
        row.converged_at = Some(now);
    }
    tx.put_campaign(row)?;
    note(tx, row, actor, why, now)?;
    if state == before || before == State::Halted && event != Event::Overtaken && !is_turn(state) {
        return Ok(());
    }
    record_if_grave(tx, row, why, now)?;
    follow(tx, row, before, now)
}

/// What people ask about when they see where a campaign is.
const fn is_told_as_reason(event: Event) -> bool {
    matches!(
        event,
        Event::Failed
            | Event::GivenUp
            | Event::RolloutWentBack
            | Event::Verb(Verb::Pause | Verb::Rollback)
    )
}

/// States that a campaign comes to from HALTED for another reason than to go on.
const fn is_turn(state: State) -> bool {
    matches!(
        state,
        State::RollingBack | State::Draining | State::Cancelled
    )
}

/// What Keyfleet decides itself about a key's life and death is in the audit log.
fn record_if_grave(tx: &Tx<'_>, row: &CampaignRow, why: &str, now: Timestamp) -> Result<(), Error> {
    let action = match row.campaign.state {
        State::Halted => "campaign.halt",
        State::RollingBack => "campaign.rollback",
        State::Revoking => "campaign.retire",
        State::Closed | State::RolledBack | State::Cancelled => "campaign.end",
        State::Planned
        | State::Minting
        | State::Validating
        | State::Rolling
        | State::Converged
        | State::Draining
        | State::RevokeReady
        | State::VerifyingDead => return Ok(()),
    };
    let (id, key, state) = (row.id, &row.key, row.campaign.state);
    let detail = format!("key {key}, {state}: {why}");
    record_own(tx, action, format!("campaign {id}"), detail, now)
}

/// What a new state means for key versions and rollouts.
fn follow(tx: &Tx<'_>, row: &CampaignRow, before: State, now: Timestamp) -> Result<(), Error> {
    let campaign = &row.campaign;
    match campaign.state {
        State::Rolling => release(tx, row, now),
        State::Converged => make_current_if_unused(tx, row),
        State::RollingBack => go_back(tx, row, now),
        State::Draining if campaign.course == Course::Cancel => {
            set_dying(tx, row, KeyState::Abandoned)
        }
        State::Cancelled if before == State::Planned => set_dying(tx, row, KeyState::Abandoned),
        State::Revoking => set_dying(tx, row, KeyState::Retiring),
        State::Closed | State::RolledBack | State::Cancelled | State::Minting
            if before == State::VerifyingDead =>
        {
            set_dying(tx, row, KeyState::Revoked)
        }
        State::Planned
        | State::Minting
        | State::Validating
        | State::Draining
        | State::RevokeReady
        | State::VerifyingDead
        | State::Halted
        | State::Closed
        | State::RolledBack
        | State::Cancelled => Ok(()),
    }
}

/// The fleet may have it from now on.
fn release(tx: &Tx<'_>, row: &CampaignRow, now: Timestamp) -> Result<(), Error> {
    let (key, Some(version)) = (&row.key, row.campaign.new) else {
        return Ok(());
    };
    tx.release_key_version(key, version)?;
    let goals = refresh_goals(tx, now)?;
    let cause = found_in_vault(key, version);
    start_rollouts(tx, &goals.spread(), &cause, &row.actor, now)?;
    Ok(())
}

/// Where nobody uses the Key, no rollout ends that would say so.
fn make_current_if_unused(tx: &Tx<'_>, row: &CampaignRow) -> Result<(), Error> {
    match row.campaign.new {
        Some(version) => make_current(tx, &row.key, version),
        None => Ok(()),
    }
}

/// The new version is given up; what lived before is brought back.
fn go_back(tx: &Tx<'_>, row: &CampaignRow, now: Timestamp) -> Result<(), Error> {
    let key = &row.key;
    set_dying(tx, row, KeyState::Abandoned)?;
    let versions = tx.key_versions(key)?;
    let lives = row.campaign.lives();
    let back = versions.iter().find(|it| Some(it.version) == lives);
    if let Some(back) = back.filter(|it| it.state == KeyState::Previous) {
        tx.set_key_state(key, back.version, KeyState::Current)?;
    }
    forget_proofs(tx, row)?;
    let goals = refresh_goals(tx, now)?;
    let cause = format!("the campaign for key {key} goes back");
    start_rollouts(tx, &goals.spread(), &cause, &row.actor, now)?;
    Ok(())
}

/// Nothing later may return to what is given up: what a binding proved last is what it had before.
fn forget_proofs(tx: &Tx<'_>, row: &CampaignRow) -> Result<(), Error> {
    let (dying, lives) = (row.campaign.dying(), row.campaign.lives());
    for mut binding in tx.bindings()? {
        let Some(proven) = binding.last_proven else {
            continue;
        };
        let connector = &binding.id.connector;
        if !dying.contains(&proven.key_version)
            || key_at(tx, connector, proven.revision)? != row.key
        {
            continue;
        }
        binding.last_proven = lives.map(|key_version| Assignment {
            key_version,
            ..proven
        });
        tx.put_binding(&binding)?;
    }
    Ok(())
}

fn set_dying(tx: &Tx<'_>, row: &CampaignRow, state: KeyState) -> Result<(), Error> {
    for version in row.campaign.dying() {
        tx.set_key_state(&row.key, version, state)?;
    }
    Ok(())
}
