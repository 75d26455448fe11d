//! What is a valid host, name, tag, path or target (kong/db/schema/typedefs.lua, kong/tools/ip.lua).
//!
//! Plain functions over text, used by schemas as rules and by the entity checks.

use serde_json::Value;
use std::net::{IpAddr, Ipv6Addr};

/// A host with the port written after it, if any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port, if one is written.
    pub port: Option<u16>,
}

/// What is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A DNS name.
    Name(String),
    /// An address.
    Ip(IpAddr),
}

impl std::fmt::Display for Host {
    /// As in a URL: IPv6 in brackets.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => formatter.write_str(name),
            Self::Ip(IpAddr::V4(address)) => address.fmt(formatter),
            Self::Ip(IpAddr::V6(address)) => write!(formatter, "[{address}]"),
        }
    }
}

/// `host`, `host:port`, `1.2.3.4`, `::1`, `[::1]:80`.
pub fn host_port(text: &str) -> Option<HostPort> {
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some(HostPort { host: Host::Ip(address.into()), port: None });
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let host = Host::Ip(address.parse::<Ipv6Addr>().ok()?.into());
        let port = if rest.is_empty() { None } else { Some(port(rest.strip_prefix(':')?)?) };
        return Some(HostPort { host, port });
    }
    let (name, port) = match text.split_once(':') {
        Some((name, digits)) => (name, Some(port(digits)?)),
        None => (text, None),
    };
    let host = match name.parse() {
        Ok(address) => Host::Ip(IpAddr::V4(address)),
        Err(_) if is_hostname(name) => Host::Name(name.to_owned()),
        Err(_) => return None,
    };
    Some(HostPort { host, port })
}

fn port(digits: &str) -> Option<u16> {
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// A DNS name (underscores allowed, one final dot allowed) that cannot be taken for an IPv4 address.
pub(crate) fn is_hostname(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(label) && !(last_is_number && name.contains('.'))
}

/// A host name with at most one `*`, as the whole first or last label.
pub(crate) fn is_wildcard_host(name: &str) -> bool {
    let plain = name.strip_prefix("*.").or_else(|| name.strip_suffix(".*")).unwrap_or(name);
    is_hostname(plain)
}

fn rule(value: &Value, holds: impl Fn(&str) -> bool, message: &str) -> Result<(), String> {
    match value.as_str() {
        Some(text) if !holds(text) => Err(message.to_owned()),
        _ => Ok(()),
    }
}

/// The host of a service: a name or address without port.
pub(crate) fn service_host(value: &Value) -> Result<(), String> {
    let valid = |text: &str| host_port(text).is_some_and(|parsed| parsed.port.is_none());
    rule(value, valid, "not a valid host name or IP address (without port)")
}

/// The name of an upstream: a host name, as services name it in `host`.
pub(crate) fn upstream_name(value: &Value) -> Result<(), String> {
    let valid = |text: &str| matches!(host_port(text), Some(HostPort { host: Host::Name(_), port: None }));
    rule(value, valid, "not a valid host name (no IP address, no port)")
}

/// `host` or `host:port`.
pub(crate) fn target(value: &Value) -> Result<(), String> {
    rule(value, |text| host_port(text).is_some(), "not a valid target; expected 'host' or 'host:port'")
}

/// The name of an entity.
pub(crate) fn name(value: &Value) -> Result<(), String> {
    let valid =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '~') || (!c.is_ascii() && !c.is_control());
    let message = "not a valid name; only letters, digits, '.', '-', '_' and '~' are allowed";
    rule(value, |text| !text.is_empty() && text.chars().all(valid), message)
}

pub(crate) fn tag(value: &Value) -> Result<(), String> {
    let valid = |c: char| !c.is_control() && !matches!(c, ',' | '/');
    let message = "not a valid tag; it must not be empty nor hold ',' or '/'";
    rule(value, |text| !text.is_empty() && text.chars().all(valid), message)
}

/// RFC 9110 token.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

pub(crate) fn header_name(value: &Value) -> Result<(), String> {
    rule(value, is_token, "not a valid header name")
}

pub(crate) fn cookie_name(value: &Value) -> Result<(), String> {
    rule(value, is_token, "not a valid cookie name")
}

pub(crate) fn method(value: &Value) -> Result<(), String> {
    let valid = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase());
    rule(value, valid, "not a valid method; methods are written in capital letters")
}

/// A server name of TLS: a host name, perhaps with a wildcard.
pub(crate) fn sni(value: &Value) -> Result<(), String> {
    rule(value, |text| text == "*" || is_wildcard_host(text), "not a valid server name")
}

pub(crate) fn ip_or_cidr(value: &Value) -> Result<(), String> {
    let valid = |text: &str| {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let Ok(address) = address.parse::<IpAddr>() else { return false };
        let most = if address.is_ipv4() { 32 } else { 128 };
        bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= most))
    };
    rule(value, valid, "not an IP address or CIDR block")
}

/// The path of a service, a cookie or a health check: RFC 3986 characters, no empty segments.
pub(crate) fn path(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(text) => check_path(text),
        None => Ok(()),
    }
}

fn check_path(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err("must start with '/'".to_owned());
    }
    if text.contains("//") {
        return Err("must not have empty segments ('//')".to_owned());
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~/%:@!$&'()*+,;=".contains(&b);
    if let Some(bad) = text.bytes().find(|b| !allowed(*b)) {
        return Err(format!("must not hold the byte 0x{bad:02X}; percent-encode it"));
    }
    check_percent(text)
}

/// Every `%` begins an escape.
pub(crate) fn check_percent(text: &str) -> Result<(), String> {
    let broken = text.match_indices('%').find(|(at, _)| {
        !text.as_bytes().get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    match broken {
        Some((at, _)) => Err(format!("invalid percent-encoding at byte {at}")),
        None => Ok(()),
    }
}

/// A route's path: `/prefix`, normalised, or `~` and a regular expression.
pub(crate) fn route_path(text: &str) -> Result<(), String> {
    if let Some(pattern) = text.strip_prefix('~') {
        if pattern.is_empty() {
            return Err("a regular expression must follow the '~'".to_owned());
        }
        return crate::rules::regex(pattern).map(drop);
    }
    if !text.starts_with('/') {
        return Err("must start with '/' (a prefix) or '~' (a regular expression)".to_owned());
    }
    if let Some(bad) = text.chars().find(|c| c.is_control() || matches!(c, ' ' | '?' | '#')) {
        return Err(format!("must not hold {bad:?}; percent-encode it"));
    }
    check_percent(text)?;
    let normal = crate::uri::normalize(text);
    if normal != text {
        let shown = gateward_yaml::quote(&normal);
        return Err(format!("not normalised, so it would never match; write '{shown}'"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let shown = |text: &str| host_port(text).map(|parsed| (parsed.host.to_string(), parsed.port));
        assert_eq!(shown("a.b"), Some(("a.b".into(), None)));
        assert_eq!(shown("my_host:80"), Some(("my_host".into(), Some(80))));
        assert_eq!(shown("1.2.3.4:5"), Some(("1.2.3.4".into(), Some(5))));
        assert_eq!(shown("::1"), Some(("[::1]".into(), None)));
        assert_eq!(shown("[::1]:80"), Some(("[::1]".into(), Some(80))));
        for bad in ["", "a b", "a:", "a:65536", "a:+1", "1.2.3.999", "[::1", "[::1]80", "-a", "a..b", "http://x", "é"]
        {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }

    #[test]
    fn wildcards() {
        for good in ["a.com", "*.a.com", "a.*", "localhost"] {
            assert!(is_wildcard_host(good), "{good}");
        }
        for bad in ["*", "*.*", "a.*.b", "*a.com", "", "*.a.*"] {
            assert!(!is_wildcard_host(bad), "{bad}");
        }
    }

    #[test]
    fn route_paths() {
        for good in ["/", "/a/b", "/a-b.c~", "~/a/(?<n>\\d+)$", "/a%2Fb", "/caf\u{e9}", "/a:b@c"] {
            assert_eq!(route_path(good), Ok(()), "{good}");
        }
        for (bad, expected) in [
            ("a", "must start with '/' (a prefix) or '~' (a regular expression)"),
            ("/a//b", "not normalised, so it would never match; write '/a/b'"),
            ("/a/../b", "not normalised, so it would never match; write '/b'"),
            ("/%61", "not normalised, so it would never match; write '/a'"),
            ("/%2f", "not normalised, so it would never match; write '/%2F'"),
            ("/%zz", "invalid percent-encoding at byte 1"),
            ("/a b", "must not hold ' '; percent-encode it"),
            ("~", "a regular expression must follow the '~'"),
        ] {
            assert_eq!(route_path(bad), Err(expected.to_owned()), "{bad}");
        }
    }
}
