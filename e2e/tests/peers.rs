//! Real programs on both sides: nginx as an origin, curl as a client.

use gateward_e2e::Nginx;
use gateward_e2e::{curl, has_tool, one_route};
use gateward_testkit::{Backend, Gateway, RawClient, http};
use std::path::Path;

/// nginx with a static file, the same compressed on the fly (chunked), and an inner hop.
#[track_caller]
fn origin() -> Nginx {
    Nginx::run(|dir, port| {
        std::fs::create_dir_all(dir.join("www")).expect("directories can be made");
        std::fs::write(dir.join("www/file.txt"), content()).expect("files can be written");
        configuration(dir, port)
    })
}

fn content() -> String {
    (0..20_000).map(|index| format!("line {index}\n")).collect()
}

fn configuration(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        "worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n\
           access_log off; default_type text/plain; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
           fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s; client_max_body_size 0;\n\
           server {{\n\
             listen 127.0.0.1:{port}; root {dir}/www;\n\
             location / {{ }}\n\
             location /gzip/ {{ alias {dir}/www/; gzip on; gzip_types *; gzip_proxied any; }}\n\
             location /inner/ {{ proxy_pass http://127.0.0.1:{port}/; proxy_http_version 1.1; proxy_buffering off; }}\n\
             location /connections {{ return 200 \"$connection $connection_requests\"; }}\n\
             location /headers {{ return 200 \"$http_x_forwarded_for|$http_via|$host\"; }}\n\
           }}\n\
         }}\n"
    )
}

#[test]
fn nginx_as_origin() {
    if !has_tool("nginx") {
        return;
    }
    let nginx = origin();
    let gateway = Gateway::builder(&one_route(&nginx.url())).workers(1).start();
    let content = content();
    for path in ["/file.txt", "/inner/file.txt"] {
        let response = http(gateway.proxy(), &format!("GET {path}"), &[], b"");
        assert!(response.status == 200 && response.text() == content, "{path}: {} bytes", response.body.len());
    }
    let zipped = http(gateway.proxy(), "GET /gzip/file.txt", &[("Accept-Encoding", "gzip")], b"");
    assert_eq!(
        (zipped.header("content-encoding"), zipped.header("transfer-encoding")),
        (Some("gzip"), Some("chunked"))
    );
    assert!(zipped.body.starts_with(&[0x1f, 0x8b]) && zipped.body.len() < content.len());

    let range = http(gateway.proxy(), "GET /file.txt", &[("Range", "bytes=0-5")], b"");
    assert_eq!((range.status, range.text().as_str()), (206, "line 0"));
    let etag = http(gateway.proxy(), "HEAD /file.txt", &[], b"");
    assert_eq!(etag.header("content-length"), Some(content.len().to_string().as_str()));
    let unchanged =
        http(gateway.proxy(), "GET /file.txt", &[("If-None-Match", etag.header("etag").unwrap_or_default())], b"");
    assert_eq!(unchanged.status, 304);
    assert_eq!(http(gateway.proxy(), "GET /missing", &[], b"").status, 404);

    // One connection for all of it.
    let mut client = RawClient::connect(gateway.proxy());
    let counts: Vec<u32> = (0..10)
        .map(|_| {
            client.send(b"GET /connections HTTP/1.1\r\nHost: a\r\n\r\n");
            let text = client.read_response("GET").text();
            text.split(' ').nth(1).and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("nginx said {text:?}"))
        })
        .collect();
    assert!(counts.windows(2).all(|pair| pair[1] == pair[0] + 1), "nginx sees one connection: {counts:?}");
    let headers = http(gateway.proxy(), "GET /headers", &[], b"").text();
    assert!(headers.starts_with("127.0.0.1|1.1 gateward/"), "{headers}");
    gateway.stop();
}

#[test]
fn a_restarted_nginx_is_found_again() {
    if !has_tool("nginx") {
        return;
    }
    let nginx = origin();
    let gateway = Gateway::builder(&one_route(&nginx.url())).workers(1).start();
    assert_eq!(http(gateway.proxy(), "GET /connections", &[], b"").status, 200);
    assert!(nginx.signal("HUP"));
    // nginx closes its old workers' idle connections at some moment of this.
    for index in 0..200 {
        let method = if index % 2 == 0 { "GET" } else { "HEAD" };
        assert_eq!(http(gateway.proxy(), &format!("{method} /file.txt"), &[], b"").status, 200, "request {index}");
    }
    gateway.stop();
}

#[test]
fn curl_as_client() {
    if !has_tool("curl") {
        return;
    }
    let backend = Backend::echo();
    let gateway = Gateway::start(&one_route(&backend.url()));
    let url = format!("http://{}/path?q=1", gateway.proxy());
    let upload = gateway.dir().join("upload.bin");
    std::fs::write(&upload, vec![b'u'; 3_000_000]).expect("files can be written");
    let from_file = format!("@{}", upload.display());
    for (name, args, method, length) in [
        ("get", vec![], "GET", 0),
        ("http/1.0", vec!["--http1.0"], "GET", 0),
        ("form", vec!["-d", "a=b&c=d"], "POST", 7),
        ("large, with Expect", vec!["--data-binary", &from_file], "POST", 3_000_000),
        ("chunked", vec!["-H", "Transfer-Encoding: chunked", "--data-binary", &from_file], "POST", 3_000_000),
        ("put", vec!["-T", upload.to_str().expect("the path is text")], "PUT", 3_000_000),
        ("delete", vec!["-X", "DELETE"], "DELETE", 0),
        ("h2c is not offered", vec!["--http2"], "GET", 0),
    ] {
        let mut all = args;
        all.push(&url);
        let output = curl(&all);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let json: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{name}: {output:?}"));
        assert_eq!(json["method"], method, "{name}");
        assert_eq!(json["body"].as_str().map(str::len), Some(length), "{name}");
        assert_eq!(json["target"], "/path?q=1", "{name}");
    }
    let twice = curl(&["-o", "/dev/null", "-o", "/dev/null", "-w", "%{num_connects} %{http_code}\\n", &url, &url]);
    assert_eq!(String::from_utf8_lossy(&twice.stdout), "1 200\n0 200\n", "curl keeps its connection");
    gateway.stop();
}
