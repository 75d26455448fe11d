//! An exchange as a filter sees it.
//!
//! Fields keep the case they came in and are shown in small letters. Pseudo fields are made from the request line and the
//! status: `:path` is the client's until a filter sets it, and setting it asks the upstream as if the client had
//! asked for that path.

use super::properties;
use crate::stream::{Edit, Stream};
use crate::types::{DataBuffer, FieldMap};
use gateward_http::uri::{escape_path, normalize_path};
use gateward_http::{Headers, Method, Name};
use gateward_plugin::Exchange;
use gateward_route::upstream_path;
use std::cell::Cell;

/// Fields of one map after a filter added some; more are refused.
const FIELDS: usize = 512;

/// Shown as `:authority`.
const HOST: Name = Name::new("host");

/// What can be done to the exchange now.
pub(super) enum Reach<'a> {
    Write(&'a mut Exchange),
    Read(&'a Exchange),
}

/// Where in its life an exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Request,
    ResponseHead,
    ResponseBody,
    Over,
}

/// An exchange for the time of one call.
pub(super) struct View<'a> {
    pub(super) reach: Reach<'a>,
    pub(super) stage: Stage,
    /// The piece of the body under way, with what is held of it.
    pub(super) chunk: Option<&'a mut Vec<u8>>,
    /// The path that a filter set.
    pub(super) path: &'a mut Option<String>,
    /// How often the stream was looked at or changed.
    pub(super) touches: Cell<u32>,
}

impl View<'_> {
    fn touch(&self) {
        self.touches.set(self.touches.get().saturating_add(1));
    }

    pub(super) fn exchange(&self) -> &Exchange {
        match &self.reach {
            Reach::Write(exchange) => exchange,
            Reach::Read(exchange) => exchange,
        }
    }

    fn map(&self, map: FieldMap) -> Option<&Headers> {
        self.touch();
        let exchange = self.exchange();
        match map {
            FieldMap::RequestHeaders => Some(&exchange.request.headers),
            FieldMap::ResponseHeaders if self.stage > Stage::Request => Some(&exchange.response.headers),
            FieldMap::ResponseTrailers if self.stage >= Stage::ResponseBody => Some(&exchange.response.trailers),
            FieldMap::RequestTrailers if !exchange.request_trailers.is_empty() => Some(&exchange.request_trailers),
            FieldMap::RequestTrailers | FieldMap::ResponseHeaders | FieldMap::ResponseTrailers => None,
        }
    }

    /// The map, when it can still be changed.
    fn map_mut(&mut self, map: FieldMap) -> Option<&mut Headers> {
        self.touch();
        let stage = self.stage;
        let Reach::Write(exchange) = &mut self.reach else { return None };
        match (map, stage) {
            (FieldMap::RequestHeaders, Stage::Request) => Some(&mut exchange.request.headers),
            (FieldMap::RequestTrailers, Stage::Request) if !exchange.request_trailers.is_empty() => {
                Some(&mut exchange.request_trailers)
            }
            (FieldMap::ResponseHeaders, Stage::ResponseHead) => Some(&mut exchange.response.headers),
            (FieldMap::ResponseTrailers, Stage::ResponseBody) => Some(&mut exchange.response.trailers),
            _ => None,
        }
    }

    /// The value of a pseudo field.
    fn pseudo<'s>(&'s self, map: FieldMap, name: &[u8], number: &'s mut itoa::Buffer) -> Option<&'s str> {
        self.touch();
        let exchange = self.exchange();
        match (map, name) {
            (FieldMap::RequestHeaders, b":path") => Some(self.path.as_deref().unwrap_or(&exchange.request.target)),
            (FieldMap::RequestHeaders, b":method") => {
                Some(exchange.upstream.method.as_ref().unwrap_or(&exchange.request.method).as_str())
            }
            (FieldMap::RequestHeaders, b":authority") => {
                Some(exchange.upstream.host.as_deref().unwrap_or(&exchange.request.authority))
            }
            (FieldMap::RequestHeaders, b":scheme") => Some(exchange.client.scheme.as_str()),
            (FieldMap::ResponseHeaders, b":status") if self.stage > Stage::Request => {
                Some(number.format(exchange.response.status))
            }
            _ => None,
        }
    }

    fn set_pseudo(&mut self, map: FieldMap, name: &[u8], value: &[u8]) -> Edit {
        self.touch();
        let Ok(value) = str::from_utf8(value) else { return Edit::Refused };
        let stage = self.stage;
        let Reach::Write(exchange) = &mut self.reach else { return Edit::NotNow };
        match (map, name, stage) {
            (FieldMap::RequestHeaders, b":path", Stage::Request) => {
                if !lead(exchange, value) {
                    return Edit::Refused;
                }
                *self.path = Some(value.to_owned());
            }
            (FieldMap::RequestHeaders, b":method", Stage::Request) => match Method::parse(value) {
                Some(method) => exchange.upstream.method = Some(method),
                None => return Edit::Refused,
            },
            (FieldMap::RequestHeaders, b":authority", Stage::Request) => {
                if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@".contains(&byte)) {
                    return Edit::Refused;
                }
                exchange.upstream.host = Some(value.to_owned());
            }
            // The connection has the scheme it has.
            (FieldMap::RequestHeaders, b":scheme", Stage::Request) => {}
            (FieldMap::ResponseHeaders, b":status", Stage::ResponseHead) => match value.parse::<u16>() {
                Ok(status @ 200..=599) => exchange.response.status = status,
                _ => return Edit::Refused,
            },
            (_, _, Stage::Request | Stage::ResponseHead) => return Edit::Refused,
            _ => return Edit::NotNow,
        }
        Edit::Done
    }

    fn edit(
        &mut self,
        map: FieldMap,
        name: &[u8],
        value: &[u8],
        change: fn(&mut Headers, &str, &[u8]) -> bool,
    ) -> Edit {
        if name.first() == Some(&b':') {
            return self.set_pseudo(map, name, value);
        }
        let Ok(name) = str::from_utf8(name) else { return Edit::Refused };
        if map == FieldMap::RequestHeaders && name.eq_ignore_ascii_case("host") {
            return self.set_pseudo(map, b":authority", value);
        }
        let Some(headers) = self.map_mut(map) else { return Edit::NotNow };
        // How the message is delimited is not for filters to say: the gateway does, from what they made of the body.
        if ["content-length", "transfer-encoding", "connection"].iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Edit::Done;
        }
        if headers.len() < FIELDS && change(headers, name, value) { Edit::Done } else { Edit::Refused }
    }
}

/// Ask the upstream for what the client would get to with this target.
fn lead(exchange: &mut Exchange, target: &str) -> bool {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let mut normal = String::new();
    if !path.starts_with('/') || !printable(target) || normalize_path(path, true, &mut normal).is_err() {
        return false;
    }
    let service_path = exchange.service.as_ref().and_then(|service| service.path.as_deref());
    let strip = exchange.route.as_ref().is_some_and(|route| route.strip_path);
    // What of the path the route's rule matched, if the new path has it as well.
    let prefix = exchange.client.forwarded_prefix.as_str();
    let matched = if strip && !prefix.is_empty() && normal.starts_with(prefix) { prefix.len() } else { 0 };
    let mut plain = String::new();
    upstream_path(service_path, strip && matched > 0, &normal, matched, &mut plain);
    exchange.upstream.path.clear();
    escape_path(&plain, &mut exchange.upstream.path);
    exchange.upstream.query = query.map(str::to_owned);
    true
}

const REQUEST_PSEUDO: [&[u8]; 4] = [b":method", b":path", b":authority", b":scheme"];
const RESPONSE_PSEUDO: [&[u8]; 1] = [b":status"];

impl Stream for View<'_> {
    fn each_field(&self, map: FieldMap, show: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        let Some(headers) = self.map(map) else { return false };
        let pseudo: &[&[u8]] = match map {
            FieldMap::RequestHeaders => &REQUEST_PSEUDO,
            FieldMap::ResponseHeaders => &RESPONSE_PSEUDO,
            FieldMap::RequestTrailers | FieldMap::ResponseTrailers => &[],
        };
        let mut number = itoa::Buffer::new();
        for name in pseudo {
            if let Some(value) = self.pseudo(map, name, &mut number) {
                show(name, value.as_bytes());
            }
        }
        for (name, value) in headers.iter() {
            if map != FieldMap::RequestHeaders || !name.eq_ignore_ascii_case("host") {
                show(name.as_bytes(), value);
            }
        }
        true
    }

    fn count_fields(&self, map: FieldMap) -> u32 {
        let Some(headers) = self.map(map) else { return 0 };
        let fields = match map {
            FieldMap::RequestHeaders => headers.len() - headers.count(HOST) + REQUEST_PSEUDO.len(),
            FieldMap::ResponseHeaders => headers.len() + RESPONSE_PSEUDO.len(),
            FieldMap::RequestTrailers | FieldMap::ResponseTrailers => headers.len(),
        };
        fields as u32
    }

    fn field(&self, map: FieldMap, name: &[u8], out: &mut Vec<u8>) -> bool {
        if name.first() == Some(&b':') {
            let mut number = itoa::Buffer::new();
            let value = self.pseudo(map, name, &mut number);
            out.extend_from_slice(value.unwrap_or_default().as_bytes());
            return value.is_some();
        }
        let (Some(headers), Ok(name)) = (self.map(map), str::from_utf8(name)) else { return false };
        // RFC 9113 section 8.2.3 for cookies, RFC 9110 section 5.3 for everything else.
        let separator: &[u8] = if name.eq_ignore_ascii_case("cookie") { b"; " } else { b", " };
        let mut found = false;
        for value in headers.get_all(name) {
            if found {
                out.extend_from_slice(separator);
            }
            out.extend_from_slice(value);
            found = true;
        }
        found
    }

    fn add_field(&mut self, map: FieldMap, name: &[u8], value: &[u8]) -> Edit {
        self.edit(map, name, value, |headers, name, value| headers.add(name, value))
    }

    fn replace_field(&mut self, map: FieldMap, name: &[u8], value: &[u8]) -> Edit {
        self.edit(map, name, value, |headers, name, value| headers.set(name, value))
    }

    fn remove_field(&mut self, map: FieldMap, name: &[u8]) -> Edit {
        if name.first() == Some(&b':') {
            return Edit::Refused;
        }
        let Ok(name) = str::from_utf8(name) else { return Edit::Refused };
        let Some(headers) = self.map_mut(map) else { return Edit::NotNow };
        headers.remove(name);
        Edit::Done
    }

    fn clear_fields(&mut self, map: FieldMap) -> Edit {
        let Some(headers) = self.map_mut(map) else { return Edit::NotNow };
        headers.retain(|name, _| {
            ["content-length", "transfer-encoding", "connection", "host"]
                .iter()
                .any(|own| name.eq_ignore_ascii_case(own))
        });
        Edit::Done
    }

    fn data(&self, buffer: DataBuffer) -> Option<&[u8]> {
        let shown = matches!(
            (buffer, self.stage),
            (DataBuffer::RequestBody, Stage::Request) | (DataBuffer::ResponseBody, Stage::ResponseBody)
        );
        self.touch();
        self.chunk.as_deref().filter(|_| shown).map(Vec::as_slice)
    }

    fn data_mut(&mut self, buffer: DataBuffer) -> Option<&mut Vec<u8>> {
        let shown = matches!(
            (buffer, self.stage),
            (DataBuffer::RequestBody, Stage::Request) | (DataBuffer::ResponseBody, Stage::ResponseBody)
        );
        self.touch();
        self.chunk.as_deref_mut().filter(|_| shown)
    }

    fn property(&self, path: &[&str], out: &mut Vec<u8>) -> bool {
        properties::find(self.exchange(), self.stage, path, out)
    }

    fn can_respond(&self) -> bool {
        self.stage <= Stage::ResponseBody
    }
}
