//! Kong's Lua plugins on streams: TCP, TLS passed through, TLS ended here, UDP; with the gateway and real peers.

use gateward_e2e::streams::{Client, PATIENCE, dead_port, named_echo};
use gateward_e2e::{Authority, Metrics};
use gateward_testkit::{Gateway, GatewayBuilder, TempDir, eventually};
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Command, Stdio};

/// Writes what it sees to the log; turns away, answers or leads elsewhere by its configuration.
const HANDLER: &str = r#"
local P = { PRIORITY = 5, VERSION = "1.0" }
function P:preread(conf)
  ngx.sleep(0.001)
  kong.ctx.shared.began = ngx.now()
  if conf.hello then ngx.say(conf.hello) end
  if conf.status then return kong.response.exit(conf.status, conf.body) end
  if conf.port then kong.service.set_target("127.0.0.1", conf.port) end
  if conf.fail then error("as configured") end
  if conf.only and ngx.var.ssl_preread_server_name ~= conf.only then return kong.response.exit(403) end
end
function P:log(conf)
  local session = kong.log.serialize().session
  kong.log.notice("over: ", session.protocol, " ", session.sni or "-", " ", session.status, " ", session.received, " ",
    session.sent, " ", tostring(kong.ctx.shared.began ~= nil), " ", kong.client.get_ip())
end
return P
"#;

const SCHEMA: &str = r#"
local typedefs = require "kong.db.schema.typedefs"
return { name = "watch", fields = {
  { protocols = { type = "set", default = { "tcp", "tls", "tls_passthrough", "udp" }, elements = { type = "string",
    one_of = { "tcp", "tls", "tls_passthrough", "udp" } } } },
  { config = { type = "record", fields = {
    { status = { type = "integer" } }, { body = { type = "string" } }, { port = typedefs.port }, { fail = { type = "boolean" } },
    { hello = { type = "string" } }, { only = { type = "string" } },
  } } },
} }
"#;

fn folder() -> TempDir {
    let folder = TempDir::new().expect("a folder can be made");
    let plugin = folder.path().join("kong/plugins/watch");
    std::fs::create_dir_all(&plugin).expect("folders can be made");
    std::fs::write(plugin.join("handler.lua"), HANDLER).expect("files can be written");
    std::fs::write(plugin.join("schema.lua"), SCHEMA).expect("files can be written");
    folder
}

/// A service on `port` with a route and the plugin with this configuration.
fn config(port: u16, route: &str, plugin: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- {{name: s, protocol: {}, host: 127.0.0.1, port: {port}, \
         routes: [{{name: r, {route}}}]}}\nplugins:\n- {{name: watch, config: {{{plugin}}}}}\n",
        if route.contains("udp") { "udp" } else { "tcp" }
    )
}

const TCP: &str = "protocols: [tcp], sources: [{ip: 0.0.0.0/0}]";

/// All that a client hears that says nothing and ends; `None`: its connection broke.
fn heard(gateway: &Gateway) -> Option<Vec<u8>> {
    let mut client = Client::connect(gateway.stream_at(0));
    client.finish();
    client.rest().ok()
}

fn gateway(folder: &TempDir, config: &str, listen: &str) -> GatewayBuilder {
    Gateway::builder(config).stream_listen(listen).arg(format!("--plugins-dir={}", folder.path().display()))
}

/// What the log phase wrote about a session.
#[track_caller]
fn over(gateway: &Gateway, expected: &str) {
    let expected = format!("over: {expected}");
    eventually(PATIENCE, || gateway.log().iter().any(|line| line.contains(&expected)));
}

#[test]
fn a_tcp_stream_is_watched_led_elsewhere_answered_and_turned_away() {
    let (folder, first, second) = (folder(), named_echo("first"), named_echo("second"));
    let mut gateway = gateway(&folder, &config(first, TCP, ""), "127.0.0.1:0").start();
    gateway.expect_error("unable to proxy stream connection, status: 403, err: never");
    gateway.expect_error("a Lua plugin failed");
    let mut client = Client::connect(gateway.stream_at(0));
    assert_eq!(client.line().expect("the server speaks first"), "first");
    assert_eq!(client.ask("ping").expect("it echoes"), "ping");
    client.finish();
    client.rest().expect("it ends");
    over(&gateway, "tcp - 200 5 11 true 127.0.0.1");

    gateway.write_config(&config(first, TCP, &format!("port: {second}, hello: welcome")));
    eventually(PATIENCE, || {
        let mut client = Client::connect(gateway.stream_at(0));
        client.line().is_ok_and(|line| line == "welcome") && client.line().is_ok_and(|line| line == "second")
    });

    gateway.write_config(&config(first, TCP, "status: 200, body: 'closed for today'"));
    eventually(PATIENCE, || heard(&gateway).is_some_and(|rest| rest == b"closed for today"));
    over(&gateway, "tcp - 200 0 16");

    gateway.write_config(&config(first, TCP, "status: 403, body: never"));
    eventually(PATIENCE, || heard(&gateway).is_some_and(|rest| rest.is_empty()));
    over(&gateway, "tcp - 403 0 0");

    gateway.write_config(&config(first, TCP, "fail: true"));
    eventually(PATIENCE, || {
        heard(&gateway).is_some_and(|rest| rest.is_empty())
            && Metrics::scrape(&gateway).sum("gateward_lua_errors_total", &["plugin=\"watch\"", "phase=\"preread\""])
                >= 1.0
    });
    over(&gateway, "tcp - 500 0 0");
    gateway.stop();
}

#[test]
fn a_stream_of_tls_is_known_by_its_name() {
    let (folder, authority) = (folder(), Authority::new());
    let port = named_echo("through");
    let route = "protocols: [tls_passthrough], snis: [a.test, b.test]";
    let gateway = gateway(&folder, &config(port, route, "only: a.test"), "127.0.0.1:0 ssl").start();
    // The server speaks in the clear into what it takes for a connection of its own: whoever gets that was let through.
    for (name, expected) in [("a.test", &b"through\n"[..]), ("b.test", b"")] {
        let mut client = Client::connect(gateway.stream_at(0));
        client.send(&hello(name)).expect("it is taken");
        let mut got = vec![0; expected.len()];
        client.stream().read_exact(&mut got).expect("it comes");
        assert_eq!(got, expected, "{name}");
        if expected.is_empty() {
            client.expect_closed();
        }
    }
    over(&gateway, "tls_passthrough b.test 403 0 0 true 127.0.0.1");
    over(&gateway, "tls_passthrough a.test 200 ");

    // Ended here, the handshake's facts are there too.
    let text = config(port, "protocols: [tls], snis: [c.test]", "hello: welcome");
    let certificates = authority.issue("c.test").entity(&["c.test"]);
    gateway.write_config(&format!("{text}certificates:\n{}", gateward_e2e::indented(&certificates)));
    let shown = gateway.stream_at(0).to_string();
    eventually(PATIENCE, || {
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-servername", "c.test", "-connect", &shown])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
        let heard = (lines.next(), lines.next());
        let _ = child.kill();
        let _ = child.wait();
        heard == (Some("welcome".to_owned()), Some("through".to_owned()))
    });
    gateway.stop();
}

/// The hello of a TLS client that asks for `name`, as openssl writes it.
fn hello(name: &str) -> Vec<u8> {
    let port = dead_port();
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    let mut child = Command::new("openssl")
        .args(["s_client", "-quiet", "-servername", name, "-connect", &format!("127.0.0.1:{port}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    let (mut stream, _) = listener.accept().expect("it connects");
    let mut head = [0; 5];
    stream.read_exact(&mut head).expect("it says hello");
    let mut hello = head.to_vec();
    hello.resize(5 + usize::from(u16::from_be_bytes([head[3], head[4]])), 0);
    stream.read_exact(&mut hello[5..]).expect("all of it");
    let _ = child.kill();
    let _ = child.wait();
    hello
}

#[test]
fn datagrams_are_asked_about_once_per_session() {
    let folder = folder();
    let server = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let port = server.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((count, from)) = server.recv_from(&mut buffer) {
            let _ = server.send_to(&buffer[..count], from);
        }
    });
    let route = "protocols: [udp], sources: [{ip: 0.0.0.0/0}]";
    let gateway = gateway(&folder, &config(port, route, "hello: welcome"), "127.0.0.1:0 udp").start();
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.set_read_timeout(Some(PATIENCE)).expect("it can be set");
    client.connect(gateway.udp_at(0)).expect("loopback");
    let mut buffer = [0; 2048];
    let mut hear = |client: &UdpSocket| {
        let count = client.recv(&mut buffer).expect("an answer");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    client.send(b"one").expect("sent");
    assert_eq!((hear(&client), hear(&client)), ("welcome\n".to_owned(), "one".to_owned()));
    client.send(b"two").expect("sent");
    assert_eq!(hear(&client), "two");
    gateway.stop();
}
