//! See `sublet_gateway::fuzzing::messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_gateway::fuzzing::messages(data));
