//! The live call: what is the same for every type, and what its outcome means.

pub(super) mod chat;
pub(super) mod elasticsearch;

use keyfleet_core::binding::Rung;
use keyfleet_core::connector::Probe;
use keyfleet_core::failure::FailureClass::{
    self, Agent, Egress, Encryption, Licence, Model, Network, Provider, Quota, RateLimit, Rejected,
    Timeout,
};
use keyfleet_core::failure::{classify_provider, is_tiny_limit_refusal};
use serde_json::{Value, json};

use super::{InvalidConfig, NOT_PLAIN, ProbeResult, is_plain_text};
use crate::api::Execution;
use crate::text::one_line;

/// Enough for an answer of every model without reasoning; a model with reasoning refuses in a way that still proves
/// the key.
pub(super) const TOKENS: u32 = 16;
/// More is no small call any more.
const TOKENS_MAX: u32 = 4096;
/// The most bytes of a body of one's own. It travels with every desired state.
const BODY_BYTES_MAX: usize = 4 * 1024;
/// The most of a message that is kept.
const TEXT_CHARS_MAX: usize = 500;
/// What a person reads of a model that ran out of tokens.
const TINY: &str = "the model wanted more tokens than the probe allows; it accepted key and model";

/// How a provider says what is wrong, as it comes through Kibana or Elasticsearch.
pub(super) struct Dialect {
    /// The provider's status, where it gave one.
    pub(super) status: fn(&Execution) -> Option<u16>,
    /// Its own words, looked for before those that all share.
    pub(super) words: &'static [Word],
    /// With which status and words (in lower case) a model says that it took the key and ran out of tokens, beside
    /// those of `OpenAI`.
    pub(super) tiny: &'static [(Option<u16>, &'static str)],
    /// What a failure means where the provider gave no status; the text is in lower case.
    pub(super) unanswered: fn(&Execution, &str) -> (FailureClass, Option<Rung>),
}

/// A part of a text in lower case, its class, and how far the call came.
type Meaning = (&'static str, FailureClass, Option<Rung>);

/// A status and a part of the text (in lower case) that together have a meaning.
pub(super) struct Word {
    status: u16,
    text: &'static str,
    class: FailureClass,
}

impl Word {
    pub(super) const fn at(status: u16, text: &'static str, class: FailureClass) -> Self {
        Self {
            status,
            text,
            class,
        }
    }
}

/// What Kibana's own connectors say.
pub(super) const KIBANA: Dialect = Dialect {
    status: |execution| execution.status_code,
    words: &[],
    tiny: &[],
    unanswered: |_, text| meaning(&UNANSWERED, text),
};

/// What Kibana says where the provider gave no status; the first that is in a text counts. What is not here blames
/// nobody's key.
const UNANSWERED: [Meaning; 12] = [
    ("timeout of ", Timeout, Some(Rung::Loaded)),
    ("econnaborted", Timeout, Some(Rung::Loaded)),
    ("xpack.actions.allowedhosts", Egress, Some(Rung::Loaded)),
    ("status code: undefined", Network, Some(Rung::Loaded)),
    (" type secrets", Encryption, None),
    ("decrypt", Encryption, None),
    ("missing encryption key", Encryption, None),
    (" type config", Rejected, None),
    // This Kibana does not know our probe: neither definition nor key is to blame.
    ("action params", Agent, None),
    ("sub action", Agent, None),
    (" license ", Licence, None),
    ("response validation failed", Provider, Some(Rung::Reached)),
];

/// Reads the outcome. Kibana's `retry` and `errorSource` are not used: a wrong key has `retry: true` too.
pub(super) fn read(execution: &Execution, dialect: &Dialect) -> ProbeResult {
    if execution.ok {
        return ProbeResult::Proven {
            note: None,
            rung: Rung::Answered,
        };
    }
    let status = (dialect.status)(execution);
    let text = execution.message.to_ascii_lowercase();
    let is_tiny = |(at, part): &(Option<u16>, &str)| *at == status && text.contains(part);
    if is_tiny_limit_refusal(status, &text) || dialect.tiny.iter().any(is_tiny) {
        return ProbeResult::Proven {
            note: Some(TINY.to_owned()),
            rung: Rung::KeyAccepted,
        };
    }
    let (class, rung) = match status {
        Some(status) => answered(status, &text, dialect.words),
        None => (dialect.unanswered)(execution, &text),
    };
    ProbeResult::Failed {
        class,
        text: one_line(&execution.message, TEXT_CHARS_MAX),
        rung,
    }
}

/// The meaning of a text: nobody's fault but the provider's where the rows have none.
fn meaning(rows: &[Meaning], text: &str) -> (FailureClass, Option<Rung>) {
    let row = rows.iter().find(|(part, ..)| text.contains(part));
    row.map_or((Provider, None), |(_, class, rung)| (*class, *rung))
}

fn answered(status: u16, text: &str, words: &[Word]) -> (FailureClass, Option<Rung>) {
    let own = words
        .iter()
        .find(|word| word.status == status && text.contains(word.text));
    let class = own.map_or_else(
        || classify_provider(Some(status), None, None, text),
        |word| word.class,
    );
    // A provider looks at the key before it counts or looks for a model; a bare 404 may come from anything on the way.
    let is_named = text.contains("model") || text.contains("deployment");
    let took_key = matches!(class, Quota | RateLimit) || (class == Model && is_named);
    let rung = if took_key {
        Rung::KeyAccepted
    } else {
        Rung::Reached
    };
    (class, Some(rung))
}

/// The body that a definition gives, where it gives one.
pub(super) fn own_body(probe: &Probe) -> Option<Value> {
    let body: Value = serde_json::from_str(probe.body.as_deref()?).ok()?;
    body.is_object().then_some(body)
}

/// The `params` of the sub-action `test`: the body is a text of JSON, the model stands beside it.
pub(super) fn test(body: &Value, probe: &Probe) -> Value {
    let mut params = json!({"body": body.to_string()});
    if let Some(model) = &probe.model {
        params["model"] = json!(model);
    }
    json!({"subAction": "test", "subActionParams": params})
}

/// What is wrong with a live call of any type.
pub(super) fn check(probe: &Probe) -> Vec<InvalidConfig> {
    let mut invalid = Vec::new();
    let mut refuse =
        |field: &str, problem: String| invalid.push(InvalidConfig::new(field, problem));
    if let Some(body) = &probe.body {
        if body.len() > BODY_BYTES_MAX {
            refuse(
                "probe.body",
                format!("is larger than {BODY_BYTES_MAX} bytes"),
            );
        } else if own_body(probe).is_none() {
            refuse("probe.body", "must be a map of fields".to_owned());
        }
        if probe.max_tokens.is_some() {
            let problem = "is of no use beside a body, which says everything; write it there";
            refuse("probe.maxTokens", problem.to_owned());
        }
    }
    if probe
        .max_tokens
        .is_some_and(|most| !(1..=TOKENS_MAX).contains(&most))
    {
        refuse(
            "probe.maxTokens",
            format!("must be a number from 1 to {TOKENS_MAX}"),
        );
    }
    match &probe.model {
        Some(model) if model.trim().is_empty() => {
            refuse(
                "probe.model",
                "is blank; write a model or remove the line".to_owned(),
            );
        }
        Some(model) if !is_plain_text(model) => refuse("probe.model", NOT_PLAIN.to_owned()),
        Some(_) if probe.body.is_some() => {
            let problem = "is of no use beside a body, which says everything; write it there";
            refuse("probe.model", problem.to_owned());
        }
        _ => {}
    }
    invalid
}

/// A body of one's own must have this list, or no provider takes it.
pub(super) fn needs_list(probe: &Probe, name: &str) -> Vec<InvalidConfig> {
    let Some(body) = own_body(probe) else {
        return Vec::new();
    };
    let has_some = body.get(name).and_then(Value::as_array);
    if has_some.is_some_and(|list| !list.is_empty()) {
        return Vec::new();
    }
    let field = format!("probe.body.{name}");
    let problem = "is missing or no list; without it the provider refuses the call";
    vec![InvalidConfig::new(field, problem)]
}
