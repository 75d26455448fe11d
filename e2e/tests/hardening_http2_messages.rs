//! Messages of HTTP/2 that are not quite messages (RFC 9113 section 8), and limits of time and size, over the wire. What
//! belongs to frames and connections is in `hardening_http2.rs`.

use gateward_e2e::{Metrics, one_route};
use gateward_testkit::frames::{END_HEADERS, END_STREAM, block, get, kind};
use gateward_testkit::{Backend, Frame, FrameClient, Gateway, GatewayBuilder, eventually, pause};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
const PROTOCOL_ERROR: u32 = 1;

fn start(adjust: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> (Gateway, Backend) {
    let backend = Backend::echo();
    (adjust(Gateway::builder(&one_route(&backend.url()))).start(), backend)
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    Metrics::scrape(gateway).sum("gateward_refusals_total", &[&format!("reason=\"{reason}\"")])
}

fn post<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = get("/");
    fields[0].1 = "POST";
    fields.extend(more);
    fields
}

/// A request with these fields is refused with PROTOCOL_ERROR and counted, and the back end hears nothing. Its stream ends;
/// or its connection, where already the table of fields does not take a name or value.
#[track_caller]
fn check_malformed(cases: &[Vec<(&str, &str)>]) {
    let (gateway, backend) = start(|builder| builder);
    let mut streams = 0.0;
    for (count, fields) in (1..).zip(cases) {
        let mut client = FrameClient::connect(gateway.proxy());
        client.request(1, fields, true);
        let frames = client.until(|frame| frame.stream == 1 || frame.kind == kind::GOAWAY);
        let last = &frames[frames.len() - 1];
        assert!([kind::RST_STREAM, kind::GOAWAY].contains(&last.kind), "{fields:?}: {last:?}");
        assert_eq!(last.code(), PROTOCOL_ERROR, "{fields:?}: {last:?}");
        if last.kind == kind::RST_STREAM {
            client.request(3, &get("/next"), true);
            assert_eq!(client.response(3).0, 200, "the connection goes on after {fields:?}");
            streams += 1.0;
        }
        eventually(PATIENCE, || {
            let (streams_now, connections) =
                (refused(&gateway, "http2_malformed"), refused(&gateway, "http2_protocol"));
            streams_now == streams && streams_now + connections == f64::from(count)
        });
    }
    assert!(backend.requests().iter().all(|request| request.target == "/next"), "{:?}", backend.requests());
    gateway.stop();
}

/// RFC 9113 section 8.3: every pseudo-field of a request once, before the others, and none of a response's.
#[test]
fn each_pseudo_field_comes_once_and_first() {
    let mut cases = Vec::new();
    for (name, value) in get("/") {
        let twice: Vec<_> = get("/").into_iter().chain([(name, value)]).collect();
        let after: Vec<_> =
            get("/").into_iter().filter(|field| field.0 != name).chain([("x", "y"), (name, value)]).collect();
        cases.extend([twice, after]);
        let empty = get("/").into_iter().map(|field| if field.0 == name { (name, "") } else { field });
        if name == ":path" {
            cases.push(empty.collect());
        }
    }
    for missing in [":method", ":scheme", ":path"] {
        cases.push(get("/").into_iter().filter(|field| field.0 != missing).collect());
    }
    for unknown in [":status", ":Path", ":", ":version", ":protocol"] {
        cases.push(get("/").into_iter().chain([(unknown, "200")]).collect());
    }
    check_malformed(&cases);
}

/// RFC 9113 section 8.2: what a name and a value may hold, and fields about a connection.
#[test]
fn names_and_values_hold_what_they_may() {
    let names = ["Upper", "sPace", "a b", "a:b", "a\r", "a\n", "a\0", "a\x7f", "a\t", "a,b", "a(b", "\u{e4}", ""];
    let values = ["a\r", "a\n", "a\r\nb", "a\0", "\0", "a\x7fb", "a\x01b"];
    let of_connection = [
        ("connection", "x"),
        ("connection", "te"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, deflate"),
    ];
    let names = names.into_iter().map(|name| (name, "x"));
    let values = values.into_iter().map(|value| ("x", value));
    let cases: Vec<_> =
        names.chain(values).chain(of_connection).map(|field| get("/").into_iter().chain([field]).collect()).collect();
    check_malformed(&cases);
}

/// What looks odd and is right.
#[test]
fn what_is_right_is_served() {
    let (gateway, backend) = start(|builder| builder);
    let mut client = FrameClient::connect(gateway.proxy());
    let by_host = [(":method", "GET"), (":scheme", "http"), (":path", "/h"), ("host", "a.b")];
    let requests = [
        (by_host.to_vec(), "/h"),
        (get("/both").into_iter().chain([("host", "a.b")]).collect(), "/both"),
        (get("/te").into_iter().chain([("te", "trailers"), ("x-empty", "")]).collect(), "/te"),
        (get("/%2F/?q=:%20").into_iter().chain([("x!#$%&'*+-.^_`|~", "a\tb")]).collect(), "/%2F/?q=:%20"),
    ];
    for (index, (fields, target)) in requests.iter().enumerate() {
        let stream = 2 * index as u32 + 1;
        client.request(stream, fields, true);
        assert_eq!(client.response(stream).0, 200, "{fields:?}");
        let request = backend.requests().pop().expect("it came");
        assert_eq!((request.target.as_str(), request.header("x-forwarded-host")), (*target, Some("a.b")));
    }
    assert_eq!(Metrics::scrape(&gateway).sum("gateward_refusals_total", &[]), 0.0);
    // For the server as a whole, which no route is for.
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &[(":method", "OPTIONS"), (":scheme", "http"), (":authority", "a.b"), (":path", "*")], true);
    assert_eq!(client.response(1).0, 404);
    gateway.stop();
}

/// RFC 9113 section 8.1.1: the sum of DATA is the content's length, also over several frames and with trailers behind.
#[test]
fn data_adds_up_to_the_length() {
    let (gateway, backend) = start(|builder| builder);
    let mut faults = 0.0;
    for (length, pieces, trailers) in [
        ("10", &[&b"hello"[..], b"worl"][..], false),
        ("10", &[b"hello", b"worl"], true),
        ("9", &[b"hello", b"world"], false),
        ("9", &[b"hello", b"world"], true),
        ("0", &[b"x"], true),
        ("1", &[], true),
    ] {
        let mut client = FrameClient::connect(gateway.proxy());
        client.request(1, &post(&[("content-length", length)]), false);
        for (index, piece) in pieces.iter().enumerate() {
            client.data(1, piece, !trailers && index + 1 == pieces.len());
        }
        if trailers {
            client.send(&Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, 1, block(&[("x-sum", "1")])));
        }
        let frames = client.until(|frame| frame.stream == 1 && frame.ends_stream());
        let last = &frames[frames.len() - 1];
        assert_eq!((last.kind, last.code()), (kind::RST_STREAM, PROTOCOL_ERROR), "{length}: {last:?}");
        faults += 1.0;
        eventually(PATIENCE, || refused(&gateway, "http2_malformed") == faults);
        client.request(3, &get("/"), true);
        assert_eq!(client.response(3).0, 200, "the connection goes on");
    }
    // A length of 0 is whole at once.
    let whole = |request: &gateward_testkit::ReceivedRequest| request.method == "GET" || request.body.is_empty();
    assert!(backend.requests().iter().all(whole), "none was taken for whole: {:?}", backend.requests());
    gateway.stop();
}

/// RFC 9113 section 8.1: trailers end the stream and are fields like others. Pseudo-fields among them, which the protocol's
/// crate does not report, are not passed on.
#[test]
fn trailers_are_the_end() {
    let (gateway, backend) = start(|builder| builder);
    for (flags, fields) in [
        (END_HEADERS, &[("x", "y")][..]),
        (END_HEADERS | END_STREAM, &[("x", "y"), (":status", "200")]),
        (END_HEADERS | END_STREAM, &[("Upper", "y")]),
        (END_HEADERS | END_STREAM, &[("connection", "close")]),
    ] {
        // As for heads: of the stream, or of the connection where the table of fields does not take a name.
        let counted = || refused(&gateway, "http2_malformed") + refused(&gateway, "http2_protocol");
        let before = counted();
        let mut client = FrameClient::connect(gateway.proxy());
        client.request(1, &post(&[]), false);
        client.data(1, b"content", false);
        client.send(&Frame::new(kind::HEADERS, flags, 1, block(fields)));
        let refusal = |frame: &Frame| frame.kind == kind::GOAWAY || (frame.stream == 1 && frame.ends_stream());
        let frames = client.until(refusal);
        let last = &frames[frames.len() - 1];
        assert!([kind::RST_STREAM, kind::GOAWAY].contains(&last.kind), "{fields:?}: {last:?}");
        assert_eq!(last.code(), PROTOCOL_ERROR, "{fields:?}: {last:?}");
        eventually(PATIENCE, || counted() == before + 1.0);
    }
    assert_eq!(backend.request_count(), 0);
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &post(&[]), false);
    let fields = block(&[(":path", "/other"), ("x-sum", "1")]);
    client.send(&Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, 1, fields));
    client.until(|frame| frame.stream == 1 && frame.ends_stream());
    for request in backend.requests() {
        assert_eq!((request.target.as_str(), request.header("host").is_some()), ("/", true));
        assert!(request.trailers.iter().all(|(name, _)| name == "x-sum"), "{:?}", request.trailers);
    }
    gateway.stop();
}

#[test]
fn targets_and_contents_have_their_limits() {
    let (gateway, backend) = start(|builder| builder.env("GATEWARD_CLIENT_MAX_BODY_SIZE", "10"));
    let mut client = FrameClient::connect(gateway.proxy());
    let long = format!("/{}", "a".repeat(9 * 1024));
    client.request(1, &get(&long), true);
    assert_eq!(client.response(1).0, 414);
    client.request(3, &post(&[("content-length", "11")]), false);
    assert_eq!(client.response(3).0, 413);
    client.request(5, &post(&[]), false);
    client.data(5, b"hello", false);
    client.data(5, b"world!", false);
    assert_eq!(client.response(5).0, 413, "of unknown length");
    client.request(7, &post(&[]), false);
    client.data(7, b"helloworld", true);
    assert_eq!(client.response(7).0, 200, "the connection goes on");
    assert_eq!(backend.request_count(), 1);
    assert_eq!(refused(&gateway, "target_too_long"), 1.0);
    gateway.stop();
}

#[test]
fn a_client_that_waits_to_be_asked_is_asked() {
    let (gateway, backend) = start(|builder| builder);
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &post(&[("expect", "100-continue"), ("content-length", "2")]), false);
    let frames = client.until(|frame| frame.stream == 1);
    assert!(!frames[frames.len() - 1].ends_stream(), "an interim response: {frames:?}");
    client.data(1, b"ok", true);
    assert_eq!(client.response(1).0, 200);
    assert_eq!((backend.requests()[0].body.as_slice(), backend.requests()[0].header("expect")), (&b"ok"[..], None));
    gateway.stop();
}

/// The time for a connection's first request, for a head that comes bit by bit, and for a body.
#[test]
fn what_comes_too_slowly_is_given_up() {
    let (gateway, backend) = start(|builder| {
        builder
            .env("GATEWARD_KEEPALIVE_TIMEOUT", "1")
            .env("GATEWARD_CLIENT_HEADER_TIMEOUT", "1")
            .env("GATEWARD_CLIENT_BODY_TIMEOUT", "1")
            .env("GATEWARD_CLIENT_BODY_RATE", "1k")
    });
    // Half a preface.
    let mut client = FrameClient::silent(gateway.proxy());
    client.send_bytes(&gateward_testkit::frames::PREFACE[..20]);
    while client.read().is_some() {}
    // The head of a request, a byte at a time: no byte gives it more time.
    let mut client = FrameClient::connect(gateway.proxy());
    let head = Frame::new(kind::HEADERS, END_HEADERS, 1, block(&[("x", &"y".repeat(9_000))])).bytes();
    trickle(&mut client, &head);
    // A body.
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &post(&[]), false);
    let body = Frame::new(kind::DATA, 0, 1, *b"x").bytes().repeat(1_000);
    let began = Instant::now();
    let mut ended = None;
    for piece in body.chunks(10) {
        client.send_bytes(piece);
        match client.read_within(Duration::from_millis(20)) {
            Some(Some(frame)) if frame.stream == 1 => {
                ended = Some(frame);
                break;
            }
            Some(None) => break,
            _ => assert!(began.elapsed() < PATIENCE, "the body goes on"),
        }
    }
    let frame = ended.expect("an answer, or a reset");
    assert!(frame.kind == kind::HEADERS || frame.kind == kind::RST_STREAM, "{frame:?}");
    eventually(PATIENCE, || refused(&gateway, "body_timeout") == 1.0);
    drop(client);
    eventually(PATIENCE, || Metrics::scrape(&gateway).sum("gateward_connections_active", &[]) == 0.0);
    assert_eq!(backend.requests().len(), 0, "no body was whole");
    gateway.stop();
}

/// Sends a byte every few milliseconds until the gateway ends the connection.
#[track_caller]
fn trickle(client: &mut FrameClient, bytes: &[u8]) {
    let began = Instant::now();
    for byte in bytes {
        client.send_bytes(&[*byte]);
        if let Some(None) = client.read_within(Duration::from_millis(5)) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "the connection goes on");
    }
    pause(Duration::from_millis(1));
    panic!("all of it was taken");
}
