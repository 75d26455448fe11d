//! The part of `ngx` that is about one request.

use super::*;
use gateward_http::BodyFraming;
use gateward_plugin::{ChangeMode, RequestRecord};

fn exchange() -> Exchange {
    let mut exchange = Exchange::new();
    exchange.id = "0123".to_owned();
    exchange.client.peer = "10.0.0.1:4711".parse().unwrap();
    exchange.client.ip = "192.0.2.7".parse().unwrap();
    exchange.client.port = 8000;
    exchange.request.authority = "a.example".to_owned();
    exchange.request.target = "/c?x=1&x=2&y".to_owned();
    exchange.request.headers.add("Host", "a.example");
    exchange.request.headers.add("Cookie", "a=1; b=2");
    exchange
}

fn handler(body: &str) -> String {
    format!(
        "local function is(found, expected) if found ~= expected then \
         error(tostring(found) .. ' instead of ' .. tostring(expected), 2) end end\n\
         local P = {{ PRIORITY = 5 }}\nfunction P:access(conf)\n{body}\nend\nreturn P"
    )
}

#[test]
fn the_request_is_read_and_changed() {
    let (_folder, plugin) = plugin(
        "ngx-request",
        &handler(
            r#"
            local v, req = ngx.var, ngx.req
            is(v.request_method, "GET") is(v.request_uri, "/c?x=1&x=2&y") is(v.uri, "/c") is(v.args, "x=1&x=2&y")
            is(v.arg_x, "1") is(v.arg_X, "1") is(v.arg_y, nil) is(v.arg_none, nil) is(v.host, "a.example") is(v.http_host, "a.example")
            is(v.cookie_b, "2") is(v.remote_addr, "192.0.2.7") is(v.realip_remote_addr, "10.0.0.1") is(v.server_port, "8000")
            is(v.request_id, "0123") is(v.is_args, "?") is(v.https, "") is(v.scheme, "http") is(v.no_such, nil)
            v.mine = 5 is(v.mine, "5") is(pcall(function() v.host = "x" end), false)
            v.upstream_host = "up" v.args = "z=1" is(v.args, "z=1") is(req.get_uri_args().z, "1")
            is(req.get_headers().host, "a.example") is(req.get_headers(0, true).Host, "a.example")
            is(select(2, req.get_headers(1)), "truncated")
            req.set_header("X-List", { "1", "2" }) req.set_header("X-N", 1) req.clear_header("Cookie")
            req.set_uri_args({ a = "b c" }) is(v.args, "a=b%20c") req.set_method(ngx.HTTP_PUT) is(req.get_method(), "PUT")
            req.set_uri("/new") is(v.upstream_uri, "/new") is(req.http_version(), 1.1) is(req.is_internal(), false)
            assert(req.raw_header():find("GET /c?x=1&x=2&y HTTP/1.1\r\n", 1, true))
            is(req.get_body_data(), nil) req.read_body() is(req.get_body_data(), "p=1&q") is(req.get_post_args().q, true)
            req.set_body_data("new") is(req.get_body_data(), "new") is(req.get_body_file(), nil)
            ngx.header.x_a = { "1", "2" } is(ngx.header["X-A"][2], "2") ngx.header["X-B"] = 1 ngx.header["X-B"] = nil
            is(ngx.header["X-B"], nil) is(ngx.resp.get_headers()["x-a"][1], "1") is(ngx.status, 0)
            is(pcall(ngx.exec, "/x"), false) is(ngx.HTTP_NOT_FOUND, 404) is(ngx.config.subsystem, "http")
            "#,
        ),
    );
    let mut exchange = exchange();
    exchange.request.framing = BodyFraming::Chunked;
    assert_eq!(status(&access(&plugin, &mut exchange, Ok("p=1&q"))), None);
    assert_eq!(exchange.upstream.host.as_deref(), Some("up"));
    assert_eq!((exchange.upstream.path.as_str(), exchange.upstream.query.as_deref()), ("/new", Some("a=b%20c")));
    assert_eq!((exchange.request.headers.count("x-list"), exchange.request.headers.contains("cookie")), (2, false));
    assert_eq!((exchange.body.as_deref(), exchange.response.early.count("x-a")), (Some(&b"new"[..]), 2));
}

#[test]
fn texts_times_and_patterns_are_openrestys() {
    let (_folder, plugin) = plugin(
        "ngx-texts",
        &handler(
            r#"
            is(ngx.escape_uri("a b/c"), "a%20b%2Fc") is(ngx.escape_uri("/a b", 0), "/a%20b") is(ngx.unescape_uri("a%20b+c"), "a b c")
            is(ngx.encode_args({ a = "b c" }), "a=b%20c") is(ngx.decode_args("a=1&a=2").a[2], "2")
            is(ngx.encode_base64("hello"), "aGVsbG8=") is(ngx.encode_base64("hello", true), "aGVsbG8")
            is(ngx.decode_base64("aGVsbG8="), "hello") is(ngx.decode_base64("aGVsbG8"), "hello") is(ngx.decode_base64("*"), nil)
            is(ngx.crc32_short("123456789"), 3421780262) is(ngx.md5("hello"), "5d41402abc4b2a76b9719d911017c592")
            is(ngx.encode_base64(ngx.sha1_bin("hello")), "qvTGHdzF6KLavt4PO0gs2a6pQ00=") is(#ngx.hmac_sha1("k", "v"), 20)
            is(ngx.quote_sql_str("a'b"), "'a\\'b'")
            is(ngx.http_time(784111777), "Sun, 06 Nov 1994 08:49:37 GMT") is(ngx.parse_http_time("Sun, 06 Nov 1994 08:49:37 GMT"), 784111777)
            is(ngx.cookie_time(784111777), "Sun, 06-Nov-1994 08:49:37 GMT") is(ngx.parse_http_time("x"), nil)
            is(ngx.time(), math.floor(ngx.time())) assert(ngx.today():find("^%d%d%d%d%-%d%d%-%d%d$"))
            local m = ngx.re.match("hello, 1234", "(?<word>[a-z]+), ([0-9]+)(x)?", "jo")
            is(m[0], "hello, 1234") is(m[1], "hello") is(m.word, "hello") is(m[2], "1234") is(m[3], false)
            is(ngx.re.match("x", "y"), nil) is(ngx.re.match("HELLO", "hello", "i")[0], "HELLO")
            local _, err = ngx.re.match("x", "(") assert(err:find("regex compile failed"))
            local from, to = ngx.re.find("hello, 1234", "([0-9])([0-9]+)") is(from, 8) is(to, 11)
            is(ngx.re.find("hello, 1234", "([0-9])([0-9]+)", "jo", nil, 2), 9)
            local ctx = { pos = 2 } is(ngx.re.match("1a2", "[0-9]", "", ctx)[0], "2") is(ctx.pos, 4)
            local all = {} for found in ngx.re.gmatch("a1b22", "[0-9]+", "jo") do all[#all + 1] = found[0] end
            is(table.concat(all, ","), "1,22")
            is(ngx.re.sub("hello 12", "([0-9])([0-9])", "[$2${1}0$$]"), "hello [210$]")
            local text, n = ngx.re.gsub("a.b.c", "\\.", "-", "jo") is(text, "a-b-c") is(n, 2)
            is(ngx.re.gsub("abc", "[ac]", function(m) return m[0]:upper() end), "AbC") is(ngx.re.gsub("ab", "x*", "-"), "-a-b-")
            "#,
        ),
    );
    assert_eq!(status(&run(plugin.access(&mut exchange()))), None, "see the log");
}

#[test]
fn patterns_look_around_and_back() {
    let (_folder, plugin) = plugin(
        "ngx-patterns",
        &handler(
            r#"
            local match, split = ngx.re.match, require("ngx.re").split
            is(match("price: 10 EUR", "[0-9]+(?= EUR)", "jo")[0], "10") is(match("ab", "a(?!b)"), nil)
            is(match("x-1 y-2", "(?<=y-)(?<n>[0-9])").n, "2") is(match("say abab", "(ab)\\1")[0], "abab")
            is(match("\xff\xfe=1", "(?<==)[0-9]")[0], "1") is(match("AbAB", "(ab)\\1", "i")[0], "AbAB")
            is(match("aaa", "a++b"), nil) is(match("(a(b)c)", "(?>a|b)c"), nil)
            is(ngx.re.gsub("a1b2", "(?<=[a-z])[0-9]", "-"), "a-b-")
            local all = {} for found in ngx.re.gmatch("aXbXc", "[a-z](?=X)") do all[#all + 1] = found[0] end
            is(table.concat(all), "ab")
            local _, err = match(("a"):rep(40) .. "!", "^((a+)\\2?)+$")
            is(err, "pcre_exec() failed: -8")
            is(select(2, match("x", "(?<=")):find("regex compile failed", 1, true), 1)
            -- Anchored where the search begins, not where the subject does.
            is(match("ab", "b", "a"), nil) is(match("ab", "b", "a", { pos = 2 })[0], "b")

            local function pieces(...) return table.concat(assert(split(...)), "|") end
            is(pieces("a,b,c,d", ","), "a|b|c|d") is(pieces("a,b,c,d", "(,)"), "a|,|b|,|c|,|d") is(pieces("abcd", ""), "a|b|c|d")
            is(pieces("a,b,c,d", ",", nil, { pos = 5 }), "c|d") is(pieces("a,b,c,d", ",", nil, nil, 3), "a|b|c,d")
            is(pieces("a,,b,", ","), "a||b|") is(pieces("abc", "x"), "abc") is(#split("", ","), 0) is(pieces("aXbYc", "[xy]", "i"), "a|b|c")
            local kept = { "W", "X", "Y", "Z" } split("a,b", ",", nil, nil, nil, kept) is(kept[2], "b") is(kept[3], nil) is(kept[4], "Z")
            is(select(2, split("a", "(")):find("regex compile failed", 1, true), 1)
            is(pcall(split, "a", ",", nil, nil, nil, 1), false)
            require("ngx.re").opt("jit_stack_size", 1) is(pcall(require("ngx.re").opt, "other"), false)
            "#,
        ),
    );
    assert_eq!(status(&run(plugin.access(&mut exchange()))), None, "{}", vm::LAST_ERROR.take());
}

#[test]
fn a_search_begins_anywhere_and_where_it_ended_is_told() {
    let (_folder, plugin) = plugin(
        "ngx-positions",
        &handler(
            r#"
            local match, find = ngx.re.match, ngx.re.find
            for _, pos in ipairs { 1, 0, -3, 1.5, "1" } do is(match("ab", "a", "", { pos = pos })[0], "a") end
            local ctx = { pos = 2 } is(match("ab", "a", "", ctx), nil) is(ctx.pos, 2) is(match("ab", "b", "", { pos = 9 }), nil)
            -- Patterns that are compiled take time of a handler's.
            ngx.sleep(0)
            ctx = { pos = 2 } is(find("abab", "a(b)", "j", ctx, 1), 4) is(ctx.pos, 5) is(find("abab", "a", "j", ctx), nil)
            ctx = {} is(match("ab", "b", "", ctx)[0], "b") is(ctx.pos, 3) is(match("ab", "$", "", ctx)[0], "") is(ctx.pos, 3)
            is(select(3, find("ab", "a(b)", "", nil, 2)), "nth out of bound") is(find("a", "a(b)?", "", nil, 1), nil)
            ngx.sleep(0)
            ctx = { pos = 1 }
            local words = {}
            while true do
              local word = match("if x then", [[(?:if|then)\b|[a-z]+|\s+]], "ajo", ctx)
              if not word then break end
              words[#words + 1] = word[0]
            end
            is(table.concat(words, "|"), "if| |x| |then") is(match("a-b", "b|c", "aj", { pos = 2 }), nil)
            "#,
        ),
    );
    assert_eq!(status(&run(plugin.access(&mut exchange()))), None, "{}", vm::LAST_ERROR.take());
}

#[test]
fn the_log_phase_knows_the_upstream() {
    let (_folder, plugin) = plugin(
        "ngx-upstream",
        r#"
        local P = { PRIORITY = 5 }
        function P:log()
          local v = ngx.var
          _G.seen = table.concat({ v.upstream_addr, v.upstream_connect_time, v.upstream_header_time, v.upstream_response_time,
            v.remote_user, v.kong_proxy_mode, tostring(v.ssl_client_raw_cert), v.request_length, v.bytes_sent, v.request_time }, " ")
          _G.seen_text = function() return _G.seen end
        end
        return P"#,
    );
    let mut exchange = exchange();
    exchange.request.headers.add("Authorization", "Basic YWxpY2U6eA==");
    let tries = [tried("10.0.0.9:80", 1_500, None), tried("[::1]:81", 20_000, None)];
    // What is logged is not what happened.
    for field in ["tries", "latencies", "request.size", "response"] {
        exchange.changes.push(field.to_owned(), None, ChangeMode::Set).unwrap();
    }
    let mut record = RequestRecord::of(&exchange);
    record.tries = &tries;
    (record.request_bytes, record.response_bytes, record.request_us) = (70, 700, 300_400);
    record.upstream_us = Some(250_000);
    record.receive_us = 5_000;
    plugin.log(&record);
    let seen = plugin.vm().unwrap().evaluate("seen_text");
    assert_eq!(seen, "10.0.0.9:80, [::1]:81 0.002, 0.020 0.250 0.255 alice http nil 70 700 0.300");
}

#[test]
fn variables_have_nginxs_form() {
    let (_folder, plugin) = plugin(
        "ngx-forms",
        &handler(
            r#"
            local v = ngx.var
            is(v.connection, "4294967297") is(v.connection_requests, "3") is(v.body_bytes_sent, "0") is(v.bytes_sent, "0")
            is(v.request_completion, "") is(v.http_x_more, "1, 2") is(v.http_cookie, "a=1; b=2; c=3") is(v.cookie_c, "3")
            is(v.cookie_C, "3") is(v.arg_q, "a%20b") is(v.document_uri, v.uri) is(v.nginx_version, "1.27.1")
            is(v.proxy_add_x_forwarded_for, "198.51.100.1, 192.0.2.7") is(v.upstream_x_forwarded_for, "198.51.100.1, 10.0.0.1")
            is(v.proxy_protocol_addr, "2001:db8::1") is(v.proxy_protocol_port, "99") is(v.proxy_protocol_server_addr, nil)
            is(v.http2, "") is(v.server_protocol, "HTTP/1.1") is(v.remote_port, "4711") is(v.request, "GET /c?q=a%20b HTTP/1.1")
            is(v.upstream_addr, nil) is(v.upstream_status, nil) is(v.upstream_cookie_sid, nil) is(v.request_length, nil)
            is(v.tcpinfo_rtt, nil) is(v.sent_trailer_x, nil) is(v.ssl_client_cert, nil) is(v.ssl_client_v_remain, nil)
            assert(v.msec:find("^%d+%.%d%d%d$") and v.request_time:find("^%d+%.%d%d%d$") and v.pid:find("^%d+$") and v.hostname)
            assert(v.time_iso8601:find("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%+00:00$"))
            assert(v.time_local:find("^%d%d/%a%a%a/%d%d%d%d:%d%d:%d%d:%d%d %+0000$"))
            for _, name in ipairs { "connection", "body_bytes_sent", "http2", "document_uri" } do
              is(pcall(function() v[name] = "x" end), false)
            end
            "#,
        ),
    );
    let mut exchange = exchange();
    exchange.client.connection = 4_294_967_297;
    exchange.client.number = 3;
    exchange.client.origin = Some(Arc::new(gateward_plugin::ProxyOrigin {
        balancer: "10.0.0.1:1".parse().unwrap(),
        source: Some("[2001:db8::1]:99".parse().unwrap()),
        destination: None,
        vpce_id: None,
        azure_link_id: None,
        authority: None,
        unique_id: None,
        tls: false,
    }));
    exchange.request.target = "/c?q=a%20b".to_owned();
    for (name, value) in [("X-More", "1"), ("x-more", "2"), ("Cookie", "c=3"), ("X-Forwarded-For", "198.51.100.1")] {
        exchange.request.headers.add(name, value);
    }
    assert_eq!(status(&run(plugin.access(&mut exchange))), None, "{}", vm::LAST_ERROR.take());
}

#[test]
fn the_response_phases_know_whom_was_asked_and_what_is_sent() {
    let (_folder, plugin) = plugin(
        "ngx-sent",
        r#"
        local P = { PRIORITY = 5 }
        local function seen()
          local v = ngx.var
          return table.concat({ tostring(v.connection), tostring(v.body_bytes_sent), tostring(v.bytes_sent), v.upstream_addr,
            v.upstream_connect_time, tostring(v.sent_http_x_more), tostring(v.upstream_cookie_sid), v.status, v.request_completion,
            tostring(v.upstream_http_x_more) }, "|")
        end
        function P:header_filter() kong.response.set_header("X-Seen", seen()) end
        function P:log() _G.seen = seen() _G.seen_text = function() return _G.seen end end
        return P"#,
    );
    let mut exchange = exchange();
    exchange.client.connection = 7;
    exchange.response.status = 200;
    for (name, value) in [("X-More", "1"), ("x-more", "2"), ("Set-Cookie", "sid=s; Path=/")] {
        exchange.response.headers.add(name, value);
    }
    exchange.tries = vec![tried("10.0.0.9:80", 1_500, None), tried("10.0.0.8:80", 0, None)];
    plugin.header_filter(&mut exchange);
    let seen = exchange.response.headers.get_str("x-seen").unwrap_or_default().to_owned();
    let common = "10.0.0.9:80, 10.0.0.8:80|0.002, 0.000|1, 2|nil|200";
    assert_eq!(seen, format!("7|0|0|{common}||nil"), "{}", vm::LAST_ERROR.take());
    let over = |error: Option<&'static str>| {
        let record = RequestRecord {
            tries: &exchange.tries,
            response_bytes: 700,
            response_body_bytes: 500,
            error,
            ..RequestRecord::of(&exchange)
        };
        plugin.log(&record);
        plugin.vm().unwrap().evaluate("seen_text")
    };
    assert_eq!(over(None), format!("7|500|700|{common}|OK|nil"));
    assert_eq!(over(Some("client_gone")), format!("7|500|700|{common}||nil"));
}

#[test]
fn a_clients_certificate_is_in_variables() {
    let (_folder, plugin) = plugin(
        "ngx-certificate",
        &handler(
            r#"
            local v = ngx.var
            is(v.ssl_client_v_start, "Nov 30 00:41:20 2026 GMT") is(v.ssl_client_v_end, "Nov  6 00:41:20 2126 GMT")
            assert(tonumber(v.ssl_client_v_remain) > 30000)
            local lines = {}
            for line in (v.ssl_client_cert .. "\n"):gmatch("(.-)\n") do lines[#lines + 1] = line end
            is(lines[1], "-----BEGIN CERTIFICATE-----") is(lines[#lines], "\t-----END CERTIFICATE-----") is(lines[2]:sub(1, 4), "\tMII")
            is((v.ssl_client_cert:gsub("\t", "")) .. "\n", v.ssl_client_raw_cert) is(v.ssl_client_serial, "17")
            "#,
        ),
    );
    let keys = include_str!("lua/keys.lua");
    let begin = keys.find("-----BEGIN CERTIFICATE-----").unwrap();
    let text = keys[begin..].split("]]").next().unwrap();
    let (_, der) = gateward_config::pem_blocks(text).unwrap().into_iter().next().unwrap();
    let mut exchange = exchange();
    exchange.client.tls = Some(Arc::new(gateward_plugin::ClientTls {
        version: "TLSv1.3",
        cipher: "TLS_AES_128_GCM_SHA256",
        sni: None,
        certificate: Some(gateward_plugin::ClientCertificate {
            subject: "CN=t".to_owned(),
            issuer: "CN=t".to_owned(),
            serial: "17".to_owned(),
            fingerprint: String::new(),
            verified: true,
            chain: Arc::from(vec![der.into_boxed_slice()]),
        }),
    }));
    assert_eq!(status(&run(plugin.access(&mut exchange))), None, "{}", vm::LAST_ERROR.take());
}

/// The guide's list of what nginx has and the gateway has not.
#[test]
fn the_guide_names_the_variables_that_are_not_there() {
    let guide = include_str!("../../../../../docs/guide/lua-plugins.md");
    let (_, list) = guide.split_once("These variables of nginx are always nil:").expect("the guide lists variables");
    let (list, _) = list.split_once("\n\n").expect("a paragraph ends");
    let mut listed: Vec<&str> = list.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).collect();
    listed.sort_unstable();
    let (_folder, plugin) = plugin("ngx-absent", &handler(""));
    let mut absent = plugin.vm().unwrap().absent_variables();
    absent.extend(["sent_trailer_*".to_owned(), "upstream_trailer_*".to_owned()]);
    absent.sort_unstable();
    assert_eq!(listed, absent);
}

#[test]
fn addresses_are_texts_and_bytes() {
    let (_folder, plugin) = plugin(
        "ngx-addresses",
        &handler(
            r#"
            local v, ssl = ngx.var, require "ngx.ssl"
            local function hex(bytes) return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)) end
            local client, server = kong.request.get_header("x-client"), kong.request.get_header("x-server")
            is(v.remote_addr .. "=" .. hex(v.binary_remote_addr), client) is(v.server_addr, server:match("[^=]+"))
            local bytes, family = ssl.raw_client_addr() is(#bytes, family == "inet" and 4 or 16) is(hex(bytes), client:match("=(.*)"))
            bytes, family = ssl.raw_server_addr() is(hex(bytes), server:match("=(.*)")) is(#bytes, family == "inet" and 4 or 16)
            is(v.connection_requests, kong.request.get_header("x-number")) is(pcall(function() v.server_addr = 1 end), false)
            "#,
        ),
    );
    let of = |client: &str, server: &str, number: u32| {
        let mut exchange = exchange();
        let address = |text: &str| text.split('=').next().unwrap().parse::<std::net::IpAddr>().unwrap();
        exchange.client.ip = address(client);
        exchange.client.peer.set_ip(address(client));
        exchange.client.local_ip = address(server);
        exchange.client.number = number;
        exchange.request.headers.add("X-Client", client);
        exchange.request.headers.add("X-Server", server);
        if number > 0 {
            exchange.request.headers.add("X-Number", number.to_string());
        }
        assert_eq!(status(&run(plugin.access(&mut exchange))), None, "{client}: {}", vm::LAST_ERROR.take());
    };
    of("192.0.2.7=c0000207", "10.0.0.1=0a000001", 1);
    of("2001:db8::1=20010db8000000000000000000000001", "::1=00000000000000000000000000000001", 0);
}

#[test]
fn handlers_leave_with_answers() {
    let answer = |name: &str, body: &str| {
        let (_folder, plugin) = plugin(name, &handler(body));
        match run(plugin.access(&mut exchange())) {
            Outcome::Respond(response) => (response.status, response.body),
            other => panic!("no answer: {other:?}"),
        }
    };
    let text = |text: &str| LocalBody::Bytes(String::new(), text.as_bytes().to_vec());
    assert_eq!(
        answer("ngx-say", "ngx.status = 201 ngx.say('a', { 1, 'b' }) ngx.print('c') ngx.exit(201)"),
        (201, text("a1b\nc"))
    );
    assert_eq!(answer("ngx-exit", "pcall(ngx.exit, 403)"), (403, LocalBody::Message("Forbidden".into())));
    assert_eq!(answer("ngx-status", "ngx.status = 202 ngx.say('x') ngx.exit(ngx.OK)"), (202, text("x\n")));
    assert_eq!(answer("ngx-redirect", "ngx.redirect('/there', 301)").0, 301);
    let (_folder, plugin) = plugin("ngx-ok", &handler("ngx.exit(ngx.OK) kong.response.exit(500)"));
    assert_eq!(status(&run(plugin.access(&mut exchange()))), None, "it leaves the phase only");
}
