//! Properties of an exchange, under Envoy's names and with Envoy's types: integers are eight bytes, booleans one,
//! little-endian; times are nanoseconds since 1970. `kong.*` are texts.

use super::view::Stage;
use gateward_plugin::Exchange;
use std::net::SocketAddr;

/// Append the value of `path` to `out`; `false`: there is none.
pub(super) fn find(exchange: &Exchange, stage: Stage, path: &[&str], out: &mut Vec<u8>) -> bool {
    let found = match path {
        ["request", rest @ ..] => request(exchange, rest),
        ["response", rest @ ..] if stage > Stage::Request => response(exchange, rest),
        ["source", rest @ ..] => source(exchange, rest),
        ["destination", "port"] => Some(Value::Int(i64::from(exchange.client.port))),
        ["connection", rest @ ..] => connection(exchange, rest),
        ["route_name"] | ["kong", "route_name"] => route(exchange).map(Value::Text),
        ["kong", "route_id"] => exchange.route.as_ref().map(|route| Value::Owned(route.id.to_string())),
        ["cluster_name"] | ["kong", "service_name"] => service(exchange).map(Value::Text),
        ["kong", "service_id"] => exchange.service.as_ref().map(|service| Value::Owned(service.id.to_string())),
        ["kong", "client", "consumer"] | ["kong", "consumer"] => {
            exchange.auth.consumer.as_ref().and_then(|consumer| consumer.username.as_deref()).map(Value::Text)
        }
        ["upstream", "uri"] => Some(Value::Text(&exchange.upstream.path)),
        _ => None,
    };
    let Some(found) = found else { return false };
    found.write(out);
    true
}

enum Value<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    Owned(String),
    Int(i64),
    Bool(bool),
}

impl Value<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
            Self::Owned(text) => out.extend_from_slice(text.as_bytes()),
            Self::Int(number) => out.extend_from_slice(&number.to_le_bytes()),
            Self::Bool(is) => out.push(u8::from(*is)),
        }
    }
}

fn request<'a>(exchange: &'a Exchange, path: &[&str]) -> Option<Value<'a>> {
    let request = &exchange.request;
    Some(match path {
        ["path"] => Value::Text(&request.target),
        ["url_path"] => Value::Text(request.raw_path()),
        ["query"] => Value::Text(request.query().unwrap_or_default()),
        ["host"] => Value::Text(&request.authority),
        ["scheme"] => Value::Text(exchange.client.scheme.as_str()),
        ["method"] => Value::Text(request.method.as_str()),
        ["id"] => Value::Text(&exchange.id),
        ["protocol"] => Value::Text(match request.version {
            gateward_http::Version::Http10 => "HTTP/1.0",
            gateward_http::Version::Http11 => "HTTP/1.1",
            gateward_http::Version::Http2 => "HTTP/2",
        }),
        ["time"] => Value::Int((exchange.started_at_ms as i64).saturating_mul(1_000_000)),
        ["referer"] => Value::Bytes(request.headers.get("referer")?),
        ["useragent"] => Value::Bytes(request.headers.get("user-agent")?),
        ["headers", name] => Value::Bytes(request.headers.get(*name)?),
        ["size"] => match request.framing {
            gateward_http::BodyFraming::Length(length) => Value::Int(length as i64),
            _ => Value::Int(exchange.body.as_ref().map_or(0, Vec::len) as i64),
        },
        _ => return None,
    })
}

fn response<'a>(exchange: &'a Exchange, path: &[&str]) -> Option<Value<'a>> {
    let response = &exchange.response;
    Some(match path {
        ["code"] => Value::Int(i64::from(response.status)),
        ["headers", name] => Value::Bytes(response.headers.get(*name)?),
        ["trailers", name] => Value::Bytes(response.trailers.get(*name)?),
        ["grpc_status"] => Value::Int(i64::from(response.grpc_status?)),
        _ => return None,
    })
}

fn source<'a>(exchange: &'a Exchange, path: &[&str]) -> Option<Value<'a>> {
    let client = &exchange.client;
    match path {
        ["address"] => Some(Value::Owned(SocketAddr::new(client.ip, client.peer.port()).to_string())),
        ["port"] => Some(Value::Int(i64::from(client.peer.port()))),
        _ => None,
    }
}

fn connection<'a>(exchange: &'a Exchange, path: &[&str]) -> Option<Value<'a>> {
    let tls = exchange.client.tls.as_deref();
    let certificate = tls.and_then(|tls| tls.verified());
    Some(match path {
        ["mtls"] => Value::Bool(certificate.is_some()),
        ["tls_version"] => Value::Text(tls?.version),
        ["requested_server_name"] => Value::Text(tls?.sni.as_deref()?),
        ["subject_peer_certificate"] => Value::Text(&certificate?.subject),
        ["sha256_peer_certificate_digest"] => Value::Text(&certificate?.fingerprint),
        _ => return None,
    })
}

fn route(exchange: &Exchange) -> Option<&str> {
    exchange.route.as_ref().and_then(|route| route.name.as_deref())
}

fn service(exchange: &Exchange) -> Option<&str> {
    exchange.service.as_ref().and_then(|service| service.name.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(exchange: &Exchange, path: &str, expected: Option<&[u8]>) {
        let parts: Vec<_> = path.split('.').collect();
        let mut out = Vec::new();
        let found = find(exchange, Stage::ResponseHead, &parts, &mut out);
        assert_eq!(found.then_some(out.as_slice()), expected, "{path}");
    }

    #[test]
    fn properties_have_envoys_names_and_types() {
        let mut exchange = Exchange::new();
        exchange.request.target = "/a?b=c".to_owned();
        exchange.request.headers.add("X-A", "1");
        exchange.started_at_ms = 1;
        exchange.response.status = 204;
        exchange.client.port = 8000;
        check(&exchange, "request.path", Some(b"/a?b=c"));
        check(&exchange, "request.url_path", Some(b"/a"));
        check(&exchange, "request.query", Some(b"b=c"));
        check(&exchange, "request.headers.x-a", Some(b"1"));
        check(&exchange, "request.headers.x-b", None);
        check(&exchange, "request.time", Some(&1_000_000_i64.to_le_bytes()));
        check(&exchange, "response.code", Some(&204_i64.to_le_bytes()));
        check(&exchange, "destination.port", Some(&8000_i64.to_le_bytes()));
        check(&exchange, "connection.mtls", Some(&[0]));
        check(&exchange, "connection.tls_version", None);
        check(&exchange, "source.address", Some(b"0.0.0.0:0"));
        check(&exchange, "nothing", None);
    }
}
