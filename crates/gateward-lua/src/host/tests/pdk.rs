//! What the functions of the PDK do.

use super::*;
use crate::code::Served;
use gateward_http::{BodyFraming, Method};
use gateward_model::{Consumer, Route, Service, Snapshot};
use gateward_plugin::{LocalResponse, RequestRecord, Scheme, Source};

/// A plugin whose phases are these bodies of functions.
fn phases(name: &str, phases: &[(&str, &str)]) -> (Folder, LuaPlugin) {
    let bodies: String =
        phases.iter().map(|(phase, body)| format!("function P:{phase}(conf)\n{body}\nend\n")).collect();
    plugin(name, &format!("local P = {{ PRIORITY = 5 }}\n{bodies}return P"))
}

fn exchange() -> Exchange {
    let mut exchange = Exchange::new();
    exchange.id = "0123".to_owned();
    exchange.started_at_ms = 1234;
    exchange.client.peer = "10.0.0.1:4711".parse().unwrap();
    exchange.client.ip = "192.0.2.7".parse().unwrap();
    exchange.client.port = 8000;
    exchange.client.forwarded_proto = Scheme::Https;
    exchange.client.forwarded_port = 443;
    exchange.request.authority = "Example.com:8000".to_owned();
    exchange.request.target = "/a%20b/../c?x=1&y&x=2&z=a%20b".to_owned();
    exchange.request.headers.add("Host", "Example.com:8000");
    exchange.request.headers.add("X-Twice", "one");
    exchange.request.headers.add("X-Twice", "two");
    exchange.upstream.path = "/c".to_owned();
    exchange
}

#[track_caller]
fn passes(name: &str, body: &str) -> Exchange {
    let (_folder, plugin) = phases(name, &[("access", body)]);
    let mut exchange = exchange();
    assert_eq!(status(&run(plugin.access(&mut exchange))), None, "the handler failed, see the log");
    exchange
}

/// The answer of an access handler.
#[track_caller]
fn answer(name: &str, body: &str) -> LocalResponse {
    let (_folder, plugin) = phases(name, &[("access", body)]);
    match run(plugin.access(&mut exchange())) {
        Outcome::Respond(response) => response,
        other => panic!("no answer: {other:?}"),
    }
}

#[test]
fn the_request_is_known() {
    passes(
        "request",
        r#"
        local function is(found, expected) if found ~= expected then error(tostring(found) .. " instead of " .. tostring(expected), 2) end end
        local r = kong.request
        is(r.get_scheme(), "http") is(r.get_host(), "example.com") is(r.get_port(), 8000)
        is(r.get_forwarded_scheme(), "https") is(r.get_forwarded_host(), "example.com") is(r.get_forwarded_port(), 443)
        is(r.get_forwarded_path(), "/a%20b/../c") is(r.get_forwarded_prefix(), nil) is(r.get_http_version(), 1.1)
        is(r.get_method(), "GET") is(r.get_path(), "/c") is(r.get_raw_path(), "/a%20b/../c")
        is(r.get_path_with_query(), "/a%20b/../c?x=1&y&x=2&z=a%20b") is(r.get_raw_query(), "x=1&y&x=2&z=a%20b")
        is(r.get_query_arg("x"), "1") is(r.get_query_arg("y"), true) is(r.get_query_arg("z"), "a b") is(r.get_query_arg("no"), nil)
        local query = r.get_query()
        is(query.x[1], "1") is(query.x[2], "2") is(query.y, true)
        local some, err = r.get_query(1)
        is(some.y, nil) is(err, "truncated")
        is(r.get_header("host"), "Example.com:8000") is(r.get_header("x_twice"), "one") is(r.get_header("none"), nil)
        local headers = r.get_headers()
        is(headers.x_twice[2], "two") is(headers["X-Twice"][1], "one") is(headers.host, "Example.com:8000")
        is(select(2, r.get_headers(1)), "truncated")
        is(r.get_start_time(), 1234)
        is(#r.get_uri_captures().unnamed, 0)
        is(kong.client.get_ip(), "10.0.0.1") is(kong.client.get_forwarded_ip(), "192.0.2.7") is(kong.client.get_port(), 4711)
        for call, expected in pairs {
          [function() r.get_header(1) end] = "header name must be a string",
          [function() r.get_headers("1") end] = "max_headers must be a number",
          [function() r.get_headers(0) end] = "max_headers must be >= 1",
          [function() r.get_headers(1001) end] = "max_headers must be <= 1000",
          [function() r.get_query(0) end] = "max_args must be >= 1",
          [function() r.get_query_arg() end] = "query argument name must be a string",
        } do
          local ok, err = pcall(call)
          assert(not ok and err:find(expected, 1, true) and err:find("handler.lua", 1, true), err)
        end
        "#,
    );
}

#[test]
fn the_request_to_the_service_is_changed() {
    let exchange = passes(
        "service-request",
        r#"
        local s = kong.service.request
        s.set_method("POST") s.set_path("/new path/ä?#") s.set_query { b = { "1", true, "c d" }, a = "x&y", t = true }
        assert(kong.request.get_method() == "POST" and kong.request.get_raw_query() == "a=x%26y&b=1&b&b=c%20d&t")
        s.clear_query_arg("b")
        s.set_header("X-One", 1) s.set_header("X-List", { "a", "b" }) s.add_header("X-Twice", "three")
        s.set_header("Host", "other.example") s.clear_header("X-None") s.set_headers { ["X-A"] = "a", ["X-B"] = { "c", "d" } }
        assert(kong.request.get_header("host") == "other.example")
        assert(s.set_header(":authority", "x") == nil)
        for call, expected in pairs {
          [function() s.set_method("FOO") end] = "invalid method: FOO",
          [function() s.set_path("x") end] = "path must start with /",
          [function() s.set_path() end] = "path must be a string",
          [function() s.set_query("x") end] = "args must be a table",
          [function() s.set_query { "x" } end] = "arg keys must be strings",
          [function() s.set_header("x", {1}) end] = 'invalid header value in array "x": got number, expected string',
          [function() s.set_header("x") end] = 'invalid header value for "x": got nil, expected array of string, string, number or boolean',
          [function() s.set_header(1, "x") end] = 'invalid header name "1": got number, expected string',
          [function() s.set_headers(1) end] = "headers must be a table",
          [function() s.set_headers { x = print } end] = 'invalid header value for "x": got function',
          [function() s.set_raw_query(1) end] = "query must be a string",
          [function() s.set_header("a\nb", "x") end] = "cannot be part of a header",
          [function() s.set_header("a", "x\r\ny: z") end] = "cannot be part of a header",
          [function() s.set_raw_query("a b\r\n") end] = "cannot be part of a request",
        } do
          local ok, err = pcall(call)
          assert(not ok and err:find(expected, 1, true) and err:find("handler.lua", 1, true), err)
        end
        "#,
    );
    assert_eq!(exchange.upstream.method, Some(Method::Post));
    assert_eq!(exchange.upstream.path, "/new%20path/%C3%A4%3F%23");
    assert_eq!(exchange.upstream.query.as_deref(), Some("a=x%26y&t"));
    assert_eq!(exchange.upstream.host.as_deref(), Some("other.example"));
    let all = |name: &'static str| {
        let values = exchange.request.headers.get_all(name);
        values.map(|value| String::from_utf8_lossy(value).into_owned()).collect::<Vec<_>>().join(",")
    };
    assert_eq!(["x-one", "x-list", "x-twice", "x-a", "x-b"].map(all), ["1", "a,b", "one,two,three", "a", "c,d"]);
}

#[test]
fn the_body_is_read_when_somebody_asks() {
    let (_folder, plugin) = phases(
        "body",
        &[(
            "access",
            r#"
            local body, err = kong.request.get_raw_body()
            kong.service.request.set_header("X-Body", body and #body or err)
            if body then
              local parsed = kong.request.get_body()
              kong.service.request.set_header("X-Name", parsed and parsed.name or "none")
              kong.service.request.set_raw_body(body:upper())
            else
              assert(not pcall(kong.service.request.set_raw_body, "x"))
            end
            "#,
        )],
    );
    let post = |content_type: &str| {
        let mut exchange = exchange();
        exchange.request.framing = BodyFraming::Chunked;
        exchange.request.headers.add("Content-Type", content_type);
        exchange
    };
    let multipart = "--b\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nann\r\n--b--\r\n";
    for (content_type, body) in [
        ("application/json; charset=utf-8", r#"{"name":"ann"}"#),
        ("application/x-www-form-urlencoded", "a=1&name=ann"),
        ("multipart/form-data; boundary=b", multipart),
    ] {
        let mut exchange = post(content_type);
        assert_eq!(status(&access(&plugin, &mut exchange, Ok(body))), None, "{content_type}");
        assert_eq!(exchange.request.headers.get_str("x-name"), Some("ann"), "{content_type}");
        assert_eq!(exchange.body.as_deref(), Some(body.to_uppercase().as_bytes()));
    }
    let mut long = post("text/plain");
    assert_eq!(status(&access(&plugin, &mut long, Err(BodyRead::TooLong))), None);
    assert!(long.request.headers.get_str("x-body").unwrap().starts_with("request body did not fit"));
    let mut without = exchange();
    assert_eq!(status(&run(plugin.access(&mut without))), None, "nothing to wait for");
    assert_eq!(without.request.headers.get_str("x-body"), Some("0"));
}

#[test]
fn a_light_thread_may_ask_for_the_body_while_another_waits() {
    let (_folder, plugin) = phases(
        "threads-and-body",
        &[(
            "access",
            r#"
            local slow = ngx.thread.spawn(function() ngx.sleep(0.02) return "slept" end)
            local reads = ngx.thread.spawn(function() ngx.sleep(0.001) return kong.request.get_raw_body() end)
            local same = coroutine.wrap(function() return kong.request.get_raw_body() end)
            local _, body = ngx.thread.wait(reads)
            local _, word = ngx.thread.wait(slow)
            kong.service.request.set_header("X-Came", body .. " " .. same() .. " " .. word)
            "#,
        )],
    );
    let mut exchange = exchange();
    exchange.request.framing = BodyFraming::Chunked;
    assert_eq!(status(&access(&plugin, &mut exchange, Ok("abc"))), None);
    assert_eq!(exchange.request.headers.get_str("x-came"), Some("abc abc slept"));
}

#[test]
fn bodies_are_encoded() {
    let exchange = passes(
        "encode",
        r#"
        local s = kong.service.request
        assert(select(2, s.set_body({})):find("content type was neither"))
        assert(s.set_body({ a = "b c" }, "application/x-www-form-urlencoded"))
        assert(kong.request.get_raw_body() == "a=b%20c")
        assert(s.set_body({ a = { 1, 2 } }, "application/json"))
        assert(kong.request.get_raw_body() == '{"a":[1,2]}')
        assert(kong.request.get_header("content-type") == "application/json")
        assert(s.set_body({ a = "x", b = true }, "multipart/form-data; boundary=zz"))
        local parts = kong.request.get_body()
        assert(parts.a == "x" and parts.b == "true")
        assert(not pcall(s.set_body, {}, "text/xml"))
        "#,
    );
    assert_eq!(exchange.request.headers.get_str("content-type"), Some("multipart/form-data; boundary=zz"));
}

#[test]
fn answers_are_kongs() {
    let response = answer("exit-table", "kong.response.exit(201, { a = 1 }, { ['X-A'] = { '1', '2' }, Num = 5 })");
    assert_eq!(response.status, 201);
    let mut headers = response.headers.clone();
    headers.sort();
    assert_eq!(headers, [("Num".into(), "5".to_owned()), ("X-A".into(), "1".into()), ("X-A".into(), "2".into())]);
    assert_eq!(response.body, LocalBody::Bytes("application/json; charset=utf-8".into(), br#"{"a":1}"#.to_vec()));
    let response = answer("exit-text", "kong.response.exit(200, 'hi', { ['Content-Type'] = 'text/css' })");
    assert_eq!(response.body, LocalBody::Bytes("text/css".into(), b"hi".to_vec()));
    assert_eq!(
        answer("exit-bare", "kong.response.exit(200, 'hi')").body,
        LocalBody::Bytes(String::new(), b"hi".into())
    );
    assert_eq!(answer("exit-empty", "kong.response.exit(204)").body, LocalBody::Empty);
    let response = answer("error", "kong.response.error(404)");
    assert_eq!((response.status, response.body), (404, LocalBody::Message("Not found".into())));
    let response = answer("error-text", "kong.response.error(499, 'why', { ['Content-Type'] = 'text/plain' })");
    assert_eq!(response.body, LocalBody::Message("why".into()));
    assert_eq!(response.headers, [("Content-Type".into(), "text/plain".to_owned())]);
    passes(
        "exit-arguments",
        r#"
        for call, expected in pairs {
          [function() kong.response.exit("x") end] = "code must be a number",
          [function() kong.response.exit(99) end] = "code must be a number between 100 and 599",
          [function() kong.response.exit(200, 5) end] = "body must be a nil, string or table",
          [function() kong.response.exit(200, nil, "x") end] = "headers must be a nil or table",
          [function() kong.response.exit(200, { print }) end] = "body encoding failed while flushing response",
          [function() kong.response.error(399) end] = "code must be a number between 400 and 599",
          [function() kong.response.error(400, 5) end] = "message must be a nil, a string or a table",
        } do
          local ok, err = pcall(call)
          assert(not ok and err:find(expected, 1, true) and err:find("handler.lua", 1, true), err)
        end
        "#,
    );
}

#[test]
fn the_response_is_changed() {
    let (_folder, plugin) = phases(
        "response",
        &[
            ("access", "kong.response.set_header('X_Early', 'yes') assert(ngx.ctx.a == nil)"),
            (
                "header_filter",
                r#"
                local r = kong.response
                assert(r.get_status() == 200 and r.get_header("x_from") == "up" and r.get_source() == "service")
                assert(r.get_headers()["X-FROM"] == "up")
                r.set_status(202) r.set_header("X-List", { "a", "b" }) r.add_header("X-From", "us") r.clear_header("Server")
                r.set_headers { ["Transfer-Encoding"] = "chunked", ["X-New"] = "n" }
                "#,
            ),
            (
                "body_filter",
                "local body = kong.response.get_raw_body() if body then kong.response.set_raw_body(body:upper()) end",
            ),
        ],
    );
    let mut exchange = exchange();
    assert_eq!(status(&run(plugin.access(&mut exchange))), None);
    assert_eq!(exchange.response.early.get_str("x-early"), Some("yes"), "underscores are dashes");
    let response = &mut exchange.response;
    (response.status, response.source) = (200, Source::Service);
    response.headers.add("X-From", "up");
    response.headers.add("Server", "x");
    plugin.header_filter(&mut exchange);
    let response = &exchange.response;
    assert_eq!((response.status, response.headers.count("x-from"), response.headers.count("x-list")), (202, 2, 2));
    assert!(!response.headers.contains("server") && !response.headers.contains("transfer-encoding"));
    let mut sent = Vec::new();
    for (piece, last) in [("ab", false), ("", false), ("cd", true)] {
        let mut piece = piece.as_bytes().to_vec();
        plugin.body_filter(&mut exchange, &mut piece, last);
        assert!(last || piece.is_empty(), "kept back until the end");
        sent.extend(piece);
    }
    assert_eq!(sent, b"ABCD");
}

#[test]
fn a_body_that_was_set_ends_the_response_and_a_head_can_be_replaced() {
    let (_folder, plugin) = phases(
        "replaced-body",
        &[
            (
                "header_filter",
                "kong.response.exit(418, { tea = true }, { ['X-Pot'] = '1' })\n\
                 -- In this phase it returns, as ngx.exit does in OpenResty.\n\
                 ngx.ctx.gone_on = kong.response.get_status()",
            ),
            ("body_filter", "assert(ngx.ctx.gone_on == 418) kong.response.set_raw_body('all')"),
        ],
    );
    let mut exchange = exchange();
    exchange.response.status = 200;
    exchange.response.headers.add("Content-Type", "text/html");
    plugin.header_filter(&mut exchange);
    let response = &exchange.response;
    assert_eq!((response.status, response.source, response.headers.get_str("x-pot")), (418, Source::Exit, Some("1")));
    assert_eq!(response.headers.get_str("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(response.body.as_deref(), Some(&br#"{"tea":true}"#[..]));
    let mut sent = Vec::new();
    for (piece, last) in [("first", false), ("second", false), ("", true)] {
        let mut piece = piece.as_bytes().to_vec();
        plugin.body_filter(&mut exchange, &mut piece, last);
        sent.extend(piece);
    }
    assert_eq!(sent, b"all");
}

#[test]
fn an_exit_in_header_filter_ends_neither_the_handler_nor_the_phase() {
    let handler = |exit: &str, after: &str| {
        format!("local P = {{ PRIORITY = 5 }}\nfunction P:header_filter()\n{exit}\n{after}\nend\nreturn P")
    };
    let seen = "kong.response.set_header('X-Seen', kong.response.get_status() .. kong.response.get_source())";
    let after = |name: &str, exit: &str| {
        let (first, second) = (handler(exit, ""), handler(seen, ""));
        let folder = Folder::new(name, &[("p/handler.lua", &first), ("q/handler.lua", &second)]);
        let host = folder.host();
        let plugins = ["p", "q"].map(|name| made(&host, name, json!({})).unwrap());
        let mut exchange = exchange();
        exchange.response.status = 200;
        exchange.response.source = Source::Service;
        exchange.response.headers.add("X-Up", "u");
        plugins.iter().for_each(|plugin| plugin.header_filter(&mut exchange));
        let response = &exchange.response;
        let seen = response.headers.get_str("x-seen").unwrap_or_default().to_owned();
        let body = response.body.as_ref().map(|body| String::from_utf8_lossy(body).into_owned());
        assert_eq!(vm::LAST_ERROR.take(), "", "{name}");
        (response.status, seen, body)
    };
    let check = |name: &str, exit: &str, status: u16, seen: &str, body: Option<&str>| {
        let found = after(name, exit);
        assert_eq!((found.0, found.1.as_str()), (status, seen), "{name}");
        match (found.2, body) {
            (Some(found), Some(body)) => assert!(found.contains(body), "{name}: {found}"),
            (found, body) => assert_eq!(found.as_deref(), body, "{name}"),
        }
    };
    check("hf-exit", "return kong.response.exit(403, 'no')", 403, "403exit", Some("no"));
    check(
        "hf-error",
        "kong.response.error(403) kong.response.set_header('X-Up', 'v')",
        403,
        "403exit",
        Some("Forbidden"),
    );
    check("hf-twice", "pcall(kong.response.exit, 401, 'a') kong.response.exit(402, 'b')", 402, "402exit", Some("b"));
    check("hf-ngx-404", "ngx.exit(404)", 404, "404exit", Some("Not found"));
    check("hf-ngx-302", "ngx.header.Location = '/x' ngx.exit(302)", 302, "302exit", Some(""));
    check("hf-ngx-202", "ngx.exit(202)", 202, "202service", None);
    check("hf-ngx-ok", "ngx.exit(ngx.OK)", 200, "200service", None);
}

#[test]
fn what_came_from_the_upstream_is_known_after_others_took_fields_out() {
    let (_folder, plugin) = phases(
        "taken-out",
        &[(
            "header_filter",
            r#"
            local theirs = kong.service.response
            kong.response.clear_header("X-First") ngx.header["X-None"] = nil
            -- One field in the place of two is one less.
            kong.response.set_header("X-Twice", "t")
            assert(theirs.get_header("X-Twice") == "t" and theirs.get_headers()["x-own"] == nil)
            assert(theirs.get_header("X-First") == nil and theirs.get_header("X-Last") == "l" and theirs.get_header("X-Own") == nil)
            pcall(kong.response.exit, 503, "no")
            "#,
        )],
    );
    let mut exchange = exchange();
    exchange.response.status = 200;
    for (name, value) in
        [("X-First", "f"), ("Content-Type", "text/html"), ("X-Twice", "1"), ("X-Twice", "2"), ("X-Last", "l")]
    {
        exchange.response.headers.add(name, value);
    }
    exchange.response.headers.mark();
    for name in ["X-Own", "X-Own-2"] {
        exchange.response.headers.add(name, "o");
    }
    plugin.header_filter(&mut exchange);
    assert_eq!(plugin.instance().counts.errors(Phase::HeaderFilter), 0, "{}", vm::LAST_ERROR.take());
    assert_eq!(exchange.response.status, 503);
    let marked = |name: &str| exchange.response.headers.is_marked(name);
    assert_eq!(["X-Twice", "X-Last", "Content-Type", "X-Own"].map(marked), [true, true, false, false]);
}

fn entities(exchange: &mut Exchange) -> Consumer {
    let id = |kind: &str| EntityId::derived(kind, "x");
    let route: Route = serde_json::from_value(json!({
        "id": id("routes"), "name": "r", "protocols": ["http", "https"], "methods": null, "hosts": null,
        "paths": ["/"], "headers": null, "snis": null, "sources": null, "destinations": null, "regex_priority": 0,
        "strip_path": true, "preserve_host": false, "path_handling": "v0", "https_redirect_status_code": 426,
        "request_buffering": true, "response_buffering": true, "expression": null, "priority": null,
        "service": id("services"), "tags": null, "created_at": 1, "updated_at": 1
    }))
    .unwrap();
    let service: Service = serde_json::from_value(json!({
        "id": id("services"), "name": "s", "protocol": "http", "host": "h", "port": 80, "path": null, "retries": 5,
        "connect_timeout": 1, "write_timeout": 1, "read_timeout": 1, "client_certificate": null, "tls_verify": null,
        "tls_verify_depth": null, "ca_certificates": null, "enabled": true, "tags": null, "created_at": 1,
        "updated_at": 1
    }))
    .unwrap();
    let consumer = json!({"id": id("consumers"), "username": "ann", "custom_id": null, "tags": null, "created_at": 1, "updated_at": 1});
    exchange.route = Some(Arc::new(route));
    exchange.service = Some(Arc::new(service));
    serde_json::from_value(consumer).unwrap()
}

#[test]
fn entities_are_tables_and_callers_are_authenticated() {
    let handler = r#"
        local P = { PRIORITY = 5 }
        function P:access(conf)
          local route, service = kong.router.get_route(), kong.router.get_service()
          assert(route.name == "r" and route.service.id == service.id and service.host == "h" and route.hosts == nil)
          assert(route == kong.router.get_route())
          assert(kong.client.get_consumer() == nil and kong.client.get_credential() == nil)
          assert(kong.client.get_protocol() == "http" and kong.client.get_protocol(true) == "https")
          local consumer = kong.client.load_consumer("ann", true)
          assert(kong.client.load_consumer(consumer.id).username == "ann")
          assert(kong.client.load_consumer("bob", true) == nil)
          assert(not pcall(kong.client.load_consumer, "ann"))
          local credential = { id = "c", secret = "x" }
          kong.client.authenticate(consumer, credential)
          assert(kong.client.get_consumer() == consumer and kong.client.get_credential() == credential)
          assert(not pcall(kong.client.authenticate)) assert(not pcall(kong.client.authenticate, 1))
          assert(#kong.plugin.get_id() == 36 and kong.node.get_id() == "n" and kong.node.get_hostname() == "h")
          assert(kong.ip.is_trusted("10.1.2.3") and not kong.ip.is_trusted("11.1.2.3") and not kong.ip.is_trusted("x"))
          assert(kong.configuration.role == "traditional" and not pcall(function() kong.configuration.role = 1 end))
          local memory = kong.node.get_memory_stats()
          assert(memory.workers_lua_vms[1].http_allocated_gc > 1000)
          assert(kong.node.get_memory_stats("M", 3).workers_lua_vms[1].http_allocated_gc:find("^%d+%.%d%d%d MiB$"))
          local merged = kong.table.merge({ a = 1, b = 1 }, { b = 2 })
          assert(merged.a == 1 and merged.b == 2 and next(kong.table.new(4, 4)) == nil)
          assert(kong.vault.is_reference("{vault://env/x}") and not kong.vault.is_reference("x"))
          local span = kong.tracing.start_span("x") span:set_attribute("a", 1) span:finish()
          assert(kong.version_num == 3009001 and kong.nginx.get_subsystem() == "http")
          local counted = kong.nginx.get_statistics()
          assert(counted.connections_active == 2 and counted.total_requests == 7)
        end
        return P
    "#;
    let folder = Folder::new("entities", &[("p/handler.lua", handler)]);
    let mut facts = NodeFacts { node_id: "n".to_owned(), hostname: "h".to_owned(), ..NodeFacts::default() };
    facts.trusted.push("10.0.0.0/8".parse().unwrap());
    facts.statistics = Some(Arc::new(|| json!({"connections_active": 2, "total_requests": 7})));
    facts.configuration.insert("role".to_owned(), "traditional".into());
    let options = LuaOptions { folders: vec![folder.0.clone()], facts: Arc::new(facts), ..LuaOptions::default() };
    let host = LuaHost::new(options);
    let mut exchange = exchange();
    let consumer = Arc::new(entities(&mut exchange));
    let mut snapshot = Snapshot::empty();
    snapshot.config.consumers.push(consumer.clone());
    let plugin = made(&host, "p", json!({})).unwrap();
    *plugin.vm().unwrap().shared().served.borrow_mut() = Arc::new(Served::new(&snapshot.config));
    assert_eq!(status(&run(plugin.access(&mut exchange))), None, "see the log");
    assert_eq!(exchange.auth.consumer.as_ref().map(|found| found.id), Some(consumer.id));
    assert!(exchange.auth.credential.is_some());
}

#[test]
fn the_record_takes_values_of_plugins() {
    let (_folder, plugin) = phases(
        "record",
        &[
            (
                "access",
                r#"
                local set = kong.log.set_serialize_value
                set("mine.deep", { a = 1 }) set("request.id", "new", { mode = "add" }) set("none.at", 1, { mode = "replace" })
                set("client_ip", nil) set("ip", "replaced", { mode = "replace" })
                assert(not pcall(set, "x", print)) assert(not pcall(set, 1, 1)) assert(not pcall(set, "x", 1, { mode = "y" }))
                kong.log.inspect({ a = { 1, "x" } }) kong.log.inspect.off() kong.log.inspect.on()
                kong.log.warn("a", 1, nil) kong.log("b") kong.log.deprecation("old", { after = "1", removal = "2" })
                "#,
            ),
            (
                "log",
                r#"
                local record = kong.log.serialize()
                assert(record.mine.deep.a == 1 and record.request.id == "0123" and record.none == nil)
                assert(record.client_ip == nil and record.ip == nil)
                ngx.ctx.fine = true
                _G.logged = function() return "yes" end
                "#,
            ),
        ],
    );
    let mut exchange = exchange();
    assert_eq!(status(&run(plugin.access(&mut exchange))), None);
    let record = RequestRecord::of(&exchange);
    plugin.log(&record);
    assert_eq!(plugin.vm().unwrap().evaluate("logged"), "yes");
}
