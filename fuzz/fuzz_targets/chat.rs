//! See `sublet_gateway::fuzzing::chat`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_gateway::fuzzing::chat(data));
