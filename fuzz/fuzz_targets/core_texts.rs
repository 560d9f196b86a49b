//! See `sublet_core::fuzzing::core_texts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_core::fuzzing::core_texts(data));
