//! external-dns's webhook protocol: external-dns asks for the records that there are, decides, and sends what shall change.
//!
//! `GET /` names the zones, `GET /records` lists record sets as endpoints, `POST /adjustendpoints` brings wanted endpoints into the form
//! in which they are listed, `POST /records` makes changes. A refusal is answered with 422 and the reasons, which external-dns logs; what may
//! pass by itself with 503, because it tries nothing again but what was answered with 5xx. Content must say that it is of the protocol's type:
//! browsers ask before they send that to a stranger.

use std::collections::{BTreeMap, BTreeSet};

use gateward_zone::{Change, Name, Problem, Rdata, Record, RecordSet, Rtype, ZoneView, parse_rdata, rdata_to_text};
use hyper::StatusCode;
use hyper::header::RETRY_AFTER;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::answers::problems;
use super::{Answer, Control, blocking, errors, plain, zones};
use crate::authority::{Actor, Door, Edit, Kind, Proposal, Refused, problem};
use crate::store::Zone;
use gateward_api::{ApiRequest, ApiResponse};

const MEDIA_TYPE: &str = "application/external.dns.webhook+json;version=1";
/// What is taken, whatever its version says; JSON as such from people who try it by hand.
const MEDIA_TYPES: [&str; 2] = ["application/external.dns.webhook+json", "application/json"];
/// Seconds a cache may keep records whose endpoints do not say: external-dns sends 0 then.
const TTL: u32 = 300;
/// Types that are listed and taken.
const TYPES: [Rtype; 8] =
    [Rtype::A, Rtype::AAAA, Rtype::CNAME, Rtype::TXT, Rtype::NS, Rtype::SRV, Rtype::MX, Rtype::PTR];
/// Who external-dns is in policies and in the audit log.
const ACTOR: &str = "external-dns";

/// Record sets as external-dns writes them. What it says besides is given back as it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Endpoint {
    #[serde(rename = "dnsName")]
    pub(super) name: String,
    #[serde(default)]
    pub(super) targets: Vec<String>,
    #[serde(rename = "recordType")]
    pub(super) rtype: String,
    #[serde(rename = "recordTTL", default, skip_serializing_if = "Option::is_none")]
    pub(super) ttl: Option<i64>,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

/// What external-dns wants changed. Releases before 0.15 write the names with capitals.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Changes {
    #[serde(default, alias = "Create", deserialize_with = "list")]
    create: Vec<Endpoint>,
    #[serde(default, alias = "UpdateOld", rename = "updateOld", deserialize_with = "list")]
    old: Vec<Endpoint>,
    #[serde(default, alias = "UpdateNew", rename = "updateNew", deserialize_with = "list")]
    new: Vec<Endpoint>,
    #[serde(default, alias = "Delete", deserialize_with = "list")]
    delete: Vec<Endpoint>,
}

/// Go writes an empty list as null.
fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Endpoint>, D::Error> {
    Option::<Vec<Endpoint>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// What shall become of the record sets of a zone: what goes, what comes.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Wanted {
    gone: Vec<Record>,
    come: Vec<Record>,
}

/// Whether a request is heard at all; its content has not been read then.
pub(super) fn admit(head: &ApiRequest) -> Result<(), ApiResponse> {
    super::admit_own(head)?;
    let media = head.content_type().split(';').next().unwrap_or_default().trim();
    if head.method == hyper::Method::POST && !MEDIA_TYPES.iter().any(|known| media.eq_ignore_ascii_case(known)) {
        let message = format!("send Content-Type: {MEDIA_TYPE}");
        return Err(errors(StatusCode::UNSUPPORTED_MEDIA_TYPE, &[plain(message)]));
    }
    Ok(())
}

pub(super) async fn answer(control: &Control, request: &ApiRequest) -> ApiResponse {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let answer = match (request.method.as_str(), &path[..]) {
        ("GET", []) => {
            Ok(media(&json!({ "include": primaries(control).iter().map(zones::shown).collect::<Vec<_>>() })))
        }
        ("GET", ["records"]) => records(control).await,
        ("POST", ["adjustendpoints"]) => adjust(request),
        ("POST", ["records"]) => change(control, request).await,
        ("GET", ["healthz"]) => Ok(super::server::health(control)),
        ("GET", ["metrics"]) => Ok(super::server::metrics(control)),
        _ => Err(errors(
            StatusCode::NOT_FOUND,
            &[plain("there are GET /, GET /records, POST /records and POST /adjustendpoints")],
        )),
    };
    answer.unwrap_or_else(|response| response)
}

fn media(value: &impl Serialize) -> ApiResponse {
    let body = serde_json::to_vec(value).unwrap_or_default();
    ApiResponse::bytes(StatusCode::OK, MEDIA_TYPE, body)
}

fn body<T: serde::de::DeserializeOwned>(request: &ApiRequest) -> Result<T, ApiResponse> {
    serde_json::from_slice(&request.body)
        .map_err(|error| errors(StatusCode::BAD_REQUEST, &[plain(format!("the body cannot be read: {error}"))]))
}

/// The zones that are changed here. One without a version takes no changes, and its records would seem to be gone.
fn primaries(control: &Control) -> Vec<Name> {
    let all = control.authority.all().into_iter().filter(|(_, info)| info.kind == Kind::Primary);
    let mut names: Vec<Name> =
        all.map(|(name, _)| name).filter(|name| control.authority.zone(name).is_some()).collect();
    names.sort();
    names
}

async fn records(control: &Control) -> Answer {
    let zones: Vec<_> = primaries(control).iter().filter_map(|origin| control.authority.zone(origin)).collect();
    let endpoints = blocking(move || zones.iter().flat_map(|zone| endpoints(zone)).collect::<Vec<_>>()).await?;
    Ok(media(&endpoints))
}

/// The record sets of a zone.
pub(super) fn endpoints(zone: &Zone) -> Vec<Endpoint> {
    let mut sets: BTreeMap<(Name, Rtype), RecordSet> = BTreeMap::new();
    zone.for_each_record(&mut |record| {
        let is_apex_ns = record.rtype == Rtype::NS && record.owner == *zone.origin();
        if TYPES.contains(&record.rtype) && !is_apex_ns {
            let Record { owner, rtype, ttl, rdata } = record;
            sets.entry((owner, rtype)).or_insert_with(|| RecordSet { rtype, ttl, data: Vec::new() }).data.push(rdata);
        }
    });
    let endpoint = |((name, rtype), set): ((Name, Rtype), RecordSet)| Endpoint {
        name: zones::shown(&name),
        targets: set.data.iter().map(|rdata| target(rtype, rdata)).collect(),
        rtype: rtype.to_string(),
        ttl: Some(i64::from(set.ttl)),
        rest: Map::new(),
    };
    sets.into_iter().map(endpoint).collect()
}

/// Data as external-dns writes targets: names without their last dot, texts without quotes.
fn target(rtype: Rtype, rdata: &Rdata) -> String {
    if rtype == Rtype::TXT {
        let mut text = Vec::new();
        let mut rest = rdata.as_wire();
        while let Some((len, tail)) = rest.split_first() {
            let (part, tail) = tail.split_at(usize::from(*len).min(tail.len()));
            text.extend(part);
            rest = tail;
        }
        return String::from_utf8_lossy(&text).into_owned();
    }
    let text = rdata_to_text(rtype, rdata);
    match rtype {
        Rtype::CNAME | Rtype::NS | Rtype::PTR => text.trim_end_matches('.').to_owned(),
        _ => text,
    }
}

/// A target as data.
fn data(rtype: Rtype, target: &str) -> Result<Rdata, Problem> {
    if rtype == Rtype::TXT && !target.starts_with('"') {
        let parts = if target.is_empty() { vec![&b""[..]] } else { target.as_bytes().chunks(255).collect() };
        let mut octets = Vec::with_capacity(target.len() + parts.len());
        for part in parts {
            octets.push(u8::try_from(part.len()).expect("chunks have at most 255 octets"));
            octets.extend(part);
        }
        return Ok(Rdata::from_wire(octets));
    }
    parse_rdata(rtype, target, &Name::root())
}

/// Wanted endpoints in the form in which they are listed, so that external-dns sees no difference where there is none.
fn adjust(request: &ApiRequest) -> Answer {
    let mut endpoints: Vec<Endpoint> = body::<Option<Vec<Endpoint>>>(request)?.unwrap_or_default();
    for endpoint in &mut endpoints {
        let Ok(rtype) = endpoint.rtype.parse::<Rtype>() else { continue };
        endpoint.name = endpoint.name.trim_end_matches('.').to_ascii_lowercase();
        for text in &mut endpoint.targets {
            if let Ok(rdata) = data(rtype, text) {
                *text = target(rtype, &rdata);
            }
        }
    }
    Ok(media(&endpoints))
}

async fn change(control: &Control, request: &ApiRequest) -> Answer {
    let changes: Changes = body(request)?;
    let wanted =
        wanted(&changes, &primaries(control)).map_err(|found| problems(StatusCode::UNPROCESSABLE_ENTITY, &found))?;
    // Each zone is changed as a whole; one that refuses does not hold up the others.
    let mut refusals = Vec::new();
    for (origin, wanted) in wanted {
        let edit = Edit::Decide(Box::new(move |zone| Ok(steps(zone, &wanted))));
        if let Err(error) = control.authority.apply(Proposal::new(origin, edit, Actor::new(Door::Webhook, ACTOR))).await
        {
            refusals.push(error);
        }
    }
    match refusals.first() {
        None => Ok(ApiResponse::empty(StatusCode::NO_CONTENT)),
        Some(_) => Err(all_refused(&refusals)),
    }
}

/// One answer to several refusals: as long as one of them may pass by itself, it is worth another try.
fn all_refused(refusals: &[Refused]) -> ApiResponse {
    let passes =
        |refusal: &&Refused| !matches!(refusal, Refused::Rules(_) | Refused::Update { .. } | Refused::NoVersion(_));
    let found: Vec<Value> = refusals.iter().flat_map(reasons).collect();
    match refusals.iter().find(passes) {
        None => errors(StatusCode::UNPROCESSABLE_ENTITY, &found),
        Some(Refused::Busy { retry_after_ms, .. }) => {
            let seconds = retry_after_ms.div_ceil(1_000).max(1);
            errors(StatusCode::SERVICE_UNAVAILABLE, &found).header(RETRY_AFTER, &seconds.to_string())
        }
        Some(_) => errors(StatusCode::SERVICE_UNAVAILABLE, &found),
    }
}

fn reasons(refusal: &Refused) -> Vec<Value> {
    match refusal {
        Refused::Rules(found) => {
            found.iter().map(|problem| serde_json::to_value(problem).unwrap_or_default()).collect()
        }
        other => vec![plain(other.to_string())],
    }
}

/// The changes by zone.
fn wanted(changes: &Changes, zones: &[Name]) -> Result<BTreeMap<Name, Wanted>, Vec<Problem>> {
    let mut wanted: BTreeMap<Name, Wanted> = BTreeMap::new();
    let mut found = Vec::new();
    let gone = changes.delete.iter().chain(&changes.old).map(|endpoint| (endpoint, false));
    let come = changes.create.iter().chain(&changes.new).map(|endpoint| (endpoint, true));
    for (endpoint, comes) in gone.chain(come) {
        match records_of(endpoint, zones) {
            Ok((origin, records)) => {
                let wanted = wanted.entry(origin).or_default();
                if comes { &mut wanted.come } else { &mut wanted.gone }.extend(records);
            }
            Err(problems) => found.extend(problems),
        }
    }
    if found.is_empty() { Ok(wanted) } else { Err(found) }
}

fn records_of(endpoint: &Endpoint, zones: &[Name]) -> Result<(Name, Vec<Record>), Vec<Problem>> {
    let wrong = |message: String| {
        vec![problem("endpoint", message, "set the domain filter of external-dns to the zones that are here")]
    };
    let owner: Name =
        endpoint.name.parse().map_err(|error| wrong(format!("'{}' is not a domain name: {error}", endpoint.name)))?;
    let rtype = endpoint.rtype.parse::<Rtype>().ok().filter(|rtype| TYPES.contains(rtype));
    let rtype = rtype.ok_or_else(|| wrong(format!("{owner}: records of type {} are not taken", endpoint.rtype)))?;
    let above = zones.iter().filter(|origin| owner.is_in(origin));
    let origin = above
        .max_by_key(|origin| origin.label_count())
        .ok_or_else(|| wrong(format!("{owner} is in no zone that is changed here")))?;
    let ttl = endpoint.ttl.and_then(|ttl| u32::try_from(ttl).ok()).filter(|ttl| *ttl > 0).unwrap_or(TTL);
    let records = endpoint.targets.iter().map(|target| {
        data(rtype, target).map(|rdata| Record { owner: owner.clone(), rtype, ttl, rdata }).map_err(|mut problem| {
            problem.message = format!("{owner}: {}", problem.message);
            problem
        })
    });
    let (good, bad): (Vec<_>, Vec<_>) = records.partition(Result::is_ok);
    let bad: Vec<Problem> = bad.into_iter().filter_map(Result::err).collect();
    if bad.is_empty() { Ok((origin.clone(), good.into_iter().filter_map(Result::ok).collect())) } else { Err(bad) }
}

/// The changes that lead there from a version: what is gone already is no error.
fn steps(zone: &dyn ZoneView, wanted: &Wanted) -> Vec<Change> {
    let is_there = |record: &Record| {
        let data = |rdata: &Rdata| gateward_zone::rdata::canonical(record.rtype, rdata.as_wire()).into_owned();
        zone.set(&record.owner, record.rtype)
            .is_some_and(|set| set.data.iter().any(|rdata| data(rdata) == data(&record.rdata)))
    };
    let stays: BTreeSet<(&Name, Rtype, &Rdata)> =
        wanted.come.iter().map(|record| (&record.owner, record.rtype, &record.rdata)).collect();
    let gone = wanted
        .gone
        .iter()
        .filter(|record| !stays.contains(&(&record.owner, record.rtype, &record.rdata)) && is_there(record));
    // The same record may be named twice, by an update and a removal.
    let gone: BTreeSet<&Record> = gone.collect();
    gone.into_iter().cloned().map(Change::Remove).chain(wanted.come.iter().cloned().map(Change::Add)).collect()
}
