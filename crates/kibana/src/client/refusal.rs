//! What a refusal of Kibana means; for those of Elasticsearch see `elastic`.
//!
//! The texts differ between versions, so the status decides, and a text only by a part that all versions share.

use serde::Deserialize;

use super::{Answer, Call, Service};
use crate::error::Error;
use crate::text::one_line;

/// The most of Kibana's words that is kept.
const TEXT_CHARS_MAX: usize = 300;

/// The body of every refusal: `{"statusCode":400,"error":"Bad Request","message":"…"}`.
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    message: String,
}

impl Answer {
    /// The error that this answer (not 2xx) stands for.
    pub(crate) fn refusal(self) -> Error {
        if self.call.service == Service::Elasticsearch {
            return self.elastic_refusal();
        }
        let message = self.parse::<Body>().ok().map(|body| body.message);
        let Self {
            call,
            status,
            retry_after,
            ..
        } = self;
        let text = message.as_deref().unwrap_or_default();
        match status {
            300..400 => Error::Redirected { call, status },
            401 => Error::Unauthorized { call },
            429 => Error::TooManyRequests { call, retry_after },
            502..=504 => Error::NotReady {
                call,
                status,
                retry_after,
            },
            _ if message.is_none() => Error::NotJson { call, status },
            400 => bad_request(call, text),
            403 => forbidden(call, text),
            // Kibana's words for an unknown route; for an unknown object they name it.
            404 if text.is_empty() || text == "Not Found" => Error::NoSuchRoute { call },
            404 => Error::Gone { call },
            409 => Error::Conflict { call },
            413 => Error::Rejected {
                call,
                problem: "it is larger than `server.maxPayload`".to_owned(),
            },
            500.. => Error::ServerError { call, status },
            _ => Error::Unexpected {
                call,
                problem: format!("the answer has the status {status}"),
            },
        }
    }
}

/// Order matters: an allow-list refusal is also a config error by its prefix.
fn bad_request(call: Call, text: &str) -> Error {
    if text.contains("xpack.actions.allowedHosts") {
        Error::HostNotAllowed { call }
    } else if text.contains("preconfigured action")
        || text.starts_with("Preconfigured action")
        || text.starts_with("System action")
    {
        Error::NotOurs { call }
    } else {
        Error::Rejected {
            call,
            problem: safe_text(text),
        }
    }
}

fn forbidden(call: Call, text: &str) -> Error {
    if text.contains("enabledActionTypes") {
        Error::TypeNotEnabled { call }
    } else if text.contains("license") {
        Error::Licence { call }
    } else {
        Error::Forbidden { call }
    }
}

/// Kibana's words where they are about fields that hold no secret; all others are dropped.
fn safe_text(text: &str) -> String {
    let about_config = text.contains(" type config: ")
        || text.starts_with("[request body.config")
        || text.starts_with("[request body.name]");
    let about_id = text.contains("Predefined IDs") || text.starts_with("Connector ID ");
    let about_type = text.starts_with("Action type ") && text.ends_with("is not registered.");
    if about_config || about_id || about_type {
        one_line(text, TEXT_CHARS_MAX)
    } else if text.contains("secrets") {
        "the secrets are not of the form that this Kibana wants".to_owned()
    } else {
        "its reason is not shown because it could repeat a secret; Kibana's log has it".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use keyfleet_core::failure::FailureClass;
    use serde_json::json;

    use super::*;

    fn call(line: &str) -> Call {
        Call {
            service: Service::Kibana,
            line: line.to_owned(),
        }
    }

    fn refused(status: u16, message: &str) -> Error {
        let body = json!({"statusCode": status, "error": "x", "message": message})
            .to_string()
            .into_bytes();
        Answer {
            call: call("PUT /x"),
            status,
            retry_after: None,
            date: None,
            body,
        }
        .refusal()
    }

    fn check(status: u16, message: &str, class: FailureClass, says: &str) {
        let error = refused(status, message);
        assert_eq!(error.class(), class, "{status} {message}");
        assert!(
            error.to_string().contains(says),
            "{status} {message}: {error}"
        );
    }

    #[test]
    fn refusals_are_read_by_status() {
        use FailureClass::*;
        check(302, "", KibanaDown, "redirect");
        check(401, "[security_exception: …]", KibanaAuth, "credentials");
        check(404, "Not Found", KibanaDown, "path prefix");
        check(404, "Saved object [action/x] not found", Conflict, "gone");
        check(
            409,
            "Saved object [action/x] conflict",
            Conflict,
            "somebody else",
        );
        check(
            413,
            "Payload content length greater than maximum allowed",
            Rejected,
            "maxPayload",
        );
        check(418, "", KibanaDown, "418");
        check(429, "", KibanaDown, "overloaded");
        check(
            500,
            "An internal server error occurred",
            KibanaDown,
            "failed (500)",
        );
        check(503, "", KibanaDown, "not ready");
    }

    #[test]
    fn a_refused_definition_is_read_by_what_all_versions_say() {
        use FailureClass::*;
        for (text, class, says) in [
            (
                "error validating action type config: [a]: definition for this key is missing",
                Rejected,
                "[a]",
            ),
            (
                "error validating connector type config: Unrecognized keys: \"a\"",
                Rejected,
                "Unrecognized keys",
            ),
            (
                "error validating action type config: Error configuring OpenAI action: Error: error validating url: \
                 target url \"http://x\" is not added to the Kibana config xpack.actions.allowedHosts",
                Egress,
                "allowedHosts",
            ),
            (
                "This X already exists in a preconfigured action.",
                Conflict,
                "kibana.yml",
            ),
            (
                "Preconfigured action X can not be updated.",
                Conflict,
                "kibana.yml",
            ),
            (
                "System action X can not be updated.",
                Conflict,
                "by Kibana itself",
            ),
            (
                "Action type \".gen-ai\" is not registered.",
                Rejected,
                "not registered",
            ),
        ] {
            check(400, text, class, says);
        }
    }

    #[test]
    fn a_forbidden_call_names_privilege_licence_or_switch() {
        use FailureClass::*;
        for (text, class, says) in [
            (
                "Unauthorized to create a \".gen-ai\" action",
                KibanaAuth,
                "privilege",
            ),
            (
                "Action type .gen-ai is disabled because your basic license does not support it. Please upgrade your license.",
                Licence,
                "Enterprise",
            ),
            (
                "action type \".gen-ai\" is not enabled in the Kibana config xpack.actions.enabledActionTypes",
                Rejected,
                "switched off",
            ),
        ] {
            check(403, text, class, says);
        }
    }

    #[test]
    fn a_text_that_could_repeat_a_secret_is_dropped() {
        for text in [
            r#"error validating connector type secrets: [apiKey]: got "sk-canary""#,
            "[request body.secrets.apiKey]: value 'sk-canary' is not valid",
            "something new about sk-canary",
        ] {
            for status in [400, 401, 403, 404, 409, 500] {
                let error = refused(status, text);
                assert!(
                    !format!("{error} {error:?}").contains("canary"),
                    "{status} {error}"
                );
            }
        }
    }

    #[test]
    fn a_page_instead_of_json_is_not_taken_for_an_answer() {
        for status in [400, 403, 404, 409, 500] {
            let body = b"<html>nginx</html>".to_vec();
            let answer = Answer {
                call: call("GET /x"),
                status,
                retry_after: None,
                date: None,
                body,
            };
            assert!(
                matches!(answer.refusal(), Error::NotJson { .. }),
                "{status}"
            );
        }
    }
}
