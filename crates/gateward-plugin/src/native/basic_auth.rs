//! basic-auth: the caller is who owns the user name and password of the Basic scheme (RFC 7617).
//!
//! Passwords are stored as Kong stores them, SHA-1 over password and consumer id; they are compared in constant
//! time, and an unknown user costs the same hash as a known one, so that answers do not tell which names exist.

use crate::BuildError;
use crate::contract::{Definition, LocalResponse, Needs, Phases, Plugin, Step};
use crate::env::BuildContext;
use crate::exchange::{Credential, Exchange};
use crate::native::authentication::{self, Fallback};
use crate::native::settings;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use gateward_http::Name;
use gateward_model::schema::{Field, Schema};
use gateward_model::{BasicAuthCredential, Consumer, Directory, EntityId};
use serde::Deserialize;
use sha1::{Digest, Sha1};
use std::sync::Arc;
use uuid::fmt::Hyphenated;

/// The fields that may carry credentials, in the order they are tried.
const FIELDS: [Name<'static>; 2] = [Name::new("Proxy-Authorization"), Name::new("Authorization")];

/// Clients are known to leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "basic-auth", priority: 1100, schema, check_scope: settings::http_without_consumer, build }
}

fn schema() -> Schema {
    Schema::new([
        ("anonymous", Field::string()),
        ("hide_credentials", Field::boolean().default(false).required()),
        ("realm", Field::string().default("service").required()),
    ])
}

#[derive(Deserialize)]
struct Settings {
    anonymous: Option<String>,
    hide_credentials: bool,
    realm: String,
}

struct BasicAuth {
    hide_credentials: bool,
    fallback: Fallback,
    /// Value of `WWW-Authenticate` in refusals.
    challenge: String,
    directory: Arc<Directory>,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let settings: Settings = settings::read(context)?;
    Ok(Box::new(BasicAuth {
        hide_credentials: settings.hide_credentials,
        fallback: Fallback::new(context, settings.anonymous.as_deref())?,
        challenge: format!("Basic realm=\"{}\"", settings.realm),
        directory: context.directory.clone(),
    }))
}

impl Plugin for BasicAuth {
    fn needs(&self) -> Needs {
        Needs { phases: Phases { access: true, ..Phases::default() }, ..Needs::default() }
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        if self.fallback.is_settled(exchange) {
            return Step::Next;
        }
        let caller = self.authenticate(exchange);
        if self.hide_credentials {
            for field in FIELDS {
                exchange.request.headers.remove(field);
            }
        }
        match caller {
            Some((consumer, credential)) => {
                authentication::identify(exchange, consumer, Some(credential));
                Step::Next
            }
            None => self.fallback.failed(exchange, || {
                LocalResponse::message(401, "Unauthorized").header("WWW-Authenticate", self.challenge.clone())
            }),
        }
    }
}

impl BasicAuth {
    /// The first field that names a known user decides.
    fn authenticate(&self, exchange: &Exchange) -> Option<(Arc<Consumer>, Credential)> {
        let mut unknown_password = None;
        for field in FIELDS {
            let Some((username, password)) = exchange.request.headers.get(field).and_then(credentials) else {
                continue;
            };
            match self.directory.basic(&username) {
                Some((credential, consumer)) => return accept(credential, consumer, &password),
                None => unknown_password = Some(password),
            }
        }
        if let Some(password) = unknown_password {
            // For its cost alone.
            let _ = std::hint::black_box(hash(&password, EntityId::default()));
        }
        None
    }
}

fn accept(
    credential: &BasicAuthCredential,
    consumer: &Arc<Consumer>,
    password: &[u8],
) -> Option<(Arc<Consumer>, Credential)> {
    let digest = hash(password, consumer.id);
    let stored = credential.password.expose().as_bytes();
    let differences =
        stored.iter().zip(&digest).fold(0, |all, (left, right)| all | (left.to_ascii_lowercase() ^ right));
    let accepted = stored.len() == digest.len() && differences == 0;
    let identified = || Credential { id: credential.id, identifier: Some(credential.username.clone()) };
    accepted.then(|| (consumer.clone(), identified()))
}

/// User name and password of a field value; `None` when it is not of the Basic scheme or malformed.
fn credentials(value: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = value.split_at_checked(5)?;
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let mut decoded = BASE64.decode(rest.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let password = decoded.split_off(colon + 1);
    decoded.truncate(colon);
    let username = String::from_utf8(decoded).ok().filter(|username| !username.is_empty())?;
    Some((username, password))
}

/// Hex SHA-1 of the password followed by the consumer's id (kong/plugins/basic-auth/crypto.lua).
fn hash(password: &[u8], consumer: EntityId) -> [u8; 40] {
    let mut id = [0; Hyphenated::LENGTH];
    let digest = Sha1::new()
        .chain_update(password)
        .chain_update(consumer.0.hyphenated().encode_lower(&mut id).as_bytes())
        .finalize();
    let mut hex = [0; 40];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(digest) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing;
    use base64::engine::general_purpose::STANDARD as BASE64_STANDARD;
    use gateward_model::{Config, Secret};
    use serde_json::{Value, json};

    fn entities() -> Config {
        let ann = Arc::new(testing::consumer("ann", Some("ann"), None));
        let guest = Arc::new(testing::consumer("guest", Some("guest"), None));
        let digest = hash(b"pa:ss", ann.id);
        let credential = BasicAuthCredential {
            id: EntityId::derived("basicauth_credentials", "user"),
            consumer: ann.id,
            username: "user".to_owned(),
            password: Secret::new(str::from_utf8(&digest).unwrap()),
            tags: None,
            created_at: 0,
        };
        Config { consumers: vec![ann, guest], basicauth_credentials: vec![Arc::new(credential)], ..Config::default() }
    }

    fn run(config: Value, exchange: &mut Exchange) -> String {
        let plugin = testing::build_with(&definition(), config, &entities(), &testing::environment());
        let response = testing::access(plugin.as_ref(), exchange);
        let caller = exchange.auth.consumer.as_ref().and_then(|consumer| consumer.username.as_deref());
        format!("{} {}", testing::summary(response.as_ref()), caller.unwrap_or("-"))
    }

    fn check(headers: &[(&str, String)], expected: &str) {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut exchange = testing::request("GET", "/", &headers);
        assert_eq!(run(json!({}), &mut exchange), expected, "{headers:?}");
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(text))
    }

    const REFUSED: &str = "401 Unauthorized -";

    #[test]
    fn the_hash_is_kongs() {
        // sha1("kong" .. "00000000-0000-0000-0000-000000000000")
        let digest = hash(b"kong", EntityId::default());
        assert_eq!(str::from_utf8(&digest).unwrap(), "d0e8c4e390dea6bc12834cfb224e47e5c468e0a6");
    }

    #[test]
    fn users_are_known_by_their_password() {
        check(&[], REFUSED);
        check(&[("Authorization", basic("user:pa:ss"))], "next ann");
        check(&[("authorization", basic("user:pa:ss").replace("Basic ", "bAsIc   "))], "next ann");
        check(&[("Authorization", basic("user:pa:ss").trim_end_matches('=').to_owned())], "next ann");
        check(&[("Proxy-Authorization", basic("user:pa:ss"))], "next ann");
        check(&[("Proxy-Authorization", basic("other:x")), ("Authorization", basic("user:pa:ss"))], "next ann");
        check(&[("Proxy-Authorization", basic("user:x")), ("Authorization", basic("user:pa:ss"))], REFUSED);
        for wrong in ["user:pa:s", "user:", "user", ":pa:ss", "", "User:pa:ss", "other:pa:ss"] {
            check(&[("Authorization", basic(wrong))], REFUSED);
        }
        for malformed in ["Basic", "Basic !!!", "Bas", "", "Bearer abc", "Basic \u{e9}\u{e9}\u{e9}"] {
            check(&[("Authorization", malformed.to_owned())], REFUSED);
        }
    }

    #[test]
    fn accepted_users_are_named_to_the_upstream() {
        let mut exchange = testing::request("GET", "/", &[("Authorization", &basic("user:pa:ss"))]);
        assert_eq!(run(json!({}), &mut exchange), "next ann");
        assert_eq!(exchange.request.headers.get_str("X-Credential-Identifier"), Some("user"));
        assert!(exchange.request.headers.contains("Authorization"));
        let mut exchange = testing::request("GET", "/", &[("Authorization", &basic("user:pa:ss"))]);
        assert_eq!(run(json!({"hide_credentials": true}), &mut exchange), "next ann");
        assert!(!exchange.request.headers.contains("Authorization"));
    }

    #[test]
    fn refusals_carry_a_challenge_and_anonymous_avoids_them() {
        for (config, realm) in [(json!({}), "service"), (json!({"realm": "hall"}), "hall")] {
            let plugin = testing::build(&definition(), config);
            let response = testing::access(plugin.as_ref(), &mut testing::request("GET", "/", &[])).unwrap();
            assert_eq!(response.headers, [("WWW-Authenticate".into(), format!("Basic realm=\"{realm}\""))]);
        }
        let mut exchange = testing::request("GET", "/", &[("Authorization", "Basic x")]);
        assert_eq!(run(json!({"anonymous": "guest"}), &mut exchange), "next guest");
        assert!(exchange.auth.credential.is_none());
    }
}
