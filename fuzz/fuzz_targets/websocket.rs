//! WebSocket frames: see `gateward_http::fuzzing::websocket`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_http::fuzzing::websocket(data));
