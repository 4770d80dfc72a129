//! A model of one Kibana and of the provider behind it: the truth that agents can only ask for.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::binding::Assignment;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{ConnectorName, KeyName, KeyVersion, Revision, SpaceId};

/// One connector in one space.
pub(crate) type Place = (SpaceId, ConnectorName);

/// One version of a Key.
pub(crate) type KeyId = (KeyName, KeyVersion);

/// What a Kibana holds in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) assignment: Assignment,
    pub(crate) key: KeyId,
}

/// One Kibana.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kibana {
    pub(crate) is_down: bool,
    /// How live calls fail with what has never worked here.
    pub(crate) change_fails: Option<FailureClass>,
    /// How every live call fails.
    pub(crate) broken: Option<FailureClass>,
    pub(crate) holds: BTreeMap<Place, Held>,
    /// What has worked here.
    worked: BTreeSet<(Place, Assignment)>,
    /// Writes and removals that were carried out.
    pub(crate) writes: u64,
}

/// What the provider and the definitions are like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Provider {
    /// Key versions that it refuses.
    pub(crate) refused: BTreeSet<KeyId>,
    /// Revisions that ask for a model that is not there.
    pub(crate) no_model: BTreeSet<(ConnectorName, Revision)>,
    /// Its credit is used up.
    pub(crate) no_credit: bool,
}

impl Kibana {
    /// One that runs this already, and it works.
    pub(crate) fn start_with(&mut self, place: Place, held: Held) {
        self.worked.insert((place.clone(), held.assignment));
        self.holds.insert(place, held);
    }

    pub(crate) fn write(&mut self, place: &Place, held: Held) {
        self.writes += 1;
        self.holds.insert(place.clone(), held);
    }

    pub(crate) fn delete(&mut self, place: &Place) {
        if self.holds.remove(place).is_some() {
            self.writes += 1;
        }
    }

    /// Whether a live call would succeed now, without making it.
    pub(crate) fn works(&self, place: &Place, provider: &Provider) -> Result<(), FailureClass> {
        if self.is_down {
            return Err(FailureClass::KibanaDown);
        }
        let Some(held) = self.holds.get(place) else {
            return Err(FailureClass::Conflict);
        };
        if let Some(class) = self.broken {
            return Err(class);
        }
        let has_worked = self.worked.contains(&(place.clone(), held.assignment));
        if let (Some(class), false) = (self.change_fails, has_worked) {
            return Err(class);
        }
        let model = (place.1.clone(), held.assignment.revision);
        if provider.refused.contains(&held.key) {
            return Err(FailureClass::Auth);
        } else if provider.no_model.contains(&model) {
            return Err(FailureClass::Model);
        } else if provider.no_credit {
            return Err(FailureClass::Quota);
        }
        Ok(())
    }

    /// A live call.
    pub(crate) fn call(&mut self, place: &Place, provider: &Provider) -> Result<(), FailureClass> {
        self.works(place, provider)?;
        if let Some(held) = self.holds.get(place) {
            self.worked.insert((place.clone(), held.assignment));
        }
        Ok(())
    }
}
