//! The versions of a zone over the API.

use std::time::{Duration, UNIX_EPOCH};

use gateward_zone::Name;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Control, actor, blocking, errors, force, plain, refused, zones};
use crate::authority::{Door, Edit, Proposal, Refused};
use gateward_api::{ApiRequest, ApiResponse};

/// Versions that a listing shows, the newest ones.
const SHOWN: usize = 1_000;

/// A time as people and programs read it, to the millisecond.
pub(super) fn rfc3339(millis: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(millis);
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

pub(super) async fn list(control: &Control, origin: Name) -> Answer {
    if control.authority.info(&origin).is_none() {
        return Err(refused(&Refused::NoZone(origin), StatusCode::CONFLICT));
    }
    let authority = control.authority.clone();
    let entries = blocking(move || authority.versions(&origin)).await?;
    let shown = entries[entries.len().saturating_sub(SHOWN)..].iter().map(|entry| {
        json!({
            "serial": entry.to, "time": rfc3339(entry.time_ms), "actor": &*entry.actor,
            "added": entry.added, "removed": entry.removed,
        })
    });
    // The version that the first step began with can be had, too.
    let first =
        entries.first().map(|entry| json!({ "serial": entry.from, "time": "", "actor": "", "added": 0, "removed": 0 }));
    let versions: Vec<Value> = first.into_iter().filter(|_| entries.len() <= SHOWN).chain(shown).collect();
    Ok(ApiResponse::json(StatusCode::OK, &json!({ "versions": versions })))
}

pub(super) async fn show(control: &Control, request: &ApiRequest, origin: Name) -> Answer {
    let serial =
        request.path[4].parse().map_err(|_| errors(StatusCode::BAD_REQUEST, &[plain("a serial is a number")]))?;
    let authority = control.authority.clone();
    let version = blocking(move || authority.version(&origin, serial)).await?;
    zones::zone_text(version.map_err(|error| refused(&error, StatusCode::CONFLICT))?).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollback {
    to: u32,
}

pub(super) async fn rollback(control: &Control, request: &ApiRequest, origin: Name) -> Answer {
    let Rollback { to } = super::json(request)?;
    let mut proposal = Proposal::new(origin, Edit::Rollback(to), actor(request, Door::Api)?);
    proposal.base = super::base(request)?;
    proposal.force = force(request);
    let applied = control.authority.apply(proposal).await.map_err(|error| refused(&error, StatusCode::CONFLICT))?;
    Ok(ApiResponse::json(StatusCode::OK, &json!({ "serial": applied.serial })))
}
