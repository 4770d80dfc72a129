//! Who was refused, written down; but however often somebody tries, only so much, so that nobody fills the disk.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use keyfleet_core::audit::Outcome;
use keyfleet_core::id::TokenId;
use keyfleet_store::Tx;

use super::{Act, Actor, entry};
use crate::app::App;
use crate::clock;
use crate::error::Error;

/// Refusals of one token that are written at once; a person at work never comes near.
const BURST: u32 = 60;

/// How soon one more of a known token is written.
const PACE: Duration = Duration::from_secs(10);

/// How soon one more of a caller without a good token is written: there may be any number of such callers.
const PACE_UNKNOWN: Duration = Duration::from_secs(60);

/// What was refused lately, by token; `None` = no good token.
#[derive(Default)]
pub(crate) struct Refusals {
    by_token: Mutex<BTreeMap<Option<TokenId>, Tally>>,
}

/// A bucket of entries that may be written, and what was not.
struct Tally {
    left: u32,
    filled_at: Instant,
    unwritten: u64,
    principal: Option<Actor>,
}

impl Refusals {
    /// `Some` where this one may be written, with the number of those before it that were not.
    fn take(&self, actor: Option<&Actor>, now: Instant) -> Option<u64> {
        let (burst, pace) = match actor {
            Some(_) => (BURST, PACE),
            None => (1, PACE_UNKNOWN),
        };
        let token = actor.and_then(|actor| actor.token);
        let mut by_token = self.lock();
        let tally = by_token.entry(token).or_insert_with(|| Tally {
            left: burst,
            filled_at: now,
            unwritten: 0,
            principal: actor.cloned(),
        });
        let earned = now.duration_since(tally.filled_at).as_secs() / pace.as_secs();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(burst);
            tally.left = tally.left.saturating_add(earned).min(burst);
            tally.filled_at = now;
        }
        if tally.left == 0 {
            tally.unwritten += 1;
            return None;
        }
        tally.left -= 1;
        Some(std::mem::take(&mut tally.unwritten))
    }

    /// Those that were counted and not written, and forgets tokens that were quiet for long.
    fn take_unwritten(&self, now: Instant) -> Vec<(Option<Actor>, u64)> {
        let mut by_token = self.lock();
        let counted = by_token.values_mut().filter(|tally| tally.unwritten > 0);
        let counted = counted
            .map(|tally| {
                let unwritten = std::mem::take(&mut tally.unwritten);
                (tally.principal.clone(), unwritten)
            })
            .collect();
        by_token.retain(|_, tally| now.duration_since(tally.filled_at) < PACE * BURST);
        counted
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Option<TokenId>, Tally>> {
        self.by_token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl App {
    /// Writes down that a call was refused, and why. It was refused in any case: that it cannot be written down is
    /// only logged.
    pub(crate) async fn refused(&self, actor: Option<&Actor>, act: Act, why: &str) {
        let Some(unwritten) = self.refusals.take(actor, Instant::now()) else {
            return;
        };
        let detail = match unwritten {
            0 => why.to_owned(),
            more => format!("{why}; {more} more before it were counted and not written"),
        };
        let act = match actor {
            Some(_) => Act { detail, ..act },
            // Nothing that a stranger wrote is kept.
            None => Act {
                action: act.action,
                target: String::new(),
                reason: String::new(),
                detail,
            },
        };
        self.write_refusal(actor.cloned(), act).await;
    }

    /// Writes down the number of those that were counted and not written.
    pub(crate) async fn write_counted_refusals(&self) {
        for (actor, unwritten) in self.refusals.take_unwritten(Instant::now()) {
            let act = Act {
                action: "call.refuse",
                target: String::new(),
                reason: String::new(),
                detail: format!("{unwritten} more refused calls were counted and not written"),
            };
            self.write_refusal(actor, act).await;
        }
    }

    async fn write_refusal(&self, actor: Option<Actor>, act: Act) {
        let now = clock::now();
        let write = move |tx: &Tx<'_>| {
            let refused = entry(actor.as_ref(), act, Outcome::Refused, now);
            Ok::<_, Error>(tx.append_audit(refused)?)
        };
        if let Err(err) = self.store.write(write).await {
            tracing::warn!(error = %err, "a refused call was not written down");
        }
    }
}

#[cfg(test)]
mod tests {
    use keyfleet_core::fleet::Selector;
    use keyfleet_core::token::Role;

    use super::*;

    #[test]
    fn strangers_get_one_entry_a_minute_and_are_counted() {
        let refusals = Refusals::default();
        let begin = Instant::now();
        assert_eq!(refusals.take(None, begin), Some(0));
        for _ in 0..1_000 {
            assert_eq!(refusals.take(None, begin + Duration::from_secs(59)), None);
        }
        assert_eq!(
            refusals.take(None, begin + Duration::from_secs(60)),
            Some(1_000)
        );
        assert!(refusals.take_unwritten(begin).is_empty());
    }

    #[test]
    fn a_known_token_gets_a_burst_and_one_does_not_hide_the_other() {
        let refusals = Refusals::default();
        let begin = Instant::now();
        let actor = |id| Actor {
            principal: format!("user{id}"),
            token: Some(TokenId::new(uuid::Uuid::from_u128(id))),
            role: Role::Viewer,
            scope: Selector::default(),
        };
        let (noisy, quiet) = (actor(1), actor(2));
        for _ in 0..BURST {
            assert_eq!(refusals.take(Some(&noisy), begin), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(refusals.take(Some(&noisy), begin), None);
        }
        assert_eq!(refusals.take(Some(&quiet), begin), Some(0));
        let counted = refusals.take_unwritten(begin);
        let who = |(actor, count): &(Option<Actor>, u64)| {
            (actor.as_ref().map(|actor| actor.principal.clone()), *count)
        };
        let counted: Vec<_> = counted.iter().map(who).collect();
        assert_eq!(counted, [(Some("user1".to_owned()), 5)]);
        assert_eq!(refusals.take(Some(&noisy), begin + PACE), Some(0));
    }
}
