//! The call that a run makes to the provider named by the connector's `apiUrl`.

use std::error::Error as _;
use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::{Map, Value};

use super::licence::{GEMINI, GEN_AI};
use super::state::Connector;
use crate::reply::reason;
use crate::server::Error;

/// Node.js's code for a call that took too long.
pub(super) const TIMED_OUT: &str = "ECONNABORTED";

/// Holds the certificate of a caller that has one and no key.
pub(crate) const CERTIFICATE_HEADER: &str = "x-client-certificate";

/// The HTTP client for provider calls. It uses no proxy, and its clones share one pool of connections.
///
/// # Errors
/// When the TLS roots of this machine cannot be read.
pub fn client() -> Result<reqwest::Client, Error> {
    // Another part of the process may have installed it already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .build()
        .map_err(Error::Client)
}

/// Why a call to a provider gave nothing.
pub(super) enum Trouble {
    /// It answered with a status that is not a success; the body is null where it was no JSON.
    Answered { status: u16, body: Value },
    /// It did not answer; `code` is the one of Node.js.
    Unanswered { code: &'static str, words: String },
}

impl Trouble {
    pub(super) fn unanswered(code: &'static str, words: &str) -> Self {
        Self::Unanswered {
            code,
            words: words.to_owned(),
        }
    }

    pub(super) fn timeout(deadline: Duration) -> Self {
        let words = format!("timeout of {}ms exceeded", deadline.as_millis());
        Self::unanswered(TIMED_OUT, &words)
    }

    /// The provider's own words: each has them in another place.
    pub(super) fn words(&self) -> Option<&str> {
        let Self::Answered { body, .. } = self else {
            return None;
        };
        body.pointer("/error/message")
            .or_else(|| body.get("error"))
            .or_else(|| body.get("message"))
            .and_then(Value::as_str)
    }
}

/// Why a run failed, in Kibana's words.
pub(super) struct Failure {
    /// The provider's status, when it answered.
    pub(super) status: Option<u16>,
    pub(super) service_message: String,
    /// It counts as an error of the user.
    pub(super) is_users: bool,
}

impl Failure {
    pub(super) fn text(service_message: String) -> Self {
        Self {
            status: None,
            service_message,
            is_users: false,
        }
    }

    /// What a connector of this type makes of it.
    pub(super) fn of(connector_type_id: &str, trouble: &Trouble) -> Self {
        let (status, body) = match trouble {
            Trouble::Answered { status, body } => (*status, body),
            Trouble::Unanswered { code, words } => {
                return Self::text(format!(
                    "Status code: undefined. Message: Unexpected API Error: {code} - {words}"
                ));
            }
        };
        let words = trouble.words();
        let after = |mark: &str| {
            words
                .map(|words| format!("{mark}{words}"))
                .unwrap_or_default()
        };
        let text = match (connector_type_id, status) {
            (GEMINI, _) if body["error"].is_object() => {
                let kind = body["error"]["status"].as_str();
                let kind = kind.map(|kind| format!("{kind}: ")).unwrap_or_default();
                format!("API Error: {kind}{}", words.unwrap_or_default())
            }
            (GEN_AI, 401) => format!("Unauthorized API Error{}", after(" - ")),
            (_, 401) => format!("Unauthorized API Error{}", after(": ")),
            _ => format!("API Error: {}{}", reason(status), after(" - ")),
        };
        Self {
            status: Some(status),
            service_message: format!("Status code: {status}. Message: {text}"),
            is_users: false,
        }
    }
}

/// A call that is ready to be sent.
pub(super) struct Request {
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) model: Option<String>,
    pub(super) body: String,
}

impl Request {
    /// Applies the connector to the body as Kibana does: the stored model for OpenAI when the body names none,
    /// no streaming, and the key in the header that the provider wants.
    pub(super) fn gen_ai(connector: &Connector, body: &str) -> Self {
        let provider = text(&connector.config, "apiProvider");
        let mut sent: Value = serde_json::from_str(body).unwrap_or_else(|_| Value::from(body));
        let mut model = None;
        if let Some(map) = sent.as_object_mut() {
            map.insert("stream".to_owned(), Value::from(false));
            if let ("OpenAI", None, Some(default)) = (
                provider,
                map.get("model"),
                connector.config.get("defaultModel"),
            ) {
                map.insert("model".to_owned(), default.clone());
            }
            model = map.get("model").and_then(Value::as_str).map(str::to_owned);
        }
        // A body that is not JSON goes out as it came.
        let body = sent
            .as_str()
            .map_or_else(|| sent.to_string(), str::to_owned);
        let url = normalize(text(&connector.config, "apiUrl"));
        Self {
            url,
            headers: headers(connector, provider),
            model,
            body,
        }
    }

    fn build(self, client: &reqwest::Client) -> RequestBuilder {
        let request = client
            .post(&self.url)
            .header("content-type", "application/json");
        self.headers
            .into_iter()
            .fold(request, |request, (name, value)| {
                request.header(name, value)
            })
            .body(self.body)
    }
}

/// Sends the request and reads its answer as text.
pub(super) async fn call(
    client: &reqwest::Client,
    request: Request,
    deadline: Duration,
) -> Result<String, Trouble> {
    if url::Url::parse(&request.url).is_err() {
        return Err(Trouble::unanswered("ERR_INVALID_URL", "Invalid URL"));
    }
    let unanswered = |error: reqwest::Error| transport(&error, deadline);
    let response = request
        .build(client)
        .timeout(deadline)
        .send()
        .await
        .map_err(unanswered)?;
    let status = response.status();
    let text = response.text().await.map_err(unanswered)?;
    match status.is_success() {
        true => Ok(text),
        false => Err(Trouble::Answered {
            status: status.as_u16(),
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
        }),
    }
}

/// A chat completion with all parts that Kibana wants of one.
pub(super) fn chat_completion(text: &str) -> Result<Value, Failure> {
    let answer: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    match missing_part(&answer) {
        None => Ok(answer),
        Some(part) => Err(unfit(&part)),
    }
}

/// An answer that the response schema refuses.
pub(super) fn unfit(part: &str) -> Failure {
    Failure::text(format!("Response validation failed (Error: {part})"))
}

/// The organisation, the project, the connector's own headers, and last the key, which they cannot override.
fn headers(connector: &Connector, provider: &str) -> Vec<(String, String)> {
    let known = [
        ("organizationId", "OpenAI-Organization"),
        ("projectId", "OpenAI-Project"),
    ];
    let mut headers: Vec<(String, String)> = known
        .iter()
        .filter_map(|(field, header)| {
            Some((
                (*header).to_owned(),
                connector.config.get(*field)?.as_str()?.to_owned(),
            ))
        })
        .collect();
    let key_header = if provider == "Azure OpenAI" {
        "api-key"
    } else {
        "authorization"
    };
    if let Some(Value::Object(own)) = connector.config.get("headers") {
        let own = own
            .iter()
            .filter(|(name, _)| !name.eq_ignore_ascii_case(key_header));
        headers.extend(
            own.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))),
        );
    }
    let key = text(&connector.secrets, "apiKey");
    if key.is_empty() {
        // With certificates and no key. There is no TLS here, so that the certificate itself shows who calls.
        let shown = text(&connector.secrets, "certificateData");
        let shown = shown.chars().filter(|c| !c.is_whitespace()).collect();
        headers.push((CERTIFICATE_HEADER.to_owned(), shown));
        return headers;
    }
    let value = if key_header == "api-key" {
        key.to_owned()
    } else {
        format!("Bearer {key}")
    };
    headers.push((key_header.to_owned(), value));
    headers
}

/// Double slashes collapse and one slash at the end goes, as in Kibana's `normalizeURL`.
fn normalize(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let mut path = rest.to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    let path = path.strip_suffix('/').unwrap_or(&path);
    if scheme.is_empty() {
        path.to_owned()
    } else {
        format!("{scheme}://{path}")
    }
}

/// A transport error with the code that Node.js would give it.
fn transport(error: &reqwest::Error, deadline: Duration) -> Trouble {
    if error.is_timeout() {
        return Trouble::timeout(deadline);
    }
    let mut cause = error.source();
    let mut kind = None;
    while let Some(inner) = cause {
        kind = inner
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind)
            .or(kind);
        cause = inner.source();
    }
    match (kind, error.is_connect()) {
        (Some(std::io::ErrorKind::ConnectionRefused), _) => {
            Trouble::unanswered("ECONNREFUSED", "connect ECONNREFUSED")
        }
        (_, true) => Trouble::unanswered("ENOTFOUND", "getaddrinfo ENOTFOUND"),
        (_, false) => Trouble::unanswered("ECONNRESET", "socket hang up"),
    }
}

/// What a chat completion must have and this answer has not.
fn missing_part(answer: &Value) -> Option<String> {
    if !answer.is_object() {
        return Some("expected a plain object value, but found [string] instead.".to_owned());
    }
    let counts = ["prompt_tokens", "completion_tokens", "total_tokens"];
    let count = counts
        .iter()
        .find(|count| !answer["usage"][**count].is_number());
    if let Some(count) = count {
        return Some(format!(
            "[usage.{count}]: expected value of type [number] but got [undefined]"
        ));
    }
    let Some(choices) = answer["choices"].as_array() else {
        return Some("[choices]: expected value of type [array] but got [undefined]".to_owned());
    };
    let index = choices
        .iter()
        .position(|choice| !choice["message"]["role"].is_string())?;
    Some(format!(
        "[choices.{index}.message.role]: expected value of type [string] but got [undefined]"
    ))
}

pub(super) fn text<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}
