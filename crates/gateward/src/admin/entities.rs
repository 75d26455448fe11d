//! Lists and items of entities, read-only.

use crate::admin::kinds::{Entity, Kind, find};
use crate::control::Control;
use gateward_api::{ApiRequest, ApiResponse};
use gateward_plugin::PluginHost;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

/// Entities on a page when nobody says how many, and at most (kong/api/endpoints.lua).
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// `/services`, `/services/{s}`, `/services/{s}/routes`, `/services/{s}/routes/{r}`, `/routes/{r}/service`.
pub(crate) fn read(control: &Control, path: &[&str], request: &ApiRequest) -> ApiResponse {
    let plan = control.node().plan();
    let config = &plan.snapshot.config;
    let Some(kind) = path.first().and_then(|first| Kind::at(first)) else { return ApiResponse::not_found() };
    let host = &*control.reloader.compiler().host;
    if path.len() == 1 {
        return page(&kind.all(config), request, path, host);
    }
    let Some(entity) = kind.find(config, path[1]) else { return ApiResponse::not_found() };
    let below = || {
        let (child, field) = Kind::below(kind, path.get(2)?)?;
        let mut children = child.all(config);
        children.retain(|child| child.parent(field) == Some(entity.id()));
        Some(children)
    };
    match path {
        [_, _] => item(Some(entity), host),
        [_, _, field] if kind.above(field).is_some() => {
            let parent = kind.above(field).zip(entity.parent(field));
            item(parent.and_then(|(kind, id)| kind.find(config, &id.to_string())), host)
        }
        [_, _, _] => below().map_or_else(ApiResponse::not_found, |children| page(&children, request, path, host)),
        [_, _, _, child] => item(below().and_then(|children| find(&children, child)), host),
        _ => ApiResponse::not_found(),
    }
}

/// What Kong answers to writes when it has no database.
pub(crate) fn refuse_write(path: &[&str], method: &Method) -> ApiResponse {
    let Some(top) = path.first().and_then(|first| Kind::at(first)) else { return ApiResponse::not_found() };
    let kind = path.get(2).and_then(|below| Kind::below(top, below)).map_or(top, |(kind, _)| kind);
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "create or update",
        Method::PATCH => "update",
        Method::DELETE => "delete",
        _ => return ApiResponse::method_not_allowed(),
    };
    let body = json!({
        "code": 12,
        "name": "operation unsupported",
        "message": format!("cannot {verb} '{}' entities when not using a database", kind.name),
    });
    ApiResponse::json(StatusCode::METHOD_NOT_ALLOWED, &body)
}

fn item(entity: Option<&dyn Entity>, host: &dyn PluginHost) -> ApiResponse {
    match entity {
        Some(entity) => ApiResponse::json(StatusCode::OK, &shown(entity, host)),
        None => ApiResponse::not_found(),
    }
}

/// The entity, and what runs for it: `runtime` of a plugin that a host runs, and of each filter of a chain. Kong's clients
/// pass over fields that they do not know.
fn shown(entity: &dyn Entity, host: &dyn PluginHost) -> Value {
    let mut shown = entity.shown();
    let (name, config) = (shown["name"].as_str(), shown.get("config"));
    if let (Some(name), Some(config)) = (name, config)
        && let Some(status) = host.status(name, config)
    {
        shown["runtime"] = json!(status);
    }
    for filter in shown.get_mut("filters").and_then(Value::as_array_mut).into_iter().flatten() {
        let status = filter["name"].as_str().and_then(|name| host.status(name, &filter["config"]));
        if let Some(status) = status {
            filter["runtime"] = json!(status);
        }
    }
    shown
}

fn page(entities: &[&dyn Entity], request: &ApiRequest, path: &[&str], host: &dyn PluginHost) -> ApiResponse {
    let size = match request.field("size").map(str::parse::<usize>) {
        None => PAGE,
        Some(Ok(size)) if (1..=PAGE_MAX).contains(&size) => size,
        Some(_) => return invalid("size", &format!("must be a number from 1 to {PAGE_MAX}")),
    };
    let start = match request.field("offset").map(str::parse::<usize>) {
        None => 0,
        Some(Ok(offset)) => offset,
        Some(Err(_)) => return invalid("offset", "is not one that this API gave"),
    };
    let tagged: Vec<&&dyn Entity> =
        entities.iter().filter(|entity| has_tags(entity.tags(), request.field("tags"))).collect();
    let shown: Vec<Value> = tagged.iter().skip(start).take(size).map(|entity| shown(**entity, host)).collect();
    let end = start.saturating_add(size);
    let mut body = json!({ "data": shown, "next": null });
    if end < tagged.len() {
        let mut next = format!("/{}?offset={end}", path.join("/"));
        if let Some(size) = request.field("size") {
            next.push_str(&format!("&size={size}"));
        }
        if let Some(tags) = request.field("tags") {
            next.push_str(&format!("&tags={tags}"));
        }
        body["next"] = json!(next);
        body["offset"] = json!(end.to_string());
    }
    ApiResponse::json(StatusCode::OK, &body)
}

/// `a,b`: both; `a/b`: one of them.
fn has_tags(tags: &[String], wanted: Option<&str>) -> bool {
    let Some(wanted) = wanted else { return true };
    let has = |tag: &str| tags.iter().any(|other| other == tag);
    if wanted.contains('/') { wanted.split('/').any(has) } else { wanted.split(',').all(has) }
}

fn invalid(field: &str, message: &str) -> ApiResponse {
    let body = json!({ "code": 7, "name": "invalid options", "message": format!("{field} {message}") });
    ApiResponse::json(StatusCode::BAD_REQUEST, &body)
}
