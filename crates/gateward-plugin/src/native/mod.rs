//! The native plugins, one file each, named as in Kong with `_` for `-`.
//!
//! A file exports `definition()`, which [`crate::registry`] lists; nothing else refers to a plugin by its type.
//! What several plugins share has its own file: [`authentication`] (composition of authentication plugins),
//! [`settings`] (reading configuration, scope rules), [`query`](crate::query) (query strings and form bodies).

pub mod acl;
pub mod authentication;
pub mod basic_auth;
pub mod bot_detection;
pub(crate) mod complaints;
pub mod correlation_id;
pub mod cors;
pub mod edits;
pub mod file_log;
pub mod grpc_web;
pub mod http_log;
pub mod ip_restriction;
pub mod key_auth;
pub mod log_queue;
pub mod prometheus;
pub mod rate_limiting;
pub(crate) mod record_fields;
pub mod redirect;
pub mod request_size_limiting;
pub mod request_termination;
pub mod request_transformer;
pub mod response_transformer;
pub mod settings;
pub mod template;
#[cfg(test)]
pub(crate) mod testing;
