//! See `sublet_api::fuzzing::api_queries`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_api::fuzzing::api_queries(data));
