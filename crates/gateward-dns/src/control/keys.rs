//! TSIG keys over the API. Secrets come in and never go out.

use gateward_model::Secret;
use gateward_zone::Name;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Control, actor, blocking, errors, plain, zones};
use crate::authority::Door;
use gateward_api::{ApiRequest, ApiResponse};

pub(super) fn list(control: &Control) -> ApiResponse {
    let keys = control.keys.list();
    let keys: Vec<Value> = keys
        .iter()
        .map(|(name, algorithm)| json!({ "name": zones::shown(name), "algorithm": algorithm.as_str() }))
        .collect();
    ApiResponse::json(StatusCode::OK, &json!({ "keys": keys }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    algorithm: String,
    secret: Secret,
}

fn name(request: &ApiRequest) -> Result<Name, ApiResponse> {
    let text = &request.path[2];
    let bad = |error| errors(StatusCode::BAD_REQUEST, &[plain(format!("'{text}' is not the name of a key: {error}"))]);
    text.parse::<Name>().map_err(bad)
}

pub(super) async fn put(control: &Control, request: &ApiRequest) -> Answer {
    let (name, actor) = (name(request)?, actor(request, Door::Api)?);
    let Key { algorithm, secret } = super::json(request)?;
    let (keys, key) = (control.keys.clone(), name.clone());
    let kind = algorithm.clone();
    let put = blocking(move || keys.put(key, &algorithm, secret.expose())).await?;
    put.map_err(|error| errors(StatusCode::UNPROCESSABLE_ENTITY, &[plain(error)]))?;
    control.authority.audit().note(&name, &actor, "key", format!("+ {kind}\n"));
    Ok(ApiResponse::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn delete(control: &Control, request: &ApiRequest) -> Answer {
    let (name, actor) = (name(request)?, actor(request, Door::Api)?);
    let (keys, key) = (control.keys.clone(), name.clone());
    let removed = blocking(move || keys.remove(&key)).await?;
    match removed.map_err(|error| errors(StatusCode::INTERNAL_SERVER_ERROR, &[plain(error)]))? {
        false => Err(errors(StatusCode::NOT_FOUND, &[plain(format!("there is no key {name}"))])),
        true => {
            control.authority.audit().note(&name, &actor, "key", "-\n".to_owned());
            Ok(ApiResponse::empty(StatusCode::NO_CONTENT))
        }
    }
}
