//! Modules that the gateway brings, tried by handlers in Lua.

use super::waiting::holds;

#[test]
fn cjson() {
    holds("cjson", include_str!("lua/cjson.lua"));
}

#[test]
fn digests_and_small_helpers() {
    holds("tools", include_str!("lua/tools.lua"));
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
