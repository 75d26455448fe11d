//! Errors as the API answers them: `{"errors":[{"message", "file"?, "line"?, "rule"?, "remedy"?}]}`.

use gateward_zone::Problem;
use hyper::StatusCode;
use hyper::header::RETRY_AFTER;
use serde_json::{Value, json};

use crate::authority::Refused;
use gateward_api::ApiResponse;

/// An error that is but a text.
pub(crate) fn plain(message: impl Into<String>) -> Value {
    json!({ "message": message.into() })
}

/// An answer with errors.
pub(crate) fn errors(status: StatusCode, errors: &[Value]) -> ApiResponse {
    ApiResponse::json(status, &json!({ "errors": errors }))
}

/// Problems as errors.
pub(crate) fn problems(status: StatusCode, problems: &[Problem]) -> ApiResponse {
    let values: Vec<Value> = problems.iter().map(|problem| serde_json::to_value(problem).unwrap_or_default()).collect();
    errors(status, &values)
}

/// Why nothing changed. `conflict` is the status when the change was made for another version.
pub(crate) fn refused(error: &Refused, conflict: StatusCode) -> ApiResponse {
    let message = error.to_string();
    match error {
        Refused::NoZone(_) | Refused::NoVersion(_) => errors(StatusCode::NOT_FOUND, &[plain(message)]),
        Refused::Base { served, .. } => errors(
            conflict,
            &[json!({
                "message": message, "rule": "base-serial", "served": served,
                "remedy": "read the zone as it is served, and make the change for that version",
            })],
        ),
        Refused::PolicyBase => errors(
            StatusCode::PRECONDITION_FAILED,
            &[json!({
                "message": message, "rule": "base-policy",
                "remedy": "read the policy as it is, and make the change for that one",
            })],
        ),
        Refused::Rules(found) => problems(StatusCode::UNPROCESSABLE_ENTITY, found),
        Refused::Update { .. } => errors(StatusCode::UNPROCESSABLE_ENTITY, &[plain(message)]),
        Refused::Busy { retry_after_ms, .. } => {
            let seconds = retry_after_ms.div_ceil(1_000).max(1);
            errors(StatusCode::TOO_MANY_REQUESTS, &[plain(message)]).header(RETRY_AFTER, &seconds.to_string())
        }
        Refused::Failed(_) => errors(StatusCode::INTERNAL_SERVER_ERROR, &[plain(message)]),
    }
}
