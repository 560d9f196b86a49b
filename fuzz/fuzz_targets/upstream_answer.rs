//! See `sublet_gateway::fuzzing::upstream_answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_gateway::fuzzing::upstream_answer(data));
