//! Key values in memory: one read per (path, version) for the whole fleet, wiped when nobody needs them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keyfleet_core::id::KeyVersion;
use keyfleet_core::key::KeyLocation;
use keyfleet_vault::{Error, Vault};
use secrecy::SecretString;
use tokio::sync::OnceCell;

/// Plaintext stays this long after the last need (design 10).
const KEPT_AFTER_LAST_NEED: Duration = Duration::from_secs(15 * 60);

/// Values read from Vault; cheap to clone.
#[derive(Clone)]
pub(crate) struct KeyRing {
    vault: Vault,
    slots: Arc<Mutex<BTreeMap<(KeyLocation, KeyVersion), Slot>>>,
}

struct Slot {
    value: Arc<OnceCell<SecretString>>,
    needed_at: Instant,
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
    ) -> Result<SecretString, Error> {
        let cell = self.cell(location, version);
        let read = || async {
            let read = self.vault.read(location, Some(version)).await?;
            Ok(read.value)
        };
        cell.get_or_try_init(read).await.cloned()
    }

    /// Wipes what nobody has needed for a while.
    pub(crate) fn wipe_unneeded(&self) {
        self.slots()
            .retain(|_, slot| slot.needed_at.elapsed() < KEPT_AFTER_LAST_NEED);
    }

    fn cell(&self, location: &KeyLocation, version: KeyVersion) -> Arc<OnceCell<SecretString>> {
        let mut slots = self.slots();
        let slot = slots
            .entry((location.clone(), version))
            .or_insert_with(|| Slot {
                value: Arc::default(),
                needed_at: Instant::now(),
            });
        slot.needed_at = Instant::now();
        slot.value.clone()
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<(KeyLocation, KeyVersion), Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
