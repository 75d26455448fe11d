//! What the API says of the server itself: health, metrics, the audit log.

use gateward_zone::ZoneView;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Control, blocking, errors, origin, plain};
use gateward_api::{ApiRequest, ApiResponse};

/// Lines of the audit log in one answer.
const LINES: usize = 1_000;

/// How many zones are how.
struct Tally {
    /// Zones that the server answers for.
    zones: usize,
    /// Those of which a version is served.
    serving: usize,
    /// Records of these.
    records: usize,
    /// Zones with something wrong in their files.
    refused: usize,
}

fn tally(control: &Control) -> Tally {
    let map = control.authority.zones().map();
    let served: Vec<usize> = map.slots().filter_map(|slot| Some(slot.zone()?.record_count())).collect();
    let refused = control.authority.all().iter().filter(|(_, info)| !info.problems.is_empty()).count();
    Tally { zones: map.len(), serving: served.len(), records: served.iter().sum(), refused }
}

pub(super) fn health(control: &Control) -> ApiResponse {
    let Tally { zones, serving, refused, .. } = tally(control);
    let health = json!({ "status": "ok", "zones": zones, "serving": serving, "refused": refused });
    ApiResponse::json(StatusCode::OK, &health)
}

pub(super) fn metrics(control: &Control) -> ApiResponse {
    let Tally { zones, serving, records, refused } = tally(control);
    let mut text = (control.metrics)();
    for (name, help, value) in [
        ("gateward_dns_zones", "Zones that the server answers for.", zones),
        ("gateward_dns_zones_refused", "Zones with something wrong in their files.", refused),
        ("gateward_dns_zones_without_version", "Zones that are answered with SERVFAIL.", zones - serving),
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
