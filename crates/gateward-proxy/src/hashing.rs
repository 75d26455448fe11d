//! What consistent hashing hashes: an upstream's `hash_on`, or its fallback where the request has none.

use gateward_balance::hash_bytes;
use gateward_http::uri::query_args;
use gateward_model::{HashOn, Upstream};
use gateward_plugin::Exchange;
use std::net::IpAddr;

/// The hash of `exchange` for `upstream`; `None` when nothing configured is there to hash.
///
/// Hashing on a cookie that the client did not send makes one with `fresh` and sets it on the response
/// (kong/runloop/balancer/consistent_hashing.lua).
pub(crate) fn hash(upstream: &Upstream, exchange: &mut Exchange, fresh: impl FnOnce() -> String) -> Option<u64> {
    if upstream.hash_on == HashOn::None {
        return None;
    }
    let first = Input {
        on: upstream.hash_on,
        header: upstream.hash_on_header.as_deref(),
        query_arg: upstream.hash_on_query_arg.as_deref(),
        uri_capture: upstream.hash_on_uri_capture.as_deref(),
    };
    let fallback = Input {
        on: upstream.hash_fallback,
        header: upstream.hash_fallback_header.as_deref(),
        query_arg: upstream.hash_fallback_query_arg.as_deref(),
        uri_capture: upstream.hash_fallback_uri_capture.as_deref(),
    };
    let cookie = upstream.hash_on_cookie.as_deref();
    if let Some(hash) = first.hash(cookie, exchange).or_else(|| fallback.hash(cookie, exchange)) {
        return Some(hash);
    }
    let sticky = upstream.hash_on == HashOn::Cookie || upstream.hash_fallback == HashOn::Cookie;
    let name = cookie.filter(|_| sticky)?;
    let value = fresh();
    let set = format!("{name}={value}; Path={}; HttpOnly", upstream.hash_on_cookie_path);
    exchange.response.early.add("Set-Cookie", set);
    Some(hash_bytes(value.as_bytes()))
}

/// The hash of a stream of `client`, which has nothing but its address to hash.
pub(crate) fn hash_of_stream(upstream: &Upstream, client: IpAddr) -> Option<u64> {
    [upstream.hash_on, upstream.hash_fallback].contains(&HashOn::Ip).then(|| hash_ip(client.to_canonical()))
}

fn hash_ip(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => hash_bytes(&ip.octets()),
        IpAddr::V6(ip) => hash_bytes(&ip.octets()),
    }
}

struct Input<'a> {
    on: HashOn,
    header: Option<&'a str>,
    query_arg: Option<&'a str>,
    uri_capture: Option<&'a str>,
}

impl Input<'_> {
    fn hash(&self, cookie: Option<&str>, exchange: &Exchange) -> Option<u64> {
        match self.on {
            HashOn::None => None,
            HashOn::Consumer => {
                let consumer = exchange.auth.consumer.as_ref().map(|consumer| consumer.id);
                let id = consumer.or_else(|| exchange.auth.credential.as_ref().map(|credential| credential.id))?;
                Some(hash_bytes(id.0.as_bytes()))
            }
            HashOn::Ip => Some(hash_ip(exchange.client.ip)),
            HashOn::Header => exchange.request.headers.get(self.header?).map(hash_bytes),
            HashOn::Cookie => cookie_value(exchange, cookie?).map(|value| hash_bytes(value.as_bytes())),
            HashOn::Path => Some(hash_bytes(exchange.path.as_bytes())),
            HashOn::QueryArg => {
                let wanted = self.query_arg?;
                let (_, value) = query_args(exchange.request.query()?).find(|(name, _)| name == wanted)?;
                Some(hash_bytes(value.as_deref().unwrap_or_default().as_bytes()))
            }
            HashOn::UriCapture => exchange.captures.get(self.uri_capture?).map(|text| hash_bytes(text.as_bytes())),
        }
    }
}

/// The value of a cookie (RFC 6265 section 4.2.1).
fn cookie_value<'e>(exchange: &'e Exchange, name: &str) -> Option<&'e str> {
    exchange
        .request
        .headers
        .get_all("cookie")
        .filter_map(|value| str::from_utf8(value).ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateward_model::{Algorithm, EntityId, HealthChecks};

    fn upstream(on: HashOn, fallback: HashOn) -> Upstream {
        Upstream {
            id: EntityId::default(),
            name: "u".into(),
            algorithm: Algorithm::ConsistentHashing,
            hash_on: on,
            hash_fallback: fallback,
            hash_on_header: Some("x-user".into()),
            hash_fallback_header: Some("x-other".into()),
            hash_on_cookie: Some("sticky".into()),
            hash_on_cookie_path: "/".into(),
            hash_on_query_arg: Some("user".into()),
            hash_fallback_query_arg: None,
            hash_on_uri_capture: Some("1".into()),
            hash_fallback_uri_capture: None,
            slots: 10,
            healthchecks: HealthChecks::default(),
            host_header: None,
            client_certificate: None,
            use_srv_name: false,
            resilience: None,
            tags: None,
            created_at: 0,
            updated_at: 0,
        }
    }

    fn exchange() -> Exchange {
        let mut exchange = Exchange::new();
        exchange.request.target = "/p?user=ann".into();
        exchange.path = "/p".into();
        exchange.captures.unnamed = vec!["/p".into(), "seven".into()];
        exchange.request.headers.add("X-User", "bob");
        exchange.request.headers.add("Cookie", "a=b; sticky=carl");
        exchange
    }

    #[test]
    fn every_input_is_hashed_as_its_text() {
        let none = || unreachable!("no cookie is made");
        for (on, text) in [
            (HashOn::Header, "bob"),
            (HashOn::Cookie, "carl"),
            (HashOn::Path, "/p"),
            (HashOn::QueryArg, "ann"),
            (HashOn::UriCapture, "seven"),
        ] {
            let hash = hash(&upstream(on, HashOn::None), &mut exchange(), none);
            assert_eq!(hash, Some(hash_bytes(text.as_bytes())), "{on:?}");
        }
        assert_eq!(hash(&upstream(HashOn::None, HashOn::Ip), &mut exchange(), none), None);
    }

    #[test]
    fn the_fallback_is_used_where_the_first_is_missing() {
        let found = hash(&upstream(HashOn::Consumer, HashOn::Ip), &mut exchange(), || unreachable!("no cookie"));
        assert_eq!(found, Some(hash_bytes(&[0, 0, 0, 0])));
        assert_eq!(
            hash(&upstream(HashOn::Consumer, HashOn::None), &mut exchange(), || unreachable!("no cookie")),
            None
        );
    }

    #[test]
    fn a_missing_cookie_is_made_and_set() {
        let mut exchange = Exchange::new();
        let found = hash(&upstream(HashOn::Cookie, HashOn::None), &mut exchange, || "fresh".into());
        assert_eq!(found, Some(hash_bytes(b"fresh")));
        assert_eq!(exchange.response.early.get_str("set-cookie"), Some("sticky=fresh; Path=/; HttpOnly"));
    }
}
