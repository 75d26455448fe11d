//! `wire(name)`: what there is to know about a connection below HTTP; `print(text)`: bytes for its client, gives why not;
//! `wish(name)`: what a handshake does; `client_chain()`: what the client showed in it, in PEM.

use crate::api::socket::DATAGRAM;
use crate::crypto::pem;
use crate::shared::Shared;
use crate::wire::Wire;
use gateward_model::Protocol;
use gateward_plugin::{Exchange, StreamRecord};
use mlua::{Lua, LuaString, Result, Table, Value};
use std::rc::Rc;

/// Bytes that plugins may print on one connection.
const PRINTED: usize = 1 << 20;
/// Likewise for a client of datagrams: what they print is one.
const PRINTED_IN_A_DATAGRAM: usize = DATAGRAM;

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let own = shared.clone();
    let wire = lua.create_function(move |lua, name: LuaString| {
        let name = name.as_bytes();
        let of_record = own.state.stream_record(|record| figure(record, &name)).flatten();
        if let Some(number) = of_record {
            return Ok(Value::Number(number));
        }
        let text = own.state.read(|exchange| exchange.kept::<Wire>().and_then(|wire| known(exchange, wire, &name)));
        text.flatten().map_or(Ok(Value::Nil), |text| lua.create_string(text).map(Value::String))
    })?;
    functions.raw_set("wire", wire)?;
    let own = shared.clone();
    let print = lua.create_function(move |_, text: LuaString| {
        let printed = own.state.exchange(|exchange| match exchange.kept_mut::<Wire>() {
            Some(wire) => print(wire, &text.as_bytes()),
            None => Err("there is no connection".to_owned()),
        });
        Ok(printed.unwrap_or(Ok(())).err())
    })?;
    functions.raw_set("print", print)?;
    let own = shared.clone();
    let wish = lua.create_function(move |_, name: LuaString| {
        own.state.exchange(|exchange| {
            let Some(wire) = exchange.kept_mut::<Wire>() else { return };
            match &*name.as_bytes() {
                b"certificate" => wire.request_certificate = true,
                _ => wire.no_resumption = true,
            }
        });
        Ok(())
    })?;
    functions.raw_set("wish", wish)?;
    let own = shared.clone();
    let chain = lua.create_function(move |_, ()| {
        let chain = own.state.read(|exchange| {
            let certificate = exchange.client.tls.as_ref()?.certificate.as_ref()?;
            Some(certificate.chain.iter().map(|der| pem::write("CERTIFICATE", der)).collect::<String>())
        });
        Ok(chain.flatten())
    })?;
    functions.raw_set("client_chain", chain)
}

fn print(wire: &mut Wire, text: &[u8]) -> std::result::Result<(), String> {
    let most = if wire.protocol == Some(Protocol::Udp) { PRINTED_IN_A_DATAGRAM } else { PRINTED };
    if wire.printed.len() + text.len() > most {
        return Err(format!("nginx output buffer full: {most} bytes can be printed on this connection"));
    }
    wire.printed.extend_from_slice(text);
    Ok(())
}

fn known(exchange: &Exchange, wire: &Wire, name: &[u8]) -> Option<String> {
    match name {
        b"subsystem" => wire.protocol.map(|_| "stream".to_owned()),
        b"protocol" => wire.protocol.map(|protocol| word(protocol).to_owned()),
        b"sni" => wire.sni.clone(),
        b"upstream_protocol" => exchange.service.as_ref().map(|service| word(service.protocol).to_owned()),
        _ => None,
    }
}

fn figure(record: &StreamRecord<'_>, name: &[u8]) -> Option<f64> {
    Some(match name {
        b"status" => f64::from(record.status),
        b"bytes_received" => record.received_bytes as f64,
        b"bytes_sent" => record.sent_bytes as f64,
        b"upstream_bytes_received" => record.upstream_received_bytes as f64,
        b"upstream_bytes_sent" => record.upstream_sent_bytes as f64,
        b"session_us" => record.session_us as f64,
        _ => return None,
    })
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Tls => "tls",
        Protocol::TlsPassthrough => "tls_passthrough",
        Protocol::Udp => "udp",
        Protocol::Http => "http",
        Protocol::Https => "https",
        Protocol::Grpc => "grpc",
        Protocol::Grpcs => "grpcs",
        Protocol::Ws => "ws",
        Protocol::Wss => "wss",
    }
}
