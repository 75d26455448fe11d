//! Plugins on streams: what they see, what they decide, what they may not.

use super::*;
use gateward_config::{Format, Options, load};
use gateward_model::{Protocol, RouterFlavor};
use gateward_plugin::{
    Admission, Context, Handshake, MetricGroups, NativePlugins, Preread, RecordChanges, StreamExchange, StreamRecord,
};

pub(super) fn stream(protocol: Protocol) -> StreamExchange {
    let file = json!({
        "_format_version": "3.0",
        "services": [{"name": "s", "protocol": "tcp", "host": "a.test", "port": 1, "routes": [
            {"name": "r", "protocols": [protocol], "snis": if protocol == Protocol::Tcp { json!(null) } else { json!(["a.test"]) },
             "sources": if protocol == Protocol::Tcp { json!([{"ip": "0.0.0.0/0"}]) } else { json!(null) }},
        ]}],
    });
    let options = Options {
        plugins: &NativePlugins::new(),
        flavor: RouterFlavor::default(),
        vault: &|_| None,
        now: 1_700_000_000,
    };
    let loaded =
        load(file.to_string().as_bytes(), Format::Json, &options).unwrap_or_else(|problems| panic!("{problems:?}"));
    StreamExchange {
        started_at_ms: 1_700_000_000_123,
        protocol,
        connection: 17,
        client: ([192, 0, 2, 7], 4711).into(),
        local: ([10, 0, 0, 1], 5432).into(),
        sni: (protocol != Protocol::Tcp).then(|| "a.test".to_owned()),
        tls: None,
        origin: None,
        route: Some(loaded.config.routes[0].clone()),
        service: Some(loaded.config.services[0].clone()),
        detour: None,
        greeting: Vec::new(),
        metrics: MetricGroups::default(),
        changes: RecordChanges::default(),
        context: Context::default(),
    }
}

fn record(stream: &StreamExchange) -> StreamRecord<'_> {
    StreamRecord {
        stream,
        tries: &[],
        status: 200,
        end: "client",
        received_bytes: 10,
        sent_bytes: 20,
        upstream_received_bytes: 20,
        upstream_sent_bytes: 10,
        gateway_us: 1_500,
        session_us: 60_000_000,
    }
}

fn preread(plugin: &LuaPlugin, stream: &mut StreamExchange) -> Preread {
    wait_for(plugin.preread(stream))
}

/// A handler whose `preread` is this.
fn says(name: &str, body: &str) -> (Preread, StreamExchange, String) {
    let handler = format!("local P = {{ PRIORITY = 5 }}\nfunction P:preread(conf)\n{body}\nend\nreturn P");
    let (_folder, plugin) = plugin(&format!("stream-{name}"), &handler);
    vm::LAST_ERROR.take();
    let mut stream = stream(Protocol::Tcp);
    let said = preread(&plugin, &mut stream);
    (said, stream, vm::LAST_ERROR.take())
}

#[test]
fn a_handler_sees_the_stream_and_its_end() {
    let (_folder, plugin) = plugin(
        "stream-sees",
        r#"
        local P = { PRIORITY = 5 }
        function P:preread(conf)
          assert(conf.word == "hello" and ngx.get_phase() == "preread")
          assert(ngx.config.subsystem == "stream" and kong.nginx.get_subsystem() == "stream")
          assert(kong.client.get_ip() == "192.0.2.7" and kong.client.get_forwarded_ip() == "192.0.2.7")
          assert(kong.client.get_port() == 4711 and kong.client.get_forwarded_port() == 4711)
          assert(kong.router.get_route().name == "r" and kong.router.get_service().name == "s")
          local var = ngx.var
          assert(var.remote_addr == "192.0.2.7" and var.remote_port == "4711" and var.server_port == "5432")
          assert(var.server_addr == "10.0.0.1" and var.protocol == "TCP" and var.ssl_preread_server_name == "a.test")
          assert(var.request_uri == nil and var.http_host == nil and var.never == nil)
          var.mine = 7
          assert(var.mine == "7")
          kong.ctx.plugin.seen, kong.ctx.shared.all, ngx.ctx.mine = true, "everybody", 1
          kong.service.set_target("10.1.2.3", 9000)
          kong.log.info("all is well")
        end
        function P:log(conf)
          assert(kong.ctx.plugin.seen and kong.ctx.shared.all == "everybody" and ngx.ctx.mine == 1)
          local record = kong.log.serialize()
          assert(record.session.received == 10 and record.session.status == 200 and record.client_ip == "192.0.2.7")
          assert(ngx.var.bytes_sent == "20" and ngx.var.bytes_received == "10" and ngx.var.session_time == "60.000")
          assert(ngx.var.status == "200" and kong.client.get_protocol() == "tls_passthrough")
          _G.seen = "the end"
        end
        function P.report() return tostring(seen) end
        _G.report = P.report
        return P
        "#,
    );
    let needs = Plugin::needs(&plugin).phases;
    assert!(needs.preread && needs.log_stream && !needs.access);
    let mut stream = stream(Protocol::TlsPassthrough);
    assert_eq!(preread(&plugin, &mut stream), Preread::Next, "{}", vm::LAST_ERROR.take());
    let target = stream.detour.as_ref().and_then(|detour| detour.target.clone());
    assert_eq!(target, Some(("10.1.2.3".to_owned(), 9000)));
    plugin.log_stream(&record(&stream));
    assert_eq!(plugin.vm().unwrap().evaluate("report"), "the end", "{}", vm::LAST_ERROR.take());
}

#[test]
fn a_stream_is_closed_with_a_status() {
    for (body, expected, greeting) in [
        ("return kong.response.exit(403)", Preread::Close(403), ""),
        ("return kong.response.exit(200, 'bye\\n')", Preread::Close(200), "bye\n"),
        ("return kong.response.exit(200, { a = 1 })", Preread::Close(200), "{\"a\":1}"),
        // A message about an error is for the log.
        ("return kong.response.exit(503, 'no')", Preread::Close(503), ""),
        ("ngx.exit(444)", Preread::Close(444), ""),
        ("ngx.exit(ngx.ERROR)", Preread::Close(500), ""),
        ("ngx.exit(ngx.OK) error('never')", Preread::Next, ""),
        ("ngx.say('one', 2) ngx.print('three')", Preread::Next, "one2\nthree"),
        ("ngx.say('one') ngx.exit(403)", Preread::Close(403), "one\n"),
        ("pcall(ngx.exit, 403) error('never')", Preread::Close(403), ""),
        ("ngx.sleep(0.01) ngx.exit(401)", Preread::Close(401), ""),
        ("ngx.sleep(0.01) kong.service.set_target('b.test', 2)", Preread::Next, ""),
        ("error('broken')", Preread::Close(500), ""),
        ("while true do end", Preread::Close(500), ""),
    ] {
        let (said, stream, error) = says("closes", body);
        assert_eq!((said, String::from_utf8_lossy(&stream.greeting).as_ref()), (expected, greeting), "{body}: {error}");
    }
}

#[test]
fn what_is_of_requests_is_refused_on_streams() {
    for (call, expected) in [
        ("kong.request.get_header('a')", "function cannot be called in preread phase (only in: rewrite"),
        ("kong.response.set_header('a', 'b')", "function cannot be called in preread phase (only in: rewrite"),
        ("kong.response.get_status()", "function cannot be called in preread phase"),
        ("kong.client.get_consumer()", "function cannot be called in preread phase (only in: access"),
        ("kong.client.authenticate({}, {})", "function cannot be called in preread phase (only in: access)"),
        ("kong.service.set_upstream('u')", "function cannot be called in preread phase (only in: access)"),
        ("kong.service.set_timeouts(1, 1, 1)", "function cannot be called in preread phase (only in: access)"),
        ("kong.service.request.set_header('a', 'b')", "function cannot be called in preread phase"),
        ("kong.log.serialize()", "function cannot be called in preread phase (only in: log)"),
        ("return ngx.status", "API disabled in the context of preread"),
        ("ngx.req.get_headers()", "API disabled in the context of preread"),
        ("return ngx.header['a']", "API disabled in the context of preread"),
        ("ngx.redirect('/')", "API disabled in the context of preread"),
    ] {
        let (said, _, error) = says("refused", call);
        assert!(said == Preread::Close(500) && error.contains(expected), "{call}: {error}");
        assert!(error.contains("handler.lua:3"), "{call}: {error}");
    }
    // What is printed is bounded.
    let (said, stream, error) = says("floods", "for _ = 1, 100 do ngx.print(('x'):rep(65536)) end");
    assert!(said == Preread::Next && stream.greeting.len() == 1 << 20, "{error}");
    let (said, stream, error) = says("exits-with-much", "kong.response.exit(200, ('x'):rep(2e6))");
    assert!(said == Preread::Close(500) && stream.greeting.is_empty(), "{}", stream.greeting.len());
    assert!(
        error.contains("handler.lua:3: the body cannot be sent: nginx output buffer full: 1048576 bytes"),
        "{error}"
    );
}

#[test]
fn a_client_of_datagrams_gets_one() {
    let greets = |body: &str| {
        let handler = format!("local P = {{ PRIORITY = 5 }}\nfunction P:preread(conf)\n{body}\nend\nreturn P");
        let (_folder, plugin) = plugin("stream-datagrams", &handler);
        vm::LAST_ERROR.take();
        let mut stream = stream(Protocol::Tcp);
        stream.protocol = Protocol::Udp;
        let said = preread(&plugin, &mut stream);
        (said, stream.greeting.len(), vm::LAST_ERROR.take())
    };
    let (said, bytes, error) = greets("assert(ngx.print(('x'):rep(65507)))");
    assert_eq!((said, bytes), (Preread::Next, 65_507), "{error}");
    let (said, bytes, error) = greets("assert(ngx.print(('x'):rep(65508)))");
    assert!(said == Preread::Close(500) && bytes == 0 && error.contains("65507 bytes"), "{error}");
    let (said, bytes, error) = greets("ngx.print('x') kong.response.exit(200, ('x'):rep(65507))");
    assert!(said == Preread::Close(500) && bytes == 1 && error.contains("65507 bytes"), "{bytes}: {error}");
}

#[test]
fn a_plugin_that_only_logs_has_the_record() {
    let (_folder, plugin) = plugin(
        "stream-logs",
        r#"
        local P = { PRIORITY = 5 }
        function P:log() _G.seen = kong.log.serialize().session.protocol .. " " .. ngx.config.subsystem end
        _G.report = function() return tostring(seen) end
        return P
        "#,
    );
    plugin.log_stream(&record(&stream(Protocol::Tcp)));
    assert_eq!(plugin.vm().unwrap().evaluate("report"), "tcp stream", "{}", vm::LAST_ERROR.take());
}

pub(super) fn handshake() -> Handshake {
    Handshake {
        client: ([192, 0, 2, 7], 4711).into(),
        local: ([10, 0, 0, 1], 8443).into(),
        sni: Some("a.test".to_owned()),
        request_certificate: false,
        no_resumption: false,
        context: Context::default(),
    }
}

#[test]
fn a_handshake_is_seen_changed_and_refused() {
    let wishes = "assert(kong.client.tls.request_client_certificate()) assert(kong.client.tls.disable_session_reuse())";
    for (body, expected, wished) in [
        (
            "assert(require('ngx.ssl').server_name() == 'a.test' and ngx.get_phase() == 'certificate')",
            Admission::Next,
            false,
        ),
        ("assert(kong.client.get_ip() == '192.0.2.7' and ngx.var.remote_addr == '192.0.2.7')", Admission::Next, false),
        (
            "assert(ngx.config.subsystem == 'http' and ngx.var.ssl_preread_server_name == 'a.test')",
            Admission::Next,
            false,
        ),
        (wishes, Admission::Next, true),
        (
            "ngx.sleep(0.01) kong.client.tls.request_client_certificate() kong.client.tls.disable_session_reuse()",
            Admission::Next,
            true,
        ),
        ("ngx.exit(ngx.OK) error('never')", Admission::Next, false),
        ("ngx.exit(ngx.ERROR)", Admission::Refuse, false),
        ("ngx.sleep(0.01) ngx.exit(ngx.ERROR)", Admission::Refuse, false),
        ("error('broken')", Admission::Refuse, false),
        ("while true do end", Admission::Refuse, false),
        ("kong.response.exit(403)", Admission::Refuse, false),
        ("assert(select(2, require('ngx.ssl').clear_certs()):find('snis'))", Admission::Next, false),
        ("ngx.ctx.one = 1 kong.ctx.shared.two = 2 assert(kong.ctx.shared.two == 2)", Admission::Next, false),
    ] {
        let handler = format!("local P = {{ PRIORITY = 5 }}\nfunction P:certificate(conf)\n{body}\nend\nreturn P");
        let (_folder, plugin) = plugin("handshake", &handler);
        vm::LAST_ERROR.take();
        let mut handshake = handshake();
        let said = wait_for(plugin.certificate(&mut handshake));
        assert_eq!(said, expected, "{body}: {}", vm::LAST_ERROR.take());
        assert_eq!((handshake.request_certificate, handshake.no_resumption), (wished, wished), "{body}");
    }
}
