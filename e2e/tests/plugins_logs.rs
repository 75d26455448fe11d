//! Plugins that tell what happened: metrics, and logs to a file and over HTTP.

use gateward_e2e::{Authority, Metrics, has_tool, one_route, with_plugins};
use gateward_testkit::{Backend, Gateway, Next, TempDir, eventually, http};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn prometheus() {
    let backend = Backend::echo();
    let config = with_plugins(
        &one_route(&backend.url()),
        &[
            "{name: prometheus, config: {per_consumer: true, status_code_metrics: true, latency_metrics: true, bandwidth_metrics: true, upstream_health_metrics: true}}",
            "{name: key-auth}",
        ],
    ) + "consumers:\n- {username: alice, keyauth_credentials: [{key: k}]}\n";
    let gateway = Gateway::start(&config);
    for _ in 0..5 {
        assert_eq!(http(gateway.proxy(), "GET /", &[("apikey", "k")], b"").status, 200);
    }
    assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 401);
    let of_route = ["service=\"origin\"", "route=\"all\""];
    eventually(PATIENCE, || Metrics::scrape(&gateway).sum("kong_http_requests_total", &of_route) == 6.0);
    let metrics = Metrics::scrape(&gateway);
    let sum = |name: &str, labels: &[&str]| metrics.sum(name, &[&of_route[..], labels].concat());
    assert_eq!(sum("kong_http_requests_total", &["code=\"200\"", "source=\"service\"", "consumer=\"alice\""]), 5.0);
    assert_eq!(sum("kong_http_requests_total", &["code=\"401\"", "source=\"kong\""]), 1.0, "{}", metrics.text());
    assert_eq!(sum("kong_request_latency_ms_count", &[]), 6.0);
    assert_eq!(sum("kong_upstream_latency_ms_count", &[]), 5.0);
    assert!(sum("kong_bandwidth_bytes", &["direction=\"ingress\""]) > 100.0);
    assert!(sum("kong_bandwidth_bytes", &["direction=\"egress\""]) > 100.0);
    for name in
        ["kong_node_info", "kong_nginx_connections_total", "kong_nginx_requests_total", "kong_datastore_reachable"]
    {
        assert!(metrics.has(name), "{name}");
    }
    gateway.stop();
}

#[test]
fn file_log() {
    let backend = Backend::echo();
    let dir = std::env::temp_dir().join(format!("gateward-file-log-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("directories can be made");
    let file = dir.join("log.json");
    let plugin = format!("{{name: file-log, config: {{path: {}}}}}", file.display());
    let gateway = Gateway::start(&with_plugins(&one_route(&backend.url()), &[&plugin]));
    for index in 0..20 {
        http(gateway.proxy(), &format!("GET /{index}?a=b"), &[("Authorization", "Basic c2VjcmV0")], b"");
    }
    http(gateway.proxy(), "POST /nowhere", &[], b"body");
    let mut text = String::new();
    eventually(PATIENCE, || {
        text = std::fs::read_to_string(&file).unwrap_or_default();
        text.lines().count() == 21
    });
    let records: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect();
    let record = &records[0];
    assert_eq!(record["request"]["method"], "GET", "{record}");
    assert_eq!(record["request"]["uri"], "/0?a=b", "{record}");
    assert_eq!(record["request"]["querystring"]["a"], "b", "{record}");
    assert_eq!(record["response"]["status"], 200, "{record}");
    assert_eq!((record["service"]["name"].as_str(), record["route"]["name"].as_str()), (Some("origin"), Some("all")));
    assert_eq!(record["client_ip"], "127.0.0.1");
    assert_eq!(record["tries"][0]["port"], backend.addr().port(), "{record}");
    for latency in ["request", "kong", "proxy"] {
        assert!(record["latencies"][latency].is_number(), "{latency}: {record}");
    }
    assert!(!text.contains("c2VjcmV0"), "credentials are not logged");
    gateway.stop();
    std::fs::remove_dir_all(&dir).expect("the directory can be removed");
}

#[test]
fn http_log_tries_again() {
    let backend = Backend::echo();
    let failures = Arc::new(AtomicUsize::new(2));
    let sink = Backend::scripted(move |_, stream| {
        let fails = failures.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let response: &[u8] = if fails {
            b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        };
        let _ = stream.write_all(response);
        Next::KeepAlive
    });
    let plugin = format!(
        "{{name: http-log, config: {{http_endpoint: '{}/logs?x=y', headers: {{X-Token: t}}, queue: {{initial_retry_delay: 0.05}}}}}}",
        sink.url()
    );
    let gateway = Gateway::start(&with_plugins(&one_route(&backend.url()), &[&plugin]));
    for index in 0..3 {
        assert_eq!(http(gateway.proxy(), &format!("GET /{index}"), &[], b"").status, 200);
    }
    let delivered = || {
        let mut uris: Vec<String> = sink
            .requests()
            .iter()
            .filter_map(|request| serde_json::from_slice::<serde_json::Value>(&request.body).ok())
            .filter_map(|record| Some(record["request"]["uri"].as_str()?.to_owned()))
            .collect();
        uris.sort();
        uris.dedup();
        uris
    };
    eventually(PATIENCE, || sink.request_count() >= 5 && delivered().len() == 3);
    assert_eq!(delivered(), ["/0", "/1", "/2"]);
    let request = &sink.requests()[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/logs?x=y"));
    assert_eq!((request.header("content-type"), request.header("x-token")), (Some("application/json"), Some("t")));
    gateway.stop();
}

#[test]
fn http_log_sends_batches_and_ends_with_the_gateway() {
    let backend = Backend::echo();
    let sink = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let plugin = format!(
        "{{name: http-log, config: {{http_endpoint: '{}', queue: {{max_batch_size: 50, max_coalescing_delay: 2}}}}}}",
        sink.url()
    );
    let gateway = Gateway::start(&with_plugins(&one_route(&backend.url()), &[&plugin]));
    for _ in 0..20 {
        http(gateway.proxy(), "GET /", &[], b"");
    }
    // What is queued is delivered before the process ends.
    gateway.stop();
    let records: usize = sink
        .requests()
        .iter()
        .filter_map(|request| serde_json::from_slice::<Vec<serde_json::Value>>(&request.body).ok())
        .map(|batch| batch.len())
        .sum();
    assert_eq!(records, 20);
    assert!(sink.request_count() < 20, "batches, not single records: {}", sink.request_count());
}

/// nginx that speaks TLS and passes what it gets to a backend; ended when dropped.
struct TlsFront {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl TlsFront {
    /// For `localhost`, with a certificate of this authority.
    #[track_caller]
    fn start(authority: &Authority, backend: &Backend) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it has an address").port();
        drop(listener);
        let dir = TempDir::new().expect("a directory can be made");
        authority.issue("localhost").write(dir.path(), "server");
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).expect("files can be written");
        let (shown, behind) = (dir.path().display(), backend.addr());
        let configuration = format!(
            "worker_processes 1; pid {shown}/nginx.pid; error_log {shown}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{\n\
               access_log off; client_body_temp_path {shown}/body; proxy_temp_path {shown}/proxy;\n\
               fastcgi_temp_path {shown}/f; uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;\n\
               server {{\n\
                 listen 127.0.0.1:{port} ssl; ssl_certificate {shown}/server.crt; ssl_certificate_key {shown}/server.key;\n\
                 location / {{ proxy_pass http://{behind}; proxy_set_header X-Connection $connection; proxy_set_header X-SNI $ssl_server_name; }}\n\
               }}\n\
             }}\n"
        );
        std::fs::write(dir.path().join("nginx.conf"), configuration).expect("files can be written");
        let child = Command::new("nginx")
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(dir.path().join("nginx.conf"))
            .args(["-g", "daemon off;"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx runs");
        eventually(PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, port, dir }
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        // An orderly end, so that its workers end too.
        let _ = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        let _ = self.child.wait();
    }
}

#[test]
fn http_log_over_https_tells_nobody_it_does_not_know() {
    if !has_tool("nginx") {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (backend, sink) = (Backend::echo(), Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    let (front, impostor) = (TlsFront::start(&authority, &sink), TlsFront::start(&stranger, &sink));
    let trusted = front.dir.path().join("ca.pem").display().to_string();
    let gateway = |endpoint: &str| {
        let plugin =
            format!("{{name: http-log, config: {{http_endpoint: '{endpoint}', queue: {{max_retry_time: 0}}}}}}");
        let config = with_plugins(&one_route(&backend.url()), &[&plugin]);
        Gateway::builder(&config).env("KONG_LUA_SSL_TRUSTED_CERTIFICATE", &trusted).start()
    };
    // Another authority, another name.
    for endpoint in
        [format!("https://localhost:{}/logs", impostor.port), format!("https://127.0.0.1:{}/logs", front.port)]
    {
        let gateway = gateway(&endpoint);
        assert_eq!(http(gateway.proxy(), "GET /private", &[], b"").status, 200);
        eventually(PATIENCE, || Metrics::scrape(&gateway).sum("gateward_log_batches_failed_total", &[]) == 1.0);
        gateway.expect_log("certificate");
        gateway.stop();
    }
    assert_eq!(sink.request_count(), 0, "nothing was told");
    let gateway = gateway(&format!("https://ann:secret@localhost:{}/logs?x=y", front.port));
    for index in 0..10 {
        assert_eq!(http(gateway.proxy(), &format!("GET /{index}"), &[], b"").status, 200);
        eventually(PATIENCE, || sink.request_count() > index);
    }
    let requests = sink.requests();
    for (index, request) in requests.iter().enumerate() {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/logs?x=y"));
        assert_eq!(request.header("authorization"), Some("Basic YW5uOnNlY3JldA=="));
        assert_eq!(request.header("x-sni"), Some("localhost"));
        let record: serde_json::Value = serde_json::from_slice(&request.body).expect("the body is a record");
        assert_eq!(record["request"]["uri"], format!("/{index}"), "{record}");
    }
    // A record that is ready before its forerunner's connection is back opens another; it is not the rule.
    let connections: BTreeSet<_> = requests.iter().map(|request| request.header("x-connection")).collect();
    assert!(connections.len() <= 5, "connections are kept: {connections:?}");
    gateway.stop();
}

#[test]
fn a_dead_sink_costs_no_request() {
    let backend = Backend::echo();
    let plugin =
        "{name: http-log, config: {http_endpoint: 'http://127.0.0.1:9/', queue: {max_entries: 10, max_retry_time: 1}}}";
    let mut gateway = Gateway::start(&with_plugins(&one_route(&backend.url()), &[plugin]));
    gateway.expect_error("http-log");
    for _ in 0..100 {
        assert_eq!(http(gateway.proxy(), "GET /", &[], b"").status, 200);
    }
    gateway.stop();
}

#[test]
fn access_log() {
    let backend = Backend::echo();
    let dir = std::env::temp_dir().join(format!("gateward-access-log-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("directories can be made");
    let file = dir.join("access.log");
    let gateway =
        Gateway::builder(&one_route(&backend.url())).workers(1).arg(format!("--access-log={}", file.display())).start();
    http(gateway.proxy(), "GET /a", &[], b"");
    gateward_e2e::exchange(gateway.proxy(), "GET", b"GET / HTTP/1.1\r\nbroken\r\n\r\n");
    gateway.stop();
    let text = std::fs::read_to_string(&file).expect("the log was written");
    let statuses: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("every line is JSON"))
        .filter_map(|record| record["response"]["status"].as_u64())
        .collect();
    assert_eq!(statuses, [200, 400]);
    std::fs::remove_dir_all(&dir).expect("the directory can be removed");
}
