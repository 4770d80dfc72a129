//! Why a binding failed, and how a provider's answer is read.

use std::fmt;

/// The class of a failure: decides the budget it counts against and what a person should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureClass {
    /// The provider refused the key itself.
    Auth,
    /// The way from this Kibana to the provider is refused; the key is fine.
    Egress,
    /// Credit or a spend limit is used up.
    Quota,
    /// Too many requests at the provider.
    RateLimit,
    /// The model is missing or not allowed for this key.
    Model,
    /// No answer from the provider.
    Network,
    /// The provider failed, or answered something nobody understands.
    Provider,
    /// Kibana's licence does not include the connector type.
    Licence,
    /// Kibana refused the agent's credentials or privileges.
    KibanaAuth,
    /// Kibana did not answer or is not ready.
    KibanaDown,
    /// The definition was refused, by the agent's own rules or by Kibana.
    Rejected,
    /// Somebody else owns or changes the connector.
    Conflict,
    /// Kibana cannot encrypt or decrypt secrets.
    Encryption,
    /// A deadline passed.
    Timeout,
    /// The agent is not connected.
    Unreachable,
    /// The agent itself failed.
    Agent,
}

impl FailureClass {
    /// Every class, in the order of the design.
    pub const ALL: [Self; 16] = [
        Self::Auth,
        Self::Egress,
        Self::Quota,
        Self::RateLimit,
        Self::Model,
        Self::Network,
        Self::Provider,
        Self::Licence,
        Self::KibanaAuth,
        Self::KibanaDown,
        Self::Rejected,
        Self::Conflict,
        Self::Encryption,
        Self::Timeout,
        Self::Unreachable,
        Self::Agent,
    ];

    /// The name in manifests, tables and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "AUTH",
            Self::Egress => "EGRESS",
            Self::Quota => "QUOTA",
            Self::RateLimit => "RATE_LIMIT",
            Self::Model => "MODEL",
            Self::Network => "NETWORK",
            Self::Provider => "PROVIDER",
            Self::Licence => "LICENCE",
            Self::KibanaAuth => "KIBANA_AUTH",
            Self::KibanaDown => "KIBANA_DOWN",
            Self::Rejected => "REJECTED",
            Self::Conflict => "CONFLICT",
            Self::Encryption => "ENCRYPTION",
            Self::Timeout => "TIMEOUT",
            Self::Unreachable => "UNREACHABLE",
            Self::Agent => "AGENT",
        }
    }

    /// The class of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == text)
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `insufficient_quota` and the codes that OpenAI added for spend and usage limits (error-codes guide, 2026).
const QUOTA_CODES: [&str; 5] = [
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
];

/// What a provider says (in lower case) of a caller that it does not serve, whatever the key: `OpenAI`'s lists of
/// addresses and countries, Azure's networks.
const WAYS_REFUSED: [&str; 4] = [
    "ip not authorized",
    "country, region, or territory",
    "virtual network/firewall",
    "public access is disabled",
];

/// Says what a provider's refusal means for the connector.
///
/// `status` is `None` where no HTTP answer came; `code` and `kind` are `error.code` and `error.type` of
/// OpenAI's `ErrorResponse` where they are known (behind Kibana they are not); `text` is its message and is
/// only looked at, never kept. An unknown refusal falls to [`FailureClass::Provider`], which blames nobody's key.
pub fn classify_provider(
    status: Option<u16>,
    code: Option<&str>,
    kind: Option<&str>,
    text: &str,
) -> FailureClass {
    let text = text.to_ascii_lowercase();
    let has = |part: &str| text.contains(part);
    let quota = code.is_some_and(|code| QUOTA_CODES.contains(&code))
        || kind == Some("insufficient_quota")
        || QUOTA_CODES.iter().any(|code| has(code))
        || has("exceeded your current quota")
        || has("out of call volume quota");
    match status {
        None => FailureClass::Network,
        Some(401 | 403) if WAYS_REFUSED.iter().any(|part| has(part)) => FailureClass::Egress,
        Some(401 | 403 | 404) if code == Some("model_not_found") || names_model(&text) => {
            FailureClass::Model
        }
        Some(401) => FailureClass::Auth,
        Some(403 | 429) if quota => FailureClass::Quota,
        Some(403) if has("api key") || has("insufficient permissions") => FailureClass::Auth,
        Some(403 | 407) => FailureClass::Egress,
        Some(404) => FailureClass::Model,
        Some(408 | 504) => FailureClass::Timeout,
        Some(429) => FailureClass::RateLimit,
        Some(400 | 422) if names_model(&text) => FailureClass::Model,
        Some(_) => FailureClass::Provider,
    }
}

/// True where a text (in lower case) says that the model is the trouble.
fn names_model(text: &str) -> bool {
    text.contains("model")
        && [
            "does not exist",
            "does not have access",
            "model_not_found",
            "not found",
        ]
        .iter()
        .any(|part| text.contains(part))
}

/// True where a 400 means that key and model work and only the tiny limit of the probe was too small
/// (reasoning models, error text of the chat completions endpoint).
pub fn is_tiny_limit_refusal(status: Option<u16>, text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    status == Some(400)
        && text.contains("could not finish the message")
        && text.contains("output limit was reached")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_one_name() {
        for class in FailureClass::ALL {
            assert_eq!(FailureClass::parse(class.as_str()), Some(class));
        }
        assert_eq!(FailureClass::parse("auth"), None);
    }

    /// Checks answers of one status: code, type, text, and what they mean.
    fn check(status: Option<u16>, cases: &[(Option<&str>, Option<&str>, &str, FailureClass)]) {
        for (code, kind, text, class) in cases {
            let found = classify_provider(status, *code, *kind, text);
            assert_eq!(found, *class, "{status:?} {text}");
        }
    }

    #[test]
    fn refusals_of_keys_and_ways_out_are_told_apart() {
        use FailureClass::{Auth, Egress, Model};
        let scopes = "You have insufficient permissions. Missing scopes: model.request";
        check(
            Some(401),
            &[
                (
                    Some("invalid_api_key"),
                    None,
                    "Incorrect API key provided",
                    Auth,
                ),
                (None, None, scopes, Auth),
                (None, None, "IP not authorized", Egress),
            ],
        );
        let project = "Project does not have access to model `gpt-4o`";
        check(
            Some(403),
            &[
                (
                    None,
                    None,
                    "Country, region, or territory not supported",
                    Egress,
                ),
                (Some("model_not_found"), None, project, Model),
            ],
        );
    }

    #[test]
    fn other_refusals_are_classified() {
        use FailureClass::{Model, Network, Provider, Quota, RateLimit};
        let missing = "The model `x` does not exist or you do not have access to it.";
        check(Some(404), &[(None, None, missing, Model)]);
        check(
            Some(422),
            &[(None, None, "The model `bad model` does not exist", Model)],
        );
        check(
            Some(429),
            &[
                (Some("insufficient_quota"), None, "", Quota),
                (None, Some("insufficient_quota"), "", Quota),
                (None, None, "You exceeded your current quota", Quota),
                (
                    Some("rate_limit_exceeded"),
                    None,
                    "Rate limit reached",
                    RateLimit,
                ),
            ],
        );
        check(Some(503), &[(None, None, "server_is_overloaded", Provider)]);
        check(Some(418), &[(None, None, "", Provider)]);
        check(None, &[(None, None, "ECONNREFUSED", Network)]);
    }

    #[test]
    fn a_reasoning_model_that_ran_out_of_tokens_still_proves_the_key() {
        let text =
            "Could not finish the message because max_tokens or model output limit was reached.";
        assert!(is_tiny_limit_refusal(Some(400), text));
        assert!(!is_tiny_limit_refusal(Some(401), text));
    }
}
