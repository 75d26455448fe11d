//! The Admin API.

use crate::control::Control;
use crate::server::{ApiRequest, ApiResponse};

/// Answer a request to the Admin API.
pub(crate) async fn handle(control: &Control, request: ApiRequest) -> ApiResponse {
    crate::status::handle(control, &request)
}
