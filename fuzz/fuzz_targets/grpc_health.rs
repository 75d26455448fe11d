//! Answers of gRPC health services: see `gateward_proxy::fuzzing::grpc_health`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateward_proxy::fuzzing::grpc_health(data));
