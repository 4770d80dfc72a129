//! Live calls under the fleet's pace: control grants them, a few at a time, to whoever has waited longest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyfleet_core::binding::BindingState;
use keyfleet_core::failure::FailureClass;
use tokio::time::Instant;

use super::Reconciler;
use crate::wish::Place;
use crate::work::failure;

/// A grant that is not used within this time is void.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// A binding that waits for longer says so.
const PATIENCE: Duration = Duration::from_secs(5);
/// What it says.
const REASON: &str = "waits for its turn to make a live call: the control service limits how many the fleet makes a minute";

/// Which live calls may begin.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// `None` before the first session: nobody has set a pace yet.
    needed: Option<bool>,
    /// Granted and not used, with the time at which they are void.
    granted: u32,
    void_at: Option<Instant>,
    /// A request is under way in this session.
    asked: bool,
    since: BTreeMap<Place, Instant>,
    /// The same, in the order of waiting.
    queue: BTreeSet<(Instant, Place)>,
    /// Who wanted a call in this round of the loop.
    wanted: BTreeSet<Place>,
    /// Somebody has left the line, and it may be the turn of the next one.
    moved_up: bool,
}

impl Grants {
    /// A new session: nothing that was granted or asked for before counts any more.
    pub(super) fn connected(&mut self, needed: bool) {
        self.needed = Some(needed);
        (self.granted, self.void_at, self.asked) = (0, None, false);
    }

    /// Control grants so many live calls.
    pub(super) fn grant(&mut self, count: u32, now: Instant) {
        self.asked = false;
        self.expire(now);
        self.granted = self.granted.saturating_add(count);
        self.void_at = Some(now + GOOD_FOR);
    }

    /// Whether this binding may make its live call now; it waits in line from its first question on.
    pub(super) fn is_turn(&mut self, place: &Place, now: Instant) -> bool {
        match self.needed {
            Some(false) => return true,
            // The first session is a moment away, or control is: then nobody would hear of the proof.
            None => return false,
            Some(true) => {}
        }
        self.expire(now);
        self.wanted.insert(place.clone());
        let since = *self.since.entry(place.clone()).or_insert(now);
        self.queue.insert((since, place.clone()));
        let n_first = usize::try_from(self.granted).unwrap_or(usize::MAX);
        self.queue
            .iter()
            .take(n_first)
            .any(|(_, first)| first == place)
    }

    /// This binding makes its live call.
    pub(super) fn spend(&mut self, place: &Place) {
        if self.needed == Some(true) {
            self.granted = self.granted.saturating_sub(1);
            self.leave(place);
        }
    }

    /// Ends a round of the loop: who did not want a call in it leaves the line. Gives the count to ask control for: no
    /// more than this agent's own pace lets it use, for what it does not use nobody else can.
    fn end_round(&mut self, now: Instant, usable: u32) -> Option<u32> {
        let wanted = std::mem::take(&mut self.wanted);
        let gone: Vec<Place> = self
            .since
            .keys()
            .filter(|place| !wanted.contains(*place))
            .cloned()
            .collect();
        self.expire(now);
        self.moved_up = !gone.is_empty() && self.granted > 0;
        for place in gone {
            self.leave(&place);
        }
        let n_waiting = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        let count = n_waiting.min(usable.max(1)).saturating_sub(self.granted);
        if self.asked || count == 0 {
            return None;
        }
        self.asked = true;
        Some(count)
    }

    /// Those who have waited too long to say nothing, and when the next one has.
    fn patient(&self, now: Instant) -> (Vec<Place>, Option<Instant>) {
        let is_loud = |(since, _): &&(Instant, Place)| *since + PATIENCE <= now;
        let loud = self.queue.iter().take_while(is_loud);
        let next = self.queue.iter().find(|waiting| !is_loud(waiting));
        (
            loud.map(|(_, place)| place.clone()).collect(),
            next.map(|(since, _)| *since + PATIENCE),
        )
    }

    fn leave(&mut self, place: &Place) {
        self.wanted.remove(place);
        if let Some(since) = self.since.remove(place) {
            self.queue.remove(&(since, place.clone()));
        }
    }

    fn expire(&mut self, now: Instant) {
        if self.void_at.take_if(|at| *at <= now).is_some() {
            self.granted = 0;
        }
    }
}

impl Reconciler {
    /// Asks for what is missing and says who waits. Gives the time at which somebody has waited too long, or a grant
    /// becomes void while somebody waits.
    pub(super) fn ask_for_grants(&mut self, now: Instant) -> Option<Instant> {
        let usable = self.bucket.usable(GOOD_FOR, now);
        if let Some(count) = self.grants.end_round(now, usable) {
            self.outbox.ask_probes(count);
        }
        let (loud, next) = self.grants.patient(now);
        for place in loud {
            self.say_its_turn_comes(&place);
        }
        let void_at = self
            .grants
            .void_at
            .filter(|_| !self.grants.queue.is_empty());
        let again = self.grants.moved_up.then_some(now);
        next.into_iter().chain(void_at).chain(again).min()
    }

    /// A binding that works, or that failed, has said more than this.
    fn say_its_turn_comes(&mut self, place: &Place) {
        let shown = self.slots.get(place).and_then(|slot| slot.shown.as_ref());
        let state = shown.map_or(BindingState::Received, |shown| shown.state);
        if matches!(state, BindingState::Received | BindingState::Applied) {
            self.report(place, state, Some(&failure(FailureClass::Agent, REASON)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(connector: &str) -> Place {
        Place {
            space: "default".parse().unwrap(),
            connector: connector.parse().unwrap(),
        }
    }

    /// One round of the loop, in which these want a call: who may, and what control is asked for.
    fn round(grants: &mut Grants, wanting: &[&str], now: Instant) -> (Vec<String>, Option<u32>) {
        let mut begun = Vec::new();
        for connector in wanting {
            if grants.is_turn(&place(connector), now) {
                grants.spend(&place(connector));
                begun.push((*connector).to_owned());
            }
        }
        (begun, grants.end_round(now, u32::MAX))
    }

    fn none() -> Vec<String> {
        Vec::new()
    }

    #[test]
    fn who_has_waited_longest_comes_first() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let mut grants = Grants::default();
        grants.connected(true);
        assert_eq!(round(&mut grants, &["m", "n"], start), (none(), Some(2)));
        assert_eq!(round(&mut grants, &["a", "m", "n"], later), (none(), None));
        grants.grant(2, later);
        let begun = vec!["m".to_owned(), "n".to_owned()];
        assert_eq!(
            round(&mut grants, &["a", "m", "n"], later),
            (begun, Some(1))
        );
        // Who does not want one any more holds nobody up.
        assert_eq!(round(&mut grants, &["b"], later), (none(), None));
        grants.grant(1, later);
        assert_eq!(
            round(&mut grants, &["b"], later),
            (vec!["b".to_owned()], None)
        );
    }

    #[test]
    fn what_is_not_used_in_a_minute_is_void_and_asked_for_again() {
        let start = Instant::now();
        let mut grants = Grants::default();
        grants.connected(true);
        grants.grant(3, start);
        let late = start + GOOD_FOR;
        assert_eq!(round(&mut grants, &["a"], late), (none(), Some(1)));
        grants.grant(1, late);
        assert_eq!(
            round(&mut grants, &["a"], late),
            (vec!["a".to_owned()], None)
        );
        // A new session knows of nothing.
        grants.grant(5, late);
        assert_eq!(round(&mut grants, &["a", "b"], late).0.len(), 2);
        grants.connected(true);
        assert_eq!(round(&mut grants, &["a"], late), (none(), Some(1)));
        grants.connected(true);
        assert_eq!(round(&mut grants, &["a"], late), (none(), Some(1)));
    }

    #[test]
    fn a_grant_that_its_owner_does_not_want_any_more_is_for_the_next_one() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let mut grants = Grants::default();
        grants.connected(true);
        assert_eq!(round(&mut grants, &["a"], start), (none(), Some(1)));
        grants.grant(1, later);
        assert_eq!(round(&mut grants, &["b"], later), (none(), None));
        assert!(grants.moved_up, "the loop comes back at once");
        let begun = vec!["b".to_owned()];
        assert_eq!(round(&mut grants, &["b"], later), (begun, None));
        assert!(!grants.moved_up);
    }

    #[test]
    fn no_more_is_asked_for_than_the_agents_own_pace_can_use() {
        let now = Instant::now();
        let check = |usable: u32, granted: u32, expected: Option<u32>| {
            let mut grants = Grants::default();
            grants.connected(true);
            for connector in ["a", "b", "c"] {
                grants.is_turn(&place(connector), now);
            }
            grants.granted = granted;
            assert_eq!(grants.end_round(now, usable), expected);
        };
        check(2, 0, Some(2));
        check(0, 0, Some(1));
        check(2, 2, None);
        check(9, 1, Some(2));
    }

    #[test]
    fn without_a_pace_of_the_fleet_nobody_waits_once_control_was_there() {
        let now = Instant::now();
        let mut grants = Grants::default();
        assert_eq!(round(&mut grants, &["a"], now), (none(), None));
        grants.connected(false);
        assert_eq!(
            round(&mut grants, &["a"], now),
            (vec!["a".to_owned()], None)
        );
    }
}
