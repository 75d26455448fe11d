//! Who is limited, and what their counters are called: in the node's own tables by a hash, in Redis by Kong's keys.

use crate::Exchange;
use crate::native::rate_limiting::window::{Period, Window};
use gateward_model::EntityId;
use serde::Deserialize;
use sha1::{Digest, Sha1};
use std::hash::Hasher;
use std::io::Write;
use std::net::IpAddr;

/// Longest identifier that stands in a key as it is; of a longer one (a header can be) the SHA-1 does.
const IDENTIFIER_BYTES: usize = 256;

/// What tells callers apart.
#[derive(Deserialize, Debug, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub(super) enum LimitBy {
    Consumer,
    Credential,
    Ip,
    Service,
    Header,
    Path,
}

/// A caller, by what is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identifier<'a> {
    /// A consumer, credential or service.
    Entity(EntityId),
    /// A header's value, or the path.
    Text(&'a [u8]),
    /// The caller's address: also when the configured identifier is missing.
    Address(IpAddr),
}

impl LimitBy {
    /// The caller of this request; `header` and `path` are the plugin's settings.
    pub(super) fn identify<'a>(self, exchange: &'a Exchange, header: &str, path: &'a str) -> Identifier<'a> {
        let auth = &exchange.auth;
        let consumer = || auth.consumer.as_ref().map(|consumer| consumer.id);
        let credential = || auth.credential.as_ref().map(|credential| credential.id);
        let found = match self {
            Self::Consumer => consumer().or_else(credential).map(Identifier::Entity),
            Self::Credential => credential().map(Identifier::Entity),
            Self::Service => exchange.service.as_ref().map(|service| Identifier::Entity(service.id)),
            Self::Header => exchange.request.headers.get(header).map(Identifier::Text),
            Self::Path if exchange.path == path => Some(Identifier::Text(path.as_bytes())),
            Self::Path | Self::Ip => None,
        };
        found.unwrap_or_else(|| Identifier::Address(exchange.client.ip.to_canonical()))
    }
}

impl Identifier<'_> {
    /// Into a hash; kinds do not mix.
    pub(super) fn hash(self, hasher: &mut impl Hasher) {
        match self {
            Self::Entity(id) => {
                hasher.write_u8(b'i');
                hasher.write(id.0.as_bytes());
            }
            Self::Text(text) => {
                hasher.write_u8(b't');
                hasher.write(text);
            }
            Self::Address(address) => {
                hasher.write_u8(b'a');
                match address {
                    IpAddr::V4(address) => hasher.write(&address.octets()),
                    IpAddr::V6(address) => hasher.write(&address.octets()),
                }
            }
        }
    }

    /// Everything of Kong's key but the window: `ratelimit:<route>:<service>:<identifier>:`, ids of zeros for none.
    pub(super) fn stem(self, scope: &str) -> Vec<u8> {
        let mut stem = Vec::with_capacity(scope.len() + IDENTIFIER_BYTES / 4);
        stem.extend_from_slice(scope.as_bytes());
        // Writing to a vector cannot fail.
        let _ = match self {
            Self::Entity(id) => write!(stem, "{id}:"),
            Self::Address(address) => write!(stem, "{address}:"),
            Self::Text(text) if text.len() > IDENTIFIER_BYTES => {
                stem.extend_from_slice(b"sha1-");
                Sha1::digest(text)
                    .iter()
                    .try_for_each(|byte| write!(stem, "{byte:02x}"))
                    .and_then(|()| write!(stem, ":"))
            }
            Self::Text(text) => stem.write_all(text).and_then(|()| stem.write_all(b":")),
        };
        stem
    }
}

/// What all keys of an instance begin with.
pub(super) fn scope(route: Option<EntityId>, service: Option<EntityId>) -> String {
    format!("ratelimit:{}:{}:", route.unwrap_or_default(), service.unwrap_or_default())
}

/// Kong's key of one counter: the stem, the window's first millisecond, the period.
pub(super) fn key(stem: &[u8], period: &Period, window: &Window) -> Vec<u8> {
    let mut key = Vec::with_capacity(stem.len() + 24);
    key.extend_from_slice(stem);
    // Writing to a vector cannot fail.
    let _ = write!(key, "{}000:{}", window.start_s, period.name);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::rate_limiting::window::PERIODS;
    use crate::native::testing::request;

    /// 2024-02-28 22:58:20 UTC.
    const NOW_S: u64 = 1_709_161_100;

    #[test]
    fn keys_are_kongs() {
        let route = EntityId::parse("e0cbd0a8-3a5e-4b5c-9d2c-6a5f0c9d1a11");
        let of = |identifier: Identifier<'_>, period: usize, scope: &str| {
            let key = key(&identifier.stem(scope), &PERIODS[period], &PERIODS[period].window(NOW_S));
            String::from_utf8(key).unwrap()
        };
        let zeros = "00000000-0000-0000-0000-000000000000";
        let cases = [
            (Identifier::Address([10, 0, 0, 1].into()), 0, "10.0.0.1:1709161100000:second"),
            (Identifier::Address("2001:db8::1".parse().unwrap()), 1, "2001:db8::1:1709161080000:minute"),
            (Identifier::Text(b"ann, bob"), 2, "ann, bob:1709157600000:hour"),
            (Identifier::Text(b"/pay"), 3, "/pay:1709078400000:day"),
            (Identifier::Entity(EntityId::default()), 4, &format!("{zeros}:1706745600000:month")),
            (Identifier::Address([10, 0, 0, 1].into()), 5, "10.0.0.1:1704067200000:year"),
        ];
        for (identifier, period, expected) in cases {
            let global = of(identifier, period, &scope(None, None));
            assert_eq!(global, format!("ratelimit:{zeros}:{zeros}:{expected}"));
            let scoped = of(identifier, period, &scope(route, None));
            assert_eq!(scoped, format!("ratelimit:e0cbd0a8-3a5e-4b5c-9d2c-6a5f0c9d1a11:{zeros}:{expected}"));
        }
    }

    #[test]
    fn a_long_header_is_a_digest_in_the_key() {
        let long = [b'x'; IDENTIFIER_BYTES + 1];
        let stem = Identifier::Text(&long).stem("s:");
        assert_eq!(stem.len(), "s:sha1-:".len() + 40);
        assert_eq!(Identifier::Text(&long[1..]).stem("s:").len(), "s::".len() + IDENTIFIER_BYTES);
    }

    #[test]
    fn an_address_is_the_fallback_and_mapped_ones_are_plain() {
        let mut exchange = request("GET", "/", &[("X-Tenant", "a")]);
        exchange.client.ip = "::ffff:192.0.2.7".parse().unwrap();
        let address = Identifier::Address([192, 0, 2, 7].into());
        for limit_by in [LimitBy::Consumer, LimitBy::Credential, LimitBy::Service, LimitBy::Ip, LimitBy::Path] {
            assert_eq!(limit_by.identify(&exchange, "x-tenant", "/pay"), address, "{limit_by:?}");
        }
        assert_eq!(LimitBy::Header.identify(&exchange, "x-tenant", "/"), Identifier::Text(b"a"));
        assert_eq!(LimitBy::Header.identify(&exchange, "x-other", "/"), address);
        assert_eq!(LimitBy::Path.identify(&exchange, "", "/"), Identifier::Text(b"/"));
    }
}
