//! What happens to a simulated fleet from outside: operators' words, faults, comings and goings.

use keyfleet_core::Timestamp;
use keyfleet_core::fleet::Selector;
use keyfleet_core::id::RolloutId;
use keyfleet_core::rollout::Verb;
use keyfleet_core::token::Role;
use keyfleet_store::Tx;

use super::Simulation;
use crate::app::Actor;
use crate::app::rollout::{Said, change};
use crate::app::step::load;
use crate::error::Error;

impl Simulation {
    /// An operator's act inside of one transaction, at the time of control's clock.
    ///
    /// # Errors
    /// What `act` says, after undoing all of it.
    pub(crate) fn change<T, E: From<keyfleet_store::Error>>(
        &mut self,
        act: impl FnOnce(&Tx<'_>, Timestamp) -> Result<T, E>,
    ) -> Result<T, E> {
        let now = self.control_now();
        let done = self.scratch.run(|tx| act(tx, now))?;
        self.nudge();
        Ok(done)
    }

    /// An operator says something to a rollout; `wave` is for approvals, empty = the next that asks for one.
    ///
    /// # Errors
    /// Where the rollout does not take that.
    pub(crate) fn say(
        &mut self,
        rollout: RolloutId,
        verb: Verb,
        principal: &str,
        wave: &str,
        reason: &str,
    ) -> Result<RolloutId, Error> {
        let said = Said {
            verb,
            wave: wave.to_owned(),
            reason: reason.to_owned(),
        };
        let actor = actor(principal);
        let result = self.change(|tx, now| {
            let mut found = tx.rollouts_with_prefix(&rollout.to_string())?;
            let missing = || Error::NotFound {
                kind: "rollout",
                name: rollout.to_string(),
            };
            let loaded = load(tx, found.pop().ok_or_else(missing)?)?;
            change(tx, loaded, &actor, &said, now)
        });
        let number = self.number_of(rollout);
        let answer = match &result {
            Ok(_) => String::new(),
            Err(err) => format!(" (refused: {err})"),
        };
        self.note(principal, || {
            format!("says {} to rollout {number}{answer}", verb.as_str())
        });
        result
    }
}

/// Somebody who may do everything.
pub(super) fn actor(principal: &str) -> Actor {
    Actor {
        principal: principal.to_owned(),
        token: None,
        role: Role::Admin,
        scope: Selector::default(),
    }
}
