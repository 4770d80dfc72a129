//! The body of a write: the only place where a key becomes part of a request.

mod endpoint;

use std::fmt;
use std::io;

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

pub(crate) use self::endpoint::flat;

/// A connector as one Kibana version wants it, ready to be sent by [`crate::Client::create`] or
/// [`crate::Client::update`]; or an inference endpoint for Elasticsearch.
///
/// A PUT replaces everything, so config and secrets always travel together. `Debug` shows no secret. The buffers of
/// the body are wiped after use; copies inside the HTTP and TLS libraries are not, and live as long as the request.
pub struct Write {
    pub(crate) connector_type_id: &'static str,
    pub(crate) name: String,
    pub(crate) config: Map<String, Value>,
    pub(crate) secrets: Secrets,
}

/// The parts of a key as the type wants them.
pub(crate) struct Secrets {
    /// The one field that holds all parts, where a type wants them inside one, such as `providerSecrets`.
    pub(crate) within: Option<&'static str>,
    /// Each part under Kibana's name.
    pub(crate) parts: Vec<(&'static str, SecretString)>,
}

impl Write {
    /// Kibana's id of the connector type.
    pub fn connector_type_id(&self) -> &str {
        self.connector_type_id
    }

    /// The name that people see in Kibana.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fields that Kibana shows to everyone who may read connectors.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// The body of a POST. Its buffer is wiped when the request is over.
    pub(crate) fn create_body(&self) -> Bytes {
        self.body(Some(self.connector_type_id))
    }

    /// The body of a PUT, in which Kibana refuses the type. Its buffer is wiped when the request is over.
    pub(crate) fn update_body(&self) -> Bytes {
        self.body(None)
    }

    fn body(&self, connector_type_id: Option<&'static str>) -> Bytes {
        bytes_of(&Body {
            name: &self.name,
            connector_type_id,
            config: &self.config,
            secrets: &self.secrets,
        })
    }
}

/// Serialised twice: once to learn the length, so that the buffer with the key never grows and leaves no copy behind.
fn bytes_of(body: &impl Serialize) -> Bytes {
    let mut length = Length(0);
    let counted = serde_json::to_writer(&mut length, body);
    let mut buffer = Zeroizing::new(Vec::with_capacity(length.0));
    let written = serde_json::to_writer(&mut *buffer, body);
    counted
        .and(written)
        .expect("text keys and values always serialise into memory");
    Bytes::from_owner(buffer)
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("connector_type_id", &self.connector_type_id)
            .field("name", &self.name)
            .field("config", &self.config)
            .field(
                "secrets",
                &self
                    .secrets
                    .parts
                    .iter()
                    .map(|(part, _)| *part)
                    .collect::<Vec<_>>(),
            )
            .finish()
    }
}

#[derive(Serialize)]
struct Body<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    connector_type_id: Option<&'static str>,
    config: &'a Map<String, Value>,
    secrets: &'a Secrets,
}

impl Serialize for Secrets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parts = Parts(&self.parts);
        let Some(within) = self.within else {
            return parts.serialize(serializer);
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(within, &parts)?;
        map.end()
    }
}

struct Parts<'a>(&'a [(&'static str, SecretString)]);

impl Serialize for Parts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (part, secret) in self.0 {
            map.serialize_entry(part, secret.expose_secret())?;
        }
        map.end()
    }
}

/// Counts what is written and keeps nothing.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn write() -> Write {
        let config = json!({"apiUrl": "https://api.openai.com/v1/chat/completions"});
        Write {
            connector_type_id: ".gen-ai",
            name: "OpenAI".to_owned(),
            config: config.as_object().cloned().unwrap(),
            secrets: Secrets {
                within: None,
                parts: vec![("apiKey", SecretString::from("sk-canary"))],
            },
        }
    }

    #[test]
    fn only_a_create_names_the_type() {
        let create: Value = serde_json::from_slice(&write().create_body()).unwrap();
        let update: Value = serde_json::from_slice(&write().update_body()).unwrap();
        assert_eq!(create["connector_type_id"], ".gen-ai");
        assert!(update.get("connector_type_id").is_none());
        for body in [create, update] {
            assert_eq!(body["name"], "OpenAI");
            assert_eq!(body["secrets"], json!({"apiKey": "sk-canary"}));
            assert_eq!(body["config"], Value::Object(write().config));
        }
    }

    #[test]
    fn the_parts_may_be_inside_one_field() {
        let mut write = write();
        write.secrets.within = Some("providerSecrets");
        let body: Value = serde_json::from_slice(&write.update_body()).unwrap();
        let inside = json!({"providerSecrets": {"apiKey": "sk-canary"}});
        assert_eq!(body["secrets"], inside);
    }

    #[test]
    fn debug_names_the_secrets_and_shows_none() {
        let text = format!("{:?}", write());
        assert!(
            text.contains("apiKey") && !text.contains("sk-canary"),
            "{text}"
        );
    }
}
