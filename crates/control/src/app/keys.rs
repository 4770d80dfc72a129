//! New versions of Keys: noticed in Vault's metadata (KV version 2) or by their fingerprint (KV version 1), read once,
//! rolled out.

use std::time::Duration;

use keyfleet_core::Timestamp;
use keyfleet_core::id::KeyVersion;
use keyfleet_core::key::{Key, KeyField, KeyState};
use keyfleet_core::travel::may_serve;
use keyfleet_seal::shown;
use keyfleet_store::{KeyRow, KeyVersionRow, Tx};
use keyfleet_vault::{Newest, VersionInfo, VersionState};
use secrecy::SecretString;

use super::App;
use super::campaign::version_found;
use crate::clock;
use crate::error::Error;

/// Between two reads of values that only show whether they are new (KV version 1): a fleet of Keys does not hit Vault
/// all at once.
const BETWEEN_VALUES: Duration = Duration::from_millis(50);

/// What Vault serves, and nothing is wrong.
const OK: &str = "ok";

/// What a look at Vault brought.
struct Look {
    /// Versions whose value Vault has lost, or has again.
    readable: Vec<(KeyVersion, bool)>,
    /// A version nobody has seen yet; else why Vault does not serve the Key, in a sentence for people.
    new: Result<Option<KeyVersionRow>, String>,
}

/// What was seen of a Key.
struct Known {
    /// Its versions, the newest first.
    rows: Vec<KeyVersionRow>,
    /// What the next one is called where Vault does not say.
    next: KeyVersion,
}

/// What of it is news.
struct Seen {
    status: String,
    readable: Vec<(KeyVersion, bool)>,
    found: Option<KeyVersionRow>,
}

impl Seen {
    /// Stores it; a new version is rolled out, or a campaign's.
    fn store(self, tx: &Tx<'_>, key: &Key, now: Timestamp) -> Result<(), Error> {
        let name = &key.name;
        // Vault takes its time: the Key may be gone meanwhile, or another of its name be there.
        let is_it = |row: &KeyRow| row.key.name == *name && row.key.location == key.location;
        if !tx.keys()?.iter().any(is_it) {
            return Ok(());
        }
        tx.set_vault_status(name, &self.status, now)?;
        for (version, readable) in self.readable {
            tx.set_readable(name, version, readable)?;
        }
        if let Some(version) = &self.found {
            version_found(tx, name, version, now)?;
        }
        Ok(())
    }
}

impl App {
    /// Asks Vault for the newest version of every Key and rolls out what is new.
    pub(crate) async fn poll_keys(&self) -> Result<(), Error> {
        let keys = self.store.read(|tx| Ok::<_, Error>(tx.keys()?)).await?;
        for row in keys {
            if self.shutdown.is_cancelled() {
                break;
            }
            self.poll_key(&row.key, &row.vault_status).await?;
        }
        Ok(())
    }

    async fn poll_key(&self, key: &Key, last_status: &str) -> Result<(), Error> {
        let known = self.known_versions(key).await?;
        let look = self.look(key, &known, Some(last_status)).await;
        let (status, found) = match look.new {
            Ok(found) => (self.served(), found),
            Err(status) => (status, None),
        };
        if found.is_none() && look.readable.is_empty() && status == last_status {
            return Ok(());
        }
        if status != OK {
            tracing::warn!(key.name = %key.name, vault.status = %status, "there is trouble with a key in Vault");
        }
        let (key, readable) = (key.clone(), look.readable);
        let seen = Seen {
            status,
            readable,
            found,
        };
        let write = move |tx: &Tx<'_>| seen.store(tx, &key, clock::now());
        self.store.write(write).await?;
        self.changed();
        Ok(())
    }

    /// A version of a Key that nobody has seen yet, read; `None` where there is none; else a sentence for people.
    pub(crate) async fn newest_version(&self, key: &Key) -> Result<Option<KeyVersionRow>, String> {
        let known = self.known_versions(key).await;
        let known = known.map_err(|err| err.to_string())?;
        self.look(key, &known, None).await.new
    }

    /// The versions of a Key that were seen, the newest first.
    async fn known_versions(&self, key: &Key) -> Result<Known, Error> {
        let name = key.name.clone();
        let read = move |tx: &Tx<'_>| {
            Ok::<_, Error>(Known {
                rows: tx.key_versions(&name)?,
                next: tx.next_key_version(&name)?,
            })
        };
        self.store.read(read).await
    }

    /// What a Key that Vault serves is told as: the login may be about to end.
    fn served(&self) -> String {
        match self.keyring.vault().login_trouble() {
            Some(trouble) => {
                format!("served, but our login at Vault cannot be renewed and ends: {trouble}")
            }
            None => OK.to_owned(),
        }
    }

    /// `last_status` is what the look before said; `None` where there is no look after this one.
    async fn look(&self, key: &Key, known: &Known, last_status: Option<&str>) -> Look {
        if let Err(refused) = may_serve(&key.location, &self.config.key_paths) {
            return Look {
                readable: Vec::new(),
                new: Err(refused.to_string()),
            };
        }
        match self.keyring.vault().newest(&key.location).await {
            Ok(Newest::Versioned(info)) => Look {
                readable: readability(&known.rows, &info),
                new: self.newer(key, &info, &known.rows).await,
            },
            Ok(Newest::Unversioned(value)) => {
                tokio::time::sleep(BETWEEN_VALUES).await;
                self.counted(key, value, known, last_status).await
            }
            Err(err) => Look {
                readable: Vec::new(),
                new: Err(err.to_string()),
            },
        }
    }

    async fn newer(
        &self,
        key: &Key,
        info: &VersionInfo,
        known: &[KeyVersionRow],
    ) -> Result<Option<KeyVersionRow>, String> {
        let (version, known) = (info.current, newest(known));
        if version < known {
            return Err(format!(
                "Vault has version {} at {}, but version {} was seen before: the secret was made anew or an older Vault answers; write it until its version is above {2}, or make a new Key",
                version.0, key.location, known.0
            ));
        }
        match info.state {
            VersionState::Readable => {}
            VersionState::Deleted => {
                return Err(format!(
                    "version {} at {} is deleted: undelete it, or write a new one",
                    version.0, key.location
                ));
            }
            VersionState::Destroyed => {
                return Err(format!(
                    "version {} at {} is destroyed and cannot be brought back: write a new one",
                    version.0, key.location
                ));
            }
        }
        if version == known {
            return Ok(None);
        }
        let value = self.keyring.value(key, version, |_| true).await;
        let value = value.map_err(|err| err.to_string())?;
        Ok(Some(self.seen(key, version, &value)))
    }

    /// KV version 1 has no versions: another value than the newest we know is the next version, and no version before
    /// it can be read any more.
    async fn counted(
        &self,
        key: &Key,
        value: SecretString,
        Known { rows: known, next }: &Known,
        last_status: Option<&str>,
    ) -> Look {
        let fingerprint = self.fingerprint.fingerprint(&value);
        let is_it = |row: &&KeyVersionRow| row.fingerprint == fingerprint;
        let newest = newest(known);
        let only = |version: KeyVersion| {
            let changed = known
                .iter()
                .filter(move |row| row.readable != (row.version == version));
            changed
                .map(move |row| (row.version, row.version == version))
                .collect()
        };
        if known.first().filter(is_it).is_some() {
            return Look {
                readable: only(newest),
                new: Ok(None),
            };
        }
        // A standby that lags behind gives an older value too. By the next look it has caught up.
        if let Some(old) = known.iter().find(is_it) {
            let status = format!(
                "Vault holds the value of version {} at {} again; it counts as new if it is still there at the next look",
                old.version.0, key.location
            );
            if last_status != Some(status.as_str()) {
                return Look {
                    readable: Vec::new(),
                    new: last_status.map_or(Ok(None), |_| Err(status)),
                };
            }
        }
        let version = *next;
        let row = self.seen(key, version, &value);
        self.keyring.keep(key, version, value).await;
        Look {
            readable: only(version),
            new: Ok(Some(row)),
        }
    }

    fn seen(&self, key: &Key, version: KeyVersion, value: &SecretString) -> KeyVersionRow {
        KeyVersionRow {
            version,
            state: KeyState::Pending,
            fingerprint: self.fingerprint.fingerprint(value),
            shown: shown_as(key, value),
            first_seen: clock::now(),
            readable: true,
            released: true,
        }
    }
}

/// What people see of a value. Of several parts it is their names: none of them has a beginning that tells its kind.
fn shown_as(key: &Key, value: &SecretString) -> String {
    match &key.location.field {
        KeyField::One(_) => shown(value),
        KeyField::Parts(_) => key.location.field.parts().join("+"),
    }
}

fn newest(known: &[KeyVersionRow]) -> KeyVersion {
    known.first().map_or(KeyVersion(0), |row| row.version)
}

/// The versions whose value Vault has lost, or has again, since it was asked last. An answer that is older than what
/// was seen says nothing of that.
fn readability(known: &[KeyVersionRow], info: &VersionInfo) -> Vec<(KeyVersion, bool)> {
    if info.current < newest(known) {
        return Vec::new();
    }
    let now = |row: &KeyVersionRow| info.readable.contains(&row.version);
    let changed = known.iter().filter(|row| row.readable != now(row));
    changed.map(|row| (row.version, now(row))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::scenario::world::World;

    #[tokio::test]
    async fn a_counted_version_gets_no_number_that_a_lost_history_may_have_given() {
        let check = async |world: &World, expected: u64| {
            let key = world.write(|tx| Ok(tx.keys()?.remove(0).key)).await;
            let known = world.app.known_versions(&key).await.unwrap();
            let value = SecretString::from("sk-proj-another");
            let look = world.app.counted(&key, value, &known, Some(OK)).await;
            assert_eq!(look.new.unwrap().unwrap().version, KeyVersion(expected));
        };
        let world = World::new(&[]).await;
        check(&world, 2).await;
        check(&world.restored().await, 2_001).await;
    }

    #[tokio::test]
    async fn of_a_key_of_parts_their_names_are_shown() {
        let world = World::new(&[]).await;
        let mut key = world.write(|tx| Ok(tx.keys()?.remove(0).key)).await;
        let parts = [("secret", "b"), ("accessKey", "a")];
        let parts = parts.map(|(part, field)| (part.to_owned(), field.to_owned()));
        key.location.field = KeyField::Parts(parts.into());
        let value = SecretString::from(r#"{"accessKey":"sk-proj-canary","secret":"canary"}"#);
        let row = world.app.seen(&key, KeyVersion(1), &value);
        assert_eq!(row.shown, "accessKey+secret");
        assert_eq!(row.fingerprint, world.app.fingerprint.fingerprint(&value));
    }

    #[tokio::test]
    async fn a_key_that_was_deleted_while_vault_was_asked_gets_no_version() {
        let world = World::new(&[]).await;
        let seen = |version| Seen {
            status: OK.to_owned(),
            readable: Vec::new(),
            found: Some(KeyVersionRow {
                version: KeyVersion(version),
                state: KeyState::Pending,
                fingerprint: format!("f{version}"),
                shown: String::new(),
                first_seen: clock::now(),
                readable: true,
                released: true,
            }),
        };
        let key = world.write(|tx| Ok(tx.keys()?.remove(0).key)).await;
        let versions = async |key: &Key| {
            let name = key.name.clone();
            world
                .write(move |tx| Ok(tx.key_versions(&name)?.len()))
                .await
        };
        let (asked, first) = (key.clone(), seen(2));
        world
            .write(move |tx| first.store(tx, &asked, clock::now()))
            .await;
        assert_eq!(versions(&key).await, 2);
        // Deleted, and made anew for another place.
        let (asked, late) = (key.clone(), seen(3));
        let mut moved = key.clone();
        moved.location.path = "keyfleet/other".to_owned();
        world
            .write(move |tx| {
                tx.delete_key(&asked.name)?;
                tx.put_key(&moved)?;
                late.store(tx, &asked, clock::now())
            })
            .await;
        assert_eq!(versions(&key).await, 0);
    }
}
