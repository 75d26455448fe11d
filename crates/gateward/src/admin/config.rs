//! `/config`: the configuration as a whole, out and in.
//!
//! Answers have Kong's shape, `flattened_errors` included, with the positions of every problem besides.

use crate::admin::kinds::KINDS;
use crate::control::Control;
use crate::reload::{Applied, sniff};
use gateward_api::{ApiRequest, ApiResponse, form_fields};
use gateward_config::{Diagnostic, EntityRef, Format, Severity, dump};
use gateward_model::{Config, Snapshot};
use hyper::StatusCode;
use serde_json::{Map, Value, json};

/// Name of this way in, in the log and in `/status`.
const ORIGIN: &str = "POST /config";
/// Longest list position that `fields` shows: lists there are padded with nulls, as in Kong.
const POSITIONS: usize = 1000;

/// `GET /config`.
pub(crate) fn export(control: &Control) -> ApiResponse {
    let plan = control.node().plan();
    ApiResponse::json(StatusCode::OK, &json!({ "config": dump(&plan.snapshot.config, Format::Yaml) }))
}

/// `POST /config`.
pub(crate) async fn replace(control: &Control, request: &ApiRequest) -> ApiResponse {
    let Some((text, format)) = text_of(request) else {
        let message = "expected a declarative configuration: as the body, or in the field 'config' of JSON or a form";
        return ApiResponse::message(StatusCode::BAD_REQUEST, message);
    };
    match control.reloader.apply(text, format, ORIGIN).await {
        Ok(Applied::Unchanged) if request.flag("check_hash") => ApiResponse::empty(StatusCode::NOT_MODIFIED),
        Ok(_) => {
            let plan = control.node().plan();
            let Snapshot { config, .. } = &*plan.snapshot;
            ApiResponse::json(StatusCode::CREATED, &by_id(config))
        }
        Err(problems) => {
            ApiResponse::json(StatusCode::BAD_REQUEST, &refusal(&problems, request.flag("flatten_errors")))
        }
    }
}

/// Entities by kind and id, as Kong answers.
fn by_id(config: &Config) -> Value {
    let mut kinds = Map::new();
    for kind in KINDS {
        let entities: Map<String, Value> =
            kind.all(config).iter().map(|entity| (entity.id().to_string(), entity.shown())).collect();
        if !entities.is_empty() {
            kinds.insert(kind.name.to_owned(), Value::Object(entities));
        }
    }
    Value::Object(kinds)
}

/// The text in a request: the body itself, or the field `config` of JSON or a form.
fn text_of(request: &ApiRequest) -> Option<(Vec<u8>, Format)> {
    let body = &request.body;
    let (kind, parameters) = request.content_type().split_once(';').unwrap_or((request.content_type(), ""));
    let text = match kind.trim().to_ascii_lowercase().as_str() {
        "application/x-www-form-urlencoded" => {
            let fields = form_fields(std::str::from_utf8(body).ok()?);
            // curl sends a file with this type unless told otherwise; then the body is the text.
            match fields.into_iter().find(|(name, _)| name == "config") {
                Some((_, text)) => text.into_bytes(),
                None => body.to_vec(),
            }
        }
        "multipart/form-data" => multipart_field(body, parameters, "config")?,
        "application/json" => match serde_json::from_slice(body) {
            Ok(Value::Object(mut fields)) => match fields.remove("config") {
                Some(Value::String(text)) => text.into_bytes(),
                Some(config @ Value::Object(_)) => return Some((config.to_string().into_bytes(), Format::Json)),
                _ => return Some((body.to_vec(), Format::Json)),
            },
            _ => return Some((body.to_vec(), Format::Json)),
        },
        _ => body.to_vec(),
    };
    let format = sniff(&text);
    (!text.trim_ascii().is_empty()).then_some((text, format))
}

/// The content of a part of `multipart/form-data` (RFC 7578).
fn multipart_field(body: &[u8], parameters: &str, wanted: &str) -> Option<Vec<u8>> {
    let boundary = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    let delimiter = format!("--{}", boundary.trim_matches('"'));
    let mut rest = &body[find(body, delimiter.as_bytes())? + delimiter.len()..];
    while let Some(length) = find(rest, format!("\r\n{delimiter}").as_bytes()) {
        let part = &rest[..length];
        let head_end = find(part, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&part[..head_end]).to_ascii_lowercase();
        if head.contains(&format!("name=\"{wanted}\"")) || head.contains(&format!("name={wanted};")) {
            return Some(part[head_end + 4..].to_vec());
        }
        rest = &rest[length + 2 + delimiter.len()..];
    }
    None
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    if wanted.is_empty() {
        return None;
    }
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// Kong's answer to a configuration with problems.
fn refusal(problems: &[Diagnostic], flatten: bool) -> Value {
    let errors: Vec<&Diagnostic> = problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
    let mut all = Value::Object(Map::new());
    errors.iter().for_each(|error| put(&mut all, &error.path, &error.message));
    let mut body = json!({
        "code": 14,
        "name": "invalid declarative configuration",
        "message": format!("declarative config is invalid: {all}"),
        "diagnostics": problems,
    });
    if flatten {
        let mut rest = Value::Object(Map::new());
        errors
            .iter()
            .filter(|error| error.entity.is_none())
            .for_each(|error| put(&mut rest, &error.path, &error.message));
        body["fields"] = rest;
        body["flattened_errors"] = flattened(&errors);
    } else {
        body["fields"] = all;
    }
    body
}

/// One object per entity with problems (kong/db/errors.lua).
fn flattened(errors: &[&Diagnostic]) -> Value {
    let mut entities: Vec<(&str, &EntityRef, Vec<Value>)> = Vec::new();
    for error in errors {
        let Some(entity) = &error.entity else { continue };
        let (place, field) = within(&error.path, &entity.kind);
        let shown = match field {
            "" => json!({ "type": "entity", "message": error.message }),
            field => json!({ "type": "field", "field": field, "message": error.message }),
        };
        match entities.last_mut().filter(|(other, ..)| *other == place) {
            Some((_, _, shown_before)) => shown_before.push(shown),
            None => entities.push((place, entity, vec![shown])),
        }
    }
    let shown = entities.into_iter().map(|(_, entity, errors)| {
        let singular = entity.kind.strip_suffix('s').unwrap_or(&entity.kind);
        let mut shown = json!({ "entity_type": singular, "errors": errors });
        if let Some(name) = &entity.name {
            shown["entity_name"] = json!(name);
        }
        if let Some(id) = &entity.id {
            shown["entity_id"] = json!(id);
        }
        if !entity.tags.is_empty() {
            shown["entity_tags"] = json!(entity.tags);
        }
        shown
    });
    shown.collect()
}

/// `services[0].routes[1].paths[0]` of kind `routes`: the entity's place, and the field within it.
fn within<'p>(path: &'p str, kind: &str) -> (&'p str, &'p str) {
    let Some(start) = path.rfind(&format!("{kind}[")) else { return (path, "") };
    let end = path[start..].find(']').map_or(path.len(), |bracket| start + bracket + 1);
    (&path[..end], path[end..].trim_start_matches('.'))
}

/// Put `message` at `path` into nested objects and lists.
fn put(root: &mut Value, path: &str, message: &str) {
    // A problem of the text as a whole.
    let path = if path.is_empty() { "@file" } else { path };
    let mut at = root;
    for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
        let position = step.strip_suffix(']').and_then(|number| number.parse::<usize>().ok());
        match position {
            Some(position) if position < POSITIONS => {
                if !at.is_array() {
                    *at = json!([]);
                }
                let Some(list) = at.as_array_mut() else { return };
                if list.len() <= position {
                    list.resize(position + 1, Value::Null);
                }
                at = &mut list[position];
            }
            // Told in `diagnostics`; a list of that many nulls helps nobody.
            Some(_) => return,
            None => {
                if !at.is_object() {
                    *at = json!({});
                }
                let Some(fields) = at.as_object_mut() else { return };
                at = fields.entry(step.trim_end_matches(']').trim_matches('"')).or_insert(Value::Null);
            }
        }
    }
    *at = match at.take() {
        Value::Null => json!(message),
        // Problems of the same place, or of a place with problems within.
        Value::Object(mut fields) => {
            fields.insert("@entity".to_owned(), json!([message]));
            Value::Object(fields)
        }
        Value::String(first) => json!([first, message]),
        Value::Array(mut list) => {
            list.push(json!(message));
            Value::Array(list)
        }
        other => other,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(content_type: &str, body: &str) -> ApiRequest {
        let mut request = ApiRequest::new(hyper::Method::POST, "/config");
        request.headers.insert(hyper::header::CONTENT_TYPE, content_type.parse().expect("it can stand in a field"));
        request.body = body.to_owned().into();
        request
    }

    #[test]
    fn the_text_is_found_in_every_kind_of_body() {
        let part = "--XX\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\nx\r\n--XX\r\nContent-Disposition: form-data; \
                    name=\"config\"; filename=\"kong.yml\"\r\nContent-Type: text/yaml\r\n\r\na: 1\r\n--XX--\r\n";
        for (content_type, body, expected) in [
            ("", "a: 1", Some(("a: 1", Format::Yaml))),
            ("text/yaml", "a: 1", Some(("a: 1", Format::Yaml))),
            ("application/json", r#"{"config":"a: 1"}"#, Some(("a: 1", Format::Yaml))),
            ("application/json", r#"{"config":{"a":1}}"#, Some((r#"{"a":1}"#, Format::Json))),
            ("application/json; charset=utf-8", r#"{"a":1}"#, Some((r#"{"a":1}"#, Format::Json))),
            ("application/x-www-form-urlencoded", "x=1&config=a%3A+1", Some(("a: 1", Format::Yaml))),
            ("application/x-www-form-urlencoded", "a: 1\n", Some(("a: 1\n", Format::Yaml))),
            ("multipart/form-data; boundary=XX", part, Some(("a: 1", Format::Yaml))),
            ("multipart/form-data; boundary=YY", part, None),
            ("multipart/form-data", part, None),
            ("", " \n", None),
        ] {
            let found = text_of(&request(content_type, body));
            let found = found.map(|(text, format)| (String::from_utf8(text).unwrap(), format));
            assert_eq!(found, expected.map(|(text, format)| (text.to_owned(), format)), "{content_type} {body}");
        }
    }

    #[test]
    fn problems_are_nested_like_the_file() {
        let mut fields = json!({});
        for (path, message) in [
            ("services[1].host", "a"),
            ("services[1].host", "b"),
            ("services[1]", "c"),
            ("_format_version", "d"),
            ("services[99999].host", "too far"),
        ] {
            put(&mut fields, path, message);
        }
        let expected = json!({
            "services": [null, { "host": ["a", "b"], "@entity": ["c"] }],
            "_format_version": "d",
        });
        assert_eq!(fields, expected);
    }

    #[test]
    fn places_within_entities() {
        assert_eq!(within("services[0].routes[1].paths[0]", "routes"), ("services[0].routes[1]", "paths[0]"));
        assert_eq!(within("services[0]", "services"), ("services[0]", ""));
        assert_eq!(within("x", "services"), ("x", ""));
    }
}
