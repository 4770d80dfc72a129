//! Kibana's versions, and since which one each behaviour is there.
//!
//! Every boundary the simulator knows is a row here or in `schema`, so that a corrected fact is a changed number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A Kibana version, for example 9.4.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    major: u16,
    minor: u16,
    patch: u16,
    snapshot: bool,
}

/// Why a text is not a version that can be simulated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a Kibana version that can be simulated; write 8.0 to 9.99, for example 9.4.0"
)]
pub struct InvalidVersion(String);

/// The first release (major, minor) of a behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Since(pub(crate) u16, pub(crate) u16);

/// POST with an id in the path (kibana#155392).
pub(crate) const ID_IN_PATH: Since = Since(8, 8);
/// The id may be a slug of at most 36 characters; before, it must be a UUID (kibana#255922).
pub(crate) const ID_SLUG: Since = Since(9, 4);
/// `is_system_action` in connector objects.
pub(crate) const SYSTEM_ACTION_FLAG: Since = Since(8, 10);
/// `is_connector_type_deprecated` in connector objects; `is_deprecated` in connector types.
pub(crate) const TYPE_DEPRECATED_FLAG: Since = Since(9, 0);
/// `.gen-ai` and the other types of language models are marked as deprecated (kibana#261591).
pub(crate) const GEN_AI_DEPRECATED: Since = Since(9, 5);
/// `auth_mode` in connector objects.
pub(crate) const AUTH_MODE: Since = Since(9, 4);
/// `source` in connector types.
pub(crate) const TYPE_SOURCE: Since = Since(9, 3);
/// Errors of the zod schemas, and "connector type" instead of "action type" in them.
pub(crate) const ZOD_TEXTS: Since = Since(9, 3);
/// Certificates as secrets of the provider `Other`.
pub(crate) const PKI_SECRETS: Since = Since(9, 1);
/// The connector was called "Generative AI" before.
pub(crate) const NAMED_OPENAI: Since = Since(8, 12);
/// `.gemini` takes the file of a service account and nothing else. The exact release is not confirmed.
pub(crate) const SERVICE_ACCOUNT_ONLY: Since = Since(9, 2);
/// A provider's 429 counts as the user's error.
pub(crate) const RATE_LIMIT_IS_USER_ERROR: Since = Since(9, 1);
/// `elastic-api-version` on every answer of a public route.
pub(crate) const API_VERSION_HEADER: Since = Since(9, 0);
/// `build_flavor` and `build_date` in `/api/status`.
pub(crate) const BUILD_FLAVOR: Since = Since(8, 10);
/// `solution` in a space.
pub(crate) const SPACE_SOLUTION: Since = Since(8, 16);
/// Lists leave out `.inference` connectors without an endpoint (kibana#217641).
pub(crate) const MISSING_ENDPOINT_HIDES: Since = Since(9, 1);
/// Errors of Elasticsearch in a hook reach the caller. The exact release is not confirmed.
pub(crate) const HOOK_ERRORS_SHOWN: Since = Since(9, 1);
/// Internal routes refuse callers from outside.
pub(crate) const INTERNAL_RESTRICTED: Since = Since(9, 0);

impl Version {
    /// Whether a behaviour that began with `since` is there.
    pub(crate) fn has(self, since: Since) -> bool {
        (self.major, self.minor) >= (since.0, since.1)
    }

    /// Whether it is a build between releases.
    pub(crate) fn is_snapshot(self) -> bool {
        self.snapshot
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidVersion(text.to_owned());
        let (number, snapshot) = match text.strip_suffix("-SNAPSHOT") {
            Some(number) => (number, true),
            None => (text, false),
        };
        let parts: Vec<u16> = number
            .split('.')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| invalid())?;
        let (major, minor, patch) = match parts.as_slice() {
            [major, minor] => (*major, *minor, 0),
            [major, minor, patch] => (*major, *minor, *patch),
            _ => return Err(invalid()),
        };
        match (major, minor) {
            (8 | 9, 0..=99) => Ok(Self {
                major,
                minor,
                patch,
                snapshot,
            }),
            _ => Err(invalid()),
        }
    }
}

/// As `/api/status` prints it: without the `-SNAPSHOT` mark.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl TryFrom<String> for Version {
    type Error = InvalidVersion;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        let mark = if version.snapshot { "-SNAPSHOT" } else { "" };
        format!("{version}{mark}")
    }
}
