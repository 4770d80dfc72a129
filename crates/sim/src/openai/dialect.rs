//! Whom the simulator plays, by the path of a request: OpenAI, Azure OpenAI, a server that is only compatible, Amazon
//! Bedrock or Google Vertex AI.
//!
//! All share keys, models and faults; they differ in the header of the key, in parameters and in error bodies.

use serde_json::{Value, json};

use super::clouds;
use super::errors::Refusal;
use crate::kibana::CERTIFICATE_HEADER;
use crate::reply::{Call, Reply};

/// Below it lie the deployments of an Azure resource, each called like its model.
const AZURE: &str = "/openai/deployments/";
/// Below it lies a server that knows nothing but chat completions, and of limits only `max_tokens`.
const COMPATIBLE: &str = "/compatible/";
/// The first API version of Azure that knows `max_completion_tokens`. Not confirmed.
const AZURE_KNOWS_NEW_LIMIT: &str = "2024-09-01";

/// A way of speaking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenAi,
    Azure,
    Compatible,
    Bedrock,
    Gemini,
}

impl Dialect {
    pub(super) fn of(path: &str) -> Self {
        if path.starts_with(AZURE) {
            Self::Azure
        } else if path.starts_with(COMPATIBLE) {
            Self::Compatible
        } else if path.starts_with("/model/") {
            Self::Bedrock
        } else if path.starts_with("/v1/projects/") {
            Self::Gemini
        } else {
            Self::OpenAi
        }
    }

    /// The deployment that a path of Azure names.
    pub(super) fn deployment(path: &str) -> Option<&str> {
        let deployment = path
            .strip_prefix(AZURE)?
            .strip_suffix("/chat/completions")?;
        (!deployment.is_empty() && !deployment.contains('/')).then_some(deployment)
    }

    /// The key that a request presents, each dialect in its own header and in no other.
    pub(super) fn key(self, call: &Call) -> Option<String> {
        let authorization = call.header("authorization");
        let bearer = authorization.and_then(|given| given.strip_prefix("Bearer "));
        let key = match self {
            Self::OpenAi | Self::Gemini => bearer?.to_owned(),
            Self::Compatible => bearer
                .or_else(|| call.header(CERTIFICATE_HEADER))?
                .to_owned(),
            Self::Azure => call.header("api-key")?.to_owned(),
            Self::Bedrock => clouds::signed_with(authorization?)?,
        };
        Some(key.trim().to_owned()).filter(|key| !key.is_empty())
    }

    pub(super) fn no_key(self) -> Refusal {
        match self {
            Self::OpenAi | Self::Compatible => Refusal::no_key(),
            Self::Bedrock => Refusal::new(
                403,
                "",
                Some("MissingAuthenticationTokenException"),
                "Missing Authentication Token",
            ),
            Self::Gemini => self.bad_key(""),
            // The gateway before Azure answers this one, with a body of its own.
            Self::Azure => Refusal {
                is_flat: true,
                ..Refusal::new(
                    401,
                    "",
                    None,
                    "Access denied due to missing subscription key. Make sure to include subscription key when making \
                     requests to an API.",
                )
            },
        }
    }

    pub(super) fn bad_key(self, key: &str) -> Refusal {
        match self {
            Self::OpenAi => Refusal::bad_key(key),
            Self::Azure => Refusal::new(
                401,
                "",
                Some("401"),
                "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key \
                 for an active subscription and use a correct regional API endpoint for your resource.",
            ),
            Self::Compatible => Refusal::new(401, "", None, "Unauthorized"),
            Self::Bedrock => Refusal::new(
                403,
                "",
                Some("UnrecognizedClientException"),
                "The security token included in the request is invalid.",
            ),
            Self::Gemini => Refusal::new(
                401,
                "UNAUTHENTICATED",
                None,
                "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other \
                 valid authentication credential.",
            ),
        }
    }

    /// Refuses parameters that it does not know.
    pub(super) fn check_parameters(self, call: &Call, body: &Value) -> Result<(), Refusal> {
        let has_new_limit = !body["max_completion_tokens"].is_null();
        match self {
            Self::OpenAi | Self::Bedrock | Self::Gemini => Ok(()),
            Self::Azure => {
                let version = call.parameter("api-version").unwrap_or_default();
                if version.is_empty() {
                    return Err(Refusal::new(404, "", Some("404"), "Resource not found"));
                }
                match has_new_limit && version.as_str() < AZURE_KNOWS_NEW_LIMIT {
                    true => Err(Refusal::invalid(
                        None,
                        None,
                        "Unrecognized request argument supplied: max_completion_tokens",
                    )),
                    false => Ok(()),
                }
            }
            Self::Compatible if has_new_limit => Err(Refusal::invalid(
                None,
                None,
                "unexpected argument in the request",
            )),
            Self::Compatible => Ok(()),
        }
    }

    pub(super) fn no_deployment() -> Refusal {
        Refusal::new(
            404,
            "",
            Some("DeploymentNotFound"),
            "The API deployment for this resource does not exist. If you created the deployment within the last 5 \
             minutes, please wait a moment and try again.",
        )
    }

    /// A refusal in the form of this dialect.
    pub(super) fn reply(self, refusal: &Refusal) -> Reply {
        let message = &refusal.message;
        let body = match self {
            Self::OpenAi => {
                json!({ "error": { "message": message, "type": refusal.kind, "param": refusal.param, "code": refusal.code } })
            }
            Self::Azure if refusal.is_flat => {
                json!({ "statusCode": refusal.status, "message": message })
            }
            Self::Azure => json!({ "error": { "code": refusal.code, "message": message } }),
            Self::Compatible => json!({ "error": message }),
            Self::Bedrock => json!({ "message": message }),
            Self::Gemini => {
                json!({ "error": { "code": refusal.status, "message": message, "status": refusal.kind } })
            }
        };
        let mut reply = Reply::json(refusal.status, &body);
        if let (Self::Bedrock, Some(code)) = (self, refusal.code) {
            reply = reply.with_header("x-amzn-errortype", code);
        }
        match refusal.retry_after_secs {
            Some(secs) => reply.with_header("retry-after", secs.to_string()),
            None => reply,
        }
    }
}
