//! What control shall hear: the latest of everything, never a history.
//!
//! Whatever is said stays here until control says that it is stored. After a reconnect what was not acknowledged
//! is sent again; what was acknowledged is not, unless control asks for everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use keyfleet_proto::v1;
use keyfleet_proto::v1::agent_message::Message;
use prost::Message as _;
use tokio::sync::Notify;

use crate::wish::{KeyId, Place};

/// So much of statuses goes into one report: control reads no message that is many times as long.
const REPORT_BYTES: usize = 64 * 1024;

/// Written by the reconciler, emptied by the session. Its size is bounded by the number of bindings.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    answer: Option<Item<v1::DesiredAnswer>>,
    requests: BTreeSet<KeyId>,
    /// Bindings that wait for a live call.
    probes: Option<u32>,
    statuses: BTreeMap<Place, Item<v1::BindingStatus>>,
    facts: Option<Item<v1::KibanaFacts>>,
    /// Of the report that was sent last in this session.
    sequence: u64,
    /// The next report that can list every binding does so.
    full: bool,
    n_expected: usize,
}

#[derive(Debug)]
struct Item<T> {
    value: T,
    delivery: Delivery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Waiting,
    /// In the report with this sequence number, or just before it.
    Sent(u64),
    Stored,
}

impl<T> Item<T> {
    fn new(value: T) -> Self {
        Self {
            value,
            delivery: Delivery::Waiting,
        }
    }

    fn is_waiting(&self) -> bool {
        self.delivery == Delivery::Waiting
    }

    /// A new session knows nothing of what the old one sent.
    fn restart(&mut self) {
        if matches!(self.delivery, Delivery::Sent(_)) {
            self.delivery = Delivery::Waiting;
        }
    }

    fn acknowledge(&mut self, sequence: u64) {
        if matches!(self.delivery, Delivery::Sent(sent) if sent <= sequence) {
            self.delivery = Delivery::Stored;
        }
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.lock());
        self.filled.notify_one();
    }

    /// The answer to the latest desired state.
    pub(crate) fn answer(&self, answer: v1::DesiredAnswer) {
        self.change(|inner| inner.answer = Some(Item::new(answer)));
    }

    /// Asks for a key.
    pub(crate) fn request(&self, key: KeyId) {
        self.change(|inner| {
            inner.requests.insert(key);
        });
    }

    /// Asks for live calls, in this session.
    pub(crate) fn ask_probes(&self, count: u32) {
        self.change(|inner| inner.probes = Some(count));
    }

    /// The latest status of a binding.
    pub(crate) fn status(&self, place: Place, status: v1::BindingStatus) {
        self.change(|inner| drop(inner.statuses.insert(place, Item::new(status))));
    }

    /// The same status as an answer to a newer desired state that asks for the same try of the same goal.
    pub(crate) fn renew(&self, place: &Place, generation: v1::Generation) {
        self.change(|inner| {
            if let Some(item) = inner.statuses.get_mut(place) {
                item.value.generation = Some(generation);
                item.delivery = Delivery::Waiting;
            }
        });
    }

    /// How many bindings there are: a full report waits until each has a status.
    pub(crate) fn expect(&self, n_bindings: usize) {
        self.change(|inner| inner.n_expected = n_bindings);
    }

    /// What was said of this binding is no answer any more: it is gone, or asked for anew.
    pub(crate) fn forget(&self, place: &Place) {
        self.lock().statuses.remove(place);
    }

    /// The latest that is known of Kibana.
    pub(crate) fn facts(&self, facts: v1::KibanaFacts) {
        self.change(|inner| inner.facts = Some(Item::new(facts)));
    }

    /// Begins a session: everything that was not acknowledged is to be sent again. Gives the facts for `Hello`.
    pub(crate) fn begin_session(&self) -> Option<v1::KibanaFacts> {
        let mut inner = self.lock();
        inner.sequence = 0;
        inner.full = false;
        inner.probes = None;
        inner.statuses.values_mut().for_each(Item::restart);
        inner.answer.iter_mut().for_each(Item::restart);
        let facts = inner.facts.as_mut()?;
        facts.delivery = Delivery::Stored;
        Some(facts.value.clone())
    }

    /// Control wants the status of every binding.
    pub(crate) fn report_everything(&self) {
        self.change(|inner| inner.full = true);
    }

    /// Everything up to this report is stored.
    pub(crate) fn acknowledge(&self, sequence: u64) {
        let mut inner = self.lock();
        inner
            .statuses
            .values_mut()
            .for_each(|item| item.acknowledge(sequence));
        if let Some(facts) = &mut inner.facts {
            facts.acknowledge(sequence);
        }
        if let Some(answer) = &mut inner.answer {
            answer.acknowledge(sequence);
        }
    }

    /// True where the answer has left and every status is stored by control.
    pub(crate) fn is_settled(&self) -> bool {
        let inner = self.lock();
        !inner.answer.as_ref().is_some_and(Item::is_waiting)
            && inner
                .statuses
                .values()
                .all(|item| item.delivery == Delivery::Stored)
    }

    /// Waits until there may be something to send. Cancel safe.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// The next message to send, if there is one.
    pub(crate) fn next(&self) -> Option<Message> {
        let mut inner = self.lock();
        // Control takes in a stream in its order: once it has stored the next report, it has this too.
        let before = inner.sequence + 1;
        if let Some(answer) = inner.answer.as_mut().filter(|answer| answer.is_waiting()) {
            answer.delivery = Delivery::Sent(before);
            return Some(Message::DesiredAnswer(answer.value.clone()));
        }
        if let Some((key, version)) = inner.requests.pop_first() {
            return Some(Message::KeyRequest(v1::KeyRequest {
                key: key.to_string(),
                version: version.0,
            }));
        }
        if let Some(count) = inner.probes.take() {
            return Some(Message::ProbeRequest(v1::ProbeRequest { count }));
        }
        inner.report().map(Message::StatusReport)
    }
}

impl Inner {
    fn report(&mut self) -> Option<v1::StatusReport> {
        let full = self.full && self.statuses.len() >= self.n_expected;
        if full {
            self.full = false;
            self.statuses
                .values_mut()
                .for_each(|item| item.delivery = Delivery::Waiting);
        }
        // What does not fit goes with the next one.
        let waiting = self.statuses.values().filter(|item| item.is_waiting());
        let (mut n_fitting, mut bytes, n_waiting) = (0, 0, waiting.clone().count());
        for item in waiting {
            bytes += item.value.encoded_len();
            if n_fitting > 0 && bytes > REPORT_BYTES {
                break;
            }
            n_fitting += 1;
        }
        let full = full && n_fitting == n_waiting;
        let facts_waiting = self.facts.as_ref().is_some_and(Item::is_waiting);
        if !full && !facts_waiting && !self.statuses.values().any(Item::is_waiting) {
            return None;
        }
        self.sequence += 1;
        let sequence = self.sequence;
        let facts = self
            .facts
            .as_mut()
            .filter(|facts| facts.is_waiting())
            .map(|facts| {
                facts.delivery = Delivery::Sent(sequence);
                facts.value.clone()
            });
        let waiting = self.statuses.values_mut().filter(|item| item.is_waiting());
        let bindings = waiting
            .take(n_fitting)
            .map(|item| {
                item.delivery = Delivery::Sent(sequence);
                item.value.clone()
            })
            .collect();
        Some(v1::StatusReport {
            sequence,
            full,
            bindings,
            facts,
        })
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

    fn status(text: &str) -> v1::BindingStatus {
        v1::BindingStatus {
            text: text.to_owned(),
            ..v1::BindingStatus::default()
        }
    }

    fn report(outbox: &Outbox) -> Option<(u64, bool, Vec<String>)> {
        match outbox.next() {
            Some(Message::StatusReport(report)) => {
                let texts = report
                    .bindings
                    .into_iter()
                    .map(|status| status.text)
                    .collect();
                Some((report.sequence, report.full, texts))
            }
            None => None,
            Some(_) => panic!("not a report"),
        }
    }

    #[test]
    fn only_the_latest_is_sent_and_only_once() {
        let outbox = Outbox::default();
        outbox.status(place("a"), status("old"));
        outbox.status(place("a"), status("new"));
        outbox.status(place("b"), status("b"));
        assert_eq!(
            report(&outbox),
            Some((1, false, vec!["new".to_owned(), "b".to_owned()]))
        );
        assert_eq!(report(&outbox), None);
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again_after_a_reconnect() {
        let outbox = Outbox::default();
        outbox.status(place("a"), status("a"));
        report(&outbox);
        outbox.status(place("b"), status("b"));
        report(&outbox);
        outbox.acknowledge(1);
        assert!(!outbox.is_settled());
        outbox.begin_session();
        assert_eq!(report(&outbox), Some((1, false, vec!["b".to_owned()])));
        outbox.acknowledge(1);
        assert!(outbox.is_settled());
        outbox.begin_session();
        assert_eq!(report(&outbox), None);
        outbox.report_everything();
        assert_eq!(
            report(&outbox),
            Some((1, true, vec!["a".to_owned(), "b".to_owned()]))
        );
    }

    #[test]
    fn an_answer_is_sent_again_until_a_later_report_is_stored() {
        let outbox = Outbox::default();
        let answer = v1::DesiredAnswer {
            rejected: "why".to_owned(),
            ..v1::DesiredAnswer::default()
        };
        let is_answer = |message: Option<Message>| {
            assert_eq!(message, Some(Message::DesiredAnswer(answer.clone())));
        };
        outbox.status(place("a"), status("before"));
        report(&outbox);
        outbox.answer(answer.clone());
        outbox.acknowledge(1);
        assert!(!outbox.is_settled());
        is_answer(outbox.next());
        assert!(outbox.is_settled());
        assert_eq!(report(&outbox), None);
        // The report before it was stored, which says nothing about the answer.
        outbox.acknowledge(1);
        outbox.begin_session();
        outbox.status(place("a"), status("after"));
        is_answer(outbox.next());
        assert_eq!(report(&outbox), Some((1, false, vec!["after".to_owned()])));
        outbox.acknowledge(1);
        outbox.begin_session();
        assert_eq!(report(&outbox), None);
    }

    #[test]
    fn a_status_that_changes_while_its_report_is_under_way_is_sent_again() {
        let outbox = Outbox::default();
        outbox.status(place("a"), status("first"));
        report(&outbox);
        outbox.status(place("a"), status("second"));
        outbox.acknowledge(1);
        assert_eq!(report(&outbox), Some((2, false, vec!["second".to_owned()])));
    }

    #[test]
    fn what_is_too_much_for_one_report_goes_in_several() {
        let outbox = Outbox::default();
        let long = "x".repeat(REPORT_BYTES / 3);
        outbox.expect(4);
        for connector in ["a", "b", "c", "d"] {
            outbox.status(place(connector), status(&long));
        }
        outbox.report_everything();
        let n_texts = |report: Option<(u64, bool, Vec<String>)>| {
            report.map(|(sequence, full, texts)| (sequence, full, texts.len()))
        };
        assert_eq!(n_texts(report(&outbox)), Some((1, false, 2)));
        outbox.acknowledge(1);
        assert!(!outbox.is_settled());
        assert_eq!(n_texts(report(&outbox)), Some((2, false, 2)));
        assert_eq!(report(&outbox), None);
        outbox.acknowledge(2);
        assert!(outbox.is_settled());
        // One that is longer than a report goes alone.
        outbox.status(place("a"), status(&"x".repeat(2 * REPORT_BYTES)));
        outbox.status(place("b"), status("b"));
        assert_eq!(n_texts(report(&outbox)), Some((3, false, 1)));
        assert_eq!(n_texts(report(&outbox)), Some((4, false, 1)));
    }

    #[test]
    fn a_full_report_waits_until_it_is_full() {
        let outbox = Outbox::default();
        outbox.report_everything();
        assert_eq!(
            report(&outbox),
            Some((1, true, Vec::new())),
            "nothing is expected"
        );
        outbox.expect(2);
        outbox.report_everything();
        outbox.status(place("a"), status("a"));
        assert_eq!(report(&outbox), Some((2, false, vec!["a".to_owned()])));
        outbox.status(place("b"), status("b"));
        assert_eq!(
            report(&outbox),
            Some((3, true, vec!["a".to_owned(), "b".to_owned()]))
        );
    }

    #[test]
    fn a_newer_desired_state_is_answered_even_where_nothing_changed() {
        let outbox = Outbox::default();
        outbox.status(place("a"), status("a"));
        report(&outbox);
        outbox.acknowledge(1);
        outbox.renew(
            &place("a"),
            v1::Generation {
                epoch: 1,
                counter: 2,
            },
        );
        assert_eq!(report(&outbox), Some((2, false, vec!["a".to_owned()])));
    }
}
