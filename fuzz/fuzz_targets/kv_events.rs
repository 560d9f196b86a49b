//! See `sublet_gateway::fuzzing::kv_events`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_gateway::fuzzing::kv_events(data));
