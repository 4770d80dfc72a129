//! Looks through whole spaces: one list shows every connector of ours at once, and who else is there.
//!
//! A list hides and adds connectors by itself, so it can confirm what is known and nothing else: whatever it shows
//! otherwise is looked at again, one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::SpaceId;
use keyfleet_kibana::{Observed, Space, Surface};
use keyfleet_proto::v1;
use prost::Message as _;
use tokio::time::Instant;

use super::Reconciler;
use super::advance::QUIET_TRIES;
use crate::backoff::Backoff;
use crate::decide::Seen;
use crate::facts;
use crate::wish::{Place, Wish, listed};
use crate::work::{Job, Trouble, Versions, seen};

/// Lists under way at a time, beside other work.
const LISTS_MAX: usize = 4;
/// How often a space is looked through in which we have nothing to look after.
const INVENTORY: Duration = Duration::from_secs(3600);
/// Connectors of others that are kept and reported.
const CONNECTORS_MAX: usize = 300;
/// All of them together, as they are reported.
const CONNECTORS_BYTES_MAX: usize = 160 * 1024;

/// What is known of whole spaces.
#[derive(Debug, Default)]
pub(super) struct Survey {
    spaces: BTreeMap<SpaceId, Listed>,
    /// Connectors that are not ours, of types that this agent knows.
    others: BTreeMap<(SpaceId, String), v1::SeenConnector>,
    n_running: usize,
}

/// When a space was looked through, and when it is next.
#[derive(Debug)]
struct Listed {
    running: bool,
    /// The next look for the inventory.
    due: Instant,
    /// Something of ours waits for a look.
    wanted: bool,
    /// After a failure.
    not_before: Instant,
    n_failures: u32,
    /// A list of it has ended, well or not.
    tried: bool,
    /// It was looked through, and everything in it was kept.
    known: bool,
}

impl Listed {
    fn new(now: Instant) -> Self {
        Self {
            running: false,
            due: now,
            wanted: false,
            not_before: now,
            n_failures: 0,
            tried: false,
            known: false,
        }
    }

    /// When to list it next; `None` while a list is under way.
    fn at(&self, now: Instant) -> Option<Instant> {
        let due = if self.wanted { now } else { self.due };
        (!self.running).then(|| due.max(self.not_before))
    }
}

impl Survey {
    /// These are the spaces to look through. What was seen in others is forgotten.
    pub(super) fn covers(&mut self, spaces: &BTreeSet<SpaceId>, now: Instant) {
        self.spaces
            .retain(|id, space| space.running || spaces.contains(id));
        self.others.retain(|(space, _), _| spaces.contains(space));
        for id in spaces {
            self.spaces
                .entry(id.clone())
                .or_insert_with(|| Listed::new(now));
        }
    }

    /// Somebody wants to know now who is there.
    pub(super) fn ask(&mut self, now: Instant) {
        for space in self.spaces.values_mut() {
            space.due = now;
        }
    }

    /// Something of ours in this space waits for a look.
    fn want(&mut self, id: &SpaceId, now: Instant) {
        let space = self
            .spaces
            .entry(id.clone())
            .or_insert_with(|| Listed::new(now));
        space.wanted = true;
    }

    /// The space to list now; else when the next one is due, or nothing before a list has ended.
    fn begin(&mut self, now: Instant) -> Result<SpaceId, Option<Instant>> {
        if self.n_running >= LISTS_MAX {
            return Err(None);
        }
        let due = self
            .spaces
            .iter_mut()
            .filter_map(|(id, space)| Some((space.at(now)?, id, space)))
            .min_by_key(|(at, id, space)| (*at, !space.wanted, *id));
        match due {
            Some((at, id, space)) if at <= now => {
                space.running = true;
                self.n_running += 1;
                Ok(id.clone())
            }
            other => Err(other.map(|(at, ..)| at)),
        }
    }

    /// A list has ended. True where it failed so that another one would not help.
    fn end(&mut self, id: &SpaceId, trouble: Option<&Trouble>, now: Instant) -> bool {
        self.n_running = self.n_running.saturating_sub(1);
        let Some(space) = self.spaces.get_mut(id) else {
            return false;
        };
        (space.running, space.tried) = (false, true);
        // A list that fails again and again must not hide what single looks can show.
        let is_stuck = space.n_failures.saturating_add(1) >= QUIET_TRIES;
        let hopeless = trouble.is_some_and(|trouble| {
            !trouble.retryable || (is_stuck && trouble.retry_after.is_none())
        });
        match trouble {
            None => (space.n_failures, space.wanted, space.due) = (0, false, now + INVENTORY),
            Some(_) => {
                space.n_failures = space.n_failures.saturating_add(1);
                space.not_before = now + Backoff::KIBANA.wait(space.n_failures);
                if hopeless {
                    (space.wanted, space.due) = (false, now + INVENTORY);
                }
            }
        }
        hopeless
    }

    /// Keeps what a list showed of others. True where that is news.
    fn keep(&mut self, id: &SpaceId, others: impl Iterator<Item = v1::SeenConnector>) -> bool {
        let in_it = self.others.extract_if(.., |(space, _), _| space == id);
        let before: Vec<v1::SeenConnector> = in_it.map(|(_, other)| other).collect();
        for other in others {
            self.others.insert((id.clone(), other.id.clone()), other);
        }
        let was_known = self
            .spaces
            .get_mut(id)
            .is_some_and(|space| std::mem::replace(&mut space.known, true));
        // What is dropped makes the inventory of its space incomplete until it is listed again.
        while self.others.len() > CONNECTORS_MAX
            && let Some(((space, _), _)) = self.others.pop_last()
        {
            if let Some(space) = self.spaces.get_mut(&space) {
                space.known = false;
            }
        }
        let after = self.others.iter().filter(|((space, _), _)| space == id);
        !was_known || !after.map(|(_, other)| other).eq(&before)
    }

    /// What to report of others and whether it is everything; `None` until every space was tried once.
    pub(super) fn inventory(
        &self,
        is_ours: impl Fn(&SpaceId, &str) -> bool,
    ) -> Option<(Vec<v1::SeenConnector>, bool)> {
        if self.spaces.is_empty() || !self.spaces.values().all(|space| space.tried) {
            return None;
        }
        let mut bytes = 0;
        let mut shown = Vec::new();
        let mut complete = self.spaces.values().all(|space| space.known);
        for ((space, id), other) in &self.others {
            if is_ours(space, id) {
                continue;
            }
            bytes += other.encoded_len();
            if bytes > CONNECTORS_BYTES_MAX {
                complete = false;
                break;
            }
            shown.push(other.clone());
        }
        Some((shown, complete))
    }
}

impl Reconciler {
    /// The spaces that Kibana shows, that have connectors, and that this agent accepts.
    pub(super) fn survey_covers(&mut self, visible: &[Space], now: Instant) {
        let accepted = |space: &&Space| {
            space.actions_enabled && listed(&self.accept.spaces, space.id.as_str())
        };
        let spaces = visible
            .iter()
            .filter(accepted)
            .map(|space| space.id.clone())
            .collect();
        self.survey.covers(&spaces, now);
    }

    /// Begins the lists that are due; gives when the next one is.
    pub(super) fn start_lists(&mut self, now: Instant) -> Option<Instant> {
        // Nothing is asked of a Kibana that does not answer.
        self.check.found.as_ref()?.status.as_ref()?;
        while self.has_room() {
            match self.survey.begin(now) {
                Ok(space) => self.begin(Job::List { space, began: now }),
                Err(due) => return due,
            }
        }
        None
    }

    /// When this binding is looked at again by itself. What is due already is asked for: a list of its space, where
    /// that can show it, else a look of its own. `None`: not before something happens.
    pub(super) fn idle_look(&mut self, place: &Place, now: Instant) -> Option<Instant> {
        let slot = self.slots.get_mut(place)?;
        let look_at = slot.seen_at + self.drift_interval;
        // Once it is gone, it is done with.
        let is_gone = slot.seen == Seen::Absent && slot.wish.goal.is_none();
        if look_at > now || is_gone {
            return (!is_gone).then_some(look_at);
        }
        if slot.seen == Seen::Unknown {
            return None;
        }
        if is_shown_by_lists(&slot.wish) {
            self.survey.want(&place.space, now);
        } else {
            slot.seen = Seen::Unknown;
        }
        None
    }

    /// Takes in what a list showed.
    pub(super) fn on_listed(
        &mut self,
        space: &SpaceId,
        began: Instant,
        result: Result<Vec<Observed>, Trouble>,
    ) {
        let now = Instant::now();
        let hopeless = self.survey.end(space, result.as_ref().err(), now);
        match result {
            Ok(all) => {
                self.confirm(space, began, &all);
                let ours = self.ids_of(space);
                let others = all
                    .iter()
                    .filter(|observed| !ours.contains(&observed.id))
                    .filter_map(|observed| facts::seen_connector(space, observed))
                    .take(CONNECTORS_MAX + 1);
                if self.survey.keep(space, others) {
                    self.publish_facts();
                }
            }
            Err(trouble) => {
                tracing::debug!(%space, class = %trouble.failure.class, reason = %trouble.failure.text, "cannot list a space's connectors");
                self.quiet.hear(&trouble, now);
                if matches!(
                    trouble.failure.class,
                    FailureClass::KibanaDown | FailureClass::KibanaAuth
                ) {
                    self.check.doubt(trouble.failure.class, now);
                }
                if hopeless {
                    self.look_one_by_one(space, now);
                }
                self.publish_facts();
            }
        }
    }

    /// What the list shows as it was known is confirmed; everything else gets a look of its own.
    fn confirm(&mut self, space: &SpaceId, began: Instant, all: &[Observed]) {
        let version = self.version();
        let mut referred = Vec::new();
        for (place, slot) in &mut self.slots {
            // A look or a write that came in between knows more.
            let older = slot.seen_at <= began && slot.seen != Seen::Unknown;
            if place.space != *space || !is_shown_by_lists(&slot.wish) || !older {
                continue;
            }
            let ours = all.iter().find(|ours| ours.id == slot.wish.connector_id);
            let versions = Versions::of(&slot.wish, &self.ledger.get(place), version);
            let shown = ours.map_or(Some(Seen::Absent), |ours| {
                seen(&slot.wish, versions, ours).ok()
            });
            if shown.as_ref() == Some(&slot.seen) {
                slot.seen_at = began;
            } else {
                slot.seen = Seen::Unknown;
            }
            let references = ours.and_then(|ours| ours.referenced_by_count);
            let known = self.ledger.get(place).references;
            if let Some(references) = references.filter(|references| *references != known) {
                referred.push((place.clone(), references));
            }
        }
        for (place, references) in referred {
            self.note_references(&place, references);
        }
    }

    fn look_one_by_one(&mut self, space: &SpaceId, now: Instant) {
        let due_before = now.checked_sub(self.drift_interval);
        for (place, slot) in &mut self.slots {
            let due = due_before.is_some_and(|due| slot.seen_at <= due);
            if place.space == *space && due && is_shown_by_lists(&slot.wish) {
                slot.seen = Seen::Unknown;
            }
        }
    }

    fn ids_of(&self, space: &SpaceId) -> BTreeSet<String> {
        self.slots
            .iter()
            .filter(|(place, _)| place.space == *space)
            .map(|(_, slot)| slot.wish.connector_id.clone())
            .collect()
    }

    /// Sends the facts again where something changed.
    pub(super) fn publish_facts(&mut self) {
        let Some(mut fresh) = self.checked.clone() else {
            return;
        };
        let ours: BTreeSet<(SpaceId, String)> = self
            .slots
            .iter()
            .map(|(place, slot)| (place.space.clone(), slot.wish.connector_id.clone()))
            .collect();
        let is_ours = |space: &SpaceId, id: &str| ours.contains(&(space.clone(), id.to_owned()));
        match self.survey.inventory(is_ours) {
            Some((connectors, complete)) => {
                (fresh.connectors, fresh.connectors_complete) = (connectors, complete);
            }
            // A look through new spaces is under way: what was known before is not wrong, but no longer everything.
            None => {
                if let Some(known) = &self.facts {
                    fresh.connectors.clone_from(&known.connectors);
                }
            }
        }
        let fresh = facts::bounded(fresh);
        let known = self.facts.as_ref();
        if !self.check.take_urgent() && known.is_some_and(|known| facts::same(known, &fresh)) {
            return;
        }
        self.outbox.facts(fresh.clone());
        self.facts = Some(fresh);
    }
}

/// Lists show what Kibana keeps; inference endpoints are not there.
fn is_shown_by_lists(wish: &Wish) -> bool {
    let surface = wish.spec.as_ref().and_then(|spec| {
        let driver = keyfleet_kibana::driver(&spec.connector_type)?;
        Some(driver.surface(&spec.config))
    });
    surface == Some(Surface::Kibana)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(n: usize) -> SpaceId {
        format!("team-{n}").parse().unwrap()
    }

    fn others(n: usize) -> impl Iterator<Item = v1::SeenConnector> {
        (0..n).map(|n| v1::SeenConnector {
            id: format!("{n:04}"),
            ..v1::SeenConnector::default()
        })
    }

    /// The count of connectors that are reported, and whether they are all.
    fn inventory(survey: &Survey) -> Option<(usize, bool)> {
        let (shown, complete) = survey.inventory(|_, _| false)?;
        Some((shown.len(), complete))
    }

    #[test]
    fn a_list_that_fails_again_and_again_hides_nothing() {
        let now = Instant::now();
        let check = |retry_after: Option<Duration>, expected: [bool; 4]| {
            let mut survey = Survey::default();
            survey.covers(&[space(1)].into(), now);
            let ended = expected.map(|_| {
                let trouble = Trouble {
                    retry_after,
                    ..Trouble::new(FailureClass::Timeout, "too slow", true)
                };
                survey.end(&space(1), Some(&trouble), now)
            });
            assert_eq!(ended, expected);
        };
        check(None, [false, false, true, true]);
        check(Some(Duration::from_secs(1)), [false; 4]);
    }

    #[test]
    fn a_few_lists_at_a_time_and_what_is_wanted_first() {
        let now = Instant::now();
        let mut survey = Survey::default();
        survey.covers(&(0..9).map(space).collect(), now);
        survey.want(&space(7), now);
        assert_eq!(survey.begin(now).unwrap(), space(7));
        let begun = std::iter::from_fn(|| survey.begin(now).ok()).count();
        assert_eq!(begun, LISTS_MAX - 1);
        assert!(!survey.end(&space(7), None, now));
        assert_ne!(survey.begin(now).unwrap(), space(7));
        // Without anything of ours it is looked through once an hour.
        for n in 0..9 {
            survey.end(&space(n), None, now);
        }
        assert_eq!(survey.begin(now).unwrap_err(), Some(now + INVENTORY));
        survey.want(&space(3), now);
        assert_eq!(survey.begin(now).unwrap(), space(3));
    }

    #[test]
    fn a_list_that_fails_waits_and_one_that_cannot_work_is_given_up() {
        let now = Instant::now();
        let mut survey = Survey::default();
        survey.covers(&[space(1)].into(), now);
        survey.want(&space(1), now);
        assert_eq!(survey.begin(now).unwrap(), space(1));
        let trouble = |retryable| Trouble::new(FailureClass::KibanaDown, "no", retryable);
        assert!(!survey.end(&space(1), Some(&trouble(true)), now));
        let again = survey.begin(now + Duration::from_secs(1)).unwrap();
        assert_eq!(inventory(&survey), Some((0, false)));
        assert!(survey.end(&again, Some(&trouble(false)), now));
        assert_eq!(survey.begin(now).unwrap_err(), Some(now + INVENTORY));
    }

    #[test]
    fn the_inventory_is_bounded_and_says_so() {
        let now = Instant::now();
        let mut survey = Survey::default();
        survey.covers(&(0..3).map(space).collect(), now);
        for n in 0..3 {
            assert_eq!(
                inventory(&survey),
                None,
                "not every space was looked through"
            );
            survey.end(&space(n), None, now);
            assert!(survey.keep(&space(n), others(CONNECTORS_MAX / 3)));
            assert!(!survey.keep(&space(n), others(CONNECTORS_MAX / 3)));
        }
        assert_eq!(inventory(&survey), Some((CONNECTORS_MAX, true)));
        survey.keep(&space(0), others(CONNECTORS_MAX));
        assert_eq!(inventory(&survey), Some((CONNECTORS_MAX, false)));
        // A space that is gone takes what was seen in it along.
        survey.covers(&[space(1)].into(), now);
        survey.keep(&space(1), others(2));
        assert_eq!(inventory(&survey), Some((2, true)));
    }
}
