//! Key values in memory: one read per Key and version for the whole fleet, wiped when nobody needs them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::{Duration, Instant};

use keyfleet_core::id::{KeyName, KeyVersion};
use keyfleet_core::key::{Key, KeyLocation};
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
    slots: Arc<SyncMutex<Slots>>,
}

/// By Key too: at a place without versions each Key counts for itself.
type Slots = BTreeMap<(KeyName, KeyLocation, KeyVersion), Slot>;

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
    ///
    /// What was read, now or before, counts only where `is_it` knows it again: KV version 1 gives whatever it holds now,
    /// and a secret that was made anew counts its versions from 1 again.
    pub(crate) async fn value(
        &self,
        key: &Key,
        version: KeyVersion,
        is_it: impl Fn(&SecretString) -> bool,
    ) -> Result<SecretString, NotServed> {
        let slot = self.slot(key, version);
        let mut read = slot.lock().await;
        match &*read {
            Read::Done(value) if is_it(value) => return Ok(value.clone()),
            Read::Failed(at, why) if at.elapsed() < FAILURE_SHARED => return Err(why.clone()),
            Read::Done(_) | Read::Failed(..) | Read::Never => {}
        }
        let location = &key.location;
        let found = match self.vault.read(location, Some(version)).await {
            Ok(found) if is_it(&found.value) => Ok(found.value),
            Ok(_) => Err(NotServed(format!(
                "Vault now holds another value at {location} than it had as {version}"
            ))),
            Err(err) => Err(NotServed(err.to_string())),
        };
        *read = match &found {
            Ok(value) => Read::Done(value.clone()),
            Err(why) => Read::Failed(Instant::now(), why.clone()),
        };
        found
    }

    /// Keeps a value that was read to find out whether it is new, as if somebody had just asked for it.
    pub(crate) async fn keep(&self, key: &Key, version: KeyVersion, value: SecretString) {
        let slot = self.slot(key, version);
        *slot.lock().await = Read::Done(value);
    }

    /// Wipes what nobody has needed for a while.
    pub(crate) fn wipe_unneeded(&self) {
        self.slots()
            .retain(|_, slot| slot.needed_at.elapsed() < KEPT_AFTER_LAST_NEED);
    }

    fn slot(&self, key: &Key, version: KeyVersion) -> Arc<Mutex<Read>> {
        let mut slots = self.slots();
        let slot = slots
            .entry((key.name.clone(), key.location.clone(), version))
            .or_insert_with(|| Slot {
                read: Arc::default(),
                needed_at: Instant::now(),
            });
        slot.needed_at = Instant::now();
        slot.read.clone()
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use keyfleet_core::fleet::Selector;
    use keyfleet_core::key::KeyLocation;
    use secrecy::ExposeSecret as _;

    use super::*;

    /// Nobody answers: what is served comes from memory.
    fn ring(dir: &std::path::Path) -> KeyRing {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = crate::config::load(None, Some(dir.to_owned())).unwrap();
        let settings = keyfleet_vault::Settings {
            address: "http://127.0.0.1:9".parse().unwrap(),
            ..config.vault
        };
        KeyRing::new(Vault::new(&settings).unwrap())
    }

    fn key(name: &str) -> Key {
        Key {
            name: name.parse().unwrap(),
            location: KeyLocation {
                mount: "secret".to_owned(),
                path: "keyfleet/openai".to_owned(),
                field: "api_key".into(),
            },
            allowed_hosts: Vec::new(),
            scope: Selector::default(),
            rotation: keyfleet_core::key::Rotation::default(),
        }
    }

    async fn ask(ring: &KeyRing, name: &str, value: &str) -> Option<String> {
        let is_it = |found: &SecretString| found.expose_secret() == value;
        let found = ring.value(&key(name), KeyVersion(2), is_it).await.ok()?;
        Some(found.expose_secret().to_owned())
    }

    #[tokio::test]
    async fn two_keys_at_one_place_that_count_for_themselves_never_get_each_others_values() {
        let dir = tempfile::tempdir().unwrap();
        let ring = ring(dir.path());
        let keep = async |name: &str, value: &str| {
            ring.keep(&key(name), KeyVersion(2), value.into()).await;
        };
        keep("older", "first").await;
        // The other Key was made later: its second version is the third of the older one.
        keep("newer", "second").await;
        for _ in 0..2 {
            assert_eq!(ask(&ring, "older", "first").await.as_deref(), Some("first"));
            assert_eq!(
                ask(&ring, "newer", "second").await.as_deref(),
                Some("second")
            );
        }
    }

    #[tokio::test]
    async fn a_value_in_memory_that_is_not_the_version_asked_for_is_not_served() {
        let dir = tempfile::tempdir().unwrap();
        let ring = ring(dir.path());
        ring.keep(&key("openai"), KeyVersion(2), "another".into())
            .await;
        assert_eq!(ask(&ring, "openai", "the one").await, None);
    }
}
