//! What Lua plugins wait for and share, in a running gateway: timers, light threads, dictionaries, connections.

use gateward_e2e::{Authority, has_tool, redis_with_tls};
use gateward_testkit::{
    Backend, Gateway, GatewayBuilder, Next, RawClient, RawResponse, RedisServer, TempDir, eventually, http, pause,
};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of plugins for one test.
struct Folder(TempDir);

impl Folder {
    /// One plugin `p` with this handler.
    fn new(handler: &str) -> Self {
        let folder = Self(TempDir::new().expect("a folder can be made"));
        let path = folder.path().join("p");
        std::fs::create_dir_all(&path).expect("folders can be made");
        std::fs::write(path.join("handler.lua"), handler).expect("plugins can be written");
        folder
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("plugins")
    }

    /// A gateway that uses it with this configuration.
    fn gateway(&self, backend: &Backend, config: &str) -> GatewayBuilder {
        let config = format!(
            "_format_version: '3.0'\nservices:\n- {{name: s, url: {}, routes: [{{name: r, paths: [/]}}]}}\n\
             plugins:\n- {{name: p, config: {config}}}\n",
            backend.url()
        );
        Gateway::builder(&config).arg(format!("--plugins-dir={}", self.path().display()))
    }
}

fn get(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> RawResponse {
    http(gateway.proxy(), &format!("GET {target}"), headers, b"")
}

#[test]
fn every_worker_begins_without_traffic_and_timers_run() {
    let folder = Folder::new(
        r#"
        local P = { PRIORITY = 5 }
        function P:init_worker()
          ngx.shared.counts:incr("begun", 1, 0)
          ngx.shared.counts:incr("ids", 10 ^ ngx.worker.id(), 0)
          assert(ngx.worker.count() == 2 and not ngx.worker.exiting())
          ngx.timer.every(0.02, function() ngx.shared.counts:incr("ticks", 1, 0) end)
        end
        function P:configure(configs) ngx.shared.counts:incr("configured", #configs, 0) end
        function P:access()
          local counts = ngx.shared.counts
          kong.response.exit(200, { begun = counts:get("begun"), ticks = counts:get("ticks"), configured = counts:get("configured"), ids = counts:get("ids") })
        end
        return P"#,
    );
    let backend = Backend::echo();
    let gateway = folder.gateway(&backend, "{}").workers(2).start();
    eventually(PATIENCE, || {
        let text = get(&gateway, "/", &[]).text();
        let ticks = text.split("\"ticks\":").nth(1).and_then(|rest| rest.split([',', '}']).next()?.parse::<u32>().ok());
        let all = ["\"begun\":2", "\"configured\":2", "\"ids\":11"].iter().all(|part| text.contains(part));
        all && ticks > Some(10)
    });
}

#[test]
fn a_plugin_that_waits_delays_nobody() {
    let folder = Folder::new(
        r#"
        local P = { PRIORITY = 5 }
        function P:access()
          if not kong.request.get_header("X-Slow") then return end
          local threads = {}
          for i = 1, 5 do threads[i] = ngx.thread.spawn(function() ngx.sleep(1) end) end
          for i = 1, 5 do ngx.thread.wait(threads[i]) end
        end
        return P"#,
    );
    let backend = Backend::echo();
    let gateway = folder.gateway(&backend, "{}").workers(1).start();
    get(&gateway, "/", &[]);
    std::thread::scope(|scope| {
        let began = std::time::Instant::now();
        let slow: Vec<_> = (0..4).map(|_| scope.spawn(|| get(&gateway, "/", &[("X-Slow", "1")]).status)).collect();
        pause(Duration::from_millis(100));
        let before = std::time::Instant::now();
        assert_eq!(get(&gateway, "/", &[]).status, 200);
        assert!(before.elapsed() < Duration::from_millis(600), "{:?}", before.elapsed());
        assert!(slow.into_iter().all(|slow| slow.join().expect("the request ended") == 200));
        assert!(began.elapsed() >= Duration::from_secs(1) && began.elapsed() < Duration::from_secs(4));
    });
}

/// A server that knows the token `good`, and answers slowly when it is asked to.
fn introspection() -> Backend {
    Backend::scripted(|request, stream| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        if body.contains("slow") {
            pause(Duration::from_secs(3));
        }
        let answer = format!("{{\"active\":{},\"sub\":\"alice\"}}", body == "token=good");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
        if stream.write_all(answer.as_bytes()).is_ok() { Next::KeepAlive } else { Next::Close }
    })
}

#[test]
fn authentication_against_an_http_service() {
    let folder = Folder::new(
        r#"
        local http, cjson = require "resty.http", require "cjson.safe"
        local P = { PRIORITY = 1000 }
        local function introspect(conf, token)
          local client = http.new()
          client:set_timeout(conf.timeout)
          local res, err = client:request_uri(conf.url, { method = "POST", body = "token=" .. token })
          if not res then return nil, err end
          return cjson.decode(res.body)
        end
        function P:access(conf)
          local token = kong.request.get_header("Authorization")
          if not token then return kong.response.exit(401, { message = "No token" }) end
          local known, err = kong.cache:get("token:" .. token, { ttl = 60 }, introspect, conf, token)
          if err then return kong.response.exit(503, { message = err }) end
          if not known.active then return kong.response.exit(401, { message = "Bad token" }) end
          kong.service.request.set_header("X-Subject", known.sub)
        end
        return P"#,
    );
    let (backend, service) = (Backend::echo(), introspection());
    let port = service.addr().port();
    // By name: looked up as the gateway looks up any.
    let config = format!("{{url: 'http://localhost:{port}/introspect', timeout: 300}}");
    let gateway = folder.gateway(&backend, &config).workers(1).start();
    let ask = |token: &str| get(&gateway, "/", &[("Authorization", token)]);
    assert_eq!(get(&gateway, "/", &[]).status, 401);
    for _ in 0..5 {
        let response = ask("good");
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(response.text().contains("alice"), "{}", response.text());
    }
    assert_eq!(ask("bad").status, 401);
    assert_eq!((service.request_count(), service.connections()), (2, 1), "cached, and the connection kept");
    let response = ask("slow");
    assert_eq!(response.status, 503);
    assert!(response.text().contains("timeout"), "{}", response.text());
    drop(service);
    let response = ask("another");
    assert!(response.text().contains("connection refused"), "{}", response.text());
}

#[test]
fn a_limit_that_nodes_share_in_redis() {
    if !has_tool("redis-server") {
        return;
    }
    let folder = Folder::new(
        r#"
        local redis = require "resty.redis"
        local P = { PRIORITY = 900 }
        function P:access(conf)
          local red = redis:new()
          red:set_timeouts(1000, 1000, 1000)
          local ok, err = red:connect("127.0.0.1", conf.port)
          if not ok then return kong.response.exit(500, err) end
          local reused = red:get_reused_times()
          red:init_pipeline()
          red:incr("limit")
          red:expire("limit", 60)
          local replies, why = red:commit_pipeline()
          if not replies then return kong.response.exit(500, why) end
          assert(replies[2] == 1)
          assert(red:set("key", "a\r\nb") == "OK" and red:get("key") == "a\r\nb" and red:get("none") == ngx.null)
          assert(red:hmset("hash", { a = 1 }) == "OK" and red:array_to_hash(red:hgetall("hash")).a == "1")
          local bad, reason = red:nonsense("x")
          assert(bad == false and reason:find("unknown command", 1, true), reason)
          assert(red:set_keepalive(10000, 10))
          kong.response.set_header("X-Reused", reused)
          if replies[1] > conf.limit then return kong.response.exit(429, { message = "too many" }) end
        end
        return P"#,
    );
    let (backend, redis) = (Backend::echo(), RedisServer::start(&[]));
    let config = format!("{{port: {}, limit: 6}}", redis.port());
    let nodes: Vec<Gateway> = (0..2).map(|_| folder.gateway(&backend, &config).workers(1).start()).collect();
    let answers: Vec<RawResponse> = (0..8).map(|index| get(&nodes[index % 2], "/", &[])).collect();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 429, 429], "{}", answers[0].text());
    assert_eq!(answers[7].header("x-reused"), Some("3"));
}

#[test]
fn requests_are_logged_in_batches_by_a_timer() {
    let folder = Folder::new(
        r#"
        local Queue, http, cjson = require "kong.tools.queue", require "resty.http", require "cjson"
        local P = { PRIORITY = 10 }
        local function send(conf, batch)
          local res, err = http.new():request_uri(conf.url, { method = "POST", body = "[" .. table.concat(batch, ",") .. "]" })
          if not res then return nil, err end
          return res.status < 300, "status " .. res.status
        end
        function P:log(conf)
          local record = kong.log.serialize()
          local queue = { name = "log", max_batch_size = 20, max_coalescing_delay = 0.3 }
          Queue.enqueue(queue, send, conf, cjson.encode { uri = record.request.uri })
        end
        return P"#,
    );
    let (backend, sink) = (Backend::echo(), Backend::fixed("HTTP/1.1 204 No Content\r\n\r\n"));
    let gateway = folder.gateway(&backend, &format!("{{url: '{}'}}", sink.url())).workers(1).start();
    for index in 0..50 {
        assert_eq!(get(&gateway, &format!("/{index}"), &[]).status, 200);
    }
    let bodies = || -> String {
        sink.requests().iter().map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect()
    };
    eventually(PATIENCE, || bodies().contains("\\/49\""));
    let all = bodies();
    assert!((0..50).all(|index| all.contains(&format!("\\/{index}\""))), "{all}");
    assert!(sink.request_count() < 20, "they were sent together: {} requests", sink.request_count());
    // What waits for company when the gateway ends is sent before it does.
    assert_eq!(get(&gateway, "/last", &[]).status, 200);
    gateway.stop();
    assert!(bodies().contains("\\/last\""), "{}", bodies());
}

#[test]
fn tls_is_verified_when_the_plugin_asks() {
    if !has_tool("redis-server") {
        return;
    }
    let folder = Folder::new(
        r#"
        local redis = require "resty.redis"
        local P = { PRIORITY = 900 }
        function P:access(conf)
          local red = redis:new()
          local verify = kong.request.get_header("X-Verify") ~= nil
          local name = kong.request.get_header("X-Name")
          local ok, err = red:connect("127.0.0.1", conf.port, { ssl = true, ssl_verify = verify, server_name = name })
          if not ok then return kong.response.exit(502, err) end
          kong.response.exit(200, assert(red:ping()))
        end
        return P"#,
    );
    let (authority, backend) = (Authority::new(), Backend::echo());
    let (redis, dir) = redis_with_tls(&authority, "redis.test");
    let trusted = dir.path().join("ca.pem").display().to_string();
    let gateway = folder.gateway(&backend, &format!("{{port: {}}}", redis.tls_port())).workers(1);
    let gateway = gateway.env("KONG_LUA_SSL_TRUSTED_CERTIFICATE", trusted).start();
    for (headers, status) in [
        (&[("X-Name", "redis.test")][..], 200),
        (&[("X-Name", "redis.test"), ("X-Verify", "1")][..], 200),
        (&[("X-Name", "other.test"), ("X-Verify", "1")][..], 502),
    ] {
        let response = get(&gateway, "/", headers);
        assert_eq!(response.status, status, "{headers:?}: {}", response.text());
    }
}

#[test]
fn hostile_handlers_harm_themselves_only() {
    let folder = Folder::new(
        r#"
        local P = { PRIORITY = 5 }
        local tries = {
          timers = function() for i = 1, 1e6 do if not ngx.timer.at(1000, print) then return end end end,
          tick = function() for i = 1, 1000 do ngx.timer.at(0, function() while true do end end) end end,
          silent = function(conf)
            local sock = ngx.socket.tcp()
            sock:connect("127.0.0.1", conf.port)
            sock:receive()
          end,
          huge = function(conf)
            local sock = ngx.socket.tcp()
            sock:connect("127.0.0.1", conf.endless)
            return sock:receive("*a")
          end,
          threads = function() for i = 1, 1e5 do ngx.thread.spawn(ngx.sleep, 100) end end,
          shared = function() for i = 1, 1e5 do ngx.shared.hostile:set(i, ("x"):rep(10000)) end end,
          recurse = function() local function again() ngx.timer.at(0, again) end again() end,
        }
        function P:access(conf)
          local try = tries[kong.request.get_header("X-Try")]
          if try then try(conf) end
        end
        function P:header_filter()
          if kong.request.get_header("X-Try") == "late" then ngx.sleep(1) end
        end
        return P"#,
    );
    let backend = Backend::echo();
    let silent = Backend::raw(|_, stream| {
        pause(Duration::from_secs(20));
        drop(stream);
    });
    let endless = Backend::raw(|_, mut stream| while stream.write_all(&[b'x'; 65536]).is_ok() {});
    let config = format!("{{port: {}, endless: {}}}", silent.addr().port(), endless.addr().port());
    let gateway = folder.gateway(&backend, &config).workers(1).start();
    std::thread::scope(|scope| {
        let waiting = ["silent", "silent", "silent"].map(|name| {
            let mut client = RawClient::connect(gateway.proxy());
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Try: {name}\r\n\r\n").as_bytes());
            client
        });
        for name in ["late", "huge", "threads", "shared", "recurse", "timers", "tick", "huge"] {
            let began = std::time::Instant::now();
            let tried = scope.spawn(|| get(&gateway, "/", &[("X-Try", name)]).status);
            assert!(tried.join().is_ok_and(|status| status == 200 || status == 500), "{name}");
            assert_eq!(get(&gateway, "/", &[]).status, 200, "after {name}");
            assert!(began.elapsed() < Duration::from_secs(15), "{name}: {:?}", began.elapsed());
        }
        drop(waiting);
    });
}
