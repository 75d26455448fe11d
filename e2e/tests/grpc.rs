//! gRPC through the gateway with a gRPC stack on both ends, and what clients get when there is no good answer.

use gateward_e2e::grpc::{GrpcServer, client, runtime};
use gateward_e2e::{Metrics, curl, exchange, has_tool, one_route, with_plugins};
use gateward_testkit::{Backend, Gateway, eventually, free_port};
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;
use tonic::{Code, Request};

/// A service `echo` at `url` and a route for gRPC.
fn config(url: &str, fields: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- {{name: echo, url: '{url}', retries: 0{fields}, routes: [{{name: calls, protocols: [grpc, grpcs], paths: [/]}}]}}\n"
    )
}

fn start() -> (Gateway, GrpcServer) {
    let server = GrpcServer::start();
    (Gateway::start(&config(&server.url(), "")), server)
}

fn calls(gateway: &Gateway, status: &str) -> f64 {
    Metrics::scrape(gateway).sum("gateward_grpc_calls_total", &[&format!("grpc_status=\"{status}\"")])
}

fn outcome(gateway: &Gateway, outcome: &str) -> f64 {
    Metrics::scrape(gateway).sum("gateward_requests_total", &[&format!("outcome=\"{outcome}\"")])
}

#[test]
fn unary_calls_carry_metadata_both_ways() {
    let (gateway, _server) = start();
    runtime().block_on(async {
        let mut client = client(gateway.proxy()).await;
        let response = client.unary("/test.Echo/One", Request::new(b"hello".to_vec())).await.unwrap();
        assert_eq!(response.metadata().get("x-back").unwrap(), "yes");
        assert_eq!(response.get_ref(), b"hello");
        let mut request = Request::new(Vec::new());
        request.metadata_mut().insert("x-there", "1".parse().unwrap());
        request.metadata_mut().insert_bin("x-bytes-bin", tonic::metadata::MetadataValue::from_bytes(&[0, 255]));
        let seen = client.unary("/test.Echo/Seen", request).await.unwrap().into_inner();
        let seen = String::from_utf8(seen).unwrap();
        for line in ["x-there: 1\n", "x-bytes-bin: AP8", "te: trailers\n", "content-type: application/grpc\n"] {
            assert!(seen.contains(line), "{line} in {seen}");
        }
        assert!(seen.contains("x-forwarded-for: 127.0.0.1\n") && !seen.contains("connection:"), "{seen}");
    });
    assert_eq!((calls(&gateway, "0"), outcome(&gateway, "ok")), (2.0, 2.0));
    gateway.assert_no_errors();
}

#[test]
fn streams_of_either_side_pass() {
    let (gateway, _server) = start();
    runtime().block_on(async {
        let mut client = client(gateway.proxy()).await;
        let mut messages = client.server_streaming(b"1000").await.unwrap().into_inner();
        let mut count = 0;
        while let Some(message) = messages.message().await.unwrap() {
            assert_eq!(message, format!("message {count}").into_bytes());
            count += 1;
        }
        assert_eq!(count, 1000);
        assert!(messages.trailers().await.unwrap().is_some());
        // 20 MB, beyond every window.
        let many = tokio_stream::iter((0..200).map(|_| vec![7; 100_000]));
        let counted = client.client_streaming(many).await.unwrap().into_inner();
        assert_eq!(counted, b"200 20000000");
        assert_eq!(client.client_streaming(tokio_stream::empty()).await.unwrap().into_inner(), b"0 0");
    });
    gateway.assert_no_errors();
}

#[test]
fn both_sides_talk_at_the_same_time() {
    let (gateway, _server) = start();
    runtime().block_on(async {
        let mut client = client(gateway.proxy()).await;
        let (send, receive) = tokio::sync::mpsc::channel(1);
        let said = tokio_stream::wrappers::ReceiverStream::new(receive);
        // The response's head comes before the first message.
        let mut heard = client.streaming(said).await.unwrap().into_inner();
        for index in 0..200 {
            let message = format!("{index}").repeat(50).into_bytes();
            send.send(message.clone()).await.unwrap();
            assert_eq!(heard.next().await.unwrap().unwrap(), message);
        }
        drop(send);
        assert!(heard.next().await.is_none());
    });
    gateway.assert_no_errors();
}

#[test]
fn statuses_pass_and_say_whose_fault_it_was() {
    let (gateway, _server) = start();
    runtime().block_on(async {
        let mut client = client(gateway.proxy()).await;
        for (code, expected) in [("5", Code::NotFound), ("14", Code::Unavailable), ("13", Code::Internal)] {
            let status = client.unary("/test.Echo/Fail", Request::new(code.into())).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (expected, "as asked: 100 %"));
        }
        let status = client.unary("/test.Echo/Nothing", Request::new(Vec::new())).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    });
    assert_eq!((outcome(&gateway, "upstream"), outcome(&gateway, "client")), (2.0, 2.0));
    assert_eq!((calls(&gateway, "14"), calls(&gateway, "5"), calls(&gateway, "12")), (1.0, 1.0, 1.0));
}

#[test]
fn failures_of_the_gateway_are_statuses() {
    runtime().block_on(async {
        let unreachable = Gateway::start(&config("grpc://127.0.0.1:1", ""));
        let status = client(unreachable.proxy()).await.unary("/a.B/C", Request::new(vec![1])).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert_eq!(status.message(), "An invalid response was received from the upstream server");
        assert_eq!((calls(&unreachable, "14"), outcome(&unreachable, "upstream")), (1.0, 1.0));

        let server = GrpcServer::start();
        let routeless = Gateway::start(&config(&server.url(), "").replace("paths: [/]", "paths: [/other]"));
        let status = client(routeless.proxy()).await.unary("/a.B/C", Request::new(vec![1])).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unimplemented, "no Route matched with those values"));

        let locked = Gateway::start(&with_plugins(&config(&server.url(), ""), &["{name: key-auth}"]));
        let status = client(locked.proxy()).await.unary("/test.Echo/One", Request::new(vec![1])).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "No API key found in request"));
        assert_eq!(outcome(&locked, "client"), 1.0);
    });
}

#[test]
fn a_deadline_is_kept_and_passed_on() {
    if !has_tool("curl") {
        return;
    }
    let (gateway, _server) = start();
    runtime().block_on(async {
        let mut client = client(gateway.proxy()).await;
        let mut request = Request::new(Vec::new());
        request.set_timeout(Duration::from_secs(20));
        let seen = client.unary("/test.Echo/Seen", request).await.unwrap().into_inner();
        let seen = String::from_utf8(seen).unwrap();
        let left = seen.lines().find_map(|line| line.strip_prefix("grpc-timeout: ")).expect("a timeout");
        let left_us: u64 = left.strip_suffix('u').and_then(|digits| digits.parse().ok()).expect("microseconds");
        assert!((1..20_000_000).contains(&left_us), "{left}");
    });
    // A server would keep the deadline too; this one knows nothing of it.
    let silent = Backend::raw(|_, mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let gateway = Gateway::start(&config(&silent.url().replace("http:", "grpc:"), ""));
    let message = gateway.dir().join("message");
    std::fs::write(&message, [0; 5]).unwrap();
    let (body, url) = (format!("@{}", message.display()), format!("http://{}/test.Echo/Hang", gateway.proxy()));
    let (grpc, timeout) = ("content-type: application/grpc", "grpc-timeout: 300m");
    let began = Instant::now();
    let out = curl(&["--http2-prior-knowledge", "-i", "--data-binary", &body, "-H", grpc, "-H", timeout, &url]);
    let text = String::from_utf8_lossy(&out.stdout).to_lowercase();
    assert!(text.starts_with("http/2 200") && text.contains("grpc-status: 4"), "{text}");
    assert!(began.elapsed() >= Duration::from_millis(300) && began.elapsed() < Duration::from_secs(10));
    assert_eq!((calls(&gateway, "4"), outcome(&gateway, "upstream")), (1.0, 1.0));
    eventually(Duration::from_secs(5), || Metrics::scrape(&gateway).sum("gateward_requests_in_flight", &[]) == 0.0);
}

#[test]
fn routes_for_grpc_take_nothing_else() {
    if !has_tool("curl") {
        return;
    }
    let (gateway, _server) = start();
    let plain = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(exchange(gateway.proxy(), "GET", plain).status, 415);
    let old = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";
    let response = exchange(gateway.proxy(), "POST", old);
    assert_eq!((response.status, response.header("upgrade")), (426, Some("HTTP/2")));
    let url = format!("http://{}/", gateway.proxy());
    let out = curl(&["--http2-prior-knowledge", "-w", "%{http_code}", "-o", "/dev/null", &url]);
    assert_eq!(out.stdout, b"415");
    let secure = config("grpc://127.0.0.1:1", "").replace("[grpc, grpcs]", "[grpcs]");
    let gateway = Gateway::start(&secure);
    runtime().block_on(async {
        let status = client(gateway.proxy()).await.unary("/a.B/C", Request::new(vec![1])).await.unwrap_err();
        assert_eq!(status.message(), "Please use HTTPS protocol");
    });
}

#[test]
fn many_calls_share_few_connections() {
    let (gateway, server) = start();
    runtime().block_on(async {
        let client = client(gateway.proxy()).await;
        let mut calls = tokio::task::JoinSet::new();
        for index in 0..1000 {
            let mut client = client.clone();
            calls.spawn(async move {
                let message = format!("call {index}").into_bytes();
                let response = client.unary("/test.Echo/One", Request::new(message.clone())).await.expect("an answer");
                assert_eq!(response.into_inner(), message);
            });
        }
        while let Some(call) = calls.join_next().await {
            call.expect("no call fails");
        }
    });
    assert_eq!(calls(&gateway, "0"), 1000.0);
    assert!(server.connections() <= 4, "{}", server.connections());
    gateway.assert_no_errors();
}

#[test]
fn servers_that_say_goodbye_cost_no_call() {
    let server = GrpcServer::start_leaving(Duration::from_millis(50));
    let gateway = Gateway::start(&config(&server.url(), "").replace("retries: 0", "retries: 2"));
    runtime().block_on(async {
        let mut client = client(gateway.proxy()).await;
        let began = Instant::now();
        while server.connections() < 10 {
            assert!(began.elapsed() < Duration::from_secs(20), "{} connections", server.connections());
            client.unary("/test.Echo/One", Request::new(b"x".to_vec())).await.expect("an answer");
        }
    });
    assert_eq!(outcome(&gateway, "upstream"), 0.0);
}

#[test]
fn a_service_over_http1_is_no_grpc_server() {
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    runtime().block_on(async {
        let status = client(gateway.proxy()).await.unary("/a.B/C", Request::new(vec![1])).await.unwrap_err();
        assert_ne!(status.code(), Code::Ok);
    });
}

/// A frame of gRPC: no compression, the length, the message.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

#[test]
fn browsers_speak_grpc_web() {
    let server = GrpcServer::start();
    let web = config(&server.url(), "").replace("[grpc, grpcs]", "[http, https]");
    let gateway = Gateway::start(&with_plugins(&web, &["{name: grpc-web}"]));
    let post = |path: &str, content_type: &str, body: &[u8]| {
        let head = format!(
            "POST /test.Echo/{path} HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        exchange(gateway.proxy(), "POST", &[head.as_bytes(), body].concat())
    };
    let response = post("One", "application/grpc-web+proto", &framed(b"hello"));
    assert_eq!(response.header("content-type"), Some("application/grpc-web+proto"));
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert!(response.trailers.is_empty());
    let (message, trailers) = response.body.split_at(10);
    assert_eq!(message, framed(b"hello"));
    assert_eq!((trailers[0], String::from_utf8_lossy(&trailers[5..]).into_owned()), (0x80, "grpc-status:0\r\n".into()));
    let text = post("One", "application/grpc-web-text", b"AAAAAAVoZWxsbw==");
    assert!(text.text().starts_with("AAAAAAVoZWxsb4AAAAA"), "{}", text.text());
    let many = post("Many", "application/grpc-web", &framed(b"3"));
    assert_eq!(many.body.windows(7).filter(|window| *window == b"message").count(), 3);
    let failed = post("Fail", "application/grpc-web", &framed(b"5"));
    assert_eq!((failed.status, failed.header("grpc-status")), (200, Some("5")));
    assert_eq!(post("One", "application/json", b"{}").status, 400);
    assert_eq!((outcome(&gateway, "ok"), calls(&gateway, "5"), calls(&gateway, "0")), (3.0, 1.0, 3.0));
}

#[test]
fn the_example_starts_with_one_command() {
    let (address, backend, backend_tls) = (free_port(), free_port(), free_port());
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/grpc/run.sh");
    let mut child = std::process::Command::new(script)
        .env("GATEWARD", gateward_testkit::gateward_command().get_program())
        .env("GRPC_ECHO", env!("CARGO_BIN_EXE_grpc_echo"))
        .env("PORT", address.port().to_string())
        .env("BACKEND_PORT", backend.port().to_string())
        .env("BACKEND_TLS_PORT", backend_tls.port().to_string())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the script starts");
    eventually(Duration::from_secs(20), || {
        [address, backend, backend_tls].iter().all(|address| std::net::TcpStream::connect(address).is_ok())
    });
    runtime().block_on(async {
        let mut client = client(address).await;
        let response = client.unary("/test.Echo/One", Request::new(b"hello".to_vec())).await.expect("an answer");
        assert_eq!(response.into_inner(), b"hello");
        let mut over_tls = Request::new(b"secret".to_vec());
        over_tls.metadata_mut().insert("x-backend", "tls".parse().expect("a value"));
        let response = client.unary("/test.Echo/One", over_tls).await.expect("an answer");
        assert_eq!(response.into_inner(), b"secret");
    });
    let body = framed(b"hello");
    let head = format!(
        "POST /web/test.Echo/One HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let response = exchange(address, "POST", &[head.as_bytes(), &body].concat());
    assert_eq!((response.status, &response.body[..10]), (200, &body[..]));
    let _ = std::process::Command::new("kill").arg(child.id().to_string()).status();
    let _ = child.wait();
}
