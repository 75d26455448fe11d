//! A request as handlers see it.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, IF_MATCH, IF_NONE_MATCH, TRANSFER_ENCODING,
};

/// A request of the control side.
#[derive(Debug, Clone)]
pub struct ApiRequest {
    /// The method.
    pub method: Method,
    /// Segments of the path, percent-decoded, empty ones left out.
    pub path: Vec<String>,
    /// Fields of the query, percent-decoded.
    pub query: Vec<(String, String)>,
    /// The fields of its head.
    pub headers: HeaderMap,
    /// Content.
    pub body: Bytes,
}

impl ApiRequest {
    /// A request with this target; fields and content to be added.
    #[must_use]
    pub fn new(method: Method, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.split('/').filter(|segment| !segment.is_empty()).map(|segment| decode(segment, false));
        Self { method, path: path.collect(), query: form_fields(query), headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// The head of a request, without its content.
    pub(crate) fn of_head<B>(request: &hyper::Request<B>) -> Self {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        // Handlers know GET; HEAD is the same without content.
        let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
        ApiRequest { headers: request.headers().clone(), ..ApiRequest::new(method, target) }
    }

    /// A field of the query.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Whether a field of the query is set and does not say no.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.field(name).is_some_and(|value| !matches!(value, "0" | "false" | "off"))
    }

    /// A field of its head, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    /// `Content-Type`, or empty.
    #[must_use]
    pub fn content_type(&self) -> &str {
        self.header(CONTENT_TYPE.as_str()).unwrap_or_default()
    }

    /// Whether the client wants JSON.
    #[must_use]
    pub fn wants_json(&self) -> bool {
        self.header(ACCEPT.as_str()).is_some_and(|accept| accept.contains("json"))
    }

    /// `If-Match` (RFC 9110, 13.1.1).
    #[must_use]
    pub fn if_match(&self) -> Option<&str> {
        self.header(IF_MATCH.as_str())
    }

    /// `If-None-Match` (RFC 9110, 13.1.2).
    #[must_use]
    pub fn if_none_match(&self) -> Option<&str> {
        self.header(IF_NONE_MATCH.as_str())
    }

    /// The token of `Authorization: Bearer`.
    #[must_use]
    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header(AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// Whether its head announces content (RFC 9112, 6.3).
    #[must_use]
    pub fn has_content(&self) -> bool {
        let length = self.header(CONTENT_LENGTH.as_str());
        self.headers.contains_key(TRANSFER_ENCODING)
            || self.headers.contains_key(CONTENT_LENGTH) && length.is_none_or(|length| length != "0")
    }

    /// The host that the client thinks it speaks to, without the port.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        let host = self.header(HOST.as_str())?;
        let is_port = |port: &str| port.bytes().all(|octet| octet.is_ascii_digit());
        Some(host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(host, _)| host))
    }
}

/// Fields of `application/x-www-form-urlencoded`, decoded.
#[must_use]
pub fn form_fields(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| (decode(name, true), decode(value, true))).collect()
}

/// Percent-decoded; what is not valid stays as it is. `form`: a plus is a space.
fn decode(text: &str, form: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |offset: usize| bytes.get(at + offset).and_then(|digit| char::from(*digit).to_digit(16));
        match (bytes[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', _, _) if form => out.push(b' '),
            (byte, _, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn targets_are_taken_apart() {
        let request = ApiRequest::new(Method::GET, "//services/a%2Fb%zz/?size=2&tags=a+b&check_hash");
        assert_eq!(request.path, ["services", "a/b%zz"]);
        assert_eq!((request.field("size"), request.field("tags"), request.field("x")), (Some("2"), Some("a b"), None));
        assert!(request.flag("check_hash") && !request.flag("x"));
        assert!(!ApiRequest::new(Method::GET, "/?a=0").flag("a"));
    }

    #[test]
    fn heads_are_read() {
        let mut request = ApiRequest::new(Method::GET, "/");
        for (host, name) in [("a:80", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("a", "a")] {
            request.headers.insert(HOST, HeaderValue::from_static(host));
            assert_eq!(request.host(), Some(name));
        }
        request.headers.insert(AUTHORIZATION, HeaderValue::from_static("bearer  x "));
        assert_eq!(request.bearer(), Some("x"));
        assert!(!request.has_content());
        for (length, has_content) in [("0", false), ("1", true), ("00", true), ("\u{e9}", true)] {
            request.headers.insert(CONTENT_LENGTH, HeaderValue::from_bytes(length.as_bytes()).unwrap());
            assert_eq!(request.has_content(), has_content, "{length}");
        }
        request.headers.remove(CONTENT_LENGTH);
        request.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        assert!(request.has_content());
    }
}
