//! What operators may say to campaigns.

use std::collections::BTreeSet;

use keyfleet_core::Timestamp;
use keyfleet_core::campaign::{Course, Event, State, Verb, list};
use keyfleet_core::id::{CampaignId, DeploymentId, KeyName, KeyVersion};
use keyfleet_core::rollout::Verb as RolloutVerb;
use keyfleet_core::token::Role;
use keyfleet_store::{CampaignRow, Tx};

use super::found::bringing;
use super::step::happen;
use super::{Beginning, begin, goal_of, note, of_key};
use crate::app::audit::{Act, record};
use crate::app::revoke::Uses;
use crate::app::rollout::{Said, change};
use crate::app::step::load;
use crate::app::{Actor, App};
use crate::clock;
use crate::error::Error;

/// What somebody wants to start.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Which Key.
    pub(crate) key: String,
    /// Why; may be empty.
    pub(crate) reason: String,
    /// The current version dies before there is another one.
    pub(crate) revoke_first: bool,
    /// Agreed with what stops working by that.
    pub(crate) yes: bool,
}

impl App {
    /// Starts a campaign.
    pub(crate) async fn start_campaign(
        &self,
        actor: &Actor,
        wanted: Wanted,
    ) -> Result<CampaignId, Error> {
        actor.must_be(Role::Admin)?;
        actor.must_be_for_all()?;
        let (actor, now, online) = (actor.clone(), clock::now(), self.sessions.online());
        let write = move |tx: &Tx<'_>| start(tx, &actor, &wanted, &online, now);
        let id = self.store.write(write).await?;
        self.changed();
        Ok(id)
    }

    /// Does what an operator says to a campaign.
    pub(crate) async fn change_campaign(
        &self,
        actor: &Actor,
        id: &str,
        verb: Verb,
        reason: &str,
    ) -> Result<CampaignId, Error> {
        actor.must_be(Role::Admin)?;
        actor.must_be_for_all()?;
        let (id, actor, now) = (id.to_owned(), actor.clone(), clock::now());
        let reason = reason.trim().to_owned();
        let write = move |tx: &Tx<'_>| {
            let mut row = find(tx, &id)?;
            say(tx, &mut row, &actor, verb, &reason, now)?;
            Ok::<_, Error>(row.id)
        };
        let id = self.store.write(write).await?;
        self.changed();
        Ok(id)
    }
}

/// The campaign whose id begins so; the only active one where nothing is said.
pub(crate) fn find(tx: &Tx<'_>, id: &str) -> Result<CampaignRow, Error> {
    let mut found = match id {
        "" => tx.active_campaigns()?,
        id => tx.campaigns_with_prefix(id)?,
    };
    match (found.pop(), found.pop()) {
        (Some(row), None) => Ok(row),
        (Some(_), Some(_)) if id.is_empty() => Err(Error::Precondition(
            "several campaigns are under way: say which one".to_owned(),
        )),
        (Some(_), Some(_)) => Err(Error::Precondition(format!(
            "several campaigns begin with {id:?}: give more of the id"
        ))),
        (None, _) if id.is_empty() => Err(Error::Precondition(
            "no campaign is under way: `keyfleet campaign list` shows those that have ended"
                .to_owned(),
        )),
        (None, _) => Err(Error::NotFound {
            kind: "campaign",
            name: id.to_owned(),
        }),
    }
}

fn start(
    tx: &Tx<'_>,
    actor: &Actor,
    wanted: &Wanted,
    online: &BTreeSet<DeploymentId>,
    now: Timestamp,
) -> Result<CampaignId, Error> {
    let missing = || Error::NotFound {
        kind: "key",
        name: wanted.key.clone(),
    };
    let key: KeyName = wanted.key.parse().map_err(|_| missing())?;
    if !tx.keys()?.iter().any(|row| row.key.name == key) {
        return Err(missing());
    }
    if let Some(open) = of_key(tx, &key)?.first() {
        let (id, state) = (open.id, open.campaign.state);
        return Err(Error::Precondition(format!(
            "campaign {id} of key {key} is under way and {state}: a Key has one at a time; see `keyfleet campaign explain {id}`"
        )));
    }
    let Some(current) = goal_of(tx, &key)? else {
        return Err(Error::Precondition(format!(
            "key {key} has no version yet: write one to Vault, and it is rolled out"
        )));
    };
    let course = if wanted.revoke_first {
        agree_with_outage(tx, &key, current, wanted.yes, online, now)?;
        Course::RevokeFirst
    } else {
        Course::Forward
    };
    let cause = match (wanted.revoke_first, wanted.reason.trim()) {
        (false, "") => "an operator asked for a new version".to_owned(),
        (true, "") => "an operator gave the current version up".to_owned(),
        (_, reason) => reason.to_owned(),
    };
    let beginning = Beginning {
        new: None,
        course,
        cause: &cause,
        actor: &actor.principal,
    };
    let row = begin(tx, &key, &beginning, now)?;
    let act = Act {
        action: "campaign.start",
        target: format!("campaign {}", row.id),
        reason: wanted.reason.trim().to_owned(),
        detail: format!("key {key}, {}", course.as_str()),
    };
    record(tx, actor, act, now)?;
    Ok(row.id)
}

/// In leak mode connectors stop working: nobody may start that by mistake.
fn agree_with_outage(
    tx: &Tx<'_>,
    key: &KeyName,
    current: KeyVersion,
    yes: bool,
    online: &BTreeSet<DeploymentId>,
    now: Timestamp,
) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    let uses = Uses::load(tx, key, online, now)?;
    let deployments: BTreeSet<_> = uses.users().iter().map(|it| it.id.deployment).collect();
    Err(Error::Precondition(format!(
        "{} bindings on {} deployments use key {key} {current} and stop working until another version is in Vault and proven: agree with `--yes`",
        uses.users().len(),
        deployments.len()
    )))
}

/// Does what an operator says, inside of one transaction.
pub(crate) fn say(
    tx: &Tx<'_>,
    row: &mut CampaignRow,
    actor: &Actor,
    verb: Verb,
    reason: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let state = row.campaign.state;
    let act = Act {
        action: action(verb),
        target: format!("campaign {}", row.id),
        reason: reason.to_owned(),
        detail: format!("key {}, {state}", row.key),
    };
    record(tx, actor, act, now)?;
    let who = &actor.principal;
    if verb == Verb::Approve {
        return approve(tx, row, who, now);
    }
    if verb == Verb::Rollback {
        may_go_back(tx, row)?;
    }
    let stops = verb == Verb::Pause && state != State::Halted;
    let goes_on = verb == Verb::Resume && state == State::Halted;
    let stopped = row.campaign.stopped;
    if stops {
        tell_rollouts(tx, row, actor, RolloutVerb::Pause, reason, now)?;
    }
    let why = match reason {
        "" => format!("{who} said {}", verb.as_str()),
        reason => format!("{who} said {}: {reason}", verb.as_str()),
    };
    happen(tx, row, Event::Verb(verb), &why, who, now)?;
    if goes_on && stopped == Some(State::Rolling) {
        tell_rollouts(tx, row, actor, RolloutVerb::Resume, reason, now)?;
    }
    Ok(())
}

const fn action(verb: Verb) -> &'static str {
    match verb {
        Verb::Pause => "campaign.pause",
        Verb::Resume => "campaign.resume",
        Verb::Rollback => "campaign.rollback",
        Verb::Approve => "campaign.approve",
        Verb::Confirm => "campaign.confirm",
    }
}

/// What a campaign's rollouts do while it is paused is to wait with it.
fn tell_rollouts(
    tx: &Tx<'_>,
    row: &CampaignRow,
    actor: &Actor,
    verb: RolloutVerb,
    reason: &str,
    now: Timestamp,
) -> Result<(), Error> {
    for rollout in bringing(tx, row)? {
        let said = Said {
            verb,
            wave: String::new(),
            reason: format!("with campaign {}: {reason}", row.id),
        };
        change(tx, load(tx, rollout)?, actor, &said, now)?;
    }
    Ok(())
}

/// There must be something to go back to, without asking the provider for anything.
fn may_go_back(tx: &Tx<'_>, row: &CampaignRow) -> Result<(), Error> {
    let was_released = matches!(
        row.campaign.stopped.unwrap_or(row.campaign.state),
        State::Rolling | State::Converged | State::Draining | State::RevokeReady
    );
    let Some(old) = row.campaign.old.filter(|_| was_released) else {
        return Ok(());
    };
    let known = tx.key_versions(&row.key)?;
    if known
        .iter()
        .any(|it| it.version == old && it.may_be_assigned())
    {
        return Ok(());
    }
    let place = tx.keys()?.into_iter().find(|it| it.key.name == row.key);
    let place = place.map_or_else(String::new, |it| it.key.location.to_string());
    Err(Error::Precondition(format!(
        "there is nothing to go back to: {old} of key {} cannot be read at {place} any more; write another version instead",
        row.key
    )))
}

fn approve(tx: &Tx<'_>, row: &mut CampaignRow, who: &str, now: Timestamp) -> Result<(), Error> {
    let (state, course) = (row.campaign.state, row.campaign.course);
    if state.is_past_return() {
        return Err(Error::Precondition(format!(
            "campaign {} is {state}: there is nothing left to agree with",
            row.id
        )));
    }
    if course == Course::RevokeFirst {
        return Err(Error::Precondition(
            "a campaign that revokes first asks nobody: whoever started it agreed".to_owned(),
        ));
    }
    if !tx.approve_campaign(row.id, who, now)? {
        return Ok(());
    }
    let (given, needed) = (tx.campaign_approvals(row.id)?.len(), row.rotation.approvals);
    let dying = list(&row.campaign.dying());
    let text = format!("{who} agreed that {dying} is revoked, {given} of {needed}");
    note(tx, row, who, &text, now)
}
