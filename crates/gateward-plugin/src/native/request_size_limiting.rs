//! request-size-limiting: no request body beyond a size.
//!
//! A declared length is refused at once; otherwise the limit is handed to the data plane, which counts while the
//! body streams. Kong reads the whole body first to find out.

use crate::BuildError;
use crate::contract::{Definition, LocalResponse, Needs, Phases, Plugin, Step};
use crate::env::BuildContext;
use crate::exchange::Exchange;
use crate::native::settings;
use gateward_http::BodyFraming;
use gateward_model::schema::{Field, Schema};
use serde::Deserialize;

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "request-size-limiting", priority: 951, schema, check_scope: settings::http, build }
}

fn schema() -> Schema {
    Schema::new([
        ("allowed_payload_size", Field::integer().default(128).required()),
        ("size_unit", Field::string().default("megabytes").one_of(&["megabytes", "kilobytes", "bytes"]).required()),
        ("require_content_length", Field::boolean().default(false).required()),
    ])
}

#[derive(Deserialize)]
struct Settings {
    allowed_payload_size: i64,
    size_unit: Unit,
    require_content_length: bool,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Megabytes,
    Kilobytes,
    Bytes,
}

impl Unit {
    fn bytes(self) -> u64 {
        match self {
            Self::Megabytes => 1 << 20,
            Self::Kilobytes => 1 << 10,
            Self::Bytes => 1,
        }
    }
}

struct RequestSizeLimiting {
    max_bytes: u64,
    require_content_length: bool,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let settings: Settings = settings::read(context)?;
    let size = u64::try_from(settings.allowed_payload_size).unwrap_or(0);
    Ok(Box::new(RequestSizeLimiting {
        max_bytes: size.saturating_mul(settings.size_unit.bytes()),
        require_content_length: settings.require_content_length,
    }))
}

impl Plugin for RequestSizeLimiting {
    fn needs(&self) -> Needs {
        Needs { phases: Phases { access: true, ..Phases::default() }, ..Needs::default() }
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let declared = match exchange.request.framing {
            BodyFraming::Length(bytes) => Some(bytes),
            BodyFraming::None => return Step::Next,
            BodyFraming::Chunked | BodyFraming::UntilClose => None,
        };
        if declared.is_none() && self.require_content_length {
            return Step::Respond(LocalResponse::message(411, "A valid Content-Length header is required"));
        }
        let buffered = exchange.body.as_ref().map(|body| body.len() as u64);
        if declared.or(buffered).is_some_and(|bytes| bytes > self.max_bytes) {
            let status = if exchange.request.expects_continue { 417 } else { 413 };
            return Step::Respond(LocalResponse::message(status, "Request size limit exceeded"));
        }
        let max = exchange.request_body_max.map_or(self.max_bytes, |other| other.min(self.max_bytes));
        exchange.request_body_max = Some(max);
        Step::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing;
    use serde_json::{Value, json};

    fn check(config: Value, framing: BodyFraming, body: Option<usize>, expected: &str, max: Option<u64>) {
        let case = format!("{config} {framing:?} {body:?}");
        let mut exchange = testing::request("POST", "/", &[]);
        exchange.request.framing = framing;
        exchange.body = body.map(|bytes| vec![0; bytes]);
        let plugin = testing::build(&definition(), config);
        let response = testing::access(plugin.as_ref(), &mut exchange);
        assert_eq!(testing::summary(response.as_ref()), expected, "{case}");
        assert_eq!(exchange.request_body_max, max, "{case}");
    }

    const EXCEEDED: &str = "413 Request size limit exceeded";

    #[test]
    fn declared_lengths_are_checked_at_once() {
        let max = 128 << 20;
        check(json!({}), BodyFraming::None, None, "next", None);
        check(json!({}), BodyFraming::Length(max), None, "next", Some(max));
        check(json!({}), BodyFraming::Length(max + 1), None, EXCEEDED, None);
        let kilobytes = json!({"allowed_payload_size": 2, "size_unit": "kilobytes"});
        check(kilobytes.clone(), BodyFraming::Length(2048), None, "next", Some(2048));
        check(kilobytes, BodyFraming::Length(2049), None, EXCEEDED, None);
        let huge = json!({"allowed_payload_size": i64::MAX});
        check(huge, BodyFraming::Length(u64::MAX), None, "next", Some(u64::MAX));
        check(json!({"allowed_payload_size": -1}), BodyFraming::Length(0), None, "next", Some(0));
    }

    #[test]
    fn streamed_bodies_are_limited_or_need_a_length() {
        let bytes = json!({"allowed_payload_size": 9, "size_unit": "bytes"});
        check(bytes.clone(), BodyFraming::Chunked, None, "next", Some(9));
        check(bytes.clone(), BodyFraming::Chunked, Some(9), "next", Some(9));
        check(bytes, BodyFraming::Chunked, Some(10), EXCEEDED, None);
        let required = json!({"require_content_length": true});
        check(required.clone(), BodyFraming::Chunked, None, "411 A valid Content-Length header is required", None);
        check(required, BodyFraming::None, None, "next", None);
    }

    #[test]
    fn expectations_fail_and_the_lowest_limit_holds() {
        let plugin = testing::build(&definition(), json!({"allowed_payload_size": 9, "size_unit": "bytes"}));
        let mut exchange = testing::request("POST", "/", &[]);
        exchange.request.expects_continue = true;
        exchange.request.framing = BodyFraming::Length(10);
        let response = testing::access(plugin.as_ref(), &mut exchange);
        assert_eq!(testing::summary(response.as_ref()), "417 Request size limit exceeded");
        exchange.request.framing = BodyFraming::Chunked;
        exchange.request_body_max = Some(5);
        assert_eq!(testing::access(plugin.as_ref(), &mut exchange), None);
        assert_eq!(exchange.request_body_max, Some(5));
    }
}
