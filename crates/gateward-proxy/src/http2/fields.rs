//! Heads between the lines of HTTP/1.1, which the exchange writes, and the fields of HTTP/2.

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};

/// Length of the head at the start of `bytes`, its empty line included.
pub(super) fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The response whose head is written in `head`.
pub(super) fn response(head: &[u8]) -> Option<Response<()>> {
    let (line, rest) = split_line(head)?;
    let status = line.get(9..12)?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_bytes(status).ok()?;
    *response.headers_mut() = fields(rest, |_, _| false)?;
    Some(response)
}

/// The request whose head is written in `head`. The target becomes `:path` and Host `:authority`.
pub(super) fn request(head: &[u8], scheme: &Scheme) -> Option<Request<()>> {
    let (line, rest) = split_line(head)?;
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target) = (parts.next()?, parts.next()?);
    let mut authority = None;
    let mut headers = fields(rest, |name, value| {
        let host = name.eq_ignore_ascii_case(b"host");
        if host {
            authority = Authority::try_from(value).ok();
        }
        host
    })?;
    if headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        // Without it a server takes the gateway for a proxy that loses trailers.
        headers.entry(TE).or_insert(HeaderValue::from_static("trailers"));
    }
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(scheme.clone());
    uri.authority = Some(authority?);
    uri.path_and_query =
        Some(PathAndQuery::try_from(target).or_else(|_| PathAndQuery::try_from(escaped(target))).ok()?);
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method).ok()?;
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    *request.headers_mut() = headers;
    Some(request)
}

/// A target with everything escaped that is no character of a URI (RFC 3986 appendix A), which HTTP/1.1 may let pass in
/// queries.
fn escaped(target: &[u8]) -> Vec<u8> {
    const MARKS: &[u8] = b"-._~:/?[]@!$&'()*+,;=%";
    let mut out = Vec::with_capacity(target.len() + 16);
    for byte in target {
        if byte.is_ascii_alphanumeric() || MARKS.contains(byte) {
            out.push(*byte);
        } else {
            out.push(b'%');
            out.extend([byte >> 4, byte & 15].map(|digit| b"0123456789ABCDEF"[usize::from(digit)]));
        }
    }
    out
}

/// Trailers, or any other fields.
pub(super) fn map(headers: &gateward_http::Headers) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter() {
        append(&mut map, name.as_bytes(), value)?;
    }
    Some(map)
}

/// Names and values in order.
pub(crate) fn message_fields(map: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    map.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// Every line but those about the connection, which HTTP/2 has not (RFC 9113 section 8.2.2), and those `taken`.
fn fields(mut lines: &[u8], mut taken: impl FnMut(&[u8], &[u8]) -> bool) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(16);
    while let Some((line, rest)) = split_line(lines) {
        lines = rest;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if !is_of_connection(name) && !taken(name, value) {
            append(&mut map, name, value)?;
        }
    }
    Some(map)
}

fn append(map: &mut HeaderMap, name: &[u8], value: &[u8]) -> Option<()> {
    let (name, value) = (HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    map.try_append(name, value).ok()?;
    Some(())
}

fn is_of_connection(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 5] = [b"connection", b"transfer-encoding", b"upgrade", b"keep-alive", b"proxy-connection"];
    NAMES.iter().any(|of_connection| name.eq_ignore_ascii_case(of_connection))
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|window| window == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_head_becomes_fields() {
        let head = b"HTTP/1.1 404 Not Found\r\nContent-Type: a/b\r\nSet-Cookie: a\r\nset-cookie: b\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(head_length(head), Some(head.len()));
        let response = response(head).unwrap();
        assert_eq!(response.status(), 404);
        let fields: Vec<_> = message_fields(response.headers()).collect();
        assert_eq!(fields, [(&b"content-type"[..], &b"a/b"[..]), (b"set-cookie", b"a"), (b"set-cookie", b"b")]);
    }

    #[test]
    fn a_request_line_becomes_pseudo_fields() {
        let head = b"POST /a%20b?c HTTP/1.1\r\nHost: x.y:81\r\nX-Empty:\r\nTE: trailers\r\nConnection: TE\r\n\r\n";
        let request = request(head, &Scheme::HTTP).unwrap();
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri().to_string(), "http://x.y:81/a%20b?c");
        let fields: Vec<_> = message_fields(request.headers()).collect();
        assert_eq!(fields, [(&b"x-empty"[..], &b""[..]), (b"te", b"trailers")]);
    }

    #[test]
    fn a_target_with_odd_characters_is_escaped() {
        let head = b"GET /a?b=\"<c>\" HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(request(head, &Scheme::HTTPS).unwrap().uri().to_string(), "https://a/a?b=%22%3Cc%3E%22");
    }

    #[test]
    fn what_is_no_head_is_nothing() {
        for head in [&b""[..], b"HTTP/1.1 2", b"HTTP/1.1 abc x\r\n\r\n", b"HTTP/1.1 200 OK\r\nx\r\n\r\n"] {
            assert!(response(head).is_none(), "{head:?}");
        }
        for head in [&b"GET\r\n\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"GET a b HTTP/1.1\r\nHost: a b\r\n\r\n"] {
            assert!(request(head, &Scheme::HTTP).is_none(), "{head:?}");
        }
    }
}
