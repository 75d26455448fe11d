//! JSON texts for Lua plugins: see `gateward_lua::fuzzing::text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_lua::fuzzing::text(data));
