//! See `sublet_core::fuzzing::usage_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_core::fuzzing::usage_record(data));
