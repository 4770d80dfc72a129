//! Key values in memory: one read per (path, version) for the whole fleet, wiped when nobody needs them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::{Duration, Instant};

use keyfleet_core::id::KeyVersion;
use keyfleet_core::key::KeyLocation;
use keyfleet_vault::Vault;
use secrecy::SecretString;
use tokio::sync::Mutex;

/// Plaintext stays this long after the last need (design 10).
const KEPT_AFTER_LAST_NEED: Duration = Duration::from_secs(15 * 60);

/// Whoever asks within this time after a failed read is told the same: a fleet that waits for a key does not
/// queue up in front of a Vault that hangs.
const FAILURE_SHARED: Duration = Duration::from_secs(5);

/// Vault does not give a value: why, in a sentence without any text of an answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotServed(String);

/// Values read from Vault; cheap to clone.
#[derive(Clone)]
pub(crate) struct KeyRing {
    vault: Vault,
    slots: Arc<SyncMutex<BTreeMap<(KeyLocation, KeyVersion), Slot>>>,
}

struct Slot {
    read: Arc<Mutex<Read>>,
    needed_at: Instant,
}

/// What came of the last read.
#[derive(Default)]
enum Read {
    #[default]
    Never,
    Failed(Instant, NotServed),
    Done(SecretString),
}

impl KeyRing {
    pub(crate) fn new(vault: Vault) -> Self {
        Self {
            vault,
            slots: Arc::default(),
        }
    }

    /// The Vault behind it.
    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The value of a version: from memory, or by the one read that all who ask at once share.
    pub(crate) async fn value(
        &self,
        location: &KeyLocation,
        version: KeyVersion,
    ) -> Result<SecretString, NotServed> {
        let slot = self.slot(location, version);
        let mut read = slot.lock().await;
        match &*read {
            Read::Done(value) => return Ok(value.clone()),
            Read::Failed(at, why) if at.elapsed() < FAILURE_SHARED => return Err(why.clone()),
            Read::Failed(..) | Read::Never => {}
        }
        match self.vault.read(location, Some(version)).await {
            Ok(found) => {
                *read = Read::Done(found.value.clone());
                Ok(found.value)
            }
            Err(err) => {
                let why = NotServed(err.to_string());
                *read = Read::Failed(Instant::now(), why.clone());
                Err(why)
            }
        }
    }

    /// Wipes what nobody has needed for a while.
    pub(crate) fn wipe_unneeded(&self) {
        self.slots()
            .retain(|_, slot| slot.needed_at.elapsed() < KEPT_AFTER_LAST_NEED);
    }

    fn slot(&self, location: &KeyLocation, version: KeyVersion) -> Arc<Mutex<Read>> {
        let mut slots = self.slots();
        let slot = slots
            .entry((location.clone(), version))
            .or_insert_with(|| Slot {
                read: Arc::default(),
                needed_at: Instant::now(),
            });
        slot.needed_at = Instant::now();
        slot.read.clone()
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<(KeyLocation, KeyVersion), Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
