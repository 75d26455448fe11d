//! Malformed and ambiguous request heads over the wire: the exact status, a closed connection, nothing for the
//! back end, and a count by reason.
//!
//! Behind every refused head follows a well-formed request, as a smuggler would send it: it must neither be
//! answered nor forwarded.

use gateward_e2e::{Metrics, one_route};
use gateward_testkit::{Backend, Gateway, RawClient, eventually};
use std::time::Duration;

const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// One gateway and one echo behind it.
fn start() -> (Gateway, Backend) {
    let backend = Backend::echo();
    (Gateway::start(&one_route(&backend.url())), backend)
}

/// Sends every head, followed by another request, and expects the status, the end of the connection and a back
/// end that saw nothing.
#[track_caller]
fn check_refused(cases: &[(&[u8], u16)]) {
    let (gateway, backend) = start();
    for (head, status) in cases {
        let shown = head[..head.len().min(200)].escape_ascii().to_string();
        let mut client = RawClient::connect(gateway.proxy());
        // The gateway may refuse before everything is sent.
        let _ = client.try_send(&[head, SMUGGLED].concat());
        let method = if head.starts_with(b"HEAD") { "HEAD" } else { "GET" };
        let response = match client.try_read_response(method) {
            Ok(response) => response,
            Err(error) => panic!("no response to {shown}: {error}"),
        };
        assert_eq!(response.status, *status, "status for {shown}: {}", response.text());
        assert!(response.closes(), "no `Connection: close` for {shown}: {:?}", response.headers);
        client.expect_closed();
    }
    assert_eq!(backend.requests().len(), 0, "the back end got {:?}", backend.requests());
    assert_eq!(backend.connections(), 0, "the back end was connected to");
    gateway.stop();
}

#[test]
fn lines_end_in_crlf_and_are_not_folded() {
    check_refused(&[
        (b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\tX: a\r\nHost: a\r\n\r\n", 400),
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ]);
}

#[test]
fn request_lines_have_one_form() {
    check_refused(&[
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", 400),
        (b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET\r\nHost: a\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / Http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTPS/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"G\x80T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\r\n", 400),
        (b"GET /\r\n\r\n", 400),
    ]);
}

#[test]
fn one_length_in_one_form() {
    check_refused(&[
        // CL.TE, TE.CL and their disguises: both fields at once are never accepted.
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nZ\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: identity\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\nabc", 400),
        // CL.CL.
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3,4\r\n\r\nabc", 400),
        // Not 1*DIGIT (hyper 2021-0078: a sign; 2021-0079: beyond 64 bits).
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3.0\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: a\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999999\r\n\r\nabc", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: \xb2\r\n\r\nabc", 400),
    ]);
}

#[test]
fn one_transfer_coding_and_it_is_chunked() {
    check_refused(&[
        // TE.TE and its disguises.
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 501),
        // pingora 2026-0034: HTTP/1.0 knows no transfer codings.
        (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ]);
}

#[test]
fn one_host_and_a_clean_target() {
    check_refused(&[
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n", 400),
        (b"GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://a/ HTTP/1.1\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a\x00b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a%2 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a% HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a/..;x/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ]);
}

#[test]
fn field_names_values_and_repeats() {
    check_refused(&[
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\tA: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nno-colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX(A): b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\x80: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\x00c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\x01c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\x7fc\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\x0cc\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YTpi\r\nAuthorization: Basic YTpi\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\ncontent-type: c/d\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\nRange: bytes=2-3\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 200-ok\r\n\r\nx", 417),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue, x\r\n\r\nx", 417),
    ]);
}

#[test]
fn methods_that_open_tunnels_or_mirror_requests_are_refused() {
    check_refused(&[
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"AVERYLONGMETHODTHATNOBODYHASEVERHEARDOFANDNOBODYIMPLEMENTSANYWHERE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ]);
}

#[test]
fn oversized_heads_have_statuses_of_their_own() {
    let long = "x".repeat(9 * 1024);
    let longer = "x".repeat(40 * 1024);
    let many = "X-Many: 1\r\n".repeat(250);
    check_refused(&[
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), 414),
        (format!("GET /{longer} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {longer}\r\n\r\n").as_bytes(), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX-Endless: {longer}").as_bytes(), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n").as_bytes(), 431),
    ]);
}

#[test]
fn what_is_odd_but_legal_is_served() {
    let (gateway, backend) = start();
    let long_value = "v".repeat(7 * 1024);
    let cases: [(&str, u16); 11] = [
        ("\r\nGET /after-an-empty-line HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHOST:a\r\nx-no-space:b\r\nX-Tabs:\t b \t\r\nX-Empty:\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", 200),
        ("GET http://other/x?y HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("PURGE / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET /?a=%zz&b=%00 HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-Utf8: \u{e4}\u{f6}\r\n\r\n", 200),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", 200),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0000000003\r\n\r\nabc", 200),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\nX-1: {long_value}\r\nX-2: {long_value}\r\n\r\n"), 200),
    ];
    for (request, status) in cases {
        let mut client = RawClient::connect(gateway.proxy());
        client.send(request.as_bytes());
        let response = client.read_response("GET");
        assert_eq!(response.status, status, "{request:.200}: {}", response.text());
        // The connection is as good as before.
        client.send(b"GET /again HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response("GET").status, 200, "after {request:.200}");
    }
    let absolute = backend.requests().into_iter().find(|request| request.target == "/x?y").expect("it was forwarded");
    assert_eq!(absolute.header("x-forwarded-host"), Some("other"), "the authority of the target replaces Host");
    gateway.stop();
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let (gateway, backend) = start();
    let mut client = RawClient::connect(gateway.proxy());
    for byte in b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab" {
        client.send(&[*byte]);
    }
    assert_eq!(client.read_response("POST").status, 200);
    assert_eq!(backend.requests()[0].body, b"ab");
    let mut client = RawClient::connect(gateway.proxy());
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r" {
        client.send(&[*byte]);
    }
    let _ = client.try_send(b"X\r\n\r\n");
    assert_eq!(client.read_response("GET").status, 400);
    client.expect_closed();
    gateway.stop();
}

#[test]
fn refusals_are_counted_by_reason() {
    let (gateway, _backend) = start();
    let cases: [(&[u8], &str); 8] = [
        (b"GET / HTTP/1.1\nHost: a\n\n", "bare_lf"),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "space_before_colon"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", "obs_fold"),
        (b"GET / HTTP/1.1\r\n\r\n", "missing_host"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "length_and_encoding",
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", "bad_content_length"),
        (b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", "malformed_path"),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "method_refused"),
    ];
    for (head, _) in cases {
        gateward_e2e::exchange(gateway.proxy(), "GET", head);
    }
    eventually(Duration::from_secs(5), || {
        let metrics = Metrics::scrape(&gateway);
        cases
            .iter()
            .all(|(_, reason)| metrics.sum("gateward_refusals_total", &[&format!("reason=\"{reason}\"")]) == 1.0)
    });
    let metrics = Metrics::scrape(&gateway);
    assert_eq!(metrics.sum("gateward_requests_total", &["outcome=\"gateway"]), 0.0, "{}", metrics.text());
    gateway.stop();
}
