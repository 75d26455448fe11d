//! Hop-by-hop fields: what must not be forwarded (RFC 9110 section 7.6.1), and the identity fields that only
//! the gateway may set.
//!
//! Connection may nominate any field for removal. A client could use that to take away what the gateway or
//! the next hop relies on, after the plugins have looked at it; so the fields listed as protected stay,
//! nominated or not.
//!
//! Names are told apart by the hash stored beside them: a section in which nothing is to be done is one scan
//! over integers.

use crate::Headers;
use crate::headers::{Name, hash_name};

const CONNECTION: Name<'static> = Name::new("Connection");
const TE: Name<'static> = Name::new("TE");
const UPGRADE: Name<'static> = Name::new("Upgrade");

/// Nominations remembered without allocating; real messages have one or two.
const NOMINATIONS_INLINE: usize = 8;

/// Remove from a request what concerns only this connection: Connection and what it nominates (but never a
/// protected field), Keep-Alive, Proxy-Connection, Proxy, Proxy-Authenticate/-Authorization, Transfer-Encoding, Trailer,
/// Upgrade, TE (kept as `TE: trailers` when the client accepts trailers), Expect.
///
/// A caller that forwards an upgrade asks [`forwardable_upgrade`] first. One that sends the kept `TE` on must
/// add `Connection: TE` (RFC 9110 section 10.1.4).
pub fn strip_request(headers: &mut Headers) {
    let accepts_trailers = headers.get_all(TE).any(accepts_trailers);
    strip(headers);
    if accepts_trailers {
        headers.push(b"TE", b"trailers");
    }
}

/// Remove from a response what concerns only the upstream connection: the same fields as from a request.
pub fn strip_response(headers: &mut Headers) {
    strip(headers);
}

/// The value of Upgrade when it may be forwarded to the next hop. `None` without the field, with several, and
/// when it offers `h2c`: HTTP/2 the gateway does not read would be a tunnel past every rule it applies.
/// Whether the connection asks for the upgrade at all is [`RequestHead::upgrade`](crate::RequestHead).
pub fn forwardable_upgrade(headers: &Headers) -> Option<&[u8]> {
    let mut values = headers.get_all(UPGRADE);
    let value = values.next()?;
    let offers_h2c = value.split(|byte| *byte == b',').any(|item| {
        let protocol = item.split(|byte| *byte == b'/').next().unwrap_or(item).trim_ascii();
        protocol.eq_ignore_ascii_case(b"h2c") || protocol.eq_ignore_ascii_case(b"h2")
    });
    (values.next().is_none() && !value.is_empty() && !offers_h2c).then_some(value)
}

/// Whether only the gateway may set `name` in a request: who the consumer is, as upstreams trust it.
pub fn is_identity_header(name: &str) -> bool {
    is_identity(name.as_bytes())
}

/// Remove every field for which [`is_identity_header`] holds; called on each request's entry.
pub fn clear_identity_headers(headers: &mut Headers) {
    headers.retain_hashed(|_, name, _| !is_identity(name));
}

fn strip(headers: &mut Headers) {
    if !headers.hashes().any(is_hop_by_hop_hash) {
        return;
    }
    let nominations = Nominations::of(headers);
    headers.retain_hashed(|hash, name, _| {
        if is_hop_by_hop_hash(hash) && is_hop_by_hop(name) {
            return false;
        }
        !nominations.contains(hash) || is_protected(name)
    });
}

/// Remove every field with an underscore in its name.
pub fn drop_underscored(headers: &mut Headers) {
    if headers.is_underscored() {
        headers.retain_hashed(|_, name, _| !name.contains(&b'_'));
    }
}

/// Remove the fields that a backend which reads `_` as `-` (CGI, WSGI, Rack: RFC 3875 section 4.1.18) would take for
/// one that the gateway writes or guards, such as `X_Forwarded_For` or `Content_Length`.
pub fn drop_aliases(headers: &mut Headers) {
    if headers.is_underscored() {
        headers.retain_hashed(|_, name, _| !name.contains(&b'_') || !is_alias(name));
    }
}

/// Whether a name is a guarded or hop-by-hop one once `_` is read as `-`.
fn is_alias(name: &[u8]) -> bool {
    let read = name.iter().map(|byte| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }).collect::<Vec<_>>();
    is_protected(&read) || matches!(&*read, b"transfer-encoding" | b"proxy-authorization" | b"keep-alive")
}

fn accepts_trailers(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Hashes of the names that Connection nominates, beside those removed anyway.
///
/// Compared by hash alone: a name found to collide is its sender's own, and protected fields are compared as
/// text.
#[derive(Default)]
struct Nominations {
    inline: [u32; NOMINATIONS_INLINE],
    inline_len: usize,
    /// All hashes, sorted, once there are more than fit inline. Bounded by the size of the head.
    spilled: Vec<u32>,
}

impl Nominations {
    fn of(headers: &Headers) -> Self {
        let mut nominations = Self::default();
        for value in headers.get_all(CONNECTION) {
            for option in value.split(|byte| *byte == b',') {
                let option = option.trim_ascii();
                let is_known = option.is_empty()
                    || option.eq_ignore_ascii_case(b"keep-alive")
                    || option.eq_ignore_ascii_case(b"close")
                    || option.eq_ignore_ascii_case(b"upgrade");
                if !is_known {
                    nominations.add(hash_name(option));
                }
            }
        }
        nominations.spilled.sort_unstable();
        nominations
    }

    fn add(&mut self, hash: u32) {
        if self.inline_len < NOMINATIONS_INLINE {
            self.inline[self.inline_len] = hash;
            self.inline_len += 1;
        } else {
            self.spilled.push(hash);
        }
    }

    fn contains(&self, hash: u32) -> bool {
        self.inline[..self.inline_len].contains(&hash) || self.spilled.binary_search(&hash).is_ok()
    }
}

/// Names that are always removed, as text and as hashes, from one list.
macro_rules! hop_by_hop {
    ($($name:literal),+ $(,)?) => {
        fn is_hop_by_hop(name: &[u8]) -> bool {
            $(name.eq_ignore_ascii_case($name.as_bytes()))||+
        }

        fn is_hop_by_hop_hash(hash: u32) -> bool {
            $(hash == const { hash_name($name.as_bytes()) })||+
        }
    };
}

hop_by_hop! {
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy", // never a field of HTTP, but `HTTP_PROXY` to CGI programs
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "transfer-encoding",
    "trailer",
    "upgrade",
    "http2-settings",
    "te",
    "expect",
}

/// Whether Connection may not take this field away.
fn is_protected(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 3] = [b"content-", b"x-forwarded-", b"x-kong-"];
    const NAMES: [&[u8]; 13] = [
        b"host",
        b"authorization",
        b"cookie",
        b"set-cookie",
        b"x-real-ip",
        b"via",
        b"forwarded",
        b"max-forwards",
        b"location",
        b"www-authenticate",
        b"cache-control",
        b"vary",
        b"x-request-id",
    ];
    PREFIXES.iter().any(|prefix| starts_with(name, prefix))
        || NAMES.iter().any(|text| name.eq_ignore_ascii_case(text))
        || is_identity(name)
}

/// Fields in which the gateway tells upstreams who was authenticated, with `-` and `_` taken as one: CGI
/// style servers cannot tell `X_Consumer_ID` from `X-Consumer-ID`.
fn is_identity(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 2] = [b"x-consumer-", b"x-credential-"];
    const NAMES: [&[u8]; 2] = [b"x-anonymous-consumer", b"x-authenticated-groups"];
    // Most names are decided by their first bytes.
    matches!(name, [b'x' | b'X', b'-' | b'_', b'c' | b'C' | b'a' | b'A', ..])
        && (PREFIXES.iter().any(|prefix| name.len() > prefix.len() && same_variable(&name[..prefix.len()], prefix))
            || NAMES.iter().any(|text| same_variable(name, text)))
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Whether `name` becomes the same CGI variable as `text`, which is lower-case with dashes.
fn same_variable(name: &[u8], text: &[u8]) -> bool {
    name.len() == text.len()
        && name
            .iter()
            .zip(text)
            .all(|(byte, expected)| byte.to_ascii_lowercase() == *expected || (*byte == b'_' && *expected == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in lines {
            assert!(headers.add(name, value));
        }
        headers
    }

    fn names(headers: &Headers) -> Vec<&str> {
        headers.iter().map(|(name, _)| name).collect()
    }

    /// What is left of a request with these fields, by name.
    fn check_request(lines: &[(&str, &str)], left: &[&str]) {
        let mut headers = headers(lines);
        strip_request(&mut headers);
        assert_eq!(names(&headers), left, "{lines:?}");
    }

    #[test]
    fn hop_by_hop_fields_are_removed() {
        for name in [
            "Connection",
            "Keep-Alive",
            "Proxy-Connection",
            "Proxy",
            "Proxy-Authenticate",
            "Proxy-Authorization",
            "Transfer-Encoding",
            "Trailer",
            "Upgrade",
            "TE",
            "Expect",
            "HTTP2-Settings",
        ] {
            check_request(&[("A", "1"), (name, "x"), ("B", "2"), (&name.to_ascii_lowercase(), "y")], &["A", "B"]);
            let mut response = headers(&[("A", "1"), (name, "x")]);
            strip_response(&mut response);
            assert_eq!(names(&response), ["A"], "{name}");
        }
        check_request(&[("A", "1")], &["A"]);
        check_request(&[], &[]);
    }

    #[test]
    fn nominated_fields_are_removed() {
        check_request(&[("Connection", "close, X-A ,,x-b"), ("x-a", "1"), ("X-B", "2"), ("X-C", "3")], &["X-C"]);
        check_request(&[("x-a", "1"), ("Connection", "keep-alive"), ("Connection", "X-A"), ("X-a", "2")], &[]);
        let many: Vec<String> = (0..100).map(|index| format!("x-{index}")).collect();
        let list = many.join(",");
        let mut lines: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "v")).collect();
        lines.extend([("Connection", list.as_str()), ("kept", "v")]);
        check_request(&lines, &["kept"]);
    }

    #[test]
    fn protected_fields_cannot_be_stripped_by_nomination() {
        for name in [
            "Host",
            "Content-Length",
            "Content-Type",
            "Content-Encoding",
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "Authorization",
            "Cookie",
            "X-Consumer-ID",
            "X-Consumer-Groups",
            "X-Credential-Identifier",
            "X-Anonymous-Consumer",
            "X-Authenticated-Groups",
            "X-Real-IP",
            "Via",
            "Forwarded",
            "X-Kong-Request-Id",
            "Max-Forwards",
        ] {
            check_request(&[("Connection", name), (name, "v")], &[name]);
            check_request(&[("Connection", &name.to_ascii_uppercase()), (name, "v")], &[name]);
        }
        let mut response = headers(&[("Connection", "Set-Cookie, Content-Type, X"), ("Set-Cookie", "a"), ("X", "b")]);
        strip_response(&mut response);
        assert_eq!(names(&response), ["Set-Cookie"]);
    }

    #[test]
    fn names_that_a_backend_would_mistake_are_removed() {
        let mut headers = Headers::default();
        for name in [
            "X_Forwarded_For",
            "x-forwarded_host",
            "Content_Length",
            "X_Real_IP",
            "Transfer_Encoding",
            "my_key",
            "Host",
        ] {
            headers.add(name, "1");
        }
        let mut dropped = headers.clone();
        drop_aliases(&mut headers);
        assert_eq!(headers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["my_key", "Host"]);
        drop_underscored(&mut dropped);
        assert_eq!(dropped.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["Host"]);
    }

    #[test]
    fn te_is_kept_as_trailers_only() {
        let mut request = headers(&[("Connection", "TE"), ("TE", "gzip;q=0.5, Trailers"), ("A", "1")]);
        strip_request(&mut request);
        assert_eq!((names(&request), request.get_str("te")), (vec!["A", "TE"], Some("trailers")));
        check_request(&[("TE", "gzip")], &[]);
        check_request(&[("TE", "trailersx")], &[]);
    }

    #[test]
    fn h2c_upgrade_is_never_forwarded() {
        for (value, forwarded) in [
            ("websocket", true),
            ("WebSocket, foo/2", true),
            ("h2c", false),
            ("H2C", false),
            ("websocket, h2c", false),
            ("h2c/1", false),
            ("h2", false),
            ("", false),
        ] {
            let request = headers(&[("Upgrade", value)]);
            assert_eq!(forwardable_upgrade(&request).is_some(), forwarded, "{value:?}");
        }
        assert_eq!(forwardable_upgrade(&headers(&[])), None);
        assert_eq!(forwardable_upgrade(&headers(&[("Upgrade", "websocket"), ("Upgrade", "h2c")])), None);
    }

    #[test]
    fn identity_fields_are_cleared_on_entry() {
        let mut request = headers(&[
            ("X-Consumer-ID", "1"),
            ("x-consumer-custom-id", "2"),
            ("X_Consumer_Username", "3"),
            ("X-Consumer-Groups", "4"),
            ("X-Credential-Identifier", "5"),
            ("X-Anonymous-Consumer", "true"),
            ("X-Authenticated-Groups", "6"),
            ("X-Consumer", "kept"),
            ("X-Custom", "kept"),
            ("X-A", "kept"),
            ("Accept", "kept"),
        ]);
        clear_identity_headers(&mut request);
        assert_eq!(names(&request), ["X-Consumer", "X-Custom", "X-A", "Accept"]);
        assert!(is_identity_header("X-CONSUMER-ID") && !is_identity_header("X-Consumer") && !is_identity_header(""));
    }
}
