//! New versions of Keys: noticed in Vault's metadata, read once, rolled out.

use keyfleet_core::id::KeyVersion;
use keyfleet_core::key::{Key, KeyState};
use keyfleet_seal::shown;
use keyfleet_store::{KeyVersionRow, Tx};
use keyfleet_vault::{VersionInfo, VersionState};

use super::start::{refresh_goals, start_rollouts};
use super::{App, KEYFLEET};
use crate::clock;
use crate::error::Error;

impl App {
    /// Asks Vault for the newest version of every Key and rolls out what is new.
    pub(crate) async fn poll_keys(&self) -> Result<(), Error> {
        let keys = self.store.read(|tx| Ok::<_, Error>(tx.keys()?)).await?;
        for row in keys {
            self.poll_key(&row.key, &row.vault_status).await?;
        }
        Ok(())
    }

    async fn poll_key(&self, key: &Key, last_status: &str) -> Result<(), Error> {
        let name = key.name.clone();
        let known = self
            .store
            .read(move |tx| Ok::<_, Error>(tx.key_versions(&name)?))
            .await?;
        let newest = known.first().map(|row| row.version.0).unwrap_or_default();
        let looked = self.look(key).await;
        let changed = looked
            .as_ref()
            .map_or_else(|_| Vec::new(), |info| readability(&known, info));
        let found = match looked {
            Ok(info) => self.newer(key, &info, newest).await,
            Err(status) => Err(status),
        };
        let (status, found) = match found {
            Ok(found) => ("ok".to_owned(), found),
            Err(status) => (status, None),
        };
        if found.is_none() && changed.is_empty() && status == last_status {
            return Ok(());
        }
        if status != "ok" {
            tracing::warn!(key.name = %key.name, vault.status = %status, "Vault does not serve a key");
        }
        let (name, now) = (key.name.clone(), clock::now());
        let write = move |tx: &Tx<'_>| {
            tx.set_vault_status(&name, &status, now)?;
            for (version, readable) in changed {
                tx.set_readable(&name, version, readable)?;
            }
            if let Some(version) = &found {
                tx.insert_key_version(&name, version)?;
                let goals = refresh_goals(tx, now)?;
                let cause = format!("key {name} has version {} in Vault", version.version.0);
                start_rollouts(tx, &goals.spread(), &cause, KEYFLEET, now)?;
            }
            Ok::<_, Error>(())
        };
        self.store.write(write).await?;
        self.changed();
        Ok(())
    }

    /// A version of a Key beyond `known`, read; `None` where there is none; else a sentence for people.
    pub(crate) async fn newest_version(
        &self,
        key: &Key,
        known: u64,
    ) -> Result<Option<KeyVersionRow>, String> {
        let info = self.look(key).await?;
        self.newer(key, &info, known).await
    }

    async fn look(&self, key: &Key) -> Result<VersionInfo, String> {
        let vault = self.keyring.vault();
        let info = vault.current_version(&key.location).await;
        info.map_err(|err| err.to_string())
    }

    async fn newer(
        &self,
        key: &Key,
        info: &VersionInfo,
        known: u64,
    ) -> Result<Option<KeyVersionRow>, String> {
        let version = info.current;
        if version.0 < known {
            return Err(format!(
                "Vault has version {} at {}, but version {known} was seen before: the secret was made anew or an older Vault answers; write it until its version is above {known}, or make a new Key",
                version.0, key.location
            ));
        }
        if info.state != VersionState::Readable {
            return Err(format!(
                "version {} at {} is deleted",
                version.0, key.location
            ));
        }
        if version.0 == known {
            return Ok(None);
        }
        let value = self
            .keyring
            .value(&key.location, version)
            .await
            .map_err(|err| err.to_string())?;
        Ok(Some(KeyVersionRow {
            version,
            state: KeyState::Pending,
            fingerprint: self.fingerprint.fingerprint(&value),
            shown: shown(&value),
            first_seen: clock::now(),
            readable: true,
        }))
    }
}

/// The versions whose value Vault has lost, or has again, since it was asked last.
fn readability(known: &[KeyVersionRow], info: &VersionInfo) -> Vec<(KeyVersion, bool)> {
    let now = |row: &KeyVersionRow| info.readable.contains(&row.version);
    let changed = known.iter().filter(|row| row.readable != now(row));
    changed.map(|row| (row.version, now(row))).collect()
}
