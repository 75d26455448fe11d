//! Schemas of Lua plugins: see `gateward_lua::fuzzing::schema`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_lua::fuzzing::schema(data));
