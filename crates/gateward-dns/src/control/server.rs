//! What the API says of the server itself: health, metrics, the audit log.

use gateward_zone::ZoneView;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Control, blocking, errors, origin, plain};
use gateward_api::{ApiRequest, ApiResponse};

/// Lines of the audit log in one answer.
const LINES: usize = 1_000;

pub(super) fn health(control: &Control) -> ApiResponse {
    let zones = control.authority.all();
    let refused = zones.iter().filter(|(_, info)| !info.problems.is_empty()).count();
    ApiResponse::json(StatusCode::OK, &json!({ "status": "ok", "zones": zones.len(), "refused": refused }))
}

pub(super) fn metrics(control: &Control) -> ApiResponse {
    let map = control.authority.zones().map();
    let (mut records, mut silent) = (0, 0);
    for slot in map.slots() {
        match slot.zone() {
            Some(zone) => records += zone.record_count(),
            None => silent += 1,
        }
    }
    let refused = control.authority.all().iter().filter(|(_, info)| !info.problems.is_empty()).count();
    let mut text = (control.metrics)();
    for (name, help, value) in [
        ("gateward_dns_zones", "Zones that the server answers for.", map.len()),
        ("gateward_dns_zones_refused", "Zones with something wrong in their files.", refused),
        ("gateward_dns_zones_without_version", "Zones that are answered with SERVFAIL.", silent),
        ("gateward_dns_records", "Records of all zones.", records),
    ] {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"));
    }
    text.push_str(&control.authority.metrics());
    ApiResponse::bytes(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text.into_bytes())
}

pub(super) async fn audit(control: &Control, request: &ApiRequest) -> Answer {
    let after = request.field("after").unwrap_or("0").parse();
    let after = after.map_err(|_| errors(StatusCode::BAD_REQUEST, &[plain("'after' is the number of a line")]))?;
    let zone = request.field("zone").map(origin).transpose()?;
    let authority = control.authority.clone();
    let lines = blocking(move || authority.audit().read(zone.as_ref(), after, LINES)).await?;
    let lines = lines.map_err(|error| errors(StatusCode::INTERNAL_SERVER_ERROR, &[plain(error.to_string())]))?;
    let entries: Vec<Value> = lines
        .into_iter()
        .map(|(number, mut entry)| {
            entry["number"] = number.into();
            entry
        })
        .collect();
    Ok(ApiResponse::json(StatusCode::OK, &json!({ "entries": entries })))
}
