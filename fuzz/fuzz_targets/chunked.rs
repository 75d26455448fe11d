//! Chunked bodies: see `gateward_http::fuzzing::chunked`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_http::fuzzing::chunked(data));
