//! Small route tables against two slow oracles, and any text as an expression.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| gateward_route::fuzzing::route(data));
