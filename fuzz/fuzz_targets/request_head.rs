//! Request and response heads: see `gateward_http::fuzzing::request_head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_http::fuzzing::request_head(data));
