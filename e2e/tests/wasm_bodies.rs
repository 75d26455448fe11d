//! Bodies, trailers and pauses of Wasm filters in a running gateway: pieces as they come, heads that wait, streams that are
//! broken off.

use gateward_e2e::Metrics;
use gateward_e2e::grpc::{GrpcServer, client as grpc_client, runtime};
use gateward_testkit::frames::{Frame, FrameClient, get as fields_of, kind};
use gateward_testkit::{Backend, Gateway, GatewayBuilder, Next, RawClient, TempDir, eventually, http, pause};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;

const PATIENCE: Duration = Duration::from_secs(20);

/// Filters of one test.
struct Folder(TempDir);

impl Folder {
    /// A folder with one filter, made of these functions.
    fn with(name: &str, functions: &str) -> Self {
        let folder = Self(TempDir::new().expect("a folder can be made"));
        folder.put(name, functions);
        folder
    }

    fn put(&self, name: &str, functions: &str) {
        let wasm = wat::parse_str(module(functions)).unwrap_or_else(|error| panic!("{error}"));
        std::fs::write(self.0.path().join(format!("{name}.wasm")), wasm).expect("filters can be written");
    }

    fn meta(&self, name: &str, settings: &str) {
        let text = format!("{{\"gateward\": {{{settings}}}}}");
        std::fs::write(self.0.path().join(format!("{name}.meta.json")), text).expect("settings can be written");
    }

    fn gateway(&self, config: &str) -> GatewayBuilder {
        Gateway::builder(config).arg("--wasm=on").arg(format!("--wasm-filters-path={}", self.0.path().display()))
    }
}

/// Filters on everything that goes to `backend`.
fn config(backend: &Backend, filters: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- name: backend\n  url: {}\n  retries: 0\n  routes: [{{name: all, paths: [/]}}]\n\
         filter_chains:\n- {{name: chain, route: all, filters: [{filters}]}}\n",
        backend.url()
    )
}

/// What every filter here is made with. `$upper` writes a body in capitals; `$mark` sets a field `x-mark` of a map.
fn module(functions: &str) -> String {
    let mut pairs = vec![3, 0, 0, 0];
    let fields = [(":method", "GET"), (":path", "/"), (":authority", "a")];
    for length in fields.iter().flat_map(|(name, value)| [name.len() as u32, value.len() as u32]) {
        pairs.extend(length.to_le_bytes());
    }
    for text in fields.iter().flat_map(|(name, value)| [name, value]) {
        pairs.extend(text.bytes().chain([0]));
    }
    let escaped = pairs.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\{byte:02x}");
        text
    });
    let pairs_len = pairs.len();
    format!(
        r#"(module
        (import "env" "proxy_get_buffer_bytes" (func $read (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_buffer_bytes" (func $write (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_replace_header_map_value" (func $set (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_send_local_response"
            (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
        (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
        (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
        (import "env" "proxy_http_call"
            (func $http (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 40)
        (global $stream (mut i32) (i32.const 0))
        (data (i32.const 16) "x-markyes")
        (data (i32.const 64) "ask")
        (data (i32.const 128) "{escaped}")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 65536))
        (func $mark (param $map i32)
            (drop (call $set (local.get $map) (i32.const 16) (i32.const 6) (i32.const 22) (i32.const 3))))
        (func $answer (param $status i32)
            (drop (call $respond (local.get $status) (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 6)
                (i32.const 0) (i32.const 0) (i32.const -1))))
        (func $call (param $id i32)
            (global.set $stream (local.get $id))
            (if (call $http (i32.const 64) (i32.const 3) (i32.const 128) (i32.const {pairs_len}) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const 32)) (then unreachable)))
        (func $upper (param $buffer i32) (param $len i32)
            (local $at i32) (local $end i32)
            (if (i32.eqz (local.get $len)) (then (return)))
            (if (call $read (local.get $buffer) (i32.const 0) (local.get $len) (i32.const 0) (i32.const 4))
                (then unreachable))
            (local.set $at (i32.load (i32.const 0)))
            (local.set $end (i32.add (local.get $at) (i32.load (i32.const 4))))
            (loop $next
                (if (i32.and (i32.ge_u (i32.load8_u (local.get $at)) (i32.const 97))
                             (i32.le_u (i32.load8_u (local.get $at)) (i32.const 122)))
                    (then (i32.store8 (local.get $at) (i32.sub (i32.load8_u (local.get $at)) (i32.const 32)))))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
            (if (call $write (local.get $buffer) (i32.const 0) (local.get $len) (i32.load (i32.const 0))
                (i32.load (i32.const 4))) (then unreachable)))
        {functions})"#
    )
}

/// A callback with three parameters: context, number, end of stream.
fn callback(name: &str, body: &str) -> String {
    format!("(func (export \"proxy_on_{name}\") (param $id i32) (param $n i32) (param $end i32) (result i32) {body})\n")
}

/// Likewise for trailers.
fn trailers(name: &str, body: &str) -> String {
    format!("(func (export \"proxy_on_{name}\") (param $id i32) (param $n i32) (result i32) {body})\n")
}

/// What a filter does when its callout is answered.
fn answered(body: &str) -> String {
    format!(
        "(func (export \"proxy_on_http_call_response\") (param i32 i32 i32 i32 i32)
            (drop (call $effective (global.get $stream))) {body})\n"
    )
}

fn capitals() -> String {
    callback("request_body", "(call $upper (i32.const 0) (local.get $n)) (i32.const 0)")
        + &callback("response_body", "(call $upper (i32.const 1) (local.get $n)) (i32.const 0)")
}

const CONTINUE: &str = "(i32.const 0)";
const PAUSE: &str = "(i32.const 1)";

/// A backend that tells of every request as soon as it has `seen` in what came, with an interim response.
fn telling(seen: &'static [u8]) -> Backend {
    Backend::raw(move |_, mut stream| {
        let (mut got, mut piece, mut told) = (Vec::new(), [0; 4096], false);
        loop {
            let count = stream.read(&mut piece).unwrap_or(0);
            if count == 0 {
                return;
            }
            got.extend_from_slice(&piece[..count]);
            let body = got.windows(4).position(|four| four == b"\r\n\r\n").map_or(got.len(), |at| at + 4);
            if !told && got[body..].windows(seen.len()).any(|run| run == seen) {
                told = true;
                let _ = stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n");
            }
            if got.ends_with(b"0\r\n\r\n") {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", got.len());
                let _ = stream.write_all(&[head.as_bytes(), &got].concat());
                got.clear();
                told = false;
            }
        }
    })
}

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn pieces_go_on_at_once_changed() {
    let folder = Folder::with("capitals", &capitals());
    let backend = telling(b"AB");
    let gateway = folder.gateway(&config(&backend, "{name: capitals}")).start();
    let mut client = RawClient::connect(gateway.proxy());
    client.send(format!("{CHUNKED}2\r\nab\r\n").as_bytes());
    assert_eq!(client.read_response("POST").status, 103, "the backend has the piece before there is another");
    client.send(b"3\r\ncde\r\n0\r\n\r\n");
    let response = client.read_response("POST");
    assert_eq!(response.status, 200);
    assert!(response.text().ends_with("2\r\nAB\r\n3\r\nCDE\r\n0\r\n\r\n"), "{}", response.text());
    // A length that was announced may change on the way.
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    client.send(head.as_bytes());
    assert_eq!(client.read_response("POST").status, 100);
    client.send(b"ab");
    assert_eq!(client.read_response("POST").status, 103);
    client.send(b"cde");
    let text = client.read_response("POST").text();
    assert!(text.contains("TRANSFER-ENCODING: CHUNKED") && !text.contains("CONTENT-LENGTH"), "{text}");
    let mut client = FrameClient::connect(gateway.proxy());
    let mut fields = fields_of("/");
    fields[0].1 = "POST";
    client.request(1, &fields, false);
    client.data(1, b"ab", false);
    client.until(|frame| frame.kind == kind::HEADERS);
    client.data(1, b"cde", true);
    let (status, body) = client.response(1);
    assert_eq!((status, body.ends_with(b"3\r\nCDE\r\n0\r\n\r\n")), (200, true), "{}", String::from_utf8_lossy(&body));
    gateway.assert_no_errors();
    gateway.stop();
}

#[test]
fn a_body_at_hand_has_its_length_both_ways() {
    let folder = Folder::with("capitals", &capitals());
    let backend = Backend::echo();
    let gateway = folder.gateway(&config(&backend, "{name: capitals}")).start();
    let response = http(gateway.proxy(), "POST /", &[], b"whole");
    assert_eq!((backend.requests()[0].body.as_slice(), response.status), (&b"WHOLE"[..], 200));
    assert_eq!(backend.requests()[0].header("content-length"), Some("5"));
    assert_eq!(response.header("content-length").map(str::to_owned), Some(response.body.len().to_string()));
    assert!(response.text().contains("\"METHOD\":\"POST\""), "{}", response.text());
    let mut client = FrameClient::connect(gateway.proxy());
    let mut fields = fields_of("/");
    fields[0].1 = "POST";
    client.request(1, &fields, false);
    client.data(1, b"frames", true);
    assert_eq!((client.response(1).0, backend.requests()[1].body.as_slice()), (200, &b"FRAMES"[..]));
    gateway.stop();
}

#[test]
fn a_head_waits_while_the_body_is_read() {
    let reading = callback("request_headers", PAUSE)
        + &callback(
            "request_body",
            "(if (i32.eqz (local.get $end)) (then (return (i32.const 1))))
             (call $upper (i32.const 0) (local.get $n)) (call $mark (i32.const 0)) (i32.const 0)",
        );
    let folder = Folder::with("reading", &reading);
    folder.put("capitals", &capitals());
    let backend = Backend::echo();
    let gateway = folder.gateway(&config(&backend, "{name: reading}, {name: capitals}")).start();
    let mut client = RawClient::connect(gateway.proxy());
    client.send(format!("{CHUNKED}2\r\nab\r\n").as_bytes());
    pause(Duration::from_millis(100));
    assert_eq!(backend.connections(), 0, "nothing goes upstream yet");
    client.send(b"3\r\ncde\r\n0\r\n\r\n");
    assert_eq!(client.read_response("POST").status, 200);
    let request = &backend.requests()[0];
    assert_eq!((request.body.as_slice(), request.header("x-mark")), (&b"ABCDE"[..], Some("yes")));
    assert_eq!(request.header("content-length"), Some("5"), "by then it is at hand");
    let response = http(gateway.proxy(), "POST /", &[("Expect", "100-continue")], b"short");
    assert_eq!((response.status, backend.requests()[1].body.as_slice()), (200, &b"SHORT"[..]));
    gateway.assert_no_errors();
    gateway.stop();
}

#[test]
fn a_body_that_a_filter_lets_go_by_does_not_end_its_pause() {
    let asking = callback("request_headers", "(call $call (local.get $id)) (i32.const 1)")
        + &callback("request_body", CONTINUE)
        + &answered("(call $answer (i32.const 401))");
    let folder = Folder::with("asking", &asking);
    let (backend, open) = (Backend::echo(), Arc::new(AtomicBool::new(false)));
    let gate = open.clone();
    let ask = Backend::scripted(move |_, stream| {
        eventually(PATIENCE, || gate.load(Ordering::SeqCst));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        Next::KeepAlive
    });
    let text = config(&backend, "{name: asking}");
    let text = text.replace("services:\n", &format!("services:\n- {{name: ask, url: '{}'}}\n", ask.url()));
    let gateway = folder.gateway(&text).start();
    let mut client = RawClient::connect(gateway.proxy());
    client.send(format!("{CHUNKED}2\r\nab\r\n0\r\n\r\n").as_bytes());
    client.expect_silence(Duration::from_millis(200));
    assert_eq!(backend.connections(), 0);
    open.store(true, Ordering::SeqCst);
    assert_eq!(client.read_response("POST").status, 401);
    assert_eq!(backend.connections(), 0);
    // From a body callback, too: the piece waits for the answer.
    folder.put(
        "asking",
        &(callback("request_body", "(call $call (local.get $id)) (i32.const 1)")
            + &answered("(call $upper (i32.const 0) (i32.const 2)) (drop (call $continue (i32.const 0)))")),
    );
    eventually(PATIENCE, || http(gateway.proxy(), "POST /", &[], b"no").status == 200);
    assert_eq!(backend.requests().last().map(|request| request.body.clone()), Some(b"NO".to_vec()));
    gateway.stop();
}

#[test]
fn what_a_filter_holds_is_limited() {
    let folder = Folder::with("holding", &callback("request_body", PAUSE));
    let backend = Backend::echo();
    let gateway = folder.gateway(&config(&backend, "{name: holding}")).arg("--plugin-body-size=64k").start();
    let mut client = RawClient::connect(gateway.proxy());
    client.send(CHUNKED.as_bytes());
    let piece = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    for _ in 0..5 {
        if client.try_send(piece.as_bytes()).is_err() {
            break;
        }
    }
    assert_eq!(client.read_response("POST").status, 413);
    gateway.stop();
}

#[test]
fn slow_clients_are_cut_while_a_filter_waits_for_their_body() {
    let folder = Folder::with("holding", &(callback("request_headers", PAUSE) + &callback("request_body", PAUSE)));
    folder.put("capitals", &capitals());
    let backend = Backend::echo();
    for filter in ["holding", "capitals"] {
        let config = config(&backend, &format!("{{name: {filter}}}"));
        let gateway = folder.gateway(&config).arg("--client-body-timeout=1").start();
        let mut client = RawClient::connect(gateway.proxy());
        client.send(format!("{CHUNKED}2\r\nab\r\n").as_bytes());
        assert_eq!(client.read_response("POST").status, 408, "{filter}");
        gateway.stop();
    }
}

#[test]
fn trailers_of_requests_pass_filters() {
    let changing =
        trailers("request_trailers", "(call $mark (i32.const 1)) (i32.const 0)") + &callback("request_body", CONTINUE);
    let folder = Folder::with("changing", &changing);
    let backend = Backend::echo();
    let gateway = folder.gateway(&config(&backend, "{name: changing}")).start();
    let check = |response: &serde_json::Value| {
        let trailers = response["trailers"].to_string();
        assert!(trailers.contains("x-sum") && trailers.contains("x-mark"), "{response}");
    };
    let mut client = RawClient::connect(gateway.proxy());
    for (first, rest) in [("2\r\nab\r\n0\r\nx-sum: 1\r\n\r\n", ""), ("2\r\nab\r\n", "0\r\nx-sum: 1\r\n\r\n")] {
        client.send(format!("{CHUNKED}{first}").as_bytes());
        pause(Duration::from_millis(100));
        client.send(rest.as_bytes());
        check(&client.read_response("POST").json());
    }
    let mut client = FrameClient::connect(gateway.proxy());
    let mut fields = fields_of("/");
    fields[0].1 = "POST";
    for (stream, at_once) in [(1, true), (3, false)] {
        client.request(stream, &fields, false);
        client.data(stream, b"ab", false);
        if !at_once {
            pause(Duration::from_millis(100));
        }
        client.request(stream, &[("x-sum", "1")], true);
        let (status, body) = client.response(stream);
        assert_eq!(status, 200);
        check(&serde_json::from_slice(&body).expect("it echoes"));
    }
    gateway.assert_no_errors();
    gateway.stop();
}

/// A second gateway stands in for an upstream that speaks HTTP/2: what comes to it in frames it passes on in lines.
#[test]
fn trailers_of_requests_pass_filters_to_an_upstream_with_http2() {
    // With the whole body in the filter's hands first, and with pieces that pass.
    for body in [CONTINUE, "(i32.eqz (local.get $end))"] {
        let changing =
            trailers("request_trailers", "(call $mark (i32.const 1)) (i32.const 0)") + &callback("request_body", body);
        let folder = Folder::with("changing", &changing);
        let backend = Backend::echo();
        let origin = Gateway::start(&format!(
            "_format_version: '3.0'\nservices:\n- {{name: origin, url: '{}', routes: [{{name: all, paths: [/]}}]}}\n",
            backend.url()
        ));
        let text = config(&backend, "{name: changing}")
            .replace(&backend.url(), &format!("grpc://{}", origin.proxy()))
            .replace("paths: [/]", "paths: [/], protocols: [grpc]");
        let gateway = folder.gateway(&text).start();
        let mut client = FrameClient::connect(gateway.proxy());
        let mut fields = fields_of("/test.Echo/All");
        fields[0].1 = "POST";
        fields.extend([("content-type", "application/grpc"), ("te", "trailers")]);
        for (stream, at_once) in [(1, true), (3, false)] {
            client.request(stream, &fields, false);
            client.data(stream, b"ab", false);
            if !at_once {
                pause(Duration::from_millis(100));
            }
            client.request(stream, &[("x-sum", "1")], true);
            client.response(stream);
        }
        let requests = backend.requests();
        assert_eq!(requests.len(), 2);
        for request in requests {
            let mut trailers: Vec<_> =
                request.trailers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
            trailers.sort();
            let expected = [("x-mark", "yes"), ("x-sum", "1")].map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!((request.body.as_slice(), trailers.as_slice()), (&b"ab"[..], &expected[..]));
        }
        gateway.assert_no_errors();
        gateway.stop();
        origin.stop();
    }
}

#[test]
fn a_pause_at_trailers_holds_what_is_before_them() {
    let asking = trailers("request_trailers", "(call $call (local.get $id)) (i32.const 1)")
        + &callback("request_body", CONTINUE)
        + &trailers("response_trailers", "(call $call (local.get $id)) (i32.const 1)")
        + &answered(
            "(call $mark (i32.const 1)) (call $mark (i32.const 3))
             (drop (call $continue (i32.const 0))) (drop (call $continue (i32.const 1)))",
        );
    // A map that is not there cannot be written: of either direction one of them is.
    let asking = asking.replace("(then unreachable)", "(then (nop))");
    let folder = Folder::with("asking", &asking);
    let ask = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let backend = Backend::scripted(|_, stream| {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n0\r\nx-sum: 1\r\n\r\n");
        Next::KeepAlive
    });
    let text = config(&backend, "{name: asking}");
    let text = text.replace("services:\n", &format!("services:\n- {{name: ask, url: '{}'}}\n", ask.url()));
    let gateway = folder.gateway(&text).start();
    let mut client = RawClient::connect(gateway.proxy());
    client.send(format!("{CHUNKED}2\r\nab\r\n").as_bytes());
    pause(Duration::from_millis(100));
    client.send(b"0\r\nx-sum: 1\r\n\r\n");
    let response = client.read_response("POST");
    assert_eq!((response.status, response.text().as_str()), (200, "wiki"));
    let names: Vec<_> = response.trailers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    assert_eq!(names, ["x-sum", "x-mark"]);
    let request = &backend.requests()[0];
    assert_eq!((request.body.as_slice(), request.trailers.len(), ask.request_count()), (&b"ab"[..], 2, 2));
    gateway.stop();
}

#[test]
fn a_body_that_was_at_hand_is_sent_again() {
    let folder = Folder::with("capitals", &capitals());
    let backend = Backend::raw(|connection, mut stream| {
        let mut got = Vec::new();
        let mut piece = [0; 4096];
        while !got.ends_with(b"WHOLE") && !got.ends_with(b"OLE\r\n0\r\n\r\n") {
            let count = stream.read(&mut piece).unwrap_or(0);
            if count == 0 {
                return;
            }
            got.extend_from_slice(&piece[..count]);
        }
        if connection == 2 {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain");
        }
    });
    let text = config(&backend, "{name: capitals}").replace("retries: 0", "retries: 1");
    let gateway = folder.gateway(&text).start();
    let response = http(gateway.proxy(), "PUT /", &[], b"whole");
    assert_eq!((response.status, response.text().as_str(), backend.connections()), (200, "AGAIN", 2));
    // One that came in pieces is not.
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nwh");
    pause(Duration::from_millis(100));
    client.send(b"ole");
    assert_eq!(client.read_response("PUT").status, 502);
    assert_eq!(backend.connections(), 3);
    gateway.stop();
}

#[test]
fn a_closed_stream_is_a_reset() {
    let closing = callback(
        "request_headers",
        "(if (i32.eqz (local.get $end)) (then (return (i32.const 0)))) (drop (call $close (i32.const 0))) (i32.const 0)",
    ) + &callback("request_body", "(drop (call $close (i32.const 0))) (i32.const 0)");
    let folder = Folder::with("closing", &closing);
    let backend = Backend::echo();
    let gateway = folder.gateway(&config(&backend, "{name: closing}")).start();
    for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"] {
        let mut client = RawClient::connect(gateway.proxy());
        client.send(request.as_bytes());
        assert_eq!(client.read_to_close(PATIENCE), b"");
        let mut client = FrameClient::connect(gateway.proxy());
        let ends = request.starts_with("GET");
        client.request(1, &fields_of("/"), ends);
        if !ends {
            client.data(1, b"x", true);
        }
        let frames = client.until(|frame| frame.kind == kind::RST_STREAM);
        assert!(frames.iter().all(|frame| frame.kind != kind::HEADERS), "{frames:?}");
    }
    assert_eq!(backend.request_count(), 0);
    let resets = "gateward_refusals_total{reason=\"plugin_reset\"} 4";
    eventually(PATIENCE, || http(gateway.status(), "GET /metrics", &[], b"").text().contains(resets));
    gateway.stop();
}

#[test]
fn a_stream_that_is_closed_with_its_response_is_a_reset() {
    let ways = [
        callback("response_headers", "(drop (call $close (i32.const 1))) (i32.const 0)"),
        callback("response_body", "(if (local.get $end) (then (drop (call $close (i32.const 1))))) (i32.const 0)"),
    ];
    for way in ways {
        let folder = Folder::with("closing", &way);
        let backend = Backend::scripted(|_, stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n");
            pause(Duration::from_millis(100));
            let _ = stream.write_all(b"0\r\n\r\n");
            Next::KeepAlive
        });
        let gateway = folder.gateway(&config(&backend, "{name: closing}")).start();
        let mut client = RawClient::connect(gateway.proxy());
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.try_read_response("GET").is_err());
        let mut client = FrameClient::connect(gateway.proxy());
        client.request(1, &fields_of("/"), true);
        client.until(|frame| frame.kind == kind::RST_STREAM);
        let resets = "gateward_refusals_total{reason=\"plugin_reset\"} 2";
        eventually(PATIENCE, || http(gateway.status(), "GET /metrics", &[], b"").text().contains(resets));
        gateway.stop();
    }
}

#[test]
fn the_end_of_a_response_waits_for_a_filter() {
    let asking = callback(
        "response_body",
        "(if (i32.eqz (local.get $end)) (then (return (i32.const 1)))) (call $call (local.get $id)) (i32.const 1)",
    ) + &answered("(call $upper (i32.const 1) (i32.const 4)) (drop (call $continue (i32.const 1)))");
    let folder = Folder::with("asking", &asking);
    let ask = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    // At once, and with its end a moment later.
    let backend = Backend::scripted(|request, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n");
        if request.target == "/slow" {
            pause(Duration::from_millis(100));
        }
        let _ = stream.write_all(b"0\r\n\r\n");
        Next::KeepAlive
    });
    let text = config(&backend, "{name: asking}");
    let text = text.replace("services:\n", &format!("services:\n- {{name: ask, url: '{}'}}\n", ask.url()));
    let gateway = folder.gateway(&text).start();
    for path in ["/", "/slow"] {
        let response = http(gateway.proxy(), &format!("GET {path}"), &[], b"");
        assert_eq!((response.status, response.text().as_str()), (200, "WIKI"), "{path}");
    }
    gateway.assert_no_errors();
    gateway.stop();
}

#[test]
fn an_answer_in_place_of_a_body_comes_before_the_head_or_breaks_it_off() {
    let answering =
        callback("response_body", "(if (local.get $end) (then (call $answer (i32.const 418)))) (i32.const 0)");
    let folder = Folder::with("answering", &answering);
    let backend = Backend::scripted(|request, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n");
        if request.target == "/slow" {
            pause(Duration::from_millis(200));
        }
        let _ = stream.write_all(b"0\r\n\r\n");
        Next::KeepAlive
    });
    let gateway = folder.gateway(&config(&backend, "{name: answering}")).start();
    let mut client = RawClient::connect(gateway.proxy());
    client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_read_response("GET").is_err(), "the head was out");
    gateway.stop();
    // A length that came with the head makes the whole body at hand.
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwiki");
    let gateway = folder.gateway(&config(&backend, "{name: answering}")).start();
    let response = http(gateway.proxy(), "GET /", &[], b"");
    assert_eq!((response.status, response.text().as_str()), (418, "x-mark"));
    gateway.stop();
}

#[test]
fn what_a_filter_held_does_not_go_with_the_answer_in_its_place() {
    // It holds the upstream's whole body while it asks, and lets go what comes instead.
    let asking = |then: &str| {
        let body = "(if (global.get $stream) (then (return (i32.const 0)))) (call $call (local.get $id)) (i32.const 1)";
        callback("response_body", body) + &answered(then)
    };
    let ask = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nX-Upstream: yes\r\nContent-Length: 4\r\n\r\nwiki");
    let services = format!("services:\n- {{name: ask, url: '{}'}}\n", ask.url());
    for (then, status) in [("(call $answer (i32.const 418))", 418), ("unreachable", 503)] {
        let folder = Folder::with("asking", &asking(then));
        let config = config(&backend, "{name: asking}").replace("services:\n", &services);
        let mut gateway = folder.gateway(&config).workers(1).start();
        if status == 503 {
            gateway.expect_error("a Wasm filter failed");
        }
        let mut client = RawClient::connect(gateway.proxy());
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.read_response("GET");
        assert_eq!((response.status, response.header("x-upstream")), (status, None));
        assert_eq!(response.header("content-length"), Some(response.body.len().to_string().as_str()));
        if status == 418 {
            assert_eq!((response.text().as_str(), response.header("content-type")), ("x-mark", Some("text/plain")));
        } else {
            let id = response.header("x-kong-request-id").unwrap_or_default();
            let message = serde_json::json!({"message": "a filter failed", "request_id": id});
            assert_eq!(response.json(), message);
            assert_eq!(response.header("content-type"), Some("application/json; charset=utf-8"));
        }
        // Nothing is left over on the connection.
        client.expect_silence(Duration::from_millis(50));
        gateway.stop();
    }
}

#[test]
fn a_filter_that_fails_in_a_body_follows_its_policy() {
    for (policy, status) in [("fail_closed", 503), ("fail_open", 200)] {
        let folder = Folder::with("failing", &callback("request_body", "unreachable"));
        folder.meta("failing", &format!("\"failure_policy\": \"{policy}\""));
        let backend = Backend::echo();
        let mut gateway = folder.gateway(&config(&backend, "{name: failing}")).start();
        gateway.expect_error("a Wasm filter failed");
        let mut client = RawClient::connect(gateway.proxy());
        client.send(format!("{CHUNKED}2\r\nab\r\n").as_bytes());
        pause(Duration::from_millis(100));
        // The answer may have come already, and the connection may be closed.
        let _ = client.try_send(b"3\r\ncde\r\n0\r\n\r\n");
        assert_eq!(client.read_response("POST").status, status, "{policy}");
        if status == 200 {
            assert_eq!(backend.requests()[0].body, b"abcde");
        }
        gateway.stop();
    }
}

#[test]
fn grpc_messages_pass_one_by_one() {
    let folder = Folder::with("capitals", &capitals());
    let server = GrpcServer::start();
    let config = format!(
        "_format_version: '3.0'\nservices:\n- {{name: echo, url: '{}', retries: 0, routes: [{{name: calls, protocols: [grpc], paths: [/]}}]}}\n\
         filter_chains:\n- {{name: chain, route: calls, filters: [{{name: capitals}}]}}\n",
        server.url()
    );
    let gateway = folder.gateway(&config).start();
    runtime().block_on(async {
        let mut client = grpc_client(gateway.proxy()).await;
        let (send, receive) = tokio::sync::mpsc::channel(1);
        let said = tokio_stream::wrappers::ReceiverStream::new(receive);
        let mut heard = client.streaming(said).await.unwrap().into_inner();
        for index in 0..100 {
            let message = format!("message {index}").into_bytes();
            send.send(message.clone()).await.unwrap();
            assert_eq!(heard.next().await.unwrap().unwrap(), message.to_ascii_uppercase());
        }
        drop(send);
        assert!(heard.next().await.is_none());
    });
    gateway.assert_no_errors();
    gateway.stop();
}

#[test]
fn any_split_of_a_body_comes_out_the_same() {
    let folder = Folder::with("capitals", &capitals());
    folder.put("passing", &(callback("request_body", CONTINUE) + &callback("response_body", CONTINUE)));
    // Every other piece is held until the next.
    folder.put(
        "hesitating",
        &(String::from("(global $turn (mut i32) (i32.const 0))")
            + &callback(
                "request_body",
                "(global.set $turn (i32.xor (global.get $turn) (i32.const 1)))
                 (i32.and (global.get $turn) (i32.eqz (local.get $end)))",
            )),
    );
    let backend = Backend::scripted(|request, stream| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len());
        let _ = stream.write_all(&[head.as_bytes(), &request.body].concat());
        Next::KeepAlive
    });
    let filters = "{name: passing}, {name: hesitating}, {name: capitals}, {name: hesitating}";
    let gateway = folder.gateway(&config(&backend, filters)).workers(1).start();
    let mut random = 0x9e37_79b9_u64;
    let mut next = move |most: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize % (most + 1)
    };
    let mut client = RawClient::connect(gateway.proxy());
    for _ in 0..60 {
        let body: Vec<u8> = (0..next(40_000)).map(|at| b'a' + (at * 7 % 26) as u8).collect();
        client.send(CHUNKED.as_bytes());
        let mut left = body.as_slice();
        while !left.is_empty() {
            let (piece, rest) = left.split_at(next(9000).clamp(1, left.len()));
            client.send(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            if next(3) == 0 {
                pause(Duration::from_millis(1));
            }
            left = rest;
        }
        client.send(b"0\r\n\r\n");
        let response = client.read_response("POST");
        assert!(response.body == body.to_ascii_uppercase(), "{} bytes of {}", response.body.len(), body.len());
    }
    gateway.assert_no_errors();
    gateway.stop();
}

#[test]
fn a_client_that_leaves_during_a_pause_is_noticed_at_once() {
    let told = "(func (export \"proxy_on_done\") (param i32) (result i32) (i32.const 1))
        (func (export \"proxy_on_log\") (param i32)) (func (export \"proxy_on_delete\") (param i32))";
    for (place, connections) in [("request_headers", 0), ("response_headers", 2), ("response_body", 2)] {
        let folder = Folder::with("holding", &(callback(place, PAUSE) + told));
        let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let gateway = folder.gateway(&config(&backend, "{name: holding}")).start();
        let metrics = || Metrics::scrape(&gateway);
        let calls = |phase: &str| metrics().sum("gateward_wasm_calls_total", &[&format!("phase=\"{phase}\"")]);
        let gone = || metrics().sum("gateward_requests_total", &["outcome=\"client_gone\""]);
        let began = Instant::now();
        let paused = |times: f64| eventually(PATIENCE, || calls(place) == times);
        // What was tried before it served was told of its end as well.
        let before = calls("done");
        let ended = |times: f64| {
            eventually(PATIENCE, || (calls("done") - before, calls("log"), gone()) == (2.0 * times, times, times));
        };
        let mut client = RawClient::connect(gateway.proxy());
        // What it sends meanwhile is not read, and hides nothing.
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        paused(1.0);
        client.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        pause(Duration::from_millis(50));
        assert_eq!(gone(), 0.0);
        drop(client);
        ended(1.0);
        let mut client = FrameClient::connect(gateway.proxy());
        client.request(1, &fields_of("/"), true);
        paused(2.0);
        client.send(&Frame::new(kind::RST_STREAM, 0, 1, 8_u32.to_be_bytes()));
        ended(2.0);
        assert!(began.elapsed() < PATIENCE, "{place}");
        assert!(backend.connections() <= connections, "{place}");
        gateway.assert_no_errors();
        gateway.stop();
    }
}

#[test]
fn a_request_is_read_to_its_end_although_nothing_follows_it() {
    // Until the last piece everything is held, for longer than anybody waits before looking for the client's end.
    let folder = Folder::with("holding", &callback("request_body", "(i32.eqz (local.get $end))"));
    let backend = Backend::scripted(|request, stream| {
        let body = request.body.len().to_string();
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        Next::KeepAlive
    });
    let gateway = folder.gateway(&config(&backend, "{name: holding}")).start();
    let (first, rest) = (vec![b'a'; 10], vec![b'b'; 3 << 20]);
    let mut client = RawClient::connect(gateway.proxy());
    let length = first.len() + rest.len();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").as_bytes());
    client.send(&first);
    let calls = || Metrics::scrape(&gateway).sum("gateward_wasm_calls_total", &["phase=\"request_body\""]);
    eventually(PATIENCE, || calls() == 1.0);
    pause(Duration::from_millis(50));
    client.send(&rest);
    client.finish_sending();
    let response = client.read_response("POST");
    assert_eq!((response.status, response.text()), (200, length.to_string()));
    gateway.assert_no_errors();
    gateway.stop();
}

#[test]
fn a_client_that_leaves_while_its_body_is_held_is_noticed() {
    let folder = Folder::with("holding", &callback("request_body", PAUSE));
    let backend = Backend::echo();
    let gateway = folder.gateway(&config(&backend, "{name: holding}")).start();
    let calls = || Metrics::scrape(&gateway).sum("gateward_wasm_calls_total", &["phase=\"request_body\""]);
    let gone = || Metrics::scrape(&gateway).sum("gateward_requests_total", &["outcome=\"client_gone\""]);
    // All of it at once, in two pieces, and not all of it.
    let (mut shown, mut left) = (0.0, 0.0);
    for (length, pieces) in [(2, &["ab"][..]), (2, &["a", "b"]), (3, &["a", "b"])] {
        let mut client = RawClient::connect(gateway.proxy());
        let mut piece = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        for next in pieces {
            piece.push_str(next);
            client.send(piece.as_bytes());
            piece.clear();
            shown += 1.0;
            eventually(PATIENCE, || calls() == shown);
        }
        drop(client);
        left += 1.0;
        eventually(PATIENCE, || gone() == left);
    }
    gateway.assert_no_errors();
    gateway.stop();
}
