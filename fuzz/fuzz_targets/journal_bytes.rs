//! See `sublet_gateway::fuzzing::journal_bytes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_gateway::fuzzing::journal_bytes(data));
