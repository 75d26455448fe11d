//! The properties that fuzzing checks, one function per target: the fuzz targets, the replay of the committed
//! corpus and the property tests call the same code. Each function panics when a property does not hold.
//!
//! Not part of the API: hidden from the documentation, and free to change.

use crate::chunked::{ChunkedDecoder, ChunkedError, write_chunk_head, write_last_chunk};
use crate::head::{
    BodyFraming, HeadError, HeadLimits, Parsed, RequestHead, ResponseHead, Version, parse_request_head,
    parse_request_thoroughly, parse_response_head, parse_response_thoroughly, worth_parsing,
};
use crate::headers::{is_valid_name, is_valid_value};
use crate::uri::{escape_path, normalize_path, query_args, write_query_arg};
use crate::websocket::FrameFollower;
use crate::{Headers, Method, hop};

/// Prefixes of an input that are tried; longer inputs are sampled.
const PREFIXES_MAX: usize = 256;

/// Heads: no prefix of a head says something else than the head, what is accepted can be written and read
/// again, and what is forwarded holds nothing hop-by-hop.
pub fn request_head(data: &[u8]) {
    let limits = HeadLimits { head_bytes: 2048, target_bytes: 512, fields: 20 };
    let mut head = RequestHead::default();
    let outcome = parse_request_head(data, &limits, &mut head);
    let mut thorough = RequestHead::default();
    assert_eq!(outcome, parse_request_thoroughly(data, &limits, &mut thorough), "the ways differ");
    if let Ok(Parsed::Complete(_)) = outcome {
        assert_eq!(format!("{head:?}"), format!("{thorough:?}"), "the ways differ");
        assert_eq!(written(&head.headers), written(&thorough.headers), "the ways differ");
    }
    check_prefixes(data, &limits, outcome, |prefix| parse_request_head(prefix, &limits, &mut RequestHead::default()));
    if let Ok(Parsed::Complete(_)) = outcome {
        check_request(&head, &limits);
    }
    for method in [Method::Get, Method::Head, Method::Connect] {
        let mut head = ResponseHead::default();
        let outcome = parse_response_head(data, &limits, &method, &mut head);
        let mut thorough = ResponseHead::default();
        assert_eq!(outcome, parse_response_thoroughly(data, &limits, &method, &mut thorough), "the ways differ");
        if let Ok(Parsed::Complete(_)) = outcome {
            assert_eq!(format!("{head:?}"), format!("{thorough:?}"), "the ways differ");
            assert_eq!(written(&head.headers), written(&thorough.headers), "the ways differ");
        }
        check_prefixes(data, &limits, outcome, |prefix| {
            parse_response_head(prefix, &limits, &method, &mut ResponseHead::default())
        });
        if let Ok(Parsed::Complete(_)) = outcome {
            check_response(&head, &method);
        }
    }
}

fn written(headers: &Headers) -> Vec<u8> {
    let mut out = Vec::new();
    headers.write_to(&mut out);
    out
}

/// Chunked bodies: the same data, trailers and end whatever the pieces, and what was decoded survives encoding.
pub fn chunked(data: &[u8]) {
    let whole = decode_pieces(data, || usize::MAX);
    let mut seed = data.iter().fold(0x9e37_79b9_u32, |seed, byte| seed.rotate_left(5) ^ u32::from(*byte));
    let ragged = decode_pieces(data, || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (seed >> 27) as usize
    });
    assert_eq!(whole, ragged, "ragged pieces");
    assert_eq!(whole, decode_pieces(data, || 1), "single bytes");
    let Ok(body) = whole else { return };
    if !body.done {
        assert_eq!(body.consumed, data.len(), "input held back before the end");
        return;
    }
    let mut encoded = Vec::new();
    for chunk in body.data.chunks(7) {
        write_chunk_head(&mut encoded, chunk.len());
        encoded.extend_from_slice(chunk);
        encoded.extend_from_slice(b"\r\n");
    }
    let mut trailers = Headers::default();
    for (name, value) in &body.trailers {
        assert!(trailers.add(name, value), "invalid trailer {name}");
    }
    write_last_chunk(&mut encoded, &trailers);
    let again = decode_pieces(&encoded, || usize::MAX).expect("what was encoded decodes");
    assert!(again.done && again.consumed == encoded.len());
    assert_eq!((&again.data, &again.trailers), (&body.data, &body.trailers));
}

/// Paths: normalising is idempotent, its result is what an upstream will see again, and queries survive being
/// rebuilt.
pub fn uri(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for merge_slashes in [false, true] {
        let mut path = String::new();
        if normalize_path(&text, merge_slashes, &mut path).is_err() {
            continue;
        }
        assert!(path == "*" || path.starts_with('/'), "{path:?}");
        assert!(!path.bytes().any(|byte| byte < 0x20 || byte == 0x7f || byte == b'\\'), "{path:?}");
        assert!(!path.split('/').any(|segment| segment == "." || segment == ".."), "{path:?}");
        assert!(!merge_slashes || !path.contains("//"), "{path:?}");
        let mut again = String::new();
        normalize_path(&path, merge_slashes, &mut again).expect("a normal path is well-formed");
        assert_eq!(path, again, "idempotent");
        let mut escaped = String::new();
        escape_path(&path, &mut escaped);
        assert!(escaped.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\#?".contains(&byte)), "{escaped:?}");
        normalize_path(&escaped, merge_slashes, &mut again).expect("an escaped path is well-formed");
        assert_eq!(path, again, "the upstream's view");
    }
    let mut escaped = String::new();
    escape_path(&text, &mut escaped);
    assert!(escaped.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\#?".contains(&byte)), "{escaped:?}");
    let mut rebuilt = String::new();
    for (name, value) in query_args(&text) {
        write_query_arg(&mut rebuilt, &name, value.as_deref());
    }
    assert!(query_args(&text).eq(query_args(&rebuilt)), "{rebuilt:?}");
}

/// WebSocket frames: they end where a plain reading of the whole finds their ends, whatever the pieces.
pub fn websocket(data: &[u8]) {
    let (ends, closing) = frame_ends(data);
    for piece_len in [data.len().max(1), 1, 3, 17] {
        let mut follower = FrameFollower::default();
        let (mut at, mut found) = (0, Vec::new());
        for mut piece in data.chunks(piece_len) {
            while !piece.is_empty() {
                let count = follower.advance_to_boundary(piece);
                assert!(count > 0, "no progress");
                at += count;
                piece = &piece[count..];
                if follower.is_boundary() {
                    found.push(at);
                }
                assert!(follower.is_boundary() || piece.is_empty(), "stopped within a frame");
            }
        }
        assert_eq!((&found, follower.is_closing()), (&ends, closing), "pieces of {piece_len}");
    }
}

/// Where the frames in `data` end (RFC 6455 section 5.2), and whether the head of a Close frame is among them.
fn frame_ends(data: &[u8]) -> (Vec<usize>, bool) {
    let (mut ends, mut closing, mut start) = (Vec::new(), false, 0);
    while let [first, second, rest @ ..] = &data[start..] {
        let length_bytes = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_bytes = if second & 0x80 == 0 { 0 } else { 4 };
        if rest.len() < length_bytes + mask_bytes {
            break;
        }
        closing |= first & 0x0F == 8;
        let number = rest[..length_bytes].iter().fold(0_u128, |number, byte| number * 256 + u128::from(*byte));
        let payload = if length_bytes == 0 { u128::from(second & 0x7F) } else { number };
        let end = (start + 2 + length_bytes + mask_bytes) as u128 + payload;
        match usize::try_from(end) {
            Ok(end) if end <= data.len() => start = end,
            _ => break,
        }
        ends.push(start);
    }
    (ends, closing)
}

/// Compare what `parse` says of prefixes of `data` with what was said of the whole.
fn check_prefixes(
    data: &[u8],
    limits: &HeadLimits,
    whole: Result<Parsed, HeadError>,
    mut parse: impl FnMut(&[u8]) -> Result<Parsed, HeadError>,
) {
    if let Err(error) = whole {
        assert!([400, 414, 417, 431, 501, 505].contains(&error.status()), "{error:?}");
    }
    let step = data.len() / PREFIXES_MAX + 1;
    for len in (0..data.len()).step_by(step) {
        let early = parse(&data[..len]);
        match whole {
            Ok(Parsed::Complete(end)) if len >= end => assert_eq!(early, whole),
            Ok(_) => assert_eq!(early, Ok(Parsed::Partial), "prefix of {len}"),
            Err(_) => assert!(!matches!(early, Ok(Parsed::Complete(_))), "prefix of {len}"),
        }
    }
    if let Ok(Parsed::Complete(end)) = whole {
        assert!(end <= limits.head_bytes);
        assert!(worth_parsing(&data[..end], end - 1, limits), "the end must be noticed");
    }
}

fn check_request(head: &RequestHead, limits: &HeadLimits) {
    check_fields(&head.headers);
    let connect = head.method == Method::Connect;
    assert!(head.target.starts_with('/') || head.target == "*" || (connect && head.target.is_empty()));
    assert!(head.headers.count("Host") <= 1 && head.headers.count("Content-Length") <= 1);
    match head.framing {
        BodyFraming::Chunked => assert!(head.version == Version::Http11 && !head.headers.contains("Content-Length")),
        BodyFraming::Length(_) | BodyFraming::None => assert!(!head.headers.contains("Transfer-Encoding")),
        BodyFraming::UntilClose => panic!("a request's body never ends with the connection"),
    }
    let mut bytes = Vec::new();
    for part in [head.method.as_str(), " ", if connect { &head.authority } else { &head.target }, " "] {
        bytes.extend_from_slice(part.as_bytes());
    }
    write_rest(&mut bytes, head.version, "", &head.headers);
    let mut again = RequestHead::default();
    // Writing may lengthen fields by a space and an absolute-form target by a Host field.
    let roomy = HeadLimits { head_bytes: limits.head_bytes * 2, target_bytes: limits.target_bytes + 1, fields: 21 };
    assert_eq!(parse_request_head(&bytes, &roomy, &mut again), Ok(Parsed::Complete(bytes.len())));
    assert_eq!(
        (&again.method, &again.target, &again.authority, again.framing, again.keep_alive, again.upgrade),
        (&head.method, &head.target, &head.authority, head.framing, head.keep_alive, head.upgrade)
    );
    assert!(again.headers.iter().eq(head.headers.iter()));
    check_stripping(&head.headers);
}

fn check_response(head: &ResponseHead, method: &Method) {
    check_fields(&head.headers);
    assert!(head.status >= 100);
    assert!(head.framing != BodyFraming::UntilClose || !head.keep_alive);
    assert!(head.headers.count("Content-Length") <= 1);
    let mut bytes = Vec::new();
    write_rest(&mut bytes, head.version, &format!(" {} {}", head.status, head.reason), &head.headers);
    let mut again = ResponseHead::default();
    let parsed = parse_response_head(&bytes, &HeadLimits::default(), method, &mut again);
    assert_eq!(parsed, Ok(Parsed::Complete(bytes.len())));
    assert_eq!((again.status, again.framing), (head.status, head.framing));
    assert!(again.headers.iter().eq(head.headers.iter()));
}

fn write_rest(bytes: &mut Vec<u8>, version: Version, after: &str, headers: &Headers) {
    bytes.extend_from_slice(if version == Version::Http10 { b"HTTP/1.0" } else { b"HTTP/1.1" });
    bytes.extend_from_slice(after.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    headers.write_to(bytes);
    bytes.extend_from_slice(b"\r\n");
}

fn check_fields(headers: &Headers) {
    for (name, value) in headers.iter() {
        assert!(is_valid_name(name.as_bytes()), "{name:?}");
        assert!(is_valid_value(value) && value.trim_ascii() == value, "{value:?}");
    }
}

fn check_stripping(headers: &Headers) {
    let mut stripped = headers.clone();
    hop::strip_request(&mut stripped);
    hop::clear_identity_headers(&mut stripped);
    for name in ["Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Trailer", "Expect", "X-Consumer-ID"] {
        assert!(!stripped.contains(name), "{name} left");
    }
    for name in ["Host", "Content-Length", "Authorization", "Cookie", "X-Forwarded-For"] {
        assert_eq!(stripped.count(name), headers.count(name), "{name} taken");
    }
    let once = stripped.clone();
    hop::strip_request(&mut stripped);
    assert!(stripped.iter().eq(once.iter()));
}

/// What a body came to.
#[derive(Debug, PartialEq)]
struct Body {
    data: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
    consumed: usize,
    done: bool,
}

/// Decode `input` in pieces of the sizes `next_len` gives, as a caller with such reads would.
fn decode_pieces(input: &[u8], mut next_len: impl FnMut() -> usize) -> Result<Body, ChunkedError> {
    let mut decoder = ChunkedDecoder::default();
    let mut body = Body { data: Vec::new(), trailers: Vec::new(), consumed: 0, done: false };
    while !body.done && body.consumed < input.len() {
        let piece_len = next_len().min(input.len() - body.consumed);
        let piece_end = body.consumed + piece_len;
        while !body.done && body.consumed < piece_end {
            let piece = &input[body.consumed..piece_end];
            let step = decoder.decode(piece)?;
            assert!(step.consumed > 0 && step.data.end <= step.consumed, "no progress");
            body.data.extend_from_slice(&piece[step.data]);
            body.consumed += step.consumed;
            body.done = step.done;
        }
    }
    body.trailers = decoder.trailers().iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    Ok(body)
}
