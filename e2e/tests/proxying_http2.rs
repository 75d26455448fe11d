//! HTTP/2 clients with prior knowledge: what reaches an HTTP/1.1 back end, what comes back, and how connections end.

use gateward_e2e::protocol_load::ProtocolLoad;
use gateward_e2e::{Metrics, curl, has_tool, one_route, with_plugins, with_service_fields};
use gateward_testkit::frames::{Frame, get, kind};
use gateward_testkit::{Backend, FrameClient, Gateway, Next, RawClient, eventually, load::Load, pause};
use std::io::Write;
use std::process::Command;
use std::time::Duration;

const PRIOR: &str = "--http2-prior-knowledge";

fn start() -> (Gateway, Backend) {
    let backend = Backend::echo();
    (Gateway::start(&one_route(&backend.url())), backend)
}

#[test]
fn curl_gets_and_posts() {
    if !has_tool("curl") {
        return;
    }
    let (gateway, backend) = start();
    let url = format!("http://{}/a%20b?c=d", gateway.proxy());
    let out = curl(&[PRIOR, "-i", "-H", "Cookie: a=1", "-H", "X-Kong-Debug: 1", &url]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.starts_with("HTTP/2 200"), "{text}");
    assert!(!text.contains("connection:") && text.contains("via: 1.1 gateward/"), "{text}");
    let out = curl(&[PRIOR, "-d", "hello", "-w", "%{http_version} %{http_code}", "-o", "/dev/null", &url]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "2 200");
    let requests = backend.requests();
    assert_eq!((requests[0].method.as_str(), requests[0].target.as_str()), ("GET", "/a%20b?c=d"));
    assert_eq!(requests[0].header("x-forwarded-proto"), Some("http"));
    assert_eq!(requests[1].body, b"hello");
    assert_eq!(requests[1].header("content-length"), Some("5"));
    gateway.assert_no_errors();
}

#[test]
fn large_bodies_pass_both_ways_beyond_every_window() {
    if !has_tool("curl") {
        return;
    }
    let body: String = (0..1_200_000).map(|index| format!("{index}\n")).collect();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let backend = Backend::fixed(&answer);
    let gateway = Gateway::start(&one_route(&backend.url()));
    let url = format!("http://{}/", gateway.proxy());
    let file = gateway.dir().join("up");
    std::fs::write(&file, &body).unwrap();
    let data = format!("@{}", file.display());
    let out = curl(&[PRIOR, "--data-binary", &data, &url]);
    assert!(out.stdout == body.as_bytes(), "{} of {} bytes", out.stdout.len(), body.len());
    let upload = curl(&[PRIOR, "-T", &file.display().to_string(), &url]);
    assert!(upload.stdout == body.as_bytes());
    for request in backend.requests() {
        assert!(request.body == body.as_bytes(), "{} of {} bytes", request.body.len(), body.len());
    }
}

#[test]
fn a_body_of_unknown_length_is_sent_in_chunks_with_its_trailers() {
    let (gateway, backend) = start();
    let mut client = FrameClient::connect(gateway.proxy());
    let mut fields = get("/up");
    fields[0].1 = "POST";
    client.request(1, &fields, false);
    client.data(1, b"wi", false);
    client.data(1, b"ki", false);
    let trailers = gateward_testkit::frames::block(&[("x-sum", "7"), ("authorization", "no")]);
    client.send(&Frame::new(kind::HEADERS, 5, 1, trailers));
    assert_eq!(client.response(1).0, 200);
    let request = &backend.requests()[0];
    assert_eq!(request.body, b"wiki");
    assert_eq!(request.header("transfer-encoding"), Some("chunked"));
    assert_eq!(request.trailers, [("x-sum".to_owned(), "7".to_owned())]);
}

#[test]
fn cookies_are_one_field_again_and_the_host_is_the_authority() {
    let (gateway, backend) = start();
    let mut client = FrameClient::connect(gateway.proxy());
    let mut fields = get("/");
    fields.extend([("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2")]);
    client.request(1, &fields, true);
    assert_eq!(client.response(1).0, 200);
    let request = &backend.requests()[0];
    assert_eq!(request.header_all("cookie"), ["a=1; b=2"]);
    assert_eq!(request.header("x-forwarded-host"), Some("a.b"));
}

#[test]
fn trailers_and_interim_responses_of_the_back_end_arrive() {
    let backend = Backend::scripted(|_, stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
        );
        Next::KeepAlive
    });
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &get("/"), true);
    let frames = client.until(|frame| frame.stream == 1 && frame.ends_stream());
    let heads: Vec<_> = frames.iter().filter(|frame| frame.stream == 1 && frame.kind == kind::HEADERS).collect();
    assert_eq!(heads.len(), 3, "interim, final, trailers: {frames:?}");
    assert!(heads[2].ends_stream());
    let body: Vec<u8> =
        frames.iter().filter(|frame| frame.kind == kind::DATA).flat_map(|frame| frame.payload.clone()).collect();
    assert_eq!(body, b"ok");
}

#[test]
fn responses_without_content_end_with_their_head() {
    let backend = Backend::scripted(|request, stream| {
        let head = match request.target.as_str() {
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        };
        let _ = stream.write_all(head.as_bytes());
        Next::KeepAlive
    });
    let gateway = Gateway::start(&one_route(&backend.url()));
    let mut client = FrameClient::connect(gateway.proxy());
    for (index, (method, path)) in
        [("GET", "/204"), ("GET", "/304"), ("HEAD", "/head"), ("GET", "/0")].iter().enumerate()
    {
        let stream = 2 * index as u32 + 1;
        let mut fields = get(path);
        fields[0].1 = method;
        client.request(stream, &fields, true);
        let frames = client.until(|frame| frame.stream == stream);
        assert!(frames[frames.len() - 1].ends_stream(), "{path}: {frames:?}");
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_response_that_breaks_off_resets_its_stream_only() {
    let backend = Backend::scripted(|request, stream| {
        let length = if request.target == "/whole" { 3 } else { 9 };
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nabc");
        Next::Close
    });
    let gateway = Gateway::start(&with_service_fields(&backend.url(), "retries: 0"));
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &get("/"), true);
    let frames = client.until(|frame| frame.stream == 1 && frame.ends_stream());
    let last = &frames[frames.len() - 1];
    assert_eq!((last.kind, last.code()), (kind::RST_STREAM, 2));
    client.request(3, &get("/whole"), true);
    assert_eq!(client.response(3), (200, b"abc".to_vec()));
}

#[test]
fn plugins_see_bodies_and_answer() {
    let (backend, plugins) = (Backend::echo(), ["{name: request-transformer, config: {add: {body: ['a:b']}}}"]);
    let gateway = Gateway::start(&with_plugins(&one_route(&backend.url()), &plugins));
    let mut client = FrameClient::connect(gateway.proxy());
    let mut fields = get("/");
    fields[0].1 = "POST";
    fields.push(("content-type", "application/x-www-form-urlencoded"));
    client.request(1, &fields, false);
    client.data(1, b"c=d", true);
    assert_eq!(client.response(1).0, 200);
    let body = String::from_utf8_lossy(&backend.requests()[0].body).into_owned();
    assert!(body.contains("c=d") && body.contains("a=b"), "{body}");
    let gateway = Gateway::start(&with_plugins(
        &one_route(&backend.url()),
        &["{name: request-termination, config: {status_code: 418, message: no}}"],
    ));
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &get("/"), true);
    assert_eq!(client.response(1).0, 418);
}

#[test]
fn a_connection_ends_with_goaway_after_its_requests() {
    let backend = Backend::echo();
    let gateway = Gateway::builder(&one_route(&backend.url())).env("GATEWARD_KEEPALIVE_REQUESTS", "3").start();
    let mut client = FrameClient::connect(gateway.proxy());
    for stream in [1, 3, 5] {
        client.request(stream, &get("/"), true);
    }
    let (mut ended, mut goaways) = (0, Vec::new());
    while let Some(frame) = client.read() {
        client.acknowledge(&frame);
        ended += u32::from(frame.ends_stream());
        if frame.kind == kind::GOAWAY {
            goaways.push((frame.last_stream(), frame.code()));
        }
    }
    assert_eq!(ended, 3);
    assert_eq!(goaways, [(0x7fff_ffff, 0), (5, 0)]);
}

#[test]
fn a_drained_node_says_goaway_twice_and_finishes_what_is_under_way() {
    let backend = Backend::scripted(|_, stream| {
        pause(Duration::from_millis(500));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Next::KeepAlive
    });
    let mut gateway = Gateway::builder(&one_route(&backend.url())).start();
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &get("/"), true);
    eventually(Duration::from_secs(5), || backend.request_count() == 1);
    gateway.sigterm();
    let (mut body, mut goaways) = (Vec::new(), Vec::new());
    while let Some(frame) = client.read() {
        if frame.kind == kind::GOAWAY {
            goaways.push(frame.last_stream());
            if goaways.len() == 1 {
                // Sent before the client heard that it should not.
                client.request(3, &get("/"), true);
            }
        }
        client.acknowledge(&frame);
        if frame.kind == kind::DATA {
            body.extend(frame.payload);
        }
    }
    assert_eq!(goaways, [0x7fff_ffff, 3]);
    assert_eq!(body, b"okok");
    assert!(gateway.wait_exit(Duration::from_secs(10)).success());
}

/// What a connection said until its end.
struct Told {
    /// Last stream and code of each GOAWAY.
    goaways: Vec<(u32, u32)>,
    /// Streams that came to their end.
    ended: Vec<u32>,
}

/// Reads to the end of the connection; what `at_first_goaway` sends comes between the two steps.
#[track_caller]
fn read_to_end(client: &mut FrameClient, mut at_first_goaway: impl FnMut(&mut FrameClient)) -> Told {
    let mut told = Told { goaways: Vec::new(), ended: Vec::new() };
    while let Some(frame) = client.read() {
        if frame.kind == kind::GOAWAY {
            told.goaways.push((frame.last_stream(), frame.code()));
            if told.goaways.len() == 1 {
                at_first_goaway(client);
            }
        }
        client.acknowledge(&frame);
        assert_ne!(frame.kind, kind::RST_STREAM, "{frame:?}");
        if frame.ends_stream() {
            told.ended.push(frame.stream);
        }
    }
    told
}

/// A connection over its age is told to go with its next request, in two steps: what crosses the first is served, and so
/// is what is under way.
#[test]
fn an_old_connection_says_goaway_twice_and_finishes_what_is_under_way() {
    let backend = Backend::scripted(|request, stream| {
        if request.target == "/slow" {
            pause(Duration::from_millis(4_000));
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Next::KeepAlive
    });
    let gateway = Gateway::builder(&one_route(&backend.url())).env("GATEWARD_MAX_CONNECTION_AGE", "2").start();
    let mut client = FrameClient::connect(gateway.proxy());
    client.request(1, &get("/slow"), true);
    // Young: requests are served and nothing is said.
    client.request(3, &get("/"), true);
    let frames = client.until(|frame| frame.stream == 3 && frame.ends_stream());
    assert!(frames.iter().all(|frame| frame.kind != kind::GOAWAY), "{frames:?}");
    pause(Duration::from_millis(2_100));
    client.request(5, &get("/"), true);
    let mut told = read_to_end(&mut client, |client| client.request(7, &get("/"), true));
    assert_eq!(told.goaways, [(0x7fff_ffff, 0), (7, 0)]);
    told.ended.sort_unstable();
    assert_eq!(told.ended, [1, 5, 7]);
    assert_eq!(Metrics::scrape(&gateway).sum("gateward_connections_aged_total", &[]), 1.0);
    gateway.stop();
}

/// The same for HTTP/1.1, with `Connection: close`; and a load of both over many lives of its connections.
#[test]
fn load_old_connections_end_without_a_failed_request() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::builder(&one_route(&backend.url())).env("GATEWARD_MAX_CONNECTION_AGE", "200ms").start();
    let mut client = RawClient::connect(gateway.proxy());
    loop {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.read_response("GET");
        assert_eq!(answer.status, 200);
        if answer.closes() {
            break;
        }
    }
    client.expect_closed();
    let aged = || Metrics::scrape(&gateway).sum("gateward_connections_aged_total", &[]);
    eventually(Duration::from_secs(5), || aged() == 1.0);
    let (http1, http2) = (Load::get(gateway.proxy(), "/").connections(4).start(), ProtocolLoad::http2(gateway.proxy()));
    eventually(Duration::from_secs(30), || aged() >= 30.0);
    let report = http1.stop();
    report.assert_all_ok();
    assert!(report.connects >= 8, "{}", report.connects);
    http2.assert_all_ok("HTTP/2");
    gateway.stop();
}

/// h2load, in the clear and over TLS: every answer is good, over connections that live and over many short ones.
#[test]
fn h2load_gets_only_good_answers() {
    if !has_tool("h2load") {
        return;
    }
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let config = one_route(&backend.url());
    let gateway = Gateway::builder(&config).proxy_listen("127.0.0.1:0, 127.0.0.1:0 http2 ssl").start();
    let (plain, secure) = (format!("http://{}/load", gateway.proxy()), format!("https://{}/load", gateway.proxy_at(1)));
    for (url, protocol) in [(&plain, "h2c"), (&secure, "h2")] {
        for (requests, clients, streams) in [("2000", "4", "50"), ("600", "60", "1")] {
            let out = Command::new("h2load").args(["-n", requests, "-c", clients, "-m", streams, url]).output();
            let out = out.expect("h2load runs");
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let all = format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout");
            let good = format!("status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx");
            for expected in [all, good, format!("Application protocol: {protocol}\n")] {
                assert!(text.contains(&expected), "{expected}: {text}{}", String::from_utf8_lossy(&out.stderr));
            }
        }
    }
    // With bodies, by POST.
    let upload = gateway.dir().join("upload");
    std::fs::write(&upload, vec![b'u'; 40_000]).unwrap();
    let out =
        Command::new("h2load").args(["-n", "200", "-c", "2", "-m", "10", "-d"]).arg(&upload).arg(&secure).output();
    let text = String::from_utf8_lossy(&out.expect("h2load runs").stdout).into_owned();
    assert!(text.contains("status codes: 200 2xx, 0 3xx, 0 4xx, 0 5xx"), "{text}");
    assert_eq!(backend.request_count(), 2 * 2600 + 200);
    let metrics = Metrics::scrape(&gateway);
    assert_eq!(metrics.sum("gateward_requests_total", &["outcome=\"ok\""]), 5400.0);
    assert_eq!(metrics.sum("gateward_refusals_total", &[]), 0.0, "{}", metrics.text());
    gateway.stop();
}
