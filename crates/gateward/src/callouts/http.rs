//! A callout over HTTP: one request, one answer, content and trailers both ways.

use super::Callouts;
use super::body::Body;
use super::connections::{Answer, REFUSALS, SendFailure};
use crate::egress::chain;
use gateward_proxy::Callee;
use gateward_wasm::callout::{Fields, HttpCall, HttpReply};
use gateward_wasm::plugin::Destination;
use http_body_util::{BodyExt, Limited};
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, TRAILER};
use hyper::{Method, Request, Uri, Version};

/// Fields of one connection (RFC 9110, section 7.6.1), and those that say where content ends, which the gateway writes itself.
const OWN: [&[u8]; 9] = [
    b"host",
    b"connection",
    b"content-length",
    b"transfer-encoding",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"upgrade",
];

/// Ask, and read the answer with at most `most` bytes of content.
///
/// # Errors
/// A text saying why there is no answer.
pub(super) async fn ask(
    callouts: &Callouts,
    destination: &Destination,
    call: &HttpCall,
    most: usize,
) -> Result<HttpReply, String> {
    let (mut fresh, mut refusals) = (false, 0);
    loop {
        let (mut callee, exchange) = callouts.connect(destination, false, fresh).await?;
        let (reused, request) = (exchange.reused, request(call, &callee, exchange.is_http2())?);
        match exchange.send(request).await {
            Ok(answer) => {
                callee.answered(answer.response.status().as_u16());
                return reply(answer, most).await;
            }
            // A pooled connection that its peer had closed says nothing.
            Err(SendFailure::Unsent) if reused => fresh = true,
            Err(SendFailure::Refused) if refusals < REFUSALS => (fresh, refusals) = (true, refusals + 1),
            Err(SendFailure::Broken(_)) if reused && is_idempotent(call) => fresh = true,
            Err(failure) => {
                callee.broke();
                return Err(format!("{}: {failure}", callee.address));
            }
        }
    }
}

fn pseudo<'a>(call: &'a HttpCall, wanted: &[u8]) -> &'a [u8] {
    let found = call.headers.iter().find(|(name, _)| name == wanted);
    found.map(|(_, value)| value.as_slice()).unwrap_or_default()
}

fn is_idempotent(call: &HttpCall) -> bool {
    let method = Method::from_bytes(pseudo(call, b":method"));
    method.is_ok_and(|method| method.is_idempotent())
}

fn request(call: &HttpCall, callee: &Callee, http2: bool) -> Result<Request<Body>, String> {
    let unusable = |what: &str, error: &dyn std::fmt::Display| format!("its {what} cannot be sent: {error}");
    let method = Method::from_bytes(pseudo(call, b":method")).map_err(|error| unusable(":method", &error))?;
    if method == Method::CONNECT {
        return Err("callouts make no tunnels: CONNECT cannot be sent".to_owned());
    }
    let authority =
        HeaderValue::from_bytes(pseudo(call, b":authority")).map_err(|error| unusable(":authority", &error))?;
    let path = pseudo(call, b":path");
    let mut trailers = fields(&call.trailers).map_err(|error| unusable("trailers", &error))?;
    let mut headers = fields(&call.headers).map_err(|error| unusable("headers", &error))?;
    let mut uri = Uri::builder().path_and_query(path);
    if http2 {
        let scheme = if callee.tls.is_some() { "https" } else { "http" };
        uri = uri.scheme(scheme).authority(authority.as_bytes());
    } else {
        headers.insert(HOST, authority);
        let names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        match HeaderValue::from_str(&names.join(", ")) {
            Ok(names) if !trailers.is_empty() => drop(headers.insert(TRAILER, names)),
            Ok(_) => {}
            Err(_) => trailers.clear(),
        }
    }
    let mut request = Request::new(Body::once(call.body.clone(), trailers));
    *request.method_mut() = method;
    *request.uri_mut() = uri.build().map_err(|error| unusable(":path or :authority", &error))?;
    *request.version_mut() = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    *request.headers_mut() = headers;
    Ok(request)
}

/// Fields that may be sent, without those of the gateway's own.
pub(super) fn fields(fields: &Fields) -> Result<HeaderMap, hyper::http::Error> {
    let mut map = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with(b":") && !OWN.contains(&name.as_slice())) {
        map.try_append(HeaderName::from_bytes(name)?, HeaderValue::from_bytes(value)?)?;
    }
    Ok(map)
}

/// The fields of a map as filters see them.
pub(super) fn shown(map: &HeaderMap) -> Fields {
    map.iter().map(|(name, value)| (name.as_str().into(), value.as_bytes().to_vec())).collect()
}

async fn reply(mut answer: Answer, most: usize) -> Result<HttpReply, String> {
    let mut headers = vec![(b":status".to_vec(), answer.response.status().as_str().into())];
    headers.extend(shown(answer.response.headers()));
    let body = Limited::new(answer.response.body_mut(), most).collect().await.map_err(|error| chain(&*error))?;
    let trailers = body.trailers().map(shown).unwrap_or_default();
    answer.finish();
    Ok(HttpReply { headers, body: body.to_bytes().to_vec(), trailers, ..HttpReply::default() })
}
