//! HTTP/2 from clients that break its rules or abuse it, frame by frame over the wire: the stream's or the
//! connection's own error, a count by reason, and a gateway that goes on serving others.

use gateward_e2e::{Metrics, one_route, with_service_fields};
use gateward_testkit::frames::{END_HEADERS, END_STREAM, PREFACE, block, get, kind};
use gateward_testkit::{Backend, Frame, FrameClient, Gateway, Next, eventually, http, pause};
use std::time::{Duration, Instant};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;
/// Of DATA.
const PADDED: u8 = 8;
/// RFC 9218 section 7.1.
const PRIORITY_UPDATE: u8 = 0x10;

fn start() -> (Gateway, Backend) {
    let backend = Backend::echo();
    (Gateway::start(&one_route(&backend.url())), backend)
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    Metrics::scrape(gateway).sum("gateward_refusals_total", &[&format!("reason=\"{reason}\"")])
}

/// The gateway still serves, over both protocols.
#[track_caller]
fn check_alive(gateway: &Gateway) {
    assert_eq!(http(gateway.proxy(), "GET /alive", &[], b"").status, 200);
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &get("/alive"), true);
    assert_eq!(client.response(1).0, 200);
}

/// Fields, the status they get, and the reason it is counted under.
type Case<'a> = (&'a [(&'a str, &'a str)], u16, &'a str);

/// Each request on a connection of its own gets this status, or its stream a reset (0).
#[track_caller]
fn check_refused(cases: &[Case<'_>]) {
    let (gateway, backend) = start();
    let mut malformed = 0.0;
    for (fields, status, reason) in cases {
        let mut client = FrameClient::connect(gateway.proxy());
        client.request(1, fields, true);
        let ended = client.until(|frame| (frame.stream == 1 && frame.ends_stream()) || frame.kind == kind::GOAWAY);
        let last = &ended[ended.len() - 1];
        if *status == 0 {
            assert_ne!(last.kind, kind::HEADERS, "{fields:?}: {last:?}");
            assert_ne!(last.code(), 0, "{fields:?}: {last:?}");
            malformed += 1.0;
            // Of the stream, or of the connection where already the table of fields does not take it.
            let counted = || refused(&gateway, "http2_malformed") + refused(&gateway, "http2_protocol");
            eventually(Duration::from_secs(5), || counted() == malformed);
        } else {
            let mut again = FrameClient::connect(gateway.proxy());
            again.request(1, fields, true);
            assert_eq!(again.response(1).0, *status, "{fields:?}");
            again.request(3, &get("/next"), true);
            assert_eq!(again.response(3).0, 200, "the connection goes on after {fields:?}");
            assert!(refused(&gateway, reason) >= 1.0, "{reason} is counted");
        }
    }
    let paths: Vec<_> = backend.requests().into_iter().map(|request| request.target).collect();
    assert!(paths.iter().all(|path| path == "/next"), "{paths:?}");
    gateway.stop();
}

/// Sends `bytes` after the preface and expects GOAWAY with this code.
#[track_caller]
fn check_cut(gateway: &Gateway, bytes: &[u8], code: u32) {
    let mut client = FrameClient::connect(gateway.proxy());
    for piece in bytes.chunks(64 * 1024) {
        if !client.try_send(piece) {
            break;
        }
    }
    assert_eq!(client.goaway(), code);
}

fn repeated(frame: &Frame, count: usize) -> Vec<u8> {
    frame.bytes().repeat(count)
}

fn with<'a>(mut fields: Vec<(&'a str, &'a str)>, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    fields.extend(more);
    fields
}

#[test]
fn pseudo_fields_come_first_once_and_are_known() {
    let twice = with(get("/"), &[(":path", "/b")]);
    let late = [(":method", "GET"), (":scheme", "http"), ("x", "y"), (":authority", "a.b"), (":path", "/")];
    let unknown = with(get("/"), &[(":colour", "red")]);
    let response = with(get("/"), &[(":status", "200")]);
    let protocol = with(get("/"), &[(":protocol", "websocket")]);
    check_refused(&[
        (&twice, 0, ""),
        (&late, 0, ""),
        (&unknown, 0, ""),
        (&response, 0, ""),
        (&protocol, 0, ""),
        (&get("/")[1..], 0, ""),
        (&get("/")[..3], 0, ""),
        (&[(":method", "GET"), (":authority", "a.b"), (":path", "/")], 0, ""),
    ]);
}

#[test]
fn paths_and_authorities_are_those_of_http1() {
    check_refused(&[
        (&get("a"), 0, ""),
        (&get(""), 0, ""),
        (&get("*"), 400, "bad_target"),
        (&get("/a\\b"), 400, "bad_target"),
        (&with(get("/"), &[("host", "c.d")]), 400, "bad_host"),
        (&with(get("/"), &[("host", "a.b"), ("host", "a.b")]), 400, "repeated_host"),
        (&[(":method", "GET"), (":scheme", "http"), (":path", "/")], 400, "missing_host"),
        (&[(":method", "GET"), (":scheme", "http"), (":authority", "u@a.b"), (":path", "/")], 400, "bad_host"),
        (&[(":method", "CONNECT"), (":authority", "a.b:80")], 405, "method_refused"),
    ]);
}

#[test]
fn fields_are_well_formed_and_not_about_the_connection() {
    let bad = |name, value| with(get("/"), &[(name, value)]);
    check_refused(&[
        (&bad("X-Upper", "a"), 0, ""),
        (&bad("x y", "a"), 0, ""),
        (&bad("", "a"), 0, ""),
        (&bad("x", "a\r\nb: c"), 0, ""),
        (&bad("x", "a\0"), 0, ""),
        (&bad("x", " a"), 400, "field_value"),
        (&bad("x", "a\t"), 400, "field_value"),
        (&bad("connection", "close"), 0, ""),
        (&bad("transfer-encoding", "chunked"), 0, ""),
        (&bad("upgrade", "h2c"), 0, ""),
        (&bad("keep-alive", "1"), 0, ""),
        (&bad("proxy-connection", "x"), 0, ""),
        (&bad("te", "gzip"), 0, ""),
        (&bad("expect", "200-maybe"), 417, "unknown_expectation"),
        (&with(get("/"), &[("authorization", "a"), ("authorization", "b")]), 400, "repeated_field"),
    ]);
}

#[test]
fn the_content_length_is_the_sum_of_the_data() {
    let (gateway, backend) = start();
    for (length, data) in [("5", "four"), ("3", "four"), ("0", "x")] {
        let mut client = FrameClient::connect(gateway.proxy());
        client.request(1, &with(get("/"), &[("content-length", length)]), false);
        client.data(1, data.as_bytes(), true);
        let frames = client.until(|frame| frame.stream == 1 && frame.kind == kind::RST_STREAM);
        assert_eq!(frames[frames.len() - 1].code(), PROTOCOL_ERROR, "{length} {data}");
    }
    eventually(Duration::from_secs(5), || refused(&gateway, "http2_malformed") == 3.0);
    for (length, ends) in [("x", true), ("-1", true), ("1,1", true), ("5", true)] {
        let mut client = FrameClient::connect(gateway.proxy());
        client.request(1, &with(get("/"), &[("content-length", length)]), ends);
        let frames = client.until(|frame| frame.stream == 1 && frame.ends_stream());
        let last = &frames[frames.len() - 1];
        assert!(last.kind == kind::RST_STREAM || backend.request_count() == 0, "{length}: {last:?}");
    }
    assert!(backend.requests().iter().all(|request| request.body != b"four"), "{:?}", backend.requests());
    check_alive(&gateway);
}

#[test]
fn heads_are_bounded_in_bytes_fields_and_frames() {
    let (gateway, backend) = start();
    let long = "v".repeat(33 * 1024);
    let fields = with(get("/"), &[("x", &long)]);
    let mut client = FrameClient::connect(gateway.proxy());
    // 431 whether the head is refused by its size or by ours.
    let whole = block(&fields);
    let (first, rest) = whole.split_at(16_000);
    client.send(&Frame::new(kind::HEADERS, END_STREAM, 1, first));
    let pieces: Vec<_> = rest.chunks(16_000).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let flags = if index + 1 == pieces.len() { END_HEADERS } else { 0 };
        client.send(&Frame::new(kind::CONTINUATION, flags, 1, *piece));
    }
    let frames = client.until(|frame| frame.stream == 1 && frame.kind == kind::HEADERS);
    assert!(!frames.is_empty());
    let many: Vec<_> = get("/").into_iter().chain(std::iter::repeat_n(("x", "y"), 300)).collect();
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &many, true);
    assert_eq!(client.response(1).0, 431);
    assert_eq!(refused(&gateway, "too_many_fields"), 1.0);
    // A small block that unfolds: one long entry of the table, again and again.
    let mut bomb = block(&get("/"));
    bomb.extend([0x40, 1, b'a', 127, 0x81, 0x1d]);
    bomb.extend([b'v'; 3840]);
    bomb.extend([0xbe; 12_000]);
    let mut client = FrameClient::silent(gateway.proxy());
    client.send_bytes(PREFACE);
    client.send(&Frame::new(kind::SETTINGS, 0, 0, []));
    client.send(&Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, 1, bomb));
    let frames = client.until(|frame| frame.kind == kind::GOAWAY || frame.ends_stream());
    let last = &frames[frames.len() - 1];
    assert_eq!((last.kind, last.code()), (kind::GOAWAY, ENHANCE_YOUR_CALM), "{last:?}");
    eventually(Duration::from_secs(5), || refused(&gateway, "http2_calm_down") == 1.0);
    // One that unfolds to somewhat more than is allowed costs its stream only.
    let mut client = FrameClient::connect(gateway.proxy());
    let mut somewhat = block(&get("/"));
    somewhat.extend(block(&[("x", "y")]).repeat(1_300));
    client.send(&Frame::new(kind::HEADERS, END_HEADERS, 1, somewhat));
    assert_eq!(client.response(1).0, 431);
    eventually(Duration::from_secs(5), || refused(&gateway, "http2_header_list") == 1.0);
    client.request(3, &get(&format!("/{}", "a".repeat(9_000))), true);
    assert_eq!(client.response(3).0, 414, "the connection goes on");
    assert_eq!(backend.request_count(), 0);
    check_alive(&gateway);
}

#[test]
fn continuations_do_not_go_on_for_ever() {
    let (gateway, _backend) = start();
    let mut flood = Frame::new(kind::HEADERS, END_STREAM, 1, block(&get("/"))).bytes();
    flood.extend(repeated(&Frame::new(kind::CONTINUATION, 0, 1, []), 10_000));
    check_cut(&gateway, &flood, ENHANCE_YOUR_CALM);
    let mut flood = Frame::new(kind::HEADERS, END_STREAM, 1, block(&get("/"))).bytes();
    let field = block(&[("x", &"y".repeat(16_000))]);
    flood.extend(repeated(&Frame::new(kind::CONTINUATION, 0, 1, field), 64));
    check_cut(&gateway, &flood, ENHANCE_YOUR_CALM);
    // Anything else in between is an error.
    let mut mixed = Frame::new(kind::HEADERS, END_STREAM, 1, block(&get("/"))).bytes();
    mixed.extend(Frame::new(kind::PING, 0, 0, [0; 8]).bytes());
    check_cut(&gateway, &mixed, PROTOCOL_ERROR);
    eventually(Duration::from_secs(5), || {
        (refused(&gateway, "http2_calm_down"), refused(&gateway, "http2_protocol")) == (2.0, 1.0)
    });
    check_alive(&gateway);
}

#[test]
fn frames_that_mean_nothing_run_out() {
    let (gateway, _backend) = start();
    for (frame, reason) in [
        (Frame::new(kind::PING, 0, 0, [7; 8]), "http2_ping_flood"),
        (Frame::new(kind::SETTINGS, 0, 0, []), "http2_settings_flood"),
        (Frame::new(kind::PRIORITY, 0, 1, [0, 0, 0, 3, 1]), "http2_priority_flood"),
        (Frame::new(kind::WINDOW_UPDATE, 0, 0, [0, 0, 0, 1]), "http2_window_update_flood"),
        (Frame::new(kind::PING, 1, 0, [7; 8]), "http2_ping_flood"),
        (Frame::new(PRIORITY_UPDATE, 0, 0, [0, 0, 0, 1, b'u']), "http2_unknown_frame_flood"),
        (Frame::new(0xbe, 0, 0, []), "http2_unknown_frame_flood"),
    ] {
        let before = refused(&gateway, reason);
        check_cut(&gateway, &repeated(&frame, 20_000), ENHANCE_YOUR_CALM);
        eventually(Duration::from_secs(5), || refused(&gateway, reason) == before + 1.0);
    }
    // DATA that says nothing: empty, or only padding.
    for (flags, payload, count) in [(0, &[][..], 1.0), (PADDED, &[0], 2.0), (PADDED, &[7, 0, 0, 0, 0, 0, 0, 0], 3.0)] {
        let mut empty = Frame::new(kind::HEADERS, END_HEADERS, 1, block(&get("/"))).bytes();
        empty.extend(repeated(&Frame::new(kind::DATA, flags, 1, payload), 20_000));
        check_cut(&gateway, &empty, ENHANCE_YOUR_CALM);
        eventually(Duration::from_secs(5), || refused(&gateway, "http2_empty_data_flood") == count);
    }
    // Goodbyes, while a request keeps the connection.
    let mut goodbyes = Frame::new(kind::HEADERS, END_HEADERS, 1, block(&get("/"))).bytes();
    goodbyes.extend(repeated(&Frame::new(kind::GOAWAY, 0, 0, [0; 8]), 20_000));
    check_cut(&gateway, &goodbyes, ENHANCE_YOUR_CALM);
    assert_eq!(refused(&gateway, "http2_goaway_flood"), 1.0);
    check_alive(&gateway);
}

/// A back end that holds every request until its connection ends.
fn holding() -> Backend {
    Backend::raw(|_, stream| {
        let mut stream = stream;
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    })
}

#[test]
fn requests_given_up_at_once_run_out_and_leave_nothing_behind() {
    let backend = holding();
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = FrameClient::connect(gateway.proxy());
    for index in 0..20_000_u32 {
        let stream = 2 * index + 1;
        let mut pair = Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, stream, block(&get("/"))).bytes();
        pair.extend(Frame::new(kind::RST_STREAM, 0, stream, CANCEL.to_be_bytes()).bytes());
        if !client.try_send(&pair) {
            break;
        }
    }
    assert_eq!(client.goaway(), ENHANCE_YOUR_CALM);
    // By the budget, or as given up before they were even looked at.
    let floods = || refused(&gateway, "http2_reset_flood") + refused(&gateway, "http2_calm_down");
    eventually(Duration::from_secs(5), || floods() == 1.0);
    eventually(Duration::from_secs(10), || backend.open_connections() == 0);
    assert!(backend.connections() <= 1000, "{} connections to the back end", backend.connections());
    check_in_flight(&gateway);
}

#[track_caller]
fn check_in_flight(gateway: &Gateway) {
    eventually(Duration::from_secs(10), || Metrics::scrape(gateway).sum("gateward_requests_in_flight", &[]) == 0.0);
}

#[test]
fn resets_that_the_client_provokes_count_like_its_own() {
    let backend = holding();
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = FrameClient::connect(gateway.proxy());
    for index in 0..20_000_u32 {
        let stream = 2 * index + 1;
        let mut pair = Frame::new(kind::HEADERS, END_HEADERS, stream, block(&get("/"))).bytes();
        // A window of no width: the gateway has to reset the stream.
        pair.extend(Frame::new(kind::WINDOW_UPDATE, 0, stream, [0; 4]).bytes());
        if !client.try_send(&pair) {
            break;
        }
    }
    let code = client.goaway();
    assert!(code == ENHANCE_YOUR_CALM || code == PROTOCOL_ERROR, "{code}");
    eventually(Duration::from_secs(10), || backend.open_connections() == 0);
    check_in_flight(&gateway);
}

#[test]
fn work_goes_on_for_no_more_streams_than_are_allowed() {
    let backend = holding();
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = FrameClient::connect(gateway.proxy());
    for index in 0..200_u32 {
        client.request(2 * index + 1, &get("/"), true);
    }
    let frames = client.until(|frame| frame.kind == kind::RST_STREAM);
    assert_eq!(frames[frames.len() - 1].code(), REFUSED_STREAM);
    eventually(Duration::from_secs(5), || refused(&gateway, "http2_streams") == 72.0);
    let settings = frames.iter().find(|frame| frame.kind == kind::SETTINGS && frame.flags == 0);
    let entries: Vec<_> =
        settings.map(|frame| frame.payload.chunks(6).map(<[u8]>::to_vec).collect()).unwrap_or_default();
    assert!(entries.contains(&vec![0, 3, 0, 0, 0, 128]), "the limit is announced: {entries:?}");
    pause(Duration::from_millis(300));
    assert!(backend.connections() <= 128, "{}", backend.connections());
}

#[test]
fn a_request_given_up_ends_its_work() {
    let backend = holding();
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &get("/"), true);
    eventually(Duration::from_secs(5), || backend.open_connections() == 1);
    client.send(&Frame::new(kind::RST_STREAM, 0, 1, CANCEL.to_be_bytes()));
    eventually(Duration::from_secs(5), || backend.open_connections() == 0);
    check_in_flight(&gateway);
    eventually(Duration::from_secs(5), || {
        Metrics::scrape(&gateway).sum("gateward_requests_total", &["outcome=\"client_gone\""]) == 1.0
    });
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let body = "x".repeat(4 << 20);
    let backend = Backend::fixed(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let gateway = Gateway::builder(&one_route(&backend.url())).env("GATEWARD_SEND_TIMEOUT", "1").start();
    // Windows that do not open.
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &get("/"), true);
    let began = Instant::now();
    client.until(|frame| frame.stream == 1 && frame.kind == kind::RST_STREAM);
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    // A socket that is not read.
    let mut client = FrameClient::connect(gateway.proxy());
    client.send(&Frame::new(kind::SETTINGS, 0, 0, [0, 4, 0x7f, 0xff, 0xff, 0xff]));
    client.send(&Frame::new(kind::WINDOW_UPDATE, 0, 0, [0x7f, 0, 0, 0]));
    for stream in 0..8 {
        client.request(2 * stream + 1, &get("/"), true);
    }
    eventually(Duration::from_secs(15), || {
        Metrics::scrape(&gateway).sum("gateward_connections_active", &[]) == 0.0
            || refused(&gateway, "http2_slow_read") >= 1.0
    });
    check_in_flight(&gateway);
}

#[test]
fn windows_and_frames_have_their_sizes() {
    let (gateway, _backend) = start();
    let wide = Frame::new(kind::WINDOW_UPDATE, 0, 0, [0x7f, 0xff, 0xff, 0xff]);
    check_cut(&gateway, &repeated(&wide, 2), FLOW_CONTROL_ERROR);
    // RFC 9113 section 6.7 has a code of its own for this; the connection ends either way.
    check_cut(&gateway, &Frame::new(kind::PING, 0, 0, [0; 7]).bytes(), PROTOCOL_ERROR);
    check_cut(&gateway, &Frame::new(kind::SETTINGS, 0, 0, [0, 4, 0x80, 0, 0, 0]).bytes(), PROTOCOL_ERROR);
    check_cut(&gateway, &Frame::new(kind::DATA, 0, 1, [0; 17_000]).bytes(), FRAME_SIZE_ERROR);
    check_cut(&gateway, &Frame::new(kind::PUSH_PROMISE, END_HEADERS, 1, [0, 0, 0, 2, 0x82]).bytes(), PROTOCOL_ERROR);
    check_cut(
        &gateway,
        &Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, 2, block(&get("/"))).bytes(),
        PROTOCOL_ERROR,
    );
    // RFC 9113 section 4.3 has a code of its own for this too.
    check_cut(&gateway, &Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, 1, [0x80]).bytes(), PROTOCOL_ERROR);
    let mut after_end = Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, 1, block(&get("/"))).bytes();
    after_end.extend(Frame::new(kind::DATA, 0, 1, [0; 4]).bytes());
    let mut client = FrameClient::connect(gateway.proxy());
    client.send_bytes(&after_end);
    let frames = client.until(|frame| frame.kind == kind::GOAWAY || frame.kind == kind::RST_STREAM);
    let code = frames[frames.len() - 1].code();
    assert!([STREAM_CLOSED, PROTOCOL_ERROR].contains(&code), "{code}");
    check_alive(&gateway);
}

#[test]
fn a_preface_in_pieces_is_one_and_a_wrong_one_is_none() {
    let (gateway, _backend) = start();
    let mut client = FrameClient::silent(gateway.proxy());
    for byte in PREFACE {
        client.send_bytes(&[*byte]);
        pause(Duration::from_millis(2));
    }
    client.send(&Frame::new(kind::SETTINGS, 0, 0, []));
    client.request(1, &get("/"), true);
    assert_eq!(client.response(1).0, 200);
    let mut client = FrameClient::silent(gateway.proxy());
    client.send_bytes(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    while client.read().is_some() {}
    eventually(Duration::from_secs(5), || refused(&gateway, "http2_handshake") == 1.0);
    // Behind a request of HTTP/1.1 it is nothing.
    let mut client = FrameClient::silent(gateway.proxy());
    client.send_bytes(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send_bytes(PREFACE);
    while client.read().is_some() {}
    assert_eq!(refused(&gateway, "http2_handshake"), 1.0);
    check_alive(&gateway);
}

#[test]
fn an_idle_connection_ends_with_goaway_although_it_pings() {
    let backend = Backend::echo();
    let gateway = Gateway::builder(&one_route(&backend.url())).env("GATEWARD_KEEPALIVE_TIMEOUT", "1").start();
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &get("/"), true);
    assert_eq!(client.response(1).0, 200);
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        client.send(&Frame::new(kind::PING, 0, 0, [1; 8]));
        pause(Duration::from_millis(20));
        match client.read_within(Duration::from_millis(100)) {
            Some(Some(frame)) if frame.kind == kind::GOAWAY => break assert_eq!(frame.code(), 0),
            Some(None) => panic!("no GOAWAY"),
            _ => assert!(Instant::now() < until, "the connection goes on"),
        }
    }
}

#[test]
fn many_small_frames_of_a_healthy_upload_are_no_abuse() {
    let (gateway, backend) = start();
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &with(get("/up"), &[("x", "y")]), false);
    for _ in 0..20_000 {
        client.data(1, b"abc", false);
    }
    client.data(1, b"", true);
    assert_eq!(client.response(1).0, 200);
    assert_eq!(backend.requests()[0].body.len(), 60_000);
}

#[test]
fn a_response_that_does_not_wait_for_its_request_ends_the_stream_only() {
    let backend = Backend::scripted(|_, stream| {
        use std::io::Write;
        let _ = stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        Next::Close
    });
    let gateway = Gateway::start(&with_service_fields(&backend.url(), "retries: 0"));
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &with(get("/"), &[("content-length", "5")]), false);
    client.data(1, b"ab", false);
    client.data(1, b"cde", true);
    assert_eq!(client.response(1).0, 413);
    client.request(3, &get("/nothing"), true);
    assert_eq!(client.response(3).0, 413);
}
