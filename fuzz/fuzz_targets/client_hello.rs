//! First messages of TLS handshakes: see `gateward_net::client_hello::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_net::client_hello::fuzzing::client_hello(data));
