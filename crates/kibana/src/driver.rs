//! Connector types: what a definition may hold, how it is rendered for one Kibana, compared, and proven.

use std::fmt;

use keyfleet_core::binding::Rung;
use keyfleet_core::connector::{Probe, Provider};
use keyfleet_core::failure::FailureClass;
use secrecy::SecretString;
use serde_json::Value;
use url::Url;

use crate::api::{Execution, Observed};
use crate::version::Version;
use crate::write::Write;

mod bedrock;
mod endpoint;
mod fields;
mod gemini;
mod gen_ai;
mod inference;
mod inference_endpoint;
mod probe;
mod schema;
mod secrets;
mod services;

/// The longest name that people see in Kibana; more fits into no list there.
const NAME_CHARS_MAX: usize = 255;

/// What is wrong with a text that is not plain.
const NOT_PLAIN: &str = "holds a line break, another control character, or one that nobody sees or that turns the text around; remove it";

/// Every connector type that this version of Keyfleet can spread.
static DRIVERS: [&dyn Driver; 5] = [
    &gen_ai::GenAi,
    &bedrock::Bedrock,
    &gemini::Gemini,
    &inference::Inference,
    &inference_endpoint::InferenceEndpoint,
];

/// The driver of a connector type, such as `.gen-ai`.
pub fn driver(connector_type: &str) -> Option<&'static dyn Driver> {
    DRIVERS
        .into_iter()
        .find(|driver| driver.connector_type() == connector_type)
}

/// The connector types that have a driver, for messages.
pub fn driver_types() -> impl Iterator<Item = &'static str> {
    DRIVERS.into_iter().map(|driver| driver.connector_type())
}

/// Checks the name that people see in Kibana. It is the same for every type, and Kibana lets two connectors share it.
///
/// # Errors
/// For a blank name, a very long one, or one with a control character; the field is `displayName`.
pub fn check_display_name(name: &str) -> Result<(), InvalidConfig> {
    if name.trim().is_empty() {
        return Err(InvalidConfig::new(
            "displayName",
            "is blank; write the name that people see in Kibana",
        ));
    }
    if name.chars().count() > NAME_CHARS_MAX {
        let problem = format!("is longer than {NAME_CHARS_MAX} characters");
        return Err(InvalidConfig::new("displayName", problem));
    }
    if !is_plain_text(name.trim()) {
        return Err(InvalidConfig::new("displayName", NOT_PLAIN));
    }
    Ok(())
}

/// True where a text shows itself as it is: no line break or other control character, nothing that turns the
/// direction of what follows around (Unicode UAX #9, explicit formatting), nothing that nobody sees.
pub fn is_plain_text(text: &str) -> bool {
    let is_hidden = |c: char| {
        matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    !text.chars().any(|c| c.is_control() || is_hidden(c))
}

/// One connector type. `config_json` is the `config` of a manifest as JSON text; the fields have Kibana's own names.
///
/// Drivers do no IO. Every method accepts any text: what cannot be read is an [`InvalidConfig`], never a panic.
pub trait Driver: Send + Sync + fmt::Debug {
    /// Kibana's id of the type.
    fn connector_type(&self) -> &'static str;

    /// Checks what holds for every Kibana version.
    ///
    /// # Errors
    /// Everything that is wrong at once: unknown, missing and blank fields, wrong types, an `apiUrl` that Kibana would
    /// accept although no call to it can work.
    fn check(&self, config_json: &str) -> Result<(), Vec<InvalidConfig>>;

    /// Checks that this Kibana knows every field: older ones refuse a definition with a field they do not know.
    ///
    /// # Errors
    /// One entry for each field that is too new, naming the version it needs; or what [`Driver::check`] finds.
    fn check_version(&self, config_json: &str, version: &Version)
    -> Result<(), Vec<InvalidConfig>>;

    /// The config for one Kibana: without the fields of `if_supported` that it is too old for. A text that
    /// [`Driver::check`] refuses comes back as it is.
    ///
    /// Applied before [`Driver::check_version`], [`Driver::render`] and [`Driver::differences`]; a probe takes the
    /// whole config, because a connector without a stored model must be told one.
    fn for_version(&self, config_json: &str, if_supported: &[String], version: &Version) -> String;

    /// Checks that each name is a field of this config that an older Kibana does not have.
    ///
    /// # Errors
    /// The first name that is not; the field is `ifSupported[i]`.
    fn check_if_supported(
        &self,
        config_json: &str,
        if_supported: &[String],
    ) -> Result<(), InvalidConfig>;

    /// Every field of every provider, with the first Kibana that has it: what the handbook prints.
    fn features(&self) -> Vec<Feature>;

    /// The one text of a config that passes [`Driver::check`]: keys sorted, no spaces, texts trimmed, empty maps left
    /// out. Equal meaning gives equal text.
    ///
    /// # Errors
    /// What [`Driver::check`] finds.
    fn canonical(&self, config_json: &str) -> Result<String, Vec<InvalidConfig>>;

    /// The body of a write for one Kibana. The secret is in `secrets` and nowhere else.
    ///
    /// # Errors
    /// What the checks find, a blank `displayName`, or a secret that cannot be a key for this type.
    fn render(
        &self,
        config_json: &str,
        display_name: &str,
        secret: &KeyValue<'_>,
        version: &Version,
    ) -> Result<Write, Vec<InvalidConfig>>;

    /// How the connector in Kibana differs from the definition; empty: it agrees.
    ///
    /// Compared is what a definition can say: type, name, fields, and whether the secrets are there. What the server
    /// fills in by itself, nulls, a slash at the end of a URL and fields that this driver does not know are no
    /// difference. A left-out field with a server default (such as `defaultModel`) is not compared either: write
    /// whenever the revision changes, not only when something differs.
    fn differences(
        &self,
        config_json: &str,
        display_name: &str,
        observed: &Observed,
    ) -> Vec<Difference>;

    /// Checks that a write can turn a connector of ours into this definition.
    ///
    /// # Errors
    /// For the first field that only a new connector can have: Elasticsearch changes no more than the key of an
    /// inference endpoint. Report it as REJECTED and write nothing.
    fn check_update(&self, config_json: &str, observed: &Observed) -> Result<(), InvalidConfig>;

    /// What a tiny live call sends: the `params` for [`crate::Client::execute`], or the body of a call to an inference
    /// endpoint. It costs a few tokens. `probe` is what the definition says of it.
    fn probe(&self, config_json: &str, probe: &Probe) -> Value;

    /// The `params` of a second call, where the first failed only because the server knows its limit by an older
    /// name; `None` where a second call would tell nothing new.
    fn probe_again(&self, config_json: &str, probe: &Probe, execution: &Execution)
    -> Option<Value>;

    /// Checks what a definition says of the live call.
    ///
    /// # Errors
    /// Everything that is wrong; fields are `probe.body`, `probe.maxTokens` and so on.
    fn check_probe(&self, config_json: &str, probe: &Probe) -> Result<(), Vec<InvalidConfig>>;

    /// The parts of the key that a connector with this config needs or may have, the most important first. A Key of one
    /// text serves where there is only one that is required. Where a key may have several forms, required is what the
    /// usual form requires; whether a Key fits is for [`Driver::check_secret_parts`] to say.
    fn secret_parts(&self, config_json: &str) -> Vec<SecretPart>;

    /// Checks that a Key with these parts is one for this connector; no parts: a Key of one text. With a version also
    /// that this Kibana takes such a key.
    ///
    /// # Errors
    /// Says what the connector wants instead; the field is `key`. A config that names no provider passes: that is said
    /// by [`Driver::check`].
    fn check_secret_parts(
        &self,
        config_json: &str,
        parts: &[String],
        version: Option<&Version>,
    ) -> Result<(), InvalidConfig>;

    /// Where connectors of this type are kept.
    fn surface(&self, config_json: &str) -> Surface;

    /// The inference endpoint that a connector in a space makes for itself: Elasticsearch has one of that id, whatever
    /// space it is made from.
    fn endpoint(&self, config_json: &str) -> Option<String>;

    /// What the outcome of that call means for the key and the definition.
    fn read_probe(&self, execution: &Execution) -> ProbeResult;

    /// Where the key travels to: the URL that Kibana will call.
    fn destination(&self, config_json: &str) -> Option<Url>;

    /// Whose API the connector speaks, so that others can prove its key.
    fn provider(&self, config_json: &str) -> Option<Provider>;

    /// The model that the connector asks for, where it names one.
    fn model(&self, config_json: &str) -> Option<String>;
}

/// The value of a Key, as it came from Vault.
#[derive(Debug, Clone, Copy)]
pub struct KeyValue<'a> {
    /// One text, or one JSON object of texts.
    pub text: &'a SecretString,
    /// The names in the object; none where the value is one text.
    pub parts: &'a [String],
}

impl<'a> KeyValue<'a> {
    /// A value of one text.
    pub const fn plain(text: &'a SecretString) -> Self {
        Self { text, parts: &[] }
    }
}

/// A part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretPart {
    /// What Kibana calls it in `secrets`, such as `apiKey`.
    pub name: &'static str,
    /// No connector without it.
    pub is_required: bool,
}

/// Where connectors of a type are kept, and so how they are read, written and tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Surface {
    /// A space of Kibana, through its Actions API.
    Kibana,
    /// Elasticsearch itself, as an inference endpoint of this task (`chat_completion`, `completion`). There are no
    /// spaces there: only the space `default` may be named.
    Elasticsearch {
        /// The task, part of the endpoint's path.
        task: String,
    },
}

/// A field or a part of the key of a connector type, and since when it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// The provider whose field it is, as the config names it; empty where the type has only one.
    pub provider: &'static str,
    /// Its name in `config`, such as `apiUrl` or `providerConfig.model_id`, or in `secrets`; `taskType: chat_completion`
    /// for a value that came after its field.
    pub name: String,
    /// A part of the key.
    pub is_secret: bool,
    /// No connector without it; of a part: no usual key without it.
    pub is_required: bool,
    /// The first Kibana that has it for this provider.
    pub since: Version,
}

/// One thing that is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidConfig {
    /// Which field, as a path inside the connector's spec, for example `config.apiUrl` or `displayName`.
    pub field: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

impl InvalidConfig {
    fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// One field that is not as the definition says. Values that may hold a credential are described, not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// For example `config.apiUrl`, `displayName`, `type` or `secrets`.
    pub field: String,
    /// What the definition says.
    pub want: String,
    /// What Kibana has.
    pub have: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {}, should be {}",
            self.field, self.have, self.want
        )
    }
}

/// What a live call proved.
#[derive(Clone, PartialEq, Eq)]
pub enum ProbeResult {
    /// Key, model and way to the provider work.
    Proven {
        /// Something worth knowing about it.
        note: Option<String>,
        /// How far the call came: a model that only wanted more tokens took the key and did not answer.
        rung: Rung,
    },
    /// They do not, or nobody can tell.
    Failed {
        /// What to look at.
        class: FailureClass,
        /// The provider's or Kibana's words. They **may repeat part of a key**: scrub them with `keyfleet-seal` before
        /// they leave the agent.
        text: String,
        /// How far it came; `None` where Kibana did not even run it.
        rung: Option<Rung>,
    },
}

impl fmt::Debug for ProbeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proven { note, .. } => f.debug_struct("Proven").field("note", note).finish(),
            Self::Failed { class, .. } => f
                .debug_struct("Failed")
                .field("class", class)
                .finish_non_exhaustive(),
        }
    }
}

#[cfg(test)]
mod tests;
