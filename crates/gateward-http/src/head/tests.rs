//! The rules of heads, one row per rule and form: name, input, expected outcome.

use super::*;
use proptest::prelude::*;

fn request(input: &[u8]) -> (Result<Parsed, HeadError>, RequestHead) {
    let mut head = RequestHead::default();
    let parsed = parse_request_head(input, &HeadLimits::default(), &mut head);
    (parsed, head)
}

fn response(input: &str, method: &Method) -> Result<ResponseHead, HeadError> {
    let mut head = ResponseHead::default();
    match parse_response_head(input.as_bytes(), &HeadLimits::default(), method, &mut head)? {
        Parsed::Complete(length) => {
            assert_eq!(length, input.len(), "{input:?}");
            Ok(head)
        }
        Parsed::Partial => panic!("partial: {input:?}"),
    }
}

/// A whole request that must be taken.
fn accepted(input: &str) -> RequestHead {
    let (parsed, head) = request(input.as_bytes());
    assert_eq!(parsed, Ok(Parsed::Complete(input.len())), "{input:?}");
    head
}

/// Each row: a request and the error, by status and label, it must meet.
fn check_refused(rows: &[(&[u8], u16, &str)]) {
    for (input, status, label) in rows {
        let shown = input.escape_ascii().to_string();
        let error = request(input).0.expect_err(&shown);
        assert_eq!((error.status(), error.label()), (*status, *label), "{shown}");
        assert!(!error.to_string().is_empty());
    }
}

/// Each row: lines of fields after a good request line and Host, and the error they must meet.
fn check_fields_refused(rows: &[(&str, u16, &str)]) {
    for (fields, status, label) in rows {
        let input = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        check_refused(&[(input.as_bytes(), *status, label)]);
    }
}

#[test]
fn a_plain_request() {
    let head = accepted("GET /a/b?c=d HTTP/1.1\r\nHost: Example.com:8000\r\nX_Under: \t v \u{e9} \t\r\nEmpty:\r\n\r\n");
    assert_eq!(head.method, Method::Get);
    assert_eq!((head.raw_path(), head.query()), ("/a/b", Some("c=d")));
    assert_eq!(head.authority, "Example.com:8000");
    assert_eq!(head.headers.get("x_under"), Some("v \u{e9}".as_bytes()));
    assert_eq!(head.headers.get("empty"), Some(&b""[..]));
    assert_eq!(head.framing, BodyFraming::None);
    assert!(head.keep_alive && !head.expects_continue && !head.upgrade);
}

#[test]
fn a_head_is_reused_without_left_overs() {
    let mut head = RequestHead::default();
    let limits = HeadLimits::default();
    let first = b"PURGE /long HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\
        Connection: close, upgrade\r\nUpgrade: x\r\n\r\n";
    parse_request_head(first, &limits, &mut head).unwrap();
    assert!(head.expects_continue && head.upgrade && !head.keep_alive);
    parse_request_head(b"GET / HTTP/1.0\r\n\r\n", &limits, &mut head).unwrap();
    assert_eq!((head.target.as_str(), head.authority.as_str(), head.headers.len()), ("/", "", 0));
    assert_eq!((head.framing, head.keep_alive), (BodyFraming::None, false));
    assert!(!head.expects_continue && !head.upgrade);
}

#[test]
fn bare_cr_is_400() {
    check_refused(&[
        (b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400, "bare_cr"),
        (b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400, "bare_cr"),
        (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400, "bare_cr"),
        (b"GET / HTTP/1.1\r\nHo\rst: a\r\n\r\n", 400, "bare_cr"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n", 400, "bare_cr"),
        (b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bare_cr"),
        (b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bare_cr"),
    ]);
}

#[test]
fn bare_lf_as_line_end_is_400() {
    check_refused(&[
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "bare_lf"),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "bare_lf"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ: z\r\n\r\n", 400, "bare_lf"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400, "bare_lf"),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bare_lf"),
        // Before the head is complete.
        (b"GET / HTTP/1.1\nHost", 400, "bare_lf"),
        (b"GET / HTTP/1.1\r\nHost: a\nX", 400, "bare_lf"),
    ]);
}

#[test]
fn obs_fold_is_400() {
    check_refused(&[
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400, "obs_fold"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz: q\r\n\r\n", 400, "obs_fold"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", 400, "obs_fold"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n", 400, "obs_fold"),
    ]);
}

#[test]
fn space_before_colon_is_400() {
    check_refused(&[
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "space_before_colon"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n", 400, "space_before_colon"),
    ]);
}

#[test]
fn leading_white_space_line_is_400() {
    check_refused(&[
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "leading_space"),
        (b"\tGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "leading_space"),
        (b"\r\n \r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "leading_space"),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "leading_space"),
    ]);
}

#[test]
fn one_empty_line_before_the_request_is_skipped() {
    let head = accepted("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.target, "/");
    for partial in [&b""[..], b"\r", b"\r\n", b"\r\nG"] {
        assert_eq!(request(partial).0, Ok(Parsed::Partial), "{partial:?}");
    }
    check_refused(&[(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "empty_lines")]);
}

#[test]
fn malformed_request_line_is_400() {
    check_refused(&[
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request_line"),
        (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request_line"),
        (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request_line"),
        (b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", 400, "request_line"),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, "request_line"),
        (b"GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", 400, "request_line"),
        (b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request_line"),
        (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request_line"),
        (b"G\0T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request_line"),
        (b"GET\r\n\r\n", 400, "request_line"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "request_line"),
    ]);
}

#[test]
fn any_version_but_10_and_11_is_refused() {
    check_refused(&[
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400, "bad_version"),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400, "bad_version"),
        (b"GET / HTTP/1.11\r\nHost: a\r\n\r\n", 400, "bad_version"),
        (b"GET / HTTP/1\r\nHost: a\r\n\r\n", 400, "bad_version"),
        (b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", 400, "bad_version"),
        (b"GET / HTTP/+1.1\r\nHost: a\r\n\r\n", 400, "bad_version"),
        (b"GET / HTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_version"),
        (b"GET / HTTP/2.x\r\nHost: a\r\n\r\n", 400, "bad_version"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "unsupported_version"),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505, "unsupported_version"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "unsupported_version"),
    ]);
}

#[test]
fn http09_is_400() {
    check_refused(&[(b"GET /\r\n", 400, "http09"), (b"GET /a?b\r\n\r\n", 400, "http09")]);
}

#[test]
fn tls_on_a_plain_port_is_400() {
    let mut hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    hello.resize(200, 0xaa);
    check_refused(&[(&hello, 400, "request_line")]);
}

#[test]
fn method_too_long_is_501() {
    let input = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(65));
    check_refused(&[(input.as_bytes(), 501, "method_too_long"), ("M".repeat(65).as_bytes(), 501, "method_too_long")]);
    assert_eq!(accepted(&format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(64))).method.as_str().len(), 64);
}

#[test]
fn field_names_are_tokens_and_values_hold_no_control_characters() {
    check_fields_refused(&[
        ("X(: y", 400, "field_name"),
        (": y", 400, "field_name"),
        ("X", 400, "field_name"),
        ("X y: z", 400, "field_name"),
        ("X\u{e9}: y", 400, "field_name"),
        ("X\0: y", 400, "field_name"),
        ("X: a\0b", 400, "field_value"),
        ("X: a\x01b", 400, "field_value"),
        ("X: a\x0bb", 400, "field_value"),
        ("X: a\x7fb", 400, "field_value"),
        ("X: \x1b[0m", 400, "field_value"),
        ("Transfer-Encoding: \x0bchunked", 400, "field_value"),
    ]);
}

#[test]
fn content_length_with_transfer_encoding_is_400() {
    check_fields_refused(&[
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400, "length_and_encoding"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", 400, "length_and_encoding"),
        ("Transfer-Encoding: gzip\r\nContent-Length: 0", 400, "length_and_encoding"),
    ]);
}

#[test]
fn content_length_not_1_digit_is_400() {
    for value in [
        "",
        "+5",
        "-5",
        "0x5",
        "5_0",
        "5 0",
        "5,5",
        "5, 5",
        "5;",
        "5.0",
        "5e1",
        "a",
        "\u{665}",
        "18446744073709551616",
        "99999999999999999999999",
        "\"5\"",
    ] {
        check_fields_refused(&[(&format!("Content-Length: {value}"), 400, "bad_content_length")]);
    }
    for (value, expected) in [("0", 0), ("5", 5), ("0005", 5), ("18446744073709551615", u64::MAX)] {
        let head = accepted(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {value}\r\n\r\n"));
        assert_eq!(head.framing, BodyFraming::Length(expected));
    }
}

#[test]
fn repeated_content_length_is_400() {
    check_fields_refused(&[
        ("Content-Length: 5\r\nContent-Length: 5", 400, "repeated_content_length"),
        ("Content-Length: 5\r\ncontent-length: 6", 400, "repeated_content_length"),
    ]);
}

#[test]
fn transfer_encoding_other_than_one_chunked_is_refused() {
    for value in [
        "",
        "chunked, chunked",
        "identity",
        "chunked, identity",
        "identity, chunked",
        ",chunked",
        "chunked,",
        " , chunked",
        "\"chunked\"",
        "'chunked' x",
        "chunked;q=1",
        "chunked; a=b",
        "chunked x",
        "chunked, gzip",
        "ch\tunked",
        "(chunked)",
    ] {
        check_fields_refused(&[(&format!("Transfer-Encoding: {value}"), 400, "bad_transfer_encoding")]);
    }
    for value in ["gzip, chunked", "gzip", "xchunked", "chunke", "chunked-x"] {
        check_fields_refused(&[(&format!("Transfer-Encoding: {value}"), 501, "unknown_transfer_coding")]);
    }
    check_fields_refused(&[
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400, "bad_transfer_encoding"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400, "bad_transfer_encoding"),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", 400, "bad_transfer_encoding"),
    ]);
    for value in ["chunked", "Chunked", "CHUNKED", "chunked \t"] {
        let head = accepted(&format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {value}\r\n\r\n"));
        assert_eq!(head.framing, BodyFraming::Chunked);
    }
}

#[test]
fn transfer_encoding_in_http10_is_400() {
    check_refused(&[
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "encoding_in_http10"),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: identity\r\n\r\n", 400, "encoding_in_http10"),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400, "length_and_encoding"),
    ]);
}

#[test]
fn bodies_on_get_head_options_follow_the_framing() {
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "TRACE"] {
        let head = accepted(&format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"));
        assert_eq!(head.framing, BodyFraming::Length(3));
    }
}

#[test]
fn only_100_continue_is_expected_else_417() {
    assert!(accepted("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n\r\n").expects_continue);
    assert!(!accepted("POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\n\r\n").expects_continue);
    check_fields_refused(&[
        ("Expect: y", 417, "unknown_expectation"),
        ("Expect:", 417, "unknown_expectation"),
        ("Expect: 100-continue, 100-continue", 417, "unknown_expectation"),
        ("Expect: 100-continue; a=b", 417, "unknown_expectation"),
        ("Expect: 100-continue\r\nExpect: 100-continue", 400, "repeated_field"),
    ]);
}

#[test]
fn upgrade_needs_connection_and_http11() {
    let upgrade =
        |version: &str, fields: &str| accepted(&format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n")).upgrade;
    assert!(upgrade("1.1", "Connection: keep-alive, Upgrade\r\nUpgrade: websocket"));
    assert!(!upgrade("1.1", "Upgrade: websocket"));
    assert!(!upgrade("1.1", "Connection: upgrade"));
    assert!(!upgrade("1.0", "Connection: upgrade\r\nUpgrade: websocket"));
}

#[test]
fn persistence_follows_version_and_connection() {
    for (version, fields, expected) in [
        ("1.1", "X: y", true),
        ("1.1", "Connection: close", false),
        ("1.1", "Connection: x , CLOSE", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close", false),
        ("1.1", "Connection: closed", true),
        ("1.0", "X: y", false),
        ("1.0", "Connection: Keep-Alive", true),
        ("1.0", "Connection: keep-alive, close", false),
    ] {
        let head = accepted(&format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n"));
        assert_eq!(head.keep_alive, expected, "{version} {fields}");
    }
}

#[test]
fn exactly_one_host_in_http11() {
    check_refused(&[
        (b"GET / HTTP/1.1\r\n\r\n", 400, "missing_host"),
        (b"GET http://a/ HTTP/1.1\r\n\r\n", 400, "missing_host"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "repeated_host"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", 400, "repeated_host"),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400, "repeated_host"),
    ]);
    assert_eq!(accepted("GET / HTTP/1.0\r\n\r\n").authority, "");
}

#[test]
fn host_is_a_valid_authority() {
    for host in [
        "",
        "u@a",
        "u:p@a",
        "a/b",
        "a,b",
        "a, a",
        "a b",
        "a?b",
        "a#b",
        "a\\b",
        "a:",
        "a:x",
        "a:-1",
        "a:65536",
        "a:000080",
        ":80",
        "[::1",
        "::1",
        "[::1]x",
        "[::1]:",
        "[::g]",
        "[fe80::1%25eth0]",
        "[v1.a]",
        "a%2",
        "a%zz",
        "h\u{e9}",
        "a\"b",
        "<a>",
        "http://a",
        "a:80:80",
        "[]",
    ] {
        check_refused(&[(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), 400, "bad_host")]);
    }
    for host in
        ["a", "A.b-c_d.", "127.0.0.1:8000", "[::1]", "[::ffff:1.2.3.4]:443", "a:0", "a%20b", "xn--bcher-kva.example"]
    {
        assert_eq!(accepted(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).authority, host);
    }
}

#[test]
fn absolute_form_replaces_host() {
    for (target, authority, path) in [
        ("http://b.example/x?y", "b.example", "/x?y"),
        ("HTTPS://b:8443", "b:8443", "/"),
        ("http://b?q", "b", "/?q"),
        ("http://[::1]:80/", "[::1]:80", "/"),
    ] {
        let head = accepted(&format!("GET {target} HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n"));
        assert_eq!((head.authority.as_str(), head.target.as_str()), (authority, path));
        assert_eq!(head.headers.get_str("host"), Some(authority));
        assert_eq!(head.headers.count("host"), 1);
    }
    assert_eq!(accepted("GET http://b/ HTTP/1.0\r\n\r\n").headers.get_str("host"), Some("b"));
    check_refused(&[
        (b"GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_host"),
        (b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_host"),
        (b"GET http://b/ HTTP/1.1\r\nHost: a,b\r\n\r\n", 400, "bad_host"),
        (b"GET ftp://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        (b"GET http:/b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
    ]);
}

#[test]
fn asterisk_only_with_options_and_authority_form_only_with_connect() {
    assert_eq!(accepted("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target, "*");
    let head = accepted("CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((head.target.as_str(), head.authority.as_str()), ("", "b:443"));
    check_refused(&[
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        (b"OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        (b"GET b:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        (b"CONNECT b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        (b"CONNECT http://b:80/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
    ]);
}

#[test]
fn fragment_control_high_bytes_and_backslash_in_the_target_are_400() {
    check_refused(&[
        (b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        (b"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
        (b"GET http://b/#f HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
    ]);
}

#[test]
fn repeated_singletons_are_400() {
    for name in [
        "Authorization",
        "Proxy-Authorization",
        "Content-Type",
        "Content-Range",
        "Content-Location",
        "Range",
        "If-Range",
        "If-Modified-Since",
        "If-Unmodified-Since",
        "Max-Forwards",
        "User-Agent",
        "Referer",
        "Origin",
        "From",
        "Date",
    ] {
        let lower = name.to_ascii_lowercase();
        check_fields_refused(&[(&format!("{name}: a\r\nX: y\r\n{lower}: a"), 400, "repeated_field")]);
    }
    let head = accepted("GET / HTTP/1.1\r\nHost: a\r\nCookie: a\r\nCookie: b\r\nAccept: c\r\nAccept: d\r\n\r\n");
    assert_eq!(head.headers.count("cookie"), 2);
}

#[test]
fn sizes_are_bounded_and_reported_early() {
    let limits = HeadLimits { head_bytes: 200, target_bytes: 20, fields: 3 };
    let parse = |input: &str| parse_request_head(input.as_bytes(), &limits, &mut RequestHead::default());
    let long_target = "a".repeat(20);
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count));
    for (input, expected) in [
        (format!("GET /{long_target}"), HeadError::TargetTooLong),
        (format!("GET /{long_target} HTTP/1.1\r\nHost: a\r\n\r\n"), HeadError::TargetTooLong),
        (format!("GET /{}", "a".repeat(500)), HeadError::TargetTooLong),
        (format!("GET http://a/{long_target} "), HeadError::TargetTooLong),
        (fields(3), HeadError::TooManyFields),
        (format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(200)), HeadError::HeadTooLarge),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(200)), HeadError::HeadTooLarge),
    ] {
        assert_eq!(parse(&input), Err(expected), "{input}");
    }
    let exact = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(200 - 32));
    assert_eq!((exact.len(), parse(&exact)), (200, Ok(Parsed::Complete(200))));
    assert_eq!(parse(&exact[..199]), Ok(Parsed::Partial));
    assert!(parse(&fields(2)).is_ok() && parse(&format!("GET /{}", &long_target[1..])).is_ok());
    assert_eq!((HeadError::TargetTooLong.status(), HeadError::HeadTooLarge.status()), (414, 431));
    assert_eq!(HeadError::TooManyFields.status(), 431);
}

#[test]
fn what_follows_the_head_is_left_alone() {
    let first = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
    let pipelined = format!("{first}GET /2 HTTP/1.1\nbroken");
    assert_eq!(request(pipelined.as_bytes()).0, Ok(Parsed::Complete(first.len())));
}

#[test]
fn byte_by_byte_only_few_parses_are_worth_it() {
    let input = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: yyyyyyyyyyyyyyyy\r\n".repeat(150));
    let (mut parses, mut outcome) = (0, Ok(Parsed::Partial));
    for len in 1..=input.len() {
        if worth_parsing(&input.as_bytes()[..len], len - 1, &HeadLimits::default()) {
            parses += 1;
            outcome = request(&input.as_bytes()[..len]).0;
        }
    }
    assert_eq!((parses, outcome), (2, Ok(Parsed::Complete(input.len()))));
}

#[test]
fn worth_parsing_notices_what_can_be_decided() {
    let limits = HeadLimits { head_bytes: 400, target_bytes: 100, fields: 9 };
    let long = vec![b'a'; 500];
    let worth = |input: &[u8], seen: usize| worth_parsing(input, seen, &limits);
    assert!(worth(b"G", 0));
    assert!(!worth(b"GET", 1));
    assert!(!worth(b"GET / HTTP/1.1\r\n", 15));
    assert!(worth(b"GET / HTTP/1.1\n", 14));
    assert!(worth(b"a\r\n\r\nbody", 4));
    assert!(!worth(b"a\r\n\r\nbody", 5));
    assert!(worth(&long[..180], 120) && !worth(&long[..190], 180) && worth(&long[..400], 399));
}

#[test]
fn responses_are_framed_as_rfc_9112_6_3_says() {
    use BodyFraming::{Chunked, Length, None, UntilClose};
    for (method, status, fields, framing, keep_alive) in [
        (Method::Get, 200, "Content-Length: 5\r\n", Length(5), true),
        (Method::Get, 200, "Content-Length: 0\r\n", Length(0), true),
        (Method::Get, 200, "Transfer-Encoding: Chunked\r\n", Chunked, true),
        (Method::Get, 200, "", UntilClose, false),
        (Method::Get, 200, "Connection: close\r\nContent-Length: 1\r\n", Length(1), false),
        (Method::Get, 200, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Chunked, false),
        (Method::Get, 200, "Content-Length: 5\r\nContent-Length: 5\r\n", Length(5), true),
        (Method::Get, 200, "Content-Length: 5, 5\r\n", Length(5), true),
        (Method::Head, 200, "Content-Length: 5\r\n", None, true),
        (Method::Head, 200, "Transfer-Encoding: chunked\r\n", None, true),
        (Method::Head, 200, "", None, true),
        (Method::Get, 304, "Content-Length: 5\r\n", None, true),
        (Method::Get, 204, "", None, true),
        (Method::Get, 204, "Content-Length: 0\r\n", None, true),
        (Method::Get, 204, "Content-Length: 5\r\n", None, false),
        (Method::Get, 100, "", None, true),
        (Method::Get, 103, "Link: x\r\n", None, true),
        (Method::Get, 101, "Upgrade: websocket\r\nConnection: upgrade\r\n", None, false),
        (Method::Connect, 200, "Content-Length: 5\r\n", None, false),
        (Method::Connect, 407, "Content-Length: 5\r\n", Length(5), true),
    ] {
        let head = response(&format!("HTTP/1.1 {status} X\r\n{fields}\r\n"), &method).unwrap();
        assert_eq!((head.framing, head.keep_alive), (framing, keep_alive), "{method:?} {status} {fields}");
        assert!(head.headers.count("Content-Length") <= 1);
    }
}

#[test]
fn a_response_with_both_lengths_loses_content_length_and_reuse() {
    let head =
        response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", &Method::Get).unwrap();
    assert!(!head.headers.contains("content-length") && !head.keep_alive);
    let head = response("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", &Method::Get).unwrap();
    assert_eq!(head.headers.get_str("content-length"), Some("5"));
}

#[test]
fn responses_that_could_be_misread_are_refused() {
    for (input, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", HeadError::RepeatedContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", HeadError::RepeatedContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", HeadError::BadContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", HeadError::BadContentLength),
        ("HTTP/1.1 304 OK\r\nContent-Length: x\r\n\r\n", HeadError::BadContentLength),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", HeadError::UnknownTransferCoding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", HeadError::BadTransferEncoding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", HeadError::BadTransferEncoding),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            HeadError::BadTransferEncoding,
        ),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HeadError::EncodingInHttp10),
        ("HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n", HeadError::ObsFold),
        ("HTTP/1.1 200 OK\r\nX : y\r\n\r\n", HeadError::SpaceBeforeColon),
        ("HTTP/1.1 200 OK\nX: y\r\n\r\n", HeadError::BareLf),
        ("HTTP/1.1 200 OK\r\nX: y\r\n\n", HeadError::BareLf),
        ("HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", HeadError::BareCr),
        ("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", HeadError::FieldValue),
        ("HTTP/1.1 20 OK\r\n\r\n", HeadError::StatusLine),
        ("HTTP/1.1 099 OK\r\n\r\n", HeadError::StatusLine),
        ("HTTP/1.1 2000 OK\r\n\r\n", HeadError::StatusLine),
        ("HTTP/2.0 200 OK\r\n\r\n", HeadError::UnsupportedVersion),
        ("http/1.1 200 OK\r\n\r\n", HeadError::StatusLine),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", HeadError::StatusLine),
        ("hello", HeadError::StatusLine),
    ] {
        assert_eq!(response(input, &Method::Get).map(|head| head.status), Err(expected), "{input:?}");
    }
}

#[test]
fn responses_without_a_reason_are_taken() {
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 200 \u{e9}"] {
        let head = response(&format!("{line}\r\nContent-Length: 0\r\n\r\n"), &Method::Get).unwrap();
        assert_eq!((head.status, head.reason.as_str()), (200, ""));
    }
    assert_eq!(response("HTTP/1.0 404 Not Found\r\n\r\n", &Method::Get).unwrap().reason, "Not Found");
}

#[test]
fn advisory_hyper_2021_0020_lenient_transfer_encoding() {
    // A final coding that only contains `chunked`, and several Transfer-Encoding fields, were taken as chunked.
    check_fields_refused(&[
        ("Transfer-Encoding: chunkedfoo", 501, "unknown_transfer_coding"),
        ("Transfer-Encoding: foo, bar chunked", 400, "bad_transfer_encoding"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: foo", 400, "bad_transfer_encoding"),
    ]);
}

#[test]
fn advisory_hyper_2021_0078_plus_sign_in_content_length() {
    check_fields_refused(&[("Content-Length: +3", 400, "bad_content_length")]);
    assert_eq!(
        response("HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\n", &Method::Get).map(|head| head.framing),
        Err(HeadError::BadContentLength)
    );
}

#[test]
fn advisory_pingora_2026_0034_http10_with_several_transfer_encodings() {
    let input = b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(request(input).0.unwrap_err().status(), 400);
    let input = b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
    assert_eq!(request(input).0, Err(HeadError::EncodingInHttp10));
}

/// Pieces of heads, good and bad, to be strung together.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => Just(&b"GET / HTTP/1.1\r\nHost: a\r\n"[..]),
        1 => Just(&b"POST http://b/c?d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"[..]),
        1 => Just(&b"HTTP/1.1 200 OK\r\n"[..]),
        1 => Just(&b"Transfer-Encoding: chunked\r\n"[..]),
        1 => Just(&b"Connection: close, x-forwarded-for, te\r\nTE: trailers\r\n"[..]),
        1 => Just(&b"Expect: 100-continue\r\n"[..]),
        1 => Just(&b"X: "[..]),
        1 => Just(&b" "[..]),
        1 => Just(&b"\r"[..]),
        1 => Just(&b"\n"[..]),
        1 => Just(&b":"[..]),
        3 => Just(&b"\r\n"[..]),
        1 => Just(&b"\r\n\r\n"[..]),
        1 => Just(&b"\xff\0"[..]),
    ];
    proptest::collection::vec(piece, 0..9).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_head_panics_or_reads_differently_in_pieces(input in pieces()) {
        crate::fuzzing::request_head(&input);
    }

    #[test]
    fn any_bytes_are_answered(input in proptest::collection::vec(any::<u8>(), 0..80)) {
        crate::fuzzing::request_head(&input);
        let mut head = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        head.extend_from_slice(&input);
        crate::fuzzing::request_head(&head);
    }
}
