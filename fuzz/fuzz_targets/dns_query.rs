//! DNS: see `gateward_dns::fuzzing::query`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_dns::fuzzing::query(data));
