//! Proves a key.

use keyfleet_core::connector::Provider;
use keyfleet_core::failure::FailureClass;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use crate::refusal::{self, Read};
use crate::transport::Answer;
use crate::{Client, Error, Refusal};

/// Enough for most models to answer with 200; about 24 tokens in all.
const PROBE_TOKENS: u32 = 16;

/// A key that works for a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What proved it.
    pub proof: Proof,
    /// When the provider will shut the model down, as it says it (a date), where it says it.
    pub model_shutdown: Option<String>,
}

/// What proved a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The model's description was given: the key lives and sees the model. Quota is not proven.
    Model,
    /// A completion was made, or failed only for its tiny limit.
    Completion,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    shutdown_date: Option<String>,
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<serde::de::IgnoredAny>,
}

impl Client {
    /// Proves that `key` works for `model`. One request, or two or three where the first proves nothing.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::class`] says what it means for a connector.
    pub async fn verify(&self, key: &SecretString, model: &str) -> Result<Verified, Error> {
        let Some(url) = self.model_url(model) else {
            return self.complete(key, model).await;
        };
        let answer = self.send(self.get(url), key).await?;
        if let Some(found) = described(&answer, model) {
            return Ok(Verified {
                proof: Proof::Model,
                model_shutdown: found.shutdown_date.as_deref().and_then(refusal::word),
            });
        }
        if !is_success(&answer) {
            let refusal = read(&answer).refusal;
            if is_final(&refusal) {
                return Err(Error::Refused(refusal));
            }
        }
        // Other servers do not know this address, and a restricted key may not read it: neither says a thing about
        // what a connector does.
        self.complete(key, model).await
    }

    /// Makes one tiny completion, exactly what a connector is there for.
    ///
    /// # Errors
    /// As [`Client::verify`].
    pub async fn complete(&self, key: &SecretString, model: &str) -> Result<Verified, Error> {
        let answer = self.probe(key, model, "max_completion_tokens").await?;
        if is_success(&answer) {
            return completed(&answer);
        }
        let first = read(&answer);
        if !self.may_not_know_limit(&first) {
            return judge(first);
        }
        // Servers that are only compatible with OpenAI, and old API versions of Azure, may know the older name alone.
        let answer = self.probe(key, model, "max_tokens").await?;
        if is_success(&answer) {
            completed(&answer)
        } else {
            judge(read(&answer))
        }
    }

    async fn probe(&self, key: &SecretString, model: &str, limit: &str) -> Result<Answer, Error> {
        let mut body =
            json!({ "messages": [{ "role": "user", "content": "ping" }], limit: PROBE_TOKENS });
        // Azure's URL names the deployment of a model.
        if self.provider != Provider::AzureOpenAi {
            body["model"] = model.into();
        }
        self.send(self.post(self.url.clone()).json(&body), key)
            .await
    }

    /// What any server says of a parameter that it does not know is free text.
    fn may_not_know_limit(&self, read: &Read) -> bool {
        let Refusal { class, status, .. } = read.refusal;
        let is_plain = matches!(status, 400 | 422) && class == FailureClass::Provider;
        let is_any_server = self.provider == Provider::Other;
        read.rejects_parameter || (is_any_server && is_plain && !read.is_tiny_limit)
    }
}

impl Error {
    /// What it means for a connector that uses this key.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Refused(refusal) => refusal.class,
            Self::Timeout { .. } => FailureClass::Timeout,
            Self::Unreachable { .. } => FailureClass::Network,
            Self::BadAnswer { .. } => FailureClass::Egress,
            Self::Key => FailureClass::Auth,
            Self::Settings { .. } | Self::File { .. } => FailureClass::Agent,
        }
    }
}

/// A refusal of the first call that a second call would only repeat: a dead key, no quota, too many calls. A missing
/// scope is a 401 too (`Missing scopes: …`), but without the code of a dead key.
fn is_final(refusal: &Refusal) -> bool {
    let is_dead = refusal.code.as_deref() == Some("invalid_api_key");
    is_dead || matches!(refusal.class, FailureClass::Quota | FailureClass::RateLimit)
}

fn judge(read: Read) -> Result<Verified, Error> {
    if read.is_tiny_limit {
        return Ok(Verified {
            proof: Proof::Completion,
            model_shutdown: None,
        });
    }
    Err(Error::Refused(read.refusal))
}

/// A page with status 200 proves nothing.
fn completed(answer: &Answer) -> Result<Verified, Error> {
    match serde_json::from_slice::<Completion>(&answer.body) {
        Ok(completion) if !completion.choices.is_empty() => Ok(Verified {
            proof: Proof::Completion,
            model_shutdown: None,
        }),
        Ok(_) | Err(_) => Err(Error::BadAnswer {
            status: answer.status,
        }),
    }
}

fn described(answer: &Answer, model: &str) -> Option<Model> {
    let found = is_success(answer)
        .then(|| serde_json::from_slice::<Model>(&answer.body).ok())
        .flatten()?;
    (found.id == model).then_some(found)
}

fn is_success(answer: &Answer) -> bool {
    (200..300).contains(&answer.status)
}

fn read(answer: &Answer) -> Read {
    refusal::read(answer.status, &answer.headers, &answer.body)
}
