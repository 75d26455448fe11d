//! PROXY protocol headers: see `gateward_net::proxy_protocol::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_net::proxy_protocol::fuzzing::proxy_protocol(data));
