//! What control knows of what an agent has, as long as its session lasts: what is news to it, and which keys it lacks.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::id::{Generation, KeyName, KeyVersion};
use keyfleet_proto::{Invalid, v1};

/// What tells two desired states apart.
pub(crate) type Mark = (Generation, bytes::Bytes);

/// A version of a Key.
pub(crate) type KeyId = (KeyName, KeyVersion);

/// What an agent has.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) told: Option<Mark>,
    rejected: Option<Mark>,
    held: BTreeSet<KeyId>,
    /// Keys that the agent asked for and that could not be sent yet.
    pub(crate) asked: BTreeSet<KeyId>,
}

/// The mark of a desired state.
pub(crate) fn mark(document: &v1::Desired) -> Mark {
    let generation = document.generation.unwrap_or_default();
    (generation.into(), document.digest.clone())
}

impl Told {
    /// As the agent says.
    ///
    /// # Errors
    /// Where a key has no name.
    pub(crate) fn by(hello: &v1::Hello) -> Result<Self, Invalid> {
        let generation = hello.generation;
        let last = hello.last_rejected.as_ref();
        let rejected = last.and_then(|last| Some((last.generation?.into(), last.digest.clone())));
        let read = |held: &v1::KeyHeld| {
            let name = Invalid::parse("hello.keys_held.key", &held.key)?;
            Ok((name, KeyVersion(held.version)))
        };
        Ok(Self {
            told: generation.map(|generation| (generation.into(), hello.digest.clone())),
            rejected,
            held: hello.keys_held.iter().map(read).collect::<Result<_, _>>()?,
            asked: BTreeSet::new(),
        })
    }

    /// True where the agent has this desired state.
    pub(crate) fn has(&self, document: &v1::Desired) -> bool {
        self.told.as_ref() == Some(&mark(document))
    }

    /// True where this is to be sent: the agent has it not and did not refuse it. A deployment that was never told
    /// anything has no desired state yet.
    pub(crate) fn is_news(&self, document: &v1::Desired) -> bool {
        let mark = mark(document);
        let is_empty = mark.0 == Generation::default();
        !is_empty && !self.has(document) && self.rejected.as_ref() != Some(&mark)
    }

    /// It was sent.
    pub(crate) fn sent(&mut self, mark: Mark) {
        self.told = Some(mark);
    }

    /// The agent refused it.
    pub(crate) fn refused(&mut self, mark: Mark) {
        self.rejected = Some(mark);
    }

    /// The keys that the agent needs and has not, of those that its desired state names; true where a binding still
    /// has to write with one.
    pub(crate) fn lacks(&mut self, named: BTreeMap<KeyId, bool>) -> Vec<KeyId> {
        self.held.retain(|key| named.contains_key(key));
        self.asked.retain(|key| named.contains_key(key));
        let needed = named.into_iter().filter(|(key, must_write)| {
            (*must_write || self.asked.contains(key)) && !self.held.contains(key)
        });
        needed.map(|(key, _)| key).collect()
    }

    /// A key was sent.
    pub(crate) fn has_key(&mut self, key: KeyId) {
        self.asked.remove(&key);
        self.held.insert(key);
    }

    /// The agent asks for a key that its desired state names: what cannot be sent now is sent when it can.
    pub(crate) fn asks(&mut self, key: KeyId) {
        self.held.remove(&key);
        self.asked.insert(key);
    }
}
