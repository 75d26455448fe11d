//! Any bytes as a zone file: no panic, and what reads survives being written (see `gateward_zone::fuzzing`).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_zone::fuzzing::zone_file(data));
