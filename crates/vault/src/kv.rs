//! Values and versions in KV engines: version 2 counts versions, version 1 holds one value and knows no others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use http::StatusCode;
use keyfleet_core::Timestamp;
use keyfleet_core::id::KeyVersion;
use keyfleet_core::key::{KeyField, KeyLocation};
use secrecy::SecretString;
use vaultrs::api::kv1::requests::GetSecretRequest;
use vaultrs::api::kv2::requests::{ReadSecretMetadataRequest, ReadSecretRequest};
use vaultrs::api::kv2::responses::{ReadSecretMetadataResponse, SecretMetadata};

use crate::answer::{Data, Leaf, Secret};
use crate::mount::Engine;
use crate::{Error, Vault, retry, value};

/// How often Vault is asked before "not there" counts.
const LOOKS_AT_UNKNOWN: u32 = 2;
/// The same for a secret that was there before: standbys were measured to lag up to 0.2 s, these looks take 1 s.
const LOOKS_AT_KNOWN: u32 = 5;

/// The value of a key in one version.
#[derive(Debug)]
pub struct KeyValue {
    /// Which version this is; `None` in KV version 1, which has none.
    pub version: Option<KeyVersion>,
    /// The value, checked: not empty, visible ASCII, no admin key. Of a key of several parts one JSON object of texts.
    pub value: SecretString,
}

/// What Vault says of the newest value of a key.
#[derive(Debug)]
pub enum Newest {
    /// KV version 2: its number; the value was not read.
    Versioned(VersionInfo),
    /// KV version 1: the value itself, which is all there is. Whoever asks has to tell by it whether it is new.
    Unversioned(SecretString),
}

/// What the metadata of a secret says, without reading the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// The newest version.
    pub current: KeyVersion,
    /// Whether that one can be read.
    pub state: VersionState,
    /// Every version that can be read: neither deleted, nor destroyed, nor pruned.
    pub readable: BTreeSet<KeyVersion>,
    /// When the secret itself was made, RFC 3339. Another time than before: it was removed and made anew, and its
    /// versions count from 1 again.
    pub created: Timestamp,
}

/// Whether a version can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionState {
    /// It can.
    Readable,
    /// It is deleted and can be brought back.
    Deleted,
    /// It is gone for good.
    Destroyed,
}

/// The newest state of a secret that was ever seen. Behind a load balancer an older answer may follow a newer one.
pub(crate) struct Seen {
    created: Timestamp,
    current: u64,
}

impl Vault {
    /// Reads the value of a key: `version`, or the newest. One request for data at the server, see [`Vault::reads`].
    /// KV version 1 gives the only value it has, whatever `version` says.
    ///
    /// # Errors
    /// The version, the path or the field is missing, deleted or destroyed; the value cannot be a key; or Vault
    /// cannot be asked. See [`Error`].
    pub async fn read(
        &self,
        location: &KeyLocation,
        version: Option<KeyVersion>,
    ) -> Result<KeyValue, Error> {
        check(location)?;
        self.retrying_missing(location, || async {
            match self.engine(location).await? {
                Engine::Versioned => self.read_version(location, version).await,
                Engine::Unversioned => self.read_only_value(location).await,
            }
        })
        .await
    }

    /// Asks what is newest. KV version 2 tells the number without the value; of KV version 1 the value is read.
    ///
    /// # Errors
    /// As [`Vault::read`].
    pub async fn newest(&self, location: &KeyLocation) -> Result<Newest, Error> {
        check(location)?;
        self.retrying_missing(location, || async {
            Ok(match self.engine(location).await? {
                Engine::Versioned => Newest::Versioned(self.version_info(location).await?),
                Engine::Unversioned => {
                    Newest::Unversioned(self.read_only_value(location).await?.value)
                }
            })
        })
        .await
    }

    /// Asks for the newest version without reading the secret; needs `read` on `<mount>/metadata/<path>` only.
    ///
    /// It never goes backwards: an answer older than one seen before is not believed.
    ///
    /// # Errors
    /// The path is missing, or Vault cannot be asked. See [`Error`].
    pub async fn current_version(&self, location: &KeyLocation) -> Result<VersionInfo, Error> {
        check(location)?;
        self.retrying_missing(location, || self.version_info(location))
            .await
    }

    async fn read_version(
        &self,
        location: &KeyLocation,
        version: Option<KeyVersion>,
    ) -> Result<KeyValue, Error> {
        let request = ReadSecretRequest {
            mount: location.mount.clone(),
            path: location.path.clone(),
            version: version.map(|version| version.0),
        };
        self.shared.reads.fetch_add(1, Ordering::Relaxed);
        let answer = self.call(&request).await?;
        match answer.parse::<Data<Secret>>() {
            Ok(secret) => take(location, secret.data),
            Err(_) if answer.status == StatusCode::NOT_FOUND => {
                Err(self.missing(location, version))
            }
            Err(error) => Err(error),
        }
    }

    async fn read_only_value(&self, location: &KeyLocation) -> Result<KeyValue, Error> {
        let request = GetSecretRequest {
            mount: location.mount.clone(),
            path: location.path.clone(),
        };
        self.shared.reads.fetch_add(1, Ordering::Relaxed);
        let answer = self.call(&request).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(self.missing(location, None));
        }
        let fields = answer.parse::<Data<BTreeMap<String, Leaf>>>()?.data;
        take_value(location, None, &fields)
    }

    async fn version_info(&self, location: &KeyLocation) -> Result<VersionInfo, Error> {
        let request = ReadSecretMetadataRequest {
            mount: location.mount.clone(),
            path: location.path.clone(),
        };
        let answer = self.call(&request).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(self.missing(location, None));
        }
        let metadata = answer.parse::<Data<ReadSecretMetadataResponse>>()?.data;
        let info =
            version_info(location, &metadata, Timestamp::now()).ok_or_else(|| answer.bad())??;
        self.remember(location, &info)?;
        Ok(info)
    }

    /// A standby that lags behind does not know a new secret yet, so one 404 is looked at again before it counts, and
    /// more than once where the secret was there before.
    async fn retrying_missing<T, F: Future<Output = Result<T, Error>>>(
        &self,
        location: &KeyLocation,
        attempt: impl Fn() -> F,
    ) -> Result<T, Error> {
        let looks = if self.was_seen(location) {
            LOOKS_AT_KNOWN
        } else {
            LOOKS_AT_UNKNOWN
        };
        for look in 1..looks {
            match attempt().await {
                Err(
                    first @ (Error::MissingPath { .. }
                    | Error::MissingVersion { .. }
                    | Error::ApiPath { .. }
                    | Error::Stale),
                ) => {
                    tracing::debug!(error = %first, "asking Vault once more");
                    tokio::time::sleep(retry::pause(&Error::Stale, look).unwrap_or_default()).await;
                }
                Err(gone @ Error::MissingMount { .. }) => {
                    self.forget_engine(location);
                    return Err(gone);
                }
                other => return other,
            }
        }
        attempt().await
    }

    fn was_seen(&self, location: &KeyLocation) -> bool {
        let seen = self.shared.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner)
            .contains_key(&at(location))
    }

    fn remember(&self, location: &KeyLocation, info: &VersionInfo) -> Result<(), Error> {
        let mut seen = self
            .shared
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = seen
            .get(&at(location))
            .map(|known| (known.created, known.current));
        if known.is_some_and(|known| (info.created, info.current.0) < known) {
            return Err(Error::Stale);
        }
        seen.insert(
            at(location),
            Seen {
                created: info.created,
                current: info.current.0,
            },
        );
        Ok(())
    }

    /// Why there was a 404. The next look asks again what is mounted there.
    fn missing(&self, location: &KeyLocation, version: Option<KeyVersion>) -> Error {
        self.forget_engine(location);
        let at = at(location);
        let api = ["data", "metadata"].into_iter().find(|segment| {
            let rest = location.path.strip_prefix(segment);
            rest.is_some_and(|rest| rest.starts_with('/'))
        });
        match (version, api) {
            (_, Some(with)) => Error::ApiPath { at, with },
            (Some(version), None) => Error::MissingVersion { at, version },
            (None, None) => Error::MissingPath { at },
        }
    }
}

fn at(location: &KeyLocation) -> String {
    format!("{}/{}", location.mount, location.path)
}

/// Refuses mount and path where they would name another place than they seem to: a `..` is dropped while the URL is
/// built.
fn check(location: &KeyLocation) -> Result<(), Error> {
    let wrong = |rule| {
        Err(Error::Location {
            at: location.to_string(),
            rule,
        })
    };
    let segments = || location.mount.split('/').chain(location.path.split('/'));
    if segments().any(|segment| matches!(segment, "" | "." | "..")) {
        return wrong(
            "mount and path have no empty, `.` or `..` segment and no slash at their ends",
        );
    }
    if segments().any(|segment| segment.chars().any(char::is_control))
        || !names_fields(&location.field)
    {
        return wrong("mount and path have no control characters, and the field has a name");
    }
    Ok(())
}

fn names_fields(field: &KeyField) -> bool {
    match field {
        KeyField::One(field) => !field.is_empty(),
        KeyField::Parts(parts) => {
            let mut names = parts.iter().flat_map(|(part, field)| [part, field]);
            !parts.is_empty() && names.all(|name| !name.is_empty())
        }
    }
}

fn take(location: &KeyLocation, secret: Secret) -> Result<KeyValue, Error> {
    let version = KeyVersion(secret.metadata.version);
    let at = at(location);
    match secret.data {
        Some(fields) => take_value(location, Some(version), &fields),
        None if secret.metadata.destroyed => Err(Error::Destroyed { at, version }),
        None => Err(Error::Deleted { at, version }),
    }
}

fn take_value(
    location: &KeyLocation,
    version: Option<KeyVersion>,
    fields: &BTreeMap<String, Leaf>,
) -> Result<KeyValue, Error> {
    let value = match &location.field {
        KeyField::One(field) => take_field(location, version, fields.get(field)),
        KeyField::Parts(parts) => take_parts(location, version, parts, fields),
    };
    value.map(|value| KeyValue { version, value })
}

fn take_field(
    location: &KeyLocation,
    version: Option<KeyVersion>,
    leaf: Option<&Leaf>,
) -> Result<SecretString, Error> {
    let at = location.to_string();
    match leaf {
        Some(Leaf::Text(text)) => {
            value::check(text).map_err(|fault| Error::Value { at, version, fault })
        }
        Some(Leaf::Other) | None => Err(Error::MissingField { at, version }),
    }
}

/// Every part, or an error that names the first that is missing or wrong.
fn take_parts(
    location: &KeyLocation,
    version: Option<KeyVersion>,
    parts: &BTreeMap<String, String>,
    fields: &BTreeMap<String, Leaf>,
) -> Result<SecretString, Error> {
    let mut texts = BTreeMap::new();
    for (part, field) in parts {
        let Some(Leaf::Text(text)) = fields.get(field) else {
            return Err(Error::MissingPart {
                at: at(location),
                version,
                part: part.clone(),
                field: field.clone(),
            });
        };
        let text = value::check_part(text).map_err(|fault| Error::Part {
            at: format!("{}#{field}", at(location)),
            version,
            part: part.clone(),
            fault,
        })?;
        texts.insert(part.as_str(), text);
    }
    value::join(&texts).map_err(|fault| Error::Value {
        at: location.to_string(),
        version,
        fault,
    })
}

/// `None` where the metadata cannot be understood.
fn version_info(
    location: &KeyLocation,
    metadata: &ReadSecretMetadataResponse,
    now: Timestamp,
) -> Option<Result<VersionInfo, Error>> {
    let created = metadata.created_time.parse().ok()?;
    // A secret can have metadata and no version yet.
    if metadata.current_version == 0 {
        return Some(Err(Error::MissingPath { at: at(location) }));
    }
    let newest = metadata
        .versions
        .get(&metadata.current_version.to_string())?;
    let is_readable = |entry: &SecretMetadata| state(entry, now) == Some(VersionState::Readable);
    let readable = metadata.versions.iter();
    let readable = readable
        .filter(|(_, entry)| is_readable(entry))
        .filter_map(|(number, _)| number.parse().ok().map(KeyVersion))
        .collect();
    Some(Ok(VersionInfo {
        current: KeyVersion(metadata.current_version),
        state: state(newest, now)?,
        readable,
        created,
    }))
}

/// With `delete_version_after`, a deletion time may lie ahead.
fn state(version: &SecretMetadata, now: Timestamp) -> Option<VersionState> {
    if version.destroyed {
        return Some(VersionState::Destroyed);
    }
    if version.deletion_time.is_empty() {
        return Some(VersionState::Readable);
    }
    let deleted_at: Timestamp = version.deletion_time.parse().ok()?;
    Some(if deleted_at <= now {
        VersionState::Deleted
    } else {
        VersionState::Readable
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(mount: &str, path: &str) -> KeyLocation {
        KeyLocation {
            mount: mount.to_owned(),
            path: path.to_owned(),
            field: "api_key".into(),
        }
    }

    #[test]
    fn a_location_names_exactly_one_place() {
        for (mount, path, ok) in [
            ("secret", "openai/team-a", true),
            ("team/kv", "a b/ü?#%2f", true),
            ("secret", "../sys/raw", false),
            ("secret", "a/./b", false),
            ("secret", "/a", false),
            ("secret", "a/", false),
            ("", "a", false),
            ("secret", "a\tb", false),
        ] {
            assert_eq!(check(&location(mount, path)).is_ok(), ok, "{mount} {path}");
        }
    }

    #[test]
    fn a_deletion_that_lies_ahead_is_none_yet() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let cases = [
            ("", false, VersionState::Readable),
            ("2026-11-23T12:00:01.5Z", false, VersionState::Readable),
            ("2026-11-23T11:59:59Z", false, VersionState::Deleted),
            ("", true, VersionState::Destroyed),
        ];
        for (deletion_time, destroyed, expected) in cases {
            let version = SecretMetadata {
                created_time: String::new(),
                deletion_time: deletion_time.into(),
                destroyed,
            };
            assert_eq!(state(&version, now), Some(expected), "{deletion_time}");
        }
    }
}
