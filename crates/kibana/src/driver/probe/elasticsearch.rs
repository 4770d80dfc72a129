//! Live calls that Elasticsearch makes: through Kibana's `.inference`, or asked itself.
//!
//! Its words are those of the response handlers of its inference plugin.

use keyfleet_core::binding::Rung;
use keyfleet_core::connector::Probe;
use keyfleet_core::failure::FailureClass::{
    Agent, Conflict, KibanaAuth, Licence, Network, Provider, RateLimit, Timeout,
};
use serde_json::{Value, json};

use super::{Dialect, Meaning, meaning, needs_list, own_body};
use crate::api::Execution;
use crate::driver::InvalidConfig;
use crate::driver::services::COMPLETION;

/// Without a limit of tokens a prompt must keep the answer short.
pub(in crate::driver) const PROMPT: &str = "Answer with one word: pong";

/// Before the id of the endpoint in what it says of an answer of the provider; the second is older.
const OF_ENDPOINT: [&str; 2] = ["inference entity id [", "inference id ["];

/// Through `.inference`, which also says so when an answer was cut off.
pub(in crate::driver) const THROUGH_KIBANA: Dialect = Dialect {
    status: provider_status,
    words: &[],
    tiny: &[(None, "createtokenlimitreachederror")],
    unanswered: |_, text| match meaning(&UNANSWERED, text) {
        (Provider, None) => meaning(&super::UNANSWERED, text),
        known => known,
    },
};

/// Asked itself: a status of its own is about the agent's credentials and not about the key.
pub(in crate::driver) const ITSELF: Dialect = Dialect {
    status: provider_status,
    words: &[],
    tiny: &[],
    unanswered: |execution, text| match (meaning(&UNANSWERED, text), execution.status_code) {
        ((Provider, None), Some(401 | 403)) => (KibanaAuth, None),
        ((Provider, None), Some(408 | 504)) => (Timeout, None),
        ((Provider, None), Some(429)) => (RateLimit, None),
        (known, _) => known,
    },
};

/// What Elasticsearch says where the provider gave no status; the first that is in a text counts.
const UNANSWERED: [Meaning; 11] = [
    ("is unauthorized for", KibanaAuth, None),
    ("unable to authenticate", KibanaAuth, None),
    ("non-compliant for [inference]", Licence, None),
    ("inference endpoint not found", Conflict, None),
    ("resource_not_found_exception", Conflict, None),
    ("timed out", Timeout, Some(Rung::Loaded)),
    (
        "failed to send request from inference",
        Network,
        Some(Rung::Loaded),
    ),
    ("connection refused", Network, Some(Rung::Loaded)),
    ("unknownhostexception", Network, Some(Rung::Loaded)),
    // This release does not know our probe: neither definition nor key is to blame.
    ("unknown field", Agent, None),
    ("x_content_parse_exception", Agent, None),
];

/// A conversation of one line.
pub(in crate::driver) fn conversation(probe: &Probe) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": PROMPT}]});
    if let Some(model) = &probe.model {
        body["model"] = json!(model);
    }
    body
}

/// What is wrong with a body of one's own for this task.
pub(in crate::driver) fn check_body(task: Option<&str>, probe: &Probe) -> Vec<InvalidConfig> {
    if task != Some(COMPLETION) {
        return needs_list(probe, "messages");
    }
    let mut invalid = Vec::new();
    let is_text = |body: &Value| body.get("input").is_some_and(Value::is_string);
    if own_body(probe).is_some_and(|body| !is_text(&body)) {
        let problem = "is missing or no text; the task completion takes just that";
        invalid.push(InvalidConfig::new("probe.body.input", problem));
    }
    if probe.model.is_some() {
        let problem =
            "is of no use: the task completion asks the model of the definition; remove it";
        invalid.push(InvalidConfig::new("probe.model", problem));
    }
    invalid
}

/// The number in `… request from inference entity id [ID] status [401]. Error message: […]`.
fn provider_status(execution: &Execution) -> Option<u16> {
    let mut marks = OF_ENDPOINT.iter();
    let (_, rest) = marks.find_map(|mark| execution.message.split_once(mark))?;
    let (_, rest) = rest.split_once("] status [")?;
    let (digits, _) = rest.split_once(']')?;
    digits.parse().ok()
}
