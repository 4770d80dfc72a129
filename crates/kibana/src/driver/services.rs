//! The services of Elasticsearch's inference API that both `.inference` and `inference-endpoint` know.

use serde_json::{Map, Value};
use url::Url;

use super::schema::text;
use super::{InvalidConfig, endpoint};

/// Elasticsearch's names of the services.
pub(super) const OPENAI: &str = "openai";
pub(super) const AZURE: &str = "azureopenai";
/// The task that answers a conversation.
pub(super) const CHAT: &str = "chat_completion";
/// The task that answers one text.
pub(super) const COMPLETION: &str = "completion";

/// Where Elasticsearch calls a model of `OpenAI` when no URL is set.
const OPENAI_URL: &str = "https://api.openai.com/v1/chat/completions";

/// The names of the fields that make the URL: they are written with underscores in `.inference`.
pub(super) struct Names {
    pub(super) url: &'static str,
    pub(super) resource: &'static str,
    pub(super) deployment: &'static str,
    pub(super) version: &'static str,
}

impl Names {
    /// The URL that Elasticsearch calls.
    pub(super) fn destination(&self, service: &str, settings: &Map<String, Value>) -> Option<Url> {
        match service {
            OPENAI => endpoint::parse(text(settings, self.url).unwrap_or(OPENAI_URL)).ok(),
            AZURE => self.azure(settings),
            _ => None,
        }
    }

    /// Elasticsearch puts the names into the URL (Elasticsearch reference, "Create an Azure `OpenAI` inference
    /// endpoint").
    fn azure(&self, settings: &Map<String, Value>) -> Option<Url> {
        let resource = text(settings, self.resource)?;
        let deployment = text(settings, self.deployment)?;
        let version = text(settings, self.version)?;
        endpoint::parse(&format!(
            "https://{resource}.openai.azure.com/openai/deployments/{deployment}/chat/completions?api-version={version}"
        ))
        .ok()
    }

    /// What must hold for the URL, and that the names make one.
    pub(super) fn check(
        &self,
        path: &str,
        service: &str,
        settings: &Map<String, Value>,
    ) -> Vec<InvalidConfig> {
        if service == AZURE && text(settings, self.resource).is_some_and(|name| !is_label(name)) {
            let problem = "is not the name of an Azure resource: letters, digits and dashes";
            let field = format!("{path}.{}", self.resource);
            return vec![InvalidConfig::new(field, problem)];
        }
        endpoint::check_field(path, settings, self.url, endpoint::check_completions)
    }
}

/// One label of a host: nothing in it leads to another host.
fn is_label(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}
