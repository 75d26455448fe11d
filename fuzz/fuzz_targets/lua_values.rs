//! Lua values as JSON: see `gateward_lua::fuzzing::values`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_lua::fuzzing::values(data));
