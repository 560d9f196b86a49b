//! See `sublet_engine::fuzzing::constraint`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_engine::fuzzing::constraint(data));
