//! Vault's answers: their shapes, and what a refusal means.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use crate::Error;

/// One answer. The body is wiped on drop, for it may hold a key or a token.
pub(crate) struct Answer {
    pub(crate) at: String,
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    /// Host and port of a `Location` header.
    pub(crate) location: Option<String>,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// `{"data": …}`, around nearly everything.
#[derive(Deserialize)]
pub(crate) struct Data<T> {
    pub(crate) data: T,
}

/// Answer of a login or a renewal.
#[derive(Deserialize)]
pub(crate) struct Granted {
    pub(crate) auth: Grant,
}

#[derive(Deserialize)]
pub(crate) struct Grant {
    pub(crate) client_token: SecretString,
    /// Seconds; 0 never expires.
    pub(crate) lease_duration: u64,
    #[serde(default)]
    pub(crate) renewable: bool,
}

/// What `sys/wrapping/lookup` says.
#[derive(Deserialize)]
pub(crate) struct WrappingInfo {
    pub(crate) creation_path: String,
}

/// What a wrapped secret id is unwrapped to.
#[derive(Deserialize)]
pub(crate) struct SecretId {
    pub(crate) secret_id: SecretString,
    /// Logins it is good for; 0 = any number.
    #[serde(default)]
    pub(crate) secret_id_num_uses: u64,
}

/// What `lookup-self` says; the token itself, which it repeats, is not read.
#[derive(Deserialize)]
pub(crate) struct TokenInfo {
    /// Seconds left; 0 never expires.
    pub(crate) ttl: u64,
    #[serde(default)]
    pub(crate) renewable: bool,
}

/// One version of a secret. `data` is `null` where the version is deleted or destroyed.
#[derive(Deserialize)]
pub(crate) struct Secret {
    pub(crate) data: Option<BTreeMap<String, Leaf>>,
    pub(crate) metadata: SecretMetadata,
}

#[derive(Deserialize)]
pub(crate) struct SecretMetadata {
    pub(crate) version: u64,
    #[serde(default)]
    pub(crate) destroyed: bool,
}

/// What kind of engine is mounted at a path (`sys/internal/ui/mounts/<path>`).
#[derive(Deserialize)]
pub(crate) struct Mount {
    #[serde(rename = "type")]
    pub(crate) engine: String,
    pub(crate) options: Option<BTreeMap<String, String>>,
}

/// A field of a secret: a text, or anything else, which cannot be a key and is not kept.
pub(crate) enum Leaf {
    Text(Zeroizing<String>),
    Other,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Refusal {
    errors: Vec<String>,
}

impl Answer {
    /// Reads the body as `T`. The reader's own error is dropped: it can quote a value.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|_| self.bad())
    }

    pub(crate) fn bad(&self) -> Error {
        Error::BadAnswer {
            at: self.at.clone(),
            status: self.status.as_u16(),
        }
    }

    /// The error this answer stands for, unless it is a success or a 404, which means something else to each caller.
    pub(crate) fn check(self) -> Result<Self, Error> {
        let errors = self.errors();
        let says = |text: &str| errors.iter().any(|error| error.contains(text));
        match self.status.as_u16() {
            404 if says("namespace not found") => Err(Error::MissingNamespace),
            404 if says("no handler for route") => Err(Error::MissingMount { at: self.at }),
            404 if self.parse::<IgnoredAny>().is_err() => Err(self.bad()),
            200..=299 | 404 => Ok(self),
            300..=399 => Err(Error::Redirected {
                to: self
                    .location
                    .unwrap_or_else(|| "another address".to_owned()),
            }),
            403 => Err(Error::Denied { at: self.at }),
            // HashiCorp's Vault says 412, OpenBao a 429 without a word.
            // HashiCorp's health code for a standby that cannot reach the active node.
            474 => Err(Error::NoLeader),
            412 | 472 | 473 => Err(Error::Stale),
            429 if errors.is_empty() => Err(Error::Stale),
            429 => Err(Error::RateLimited {
                retry_after: self.retry_after,
            }),
            501 => Err(Error::Uninitialised),
            503 if says("sealed") => Err(Error::Sealed),
            500 | 503 if says("active cluster node not found") || says("standby") => {
                Err(Error::NoLeader)
            }
            status => Err(Error::Status {
                at: self.at,
                status,
            }),
        }
    }

    /// Vault's own error lines; never shown, only looked at.
    fn errors(&self) -> Vec<String> {
        serde_json::from_slice::<Refusal>(&self.body)
            .unwrap_or_default()
            .errors
    }
}

impl<'de> Deserialize<'de> for Leaf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LeafVisitor)
    }
}

/// Takes a text without a detour through serde's buffers, which would not be wiped.
struct LeafVisitor;

impl<'de> Visitor<'de> for LeafVisitor {
    type Value = Leaf;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field of a secret")
    }

    fn visit_str<E>(self, text: &str) -> Result<Leaf, E> {
        Ok(Leaf::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Leaf, E> {
        Ok(Leaf::Text(Zeroizing::new(text)))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Leaf, E> {
        Ok(Leaf::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Leaf, E> {
        Ok(Leaf::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Leaf, E> {
        Ok(Leaf::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Leaf, E> {
        Ok(Leaf::Other)
    }

    fn visit_unit<E>(self) -> Result<Leaf, E> {
        Ok(Leaf::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Leaf, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Leaf::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Leaf, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Leaf::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            at: "secret/data/a".to_owned(),
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            location: None,
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let cases = [
            (403, r#"{"errors":["permission denied"]}"#, "Denied"),
            (
                412,
                r#"{"errors":["required index state not present"]}"#,
                "Stale",
            ),
            (429, r#"{"errors":[]}"#, "Stale"),
            (
                429,
                r#"{"errors":["request path \"q\": rate limit quota exceeded"]}"#,
                "RateLimited",
            ),
            (307, "", "Redirected"),
            (501, "", "Uninitialised"),
            (503, r#"{"errors":["Vault is sealed"]}"#, "Sealed"),
            (
                500,
                r#"{"errors":["local node not active but active cluster node not found"]}"#,
                "NoLeader",
            ),
            (474, "", "NoLeader"),
            (503, "<html>no healthy upstream</html>", "Status"),
            (502, "", "Status"),
        ];
        for (status, body, expected) in cases {
            let error = format!("{:?}", answer(status, body).check().err().unwrap());
            assert!(error.starts_with(expected), "{status} {body}: {error}");
        }
    }

    #[test]
    fn a_secret_has_texts_and_other_fields() {
        let body = r#"{"data":{"data":{"key":"a\u0062c","n":1,"b":true,"o":{"x":"y"},"l":[1],"z":null,"f":1.5,"i":-1},
            "metadata":{"version":3,"created_time":"x","deletion_time":"","destroyed":false}}}"#;
        let secret = answer(200, body).parse::<Data<Secret>>().unwrap().data;
        let texts: Vec<_> = secret
            .data
            .unwrap()
            .into_iter()
            .filter(|(_, leaf)| matches!(leaf, Leaf::Text(_)))
            .collect();
        assert_eq!(texts.len(), 1);
        assert!(matches!(&texts[0].1, Leaf::Text(text) if text.as_str() == "abc"));
    }

    #[test]
    fn an_answer_of_another_shape_is_an_error_without_its_text() {
        for body in [
            "",
            "<html>sk-canary</html>",
            r#"{"data":{"data":"sk-canary"}}"#,
            r#"{"data":null}"#,
        ] {
            let error = answer(200, body).parse::<Data<Secret>>().err().unwrap();
            assert!(!format!("{error:?} {error}").contains("canary"));
        }
    }
}
