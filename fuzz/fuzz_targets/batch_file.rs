//! See `sublet_cloud::fuzzing::batch_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_cloud::fuzzing::batch_file(data));
