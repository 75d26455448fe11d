//! Any bytes as a policy, a force token and an audit log: no panic, and a policy survives being written (see `gateward_zone::fuzzing`).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_zone::fuzzing::policy(data));
