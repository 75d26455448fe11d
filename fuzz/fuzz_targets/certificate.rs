//! Certificates and keys: see `gateward_net::tls::fuzzing::certificate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_net::tls::fuzzing::certificate(data));
