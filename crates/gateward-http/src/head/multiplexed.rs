//! Heads as HTTP/2 carries them (RFC 9113 section 8): pseudo-fields apart, names in lower case, no lines. The same
//! rules on targets, authorities, singletons and lengths as for HTTP/1.1, so that whatever a message came in on,
//! what follows reads one kind of head.
//!
//! The HTTP/2 layer below has decompressed the fields and knows whether a body follows; what it may already have
//! refused is refused here again, because here is where the rules stand.

use super::fields::content_length;
use super::request::Notes;
use super::target::{Target, authority, split};
use super::{BodyFraming, HeadError, HeadLimits, RequestHead, ResponseHead, Version};
use crate::chunked::may_be_trailer;
use crate::headers::{Headers, Name, hash_name, is_valid_value};
use crate::{ChunkedError, Method};

const CONTENT_LENGTH: Name<'static> = Name::new("content-length");

/// Fields of a trailer section; as for chunked bodies.
const TRAILERS_MAX: usize = 64;
/// Bytes of a trailer section; as for chunked bodies.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// The pseudo-fields of a request and whether it ended with its head.
#[derive(Debug, Clone, Copy)]
pub struct MessageParts<'a> {
    /// `:method`.
    pub method: &'a str,
    /// `:authority`, when there was one.
    pub authority: Option<&'a str>,
    /// `:path`; empty for CONNECT.
    pub path: &'a str,
    /// No body follows.
    pub ended: bool,
}

/// Fill `head` from the parts and `fields` (name and value, in order) of a request.
///
/// A body without `Content-Length` has the framing [`BodyFraming::UntilClose`]: until its stream ends. Cookies on
/// several lines become one (RFC 9113 section 8.2.3), and `Host` is there whichever of the two names was sent.
///
/// # Errors
/// The first rule the head breaks. Only this request is affected, not its connection.
pub fn read_request_head<'a>(
    parts: MessageParts<'_>,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<(), HeadError> {
    head.headers.clear();
    head.version = Version::Http2;
    head.method = Method::parse(parts.method).ok_or(HeadError::RequestLine)?;
    if head.method.as_str().len() > super::METHOD_BYTES_MAX {
        return Err(HeadError::MethodTooLong);
    }
    if parts.path.len() > limits.target_bytes {
        return Err(HeadError::TargetTooLong);
    }
    let mut notes = Notes::default();
    let mut budget = Budget::new(limits, parts.path.len() + parts.authority.map_or(0, str::len));
    let mut cookies = Vec::new();
    if let Some(authority) = parts.authority {
        head.headers.push(b"host", authority.as_bytes());
    }
    for (name, value) in fields {
        budget.take(name, value)?;
        let hash = check_field(name, value)?;
        notes.read(hash, name, value)?;
        match name {
            b"host" if parts.authority.is_some() => {}
            b"cookie" => cookies.push(value),
            b"te" if value != b"trailers" => return Err(HeadError::FieldValue),
            _ => {
                head.headers.push(name, value);
            }
        }
    }
    if !cookies.is_empty() {
        head.headers.push(b"cookie", &cookies.join(&b"; "[..]));
    }
    settle_request(parts, &notes, head)
}

fn settle_request(parts: MessageParts<'_>, notes: &Notes<'_>, head: &mut RequestHead) -> Result<(), HeadError> {
    head.target.clear();
    head.authority.clear();
    let host = match (parts.authority, notes.host) {
        // Two names for where the request goes must not be two places (RFC 9113 section 8.3.1).
        (Some(name), Some(host)) if !name.as_bytes().eq_ignore_ascii_case(host) => return Err(HeadError::BadHost),
        (Some(name), _) => authority(name.as_bytes()),
        (None, Some(host)) => authority(host),
        (None, None) => return Err(HeadError::MissingHost),
    };
    head.authority.push_str(host.ok_or(HeadError::BadHost)?);
    if head.method != Method::Connect {
        match split(&head.method, parts.path)? {
            Target::Origin(target) => head.target.push_str(target),
            Target::Absolute(..) | Target::Authority(_) => return Err(HeadError::BadTarget),
        }
    }
    head.framing = match notes.length.map(content_length).transpose()? {
        Some(length) if parts.ended && length > 0 => return Err(HeadError::BadContentLength),
        Some(length) => BodyFraming::Length(length),
        None if parts.ended => BodyFraming::None,
        None => BodyFraming::UntilClose,
    };
    if notes.expect.is_some_and(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(HeadError::UnknownExpectation);
    }
    head.expects_continue = notes.expect.is_some() && !parts.ended;
    head.keep_alive = true;
    head.upgrade = false;
    Ok(())
}

/// Fill `head` from the status and `fields` of a response to a request with `method`; `ended`: no body follows.
///
/// A body without `Content-Length` has the framing [`BodyFraming::UntilClose`]: until its stream ends.
///
/// # Errors
/// The first rule the head breaks.
pub fn read_response_head<'a>(
    status: u16,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ended: bool,
    method: &Method,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<(), HeadError> {
    head.headers.clear();
    head.version = Version::Http2;
    head.status = status;
    head.reason.clear();
    head.keep_alive = true;
    let mut budget = Budget::new(limits, 0);
    let mut length = None;
    for (name, value) in fields {
        budget.take(name, value)?;
        check_field(name, value)?;
        if name == b"content-length" {
            let value = content_length(value)?;
            if length.replace(value).is_some_and(|before| before != value) {
                return Err(HeadError::RepeatedContentLength);
            }
            continue;
        }
        head.headers.push(name, value);
    }
    let bodiless = *method == Method::Head || matches!(status, 100..200 | 204 | 304);
    if let Some(length) = length.filter(|_| !matches!(status, 100..200 | 204)) {
        head.headers.set(CONTENT_LENGTH.as_str(), length.to_string());
    }
    head.framing = match length {
        _ if bodiless => BodyFraming::None,
        Some(length) if ended && length > 0 => return Err(HeadError::BadContentLength),
        _ if ended => BodyFraming::None,
        Some(length) => BodyFraming::Length(length),
        None => BodyFraming::UntilClose,
    };
    Ok(())
}

/// Append to `trailers` those of `fields` that may be passed on.
///
/// # Errors
/// Too many or too long trailers, or a malformed one.
pub fn read_trailers<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    trailers: &mut Headers,
) -> Result<(), ChunkedError> {
    let (mut count, mut bytes) = (0, 0);
    for (name, value) in fields {
        count += 1;
        bytes += name.len() + value.len() + 4;
        if count > TRAILERS_MAX || bytes > TRAILER_BYTES_MAX {
            return Err(ChunkedError::TrailersTooLarge);
        }
        check_field(name, value).map_err(|_| ChunkedError::Trailer)?;
        if str::from_utf8(name).is_ok_and(may_be_trailer) {
            trailers.push(name, value);
        }
    }
    Ok(())
}

/// The rules on one field (RFC 9113 sections 8.2.1 and 8.2.2); the hash of its name.
fn check_field(name: &[u8], value: &[u8]) -> Result<u32, HeadError> {
    let token = |byte: &u8| crate::method::is_token_byte(*byte) && !byte.is_ascii_uppercase();
    if name.is_empty() || !name.iter().all(token) {
        return Err(HeadError::FieldName);
    }
    if matches!(name, b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade") {
        return Err(HeadError::ConnectionField);
    }
    let padded = matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
    if padded || !is_valid_value(value) {
        return Err(HeadError::FieldValue);
    }
    Ok(hash_name(name))
}

/// What of a head's bounds is left.
struct Budget {
    fields: usize,
    bytes: usize,
}

impl Budget {
    fn new(limits: &HeadLimits, spent: usize) -> Self {
        Self { fields: limits.fields, bytes: limits.head_bytes.saturating_sub(spent) }
    }

    /// A field takes as much as its line in HTTP/1.1 would.
    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        self.fields = self.fields.checked_sub(1).ok_or(HeadError::TooManyFields)?;
        let line = name.len() + value.len() + ": \r\n".len();
        self.bytes = self.bytes.checked_sub(line).ok_or(HeadError::HeadTooLarge)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: MessageParts<'static> = MessageParts { method: "GET", authority: Some("a.b"), path: "/", ended: true };

    fn request(parts: MessageParts<'_>, fields: &[(&str, &str)]) -> Result<RequestHead, HeadError> {
        let mut head = RequestHead::default();
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        read_request_head(parts, fields, &HeadLimits::default(), &mut head).map(|()| head)
    }

    fn refused(parts: MessageParts<'_>, fields: &[(&str, &str)], error: HeadError) {
        assert_eq!(request(parts, fields).map(|_| ()), Err(error), "{parts:?} {fields:?}");
    }

    #[test]
    fn a_request_reads_like_one_of_http1() {
        let head = request(
            MessageParts { method: "POST", path: "/p?q", ended: false, ..GET },
            &[("cookie", "a=1"), ("x-a", "1"), ("cookie", "b=2"), ("te", "trailers"), ("content-length", "5")],
        )
        .unwrap();
        assert_eq!((head.method, head.version), (Method::Post, Version::Http2));
        assert_eq!((&*head.target, &*head.authority, head.framing), ("/p?q", "a.b", BodyFraming::Length(5)));
        assert_eq!(head.headers.get_str("host"), Some("a.b"));
        assert_eq!(head.headers.get_str("cookie"), Some("a=1; b=2"));
        assert_eq!(head.headers.count("cookie"), 1);
        let streamed = request(MessageParts { ended: false, ..GET }, &[]).unwrap();
        assert_eq!(streamed.framing, BodyFraming::UntilClose);
        assert_eq!(request(GET, &[]).unwrap().framing, BodyFraming::None);
    }

    #[test]
    fn the_place_has_one_name() {
        refused(GET, &[("host", "c.d")], HeadError::BadHost);
        refused(MessageParts { authority: None, ..GET }, &[], HeadError::MissingHost);
        refused(MessageParts { authority: Some("user@a.b"), ..GET }, &[], HeadError::BadHost);
        refused(MessageParts { authority: Some("a.b/c"), ..GET }, &[], HeadError::BadHost);
        refused(GET, &[("host", "a.b"), ("host", "a.b")], HeadError::RepeatedHost);
        let same = request(GET, &[("host", "A.b")]).unwrap();
        assert_eq!((same.authority.as_str(), same.headers.count("host")), ("a.b", 1));
        let host = request(MessageParts { authority: None, ..GET }, &[("host", "c.d:80")]).unwrap();
        assert_eq!(host.authority, "c.d:80");
    }

    #[test]
    fn paths_are_in_origin_form() {
        for path in ["", "a", "*", "http://a.b/", "/a b", "/a#b", "/a\\b", "/\u{e4}"] {
            refused(MessageParts { path, ..GET }, &[], HeadError::BadTarget);
        }
        assert_eq!(request(MessageParts { method: "OPTIONS", path: "*", ..GET }, &[]).unwrap().target, "*");
        refused(MessageParts { path: &"/".repeat(9000), ..GET }, &[], HeadError::TargetTooLong);
    }

    #[test]
    fn fields_of_a_connection_and_malformed_ones_are_refused() {
        for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
            refused(GET, &[(name, "x")], HeadError::ConnectionField);
        }
        for name in ["X-A", "", "a:b", ":path", "a b", "\u{e4}"] {
            refused(GET, &[(name, "x")], HeadError::FieldName);
        }
        for value in [" a", "a ", "\ta", "a\r\nb", "a\0b", "\u{1}"] {
            refused(GET, &[("x", value)], HeadError::FieldValue);
        }
        refused(GET, &[("te", "gzip")], HeadError::FieldValue);
        refused(GET, &[("authorization", "a"), ("authorization", "b")], HeadError::RepeatedField);
        refused(GET, &[("expect", "200-ok")], HeadError::UnknownExpectation);
    }

    #[test]
    fn lengths_are_numbers_and_true() {
        let posted = MessageParts { method: "POST", ended: false, ..GET };
        for length in ["", "+1", "0x1", "1,1", "18446744073709551616"] {
            refused(posted, &[("content-length", length)], HeadError::BadContentLength);
        }
        refused(posted, &[("content-length", "1"), ("content-length", "1")], HeadError::RepeatedContentLength);
        refused(GET, &[("content-length", "1")], HeadError::BadContentLength);
    }

    #[test]
    fn heads_are_bounded() {
        let long = "v".repeat(32 * 1024);
        refused(GET, &[("x", &long)], HeadError::HeadTooLarge);
        refused(GET, &vec![("x", "y"); 201], HeadError::TooManyFields);
    }

    fn response(status: u16, fields: &[(&str, &str)], ended: bool, method: &Method) -> Result<ResponseHead, HeadError> {
        let mut head = ResponseHead::default();
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        read_response_head(status, fields, ended, method, &HeadLimits::default(), &mut head).map(|()| head)
    }

    #[test]
    fn a_response_body_ends_with_its_stream_or_there_is_none() {
        let length = [("content-length", "7")];
        for (status, fields, ended, method, framing) in [
            (200, &length[..], false, Method::Get, BodyFraming::Length(7)),
            (200, &[], false, Method::Get, BodyFraming::UntilClose),
            (200, &[], true, Method::Get, BodyFraming::None),
            (200, &length, true, Method::Head, BodyFraming::None),
            (304, &length, true, Method::Get, BodyFraming::None),
            (204, &[], true, Method::Get, BodyFraming::None),
        ] {
            assert_eq!(response(status, fields, ended, &method).unwrap().framing, framing, "{status} {method:?}");
        }
        assert!(response(200, &length, true, &Method::Get).is_err());
        assert!(response(200, &[("content-length", "1"), ("content-length", "2")], false, &Method::Get).is_err());
        assert!(response(200, &[("transfer-encoding", "chunked")], false, &Method::Get).is_err());
    }

    #[test]
    fn trailers_are_sifted_and_bounded() {
        let mut trailers = Headers::default();
        let fields = [("grpc-status", "0"), ("host", "x"), ("content-length", "1"), ("x-a", "b")];
        let bytes = |fields: &[(&'static str, &'static str)]| {
            fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect::<Vec<_>>()
        };
        read_trailers(bytes(&fields).into_iter(), &mut trailers).unwrap();
        assert_eq!(trailers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["grpc-status", "x-a"]);
        let many = vec![("x", "y"); 65];
        assert_eq!(read_trailers(bytes(&many).into_iter(), &mut trailers), Err(ChunkedError::TrailersTooLarge));
        assert_eq!(read_trailers(bytes(&[("X", "y")]).into_iter(), &mut trailers), Err(ChunkedError::Trailer));
    }
}
