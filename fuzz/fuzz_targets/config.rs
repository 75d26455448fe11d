//! Any bytes as a declarative file: no panic, and what loads survives a dump (see `gateward_config::fuzzing`).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_config::fuzzing::config(data));
