//! Modules that the gateway brings, tried by handlers in Lua.

use super::waiting::holds;
use super::*;

#[test]
fn cjson() {
    holds("cjson", include_str!("lua/cjson.lua"));
}

#[test]
fn digests_and_small_helpers() {
    holds("tools", include_str!("lua/tools.lua"));
}

#[test]
fn keys_and_ciphers() {
    holds("crypto", concat!(include_str!("lua/keys.lua"), include_str!("lua/crypto.lua")));
}

/// In phases that cannot wait.
#[test]
fn work_that_holds_a_worker_is_refused_where_nobody_can_wait() {
    let body = r#"
        local pkey, kdf, cipher = require "resty.openssl.pkey", require "resty.openssl.kdf", require "resty.openssl.cipher"
        local function refused(words, value, err) assert(value == nil and err:find(words, 1, true), tostring(err)) end
        local function derive(rounds)
          return kdf.derive { type = kdf.PBKDF2, md = "sha256", pass = "p", salt = "s", pbkdf2_iter = rounds, outlen = 32 }
        end
        local phase = ngx.get_phase()
        refused("holds a worker too long, and " .. phase .. " cannot wait", pkey.new { type = "RSA" })
        assert(pkey.new { type = "EC" } and pkey.new { type = "Ed25519" })
        assert(#derive(20000) == 32)
        refused("1 to 100000 in all are taken in a phase that cannot wait", derive(100001))
        refused("in a phase that cannot wait", cipher.new("aes-128-cbc"):derive("p", "saltsalt", 200000))
        _G.went = (_G.went or "") .. phase .. " "
        _G.went_through = function() return _G.went end
    "#;
    let phases = ["header_filter", "body_filter", "log"];
    let functions: String = phases.map(|phase| format!("function P:{phase}()\n{body}\nend\n")).concat();
    let (_folder, plugin) = plugin("work-refused", &format!("local P = {{ PRIORITY = 5 }}\n{functions}return P"));
    let mut exchange = Exchange::new();
    exchange.response.status = 200;
    plugin.header_filter(&mut exchange);
    plugin.body_filter(&mut exchange, &mut Vec::new(), true);
    plugin.log(&gateward_plugin::RequestRecord::of(&exchange));
    let error = vm::LAST_ERROR.take();
    assert_eq!(error, "");
    assert_eq!(plugin.vm().unwrap().evaluate("went_through"), "header_filter body_filter log ");
}

#[test]
fn work_whose_client_goes_is_given_up() {
    let (_folder, plugin) = plugin(
        "work-left",
        r#"
        local pkey = require "resty.openssl.pkey"
        local P, went = { PRIORITY = 5 }, 0
        function P:access() assert(pkey.new { type = "RSA" }) went = went + 1 end
        _G.times = function() return tostring(went) end
        return P"#,
    );
    let mut exchange = Exchange::new();
    block_on(async {
        let Step::Wait(mut waiting) = plugin.access(&mut exchange) else { panic!("it does not wait") };
        let waits = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await;
        assert!(waits, "it takes a while");
    });
    assert_eq!(plugin.vm().unwrap().shared().lanes.get(), 0, "its coroutine is gone");
    assert_eq!(status(&run(plugin.access(&mut Exchange::new()))), None, "{}", vm::LAST_ERROR.take());
    assert_eq!(plugin.vm().unwrap().evaluate("times"), "1");
}

#[test]
fn tokens() {
    holds("jwt", concat!(include_str!("lua/keys.lua"), include_str!("lua/jwt.lua")));
}

#[test]
fn keys_of_tokens_are_read_once() {
    let body = r#"
        local jwt, rest = require "resty.jwt", rest
        local token = jwt:sign(keys.p256, { header = { alg = "ES256" }, payload = {} })
        for _ = 1, 20 do
          rest()
          assert(jwt:verify(keys.p256_public, token).verified)
          -- Another one is another key.
          assert(not jwt:verify(keys.p384_public, token).verified)
        end
        for n = 1, 200 do
          if n % 10 == 0 then rest() end
          assert(not jwt:verify(keys.p256_public .. n, token .. "x").verified)
        end
        assert(jwt:verify(keys.p256_public, token).verified)
    "#;
    let read = || crate::crypto::key::tests::READ.get();
    let before = read();
    holds("jwt-keys", &[include_str!("lua/keys.lua"), body].concat());
    // The three, two hundred others, and once more what was let go for them.
    assert_eq!(read() - before, 204);
}

#[test]
fn yaml() {
    holds("yaml", include_str!("lua/yaml.lua"));
}

#[test]
fn caches_and_locks() {
    holds("caches", include_str!("lua/caches.lua"));
}

#[test]
fn entities_of_the_configuration() {
    holds("entities", include_str!("lua/entities.lua"));
}

#[test]
fn things_are_sent_together_and_again() {
    holds("queue", include_str!("lua/queue.lua"));
}

#[test]
fn certificates() {
    holds("x509", include_str!("lua/x509.lua"));
}

/// The guide's list, which is what plugins' authors go by.
#[test]
fn the_guide_names_what_the_gateway_brings() {
    let guide = include_str!("../../../../../docs/guide/lua-plugins.md");
    let (_, list) = guide.split_once("`require` finds:").expect("the guide lists modules");
    let (list, _) = list.split_once("\n\n").expect("a paragraph ends");
    let mut listed: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    listed.sort_unstable();
    let (_folder, plugin) = plugin("modules", "return { PRIORITY = 5, access = function() end }");
    let mut brought = plugin.vm().unwrap().modules();
    // What the language has by itself.
    brought.retain(|name| !["_G", "coroutine", "io", "math", "os", "string", "table"].contains(&name.as_str()));
    brought.sort_unstable();
    assert_eq!(listed, brought);
}
