//! nginx's variables of connections and bytes, as Lua plugins read them in a running gateway; and work that they have done beside
//! the workers.

use gateward_e2e::streams::{Client, PATIENCE, named_echo};
use gateward_testkit::{Backend, Gateway, GatewayBuilder, RawClient, TempDir, eventually, http};
use std::time::Duration;

/// A folder with plugins: their names and handlers.
fn folder(plugins: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().expect("a folder can be made");
    for (name, handler) in plugins {
        let plugin = folder.path().join(name);
        std::fs::create_dir_all(&plugin).expect("folders can be made");
        std::fs::write(plugin.join("handler.lua"), handler).expect("files can be written");
    }
    folder
}

fn builder(folder: &TempDir, config: &str) -> GatewayBuilder {
    Gateway::builder(config).arg(format!("--plugins-dir={}", folder.path().display()))
}

/// A service at `url` with a route for everything, and these plugins.
fn config(url: &str, plugins: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- {{name: s, url: {url}, routes: [{{name: r, paths: [/]}}]}}\nplugins:\n{plugins}"
    )
}

const TELLS: &str = r#"
local P = { PRIORITY = 5, VERSION = "1" }
function P:header_filter()
  kong.response.set_header("X-Connection", ngx.var.connection .. " " .. ngx.var.connection_requests)
  kong.response.set_header("X-Upstream", ngx.var.upstream_addr or "nobody")
end
function P:log()
  local v = ngx.var
  kong.log.notice("over: ", kong.request.get_path(), " ", v.connection, " ", v.connection_requests, " ", v.body_bytes_sent, " ",
    tonumber(v.bytes_sent) - v.body_bytes_sent > 20, " ", v.request_completion, " ", v.upstream_addr or "nobody")
end
return P
"#;

#[test]
fn connections_have_numbers_and_bodies_their_bytes() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n";
    let backend = Backend::fixed(chunked);
    let folder = folder(&[("tells", TELLS)]);
    let plugins = "- {name: tells}\n- {name: request-termination, route: r, config: {status_code: 403, content_type: text/plain, \
        body: away, trigger: stop}}\n";
    let gateway = builder(&folder, &config(&backend.url(), plugins)).workers(2).start();
    let upstream = backend.addr().to_string();
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let mut client = RawClient::connect(gateway.proxy());
        let mut ask = |line: &str| {
            client.send(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
            client.read_response(line.split(' ').next().unwrap_or_default())
        };
        let response = ask("GET /chunks");
        let told = response.header("x-connection").unwrap_or_default().to_owned();
        let number = told.strip_suffix(" 1").expect("the first request of its connection").to_owned();
        assert!(number.parse::<u64>().is_ok_and(|number| number > 0), "{told}");
        assert_eq!(response.header("x-upstream"), Some(upstream.as_str()));
        let expected = format!("{number} 2");
        assert_eq!(ask("HEAD /head").header("x-connection"), Some(expected.as_str()));
        let response = ask("GET /local?stop=1");
        assert_eq!(
            (response.status, response.text().as_str(), response.header("x-upstream")),
            (403, "away", Some("nobody"))
        );
        let chunks = "4\r\nabcd\r\n0\r\n\r\n".len();
        gateway.expect_log(&format!("over: /chunks {number} 1 {chunks} true OK {upstream}"));
        gateway.expect_log(&format!("over: /head {number} 2 0 true OK {upstream}"));
        gateway.expect_log(&format!("over: /local {number} 3 4 true OK nobody"));
        numbers.push(number);
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 3, "no two connections have the same");
    gateway.assert_no_errors();
}

#[test]
fn the_bytes_of_http2_are_those_of_the_body() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let folder = folder(&[("tells", TELLS)]);
    let gateway = builder(&folder, &config(&backend.url(), "- {name: tells}\n")).workers(1).start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(gateway.proxy()).await.expect("it listens");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("it speaks HTTP/2");
        tokio::spawn(connection);
        for number in ["1", "2"] {
            let request = http::Request::get(format!("http://a/h2-{number}")).body(()).expect("a request");
            let (response, _) = client.send_request(request, true).expect("it is sent");
            let mut response = response.await.expect("an answer");
            let told =
                response.headers().get("x-connection").map(|value| value.as_bytes().to_vec()).unwrap_or_default();
            assert!(told.ends_with(format!(" {number}").as_bytes()), "{told:?}");
            while let Some(piece) = response.body_mut().data().await {
                assert_eq!(piece.expect("a body"), "hello");
            }
        }
    });
    gateway.expect_log(" 1 5 true OK ");
    gateway.expect_log(" 2 5 true OK ");
}

#[test]
fn streams_have_numbers_too() {
    let handler = r#"
local P = { PRIORITY = 5, VERSION = "1" }
function P:preread() kong.ctx.shared.number = ngx.var.connection end
function P:log()
  assert(kong.ctx.shared.number == ngx.var.connection)
  kong.log.notice("stream ", ngx.var.connection, " ", ngx.var.upstream_addr, " ", ngx.var.bytes_sent)
end
return P
"#;
    let schema = "local typedefs = require 'kong.db.schema.typedefs'\nreturn { name = 'tells', fields = { { protocols = { type = 'set', \
        default = { 'tcp' }, elements = { type = 'string', one_of = { 'tcp' } } } }, { config = { type = 'record', fields = {} } } } }";
    let folder = folder(&[("tells", handler)]);
    std::fs::write(folder.path().join("tells/schema.lua"), schema).expect("files can be written");
    let port = named_echo("hello");
    let config = format!(
        "_format_version: '3.0'\nservices:\n- {{name: s, protocol: tcp, host: 127.0.0.1, port: {port}, \
         routes: [{{name: r, protocols: [tcp], sources: [{{ip: 0.0.0.0/0}}]}}]}}\nplugins:\n- {{name: tells}}\n"
    );
    let gateway = builder(&folder, &config).stream_listen("127.0.0.1:0").start();
    for _ in 0..2 {
        let mut client = Client::connect(gateway.stream_at(0));
        assert_eq!(client.line().expect("the server speaks first"), "hello");
        client.finish();
        client.rest().expect("it ends");
    }
    let told =
        |line: &String| line.split("stream ").nth(1).map(|told| told.split('"').next().unwrap_or_default().to_owned());
    let mut numbers = Vec::new();
    eventually(PATIENCE, || {
        numbers = gateway
            .log()
            .iter()
            .filter_map(told)
            .filter(|told| told.contains(&format!("127.0.0.1:{port} 6")))
            .collect();
        numbers.len() == 2
    });
    assert_ne!(numbers[0].split(' ').next(), numbers[1].split(' ').next());
    gateway.assert_no_errors();
}

/// Hashes a password for some seconds, or makes a key; what is asked for meanwhile is answered.
const WORKS: &str = r#"
local kdf, pkey = require "resty.openssl.kdf", require "resty.openssl.pkey"
local P = { PRIORITY = 5, VERSION = "1" }
local done = 0
function P:access()
  local path = kong.request.get_path()
  if path == "/password" then
    local key = assert(kdf.derive {
      type = kdf.PBKDF2, md = "sha512", pass = "password", salt = "salt", pbkdf2_iter = 3000000, outlen = 64,
    })
    done = done + 1
    return kong.response.exit(200, tostring(#key))
  elseif path == "/key" then
    local key = assert(pkey.new { type = "RSA", bits = 2048 })
    local public = assert(pkey.new(key:to_PEM()))
    return kong.response.exit(200, tostring(public:verify(assert(key:sign("text")), "text")))
  end
  kong.response.exit(200, tostring(done))
end
return P
"#;

#[test]
fn work_of_seconds_does_not_hold_the_worker() {
    let backend = Backend::echo();
    let folder = folder(&[("works", WORKS)]);
    let gateway = builder(&folder, &config(&backend.url(), "- {name: works}\n")).workers(1).start();
    let mut slow = RawClient::connect(gateway.proxy());
    slow.set_timeout(Duration::from_secs(60));
    slow.send(b"GET /password HTTP/1.1\r\nHost: a\r\n\r\n");
    // The only worker has it by the time that it answers this one, which came later.
    for _ in 0..5 {
        let response = http(gateway.proxy(), "GET /", &[], b"");
        assert_eq!((response.status, response.text().as_str()), (200, "0"), "the worker was held");
    }
    let response = http(gateway.proxy(), "GET /key", &[], b"");
    assert_eq!((response.status, response.text().as_str()), (200, "true"));
    let response = slow.read_response("GET");
    assert_eq!((response.status, response.text().as_str()), (200, "64"));
    assert_eq!(http(gateway.proxy(), "GET /", &[], b"").text(), "1");
    gateway.assert_no_errors();
}

/// Answers in header_filter, before a plugin of the gateway's own and another in Lua.
const EXITS: &str = r#"
local P = { PRIORITY = 2000, VERSION = "1" }
function P:header_filter()
  local path = kong.request.get_path()
  if path == "/exit" then kong.response.exit(403, "no", { ["Content-Type"] = "text/plain" }) end
  if path == "/error" then return kong.response.error(402) end
  if path == "/ngx" then ngx.exit(404) end
  kong.response.set_header("X-Own", "went on")
end
return P
"#;

const FOLLOWS: &str = r#"
local P = { PRIORITY = 5, VERSION = "1" }
function P:header_filter() kong.response.set_header("X-Seen", kong.response.get_status()) end
function P:body_filter() kong.ctx.plugin.bytes = (kong.ctx.plugin.bytes or 0) + #(ngx.arg[1] or "") end
function P:log() kong.log.notice("logged ", kong.request.get_path(), " ", kong.response.get_status(), " ", kong.ctx.plugin.bytes) end
return P
"#;

#[test]
fn plugins_after_one_that_answers_in_header_filter_see_its_answer() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nupstream");
    let folder = folder(&[("exits", EXITS), ("follows", FOLLOWS)]);
    let plugins = "- {name: exits}\n- {name: follows}\n\
        - {name: response-transformer, config: {add: {headers: ['X-Native:there']}}}\n";
    let gateway = builder(&folder, &config(&backend.url(), plugins)).workers(1).start();
    let mut client = RawClient::connect(gateway.proxy());
    for (path, status, body, own) in [
        ("/", 200, "upstream", Some("went on")),
        ("/exit", 403, "no", Some("went on")),
        ("/error", 402, "Payment required", None),
        ("/ngx", 404, "Not found", Some("went on")),
    ] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let response = client.read_response("GET");
        let (text, seen) = (response.text(), status.to_string());
        assert_eq!(response.status, status, "{path}: {text}");
        assert!(text.contains(body) && (path == "/" || !text.contains("upstream")), "{path}: {text}");
        assert_eq!(response.header("x-own"), own, "{path}");
        assert_eq!(response.header("x-seen"), Some(seen.as_str()), "{path}");
        assert_eq!(response.header("x-native"), Some("there"), "{path}");
        gateway.expect_log(&format!("logged {path} {status} {}", text.len()));
    }
    gateway.assert_no_errors();
}
