//! How authentication plugins combine, and what they tell the upstream (Kong's auth composition).
//!
//! A plugin with `anonymous` set is one of several ways in (OR): it is skipped once a credential was accepted,
//! and when it fails the request goes on as the anonymous consumer. A plugin without it must succeed (AND).
//! Whatever identity headers the client sent itself are replaced or removed as soon as a plugin decided.

use crate::env::BuildContext;
use crate::exchange::{Credential, Exchange};
use crate::native::settings;
use crate::{BuildError, LocalResponse, Step};
use gateward_http::{Headers, Name};
use gateward_model::{Consumer, EntityId};
use std::sync::Arc;
use uuid::fmt::Hyphenated;

const CONSUMER_ID: Name<'static> = Name::new("X-Consumer-ID");
const CONSUMER_CUSTOM_ID: Name<'static> = Name::new("X-Consumer-Custom-ID");
const CONSUMER_USERNAME: Name<'static> = Name::new("X-Consumer-Username");
const CREDENTIAL_IDENTIFIER: Name<'static> = Name::new("X-Credential-Identifier");
const ANONYMOUS_CONSUMER: Name<'static> = Name::new("X-Anonymous-Consumer");

/// Who the caller is when a plugin's own check fails: its `anonymous` setting, resolved.
pub struct Fallback(Option<Arc<Consumer>>);

impl Fallback {
    /// Resolves the setting, an id or a user name; `None` and the empty text mean that there is no fallback.
    /// Kong finds out that the consumer does not exist when a request needs it, and answers 500 then.
    pub fn new(context: &BuildContext<'_>, anonymous: Option<&str>) -> Result<Self, BuildError> {
        let Some(text) = anonymous.filter(|text| !text.is_empty()) else {
            return Ok(Self(None));
        };
        match context.directory.consumer_by_id_or_username(text) {
            Some(consumer) => Ok(Self(Some(consumer.clone()))),
            None => {
                let reason = format!("config.anonymous names the consumer '{text}', which does not exist: add it");
                Err(settings::refuse(context, reason))
            }
        }
    }

    /// Whether the plugin has nothing to do: it is one of several ways in and another one was taken.
    pub fn is_settled(&self, exchange: &Exchange) -> bool {
        self.0.is_some() && exchange.auth.credential.is_some()
    }

    /// The end of a failed check: on as the anonymous consumer, or `refusal`.
    pub fn failed<'a>(&self, exchange: &mut Exchange, refusal: impl FnOnce() -> LocalResponse) -> Step<'a> {
        match &self.0 {
            Some(consumer) => {
                identify(exchange, consumer.clone(), None);
                Step::Next
            }
            None => Step::Respond(refusal()),
        }
    }
}

/// Records who the caller is and tells the upstream; without credential the consumer is the anonymous one.
pub fn identify(exchange: &mut Exchange, consumer: Arc<Consumer>, credential: Option<Credential>) {
    let headers = &mut exchange.request.headers;
    set_id(headers, CONSUMER_ID, consumer.id);
    set_or_remove(headers, CONSUMER_CUSTOM_ID, consumer.custom_id.as_deref());
    set_or_remove(headers, CONSUMER_USERNAME, consumer.username.as_deref());
    match &credential {
        Some(credential) => {
            match &credential.identifier {
                Some(identifier) => set_or_remove(headers, CREDENTIAL_IDENTIFIER, Some(identifier)),
                None => set_id(headers, CREDENTIAL_IDENTIFIER, credential.id),
            }
            headers.remove(ANONYMOUS_CONSUMER);
        }
        None => {
            headers.remove(CREDENTIAL_IDENTIFIER);
            headers.set(ANONYMOUS_CONSUMER.as_str(), "true");
        }
    }
    exchange.auth.consumer = Some(consumer);
    exchange.auth.credential = credential;
}

fn set_id(headers: &mut Headers, name: Name<'static>, id: EntityId) {
    let mut buffer = [0; Hyphenated::LENGTH];
    headers.set(name.as_str(), id.0.hyphenated().encode_lower(&mut buffer).as_bytes());
}

/// A value that cannot stand in a header (control characters in a user name) removes the field: what the client
/// sent must not remain in its place.
fn set_or_remove(headers: &mut Headers, name: Name<'static>, value: Option<&str>) {
    if !value.is_some_and(|value| headers.set(name.as_str(), value)) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing;

    fn consumer(username: Option<&str>, custom_id: Option<&str>) -> Arc<Consumer> {
        Arc::new(testing::consumer("c", username, custom_id))
    }

    const SPOOFED: &[(&str, &str)] = &[
        ("x-consumer-id", "spoofed"),
        ("X-Consumer-Custom-Id", "spoofed"),
        ("X-Consumer-Username", "spoofed"),
        ("X-Consumer-Username", "again"),
        ("X-Credential-Identifier", "spoofed"),
        ("X-Anonymous-Consumer", "spoofed"),
    ];

    fn check(consumer: Arc<Consumer>, credential: Option<Credential>, expected: &[String]) {
        let mut exchange = testing::request("GET", "/", SPOOFED);
        identify(&mut exchange, consumer, credential);
        let mut lines = testing::lines(&exchange.request.headers);
        lines.sort_by_key(|line| line.to_lowercase());
        assert_eq!(lines, expected);
    }

    #[test]
    fn identity_headers_are_replaced_and_spoofed_ones_go() {
        let id = EntityId::derived("consumers", "c");
        let key = EntityId::derived("keys", "k");
        check(
            consumer(Some("ann"), None),
            Some(Credential { id: key, identifier: None }),
            &[
                format!("x-consumer-id: {id}"),
                "X-Consumer-Username: ann".to_owned(),
                format!("X-Credential-Identifier: {key}"),
            ],
        );
        check(
            consumer(Some("bad\r\nname"), Some("7")),
            Some(Credential { id: key, identifier: Some("user".to_owned()) }),
            &[
                "X-Consumer-Custom-Id: 7".to_owned(),
                format!("x-consumer-id: {id}"),
                "X-Credential-Identifier: user".to_owned(),
            ],
        );
        check(consumer(None, None), None, &["X-Anonymous-Consumer: true".to_owned(), format!("x-consumer-id: {id}")]);
    }
}
