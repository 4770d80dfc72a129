//! Control's own probe of a key that an agent reports as refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use keyfleet_core::binding::Assignment;
use keyfleet_core::connector::{ConnectorSpec, Provider};
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{ConnectorName, KeyName, KeyVersion};
use keyfleet_core::key::Key;
use keyfleet_kibana::driver;
use keyfleet_openai::Proxy;
use keyfleet_store::{Connector, KeyVersionRow, Tx};
use keyfleet_vault::part;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::App;
use super::travel::{Travel, destination};
use crate::error::Error;

/// A verdict is used again for this long: a refused key is reported by a whole wave at once.
const FRESH: Duration = Duration::from_secs(60);

/// The part of a key that a provider takes as it is.
const API_KEY: &str = "apiKey";

/// What an admin key of `OpenAI` begins with (API reference, admin API keys): it can make keys, and no connector works
/// with it.
const ADMIN_KEY: &str = "sk-admin-";

/// What the provider says of a key version, the gravest last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tried {
    /// Nothing; why not, in words.
    Unknown(String),
    /// It works with every connector that was tried.
    Works,
    /// It is known, and does not do; why, in words.
    Unfit(String),
    /// It is refused.
    Refused,
}

/// What the provider said of key versions a moment ago.
pub(crate) struct Verdicts {
    deadline: Option<Duration>,
    known: Mutex<BTreeMap<Asked, (Instant, Option<bool>)>>,
    /// One question at a time: a wave that reports the same refusal asks once.
    gate: tokio::sync::Mutex<()>,
}

/// Which key was asked about where.
type Asked = (KeyName, KeyVersion, Url);

/// What to ask the provider.
struct Question {
    key: KeyName,
    version: KeyVersion,
    url: Url,
    provider: Provider,
    model: Option<String>,
    /// The value has several parts; only this one can be tried from here.
    has_parts: bool,
}

impl Verdicts {
    /// `None` = never ask.
    pub(crate) fn new(deadline: Option<Duration>) -> Self {
        Self {
            deadline,
            known: Mutex::default(),
            gate: tokio::sync::Mutex::default(),
        }
    }

    fn fresh(&self, question: &Question) -> Option<Option<bool>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(&(question.key.clone(), question.version, question.url.clone()));
        found
            .filter(|(at, _)| at.elapsed() < FRESH)
            .map(|(_, works)| *works)
    }

    fn keep(&self, question: &Question, works: Option<bool>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| at.elapsed() < FRESH);
        let key = (question.key.clone(), question.version, question.url.clone());
        known.insert(key, (Instant::now(), works));
    }
}

impl App {
    /// Whether the key of this assignment works from here; `None` where that cannot be told.
    pub(crate) async fn key_works_from_here(
        &self,
        connector: &ConnectorName,
        assignment: Assignment,
    ) -> Option<bool> {
        let deadline = self.verdicts.deadline?;
        let question = self.question(connector, assignment).await.ok()??;
        let _turn = self.verdicts.gate.lock().await;
        if let Some(known) = self.verdicts.fresh(&question) {
            return known;
        }
        let works = self.ask(&question, deadline).await;
        self.verdicts.keep(&question, works);
        works
    }

    async fn ask(&self, question: &Question, deadline: Duration) -> Option<bool> {
        let key = self
            .key_for_agent(&question.key, question.version)
            .await
            .ok()?;
        let value = if question.has_parts {
            part(&key.value, API_KEY)?
        } else {
            key.value
        };
        let client = self.client(question, deadline)?;
        let model = question.model.as_deref().unwrap_or_default();
        match client.verify(&value, model).await {
            Ok(_) => Some(true),
            Err(err) => says_of_key(err.class()),
        }
    }

    async fn question(
        &self,
        connector: &ConnectorName,
        assignment: Assignment,
    ) -> Result<Option<Question>, Error> {
        let (name, revision) = (connector.clone(), assignment.revision);
        let read =
            move |tx: &Tx<'_>| Ok::<_, Error>((tx.connector(&name, revision)?, Travel::load(tx)?));
        let (stored, travel) = self.store.read(read).await?;
        let spec = stored.map(|stored| stored.revision.spec);
        Ok(spec.and_then(|spec| question_of(&spec, assignment.key_version, &travel)))
    }

    /// What the provider says of a version, asked as each connector of its Key would ask; `None` where Vault does not
    /// give the value now.
    pub(crate) async fn try_version(
        &self,
        key: &KeyName,
        version: KeyVersion,
    ) -> Result<Option<Tried>, Error> {
        let Some(deadline) = self.verdicts.deadline else {
            let why = "the setting `provider.verify` is off";
            return Ok(Some(Tried::Unknown(why.to_owned())));
        };
        let name = key.clone();
        let read = move |tx: &Tx<'_>| questions(tx, &name, version);
        let (key, known, questions) = self.store.read(read).await?;
        let (Some(key), Some(known)) = (key, known.filter(|row| row.readable)) else {
            let why = "Vault has its value no more";
            return Ok(Some(Tried::Unknown(why.to_owned())));
        };
        let is_it = |value: &SecretString| self.fingerprint.fingerprint(value) == known.fingerprint;
        let value = match self.keyring.value(&key, version, is_it).await {
            Ok(value) => value,
            Err(why) => {
                tracing::warn!(key.name = %key.name, vault.status = %why, "a key version cannot be tried now");
                return Ok(None);
            }
        };
        if value.expose_secret().starts_with(ADMIN_KEY) {
            let why = "it is an admin key, which no connector may get";
            return Ok(Some(Tried::Unfit(why.to_owned())));
        }
        let mut worst = None;
        for question in &questions {
            let tried = self.try_one(question, &value, deadline).await;
            worst = worst.max(Some(tried));
        }
        let why = "no connector uses it that could be tried from here";
        Ok(worst.or_else(|| Some(Tried::Unknown(why.to_owned()))))
    }

    async fn try_one(
        &self,
        question: &Question,
        value: &SecretString,
        deadline: Duration,
    ) -> Tried {
        let value = if question.has_parts {
            part(value, API_KEY)
        } else {
            Some(value.clone())
        };
        let Some((client, value)) = self.client(question, deadline).zip(value) else {
            return Tried::Unknown("it has no part that could be tried from here".to_owned());
        };
        let model = question.model.as_deref().unwrap_or_default();
        match client.verify(&value, model).await {
            Ok(_) => Tried::Works,
            Err(err) if err.class() == FailureClass::Auth => Tried::Refused,
            Err(err) if matches!(err.class(), FailureClass::Model | FailureClass::Quota) => {
                Tried::Unfit(err.to_string())
            }
            Err(err) => Tried::Unknown(err.to_string()),
        }
    }

    fn client(&self, question: &Question, deadline: Duration) -> Option<keyfleet_openai::Client> {
        let mut settings = keyfleet_openai::Settings::new(question.url.clone(), question.provider);
        settings.timeout = deadline;
        settings.proxy = self.config.provider_proxy.as_ref().map(|proxy| Proxy {
            url: proxy.url.clone(),
            no_proxy: proxy.no_proxy.clone(),
        });
        keyfleet_openai::Client::new(&settings).ok()
    }
}

/// How each connector of a Key would ask, without repetitions.
#[expect(clippy::type_complexity, reason = "three rows of one read, used once")]
fn questions(
    tx: &Tx<'_>,
    key: &KeyName,
    version: KeyVersion,
) -> Result<(Option<Key>, Option<KeyVersionRow>, Vec<Question>), Error> {
    let stored = tx.keys()?.into_iter().find(|row| row.key.name == *key);
    let known = tx.key_versions(key)?.into_iter();
    let travel = Travel::load(tx)?;
    let (mut asked, mut seen) = (Vec::new(), BTreeSet::new());
    for connector in tx.connectors()?.into_iter().filter(Connector::is_live) {
        // The newest revision comes first.
        let spec = &connector.revision.spec;
        let is_newest = seen.insert((connector.revision.connector.to_string(), None, None));
        if !is_newest || spec.key != *key {
            continue;
        }
        if let Some(question) = question_of(spec, version, &travel) {
            let place = (
                String::new(),
                Some(question.url.clone()),
                question.model.clone(),
            );
            if seen.insert(place) {
                asked.push(question);
            }
        }
    }
    let known = known.into_iter().find(|row| row.version == version);
    Ok((stored.map(|row| row.key), known, asked))
}

fn question_of(spec: &ConnectorSpec, version: KeyVersion, travel: &Travel) -> Option<Question> {
    let (driver, url) = (driver(&spec.connector_type)?, destination(spec)?);
    let provider = driver.provider(&spec.config)?;
    // Also from here a key travels only where its Key and the settings allow.
    if travel.stays(spec).is_some() {
        return None;
    }
    let key = travel.key(&spec.key);
    Some(Question {
        has_parts: key.is_some_and(|key| !key.location.field.parts().is_empty()),
        key: spec.key.clone(),
        version,
        url,
        provider,
        model: driver.model(&spec.config),
    })
}

/// What a refusal says of the key itself: refused, read and accepted, or nothing.
fn says_of_key(class: FailureClass) -> Option<bool> {
    if class == FailureClass::Auth {
        return Some(false);
    }
    let was_read = matches!(
        class,
        FailureClass::Model | FailureClass::Quota | FailureClass::RateLimit
    );
    was_read.then_some(true)
}
