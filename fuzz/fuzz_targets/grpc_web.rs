//! gRPC-Web texts and trailers: see `gateward_plugin::fuzzing::grpc_web`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_plugin::fuzzing::grpc_web(data));
