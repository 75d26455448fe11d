//! Zones over the API: listing, reading, replacing, changing, removing; and their policies.

use std::sync::Arc;

use gateward_zone::diff::ChangeJson;
use gateward_zone::{Change, Name, ZoneView, render_zone};
use hyper::StatusCode;
use hyper::header::ETAG;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::problems;
use super::{Answer, Control, actor, base, blocking, errors, force, plain, refused};
use crate::authority::{Base, Door, Edit, Info, PolicyBase, Proposal, Refused, parse};
use crate::folder::read_bounded;
use crate::store::Zone;
use gateward_api::{ApiRequest, ApiResponse};

/// Type of a zone file (RFC 4027).
const ZONE: &str = "text/dns";
const YAML: &str = "application/yaml";

/// A name as it stands in paths and listings.
pub(super) fn shown(origin: &Name) -> String {
    let text = origin.to_string();
    if origin.is_root() { text } else { text.trim_end_matches('.').to_owned() }
}

fn summary(origin: &Name, info: &Info, zone: Option<&Arc<Zone>>) -> Value {
    let state = match (zone, info.problems.is_empty()) {
        (_, false) => "refused",
        (Some(_), true) => "serving",
        (None, true) => "expired",
    };
    json!({
        "origin": shown(origin),
        "serial": zone.map_or(0, |zone| zone.serial()),
        "records": zone.map_or(0, |zone| zone.record_count()),
        "owner": info.policy.owner,
        "kind": info.kind,
        "state": state,
        "protected": info.policy.protected,
        "problems": &info.problems[..],
    })
}

pub(super) fn list(control: &Control) -> ApiResponse {
    let map = control.authority.zones().map();
    let mut zones = control.authority.all();
    zones.sort_by(|(a, _), (b, _)| a.cmp(b));
    let zones: Vec<Value> = zones
        .iter()
        .map(|(origin, info)| summary(origin, info, map.slot(origin).and_then(|slot| slot.zone()).as_ref()))
        .collect();
    ApiResponse::json(StatusCode::OK, &json!({ "zones": zones }))
}

pub(super) async fn show(control: &Control, request: &ApiRequest, origin: &Name) -> Answer {
    let none = || refused(&Refused::NoZone(origin.clone()), StatusCode::CONFLICT);
    let (info, zone) = (control.authority.info(origin).ok_or_else(none)?, control.authority.zone(origin));
    if request.wants_json() {
        let mut summary = summary(origin, &info, zone.as_ref());
        let policy = policy_file(control, origin).await?;
        summary["policy"] = policy.map(|text| String::from_utf8_lossy(&text).into_owned()).into();
        let response = ApiResponse::json(StatusCode::OK, &summary);
        return Ok(match zone {
            Some(zone) => response.header(ETAG, &format!("\"{}\"", zone.serial())),
            None => response,
        });
    }
    let Some(zone) = zone else {
        return Err(errors(
            StatusCode::SERVICE_UNAVAILABLE,
            &[plain("no version of the zone is served; its JSON says why")],
        ));
    };
    zone_text(zone).await
}

/// A version as a zone file.
pub(super) async fn zone_text(zone: Arc<Zone>) -> Answer {
    let serial = zone.serial();
    let text = blocking(move || render_zone(&*zone)).await?;
    Ok(ApiResponse::bytes(StatusCode::OK, ZONE, text.into_bytes()).header(ETAG, &format!("\"{serial}\"")))
}

pub(super) async fn put(control: &Control, request: &ApiRequest, origin: Name) -> Answer {
    let (base, actor) = (base(request)?, actor(request, Door::Api)?);
    let (authority, body, zone) = (control.authority.clone(), request.body.clone(), origin.clone());
    let parsed = blocking(move || parse(&body, &zone, "zone file", authority.folder())).await?;
    let parsed = parsed.map_err(|(found, _)| problems(StatusCode::UNPROCESSABLE_ENTITY, &found))?;
    let mut proposal = Proposal::new(origin, Edit::Replace(Box::new(parsed.zone)), actor);
    proposal.base = base;
    proposal.force = force(request);
    proposal.text = Some(request.body.to_vec());
    proposal.includes = parsed.includes;
    proposal.is_dry_run = request.flag("dry_run");
    match control.authority.apply(proposal).await {
        Ok(applied) => Ok(ApiResponse::empty(StatusCode::NO_CONTENT).header(ETAG, &format!("\"{}\"", applied.serial))),
        Err(error) => Err(unmet(&error, base)),
    }
}

/// Why a zone as a whole was not written: what is not there does not match `If-Match` either (RFC 9110, 13.1.1).
fn unmet(error: &Refused, base: Base) -> ApiResponse {
    match (error, base) {
        (Refused::NoZone(_), Base::Serial(_)) => {
            errors(StatusCode::PRECONDITION_FAILED, &[plain(format!("{error}, and the request is for one"))])
        }
        _ => refused(error, StatusCode::PRECONDITION_FAILED),
    }
}

pub(super) async fn delete(control: &Control, request: &ApiRequest, origin: &Name) -> Answer {
    let base = base(request)?;
    let removed = control.authority.remove(origin, base, actor(request, Door::Api)?, force(request)).await;
    removed.map_err(|error| unmet(&error, base))?;
    Ok(ApiResponse::empty(StatusCode::NO_CONTENT))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    base_serial: Option<u32>,
    changes: Vec<ChangeJson>,
}

pub(super) async fn change(control: &Control, request: &ApiRequest, origin: Name) -> Answer {
    let Changes { base_serial, changes } = super::json(request)?;
    let (mut good, mut bad) = (Vec::with_capacity(changes.len()), Vec::new());
    for change in &changes {
        match change.parse(&origin, None) {
            Ok(change) => good.push(change),
            Err(problem) => bad.push(problem),
        }
    }
    if !bad.is_empty() {
        return Err(problems(StatusCode::UNPROCESSABLE_ENTITY, &bad));
    }
    let is_dry_run = request.flag("dry_run");
    let mut proposal = Proposal::new(origin.clone(), Edit::Changes(good), actor(request, Door::Api)?);
    proposal.base = base_serial.map_or(base(request)?, Base::Serial);
    proposal.force = force(request);
    proposal.is_dry_run = is_dry_run;
    let applied = control.authority.apply(proposal).await.map_err(|error| refused(&error, StatusCode::CONFLICT))?;
    let mut answer = json!({ "serial": applied.serial, "warnings": applied.warnings });
    if is_dry_run {
        answer["changes"] = json!(gateward_zone::diff::to_json(&origin, &without_serial(&applied.changes)));
    }
    Ok(ApiResponse::json(StatusCode::OK, &answer))
}

/// The changes without those of the SOA, which the server makes.
fn without_serial(changes: &[Change]) -> Vec<Change> {
    changes.iter().filter(|change| change.record().rtype != gateward_zone::Rtype::SOA).cloned().collect()
}

async fn policy_file(control: &Control, origin: &Name) -> Result<Option<Vec<u8>>, ApiResponse> {
    let path = control.authority.folder().policy_file(origin);
    match blocking(move || read_bounded(&path)).await? {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(errors(StatusCode::INTERNAL_SERVER_ERROR, &[plain(error.to_string())])),
    }
}

pub(super) async fn policy(control: &Control, origin: &Name) -> Answer {
    if control.authority.info(origin).is_none() {
        return Err(refused(&Refused::NoZone(origin.clone()), StatusCode::CONFLICT));
    }
    match policy_file(control, origin).await? {
        Some(text) => {
            let tag = gateward_zone::policy::tag(&text);
            Ok(ApiResponse::bytes(StatusCode::OK, YAML, text).header(ETAG, &format!("\"{tag}\"")))
        }
        None => Err(errors(StatusCode::NOT_FOUND, &[plain("the zone has no policy file; the default policy holds")])),
    }
}

pub(super) async fn put_policy(control: &Control, request: &ApiRequest, origin: &Name) -> Answer {
    let (base, actor) = (policy_base(request)?, actor(request, Door::Api)?);
    let put = control.authority.put_policy(origin, request.body.to_vec(), base, actor, force(request)).await;
    put.map_err(|error| refused(&error, StatusCode::CONFLICT))?;
    Ok(ApiResponse::empty(StatusCode::NO_CONTENT))
}

/// The policy file that the request is made for, by its conditions (RFC 9110, 13.1).
fn policy_base(request: &ApiRequest) -> Result<PolicyBase, ApiResponse> {
    match (request.if_match(), request.if_none_match()) {
        (None, None) => Ok(PolicyBase::Any),
        (None, Some("*")) => Ok(PolicyBase::Absent),
        (Some(tag), None) if tag != "*" => Ok(PolicyBase::Tag(tag.trim_matches('"').to_owned())),
        _ => {
            Err(errors(StatusCode::BAD_REQUEST, &[plain("give If-Match with the policy's ETag, or If-None-Match: *")]))
        }
    }
}
