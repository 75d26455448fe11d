//! Modules that the gateway brings, tried by handlers in Lua.

use super::waiting::holds;

#[test]
fn cjson() {
    holds("cjson", include_str!("lua/cjson.lua"));
}
