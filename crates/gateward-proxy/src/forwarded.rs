//! Who the client is: the peer, or what a trusted peer says.

use crate::settings::{RealIp, Settings};
use gateward_http::Headers;
use gateward_http::headers::Name;
use gateward_plugin::{Exchange, Scheme};
use std::fmt::Write;
use std::net::IpAddr;

const FORWARDED_PROTO: Name<'static> = Name::new("x-forwarded-proto");
const FORWARDED_HOST: Name<'static> = Name::new("x-forwarded-host");
const FORWARDED_PORT: Name<'static> = Name::new("x-forwarded-port");
const FORWARDED_PATH: Name<'static> = Name::new("x-forwarded-path");
const FORWARDED_PREFIX: Name<'static> = Name::new("x-forwarded-prefix");

/// Set everything of `exchange.client` that depends on the request (kong/runloop/handler.lua).
///
/// Fields of an untrusted peer are ignored; they are overwritten when the request goes upstream.
pub(crate) fn apply(exchange: &mut Exchange, settings: &Settings) {
    let client = &mut exchange.client;
    let request = &exchange.request;
    client.ip = client.peer.ip().to_canonical();
    client.trusted = is_trusted(client.ip, settings);
    client.forwarded_proto = client.scheme;
    client.forwarded_port = client.port;
    client.forwarded_prefix.clear();
    client.forwarded_host.clear();
    client.forwarded_path.clear();
    if !client.trusted {
        return;
    }
    if let Some(ip) = real_ip(&request.headers, settings) {
        client.ip = ip;
    }
    match request.headers.get_str(FORWARDED_PROTO).map(first).map(str::to_ascii_lowercase).as_deref() {
        Some("https" | "wss") => client.forwarded_proto = Scheme::Https,
        Some("http" | "ws") => client.forwarded_proto = Scheme::Http,
        _ => {}
    }
    if let Some(host) = request.headers.get_str(FORWARDED_HOST).map(first).filter(|host| !host.is_empty()) {
        replace(&mut client.forwarded_host, host);
    }
    if let Some(port) = request.headers.get_str(FORWARDED_PORT).and_then(|port| first(port).parse().ok()) {
        client.forwarded_port = port;
    }
    if let Some(path) = request.headers.get_str(FORWARDED_PATH).filter(|path| path.starts_with('/')) {
        replace(&mut client.forwarded_path, path);
    }
    if let Some(prefix) = request.headers.get_str(FORWARDED_PREFIX).filter(|prefix| prefix.starts_with('/')) {
        replace(&mut client.forwarded_prefix, prefix);
    }
}

/// Whether `ip` is one of the operator's own proxies.
pub(crate) fn is_trusted(ip: IpAddr, settings: &Settings) -> bool {
    settings.trusted.iter().any(|net| net.contains(&ip))
}

/// The client's address of the real-IP fields: the last entry, or with `real_ip_recursive` the last that is not
/// itself trusted (as ngx_http_realip_module does). Several fields are one list: proxies that add a field of their
/// own leave those before it as the client wrote them.
fn real_ip(headers: &Headers, settings: &Settings) -> Option<IpAddr> {
    // Where the PROXY header says it, the peer is the client already.
    let RealIp::Header(name) = &settings.real_ip else { return None };
    let name = Name::from(name);
    let fields = (0..headers.count(name)).rev().filter_map(|index| headers.get_all(name).nth(index));
    let mut found = None;
    for entry in fields.flat_map(|field| field.rsplit(|byte| *byte == b',')) {
        let ip = parse_address(str::from_utf8(entry).ok()?.trim())?;
        found = Some(ip);
        if !settings.real_ip_recursive || !is_trusted(ip, settings) {
            break;
        }
    }
    found
}

/// An address with or without a port.
fn parse_address(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|it| it.ip()));
    address
        .or_else(|| text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).and_then(|bare| bare.parse().ok()))
        .map(|address| address.to_canonical())
}

/// Append the address as text.
pub(crate) fn write_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => {
            let mut digits = itoa::Buffer::new();
            for (index, octet) in ip.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(digits.format(octet).as_bytes());
            }
        }
        IpAddr::V6(ip) => {
            let mut text = String::new();
            let _ = write!(text, "{ip}");
            out.extend_from_slice(text.as_bytes());
        }
    }
}

fn first(list: &str) -> &str {
    list.split(',').next().unwrap_or(list).trim()
}

fn replace(field: &mut String, text: &str) {
    field.clear();
    field.push_str(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(trusted: &[&str], recursive: bool, header: &str, headers: &[(&str, &str)]) -> Exchange {
        let settings = Settings {
            trusted: trusted.iter().map(|net| net.parse().unwrap()).collect(),
            real_ip: RealIp::Header(header.into()),
            real_ip_recursive: recursive,
            ..Settings::default()
        };
        let mut exchange = Exchange::new();
        exchange.client.peer = "10.0.0.1:4000".parse().unwrap();
        exchange.client.port = 8000;
        exchange.request.authority = "example.com:8000".into();
        exchange.request.target = "/a?b".into();
        for (name, value) in headers {
            exchange.request.headers.add(name, value);
        }
        apply(&mut exchange, &settings);
        exchange
    }

    #[test]
    fn an_untrusted_peer_is_not_believed() {
        let headers = [("X-Real-IP", "1.1.1.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil")];
        let exchange = check(&[], false, "X-Real-IP", &headers);
        let client = &exchange.client;
        assert_eq!(
            (client.ip.to_string().as_str(), client.forwarded_proto, client.forwarded_port),
            ("10.0.0.1", Scheme::Http, 8000)
        );
        assert_eq!((exchange.forwarded_host(), exchange.forwarded_path()), ("example.com", "/a"));
    }

    #[test]
    fn a_trusted_peer_is_believed() {
        let headers = [
            ("X-Real-IP", "1.1.1.1"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "public"),
            ("X-Forwarded-Port", "443"),
        ];
        let client = check(&["10.0.0.0/8"], false, "X-Real-IP", &headers).client;
        assert_eq!(
            (client.ip.to_string().as_str(), client.forwarded_proto, client.forwarded_port),
            ("1.1.1.1", Scheme::Https, 443)
        );
        assert_eq!(client.forwarded_host, "public");
    }

    #[test]
    fn trusted_hops_are_skipped_from_the_right_when_asked() {
        let list = [("X-Forwarded-For", "6.6.6.6, 2.2.2.2, 10.0.0.9")];
        assert_eq!(check(&["10.0.0.0/8"], true, "X-Forwarded-For", &list).client.ip.to_string(), "2.2.2.2");
        assert_eq!(check(&["10.0.0.0/8"], false, "X-Forwarded-For", &list).client.ip.to_string(), "10.0.0.9");
        let lines = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "2.2.2.2"), ("X-Forwarded-For", "10.0.0.9")];
        assert_eq!(check(&["10.0.0.0/8"], true, "X-Forwarded-For", &lines).client.ip.to_string(), "2.2.2.2");
        assert_eq!(check(&["10.0.0.0/8"], false, "X-Forwarded-For", &lines[..2]).client.ip.to_string(), "2.2.2.2");
        let broken = [("X-Forwarded-For", "2.2.2.2, what")];
        assert_eq!(check(&["10.0.0.0/8"], true, "X-Forwarded-For", &broken).client.ip.to_string(), "10.0.0.1");
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        for text in ["1.22.255.0", "::1", "2001:db8::5"] {
            let mut out = Vec::new();
            write_ip(text.parse().unwrap(), &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }
}
