//! How far a failed call came, and what the words of each provider mean.

use keyfleet_core::binding::Rung;
use keyfleet_core::failure::FailureClass::{self, *};
use proptest::prelude::*;

use super::{BEDROCK, ENDPOINT, GEMINI, INFERENCE, KINDS, Kind, OPENAI};
use crate::api::Execution;
use crate::driver::{ProbeResult, driver};

const LOADED: Option<Rung> = Some(Rung::Loaded);
const REACHED: Option<Rung> = Some(Rung::Reached);
const ACCEPTED: Option<Rung> = Some(Rung::KeyAccepted);

fn read(kind: Kind, status_code: Option<u16>, message: &str) -> ProbeResult {
    let message = message.to_owned();
    let execution = Execution {
        ok: false,
        status_code,
        message,
    };
    driver(kind.0).unwrap().read_probe(&execution)
}

fn check(kind: Kind, status: Option<u16>, message: &str, class: FailureClass, rung: Option<Rung>) {
    match read(kind, status, message) {
        ProbeResult::Failed {
            class: found,
            rung: came,
            ..
        } => assert_eq!(
            (found, came),
            (class, rung),
            "{kind:?} {status:?} {message}"
        ),
        ProbeResult::Proven { .. } => panic!("proven: {kind:?} {message}"),
    }
}

/// As Kibana's own connectors pass the provider's words on.
fn through_kibana(kind: Kind, status: u16, says: &str, class: FailureClass, rung: Option<Rung>) {
    let message = format!("Status code: {status}. Message: API Error: {says}");
    check(kind, Some(status), &message, class, rung);
}

/// As Elasticsearch passes the provider's words on.
fn of_endpoint(status: u16, says: &str) -> String {
    format!(
        "status_exception: Received an unsuccessful status code for request from inference entity id [assistant] \
         status [{status}]. Error message: [{says}]"
    )
}

#[test]
fn a_failed_call_tells_how_far_it_came() {
    for (status, says, class, rung) in [
        (401, "Incorrect API key provided", Auth, REACHED),
        (404, "The model `x` does not exist", Model, ACCEPTED),
        (404, "Not Found", Model, REACHED),
        (429, "You exceeded your current quota", Quota, ACCEPTED),
        (429, "Rate limit reached", RateLimit, ACCEPTED),
        (
            403,
            "Country, region, or territory not supported",
            Egress,
            REACHED,
        ),
        (500, "x", Provider, REACHED),
    ] {
        through_kibana(OPENAI, status, says, class, rung);
    }
    for (says, class, rung) in [
        (
            "Status code: undefined. Message: Unexpected API Error: ECONNREFUSED - x",
            Network,
            LOADED,
        ),
        (
            "Status code: undefined. Message: timeout of 60000ms exceeded",
            Timeout,
            LOADED,
        ),
        (
            "target url is not added to the Kibana config xpack.actions.allowedHosts",
            Egress,
            LOADED,
        ),
        (
            "Response validation failed (Error: [usage]: expected)",
            Provider,
            REACHED,
        ),
        ("Unable to decrypt attribute \"secrets\"", Encryption, None),
        ("Sub action \"test\" is not registered.", Agent, None),
        ("who knows", Provider, None),
    ] {
        check(OPENAI, None, says, class, rung);
    }
}

#[test]
fn words_of_amazon() {
    for (status, says, class, rung) in [
        (
            403,
            "Forbidden - The security token included in the request is invalid.",
            Auth,
            REACHED,
        ),
        (
            403,
            "Forbidden - The request signature we calculated does not match the signature you provided.",
            Auth,
            REACHED,
        ),
        (
            403,
            "Forbidden - Credential should be scoped to a valid region.",
            Rejected,
            REACHED,
        ),
        (
            403,
            "Forbidden - Signature expired: 20260101T000000Z is now earlier",
            Egress,
            REACHED,
        ),
        (
            403,
            "Forbidden - You don't have access to the model with the specified model ID.",
            Model,
            ACCEPTED,
        ),
        (
            403,
            "Forbidden - User: arn:aws:iam::1:user/x is not authorized to perform: bedrock:InvokeModel",
            Model,
            ACCEPTED,
        ),
        (
            400,
            "Bad Request - The provided model identifier is invalid.",
            Model,
            ACCEPTED,
        ),
        (
            400,
            "The requested operation is not recognized by the service.",
            Rejected,
            REACHED,
        ),
        (400, "Bad Request - something else", Provider, REACHED),
        (403, "Forbidden", Egress, REACHED),
        (
            429,
            "Too Many Requests - Too many tokens, please wait",
            RateLimit,
            ACCEPTED,
        ),
        (503, "Service Unavailable", Provider, REACHED),
    ] {
        through_kibana(BEDROCK, status, says, class, rung);
    }
}

#[test]
fn words_of_google() {
    for (status, says, class, rung) in [
        (
            401,
            "UNAUTHENTICATED: Request had invalid authentication credentials.",
            Auth,
            REACHED,
        ),
        (
            403,
            "PERMISSION_DENIED: Permission 'aiplatform.endpoints.predict' denied",
            Model,
            REACHED,
        ),
        (
            404,
            "NOT_FOUND: Publisher Model `x` was not found",
            Model,
            ACCEPTED,
        ),
        (
            429,
            "RESOURCE_EXHAUSTED: Resource exhausted. Please try again later.",
            RateLimit,
            ACCEPTED,
        ),
        (400, "INVALID_ARGUMENT: x", Provider, REACHED),
    ] {
        through_kibana(GEMINI, status, says, class, rung);
    }
    // A broken account is told apart by nobody; it is not called a wrong key.
    check(
        GEMINI,
        None,
        "Unable to retrieve access token",
        Provider,
        None,
    );
}

#[test]
fn words_of_elasticsearch() {
    let refusals = [
        (401, "Incorrect API key provided", Auth, REACHED),
        (404, "The model `x` does not exist", Model, ACCEPTED),
        (429, "You exceeded your current quota", Quota, ACCEPTED),
        (500, "x", Provider, REACHED),
    ];
    for (status, says, class, rung) in refusals {
        check(INFERENCE, None, &of_endpoint(status, says), class, rung);
        check(
            ENDPOINT,
            Some(status),
            &of_endpoint(status, says),
            class,
            rung,
        );
    }
    let own = [
        (
            "security_exception: action [cluster:monitor/xpack/inference/post] is unauthorized for user [x]",
            KibanaAuth,
            None,
        ),
        (
            "resource_not_found_exception: Inference endpoint not found [assistant]",
            Conflict,
            None,
        ),
        (
            "security_exception: current license is non-compliant for [inference]",
            Licence,
            None,
        ),
        (
            "Failed to send request from inference entity id [assistant]",
            Network,
            LOADED,
        ),
        ("Request timed out after [30s]", Timeout, LOADED),
        (
            "x_content_parse_exception: [1:2] [x] unknown field [y]",
            Agent,
            None,
        ),
    ];
    for (says, class, rung) in own {
        check(INFERENCE, None, says, class, rung);
        check(ENDPOINT, Some(400), says, class, rung);
    }
    // Not the provider's: the agent's own credentials.
    check(ENDPOINT, Some(401), "who knows", KibanaAuth, None);
    check(ENDPOINT, Some(403), "who knows", KibanaAuth, None);
    check(
        INFERENCE,
        None,
        "Sub action \"unified_completion\" is not registered.",
        Agent,
        None,
    );
    check(INFERENCE, None, "Method not implemented.", Provider, None);
}

#[test]
fn a_model_that_ran_out_of_tokens_took_the_key() {
    let tiny = "Could not finish the message because max_tokens or model output limit was reached.";
    let google = "Response validation failed (Error: [usageMetadata.candidatesTokenCount]: expected value of type [number])";
    let cases = [
        (
            OPENAI,
            Some(400),
            format!("Status code: 400. Message: API Error: Bad Request - {tiny}"),
        ),
        (INFERENCE, None, of_endpoint(400, tiny)),
        (INFERENCE, None, "createTokenLimitReachedError()".to_owned()),
        (ENDPOINT, Some(400), of_endpoint(400, tiny)),
        (GEMINI, None, google.to_owned()),
    ];
    for (kind, status, message) in cases {
        let result = read(kind, status, &message);
        let is_proof = matches!(
            result,
            ProbeResult::Proven {
                note: Some(_),
                rung: Rung::KeyAccepted
            }
        );
        assert!(is_proof, "{kind:?} {message}: {result:?}");
    }
}

proptest! {
    #[test]
    fn nobodys_key_is_blamed_without_a_refusal(status in prop::option::of(0u16..1000), text in ".{0,80}") {
        for kind in KINDS {
            let result = read(kind, status, &text);
            let is_auth = matches!(result, ProbeResult::Failed { class: Auth, .. });
            let may_be = matches!(status, Some(401 | 403));
            prop_assert!(!is_auth || may_be, "{kind:?} {status:?} {text}");
            prop_assert!(!matches!(result, ProbeResult::Proven { .. }), "{kind:?} {status:?} {text}");
        }
    }

    #[test]
    fn words_without_a_status_never_blame_a_key(index in 0usize..6, before in ".{0,20}", after in ".{0,20}") {
        let says = ["401", "Unauthorized", "Incorrect API key provided", "invalid api key", "status [401]",
            "The security token included in the request is invalid"][index];
        let text = format!("{before} {says} {after}");
        for kind in KINDS {
            let result = read(kind, None, &text);
            let is_auth = matches!(result, ProbeResult::Failed { class: Auth, .. });
            prop_assert!(!is_auth, "{kind:?} {text}");
        }
    }
}
