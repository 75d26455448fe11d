//! The small HTTP server of control sides: whole requests in, whole responses out.
//!
//! hyper does the protocol; proxied traffic never comes here. Handlers are functions from [`ApiRequest`] to
//! [`ApiResponse`], so that they are tested without sockets.
#![forbid(unsafe_code)]

mod body;
mod request;
mod response;
mod serve;

pub use body::{Limits, Refuse};
pub use request::{ApiRequest, form_fields};
pub use response::ApiResponse;
pub use serve::{Door, Reset, accept, serve, serve_admitted};
