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
