//! Leases over the API.

use gateward_zone::{Name, Rtype, parse_rdata, rdata_to_text};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::problems;
use super::versions::rfc3339;
use super::{Answer, Control, actor, errors, plain, refused, zones};
use crate::authority::{Door, Refused};
use crate::leases::{Ended, Lease, check};
use gateward_api::{ApiRequest, ApiResponse};

/// Seconds a cache may keep the data of a lease that does not say.
const TTL: u32 = 30;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    #[serde(rename = "type")]
    rtype: String,
    data: Vec<String>,
    ttl: Option<u32>,
    lease_seconds: u32,
    #[serde(default = "yes")]
    healthy: bool,
}

fn yes() -> bool {
    true
}

pub(super) async fn put(control: &Control, request: &ApiRequest, origin: &Name, id: &str) -> Answer {
    let actor = actor(request, Door::Lease)?;
    let wanted: Wanted = super::json(request)?;
    let unprocessable = |message: String| errors(StatusCode::UNPROCESSABLE_ENTITY, &[plain(message)]);
    let name = Name::parse_in(&wanted.name, origin)
        .map_err(|error| unprocessable(format!("'{}' is not a domain name: {error}", wanted.name)))?;
    let rtype: Rtype =
        wanted.rtype.parse().map_err(|_| unprocessable(format!("'{}' is not a type of records", wanted.rtype)))?;
    let data = wanted.data.iter().map(|text| parse_rdata(rtype, text, origin)).collect::<Result<Vec<_>, _>>();
    let data = data.map_err(|problem| problems(StatusCode::UNPROCESSABLE_ENTITY, &[problem]))?;
    let Wanted { ttl, lease_seconds, healthy, .. } = wanted;
    let lease = Lease { name, rtype, data, ttl: ttl.unwrap_or(TTL), lease_seconds, healthy };
    let found = check(&lease, id, origin);
    if !found.is_empty() {
        return Err(problems(StatusCode::UNPROCESSABLE_ENTITY, &found));
    }
    let expires = control.leases.put(origin, id, lease, &actor.name).await;
    let expires = expires.map_err(|error| refused(&error, StatusCode::CONFLICT))?;
    Ok(ApiResponse::json(StatusCode::OK, &json!({ "expires": rfc3339(expires) })))
}

pub(super) async fn delete(control: &Control, request: &ApiRequest, origin: &Name, id: &str) -> Answer {
    let actor = actor(request, Door::Lease)?;
    let ended = control.leases.remove(origin, id, &actor.name).await;
    match ended.map_err(|error| refused(&error, StatusCode::CONFLICT))? {
        None => Err(errors(StatusCode::NOT_FOUND, &[plain(format!("there is no lease '{id}' in {origin}"))])),
        Some(ended) => Ok(ApiResponse::json(StatusCode::OK, &json!({ "kept": ended == Ended::Kept }))),
    }
}

pub(super) async fn list(control: &Control, origin: &Name) -> Answer {
    if control.authority.info(origin).is_none() {
        return Err(refused(&Refused::NoZone(origin.clone()), StatusCode::CONFLICT));
    }
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
    let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
    let leases: Vec<Value> = control
        .leases
        .list(origin)
        .await
        .into_iter()
        .map(|(id, held)| {
            json!({
                "id": id,
                "name": zones::shown(&held.lease.name),
                "type": held.lease.rtype.to_string(),
                "data": held.lease.data.iter().map(|rdata| rdata_to_text(held.lease.rtype, rdata)).collect::<Vec<_>>(),
                "ttl": held.lease.ttl,
                "lease_seconds": held.lease.lease_seconds,
                "healthy": held.lease.healthy,
                "live": held.is_live(now_ms),
                "expires": rfc3339(held.expires_ms),
                "actor": held.actor,
            })
        })
        .collect();
    Ok(ApiResponse::json(StatusCode::OK, &json!({ "leases": leases })))
}
