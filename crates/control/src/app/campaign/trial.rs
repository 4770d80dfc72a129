//! Control tries key versions at the provider: before anybody gets one, and when one has to be dead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use keyfleet_core::campaign::{State, Trial};
use keyfleet_core::id::{CampaignId, KeyName, KeyVersion};

use super::found::Around;
use super::step::step_all;
use crate::app::App;
use crate::app::verdict::Tried;
use crate::clock;
use crate::error::Error;

/// Between two tries of one version: a provider that is asked more often says nothing new.
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

/// What campaigns have heard from the provider. It is forgotten at a restart, and asked again.
#[derive(Default)]
pub(crate) struct Trials(Mutex<BTreeMap<Asked, (Instant, Option<Trial>)>>);

type Asked = (CampaignId, State, KeyVersion);

impl Trials {
    /// What was said, of each question that was answered.
    pub(crate) fn said(&self) -> BTreeMap<Asked, Trial> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = known.iter();
        said.filter_map(|(asked, (_, trial))| Some((*asked, trial.clone()?)))
            .collect()
    }

    /// Keeps what still matters, and says whether to ask this now.
    fn may_ask(&self, asked: Asked) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&asked)
            .is_none_or(|(at, _)| at.elapsed() >= BETWEEN_TRIES)
    }

    /// A refusal counts one up; anything else begins anew. An answer that is none leaves what was said.
    fn keep(&self, asked: Asked, answer: Option<Trial>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.get(&asked).and_then(|(_, trial)| trial.clone());
        let trial = match (before, answer) {
            (Some(Trial::Refused(times)), Some(Trial::Refused(_))) => {
                Some(Trial::Refused(times.saturating_add(1)))
            }
            (before, None) => before,
            (_, answer) => answer,
        };
        known.insert(asked, (Instant::now(), trial));
    }

    fn retain(&self, states: &BTreeMap<CampaignId, State>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(id, state, _), _| states.get(id) == Some(state));
    }
}

impl App {
    /// What campaigns need to know beyond the database.
    pub(crate) fn around_campaigns(&self) -> Around {
        Around {
            now: clock::now(),
            online: self.sessions.online(),
            trials: self.trials.said(),
            probes_per_minute: self.config.agents.fleet_probes_per_minute,
        }
    }

    /// Takes every campaign as far as it goes, and asks the provider what they need to know. True where there is more to
    /// do at once.
    pub(crate) async fn step_campaigns(&self) -> Result<bool, Error> {
        let is_any = self
            .store
            .read(|tx| Ok::<_, Error>(!tx.active_campaigns()?.is_empty()));
        if !is_any.await? {
            return Ok(false);
        }
        let around = self.around_campaigns();
        let write = move |tx: &keyfleet_store::Tx<'_>| {
            let outcome = step_all(tx, &around)?;
            let states = tx.active_campaigns()?.into_iter();
            let states: BTreeMap<_, _> = states
                .map(|row| (row.id, (row.key, row.campaign.state)))
                .collect();
            Ok::<_, Error>((outcome, states))
        };
        let (outcome, campaigns) = self.store.write(write).await?;
        if outcome.is_news {
            self.changed();
        }
        for (deployments, secs) in outcome.stale {
            // Half of it: what is fresh now is to be fresh still when the last one is.
            let secs = u32::try_from(secs / 2).unwrap_or(u32::MAX);
            self.sessions.ask_proofs(&deployments, secs);
        }
        let states = campaigns.iter().map(|(id, (_, state))| (*id, *state));
        self.trials.retain(&states.collect());
        let mut heard = false;
        for (id, state, versions) in outcome.asks {
            let Some((key, _)) = campaigns.get(&id) else {
                continue;
            };
            heard |= self.ask_for(id, state, key, versions).await?;
        }
        Ok(heard)
    }

    async fn ask_for(
        &self,
        id: CampaignId,
        state: State,
        key: &KeyName,
        versions: BTreeSet<KeyVersion>,
    ) -> Result<bool, Error> {
        let mut heard = false;
        for version in versions {
            let asked = (id, state, version);
            if self.shutdown.is_cancelled() || !self.trials.may_ask(asked) {
                continue;
            }
            let tried = self.try_version(key, version).await?;
            let answer = tried.map(|tried| match tried {
                Tried::Works => Trial::Works,
                Tried::Refused => Trial::Refused(1),
                Tried::Unfit(why) => Trial::Unfit(why),
                Tried::Unknown(why) => Trial::Unknown(why),
            });
            heard |= answer.is_some();
            self.trials.keep(asked, answer);
        }
        Ok(heard)
    }
}
