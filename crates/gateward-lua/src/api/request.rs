//! `request(name)`: what there is to know about the request besides its fields; `set_request(name, value)`: what of it a
//! plugin changes for the upstream.

use crate::shared::Shared;
use gateward_http::uri::{escape_path, normalize_path, split_authority};
use gateward_http::{Method, Version};
use gateward_model::Protocol;
use gateward_plugin::{Exchange, ProxyOrigin};
use mlua::{Lua, LuaString, Result, Table, Value};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let own = shared.clone();
    let request = lua.create_function(move |lua, name: LuaString| {
        let known = own.state.read(|exchange| known(exchange, &name.as_bytes()));
        match known.unwrap_or(Known::Nothing) {
            Known::Nothing => Ok(Value::Nil),
            Known::Number(number) => Ok(Value::Number(number)),
            Known::Flag(flag) => Ok(Value::Boolean(flag)),
            Known::Text(text) => lua.create_string(text).map(Value::String),
            Known::Bytes(bytes) => lua.create_string(bytes).map(Value::String),
        }
    })?;
    functions.raw_set("request", request)?;
    let own = shared.clone();
    let set = lua.create_function(move |_, (name, value): (LuaString, LuaString)| {
        let changed = own.state.exchange(|exchange| set(exchange, &name.as_bytes(), &value.as_bytes()));
        Ok(changed.unwrap_or(false))
    })?;
    functions.raw_set("set_request", set)?;
    let own = shared.clone();
    let captures = lua.create_function(move |lua, ()| {
        let (unnamed, named) = (lua.create_table()?, lua.create_table()?);
        let captures = own.state.read(|exchange| exchange.captures.clone()).unwrap_or_default();
        for (index, text) in captures.unnamed.into_iter().enumerate() {
            unnamed.raw_set(index, text)?;
        }
        for (name, text) in captures.named {
            named.raw_set(name, text)?;
        }
        Ok((unnamed, named))
    })?;
    functions.raw_set("captures", captures)
}

enum Known {
    Nothing,
    Number(f64),
    Flag(bool),
    Text(String),
    Bytes(Vec<u8>),
}

fn known(exchange: &Exchange, name: &[u8]) -> Known {
    let (request, client) = (&exchange.request, &exchange.client);
    Known::Text(match name {
        b"scheme" => client.scheme.as_str().to_owned(),
        b"host" => split_authority(&request.authority).0.to_ascii_lowercase(),
        b"port" => return Known::Number(f64::from(client.port)),
        b"forwarded_scheme" => client.forwarded_proto.as_str().to_owned(),
        b"forwarded_host" => split_authority(exchange.forwarded_host()).0.to_ascii_lowercase(),
        b"forwarded_port" => return Known::Number(f64::from(client.forwarded_port)),
        b"forwarded_path" => exchange.forwarded_path().to_owned(),
        b"forwarded_prefix" if client.forwarded_prefix.is_empty() => return Known::Nothing,
        b"forwarded_prefix" => client.forwarded_prefix.clone(),
        b"version" => return Known::Number(version(request.version)),
        b"protocol" => protocol(request.version).to_owned(),
        b"method" => method(exchange).as_str().to_owned(),
        b"client_method" => request.method.as_str().to_owned(),
        b"path" => path(exchange),
        b"raw_path" => request.raw_path().to_owned(),
        b"target" => request.target.clone(),
        b"query" => query(exchange).to_owned(),
        b"id" => exchange.id.clone(),
        b"started" => return Known::Number(exchange.started_at_ms as f64),
        b"ip" => client.peer.ip().to_string(),
        b"peer_port" => return Known::Number(f64::from(client.peer.port())),
        b"forwarded_ip" => client.ip.to_string(),
        b"local_ip" => client.local_ip.to_canonical().to_string(),
        b"binary_ip" => return Known::Bytes(network_bytes(client.peer.ip())),
        b"binary_forwarded_ip" => return Known::Bytes(network_bytes(client.ip)),
        b"binary_local_ip" => return Known::Bytes(network_bytes(client.local_ip)),
        b"connection" if client.connection == 0 => return Known::Nothing,
        b"connection" => return Known::Number(client.connection as f64),
        b"number" if client.number == 0 => return Known::Nothing,
        b"number" => return Known::Number(f64::from(client.number)),
        b"proxied_source" => return proxied(exchange, |origin| origin.source),
        b"proxied_destination" => return proxied(exchange, |origin| origin.destination),
        b"trusted" => return Known::Flag(client.trusted),
        b"upstream_path" => exchange.upstream.path.clone(),
        b"upstream_host" => match &exchange.upstream.host {
            Some(host) => host.clone(),
            None => exchange.service.as_ref().map_or_else(String::new, |service| service.host.clone()),
        },
        b"upstream_scheme" => match (&exchange.upstream.detour, &exchange.service) {
            (Some(detour), _) if detour.scheme.is_some() => detour.scheme.unwrap_or_default().as_str().to_owned(),
            (_, Some(service)) => scheme(service.protocol).to_owned(),
            (_, None) => return Known::Nothing,
        },
        b"upstream_status" if exchange.response.upstream_status == 0 => return Known::Nothing,
        b"upstream_status" => return Known::Number(f64::from(exchange.response.upstream_status)),
        b"status" => return Known::Number(f64::from(exchange.response.status)),
        b"source" => exchange.response.source.as_str().to_owned(),
        b"sni" => return tls(exchange, |tls| tls.sni.clone()),
        b"tls_version" => return tls(exchange, |tls| Some(tls.version.to_owned())),
        b"tls_cipher" => return tls(exchange, |tls| Some(tls.cipher.to_owned())),
        b"tls_verify" => return tls(exchange, |tls| Some(tls.client_verify().to_owned())),
        b"tls_subject" => return tls(exchange, |tls| tls.certificate.as_ref().map(|found| found.subject.clone())),
        b"tls_issuer" => return tls(exchange, |tls| tls.certificate.as_ref().map(|found| found.issuer.clone())),
        b"tls_serial" => return tls(exchange, |tls| tls.certificate.as_ref().map(|found| found.serial.clone())),
        b"tls_fingerprint" => {
            return tls(exchange, |tls| tls.certificate.as_ref().map(|found| found.fingerprint.clone()));
        }
        _ => return Known::Nothing,
    })
}

fn tls(exchange: &Exchange, look: impl FnOnce(&gateward_plugin::ClientTls) -> Option<String>) -> Known {
    exchange.client.tls.as_deref().and_then(look).map_or(Known::Nothing, Known::Text)
}

/// What a trusted PROXY header said: address and port, separated by a space.
fn proxied(exchange: &Exchange, which: impl FnOnce(&ProxyOrigin) -> Option<SocketAddr>) -> Known {
    let address = exchange.client.origin.as_deref().and_then(which);
    address.map_or(Known::Nothing, |address| Known::Text(format!("{} {}", address.ip(), address.port())))
}

/// An address as the network has it: 4 bytes or 16.
fn network_bytes(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn scheme(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Https => "https",
        Protocol::Grpc => "grpc",
        Protocol::Grpcs => "grpcs",
        _ => "http",
    }
}

fn version(version: Version) -> f64 {
    match version {
        Version::Http10 => 1.0,
        Version::Http11 => 1.1,
        Version::Http2 => 2.0,
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
        Version::Http2 => "HTTP/2.0",
    }
}

/// The method as plugins have left it.
pub(crate) fn method(exchange: &Exchange) -> &Method {
    exchange.upstream.method.as_ref().unwrap_or(&exchange.request.method)
}

/// The query as plugins have left it: before a route was found, nothing was taken over yet.
pub(crate) fn query(exchange: &Exchange) -> &str {
    let own = exchange.upstream.query.as_deref();
    if exchange.route.is_some() {
        own.unwrap_or_default()
    } else {
        own.or(exchange.request.query()).unwrap_or_default()
    }
}

/// The normalised path, also before the router has looked for it.
fn path(exchange: &Exchange) -> String {
    if !exchange.path.is_empty() {
        return exchange.path.clone();
    }
    let mut path = String::new();
    match normalize_path(exchange.request.raw_path(), true, &mut path) {
        Ok(()) => path,
        Err(_) => exchange.request.raw_path().to_owned(),
    }
}

/// `false`: not what can stand there.
fn set(exchange: &mut Exchange, name: &[u8], value: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(value) else { return false };
    let upstream = &mut exchange.upstream;
    match name {
        b"method" => match Method::parse(text) {
            Some(method) => upstream.method = Some(method),
            None => return false,
        },
        b"path" => {
            upstream.path.clear();
            escape_path(text, &mut upstream.path);
        }
        b"raw_path" if is_in_a_target(value) => {
            upstream.path.clear();
            upstream.path.push_str(text);
        }
        // An empty query is as good as none, as in nginx; before there is a route, only as a word it is remembered.
        b"query" if text.is_empty() => upstream.query = exchange.route.is_none().then(String::new),
        b"query" if is_in_a_target(value) => upstream.query = Some(text.to_owned()),
        b"host" if is_in_a_target(value) && !value.is_empty() => upstream.host = Some(text.to_owned()),
        _ => return false,
    }
    true
}

/// Whether these bytes can stand in a request line.
fn is_in_a_target(text: &[u8]) -> bool {
    text.iter().all(|byte| !matches!(byte, 0..=b' ' | 127))
}
