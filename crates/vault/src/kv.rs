//! Values and versions in a KV version 2 engine.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use keyfleet_core::Timestamp;
use keyfleet_core::id::KeyVersion;
use keyfleet_core::key::KeyLocation;
use rustify::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use secrecy::SecretString;
use vaultrs::api::kv2::requests::{ReadSecretMetadataRequest, ReadSecretRequest};
use vaultrs::api::kv2::responses::{ReadSecretMetadataResponse, SecretMetadata};

use crate::answer::{Data, Leaf, Mount, Secret};
use crate::{Error, Vault, retry, value};

/// The value of a key in one version.
#[derive(Debug)]
pub struct KeyValue {
    /// Which version this is.
    pub version: KeyVersion,
    /// The value, checked: not empty, visible ASCII, no admin key.
    pub value: SecretString,
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
    ///
    /// # Errors
    /// The version, the path or the field is missing, deleted or destroyed; the value cannot be a key; or Vault
    /// cannot be asked. See [`Error`].
    pub async fn read(
        &self,
        location: &KeyLocation,
        version: Option<KeyVersion>,
    ) -> Result<KeyValue, Error> {
        let (mount, path) = place(location)?;
        let request = ReadSecretRequest {
            mount,
            path,
            version: version.map(|version| version.0),
        };
        self.retrying_missing(|| async {
            self.shared.reads.fetch_add(1, Ordering::Relaxed);
            let answer = self.call(&request).await?;
            match answer.parse::<Data<Secret>>() {
                Ok(secret) => take(location, secret.data),
                Err(_) if answer.status == http::StatusCode::NOT_FOUND => {
                    Err(self.missing(location, version).await)
                }
                Err(error) => Err(error),
            }
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
        let (mount, path) = place(location)?;
        let request = ReadSecretMetadataRequest { mount, path };
        self.retrying_missing(|| async {
            let answer = self.call(&request).await?;
            if answer.status == http::StatusCode::NOT_FOUND {
                return Err(self.missing(location, None).await);
            }
            let metadata = answer.parse::<Data<ReadSecretMetadataResponse>>()?.data;
            let info = version_info(location, &metadata, Timestamp::now())
                .ok_or_else(|| answer.bad())??;
            self.remember(location, &info)?;
            Ok(info)
        })
        .await
    }

    /// A standby that lags behind does not know a new secret yet, so one 404 is looked at again before it counts.
    async fn retrying_missing<T, F: Future<Output = Result<T, Error>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, Error> {
        match attempt().await {
            Err(
                first @ (Error::MissingPath { .. } | Error::MissingVersion { .. } | Error::Stale),
            ) => {
                tracing::debug!(error = %first, "asking Vault once more");
                tokio::time::sleep(retry::pause(&Error::Stale, 1).unwrap_or_default()).await;
                attempt().await
            }
            other => other,
        }
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

    /// Why there was a 404: another engine, or really no secret.
    async fn missing(&self, location: &KeyLocation, version: Option<KeyVersion>) -> Error {
        if let Some(found) = self.other_engine(location).await {
            return Error::WrongEngine {
                mount: location.mount.clone(),
                found,
            };
        }
        match version {
            Some(version) => Error::MissingVersion {
                at: at(location),
                version,
            },
            None => Error::MissingPath { at: at(location) },
        }
    }

    /// What is mounted there, if it is surely no KV version 2. A refusal to tell leaves the question open.
    async fn other_engine(&self, location: &KeyLocation) -> Option<String> {
        let answer = self.call(&ReadMount { path: at(location) }).await.ok()?;
        let mount = answer.parse::<Data<Mount>>().ok()?.data;
        let version = mount
            .options
            .as_ref()
            .and_then(|options| options.get("version"))
            .map_or("1", String::as_str);
        match (mount.engine.as_str(), version) {
            ("kv", "2") => None,
            ("kv" | "generic", _) => Some("a KV version 1 engine".to_owned()),
            (other, _) => Some(format!("of type `{other}`")),
        }
    }
}

/// `vaultrs` has no request for this one.
struct ReadMount {
    path: String,
}

impl Endpoint for ReadMount {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        format!("sys/internal/ui/mounts/{}", self.path)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::GET
    }
}

fn at(location: &KeyLocation) -> String {
    format!("{}/{}", location.mount, location.path)
}

/// Mount and path, refused where they would name another place than they seem to: a `..` is dropped while the URL is
/// built.
fn place(location: &KeyLocation) -> Result<(String, String), Error> {
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
    if segments().any(|segment| segment.chars().any(char::is_control)) || location.field.is_empty()
    {
        return wrong("mount and path have no control characters, and the field has a name");
    }
    Ok((location.mount.clone(), location.path.clone()))
}

fn take(location: &KeyLocation, secret: Secret) -> Result<KeyValue, Error> {
    let version = KeyVersion(secret.metadata.version);
    let mut fields = match secret.data {
        Some(fields) => fields,
        None if secret.metadata.destroyed => {
            return Err(Error::Destroyed {
                at: at(location),
                version,
            });
        }
        None => {
            return Err(Error::Deleted {
                at: at(location),
                version,
            });
        }
    };
    let Some(Leaf::Text(text)) = fields.remove(&location.field) else {
        return Err(Error::MissingField {
            at: location.to_string(),
            version,
        });
    };
    match value::check(&text) {
        Ok(value) => Ok(KeyValue { version, value }),
        Err(fault) => Err(Error::Value {
            at: location.to_string(),
            version,
            fault,
        }),
    }
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
            field: "api_key".to_owned(),
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
            assert_eq!(place(&location(mount, path)).is_ok(), ok, "{mount} {path}");
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
