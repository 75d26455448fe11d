//! gRPC over TLS on both sides of the gateway, with tonic at both ends: calls, who is believed, and who asks.

use gateward_e2e::grpc::{GrpcServer, client, client_tls, runtime};
use gateward_e2e::{Authority, Metrics, has_tool, indented};
use gateward_testkit::{Gateway, eventually, free_port, http};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio_stream::StreamExt;
use tonic::{Code, Request};

const CA_ID: &str = "2a1f4c3e-52f4-4f0c-8c52-6c6f1b1b6a01";
const CLIENT_ID: &str = "2a1f4c3e-52f4-4f0c-8c52-6c6f1b1b6a02";
const PATIENCE: Duration = Duration::from_secs(15);

/// A service at `localhost:port` and a route for it.
fn config(port: u16, fields: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- {{name: echo, url: 'grpcs://localhost:{port}', retries: 0{fields}, routes: [{{name: calls, protocols: [grpc, grpcs], paths: [/]}}]}}\n"
    )
}

fn trusting(authority: &Authority) -> String {
    format!("ca_certificates:\n- id: {CA_ID}\n  cert: |\n{}", indented(authority.pem()))
}

/// Believes in the authority of [`trusting`].
fn verified() -> String {
    format!(", tls_verify: true, ca_certificates: [{CA_ID}]")
}

fn outcome(gateway: &Gateway, outcome: &str) -> f64 {
    Metrics::scrape(gateway).sum("gateward_requests_total", &[&format!("outcome=\"{outcome}\"")])
}

#[test]
fn calls_of_all_kinds_pass_with_tls_on_both_sides() {
    let authority = Authority::new();
    let server = GrpcServer::start_tls("127.0.0.1:0", &authority.issue("localhost"), None);
    let config = format!(
        "{}{}certificates:\n{}",
        config(server.addr().port(), &verified()),
        trusting(&authority),
        authority.issue("gateway.test").entity(&["gateway.test"])
    );
    let gateway = Gateway::builder(&config).proxy_listen("127.0.0.1:0, 127.0.0.1:0 http2 ssl").start();
    runtime().block_on(async {
        let mut client = client_tls(gateway.proxy_at(1), authority.pem(), "gateway.test").await;
        let response = client.unary("/test.Echo/One", Request::new(b"hello".to_vec())).await.unwrap();
        assert_eq!(response.metadata().get("x-back").unwrap(), "yes");
        assert_eq!(response.get_ref(), b"hello");
        let seen = client.unary("/test.Echo/Seen", Request::new(Vec::new())).await.unwrap().into_inner();
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains("x-forwarded-proto: https\n") && seen.contains("te: trailers\n"), "{seen}");

        let mut messages = client.server_streaming(b"1000").await.unwrap().into_inner();
        let mut count = 0;
        while let Some(message) = messages.message().await.unwrap() {
            assert_eq!(message, format!("message {count}").into_bytes());
            count += 1;
        }
        assert_eq!(count, 1000);
        let many = tokio_stream::iter((0..200).map(|_| vec![7; 100_000]));
        assert_eq!(client.client_streaming(many).await.unwrap().into_inner(), b"200 20000000");
        let (send, receive) = tokio::sync::mpsc::channel(1);
        let said = tokio_stream::wrappers::ReceiverStream::new(receive);
        let mut heard = client.streaming(said).await.unwrap().into_inner();
        for index in 0..100 {
            let message = format!("{index}").repeat(50).into_bytes();
            send.send(message.clone()).await.unwrap();
            assert_eq!(heard.next().await.unwrap().unwrap(), message);
        }
        drop(send);
        assert!(heard.next().await.is_none());

        // A status without a message, and a deadline.
        let status = client.unary("/test.Echo/Fail", Request::new(b"5".to_vec())).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "as asked: 100 %"));
        let mut late = Request::new(Vec::new());
        late.set_timeout(Duration::from_millis(300));
        let status = client.unary("/test.Echo/Hang", late).await.unwrap_err();
        assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    });
    assert!(server.connections() <= 4, "shared: {}", server.connections());
    gateway.assert_no_errors();
}

#[test]
fn a_server_that_cannot_be_verified_is_unavailable() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = GrpcServer::start_tls("127.0.0.1:0", &authority.issue("localhost"), None);
    let misnamed = GrpcServer::start_tls("127.0.0.1:0", &authority.issue("other.test"), None);
    let call = |gateway: &Gateway| {
        let addr = gateway.proxy();
        runtime().block_on(async move {
            client(addr)
                .await
                .unary("/test.Echo/One", Request::new(b"x".to_vec()))
                .await
                .map(tonic::Response::into_inner)
        })
    };
    for (port, believed, works) in [
        (server.addr().port(), &authority, true),
        (server.addr().port(), &stranger, false),
        (misnamed.addr().port(), &authority, false),
    ] {
        let gateway = Gateway::start(&format!("{}{}", config(port, &verified()), trusting(believed)));
        match call(&gateway) {
            Ok(message) => assert!(works && message == b"x"),
            Err(status) => {
                assert!(!works, "{status:?}");
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                gateway.expect_log("TLS handshake with an upstream failed");
                assert_eq!(outcome(&gateway, "upstream"), 1.0);
            }
        }
    }
    // Unless asked to, nobody verifies: Kong's default.
    let gateway = Gateway::start(&config(misnamed.addr().port(), ""));
    assert_eq!(call(&gateway).unwrap(), b"x");
    gateway.expect_log("do not verify their upstream's certificate (echo)");
}

#[test]
fn a_server_without_http2_is_named() {
    if !has_tool("openssl") {
        return;
    }
    let authority = Authority::new();
    let dir = std::env::temp_dir().join(format!("gateward-s-server-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("directories can be made");
    let (cert, key) = authority.issue("localhost").write(&dir, "server");
    let port = free_port().port();
    // It speaks TLS and knows nothing of ALPN.
    let mut server = Command::new("openssl")
        .args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-cert"])
        .arg(cert)
        .arg("-key")
        .arg(key)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    eventually(PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let gateway = Gateway::start(&config(port, ""));
    let addr = gateway.proxy();
    let call = async move { client(addr).await.unary("/a.B/C", Request::new(b"x".to_vec())).await.unwrap_err() };
    let status = runtime().block_on(call);
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "the upstream server does not speak HTTP/2 over TLS")
    );
    let named = |line: &String| line.contains("an upstream does not speak HTTP/2 over TLS") && line.contains("echo");
    eventually(PATIENCE, || gateway.log().iter().any(named));
    let _ = server.kill();
    let _ = server.wait();
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn the_gateway_shows_its_certificate_to_who_asks() {
    let authority = Authority::new();
    let server = GrpcServer::start_tls("127.0.0.1:0", &authority.issue("localhost"), Some(authority.pem()));
    let shown = authority.issue("gateway");
    let certificate = format!(
        "certificates:\n- id: {CLIENT_ID}\n  cert: |\n{}  key: |\n{}",
        indented(&shown.cert),
        indented(&shown.key)
    );
    let port = server.addr().port();
    for (fields, works) in [(format!(", client_certificate: {CLIENT_ID}"), true), (String::new(), false)] {
        let gateway = Gateway::start(&format!("{}{certificate}", config(port, &fields)));
        let addr = gateway.proxy();
        let answer = runtime()
            .block_on(async move { client(addr).await.unary("/test.Echo/One", Request::new(b"x".to_vec())).await });
        match answer {
            Ok(_) => assert!(works),
            Err(status) => assert_eq!((works, status.code()), (false, Code::Unavailable), "{status:?}"),
        }
    }
}

#[test]
fn two_services_at_one_address_share_no_connection_unless_they_trust_alike() {
    let authority = Authority::new();
    let server = GrpcServer::start_tls("127.0.0.1:0", &authority.issue("localhost"), None);
    let url = format!("grpcs://localhost:{}", server.addr().port());
    let services: String = [("a", ""), ("b", ""), ("c", verified().as_str())]
        .iter()
        .map(|(name, fields)| {
            format!("- {{name: {name}, url: '{url}'{fields}, routes: [{{name: {name}, protocols: [grpc, grpcs], headers: {{x-to: [{name}]}}}}]}}\n")
        })
        .collect();
    let config = format!("_format_version: '3.0'\nservices:\n{services}{}", trusting(&authority));
    let gateway = Gateway::builder(&config).workers(1).start();
    runtime().block_on(async {
        let mut client = client(gateway.proxy()).await;
        for (name, connections) in [("a", 1), ("b", 1), ("c", 2), ("a", 2), ("c", 2)] {
            let mut request = Request::new(b"x".to_vec());
            request.metadata_mut().insert("x-to", name.parse().unwrap());
            client.unary("/test.Echo/One", request).await.expect("an answer");
            assert_eq!(server.connections(), connections, "{name}");
        }
    });
}

/// States of the targets, in their order.
fn shown(gateway: &Gateway) -> Vec<String> {
    let health = http(gateway.admin(), "GET /upstreams/pool/health", &[], b"").json();
    let targets = health["data"].as_array().expect("a list").iter();
    targets.map(|target| target["health"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn servers_are_checked_over_tls() {
    let authority = Authority::new();
    let server = GrpcServer::start_tls("127.0.0.1:0", &authority.issue("localhost"), Some(authority.pem()));
    // Right in everything but the protocol: it serves in the clear.
    let plain = GrpcServer::start();
    let file = std::env::temp_dir().join(format!("gateward-grpcs-ca-{}.pem", std::process::id()));
    std::fs::write(&file, authority.pem()).expect("files can be written");
    let shown_to_servers = authority.issue("gateway");
    let config = format!(
        "_format_version: '3.0'\n\
         upstreams:\n- name: pool\n  client_certificate: {CLIENT_ID}\n  healthchecks: {{active: {{type: grpcs, timeout: 5, https_sni: localhost, \
         healthy: {{interval: 0.1, successes: 1}}, unhealthy: {{interval: 0.1, tcp_failures: 1, http_failures: 1, timeouts: 1}}}}}}\n  \
         targets: [{{target: '{}'}}, {{target: '{}'}}]\n\
         services:\n- {{name: s, protocol: grpcs, host: pool, routes: [{{name: r, protocols: [grpc, grpcs], paths: [/]}}]}}\n\
         certificates:\n- id: {CLIENT_ID}\n  cert: |\n{}  key: |\n{}",
        server.addr(),
        plain.addr(),
        indented(&shown_to_servers.cert),
        indented(&shown_to_servers.key)
    );
    let gateway = Gateway::builder(&config).env("KONG_LUA_SSL_TRUSTED_CERTIFICATE", file.display().to_string()).start();
    eventually(PATIENCE, || shown(&gateway) == ["HEALTHY", "UNHEALTHY"]);
    runtime().block_on(async {
        let mut client = client(gateway.proxy()).await;
        for _ in 0..5 {
            client.unary("/test.Echo/One", Request::new(b"x".to_vec())).await.expect("an answer");
        }
    });
    gateway.expect_log("TLS handshake of a health check failed");
    let _ = std::fs::remove_file(file);
}
