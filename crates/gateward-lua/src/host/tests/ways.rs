//! What plugins say about the way to the upstream: where further tries go, and TLS.

use super::*;
use gateward_plugin::{Detour, RequestRecord};
use std::rc::Rc;

/// A plugin with these bodies of phases.
fn phases(name: &str, phases: &[(&str, &str)]) -> (Folder, LuaPlugin) {
    let bodies: String =
        phases.iter().map(|(phase, body)| format!("function P:{phase}(conf)\n{body}\nend\n")).collect();
    plugin(name, &format!("local P = {{ PRIORITY = 5 }}\n{bodies}return P"))
}

fn detour(exchange: &Exchange) -> &Detour {
    exchange.upstream.detour.as_deref().expect("something is not as the service says")
}

/// Ask what the plugin said is to be asked between two tries: whether to go by it.
fn ask(exchange: &mut Exchange) -> bool {
    let asked = detour(exchange).before_retry.clone().expect("a callback is set");
    asked.ask(exchange)
}

/// The exchange after an access phase of which nothing is to go wrong.
#[track_caller]
fn passed(plugin: &LuaPlugin) -> Exchange {
    let mut exchange = Exchange::new();
    assert_eq!(status(&run(plugin.access(&mut exchange))), None, "{}", vm::LAST_ERROR.take());
    exchange
}

#[test]
fn a_callback_says_where_the_next_try_goes() {
    let access = r##"
        kong.service.set_target("first.test", 80)
        kong.ctx.plugin.tries = 0
        assert(kong.service.set_target_retry_callback(function(...)
          assert(select("#", ...) == 0)
          assert(ngx.get_phase() == "balancer")
          local tries = kong.ctx.plugin.tries + 1
          kong.ctx.plugin.tries = tries
          kong.service.request.set_header("X-Try", tries)
          if tries == 1 then return "second.test", 8080 end
          if tries == 2 then kong.service.set_target("third.test", 8081) return true end
          if tries == 3 then return nil, "none left" end
          if tries == 4 then error("broken") end
          if tries == 5 then return "host", "port" end
          if tries == 6 then ngx.sleep(0.001) end
          if tries == 7 then kong.response.exit(403) end
          if tries == 8 then while true do end end
          return true
        end) == nil)
        for _, wrong in ipairs { 1, "x", {}, false } do
          local fine, err = pcall(kong.service.set_target_retry_callback, wrong)
          assert(not fine and err:find("retry_callback must be a function", 1, true), err)
        end
    "##;
    let (_folder, plugin) = phases("retry-callback", &[("access", access)]);
    let mut exchange = passed(&plugin);
    let target = |exchange: &Exchange| detour(exchange).target.clone().map(|(host, port)| format!("{host}:{port}"));
    assert_eq!(target(&exchange).as_deref(), Some("first.test:80"));
    for (tries, goes, expected, error) in [
        (1, true, "second.test:8080", ""),
        (2, true, "third.test:8081", ""),
        (3, false, "third.test:8081", "none left"),
        (4, false, "third.test:8081", "broken"),
        (5, false, "third.test:8081", "port must be an integer"),
        (6, false, "third.test:8081", "API disabled in the context of balancer"),
        (7, false, "third.test:8081", "cannot be called in balancer phase"),
        (8, false, "third.test:8081", ""),
        (9, true, "third.test:8081", ""),
    ] {
        vm::LAST_ERROR.take();
        assert_eq!(ask(&mut exchange), goes, "try {tries}: {}", vm::LAST_ERROR.take());
        assert_eq!(target(&exchange).as_deref(), Some(expected), "try {tries}");
        let said = vm::LAST_ERROR.take();
        assert!(said.contains(error) && said.is_empty() == goes, "try {tries}: {said}");
        assert_eq!(exchange.request.headers.get("x-try"), Some(tries.to_string().as_bytes()));
    }
    assert_eq!(exchange.upstream.host.as_deref(), Some("third.test"));
    let counts = &plugin.instance().counts;
    assert_eq!((counts.calls(Phase::Balancer), counts.errors(Phase::Balancer), counts.stopped()), (9, 6, 1));
}

#[test]
fn a_callback_is_its_requests() {
    let access = r#"
        kong.ctx.plugin.host = kong.request.get_header("set")
        kong.service.set_target_retry_callback(function() return kong.ctx.plugin.host, 1 end)
    "#;
    let (_folder, plugin) = phases("retry-own", &[("access", access)]);
    let mut exchanges: Vec<Exchange> = ["a.test", "b.test"].into_iter().map(with_header).collect();
    for exchange in &mut exchanges {
        assert_eq!(status(&run(plugin.access(exchange))), None);
    }
    for (exchange, expected) in exchanges.iter_mut().zip(["a.test", "b.test"]) {
        assert!(ask(exchange));
        assert_eq!(detour(exchange).target, Some((expected.to_owned(), 1)));
    }
    // The next request on the connection has none.
    let callback = detour(&exchanges[0]).before_retry.clone().unwrap();
    exchanges[0].reset();
    assert!(exchanges[0].upstream.detour.is_none());
    assert!(!callback.ask(&mut exchanges[0]));
}

#[test]
fn tries_are_known_as_in_kong() {
    let access = r#"
        kong.service.set_target_retry_callback(function()
          local data = ngx.ctx.balancer_data
          local tries = data.tries
          assert(data.try_count == #tries)
          local first, begun = tries[1], tries[#tries]
          assert(first.ip == "10.0.0.9" and first.port == 80 and first.state == "failed" and first.code == 502)
          assert(first.balancer_start == 1700000000123 and first.balancer_latency == 2 and first.balancer_latency_ns == 2.5e6)
          assert(begun.ip == nil and begun.state == nil and begun.balancer_start > 1.7e12)
          if #tries == 3 then
            assert(tries[2].ip == "::1" and tries[2].port == 81 and tries[2].state == "timeout" and tries[2].code == 504)
            assert(data.own == 2)
          end
          data.own = #tries
          return "b.test", 80
        end)
    "#;
    let header_filter = r#"
        local tries = ngx.ctx.balancer_data.tries
        assert(#tries == 3 and tries[2].code == 504)
        kong.response.set_header("X-Tried", tries[3].ip)
    "#;
    let log = r#"
        local data = ngx.ctx.balancer_data
        local tries = data and data.tries or {}
        local texts = {}
        for i, each in ipairs(tries) do
          texts[i] = table.concat({ each.ip, each.port, tostring(each.state), tostring(each.code) }, " ")
        end
        _G.seen_text = function() return table.concat(texts, ", ") end
    "#;
    let (_folder, plugin) = phases("tries", &[("access", access), ("header_filter", header_filter), ("log", log)]);
    let mut exchange = passed(&plugin);
    for attempt in [tried("10.0.0.9:80", 2_500, Some("failed")), tried("[::1]:81", 2_500, Some("timeout"))] {
        exchange.tries.push(attempt);
        assert!(ask(&mut exchange), "{}", vm::LAST_ERROR.take());
    }
    exchange.tries.push(tried("10.0.0.8:80", 2_500, None));
    exchange.response.status = 200;
    plugin.header_filter(&mut exchange);
    assert_eq!(exchange.response.headers.get_str("x-tried"), Some("10.0.0.8"), "{}", vm::LAST_ERROR.take());
    let seen = |exchange: &Exchange| {
        plugin.log(&RequestRecord { tries: &exchange.tries, ..RequestRecord::of(exchange) });
        plugin.vm().unwrap().evaluate("seen_text")
    };
    assert_eq!(seen(&exchange), "10.0.0.9 80 failed 502, ::1 81 timeout 504, 10.0.0.8 80 nil nil");
    // Also where nobody was asked for another way.
    assert_eq!(seen(&passed(&plugin)), "");
    let mut exchange = passed(&plugin);
    exchange.tries.push(tried("10.0.0.8:80", 2_500, None));
    assert_eq!(seen(&exchange), "10.0.0.8 80 nil nil");
}

#[test]
fn what_a_callback_leaves_is_nobody_elses() {
    let access = r#"
        kong.ctx.plugin.big = ("x"):rep(1e6) .. kong.request.get_header("set")
        local big = kong.ctx.plugin.big
        kong.service.set_target_retry_callback(function()
          pcall(ngx.exit, 200)
          return "host" .. #big, 1
        end)
    "#;
    let (_folder, plugin) = phases("retry-left", &[("access", access), ("header_filter", "error('broken')")]);
    let mut exchanges: Vec<Exchange> = (0..20).map(|n| with_header(&n.to_string())).collect();
    for exchange in &mut exchanges {
        assert_eq!(status(&run(plugin.access(exchange))), None, "{}", vm::LAST_ERROR.take());
        assert!(ask(exchange), "{}", vm::LAST_ERROR.take());
    }
    // That one left is not said of the next call.
    vm::LAST_ERROR.take();
    let mut other = Exchange::new();
    other.response.status = 200;
    plugin.header_filter(&mut other);
    assert!(vm::LAST_ERROR.take().contains("broken"));
    nothing_is_kept(&plugin, exchanges);
}

fn with_header(value: &str) -> Exchange {
    let mut exchange = Exchange::new();
    exchange.request.headers.add("set", value);
    exchange
}

const CERT: &str = include_str!("lua/x509.lua");

/// The certificate that `lua/x509.lua` is about.
fn cert() -> &'static str {
    let (_, rest) = CERT.split_once("[[\n").expect("the text begins");
    rest.split_once("]]").expect("the text ends").0
}

#[test]
fn a_certificate_of_the_plugin_goes_upstream() {
    let access = format!(
        r#"
        local ssl, set = require "ngx.ssl", kong.service.set_tls_cert_key
        local chain = assert(ssl.parse_pem_cert([[
{}]]))
        local key = assert(ssl.parse_pem_priv_key("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
        local function fails(why, ...)
          local fine, err = pcall(set, ...)
          assert(not fine and err:find(why, 1, true), err)
        end
        for _, wrong in ipairs {{ 1, "pem", {{}}, key }} do fails("chain must be a parsed cdata object", wrong, key) end
        for _, wrong in ipairs {{ 1, "pem", {{}}, chain }} do fails("key must be a parsed cdata object", chain, wrong) end
        fails("key must be a parsed cdata object", chain)
        local fine, err = set(chain, key)
        assert(fine == true and err == nil)
        "#,
        cert()
    );
    let (_folder, plugin) = phases("tls-cert-key", &[("access", &access)]);
    let exchange = passed(&plugin);
    let identity = detour(&exchange).tls_identity.as_ref().unwrap();
    assert_eq!(identity.cert(), cert());
    assert!(identity.key().expose().contains("AAAA"));
}

#[test]
fn authorities_of_the_plugin_verify_the_upstream() {
    let access = format!(
        r#"
        local x509, store = require "resty.openssl.x509", require "resty.openssl.x509.store"
        local set, own = kong.service.set_tls_verify_store, assert(store.new())
        assert(own:add(assert(x509.new([[
{}]]))))
        for _, wrong in ipairs {{ 1, "x", {{}}, false }} do
          local fine, err = pcall(set, wrong)
          assert(not fine and err:find("argument must be a resty.openssl.x509.store object", 1, true), err)
        end
        if kong.request.get_header("set") then own:use_default() end
        local fine, err = set(own)
        assert(fine == true and err == nil)
        "#,
        cert()
    );
    let (_folder, plugin) = phases("tls-store", &[("access", &access)]);
    let authorities = detour(&passed(&plugin)).tls_authorities.clone().unwrap();
    assert_eq!(authorities.certs(), [cert()]);
    assert!(!authorities.with_trusted());
    let mut exchange = with_header("x");
    assert_eq!(status(&run(plugin.access(&mut exchange))), None, "{}", vm::LAST_ERROR.take());
    assert!(detour(&exchange).tls_authorities.as_ref().unwrap().with_trusted());
}

#[test]
fn what_is_brought_again_and_again_is_made_once() {
    let (_folder, plugin) = plugin(
        "tls-made",
        &format!(
            r#"
            local ssl, x509 = require "ngx.ssl", require "resty.openssl.x509"
            local cert = [[
{}]]
            local chain = assert(ssl.parse_pem_cert(cert))
            local function key(name)
              return assert(ssl.parse_pem_priv_key("-----BEGIN " .. name .. "KEY-----\nAAAA\n-----END " .. name .. "KEY-----\n"))
            end
            local one, other = key "", key "RSA "
            local store = assert(require("resty.openssl.x509.store").new())
            local P = {{ PRIORITY = 5 }}
            function P:access()
              local set = kong.request.get_header("set")
              if set == "add" then assert(store:add(assert(x509.new(cert)))) end
              kong.service.set_tls_cert_key(chain, set == "other" and other or one)
              kong.service.set_tls_verify_store(store)
            end
            return P"#,
            cert()
        ),
    );
    let brought = |set: &str| {
        let mut exchange = with_header(set);
        assert_eq!(status(&run(plugin.access(&mut exchange))), None, "{}", vm::LAST_ERROR.take());
        let detour = detour(&exchange);
        (detour.tls_identity.clone().unwrap(), detour.tls_authorities.clone().unwrap())
    };
    let (first, second) = (brought("x"), brought("x"));
    assert!(Rc::ptr_eq(&first.0, &second.0) && Rc::ptr_eq(&first.1, &second.1));
    let other = brought("other");
    assert!(other.0.key().expose().contains("RSA") && Rc::ptr_eq(&first.1, &other.1));
    let added = brought("add");
    assert_eq!((first.1.certs().len(), added.1.certs().len()), (0, 1));
    assert_eq!(added.0.fingerprint(), first.0.fingerprint());
}

#[test]
fn ways_can_be_said_in_their_phases_only() {
    let late = r#"
        for _, name in ipairs { "set_target_retry_callback", "set_tls_cert_key", "set_tls_verify_store" } do
          local fine, err = pcall(kong.service[name], function() end)
          assert(not fine and err:find("function cannot be called in header_filter phase (only in: "
            .. "rewrite, access, balancer, preread)", 1, true), err)
        end
        kong.response.set_header("X-Fine", "1")
    "#;
    let (_folder, plugin) = phases("ways-late", &[("header_filter", late)]);
    let mut exchange = Exchange::new();
    exchange.response.status = 200;
    plugin.header_filter(&mut exchange);
    assert!(exchange.response.headers.contains("x-fine"), "{}", vm::LAST_ERROR.take());
}

#[test]
fn telemetry_takes_what_kong_takes() {
    let access = r#"
        local log, conf = kong.telemetry.log, { __plugin_id = "id", plugin_instance_name = "one" }
        local function fails(why, ...)
          local fine, err = log(...)
          assert(fine == nil and err:find(why, 1, true), err)
        end
        fails("plugin_name must be a string", 1, conf, "t")
        fails("plugin_config must be a table", "p", nil, "t")
        fails("message_type must be a string", "p", conf)
        fails("message must be a string", "p", conf, "t", {})
        fails("attributes must be a table", "p", conf, "t", "m", "a")
        fails("type not supported", "p", conf, "t", "m", { print })
        local long = {}
        for i = 1, 2000 do long[i] = i end
        fails("too many values", "p", conf, "t", "m", long)
        fails("excessive size", "p", conf, "t", "m", { ("x"):rep(100000) })
        assert(log("p", conf, "t") == true)
        assert(log("p", conf, "t", "m", { ["node.id"] = 1, list = { true, "x" } }) == true)
    "#;
    let (_folder, plugin) = phases("telemetry", &[("access", access)]);
    passed(&plugin);
}
