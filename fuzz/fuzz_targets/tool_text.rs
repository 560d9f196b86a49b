//! See `sublet_gateway::fuzzing::tool_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_gateway::fuzzing::tool_text(data));
