//! Paths and queries: see `gateward_http::fuzzing::uri`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_http::fuzzing::uri(data));
