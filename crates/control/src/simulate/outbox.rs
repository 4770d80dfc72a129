//! What a model agent has to say: the latest of everything, until control says that it is stored.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_proto::v1;
use v1::agent_message::Message;

use super::kibana::{KeyId, Place};

/// How far something said has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Waiting,
    /// In the report of this number, or just before it.
    Sent(u64),
    Stored,
}

#[derive(Debug, Clone)]
struct Item<T> {
    value: T,
    delivery: Delivery,
}

/// What an agent has to say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox {
    answer: Option<Item<v1::DesiredAnswer>>,
    requests: BTreeSet<KeyId>,
    statuses: BTreeMap<Place, Item<v1::BindingStatus>>,
    sequence: u64,
    /// The next report that can list every binding does so.
    is_full: bool,
}

impl<T> Item<T> {
    fn new(value: T) -> Self {
        let delivery = Delivery::Waiting;
        Self { value, delivery }
    }

    fn is_waiting(&self) -> bool {
        self.delivery == Delivery::Waiting
    }

    /// A new session knows nothing of what the old one sent.
    fn restart(&mut self) {
        if self.delivery != Delivery::Stored {
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
    pub(crate) fn answer(&mut self, answer: v1::DesiredAnswer) {
        self.answer = Some(Item::new(answer));
    }

    pub(crate) fn request(&mut self, key: KeyId) {
        self.requests.insert(key);
    }

    pub(crate) fn status(&mut self, place: Place, status: v1::BindingStatus) {
        self.statuses.insert(place, Item::new(status));
    }

    /// The same status as an answer to a newer desired state.
    pub(crate) fn renew(&mut self, place: &Place, generation: Option<v1::Generation>) {
        if let Some(item) = self.statuses.get_mut(place) {
            item.value.generation = generation;
            item.delivery = Delivery::Waiting;
        }
    }

    pub(crate) fn forget(&mut self, place: &Place) {
        self.statuses.remove(place);
    }

    pub(crate) fn begin_session(&mut self) {
        (self.sequence, self.is_full) = (0, false);
        self.statuses.values_mut().for_each(Item::restart);
        self.answer.iter_mut().for_each(Item::restart);
    }

    /// Control wants to hear everything again.
    pub(crate) fn report_everything(&mut self) {
        self.is_full = true;
    }

    pub(crate) fn acknowledge(&mut self, sequence: u64) {
        let statuses = self.statuses.values_mut();
        statuses.for_each(|item| item.acknowledge(sequence));
        if let Some(answer) = &mut self.answer {
            answer.acknowledge(sequence);
        }
    }

    /// The next message, if there is one; `n_bindings` are expected in a full report.
    pub(crate) fn next(&mut self, n_bindings: usize) -> Option<Message> {
        let before = self.sequence + 1;
        if let Some(answer) = self.answer.as_mut().filter(|answer| answer.is_waiting()) {
            answer.delivery = Delivery::Sent(before);
            return Some(Message::DesiredAnswer(answer.value.clone()));
        }
        if let Some((key, version)) = self.requests.pop_first() {
            return Some(Message::KeyRequest(v1::KeyRequest {
                key: key.to_string(),
                version: version.0,
            }));
        }
        self.report(n_bindings).map(Message::StatusReport)
    }

    fn report(&mut self, n_bindings: usize) -> Option<v1::StatusReport> {
        let full = self.is_full && self.statuses.len() >= n_bindings;
        if full {
            self.is_full = false;
            let statuses = self.statuses.values_mut();
            statuses.for_each(|item| item.delivery = Delivery::Waiting);
        }
        if !full && !self.statuses.values().any(Item::is_waiting) {
            return None;
        }
        self.sequence += 1;
        let sequence = self.sequence;
        let waiting = self.statuses.values_mut().filter(|item| item.is_waiting());
        let bindings = waiting
            .map(|item| {
                item.delivery = Delivery::Sent(sequence);
                item.value.clone()
            })
            .collect();
        Some(v1::StatusReport {
            sequence,
            full,
            bindings,
            facts: None,
        })
    }
}
