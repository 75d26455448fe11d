//! Gateward's own servers, through their control API.

mod client;

use std::time::Duration;

use gateward_model::Secret;
use gateward_zone::policy::tag;
use gateward_zone::{Change, Name, Record, is_newer, to_text};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use self::client::{Client, Reply, Request};
use super::{Answer, By, Provider, ProviderError, Refusal, ServedZone, Version, ZoneSummary};
use crate::text;

/// A server's control API.
pub struct HttpProvider {
    client: Client,
}

const JSON: &str = "application/json";
const ZONE: &str = "text/dns";
const YAML: &str = "application/yaml";

impl HttpProvider {
    /// The control API at `http://HOST:PORT`; nothing is connected yet.
    ///
    /// # Errors
    /// The address is not of that form, or there is no runtime to be had.
    pub fn new(control: &str, token: Option<Secret>) -> Answer<Self> {
        Ok(HttpProvider { client: Client::new(control, token)? })
    }

    /// How long one call may take; 30 seconds unless said otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.client.timeout = timeout;
        self
    }

    fn read(&self, path: &str, accept: &'static str) -> Answer<Option<Reply>> {
        let reply = self.client.send(&Request::new(Method::GET, path).accept(accept))?;
        if reply.status == StatusCode::NOT_FOUND { Ok(None) } else { succeeded(reply, path).map(Some) }
    }

    fn write(&self, request: &Request<'_>) -> Answer<Reply> {
        succeeded(self.client.send(request)?, &request.path)
    }

    fn serial(&self, origin: &Name) -> Answer<u32> {
        let path = zone_path(origin, "");
        let reply = self.read(&path, JSON)?.ok_or_else(|| ProviderError::NotFound(format!("zone {origin}")))?;
        parse::<Summary>(&reply).map(|summary| summary.serial)
    }
}

#[derive(Deserialize)]
struct Zones {
    zones: Vec<Summary>,
}

#[derive(Deserialize)]
struct Summary {
    #[serde(default)]
    origin: String,
    serial: u32,
    #[serde(default)]
    records: u64,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    state: String,
}

#[derive(Deserialize)]
struct Versions {
    versions: Vec<Version>,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<KeyName>,
}

#[derive(Deserialize)]
struct KeyName {
    name: String,
}

#[derive(Deserialize)]
struct Changed {
    serial: u32,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Refusal>,
}

impl Provider for HttpProvider {
    /// Only those it is the primary of: others follow by themselves.
    fn zones(&self) -> Answer<Vec<ZoneSummary>> {
        let reply = self.write(&Request::new(Method::GET, "/v1/zones"))?;
        let primary = |zone: &Summary| zone.kind.is_empty() || zone.kind == "primary";
        let zones = parse::<Zones>(&reply)?.zones.into_iter().filter(primary);
        zones
            .map(|Summary { origin, serial, records, state, .. }| {
                let origin = origin.parse().map_err(|_| ProviderError::Protocol(format!("'{origin}' is no zone")))?;
                Ok(ZoneSummary { origin, serial, records, state })
            })
            .collect()
    }

    fn zone(&self, origin: &Name) -> Answer<Option<ServedZone>> {
        let Some(reply) = self.read(&zone_path(origin, ""), ZONE)? else { return Ok(None) };
        let records = text::records(origin, &reply.body).map_err(ProviderError::Protocol)?;
        let soa = records.iter().find(|record| record.rtype == gateward_zone::Rtype::SOA);
        let serial = soa.and_then(crate::desired::serial_of);
        let serial = serial.ok_or_else(|| ProviderError::Protocol(format!("zone {origin} has no SOA record")))?;
        Ok(Some(ServedZone { serial, records }))
    }

    fn policy(&self, origin: &Name) -> Answer<Option<String>> {
        let Some(reply) = self.read(&zone_path(origin, "/policy"), YAML)? else { return Ok(None) };
        let text = String::from_utf8(reply.body.to_vec());
        text.map(Some).map_err(|_| ProviderError::Protocol(format!("the policy of {origin} is not UTF-8")))
    }

    fn create_zone(&self, origin: &Name, text: &str, by: &By) -> Answer<u32> {
        let request = Request::new(Method::PUT, zone_path(origin, "")).body(ZONE, text).by(by);
        self.write(&request.header("if-none-match", "*"))?;
        self.serial(origin)
    }

    fn change(&self, origin: &Name, base: u32, changes: &[Change], by: &By) -> Answer<u32> {
        let written = changes.iter().map(|change| {
            let op = if matches!(change, Change::Add(_)) { "add" } else { "remove" };
            json!({"op": op, "record": to_text(change.record(), &Name::root())})
        });
        let body = json!({"base_serial": base, "changes": written.collect::<Vec<_>>()}).to_string();
        let request = Request::new(Method::POST, zone_path(origin, "/changes")).body(JSON, &body).by(by);
        parse::<Changed>(&self.write(&request)?).map(|changed| changed.serial)
    }

    fn delete_zone(&self, origin: &Name, base: u32, by: &By) -> Answer<()> {
        let request = Request::new(Method::DELETE, zone_path(origin, "")).by(by);
        self.write(&request.header("if-match", format!("\"{base}\""))).map(drop)
    }

    fn put_policy(&self, origin: &Name, from: Option<&str>, text: &str, by: &By) -> Answer<()> {
        let request = Request::new(Method::PUT, zone_path(origin, "/policy")).body(YAML, text).by(by);
        let request = match from {
            Some(from) => request.header("if-match", format!("\"{}\"", tag(from.as_bytes()))),
            None => request.header("if-none-match", "*"),
        };
        self.write(&request).map(drop)
    }

    fn keys(&self) -> Answer<Vec<String>> {
        let reply = self.write(&Request::new(Method::GET, "/v1/keys"))?;
        let undotted = |key: KeyName| key.name.trim_end_matches('.').to_owned();
        Ok(parse::<Keys>(&reply)?.keys.into_iter().map(undotted).collect())
    }

    fn put_key(&self, name: &str, algorithm: &str, secret: &Secret, by: &By) -> Answer<()> {
        let body = json!({"algorithm": algorithm, "secret": secret.expose()}).to_string();
        let request = Request::new(Method::PUT, format!("/v1/keys/{}", segment(name))).body(JSON, &body).by(by);
        self.write(&request).map(drop)
    }

    fn versions(&self, origin: &Name) -> Answer<Vec<Version>> {
        let path = zone_path(origin, "/versions");
        let reply = self.read(&path, JSON)?.ok_or_else(|| ProviderError::NotFound(format!("zone {origin}")))?;
        let mut versions = parse::<Versions>(&reply)?.versions;
        let newest_first = matches!(&versions[..], [first, .., last] if is_newer(first.serial, last.serial));
        if newest_first {
            versions.reverse();
        }
        Ok(versions)
    }

    fn version(&self, origin: &Name, serial: u32) -> Answer<Option<Vec<Record>>> {
        let Some(reply) = self.read(&zone_path(origin, &format!("/versions/{serial}")), ZONE)? else { return Ok(None) };
        text::records(origin, &reply.body).map(Some).map_err(ProviderError::Protocol)
    }

    fn rollback(&self, origin: &Name, base: u32, to: u32, by: &By) -> Answer<u32> {
        let body = json!({"to": to}).to_string();
        let request = Request::new(Method::POST, zone_path(origin, "/rollback")).body(JSON, &body).by(by);
        let request = request.header("if-match", format!("\"{base}\""));
        parse::<Changed>(&self.write(&request)?).map(|changed| changed.serial)
    }
}

/// `/v1/zones/ORIGIN` and what is below it; the origin without its last dot.
fn zone_path(origin: &Name, rest: &str) -> String {
    let text = origin.to_string();
    let text = if origin.is_root() { "." } else { text.trim_end_matches('.') };
    format!("/v1/zones/{}{rest}", segment(text))
}

/// Text as one segment of a path (RFC 3986, 3.3).
fn segment(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut encoded, octet| {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'*' => {
                encoded.push(char::from(octet));
            }
            _ => write!(encoded, "%{octet:02X}").expect("strings take everything"),
        }
        encoded
    })
}

fn parse<T: DeserializeOwned>(reply: &Reply) -> Answer<T> {
    serde_json::from_slice(&reply.body).map_err(|error| ProviderError::Protocol(error.to_string()))
}

/// The reply, or what it refuses.
fn succeeded(reply: Reply, path: &str) -> Answer<Reply> {
    match reply.status {
        status if status.is_success() => Ok(reply),
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Err(ProviderError::Conflict),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ProviderError::Denied(reply.status.as_u16())),
        StatusCode::NOT_FOUND => Err(ProviderError::NotFound(path.trim_start_matches("/v1/").to_owned())),
        status => match serde_json::from_slice::<Errors>(&reply.body) {
            Ok(errors) if !errors.errors.is_empty() => Err(ProviderError::Refused(errors.errors)),
            _ => Err(ProviderError::Protocol(format!("status {} for {path}", status.as_u16()))),
        },
    }
}
