//! What Lua plugins do with an exchange, in a running gateway: bodies, other targets, other answers.

use gateward_e2e::streams::dead_port;
use gateward_e2e::{Authority, Nginx, echoed_header, has_tool};
use gateward_testkit::{Backend, Gateway, Next, RawClient, RawResponse, TempDir, eventually, http};

/// A gateway with the plugin `p`, whose phases are these bodies of functions.
struct Fixture {
    _folder: TempDir,
    gateway: Gateway,
}

impl Fixture {
    fn new(backend: &Backend, phases: &[(&str, &str)]) -> Self {
        Self::before(&backend.url(), phases)
    }

    /// In front of what is at `url`.
    fn before(url: &str, phases: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().expect("a folder can be made");
        let plugin = folder.path().join("p");
        std::fs::create_dir_all(&plugin).expect("folders can be made");
        let bodies: String =
            phases.iter().map(|(phase, body)| format!("function P:{phase}(conf)\n{body}\nend\n")).collect();
        let handler = format!("local P = {{ PRIORITY = 5 }}\n{bodies}return P");
        std::fs::write(plugin.join("handler.lua"), handler).expect("plugins can be written");
        let config = format!(
            "_format_version: '3.0'\nservices:\n- {{name: s, url: {url}, routes: [{{name: r, paths: [/]}}]}}\n\
             plugins:\n- {{name: p}}\n"
        );
        let builder = Gateway::builder(&config).arg(format!("--plugins-dir={}", folder.path().display()));
        let gateway = builder.arg("--plugin-body-size=64k").workers(1).start();
        Self { _folder: folder, gateway }
    }

    fn send(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> RawResponse {
        http(self.gateway.proxy(), line, headers, body)
    }
}

/// Makes the body louder if it can be held.
const LOUDER: &str = "local body, err = kong.request.get_raw_body()\n\
    kong.service.request.set_header('X-Length', body and #body or err)\n\
    if body then kong.service.request.set_raw_body(body:upper()) end";

#[test]
fn a_body_is_held_only_for_the_plugin_that_asks() {
    let backend = Backend::echo();
    let fixture = Fixture::new(&backend, &[("access", LOUDER)]);
    let chunked: &[(&str, &str)] = &[("Transfer-Encoding", "chunked")];
    // Short, with its length and in chunks; then longer than is held, likewise; all on connections that go on.
    let response = fixture.send("POST /", &[("Content-Length", "5")], b"hello");
    assert_eq!(echoed_header(&response, "x-length").as_deref(), Some("5"));
    fixture.send("POST /", chunked, b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n");
    let long = vec![b'x'; 300 * 1024];
    let response = fixture.send("POST /", &[("Content-Length", &long.len().to_string())], &long);
    assert!(echoed_header(&response, "x-length").is_some_and(|text| text.starts_with("request body did not fit")));
    let mut in_chunks = Vec::new();
    for piece in long.chunks(10_000) {
        in_chunks.extend(format!("{:x}\r\n", piece.len()).bytes());
        in_chunks.extend(piece);
        in_chunks.extend(b"\r\n");
    }
    in_chunks.extend(b"0\r\n\r\n");
    let response = fixture.send("POST /", chunked, &in_chunks);
    assert!(echoed_header(&response, "x-length").is_some_and(|text| text.starts_with("request body did not fit")));
    assert_eq!(fixture.send("GET /", &[], b"").status, 200);
    let bodies: Vec<Vec<u8>> = backend.requests().iter().map(|request| request.body.clone()).collect();
    assert_eq!(bodies[0], b"HELLO");
    assert_eq!(bodies[1], b"ABCDEF");
    assert!(bodies[2] == long && bodies[3] == long, "what is too long goes upstream as it came");
    assert!(bodies[4].is_empty());
    fixture.gateway.assert_no_errors();
}

#[test]
fn a_client_that_waits_for_100_gets_it_when_a_plugin_asks_for_the_body() {
    let backend = Backend::echo();
    let fixture = Fixture::new(&backend, &[("access", LOUDER)]);
    let mut client = RawClient::connect(fixture.gateway.proxy());
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.read_response("POST").status, 100);
    client.send(b"hello");
    assert_eq!(client.read_response("POST").status, 200);
    assert_eq!(backend.requests()[0].body, b"HELLO");
}

#[test]
fn a_plugin_says_where_a_request_goes_and_how() {
    let (first, second) = (Backend::echo(), Backend::echo());
    let access = format!(
        "local s = kong.service\n\
         if kong.request.get_path() == '/there' then\n\
           s.set_target('127.0.0.1', {})\n\
           s.request.set_method('PUT') s.request.set_path('/a b') s.request.set_query({{ x = '1 2' }})\n\
         elseif kong.request.get_path() == '/nowhere' then\n\
           s.set_target('127.0.0.1', 1) s.set_retries(0) s.set_timeouts(200, 200, 200)\n\
         elseif kong.request.get_path() == '/tls' then s.request.set_scheme('https')\n\
         elseif kong.request.get_path() == '/upstream' then kong.response.set_header('X-Error', select(2, s.set_upstream('none'))) end",
        second.addr().port()
    );
    let fixture = Fixture::new(&first, &[("access", &access)]);
    assert_eq!(fixture.send("GET /there", &[], b"").status, 200);
    let request = &second.requests()[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("PUT", "/a%20b?x=1%202"));
    assert_eq!(request.header("host"), Some("127.0.0.1"));
    assert_eq!(fixture.send("GET /here", &[], b"").status, 200);
    assert_eq!((first.request_count(), second.request_count()), (1, 1));
    assert_eq!(fixture.send("GET /nowhere", &[], b"").status, 502);
    // The backend speaks no TLS.
    assert_eq!(fixture.send("GET /tls", &[], b"").status, 502);
    let response = fixture.send("GET /upstream", &[], b"");
    assert_eq!(response.header("x-error"), Some("could not find an Upstream named 'none'"));
}

#[test]
fn the_response_of_the_service_is_known_and_replaced() {
    let backend = Backend::fixed(
        "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nX-Up: u\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
    );
    let fixture = Fixture::new(
        &backend,
        &[
            ("access", "kong.response.set_header('X-Down', 'd') kong.service.request.enable_buffering()"),
            (
                "header_filter",
                "local r = kong.service.response\n\
                 assert(r.get_status() == 201 and r.get_header('x_up') == 'u' and r.get_header('x-down') == nil)\n\
                 assert(r.get_headers()['X-Up'] == 'u' and r.get_headers().x_down == nil)\n\
                 assert(r.get_body().a == 1 and r.get_raw_body() == '{\"a\":1}')\n\
                 if kong.request.get_path() == '/replaced' then kong.response.exit(418, { tea = true }) end",
            ),
            (
                "body_filter",
                "local body = kong.response.get_raw_body()\n\
                 if body then assert(kong.service.response.get_raw_body() == '{\"a\":1}') kong.response.set_raw_body(body .. '!') end",
            ),
            ("log", "kong.log.err('seen ', #kong.service.response.get_raw_body(), ' ', kong.response.get_status())"),
        ],
    );
    for _ in 0..2 {
        let response = fixture.send("GET /", &[], b"");
        assert_eq!((response.status, response.text().as_str()), (201, "{\"a\":1}!"));
        let response = fixture.send("GET /replaced", &[], b"");
        assert_eq!((response.status, response.text().as_str()), (418, "{\"tea\":true}!"));
        assert_eq!(response.header("x-down"), Some("d"));
    }
    fixture.gateway.expect_log("[p] seen 7 201");
}

#[test]
fn a_head_that_is_replaced_leaves_nothing_of_the_upstreams_body() {
    let backend = Backend::fixed(&format!("HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n{}", "x".repeat(500_000)));
    let fixture = Fixture::new(&backend, &[("header_filter", "kong.response.exit(503, 'no')")]);
    for _ in 0..3 {
        let response = fixture.send("GET /", &[], b"");
        assert_eq!((response.status, response.text().as_str()), (503, "no"));
    }
}

#[test]
fn a_body_that_is_held_is_replaced_with_its_trailers() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecret\r\n0\r\nX-Trailer: theirs\r\n\r\n";
    let backend = Backend::fixed(chunked);
    let phases: &[(&str, &str)] = &[
        ("access", "kong.service.request.enable_buffering()"),
        ("header_filter", "if kong.request.get_path() == '/replaced' then kong.response.exit(403, 'no') end"),
    ];
    let fixture = Fixture::new(&backend, phases);
    let mut client = RawClient::connect(fixture.gateway.proxy());
    for _ in 0..2 {
        client.send(b"GET /replaced HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n");
        let response = client.read_response("GET");
        assert_eq!(
            (response.status, response.text().as_str(), response.header("content-length")),
            (403, "no", Some("2"))
        );
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.read_response("GET");
        assert_eq!((response.status, response.text().as_str()), (200, "secret"));
    }
}

#[test]
fn a_handler_knows_its_connection_and_how_many_there_are() {
    let backend = Backend::echo();
    let access = "local counted = kong.nginx.get_statistics()\n\
        assert(counted.connections_accepted >= 1 and counted.connections_active >= 1 and counted.connections_writing >= 1)\n\
        kong.response.exit(200, table.concat({ ngx.var.server_addr, ngx.var.connection_requests, #ngx.var.binary_remote_addr }, ' '))";
    let fixture = Fixture::new(&backend, &[("access", access)]);
    let mut client = RawClient::connect(fixture.gateway.proxy());
    for number in 1..=3 {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.read_response("GET");
        assert_eq!((response.status, response.text()), (200, format!("127.0.0.1 {number} 4")));
    }
}

#[test]
fn an_answer_in_place_of_a_response_in_hand_is_the_plugins_alone() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Up: 1\r\n\r\nsecret");
    let fixture = Fixture::new(&backend, &[("response", "kong.response.exit(403, 'no')")]);
    let mut client = RawClient::connect(fixture.gateway.proxy());
    for _ in 0..3 {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.read_response("GET");
        assert_eq!((response.status, response.text().as_str(), response.header("x-up")), (403, "no", None));
    }
}

#[test]
fn a_body_that_came_with_a_replaced_head_does_not_follow_the_answer() {
    let backend = Backend::fixed(&format!("HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n{}", "x".repeat(3000)));
    for more in ["", "function P:body_filter() end\n"] {
        let exit = format!("kong.response.exit(503, 'no')\nend\n{more}function P:unused()");
        let fixture = Fixture::new(&backend, &[("header_filter", &exit)]);
        let mut client = RawClient::connect(fixture.gateway.proxy());
        for _ in 0..3 {
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let response = client.read_response("GET");
            assert_eq!((response.status, response.text().as_str()), (503, "no"), "{more}");
        }
        client.expect_silence(std::time::Duration::from_millis(100));
    }
}

#[test]
fn entities_are_found_among_very_many() {
    let backend = Backend::echo();
    let folder = TempDir::new().expect("a folder can be made");
    let plugin = folder.path().join("p");
    std::fs::create_dir_all(&plugin).expect("folders can be made");
    let handler = "local P = { PRIORITY = 5 }\nfunction P:access()\n\
        local found = kong.db.consumers:select_by_username('user-11999')\n\
        kong.response.exit(200, found and found.username or 'nobody')\nend\nreturn P";
    std::fs::write(plugin.join("handler.lua"), handler).expect("plugins can be written");
    let consumers: String = (0..12_000).map(|number| format!("- {{username: user-{number}}}\n")).collect();
    let config = format!(
        "_format_version: '3.0'\nservices:\n- {{name: s, url: {}, routes: [{{name: r, paths: [/]}}]}}\n\
         plugins:\n- {{name: p}}\nconsumers:\n{consumers}",
        backend.url()
    );
    let gateway =
        Gateway::builder(&config).arg(format!("--plugins-dir={}", folder.path().display())).workers(1).start();
    // A handler is stopped after 50 ms; what it took in until then is kept.
    eventually(std::time::Duration::from_secs(20), || {
        let response = http(gateway.proxy(), "GET /", &[], b"");
        response.status == 200 && response.text() == "user-11999"
    });
}

#[test]
fn answers_have_kongs_form() {
    let backend = Backend::echo();
    let access = "local path = kong.request.get_path()\n\
        if path == '/text' then kong.response.exit(200, 'plain') end\n\
        if path == '/many' then kong.response.exit(204, nil, { ['X-Many'] = { 'a', 'b' } }) end\n\
        if path == '/error' then kong.response.error(404, 'gone <b>') end\n\
        kong.response.error(400, 'bad', { ['Content-Type'] = 'text/plain' })";
    let fixture = Fixture::new(&backend, &[("access", access)]);
    let response = fixture.send("GET /text", &[], b"");
    assert_eq!((response.text().as_str(), response.header("content-type")), ("plain", None));
    let response = fixture.send("GET /many", &[], b"");
    assert_eq!((response.status, response.header_all("x-many")), (204, vec!["a", "b"]));
    let response = fixture.send("GET /error", &[("Accept", "text/html")], b"");
    assert!(response.text().contains("<p>gone &lt;b&gt;.</p>"), "{}", response.text());
    let response = fixture.send("GET /other", &[("Accept", "text/html")], b"");
    assert!(response.text().starts_with("bad\nrequest_id: "), "{}", response.text());
    assert_eq!(response.header("content-type"), Some("text/plain"));
}

#[test]
fn a_callback_says_where_the_next_try_goes() {
    let (first, second) = (Backend::echo(), Backend::echo());
    // Takes requests and answers none.
    let silent = Backend::scripted(|_, _| Next::Close);
    let access = format!(
        "local ways, tries = {{ a = {first}, b = {second} }}, 0\n\
         kong.service.set_target('127.0.0.1', kong.request.get_path() == '/silent' and {silent} or {dead})\n\
         kong.service.set_retries(3)\n\
         local said = kong.request.get_query_arg('say')\n\
         kong.service.set_target_retry_callback(function()\n\
           tries = tries + 1\n\
           kong.service.request.set_header('X-Tries', tries)\n\
           local list = ngx.ctx.balancer_data.tries\n\
           local last = list[#list - 1]\n\
           kong.service.request.set_header('X-Last', table.concat({{ last.ip, last.state, last.code, #list }}, ' '))\n\
           local way = said:sub(tries, tries)\n\
           if way == 'n' then return nil, 'nothing to say' end\n\
           if way == 'e' then error('no idea') end\n\
           if way == 'd' then return '127.0.0.1', {dead} end\n\
           if way == 's' then kong.service.set_target('localhost', ways.b) return true end\n\
           return '127.0.0.1', ways[way]\n\
         end)",
        first = first.addr().port(),
        second = second.addr().port(),
        silent = silent.addr().port(),
        dead = dead_port(),
    );
    let fixture = Fixture::new(&first, &[("access", &access)]);
    for (line, backend, tries) in [
        ("GET /?say=a", &first, "1"),
        ("GET /?say=b", &second, "1"),
        ("GET /?say=db", &second, "2"),
        ("GET /?say=nea", &first, "3"),
        ("GET /?say=s", &second, "1"),
        ("GET /silent?say=db", &second, "2"),
    ] {
        let before = backend.request_count();
        let response = fixture.send(line, &[], b"");
        assert_eq!(response.status, 200, "{line}: {}", response.text());
        assert_eq!(echoed_header(&response, "x-tries").as_deref(), Some(tries), "{line}");
        let last = format!("127.0.0.1 failed 502 {}", tries.parse::<u32>().unwrap() + 1);
        assert_eq!(echoed_header(&response, "x-last"), Some(last), "{line}");
        assert_eq!(backend.request_count(), before + 1, "{line}");
        let host = if line.ends_with("=s") { "localhost" } else { "127.0.0.1" };
        assert!(echoed_header(&response, "host").is_some_and(|named| named.starts_with(host)), "{line}");
    }
    // A body goes along.
    let response = fixture.send("POST /?say=b", &[("Content-Length", "5")], b"hello");
    assert_eq!((response.status, second.requests().pop().map(|request| request.body)), (200, Some(b"hello".to_vec())));
    // What may have been carried out is not sent again.
    assert_eq!(fixture.send("POST /silent?say=b", &[("Content-Length", "5")], b"hello").status, 502);
    assert_eq!(fixture.send("GET /?say=ddd", &[], b"").status, 502, "three tries after the first");
    fixture.gateway.expect_log("retry callback: nothing to say");
    fixture.gateway.expect_log("no idea");
}

#[test]
fn plugins_bring_certificates_and_authorities_for_the_upstream() {
    if !has_tool("nginx") {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    let nginx = Nginx::start(&authority, "localhost");
    let (ann, bob) = (authority.issue("ann"), authority.issue("bob"));
    let access = format!(
        "local ssl, x509, store = require 'ngx.ssl', require 'resty.openssl.x509', require 'resty.openssl.x509.store'\n\
         local chains = {{ ann = [[{}]], bob = [[{}]] }}\n\
         local keys = {{ ann = [[{}]], bob = [[{}]] }}\n\
         local roots = {{ right = [[{}]], wrong = [[{}]] }}\n\
         local as, key = kong.request.get_query_arg('as'), kong.request.get_query_arg('key')\n\
         if as then\n\
           assert(kong.service.set_tls_cert_key(assert(ssl.parse_pem_cert(chains[as])),\n\
             assert(ssl.parse_pem_priv_key(keys[key or as]))))\n\
         end\n\
         local by = kong.request.get_query_arg('by')\n\
         if by then\n\
           local own = assert(store.new())\n\
           if roots[by] then assert(own:add(assert(x509.new(roots[by], 'PEM')))) end\n\
           if by == 'default' then own:use_default() end\n\
           assert(kong.service.set_tls_verify(true))\n\
           assert(kong.service.set_tls_verify_store(own))\n\
         end",
        ann.cert,
        bob.cert,
        ann.key,
        bob.key,
        authority.pem(),
        stranger.pem()
    );
    let fixture = Fixture::before(&format!("https://localhost:{}/", nginx.port()), &[("access", &access)]);
    // What one request may use of kept connections another may not.
    for _ in 0..3 {
        for (query, status, subject) in [
            ("", 200, "NONE|subject="),
            ("as=ann", 200, "SUCCESS|subject=CN=ann"),
            ("as=bob", 200, "SUCCESS|subject=CN=bob"),
            ("as=ann&by=right", 200, "SUCCESS|subject=CN=ann"),
            ("by=right", 200, "NONE|subject="),
            ("by=wrong", 502, ""),
            ("by=nothing", 502, ""),
            ("by=default", 502, ""),
            ("as=bob&by=wrong", 502, ""),
            ("as=ann&key=bob", 502, ""),
        ] {
            let response = fixture.send(&format!("GET /?{query}"), &[], b"");
            assert_eq!(response.status, status, "{query}: {}", response.text());
            let shown = format!("|verify={subject}|");
            assert!(status != 200 || response.text().contains(&shown), "{query}: {}", response.text());
        }
    }
    // The same certificate uses the same connection.
    let connection = |query: &str| {
        let text = fixture.send(&format!("GET /?{query}"), &[], b"").text();
        text.split('|').find_map(|part| part.strip_prefix("connection=").map(str::to_owned))
    };
    assert!(connection("as=ann").is_some() && connection("as=ann") == connection("as=ann"));
    assert_ne!(connection("as=ann"), connection("as=bob"));
    let log = fixture.gateway.log().join("\n");
    assert!(log.contains("does not belong to the certificate") && !log.contains("PRIVATE KEY"), "{log}");
}

#[test]
fn telemetry_is_a_record_of_the_log() {
    let backend = Backend::echo();
    let access = "assert(kong.telemetry.log('mine', conf, 'result', 'it went well', { [\"node.id\"] = 'n1', list = { 1, 2 } }) == true)";
    let fixture = Fixture::new(&backend, &[("access", access)]);
    assert_eq!(fixture.send("GET /", &[], b"").status, 200);
    fixture.gateway.expect_log("it went well");
    let log = fixture.gateway.log();
    let record = log.iter().find(|line| line.contains("it went well")).expect("it is there");
    for part in ["mine", "result", "node.id", "n1", "[1,2]"] {
        assert!(record.contains(part), "{record}");
    }
}

#[test]
fn a_plugin_lets_in_whoever_has_a_token() {
    let backend = Backend::echo();
    // RFC 7515 A.3; expired for long, which this plugin does not look at.
    let access = r#"local jwt, validators = require "resty.jwt", require "resty.jwt-validators"
        local key = '{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",'
          .. '"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}'
        local token = (kong.request.get_header("authorization") or ""):match("^Bearer (.+)$")
        local spec = { iss = validators.equals("joe") }
        if kong.request.get_path() == "/fresh" then spec.exp = validators.is_not_expired() end
        local read = jwt:verify(key, token, spec)
        if not read.verified then return kong.response.exit(401, { message = read.reason }) end
        kong.service.request.set_header("X-Issuer", read.payload.iss)"#;
    let fixture = Fixture::new(&backend, &[("access", access)]);
    let signed = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let token =
        format!("{signed}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q");
    let send = |path: &str, token: &str| {
        fixture.send(&format!("GET {path}"), &[("Authorization", &format!("Bearer {token}"))], b"")
    };
    let response = send("/", &token);
    assert_eq!((response.status, echoed_header(&response, "x-issuer").as_deref()), (200, Some("joe")));
    for (path, token, why) in [
        ("/fresh", token.as_str(), "claim expired at"),
        ("/", signed, "invalid jwt string"),
        ("/", &token.replace(".Dt", ".Et"), "signature verification failed"),
        ("/", &token.replace("Ijp0cnVl", "IjpudWxs"), "signature verification failed"),
        ("/", &token.replace("eyJhbGciOiJFUzI1NiJ9", "eyJhbGciOiJIUzI1NiJ9"), "no secret"),
        ("/", &token.replace("eyJhbGciOiJFUzI1NiJ9", "eyJhbGciOiJub25lIn0"), "Unsupported algorithm none"),
    ] {
        let response = send(path, token);
        assert!(response.status == 401 && response.text().contains(why), "{why}: {}", response.text());
    }
    assert_eq!(backend.request_count(), 1);
}
