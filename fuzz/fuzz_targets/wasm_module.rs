//! Wasm filters: see `gateward_wasm::fuzzing::module`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_wasm::fuzzing::module(data));
