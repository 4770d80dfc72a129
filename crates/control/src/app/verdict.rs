//! Control's own probe of a key that an agent reports as refused.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use keyfleet_core::binding::Assignment;
use keyfleet_core::connector::Provider;
use keyfleet_core::failure::FailureClass;
use keyfleet_core::id::{ConnectorName, KeyName, KeyVersion};
use keyfleet_kibana::driver;
use keyfleet_openai::Proxy;
use keyfleet_store::Tx;
use keyfleet_vault::part;
use url::Url;

use super::App;
use super::travel::{Travel, destination};
use crate::error::Error;

/// A verdict is used again for this long: a refused key is reported by a whole wave at once.
const FRESH: Duration = Duration::from_secs(60);

/// The part of a key that a provider takes as it is.
const API_KEY: &str = "apiKey";

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
        let mut settings = keyfleet_openai::Settings::new(question.url.clone(), question.provider);
        settings.timeout = deadline;
        settings.proxy = self.config.provider_proxy.as_ref().map(|proxy| Proxy {
            url: proxy.url.clone(),
            no_proxy: proxy.no_proxy.clone(),
        });
        let client = keyfleet_openai::Client::new(&settings).ok()?;
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
        let Some(spec) = stored.map(|stored| stored.revision.spec) else {
            return Ok(None);
        };
        let (Some(driver), Some(url)) = (driver(&spec.connector_type), destination(&spec)) else {
            return Ok(None);
        };
        let Some(provider) = driver.provider(&spec.config) else {
            return Ok(None);
        };
        // Also from here a key travels only where its Key and the settings allow.
        if travel.stays(&spec).is_some() {
            return Ok(None);
        }
        let key = travel.key(&spec.key);
        Ok(Some(Question {
            has_parts: key.is_some_and(|key| !key.location.field.parts().is_empty()),
            key: spec.key,
            version: assignment.key_version,
            url,
            provider,
            model: driver.model(&spec.config),
        }))
    }
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
