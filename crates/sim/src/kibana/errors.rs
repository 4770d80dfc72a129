//! Kibana's error bodies.

use serde_json::json;

use super::version::{ID_SLUG, Version};
use crate::reply::{Reply, reason};

/// The one form of every error body.
pub(super) fn error(status: u16, message: &str) -> Reply {
    Reply::json(
        status,
        &json!({ "statusCode": status, "error": reason(status), "message": message }),
    )
}

/// The connector is not there, or lives in another space.
pub(super) fn not_found(id: &str) -> Reply {
    error(404, &format!("Saved object [action/{id}] not found"))
}

/// The id is taken, in this space or in another one.
pub(super) fn conflict(version: Version, id: &str) -> Reply {
    match version.has(ID_SLUG) {
        true => error(
            409,
            &format!("A connector is already using this ID: {id}. Choose a different ID."),
        ),
        false => error(409, &format!("Saved object [action/{id}] conflict")),
    }
}

/// What a client sees of any exception inside Kibana.
pub(super) fn internal() -> Reply {
    error(
        500,
        "An internal server error occurred. Check Kibana server logs for details.",
    )
}

/// The `kbn-version` header names another version.
pub(super) fn client_out_of_date(given: &str, expected: &str) -> Reply {
    let message = format!(
        "Browser client is out of date, please refresh the page (\"kbn-version\" header was \"{given}\" but should be \
         \"{expected}\")"
    );
    Reply::json(
        400,
        &json!({
            "statusCode": 400,
            "error": "Bad Request",
            "message": message,
            "attributes": { "expected": expected, "got": given },
        }),
    )
}
