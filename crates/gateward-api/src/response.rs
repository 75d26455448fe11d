//! A response as handlers make it.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;

const JSON: &str = "application/json; charset=utf-8";

/// A response of the control side.
#[derive(Debug, Clone)]
pub struct ApiResponse {
    /// The status.
    pub status: StatusCode,
    /// The fields of its head.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Content.
    pub body: Bytes,
}

impl ApiResponse {
    /// A value as JSON.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::bytes(status, JSON, body),
            Err(error) => Self::message(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    /// `{"message": ...}`.
    #[must_use]
    pub fn message(status: StatusCode, message: &str) -> Self {
        let body = serde_json::json!({ "message": message }).to_string();
        Self::bytes(status, JSON, body.into_bytes())
    }

    /// Any content.
    #[must_use]
    pub fn bytes(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Self {
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static(content_type))];
        Self { status, headers, body: body.into() }
    }

    /// No content.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// With one more field; left out if the value cannot stand in one.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    /// `Content-Type`, or empty.
    #[must_use]
    pub fn content_type(&self) -> &str {
        let field = self.headers.iter().find(|(name, _)| *name == CONTENT_TYPE);
        field.and_then(|(_, value)| value.to_str().ok()).unwrap_or_default()
    }

    /// Kong's answer to a path or entity that does not exist.
    #[must_use]
    pub fn not_found() -> Self {
        Self::message(StatusCode::NOT_FOUND, "Not found")
    }

    /// Kong's answer to a method that a path does not have.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::message(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
    }
}
