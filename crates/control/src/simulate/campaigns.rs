//! Campaigns in the simulated world: control takes them further after each plan, the provider says what it knows, and
//! people revoke what they are told to revoke.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyfleet_core::campaign::guard::Blocker;
use keyfleet_core::campaign::{State, Trial, Verb, Wait, trial_waits};
use keyfleet_core::id::{CampaignId, DeploymentId, KeyName, KeyVersion};
use keyfleet_core::key::Rotation;
use keyfleet_proto::v1;
use keyfleet_store::{CampaignRow, Tx};
use v1::control_message::Message as ToAgent;

use super::Simulation;
use super::acts::actor;
use super::kibana::KeyId;
use crate::app::campaign::found::{Around, found};
use crate::app::campaign::step::step_all;
use crate::app::campaign::verbs::say;
use crate::error::Error;

/// Steps of control's task at one moment.
const STEPS_MAX: usize = 16;

/// A timer fires a moment late, never early.
const ROUNDING: Duration = Duration::from_secs(1);

/// Until an agent is asked again for a newer proof, and how often that is done before somebody else has to move.
const ASK_AGAIN: Duration = Duration::from_secs(30);
const ASKS_MAX: u32 = 40;

/// What control and the provider know of campaigns.
#[derive(Debug, Default)]
pub(super) struct Campaigns {
    /// New versions of Keys are campaigns'.
    pub(super) are_on: bool,
    trials: BTreeMap<(CampaignId, State, KeyVersion), Trial>,
    states: BTreeMap<CampaignId, State>,
    /// What people have revoked: no repair of the provider brings it back.
    revoked: BTreeSet<KeyId>,
    asks: u32,
}

impl Simulation {
    /// From here on a new version is a campaign's, and nobody needs an old one for longer.
    ///
    /// # Errors
    /// Where the database fails.
    pub(super) fn rotate_by_campaigns(&mut self) -> Result<(), Error> {
        self.campaigns.are_on = true;
        self.scratch.run(|tx| {
            for mut row in tx.keys()? {
                row.key.rotation = Rotation {
                    overlap_secs: 0,
                    approvals: 1,
                };
                tx.put_key(&row.key)?;
            }
            Ok(())
        })
    }

    fn around_campaigns(&self) -> Around {
        Around {
            now: self.control_now(),
            online: self.sessions.keys().copied().collect(),
            trials: self.campaigns.trials.clone(),
            probes_per_minute: 0,
        }
    }

    /// What control's task does when it wakes.
    pub(super) fn step_campaigns(&mut self) -> Result<(), Error> {
        if !self.campaigns.are_on {
            return Ok(());
        }
        for _ in 0..STEPS_MAX {
            let around = self.around_campaigns();
            let outcome = self.scratch.run(|tx| step_all(tx, &around))?;
            if outcome.is_news {
                self.campaigns.asks = 0;
                self.nudge();
            }
            for (deployments, secs) in outcome.stale {
                self.ask_proofs(deployments, secs);
            }
            self.note_campaigns()?;
            if outcome.asks.is_empty() {
                return self.sleep_until_overlaps_end();
            }
            for (id, state, versions) in outcome.asks {
                let key = self.look(|tx| key_of(tx, id))?;
                for version in versions {
                    let is_refused = self.provider.refused.contains(&(key.clone(), version));
                    let trial = match is_refused {
                        true => Trial::Refused(keyfleet_core::campaign::REFUSALS_NEEDED),
                        false => Trial::Works,
                    };
                    // What still lives is asked about again when something has happened.
                    if state == State::VerifyingDead && trial == Trial::Works {
                        return Ok(());
                    }
                    self.campaigns.trials.insert((id, state, version), trial);
                }
            }
        }
        Ok(())
    }

    /// A promise may end later than it was meant to, where the clock was set back meanwhile.
    fn sleep_until_overlaps_end(&mut self) -> Result<(), Error> {
        for (_, waits) in self.waiting_campaigns()? {
            for wait in waits {
                let Wait::Blocked(_, Blocker::RollbackPossible(until)) = wait else {
                    continue;
                };
                let left = until.duration_since(self.control_now());
                self.plan_after(Duration::try_from(left).unwrap_or_default() + ROUNDING);
            }
        }
        Ok(())
    }

    fn ask_proofs(&mut self, deployments: impl IntoIterator<Item = DeploymentId>, secs: i64) {
        if self.campaigns.asks >= ASKS_MAX {
            return;
        }
        self.campaigns.asks += 1;
        let older_than_secs = u32::try_from(secs / 2).unwrap_or(u32::MAX);
        for id in deployments {
            let Some(session) = self.sessions.get(&id).map(|live| live.number) else {
                continue;
            };
            let message = ToAgent::ProveNow(v1::ProveNow { older_than_secs });
            self.send_agent(id, session, message);
        }
        self.plan_after(ASK_AGAIN);
    }

    /// Tells the story, and forgets what was said of a campaign in another state.
    fn note_campaigns(&mut self) -> Result<(), Error> {
        let rows = self.look(|tx| Ok(tx.campaigns(1_000)?))?;
        for row in rows.iter().rev() {
            let state = row.campaign.state;
            if self.campaigns.states.insert(row.id, state) != Some(state) {
                let (key, new) = (&row.key, row.campaign.new);
                self.note("control", || {
                    format!("campaign of {key} to {new:?} is {state}")
                });
            }
        }
        let states = &self.campaigns.states;
        self.campaigns
            .trials
            .retain(|(id, state, _), _| states.get(id) == Some(state));
        Ok(())
    }

    /// An operator says something to a campaign.
    ///
    /// # Errors
    /// Where it does not take that.
    pub(super) fn say_to_campaign(&mut self, id: CampaignId, verb: Verb) -> Result<(), Error> {
        let who = actor("ada");
        let result = self.change(|tx, now| {
            let mut found = tx.campaigns_with_prefix(&id.to_string())?;
            let mut row = found.pop().ok_or_else(|| missing(id))?;
            say(tx, &mut row, &who, verb, "because", now)
        });
        let answer = result.as_ref().err().map(ToString::to_string);
        self.note("ada", || {
            format!("says {} to a campaign {answer:?}", verb.as_str())
        });
        result
    }

    /// The campaigns that have not ended, each with why it waits.
    ///
    /// # Errors
    /// Where the database fails.
    pub(super) fn waiting_campaigns(&self) -> Result<Vec<(CampaignRow, Vec<Wait>)>, Error> {
        let around = self.around_campaigns();
        self.look(|tx| {
            let rows = tx.active_campaigns()?.into_iter();
            rows.map(|row| {
                let waits = trial_waits(&row.campaign, &found(tx, &row, &around)?);
                Ok((row, waits))
            })
            .collect()
        })
    }

    /// The provider knows again every key that was not revoked.
    pub(super) fn mend_provider(&mut self) {
        self.provider.refused = self.campaigns.revoked.clone();
        self.provider.no_model.clear();
    }

    /// Whoever is asked to revoke by hand does it, and says so.
    ///
    /// # Errors
    /// Where the campaign does not take that.
    pub(super) fn revoke_by_hand(&mut self, row: &CampaignRow) -> Result<(), Error> {
        for version in row.campaign.dying() {
            let key = (row.key.clone(), version);
            self.provider.refused.insert(key.clone());
            self.campaigns.revoked.insert(key);
            self.note("ada", || format!("revokes {} {version}", row.key));
        }
        self.say_to_campaign(row.id, Verb::Confirm)
    }
}

fn missing(id: CampaignId) -> Error {
    Error::NotFound {
        kind: "campaign",
        name: id.to_string(),
    }
}

fn key_of(tx: &Tx<'_>, id: CampaignId) -> Result<KeyName, Error> {
    let found = tx.campaigns_with_prefix(&id.to_string())?.pop();
    Ok(found.ok_or_else(|| missing(id))?.key)
}
