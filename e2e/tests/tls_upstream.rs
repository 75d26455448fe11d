//! TLS with upstreams: nginx as an https origin that shows what it was asked for and by whom.

use gateward_e2e::{Authority, Nginx, has_tool, indented};
use gateward_testkit::{Backend, Gateway, RawResponse, eventually, http};
use std::net::TcpListener;
use std::time::Duration;

const CA_ID: &str = "2a1f4c3e-52f4-4f0c-8c52-6c6f1b1b6a01";
const CLIENT_ID: &str = "2a1f4c3e-52f4-4f0c-8c52-6c6f1b1b6a02";

/// One route per service `(name, protocol-host-port, further fields)`, at the path of its name.
fn services(list: &[(&str, String, &str)]) -> String {
    let entries: String = list
        .iter()
        .map(|(name, url, fields)| {
            format!(
                "- {{name: {name}, url: '{url}', retries: 0{fields}, routes: [{{name: {name}, paths: [/{name}]}}]}}\n"
            )
        })
        .collect();
    format!("_format_version: '3.0'\nservices:\n{entries}")
}

fn authority_entity(authority: &Authority) -> String {
    format!("ca_certificates:\n- id: {CA_ID}\n  cert: |\n{}", indented(authority.pem()))
}

fn get(gateway: &Gateway, path: &str) -> RawResponse {
    http(gateway.proxy(), &format!("GET {path}"), &[("Host", "public.test")], b"")
}

/// A field of what nginx said.
fn said(response: &RawResponse, name: &str) -> String {
    let text = response.text();
    let field = text.split('|').find_map(|part| part.strip_prefix(&format!("{name}=")));
    field.unwrap_or_else(|| panic!("{}: no {name} in {text}", response.status)).to_owned()
}

#[test]
fn upstreams_are_verified_as_the_service_says() {
    if !has_tool("nginx") {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    let nginx = Nginx::start(&authority, "localhost");
    let (right, wrong) =
        (format!("https://localhost:{}/", nginx.port()), format!("https://127.0.0.1:{}/", nginx.port()));
    let trusting = format!(", tls_verify: true, ca_certificates: [{CA_ID}]");
    let list = [
        ("unverified", wrong.clone(), ""),
        ("verified", right.clone(), trusting.as_str()),
        ("misnamed", wrong, trusting.as_str()),
        ("system", right, ", tls_verify: true"),
    ];
    for (authority, expected) in [(&authority, [200, 200, 502, 502]), (&stranger, [200, 502, 502, 502])] {
        let gateway = Gateway::start(&(services(&list) + &authority_entity(authority)));
        // Twice, since what one service may reuse another may not.
        for _ in 0..2 {
            for ((name, ..), status) in list.iter().zip(expected) {
                let response = get(&gateway, &format!("/{name}"));
                assert_eq!(response.status, status, "{name}: {}", response.text());
            }
        }
        gateway.expect_log("1 service(s) do not verify their upstream's certificate (unverified)");
        gateway.expect_log("TLS handshake with an upstream failed");
        gateway.stop();
    }
    // The process' own settings, for services that say nothing.
    let plain = [("default", format!("https://localhost:{}/", nginx.port()), "")];
    for (ca, status) in [(nginx.dir().join("ca.pem").display().to_string(), 200), ("system".to_owned(), 502)] {
        let gateway = Gateway::builder(&services(&plain))
            .env("KONG_TLS_CERTIFICATE_VERIFY", "on")
            .env("KONG_LUA_SSL_TRUSTED_CERTIFICATE", ca)
            .start();
        assert_eq!(get(&gateway, "/default").status, status);
        gateway.stop();
    }
}

#[test]
fn the_server_name_is_the_host_that_is_asked_for() {
    if !has_tool("nginx") {
        return;
    }
    let authority = Authority::new();
    let nginx = Nginx::start(&authority, "localhost");
    let config = format!(
        "{}- {{name: balanced, protocol: https, host: u, port: 443, routes: [{{name: balanced, paths: [/balanced]}}]}}\n\
         - {{name: preserved, url: 'https://localhost:{port}/', routes: [{{name: preserved, paths: [/preserved], preserve_host: true}}]}}\n\
         upstreams:\n- {{name: u, host_header: inner.test, targets: [{{target: 'localhost:{port}'}}]}}\n",
        services(&[("named", format!("https://localhost:{}/", nginx.port()), "")]),
        port = nginx.port()
    );
    let gateway = Gateway::builder(&config).workers(1).start();
    let mut connections = Vec::new();
    for (path, sni, host) in [
        ("/named", "localhost", format!("localhost:{}", nginx.port())),
        ("/balanced", "inner.test", "inner.test".to_owned()),
        ("/preserved", "public.test", "public.test".to_owned()),
    ] {
        let (first, second) = (get(&gateway, path), get(&gateway, path));
        assert_eq!((said(&first, "sni"), said(&first, "host")), (sni.to_owned(), host), "{path}");
        assert_eq!(said(&first, "proto"), "http/1.1");
        assert_eq!(said(&first, "connection"), said(&second, "connection"), "{path}: kept");
        connections.push(said(&first, "connection"));
    }
    connections.dedup();
    assert_eq!(connections.len(), 3, "one address, three names, three connections");
    gateway.stop();
}

#[test]
fn the_gateway_shows_its_certificate_to_who_asks() {
    if !has_tool("nginx") {
        return;
    }
    let authority = Authority::new();
    let nginx = Nginx::start(&authority, "localhost");
    let url = format!("https://localhost:{}/", nginx.port());
    let client = authority.issue("gateway-7");
    let config = format!(
        "{}- {{name: balanced, protocol: https, host: u, port: 443, routes: [{{name: balanced, paths: [/balanced]}}]}}\n\
         upstreams:\n- {{name: u, client_certificate: {CLIENT_ID}, targets: [{{target: 'localhost:{}'}}]}}\n\
         certificates:\n- id: {CLIENT_ID}\n  cert: |\n{}  key: |\n{}",
        services(&[("anonymous", url.clone(), ""), ("known", url, &format!(", client_certificate: {CLIENT_ID}")),]),
        nginx.port(),
        indented(&client.cert),
        indented(&client.key)
    );
    let gateway = Gateway::builder(&config).workers(1).start();
    for _ in 0..2 {
        for (path, verify, subject) in [
            ("/anonymous", "NONE", ""),
            ("/known", "SUCCESS", "CN=gateway-7"),
            ("/balanced", "SUCCESS", "CN=gateway-7"),
        ] {
            let response = get(&gateway, path);
            assert_eq!(
                (said(&response, "verify"), said(&response, "subject")),
                (verify.to_owned(), subject.to_owned())
            );
        }
    }
    gateway.stop();
}

#[test]
fn sessions_are_resumed_also_after_a_change_of_the_configuration() {
    if !has_tool("nginx") {
        return;
    }
    let authority = Authority::new();
    let nginx = Nginx::start(&authority, "localhost");
    let list = [("s", format!("https://localhost:{}/close", nginx.port()), "")];
    let gateway = Gateway::builder(&services(&list)).workers(1).start();
    let reused = |path: &str| said(&get(&gateway, path), "reused");
    assert_eq!((reused("/s").as_str(), reused("/s").as_str()), (".", "r"));
    gateway.write_config(&services(&[("t", list[0].1.clone(), "")]));
    eventually(Duration::from_secs(10), || get(&gateway, "/t").status == 200);
    assert_eq!(reused("/t"), "r");
    gateway.stop();
}

#[test]
fn an_upstream_that_speaks_no_tls_or_is_silent_fails_in_time() {
    let plain = Backend::echo();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port can be bound");
    let silent_port = silent.local_addr().expect("it has an address").port();
    let gateway = Gateway::start(&services(&[
        ("plain", plain.url().replace("http:", "https:"), ""),
        ("silent", format!("https://127.0.0.1:{silent_port}"), ", connect_timeout: 200"),
    ]));
    assert_eq!(get(&gateway, "/plain").status, 502);
    assert_eq!(get(&gateway, "/silent").status, 504, "connect_timeout covers the handshake");
    gateway.stop();
}
