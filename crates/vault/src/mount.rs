//! What is mounted where a key lies: KV with versions, KV without, or something else.

use std::sync::PoisonError;

use keyfleet_core::key::KeyLocation;
use rustify::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};

use crate::answer::{Data, Mount};
use crate::{Error, Vault};

/// An engine that keys can lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// KV version 1: one value, no versions, no metadata.
    Unversioned,
    /// KV version 2.
    Versioned,
}

/// `vaultrs` has no request for this one. Vault answers it to every token that may do anything below the mount.
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

impl Vault {
    /// What is mounted there; asked once. Where Vault does not tell, it is taken for KV version 2, whose own answers
    /// then say what is wrong.
    pub(crate) async fn engine(&self, location: &KeyLocation) -> Result<Engine, Error> {
        let known = self.engines().get(&location.mount).copied();
        if let Some(known) = known {
            return Ok(known);
        }
        let request = ReadMount {
            path: format!("{}/{}", location.mount, location.path),
        };
        let found = match self.call(&request).await {
            Ok(answer) => answer.parse::<Data<Mount>>().ok(),
            Err(Error::Denied { .. } | Error::MissingMount { .. }) => None,
            Err(error) => return Err(error),
        };
        let Some(Data { data: mount }) = found else {
            return Ok(Engine::Versioned);
        };
        let engine = engine_of(&mount).ok_or_else(|| Error::WrongEngine {
            mount: location.mount.clone(),
            found: mount.engine,
        })?;
        self.engines().insert(location.mount.clone(), engine);
        Ok(engine)
    }

    /// After a 404: the engine may have been replaced or upgraded.
    pub(crate) fn forget_engine(&self, location: &KeyLocation) {
        self.engines().remove(&location.mount);
    }

    fn engines(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeMap<String, Engine>> {
        let engines = self.shared.engines.lock();
        engines.unwrap_or_else(PoisonError::into_inner)
    }
}

fn engine_of(mount: &Mount) -> Option<Engine> {
    let options = mount.options.as_ref();
    let version = options.and_then(|options| options.get("version"));
    match (mount.engine.as_str(), version.map(String::as_str)) {
        ("kv", Some("2")) => Some(Engine::Versioned),
        ("kv" | "generic", _) => Some(Engine::Unversioned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_told_by_its_type_and_version() {
        let cases = [
            ("kv", Some("2"), Some(Engine::Versioned)),
            ("kv", Some("1"), Some(Engine::Unversioned)),
            ("kv", None, Some(Engine::Unversioned)),
            ("generic", None, Some(Engine::Unversioned)),
            ("pki", None, None),
        ];
        for (engine, version, expected) in cases {
            let options = version.map(|v| [("version".to_owned(), v.to_owned())].into());
            let mount = Mount {
                engine: engine.to_owned(),
                options,
            };
            assert_eq!(engine_of(&mount), expected, "{engine} {version:?}");
        }
    }
}
